"""Tones that last speak for music, noise speaks against it, whatever the level."""

import numpy as np
import pytest

from beattrack.config import FeatureConfig
from beattrack.features import compute, spectrum_bins
from beattrack.tonality import MOST, Tonality

CONFIG = FeatureConfig()
RATE = CONFIG.sample_rate
BINS = spectrum_bins(CONFIG)


def chord(seconds, notes=(220.0, 277.2, 329.6, 440.0), partials=8):
    """A chord that is struck twice a second, float32 [n]."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * f * k * t) / k for f in notes for k in range(1, partials + 1))
    return (0.05 * tone * np.exp(-2 * (t % 0.5))).astype(np.float32)


def claps(seconds, pace=20, seed=3):
    """Bursts of noise at random, float32 [n]."""
    rng = np.random.default_rng(seed)
    out = np.zeros(round(seconds * RATE) + RATE)
    envelope = np.exp(-np.arange(RATE // 50) / (0.004 * RATE))
    for at in rng.uniform(0, seconds * RATE, round(pace * seconds)).astype(int):
        out[at : at + len(envelope)] += 0.3 * rng.normal(0, 1, len(envelope)) * envelope
    return out[: round(seconds * RATE)].astype(np.float32)


def spectra(audio, config=CONFIG):
    """The log spectrogram, float32 [frames, bins]."""
    return compute(audio, config)[:, 0, : spectrum_bins(config)]


def evidence(audio):
    tonality = Tonality(CONFIG)
    return np.array([tonality.step(frame) for frame in spectra(audio, CONFIG)])


def test_a_chord_speaks_for_music_and_claps_against_it():
    assert np.median(evidence(chord(6))[50:]) == MOST
    assert np.median(evidence(claps(6))[50:]) == -MOST
    noise = np.random.default_rng(0).normal(0, 0.1, 6 * RATE).astype(np.float32)
    assert np.median(evidence(noise)[50:]) == -MOST


@pytest.mark.parametrize("gain", [0.1, 0.01])
def test_the_level_does_not_matter(gain):
    """As far as both are music: 40 dB less, and a mixture stays what it was within a third."""
    mixture = chord(6) + 0.3 * claps(6)
    loud, soft = evidence(mixture)[50:].mean(), evidence(np.float32(gain) * mixture)[50:].mean()
    assert abs(loud) < MOST  # neither end: the level could show
    assert soft == pytest.approx(loud, abs=MOST / 3)


def test_reset_and_again_are_the_same():
    frames = spectra(chord(2) + claps(2), CONFIG)
    tonality = Tonality(CONFIG)
    first = [tonality.step(frame) for frame in frames]
    assert [tonality.step(frame) for frame in frames] != first
    tonality.reset()
    assert [tonality.step(frame) for frame in frames] == first


def test_what_is_no_number_passes():
    frames = spectra(chord(2), CONFIG)
    tonality = Tonality(CONFIG)
    for frame in frames:
        tonality.step(frame)
    for bad in (np.nan, np.inf, 50.0, -50.0):
        assert -MOST <= tonality.step(np.full_like(frames[0], bad)) <= MOST
    assert np.isfinite([tonality.step(frame) for frame in frames]).all()


@pytest.mark.parametrize("changed", [{"kind": "flux"}, {"bands_per_octave": 24}])
def test_other_features_say_nothing(changed):
    config = FeatureConfig(**changed)
    frames = spectra(chord(1), config)
    tonality = Tonality(config)
    assert [tonality.step(frame) for frame in frames] == [0.0] * len(frames)


def test_another_frame_rate_says_the_same():
    mixture = chord(6) + 0.3 * claps(6)
    fast = FeatureConfig(hop=147)
    tonality = Tonality(fast)
    there = np.mean([tonality.step(frame) for frame in spectra(mixture, fast)][150:])
    assert there == pytest.approx(evidence(mixture)[50:].mean(), abs=MOST / 10)


def test_silence_speaks_against_music():
    assert Tonality(CONFIG).step(np.zeros(BINS, dtype=np.float32)) == -MOST
