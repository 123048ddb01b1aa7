import numpy as np
import pytest

from beattrack.config import DecoderConfig
from beattrack.events import Beat, StateChange, TrackerState
from beattrack.tracker import BeatTracker
from flux_model import FluxModel, drum_loop


def run(audio, block, tracker=None):
    tracker = tracker or BeatTracker(FluxModel())
    return [e for i in range(0, len(audio), block) for e in tracker.push(audio[i : i + block])]


@pytest.fixture(name="loop", scope="module")
def _loop():
    return drum_loop(14, 120)


def beats_of(events):
    return [e for e in events if isinstance(e, Beat)]


def test_finds_the_beats(loop):
    audio, truth = loop
    found = beats_of(run(audio, 1000))
    times = np.array([b.time_s for b in found])
    assert all(np.abs(times - t).min() < 0.03 for t in truth[truth > 4])
    assert np.median(np.diff(times)) == pytest.approx(0.5, abs=0.01)
    assert all(b.state is TrackerState.LOCKED and 0 <= b.confidence <= 1 for b in found)


def test_events_hold_plain_values(loop):
    """Who prints one, or writes it as JSON, need not know numpy."""
    events = run(loop[0], 1000)
    assert {type(event) for event in events} == {Beat, StateChange}
    values = [value for event in events for value in vars(event).values()]
    assert {type(value) for value in values} == {float, int, TrackerState}


@pytest.mark.parametrize("block", [160, 441, 1000, 48000])
def test_events_do_not_depend_on_the_block(loop, block):
    assert run(loop[0], block) == run(loop[0], 10**9)


def test_events_do_not_depend_on_the_block_sample_by_sample(loop):
    audio = loop[0][: 22050 * 5]
    assert run(audio, 1) == run(audio, 10**9) != []


def test_reset_reaches_the_model(loop):
    model = FluxModel()
    tracker = BeatTracker(model)
    tracker.push(loop[0][: 22050 * 2 + 441 * 3])
    model._last = 5.0
    tracker.reset()
    assert model._last == 0.0


def test_a_bad_sample_does_no_lasting_harm(loop):
    audio = loop[0].copy()
    audio[44100:44120] = [np.nan, np.inf] * 10
    clean = np.where(np.isfinite(audio), audio, 0)
    assert run(audio, 441) == run(clean, 441) != []


def test_twice_the_same_and_reset_resets(loop):
    tracker = BeatTracker(FluxModel())
    first = run(loop[0], 441, tracker)
    assert tracker.time_s == pytest.approx(14)
    again = run(loop[0], 441, tracker)
    assert again != first  # time went on
    tracker.reset()
    assert tracker.time_s == 0
    assert tracker.state is TrackerState.SEARCHING
    assert run(loop[0], 441, tracker) == first


def test_events_are_in_order_and_beats_are_apart(loop):
    events = run(loop[0], 700)
    emitted = [e.emitted_s for e in events]
    assert emitted == sorted(emitted)
    assert np.diff([b.time_s for b in beats_of(events)]).min() > 0.2
    assert isinstance(events[0], StateChange)
    assert events[0].state is TrackerState.LOCKED


def test_beats_are_still_due_when_the_samples_come_late(loop):
    delay = 0.03
    plain = beats_of(run(loop[0], 441))
    late = beats_of(run(loop[0], 441, BeatTracker(FluxModel(), input_delay_s=delay)))
    np.testing.assert_allclose(
        [b.time_s for b in late[-8:]], [b.time_s for b in plain[-8:]], atol=0.03
    )
    # emitted_s counts the delay, and the pulse is carried on over it
    assert {round((b.emitted_s - delay) % 0.02, 6) % 0.02 for b in late} == {0.0}
    assert all(-0.0201 <= b.emitted_s - b.time_s < 0.02 for b in late[-8:])


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_nothing_in_silence(level):
    rng = np.random.default_rng(0)
    audio = (level * rng.standard_normal(22050 * 20)).astype(np.float32)
    assert run(audio, 4410) == []


def test_falls_silent_when_the_music_does_and_comes_back(loop):
    audio = np.concatenate([loop[0], np.zeros(22050 * 12, np.float32), loop[0]])
    events = run(audio, 4410)
    states = [e.state for e in events if isinstance(e, StateChange)]
    assert states == [TrackerState.LOCKED, TrackerState.LOST, TrackerState.LOCKED]
    beats = np.array([b.time_s for b in beats_of(events)])
    assert not ((beats > 20) & (beats < 26)).any()
    assert (beats > 34).sum() > 6


def test_properties_follow_the_state(loop):
    tracker = BeatTracker(FluxModel())
    assert tracker.tempo_bpm is None
    assert tracker.next_beat_s is None
    last = beats_of(run(loop[0], 441, tracker))[-1]
    assert tracker.state is TrackerState.LOCKED
    assert tracker.tempo_bpm == pytest.approx(120, rel=0.03)
    assert tracker.next_beat_s == pytest.approx(last.time_s + 0.5, abs=0.03)
    assert tracker.confidence > 0.5


def test_frames_are_told_with_their_own_time(loop):
    tracker = BeatTracker(FluxModel())
    told = []
    tracker.on_frame = lambda *values: told.append(values)
    run(loop[0][:44100], 1000, tracker)
    times = np.array([t for t, _, _ in told])
    np.testing.assert_allclose(np.diff(times), 0.02)
    assert times[0] == pytest.approx((0.5 - 3) / 50)


def test_decoder_settings_can_be_given(loop):
    tracker = BeatTracker(FluxModel(), DecoderConfig(min_bpm=55, max_bpm=100))
    found = beats_of(run(loop[0], 441, tracker))
    assert found
    assert all(b.tempo_bpm < 102 for b in found)
