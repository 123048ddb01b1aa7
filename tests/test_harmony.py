"""Bars told by what changes from beat to beat alone."""

import numpy as np
import pytest

from beattrack.config import DecoderConfig
from beattrack.decoding import BarPointerFilter
from beattrack.harmony import LAST_PHASE, HarmonicChange, sharpened
from beattrack.tracker import BeatReporter

FPS = 50.0
PERIOD = 24.0  # frames a beat, 125 bpm
BINS = 82


def chords(frames, first, beats_per_chord=4, seed=0):
    """Noisy spectra, float32 [frames, BINS], with another chord every few beats."""
    rng = np.random.default_rng(seed)
    spectrum = 0.3 + 0.05 * rng.random((frames, BINS))
    pitches = np.stack([rng.choice(BINS, 6, replace=False) for _ in range(100)])
    for t in range(frames):
        chord = int((t - first * PERIOD) // (beats_per_chord * PERIOD))
        spectrum[t, pitches[chord]] += 1.0
    return spectrum.astype(np.float32)


def phases(frames):
    return np.arange(frames) / PERIOD % 1


def run(change, frames, latency=0):
    """Return (frame, change) for each that was found; the phase comes ``latency`` frames late."""
    phase = phases(len(frames))
    found = [
        (t, change.step(frames[t], phase[max(0, t - latency)], PERIOD)) for t in range(len(frames))
    ]
    return [(t, c) for t, c in found if c is not None]


def test_a_change_is_told_once_a_beat_and_late_in_it():
    found = run(HarmonicChange(BINS, 0), chords(1000, first=1))
    frames = np.array([t for t, _ in found])
    assert np.ptp(np.diff(frames)) <= 1 and np.diff(frames).mean() == pytest.approx(PERIOD, abs=0.1)
    assert (frames / PERIOD % 1 >= LAST_PHASE).all()
    changes = np.array([c for _, c in found])
    at = frames // PERIOD % 4 == 1
    assert changes[at].min() > 1 > 0 > changes[~at].max()
    assert np.abs(changes).max() <= 3


@pytest.mark.parametrize("latency", [1, 5])
def test_frames_wait_for_their_phase(latency):
    frames = chords(600, first=2)
    on_time = run(HarmonicChange(BINS, 0), frames)
    late = run(HarmonicChange(BINS, latency), frames, latency)
    assert late == [(t + latency, c) for t, c in on_time if t + latency < 600]


def test_twice_the_same_and_reset():
    frames = chords(500, first=0, seed=1)
    change = HarmonicChange(BINS, 2)
    first = run(change, frames, 2)
    assert run(change, frames, 2) != first  # it remembered
    change.reset()
    assert run(change, frames, 2) == first


def test_another_reading_of_the_music_begins_anew():
    """After a jump of the phase the last beat is none to compare with."""
    frames, change, found = chords(400, first=0), HarmonicChange(BINS, 0), []
    for t, phase in enumerate(phases(400)):
        there = (phase + 0.4 * (t >= 200)) % 1
        if change.step(frames[t], there, PERIOD) is not None:
            found.append(t)
    begun = next(t for t in range(201, 400) if (phases(400)[t] + 0.4) % 1 < 1 / PERIOD)
    after = [t for t in found if t >= 200]
    assert after[0] >= begun + PERIOD  # two beats that were heard from their start
    assert np.diff(after).max() <= PERIOD + 1


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_what_is_no_sound_says_nothing_and_does_no_harm(value):
    frames = chords(800, first=0)
    frames[200:300] = value
    found = run(HarmonicChange(BINS, 0), frames)
    assert all(np.isfinite(c) for _, c in found)
    assert not [t for t, _ in found if 200 + PERIOD < t < 300]
    assert len([t for t, _ in found if t > 360]) >= 400 // PERIOD


def test_flux_alone_says_nothing():
    assert run(HarmonicChange(0, 2), chords(300, first=0)) == []


def test_sharpened_keeps_what_stands_out():
    flat = sharpened(np.full(9, 0.5, dtype=np.float32))
    assert np.allclose(flat, 0, atol=1e-3)
    one = np.zeros(9, dtype=np.float32)
    one[4] = 0.6
    assert sharpened(one) == pytest.approx(np.sqrt(0.4) * (np.arange(9) == 4))


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_the_bar_begins_where_the_chord_changes(first):
    """Every beat looks alike to the network: only the chords tell the first from the others."""
    frames = chords(2000, first)
    reports = {}
    for power in (0.0, DecoderConfig().harmony_power):
        bar = BarPointerFilter(DecoderConfig(beats_per_bar=(4,), harmony_power=power), FPS)
        reporter, change = BeatReporter(bar, FPS, 0), HarmonicChange(BINS, 0)
        beats = []
        for t, frame in enumerate(frames):
            beat = 0.9 if t % PERIOD == 0 else 0.01
            estimate = bar.step(beat, 0.4 * beat)
            found = change.step(frame, estimate.phase, estimate.period)
            if found is not None:
                bar.weigh_change(found)
            beats.append(reporter.step(t, (t + 1) / FPS, estimate))
        late = [b for b in beats if b is not None and b.time_s > 15]
        reports[power] = [
            (round(b.time_s * FPS / PERIOD) - first) % 4 + 1 == b.position for b in late
        ]
    without, heard = reports[0.0], reports[DecoderConfig().harmony_power]
    assert min(len(without), len(heard)) > 40
    assert all(heard)
    assert all(without) or not any(without)  # a count that nothing corrects: right by chance
    assert any(without) == (first == 3)
