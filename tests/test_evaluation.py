"""Scores of events against annotations, each against a case worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from beattrack.peaks import PeakPicker
from beattrack_trainer.evaluation.evaluate import interval, level_shares, mean_scores
from beattrack_trainer.evaluation.live import Curves
from beattrack_trainer.evaluation.offline import dbn_beats, peaks
from beattrack_trainer.evaluation.parallel import each
from beattrack_trainer.evaluation.scores import (
    LEVELS,
    TIME_LEVELS,
    beat_f,
    level_times,
    score,
    score_beats,
    time_to_lock,
    trim,
)
from beattrack_trainer.evaluation.thresholds import (
    DEFAULT,
    THRESHOLDS,
    all_pairs,
    best_pair,
    mean_row,
    threshold_row,
)

TIMES = np.arange(0, 30, 0.5)  # 60 beats at 120 bpm; 50 of them count
TRUTH = np.column_stack([TIMES, np.tile([1, 2, 3, 4], 15)])


def events(times, delay=0.01, bpm=120.0):
    times = np.asarray(times, dtype=float)
    columns = [times, np.arange(len(times)) % 4 + 1, times + delay, np.full(len(times), bpm)]
    return np.column_stack(columns)


def test_perfect_beats():
    good = score(TRUTH, events(TIMES))
    ones = ("beat_f", "beat_f_emitted", "cmlc", "cmlt", "amlc", "amlt", "downbeat_f",
            "downbeat_cmlt", "tempo_acc1", "tempo_acc2", "time_right")  # fmt: skip
    assert [getattr(good, name) for name in ones] == [1.0] * len(ones)
    assert good.information_gain == pytest.approx(1, abs=1e-6)
    assert (good.error_ms, good.lock_s, good.beats_outside, good.level) == (0, 0, 0, "right")
    assert (good.delay_ms, good.latency_ms, good.latency_p90_ms) == pytest.approx((10, 10, 10))
    assert good.first_beat_s == 0.01
    assert good.annotated_bpm == pytest.approx(120)


def test_double_tempo():
    found = score(TRUTH, events(np.arange(0, 30, 0.25), bpm=240))
    assert found.beat_f == pytest.approx(2 * 50 / (50 + 100))
    assert found.cmlt == 0
    assert found.amlt == pytest.approx(0.99, abs=0.011)  # the last one lies after the annotation
    assert (found.tempo_acc1, found.tempo_acc2) == (0, 1)
    assert (found.level, found.time_double) == ("double", 1)


def test_half_tempo():
    found = score(TRUTH, events(TIMES[::2], bpm=60))
    assert found.beat_f == pytest.approx(2 * 25 / (25 + 50))
    assert found.cmlt == 0 and found.amlt == pytest.approx(1)
    assert (found.tempo_acc1, found.tempo_acc2) == (0, 1)
    assert (found.level, found.time_half) == ("half", 1)
    assert found.lock_s == np.inf  # never four in a row


def test_off_beat():
    found = score(TRUTH, events(TIMES + 0.25))
    assert (found.beat_f, found.cmlt) == (0, 0)
    assert found.amlt > 0.97
    assert (found.level, found.time_off_beat) == ("off_beat", 1)
    assert (found.tempo_acc1, found.tempo_acc2) == (1, 1)
    assert np.isnan(found.error_ms) and found.to_dict()["error_ms"] is None


def test_another_tempo_altogether():
    found = score(TRUTH, events(np.arange(0, 30, 2 / 3), bpm=90))
    assert found.level == "other"
    assert (found.tempo_acc1, found.tempo_acc2) == (0, 0)
    assert score(TRUTH, events(TIMES, bpm=360)).tempo_acc2 == 1
    assert score(TRUTH, events(TIMES, bpm=124.7)).tempo_acc1 == 1
    assert score(TRUTH, events(TIMES, bpm=124.9)).tempo_acc1 == 0  # 4 % of 120 is 4.8


def test_late_by_30_ms():
    late = score(TRUTH, events(TIMES + 0.03, delay=0.05))
    assert (late.beat_f, late.cmlt, late.level) == (1, 1, "right")
    assert (late.error_ms, late.latency_ms, late.delay_ms) == pytest.approx((30, 80, 50))
    assert late.beat_f_emitted == 0


def test_late_reports_lower_the_emitted_score_alone():
    late = score(TRUTH, events(TIMES, delay=0.1))
    assert (late.beat_f, late.beat_f_emitted) == (1, 0)


def test_a_missing_start():
    late = score(TRUTH, events(TIMES[20:]))
    assert late.beat_f == pytest.approx(2 * 40 / (50 + 40))
    assert (late.lock_s, late.first_beat_s) == (10, 10.01)
    assert late.time_right == pytest.approx(39 / 49)
    assert late.time_silent == pytest.approx(9 / 49)
    assert late.time_half == pytest.approx(1 / 49)  # the interval before the first beat


def test_time_to_lock_wants_four_in_a_row():
    kept = np.delete(TIMES, [3, 7])  # 0 1 2 - 4 5 6 - 8 9 ...
    assert time_to_lock(TIMES, kept) == 4.0
    assert time_to_lock(TIMES + 3, kept + 3) == 4.0  # from the first annotated beat
    assert time_to_lock(TIMES[:3], TIMES) == np.inf
    assert time_to_lock(TIMES, np.empty(0)) == np.inf


def test_shares_of_time_add_up_and_tell_levels_apart():
    truth = np.array([10.0, 11, 12, 13, 14, 15, 16])
    #         right, double,     half (none at 13), half, off-beat gone, other
    stated = np.array([10.0, 11, 11.5, 12, 14, 14.3, 14.6, 15])
    shares = level_times(truth, stated)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares) == list(TIME_LEVELS)
    wanted = {"right": 1, "double": 1, "half": 3, "other": 1}
    assert shares == {k: pytest.approx(wanted.get(k, 0) / 6) for k in TIME_LEVELS}


def test_beats_where_no_music_is_annotated():
    inside = TRUTH[20:40]  # 10 s to 19.5 s
    found = score(inside, events(TIMES))
    assert found.beats_outside == 18 + 18  # those before 9 s and after 20.5 s


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_events(count):
    found = score(TRUTH, events(TIMES[20 : 20 + count]))
    assert found.beat_f == pytest.approx(2 * count / (50 + count))
    values = found.to_dict()
    assert all(v is None or isinstance(v, str) or np.isfinite(v) for v in values.values())
    assert values["lock_s"] is None
    assert (values["delay_ms"] is None) == (count == 0)


def test_without_annotated_downbeats():
    plain = TRUTH.copy()
    plain[:, 1] = 2
    found = score(plain, events(TIMES))
    assert np.isnan(found.downbeat_f) and np.isnan(found.downbeat_cmlt)
    assert found.to_dict()["downbeat_f"] is None
    assert mean_scores([found, score(TRUTH, events(TIMES))])["downbeat_f"] == 1  # left out


def test_too_few_annotated_beats_have_no_score():
    with pytest.raises(ValueError, match="fewer than two beats"):
        score(TRUTH[:11], events(TIMES))


def test_means_medians_and_tracks_that_never_lock():
    rows = [score(TRUTH, events(TIMES)), score(TRUTH, events(TIMES[20:])),
            score(TRUTH, events(TIMES + 0.25))]  # fmt: skip
    mean = mean_scores(rows)
    assert mean["beat_f"] == pytest.approx((1 + 8 / 9 + 0) / 3, abs=1e-4)
    assert mean["lock_s"] == 10  # of 0, 10 and never
    assert mean_scores(rows[1:])["lock_s"] is None  # half of them never did
    assert level_shares(rows) == {
        k: {"right": 0.6667, "off_beat": 0.3333}.get(k, 0) for k in LEVELS
    }


def test_bootstrap_interval():
    low, high = interval([0.0, 1.0] * 50)
    # the normal approximation: 0.5 -+ 1.96 * 0.5 / 10
    assert (low, high) == pytest.approx((0.402, 0.598), abs=0.012)
    assert interval([0.3] * 9) == [0.3, 0.3]
    assert interval([0.3]) is None
    assert interval([0.3, np.nan]) is None


def curves(seed=0, frames=1500):
    """Random activations with pulses at the true beats and downbeats."""
    random = np.random.default_rng(seed)
    values = 0.4 * random.random((frames, 2))
    for time, position in TRUTH:
        values[int(time * 50) + 2] = (0.6 + 0.4 * random.random(), 0.9 if position == 1 else 0.1)
    return Curves(values.astype(np.float32), (0.5 - 2) / 50, 50.0, 0.001)


def test_the_grid_equals_peak_pickers_run_at_each_threshold():
    both = curves()
    found = peaks(both)
    row = threshold_row(TRUTH, *found)
    assert row.shape == (2, len(THRESHOLDS))
    truths = [trim(TIMES), trim(TIMES[::4])]
    for i, threshold in enumerate(THRESHOLDS):
        for k in range(2):
            picker = PeakPicker(threshold)
            told = [(picker.step(float(v)), n) for n, v in enumerate(both.frames[:, k])]
            told = [(at, n) for at, n in told if at is not None]
            ours = found[k][found[k][:, 1] >= threshold]
            # The activation of frame t speaks of (t + 0.5 - latency) / fps; it is told at the end
            # of the frame n that makes it certain.
            times = np.array([(at + 0.5 - 2) / 50 for at, _ in told])
            np.testing.assert_allclose(ours[:, 0], times, atol=1e-9)
            np.testing.assert_allclose(ours[:, 2], [(n + 1) / 50 + 0.001 for _, n in told])
            assert row[k, i] == beat_f(truths[k], trim(times))
    assert row[0].max() > 0.9 and row[1].max() > 0.9


def test_every_pair_and_the_best_one():
    row = threshold_row(TRUTH, *peaks(curves()))
    pairs = all_pairs(row)
    assert len(pairs) == 19 * 19 == len({(p["beat"], p["downbeat"]) for p in pairs})
    best = best_pair(row)
    top = max(pairs, key=lambda p: p["beat_f"] + p["downbeat_f"])
    chosen = next(p for p in pairs if (p["beat"], p["downbeat"]) == best)
    assert chosen["beat_f"] + chosen["downbeat_f"] == top["beat_f"] + top["downbeat_f"]
    unknown = np.array([row[0], np.full(19, np.nan)])
    assert best_pair(unknown) == (best[0], DEFAULT[1])
    np.testing.assert_allclose(mean_row([row, unknown])[1], row[1])
    assert np.isnan(mean_row([unknown])[1]).all()


def test_the_offline_dbn_finds_bars():
    pytest.importorskip("madmom")
    found = dbn_beats(curves())
    result = score_beats(TRUTH, found[:, 0], found[found[:, 1] == 1, 0])
    assert (result.beat_f, result.downbeat_f) == (1, 1)
    counted = found[(found[:, 0] > 5) & (found[:, 0] < 29)]
    nearest = np.abs(counted[:, :1] - TIMES).min(axis=1)
    assert nearest.max() <= 0.0101  # half a frame: frame times are corrected for the latency
    silent = Curves(np.zeros((500, 2), np.float32), -0.03, 50.0)
    assert dbn_beats(silent).shape == (0, 2)


def test_work_in_several_processes_is_the_same_work():
    alone = dict(each(abs, [-3, 4, -5], 1, "alone"))
    assert dict(each(abs, [-3, 4, -5], 2, "together")) == alone == {-3: 3, 4: 4, -5: 5}
