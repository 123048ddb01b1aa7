"""The tracker at any rate, in any number of channels, in blocks of any size."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest

from audio_tools import share_found
from beattrack.events import Beat, Event
from beattrack_runtime.live.fit import Fitter
from beattrack_runtime.session import LiveTracker
from flux_model import FluxModel, drum_loop


def _track(audio: np.ndarray, rate: int, block: int | None = None) -> list[Event]:
    tracker = LiveTracker(FluxModel(), rate)
    size = block or len(audio)
    events: list[Event] = []
    for start in range(0, len(audio), size):
        events += tracker.push(audio[start : start + size])
    return events + tracker.flush()


def _times(events: list[Event]) -> np.ndarray:
    return np.array([event.time_s for event in events if isinstance(event, Beat)])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_beats_are_found_at_any_rate(rate: int) -> None:
    audio, truth = drum_loop(10, 125, rate, 0.3)
    assert share_found(_times(_track(audio, rate)), truth[8:-1]) == 1


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_blocks_of_any_size_give_the_same_events(rate: int) -> None:
    audio, _ = drum_loop(7, 125, rate, 0.3)
    stereo = np.stack([audio, 0.5 * audio[::-1]], axis=1)
    whole = _track(stereo, rate)
    assert len(whole) > 5
    for block in (160, 441, 1000, 48000):
        assert _track(stereo, rate, block) == whole
    short = stereo[: 3 * rate]
    assert _track(short, rate, 1) == _track(short, rate)


def test_sample_types_mean_the_same() -> None:
    audio, _ = drum_loop(6, 120, 44100)
    ints = np.clip(audio * 32767, -32768, 32767).astype(np.int16)
    floats = ints / 32768
    expected = _track(ints, 44100)
    assert _times(expected).size > 3
    for same in (floats, floats.astype(np.float32), ints.astype(np.int32) << 16):
        assert _track(same, 44100) == expected
    assert _track(np.stack([ints] * 6, axis=1), 44100) == expected


def test_memory_does_not_grow_with_the_block() -> None:
    audio = np.zeros(48000 * 30, np.float32)
    tracker = LiveTracker(FluxModel(), 48000)
    tracker.push(audio[:48000])
    tracemalloc.start()
    tracker.push(audio)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6  # the audio itself has 5.8 MB


def test_the_report_counts_the_converters_delay() -> None:
    audio, _ = drum_loop(8, 120, 48000)
    tracker = LiveTracker(FluxModel(), 48000)
    assert 0 < tracker.input_delay_s < 0.002
    assert LiveTracker(FluxModel(), 22050).input_delay_s == 0
    for start in range(0, len(audio), 480):
        before = tracker.time_s
        for event in tracker.push(audio[start : start + 480]):
            # Known no earlier than declared, and reported with the block that made it known.
            assert before - 1e-3 < event.emitted_s <= tracker.time_s + 1e-3
    assert tracker.time_s == pytest.approx(8.0)


def test_what_is_not_a_number_is_silence() -> None:
    audio, _ = drum_loop(8, 120, 44100)
    hurt = audio.copy()
    hurt[44100:44110] = np.nan
    hurt[50000], hurt[50001] = np.inf, -np.inf
    tracker = LiveTracker(FluxModel(), 44100)
    events = tracker.push(hurt)
    assert tracker.bad_samples == 12
    assert _times(events).size > 5
    assert np.isfinite(_times(events)).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_random_bits_as_floats_cause_no_warning(channels: int) -> None:
    bits = np.random.default_rng(5).integers(0, 2**32, 48000, np.uint32)
    tracker = LiveTracker(FluxModel(), 48000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.push(bits.view(np.float32).reshape(-1, channels))
        Fitter(44100, 48000, 1).push(bits.view(np.float32).reshape(-1, channels))


def test_huge_samples_do_not_stop_the_tracker() -> None:
    audio, truth = drum_loop(14, 120, 44100)
    hurt = audio.astype(np.float64)
    hurt[10000:10010] = 1e300
    hurt[11000:11010] = -3e38
    assert share_found(_times(_track(hurt, 44100)), truth[16:-1]) > 0.8


def test_reset_begins_again() -> None:
    audio, _ = drum_loop(6, 120, 48000)
    tracker = LiveTracker(FluxModel(), 48000)
    first = tracker.push(audio) + tracker.flush()
    assert tracker.flush() == []
    with pytest.raises(ValueError, match="reset"):
        tracker.push(audio)
    tracker.reset()
    assert tracker.time_s == 0
    assert tracker.push(audio) + tracker.flush() == first


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((2, 44100), np.float32),
        np.zeros((10, 0), np.float32),
        np.zeros((2, 2, 2), np.float32),
        np.float32(0),
        np.zeros(10, np.uint8),
        np.zeros(10, np.int64),
        np.zeros(10, np.complex64),
    ],
)
def test_other_arrays_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"Samples must be .*\.$"):
        LiveTracker(FluxModel()).push(samples)


@pytest.mark.parametrize("rate", [0, -1, 999, 10**7])
def test_other_rates_are_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        LiveTracker(FluxModel(), rate)


def test_no_samples_make_no_events() -> None:
    tracker = LiveTracker(FluxModel(), 44100)
    assert tracker.push(np.zeros(0, np.float32)) == []
    assert tracker.push(np.zeros((0, 2), np.int16)) == []
    assert tracker.push(np.zeros(3, np.float32)) == []
    assert tracker.flush() == []
    assert tracker.tempo_bpm is None
    assert tracker.next_beat_s is None
