"""Noise, silence, another tempo and another song, through the shipped model, tracker and clock.

`benchmarks/robustness.py` measures more cases, and longer ones.
"""

from __future__ import annotations

import numpy as np
import pytest

import robustness
from beattrack.activations import ActivationModel
from beattrack_runtime.live.clock.ticks import ClockState
from beattrack_runtime.session import load_model
from flux_model import FluxModel, drum_loop
from music import drums
from robustness import RATE, SONG_BPM, noise, play, silence, song


@pytest.fixture(scope="module")
def model() -> ActivationModel:
    return load_model()


def test_noise_makes_no_beats(model: ActivationModel) -> None:
    course = play(noise(6, pink=True), model)
    assert course.beats == []
    assert course.changes == []


def test_a_song_that_stops_and_another_that_begins(model: ActivationModel) -> None:
    course = play(np.concatenate([song(0, 9), silence(4), song(20, 28)]), model)
    states = [change.state for change in course.changes]
    assert states[:2] == [ClockState.LOCKED, ClockState.SILENT]
    assert states[-1] is ClockState.LOCKED
    assert course.state_s(ClockState.SILENT, 9) < 3
    assert course.beats_between(12, 13) == []
    assert course.lock_s(13, SONG_BPM) < 4
    numbers = [beat.beat for beat in course.beats]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_another_tempo_is_followed(model: ActivationModel) -> None:
    course = play(np.concatenate([drums(8, 100), drums(9, 130)]), model)
    assert course.lock_s(0, 100) < 4
    assert course.lock_s(8, 130) < 7
    assert ClockState.LOST not in [change.state for change in course.changes]
    times = np.array([tick.time_s for tick in course.ticks])
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("gap_s", [0.5, 1.0])  # whole beats: the music goes on in step
def test_ticks_go_on_while_no_audio_comes(gap_s: float) -> None:
    """A source that stalls gives empty blocks; what was missed then comes at once, as silence."""
    audio, _ = drum_loop(8, 120, RATE)
    course = play(audio, FluxModel(), stall=(6.0, gap_s))
    beats = np.array([beat.time_s for beat in course.beats])
    assert np.diff(beats) == pytest.approx(0.5, abs=0.03)
    assert beats[-1] > 7.4 + gap_s
    late = [given - tick.time_s for given, tick in zip(course.given_s, course.ticks, strict=True)]
    assert max(late[48:]) < 0  # every tick is given before it sounds


def test_the_measure_tells_locks_from_others() -> None:
    """What says how quickly a tempo was found must not say so of a wrong one."""
    course = robustness.Course(
        [robustness.Tick(k * 0.5, k, 0, 1, 4, 120.0, 1.0) for k in range(20)], [], []
    )
    assert course.lock_s(3.0, 120) == pytest.approx(0.0)
    assert course.lock_s(3.0, 60) == pytest.approx(0.0)  # half the tempo is the same pulse
    assert course.lock_s(3.0, 90) == float("inf")
    assert course.state_s(ClockState.SILENT, 0) == float("inf")
    assert RATE == 22050
