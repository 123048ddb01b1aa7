"""Filter, harmony, tonality and gate together, and the tracker that drives them."""

import numpy as np
import pytest

from beattrack.config import DecoderConfig, FeatureConfig
from beattrack.events import Beat, TrackerState
from beattrack.features import compute
from beattrack.following import Follower
from beattrack.tracker import BeatTracker
from flux_model import FluxModel, drum_loop

RATE = 22050
CONFIG = FeatureConfig()
CHORDS = (
    (220.0, 277.2, 329.6),
    (174.6, 220.0, 261.6),
    (196.0, 246.9, 293.7),
    (146.8, 185.0, 220.0),
)


def chords(seconds, first, beat_s=0.5, level=0.05):
    """A chord a bar of four beats, the bars from beat ``first`` on, float32 [n]."""
    t = np.arange(round(seconds * RATE)) / RATE
    bar = np.floor((t / beat_s - first) / 4).astype(int) % len(CHORDS)
    tones = [sum(np.sin(2 * np.pi * f * k * t) / k for f in c for k in range(1, 6)) for c in CHORDS]
    return (level * np.choose(bar, tones)).astype(np.float32)


def even_kicks(seconds):
    """Kicks at 120 bpm, all alike, float32 [n]."""
    audio, beats = drum_loop(seconds, 120)
    out = np.zeros_like(audio)
    one = audio[: RATE // 8]
    for at in beats:
        place = int(at * RATE)
        out[place : place + len(one)] += one[: len(out) - place]
    return out


def steps(follower, frames):
    """Follow frames with beats at 120 bpm and tell all that is known after each."""
    told = []
    for t, frame in enumerate(frames):
        beat = 0.7 if t % 25 == 0 else 0.02
        estimate, changed = follower.step(frame, beat, 0.3 * beat, None, power=0.01)
        told.append((estimate, changed, follower.gate.evidence, tuple(follower.filter.bar())))
    return told


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_the_tracker_counts_bars_from_where_chords_change(first):
    audio = even_kicks(24) + chords(24, first)
    events = BeatTracker(FluxModel(kind="logspec+flux")).push(audio)
    late = [e for e in events if isinstance(e, Beat) and e.time_s > 14]
    assert len(late) > 15
    right = [(round(b.time_s / 0.5) - first) % 4 + 1 == b.position for b in late]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize("part", ["_harmony", "_tonality", "filter", "gate"])
def test_reset_reaches_every_part(part):
    music = compute(even_kicks(6) + chords(6, 0), CONFIG)
    other = compute(even_kicks(4) + chords(4, 1), CONFIG)
    fresh = steps(Follower(DecoderConfig(), CONFIG, 2), other)
    used, mixed = (Follower(DecoderConfig(), CONFIG, 2) for _ in range(2))
    steps(used, music)
    setattr(mixed, part, getattr(used, part))
    assert steps(mixed, other) != fresh  # it would be missed
    mixed.reset()
    assert steps(mixed, other) == fresh


def test_tracking_again_after_reset_is_the_same():
    audio = even_kicks(8) + chords(8, 1)
    tracker = BeatTracker(FluxModel(kind="logspec+flux"))
    first = tracker.push(audio)
    tracker.reset()
    assert tracker.push(audio) == first != []


def test_retune_begins_anew_and_time_goes_on():
    audio = even_kicks(8) + chords(8, 0)
    tracker = BeatTracker(FluxModel(kind="logspec+flux"))
    tracker.push(audio)
    assert tracker.state is TrackerState.LOCKED
    tracker.retune(DecoderConfig(min_bpm=100, max_bpm=140))
    assert tracker.state is TrackerState.SEARCHING and tracker.decoder.min_bpm == 100
    later = [e for e in tracker.push(audio) if isinstance(e, Beat)]
    assert len(later) > 8 and later[0].time_s > 8


def weak_pulse(sounding, features=CONFIG, seconds=12.0):
    """Whether weak beats at 120 bpm are believed in, frames of a sound beside them."""
    follower = Follower(DecoderConfig(), features, 2)
    frames = compute(sounding, features)
    every = round(features.fps / 2)
    for t in range(int(seconds * features.fps)):
        beat = 0.12 if t % every == 0 else 0.02
        follower.step(frames[t % len(frames)], beat, 0.3 * beat, None, power=0.01)
    return follower.gate.state


def test_a_weak_pulse_is_believed_in_where_tones_last():
    noise = np.random.default_rng(0).normal(0, 0.05, 6 * RATE).astype(np.float32)
    assert weak_pulse(chords(6, 0)) is TrackerState.LOCKED
    assert weak_pulse(noise) is TrackerState.SEARCHING


@pytest.mark.parametrize("hop", [441, 147])
def test_the_lock_is_lost_in_the_same_time_at_any_frame_rate(hop):
    features = FeatureConfig(hop=hop)
    follower, fps = Follower(DecoderConfig(), features, 2), features.fps
    frames = compute(chords(4, 0), features)
    lost = None
    for t in range(int(30 * fps)):
        beat = 0.8 if t < 12 * fps and t % round(fps / 2) == 0 else 0.01
        follower.step(frames[t % len(frames)], beat, 0.3 * beat, None, power=0.01)
        if t == int(12 * fps) - 1:
            assert follower.gate.state is TrackerState.LOCKED
        if lost is None and t > 12 * fps and follower.gate.state is not TrackerState.LOCKED:
            lost = t / fps - 12
    assert lost is not None and 1.5 < lost < 6
