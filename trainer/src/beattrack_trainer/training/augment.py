"""Feature augmentation: the same music through another room, microphone, key and tempo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beattrack.config import FeatureConfig

MAX_STRETCH = 0.25  # octaves of tempo, either way
MAX_SHIFT = 4  # bands of pitch, either way
MAX_GAIN_DB = 15.0
MAX_EQ_DB = 10.0


def stretch_factor(rng: np.random.Generator) -> float:
    """Draw a factor on the tempo; 1 half of the time."""
    return float(2 ** rng.uniform(-MAX_STRETCH, MAX_STRETCH)) if rng.random() < 0.5 else 1.0


def stretch(
    frames: NDArray[np.float32], factor: float, length: int, delay: int
) -> NDArray[np.float32]:
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


def colour(
    frames: NDArray[np.float32], flux_bins: int, config: FeatureConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Change level, equaliser, noise floor and pitch of float32 [n, C, F]; returns a new array."""
    bands = frames.shape[2] - flux_bins
    out = frames.copy()
    if bands:
        linear = (10 ** out[..., :bands] - 1) / np.float32(config.log_mul)
        shift = int(rng.integers(-MAX_SHIFT, MAX_SHIFT + 1)) if rng.random() < 0.5 else 0
        if shift:
            linear = np.roll(linear, shift, axis=2)
            linear[..., : max(shift, 0)] = 0
            linear[..., bands + min(shift, 0) :] = 0
        gain_db = rng.uniform(-MAX_GAIN_DB, MAX_GAIN_DB / 2) + _curve(bands, rng)
        linear = linear * (10 ** (gain_db / 20)).astype(np.float32)
        if rng.random() < 0.3:
            level = 10 ** rng.uniform(-4.5, -2.5)
            noise = rng.exponential(level, size=(1, 1, bands)) * rng.uniform(0.5, 1.5, linear.shape)
            linear = np.hypot(linear, noise.astype(np.float32))
        if rng.random() < 0.5:  # a part of the spectrum is missing
            start, width = rng.integers(bands), rng.integers(1, max(2, bands // 4))
            linear[..., start : start + width] = 0
        out[..., :bands] = np.log10(1 + np.float32(config.log_mul) * linear)
    if flux_bins:
        flux = out[..., bands:] * rng.uniform(0.6, 1.5, size=(1, 1, flux_bins)).astype(np.float32)
        if rng.random() < 0.5:  # other sounds that have nothing to do with the beat
            other = rng.exponential(rng.uniform(0.02, 0.3), size=flux.shape)
            flux = np.maximum(flux, other.astype(np.float32))
        if rng.random() < 0.3:
            start = rng.integers(flux_bins)
            flux[..., start : start + rng.integers(1, 5)] = 0
        out[..., bands:] = flux
    if rng.random() < 0.5:  # the music stops for a moment, its pulse goes on
        for _ in range(rng.integers(1, 6)):
            start = rng.integers(len(out))
            out[start : start + rng.integers(5, 60)] = 0
    return np.asarray(out)


def _curve(bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a smooth equaliser curve in dB, float64 [bands]."""
    knots = rng.normal(0, MAX_EQ_DB / 2, size=5).clip(-MAX_EQ_DB, MAX_EQ_DB)
    return np.asarray(np.interp(np.linspace(0, 4, bands), np.arange(5), knots))
