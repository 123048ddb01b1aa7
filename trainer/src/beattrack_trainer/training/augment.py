"""Feature augmentation: the same music through another room, microphone, key and tempo.

The log spectrum is changed on linear magnitudes. Equaliser, gain, noise and missing bands leave the
flux as it was and change it in their own way: those were measured to matter on real songs. What
changes the spectrum's course in time (room, clipping, muted drums, voices) has the flux made anew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beattrack.config import FeatureConfig
from beattrack.features import flux_bins
from beattrack.filterbank import fft_frequencies, log_filterbank
from beattrack.subbands import load_curve
from beattrack_trainer.config import AugmentConfig
from beattrack_trainer.training.flux import flux_of
from beattrack_trainer.training.room import clip, microphone_response, reverberate
from beattrack_trainer.training.sounds import add_voice, mute_drums

MAX_STRETCH = 0.25  # octaves of tempo, either way
MAX_SHIFT = 4  # bands of pitch, either way
MAX_GAIN_DB = 15.0
MAX_EQ_DB = 10.0
LN10 = np.float32(np.log(10))

Frames = NDArray[np.float32]


def stretch_factor(rng: np.random.Generator, chance: float) -> float:
    """Draw a factor on the tempo; 1 unless it falls within ``chance``."""
    return float(2 ** rng.uniform(-MAX_STRETCH, MAX_STRETCH)) if rng.random() < chance else 1.0


def stretch(frames: Frames, factor: float, length: int, delay: int) -> Frames:
    """Read float32 [n, C, F] ``factor`` times as fast into [length, C, F], interpolating.

    Frame t speaks of time t + 0.5 - ``delay`` (in frames); that time is what is scaled.
    """
    if factor == 1.0:
        return frames[:length]
    at = (np.arange(length) + 0.5 - delay) * factor - 0.5 + delay
    at = at.clip(0, len(frames) - 1.001)
    low = at.astype(int)
    share = (at - low).astype(np.float32)[:, None, None]
    return np.asarray((1 - share) * frames[low] + share * frames[low + 1], dtype=np.float32)


class Augmenter:
    """Changes excerpts of features of one kind; an excerpt and a generator decide the result."""

    def __init__(self, features: FeatureConfig, config: AugmentConfig) -> None:
        self._features, self._config = features, config
        bank = log_filterbank(
            features.window, features.sample_rate, features.bands_per_octave,
            features.fmin, features.fmax,
        )  # fmt: skip
        # Hz, float64 [bands]; and the gain of each band in each channel, float32 [channels, bands]
        self._centres = fft_frequencies(features.window, features.sample_rate) @ bank
        sources = features.sources if features.bpfed else ()
        curves = [load_curve(s, self._centres) for s in sources]
        self._gains = np.stack(curves or [np.ones(bank.shape[1], np.float32)])
        self._drums = sources.index("drums") if "drums" in sources else None

    def __call__(
        self, frames: Frames, bars: NDArray[np.float64], rng: np.random.Generator
    ) -> Frames:
        """Return float32 [n, C, F] changed; ``bars`` are the frames at which bars begin."""
        flux = flux_bins(self._features)
        bands = frames.shape[2] - flux
        out = frames.copy()
        if bands:
            mul = np.float32(self._features.log_mul)
            linear = (np.exp(out[..., :bands] * LN10) - 1) / mul
            other = self._other_place(linear, bars, rng)
            if flux and other is not linear:
                spectrum = np.log(1 + mul * other) / LN10
                out[..., bands:] = flux_of(spectrum, self._features, self._features.flux_lag)
            out[..., :bands] = np.log(1 + mul * self._spectrum(other, rng)) / LN10
        if flux:
            out[..., bands:] = self._flux(out[..., bands:], rng)
        if rng.random() < self._config.gaps:  # the music stops for a moment, its pulse goes on
            for _ in range(rng.integers(1, 6)):
                start = rng.integers(len(out))
                out[start : start + rng.integers(5, 60)] = 0
        return out

    def _other_place(
        self, linear: Frames, bars: NDArray[np.float64], rng: np.random.Generator
    ) -> Frames:
        """Let drums pause and a voice speak, then go through a room, a microphone, a converter."""
        config, features = self._config, self._features
        if rng.random() < config.drum_muting:
            linear = mute_drums(linear, bars, self._drums, rng)
        if rng.random() < config.voices:
            linear = add_voice(linear, self._centres, self._gains, features.fps, rng)
        if rng.random() < config.room:
            linear = reverberate(linear, features.fps, rng)
        if rng.random() < config.microphone:
            linear = linear * microphone_response(self._centres, rng)
        if rng.random() < config.clipping:
            linear = clip(linear, features.bands_per_octave, rng)
        return linear

    def _spectrum(self, linear: Frames, rng: np.random.Generator) -> Frames:
        """Change pitch, level, equaliser, noise floor; leave out a part. Returns a new array."""
        bands, config = linear.shape[2], self._config
        if rng.random() < config.pitch_shift:
            shift = int(rng.integers(-MAX_SHIFT, MAX_SHIFT + 1))
            linear = np.roll(linear, shift, axis=2)
            linear[..., : max(shift, 0)] = 0
            linear[..., bands + min(shift, 0) :] = 0
        gain_db = rng.uniform(-MAX_GAIN_DB, MAX_GAIN_DB / 2) + _curve(bands, rng)
        linear = linear * (10 ** (gain_db / 20)).astype(np.float32)
        if rng.random() < config.noise:
            level = 10 ** rng.uniform(-4.5, -2.5)
            noise = rng.exponential(level, size=(1, 1, bands)).astype(np.float32)
            noise = noise * (np.float32(0.5) + rng.random(linear.shape, dtype=np.float32))
            linear = np.sqrt(linear * linear + noise * noise)
        if rng.random() < config.missing_bands:
            start, width = rng.integers(bands), rng.integers(1, max(2, bands // 4))
            linear[..., start : start + width] = 0
        return linear

    def _flux(self, flux: Frames, rng: np.random.Generator) -> Frames:
        """Weigh the flux bands, add flux that has nothing to do with the beat, leave out some."""
        bins = flux.shape[2]
        flux = flux * rng.uniform(0.6, 1.5, size=(1, 1, bins)).astype(np.float32)
        if rng.random() < self._config.other_sounds:
            mean = np.float32(rng.uniform(0.02, 0.3))
            other = mean * rng.standard_exponential(flux.shape, dtype=np.float32)
            flux = np.maximum(flux, other)
        if rng.random() < 0.6 * self._config.missing_bands:  # the shares that were measured
            start = rng.integers(bins)
            flux[..., start : start + rng.integers(1, 5)] = 0
        return flux


def _curve(bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a smooth equaliser curve in dB, float64 [bands]."""
    knots = rng.normal(0, MAX_EQ_DB / 2, size=5).clip(-MAX_EQ_DB, MAX_EQ_DB)
    return np.asarray(np.interp(np.linspace(0, 4, bands), np.arange(5), knots))
