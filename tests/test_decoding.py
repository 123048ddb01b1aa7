import mir_eval
import numpy as np
import pytest

from beattrack.config import DecoderConfig
from beattrack.decoding import BarPointerFilter
from beattrack.events import TrackerState
from beattrack.gate import Gate
from beattrack.statespace import build_state_space
from beattrack.tracker import BeatReporter

FPS = 50.0


def pulse(times, seconds, rng=None):
    """Activations with a two-frame bump at each time, over a low noisy floor."""
    activation = np.full(int(seconds * FPS), 0.01)
    if rng is not None:
        activation += 0.03 * rng.random(len(activation))
    centre = np.asarray(times) * FPS - 0.5
    for shift in (0, 1):
        frame = np.floor(centre).astype(int) + shift
        inside = (frame >= 0) & (frame < len(activation))
        height = 0.9 * (1 - np.abs(frame - centre))
        activation[frame[inside]] = np.maximum(activation[frame[inside]], height[inside])
    return activation


def decode(beat, downbeat, config=None, latency=0):
    config = config or DecoderConfig()
    bar = BarPointerFilter(config, FPS)
    reporter = BeatReporter(bar, FPS, latency)
    found = []
    for t, (b, d) in enumerate(zip(beat, downbeat, strict=True)):
        event = reporter.step(t, (t + 1) / FPS, bar.step(float(b), float(d)))
        if event is not None:
            found.append(event)
    return found


def matched(found, truth, tolerance, after):
    truth = truth[truth > after]
    times = np.array([e.time_s for e in found])
    return np.mean([np.abs(times - t).min() <= tolerance for t in truth])


def test_nothing_that_is_not_a_number_gets_in():
    bar = BarPointerFilter(DecoderConfig(), FPS)
    bar.step(float("nan"), float("inf"), np.full(300, np.nan, dtype=np.float32))
    assert np.isfinite(bar.step(0.5, 0.1).confidence)


@pytest.mark.parametrize("bpm", [57, 72.5, 90, 120, 133.3, 150, 175, 210])
def test_steady_tempo_is_found_on_time_between_frames(bpm):
    truth = np.arange(0.3, 30, 60 / bpm)
    # A tempo prior wide enough that the octave is not in question here.
    found = decode(pulse(truth, 30), pulse(truth[::4], 30), DecoderConfig(tempo_spread=5))
    late = [e for e in found if e.time_s > 8]
    assert matched(found, truth, 0.015, 8) == 1  # frames are 0.020 s
    assert np.diff([e.time_s for e in late]).min() > 0.9 * 60 / bpm  # none doubled
    assert np.median([e.tempo_bpm for e in late]) == pytest.approx(bpm, rel=0.015)
    assert np.mean([e.confidence for e in late]) > 0.8


@pytest.mark.parametrize(("meter", "bpm"), [(2, 100), (3, 140), (4, 120), (6, 190)])
def test_meter_and_downbeats(meter, bpm):
    truth = np.arange(0.3, 40, 60 / bpm)
    config = DecoderConfig(tempo_spread=5, beats_per_bar=(2, 3, 4, 6))
    found = [e for e in decode(pulse(truth, 40), pulse(truth[::meter], 40), config)
             if e.time_s > 12]  # fmt: skip
    assert {e.beats_per_bar for e in found} == {meter}
    for event in found:
        assert event.position == np.abs(truth - event.time_s).argmin() % meter + 1


def test_reports_are_due_not_late():
    truth = np.arange(0.3, 30, 0.5)
    found = decode(np.roll(pulse(truth, 30), 3), pulse(truth[::4], 30), latency=3)
    late = [e for e in found if e.time_s > 8]
    assert matched(found, truth, 0.015, 8) == 1
    delays = np.array([e.emitted_s - e.time_s for e in late])
    # ahead_s is one frame: told within the frame before it falls due
    assert delays.min() >= -0.0201
    assert delays.max() <= 0.0001


def test_says_where_the_next_beat_will_fall():
    config = DecoderConfig()
    bar = BarPointerFilter(config, FPS)
    reporter = BeatReporter(bar, FPS, 0)
    truth = np.arange(0.3, 20, 0.5)
    last = -1.0
    for t, (b, d) in enumerate(zip(pulse(truth, 20), pulse(truth[::4], 20), strict=True)):
        event = reporter.step(t, (t + 1) / FPS, bar.step(float(b), float(d)))
        last = event.time_s if event else last
        if t > 500:
            assert reporter.next_beat_s == pytest.approx(last + 0.5, abs=0.02)


def test_follows_a_tempo_step_and_a_new_phase():
    first, second = np.arange(0.3, 20, 60 / 100), np.arange(20.17, 45, 60 / 140)
    truth = np.concatenate([first, second])
    found = decode(pulse(truth, 45), pulse(truth[::4], 45))
    assert matched(found, first, 0.03, 8) > 0.95
    assert matched(found, second, 0.03, 28) > 0.95


def test_noise_gives_little_confidence():
    rng = np.random.default_rng(0)
    config = DecoderConfig()
    bar = BarPointerFilter(config, FPS)
    noise = 0.04 * np.exp(0.5 * rng.standard_normal(2000))
    values = [bar.step(v, 0.2 * v).confidence for v in noise]
    assert np.mean(values[500:]) < 0.3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_activations_stay_finite(value):
    bar = BarPointerFilter(DecoderConfig(), FPS)
    for _ in range(500):
        estimate = bar.step(value, value)
    assert np.isfinite([estimate.phase, estimate.period, estimate.confidence]).all()


def test_twice_the_same_and_reset():
    rng = np.random.default_rng(3)
    bar = BarPointerFilter(DecoderConfig(), FPS)
    beat = rng.random(300)
    first = [bar.step(b, 0.3 * b) for b in beat]
    assert [bar.step(b, 0.3 * b) for b in beat] != first  # it remembered
    bar.reset()
    assert [bar.step(b, 0.3 * b) for b in beat] == first


def test_state_space_is_a_proper_markov_chain():
    space = build_state_space(DecoderConfig(), FPS)
    np.testing.assert_allclose(space.tempo_change.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(space.slot_change.sum(axis=1), 1, atol=1e-6)
    assert ((space.early > 0) & (space.early <= 1)).all()
    assert 60 * FPS / space.periods.max() == pytest.approx(55, rel=1e-3)
    assert 60 * FPS / space.periods.min() == pytest.approx(215, rel=1e-3)
    # from any beat the mean time to the next is the tempo's period
    counts = space.ends - space.starts
    np.testing.assert_allclose(
        space.early * counts + (1 - space.early) * (counts + 1), space.periods, rtol=1e-5
    )


def test_agrees_with_the_online_dbn_of_madmom():
    beats = pytest.importorskip("madmom.features.beats", reason="madmom is not installed")
    rng = np.random.default_rng(5)
    scores = []
    for bpm in (80, 110, 145):
        jitter = rng.normal(0, 0.008, 200)
        truth = np.cumsum(60 / bpm + jitter)
        truth = truth[truth < 40]
        truth = truth[rng.random(len(truth)) > 0.1]  # every tenth beat is not heard
        activation = pulse(truth, 40, rng)
        oracle = beats.DBNBeatTrackingProcessor(
            online=True, fps=int(FPS), min_bpm=55, max_bpm=215, num_tempi=None
        )
        theirs = np.concatenate([oracle.process_online(a[None], reset=False) for a in activation])
        ours = decode(activation, 0.25 * activation)
        times = np.array([e.time_s for e in ours])
        scores.append(mir_eval.beat.f_measure(theirs[theirs > 8], times[times > 8]))
    assert min(scores) > 0.9


def test_tempo_evidence_settles_the_octave():
    truth = np.arange(0.3, 20, 60 / 75)
    activation = pulse(truth, 20) + 0.6 * pulse(truth + 30 / 75, 20)  # strong half beats
    found = {}
    for bpm in (75, 150):
        tempo = np.zeros(300, dtype=np.float32)
        tempo[bpm - 1] = 1
        bar = BarPointerFilter(DecoderConfig(tempo_power=0.05), FPS)
        for b in np.minimum(activation, 0.95):
            estimate = bar.step(float(b), 0.25 * float(b), tempo)
        found[bpm] = 60 * FPS / estimate.period
    assert found[75] == pytest.approx(75, rel=0.03)
    assert found[150] == pytest.approx(150, rel=0.03)


def test_without_tempo_classes_there_is_no_evidence():
    first, second = (BarPointerFilter(DecoderConfig(), FPS) for _ in range(2))
    empty = np.empty(0, dtype=np.float32)
    assert [first.step(0.3, 0.1, empty) for _ in range(9)] == [
        second.step(0.3, 0.1) for _ in range(9)
    ]


def test_evidence_tells_a_pulse_from_none():
    """Applause has a likeliest pulse, too; only a pulse that recurs explains its frames better."""
    rng = np.random.default_rng(5)

    def mean_evidence(beat):
        tracked = BarPointerFilter(DecoderConfig(), 50.0)
        found = [tracked.step(float(p), 0.4 * float(p)).evidence for p in beat]
        return float(np.mean(found[300:]))

    steady = np.full(1500, 0.02)
    steady[10::25] = 0.7
    claps = np.full(1500, 0.02)
    claps[rng.choice(1500, 60, replace=False)] = 0.7  # as many, anywhere
    assert mean_evidence(steady) > 1.5
    assert mean_evidence(np.full(1500, 0.02)) < -0.25
    assert mean_evidence(claps) < mean_evidence(steady) - 2.5


def test_a_sure_tempo_head_is_evidence():
    """One class: 5.5 * (1 - 0.3) a second; all alike, none, or no numbers: nothing."""

    def first(tempo):
        return BarPointerFilter(DecoderConfig(), FPS).step(0.02, 0.0, tempo).evidence

    alone = np.zeros(300, dtype=np.float32)
    alone[119] = 1
    flat = np.full(300, 1 / 300, dtype=np.float32)
    none = first(None)
    assert first(alone) == pytest.approx(none + 3.85, abs=0.005)
    for silent in (flat, np.zeros(0, np.float32), np.ones(1, np.float32), 0 * flat, flat * np.nan):
        assert first(silent) == none


def test_the_gate_asks_for_evidence():
    gate = Gate(50.0)
    for _ in range(500):
        gate.step(1.0, 1.0, -0.25)
    assert gate.state is TrackerState.SEARCHING
    for _ in range(300):
        gate.step(1.0, 1.0, 2.5)
    assert gate.state is TrackerState.LOCKED
    for _ in range(60):  # a break of a second does no harm
        gate.step(1.0, 1.0, -1.0)
    assert gate.state is TrackerState.LOCKED
    for _ in range(400):
        gate.step(1.0, 1.0, -1.0)
    assert gate.state is TrackerState.LOST
