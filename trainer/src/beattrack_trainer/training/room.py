"""What a room, a microphone and a converter do to sound, approximated on magnitudes.

All take linear magnitudes, float32 [n, channels, bands], and return new ones of that shape. Phases
are not known, so powers are added. Nothing moves an onset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

RT60_S = (0.2, 1.5)  # reverberation time: until the tail has fallen by 60 dB
DIRECT_TO_REVERBERANT_DB = (-6.0, 10.0)  # across a room; a hand's breadth away
TAIL_GROUPS = 6  # of bands that share a reverberation time
LOW_CUT_HZ = (50.0, 400.0)
HIGH_CUT_HZ = (3000.0, 9000.0)
ORDERS = (1, 2, 4)  # of a cut: 6, 12, 24 dB an octave
RESONANCE_DB = (-8.0, 12.0)
DRIVE_DB = (3.0, 15.0)  # by how much the loudest frames exceed what the converter can hold


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def reverberate(
    linear: NDArray[np.float32], fps: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add a tail to each band that decays exponentially, faster in the treble (Polack's model).

    The direct sound and all that comes within its frame stay as they are.
    """
    rt60 = _log_uniform(rng, *RT60_S)
    treble = rng.uniform(0.3, 1.0)  # share of it that the highest bands have
    wet = 10 ** (-rng.uniform(*DIRECT_TO_REVERBERANT_DB) / 10)
    power = linear * linear
    edges = np.linspace(0, linear.shape[2], TAIL_GROUPS + 1).round().astype(int)
    for i, seconds in enumerate(np.linspace(rt60, rt60 * treble, TAIL_GROUPS)):
        decay = 10 ** (-6 / (seconds * fps))  # of power, from frame to frame
        band = slice(edges[i], edges[i + 1])
        # The tail of one frame begins in the next and holds ``wet`` times its power in all.
        b = np.array([0, wet * (1 - decay)], dtype=np.float32)
        a = np.array([1, -decay], dtype=np.float32)
        power[..., band] += lfilter(b, a, power[..., band], axis=0)
    return np.asarray(np.sqrt(power), dtype=np.float32)


def microphone_response(
    centres: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw a response: a low cut, a high cut, up to three resonances or notches.

    Args:
        centres: of the bands, Hz, float64 [bands].
        rng: where it is drawn from.

    Returns:
        factors on magnitudes, float32 [bands].
    """
    low, high = _log_uniform(rng, *LOW_CUT_HZ), _log_uniform(rng, *HIGH_CUT_HZ)
    decibels = -10 * np.log10(1 + (low / centres) ** (2 * rng.choice(ORDERS)))
    decibels -= 10 * np.log10(1 + (centres / high) ** (2 * rng.choice(ORDERS)))
    for _ in range(rng.integers(4)):
        octaves = np.log2(centres / _log_uniform(rng, 150, 5000))
        decibels += rng.uniform(*RESONANCE_DB) * np.exp(-((octaves / rng.uniform(0.1, 0.5)) ** 2))
    return np.asarray(10 ** (decibels / 20), dtype=np.float32)


def clip(
    linear: NDArray[np.float32], bands_per_octave: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Limit loud frames, as a converter that is driven too far does, and add what that adds.

    What a frame loses reappears in part as third and fifth harmonics of its spectrum and as a
    floor under all bands (intermodulation).
    """
    level = np.sqrt(np.einsum("ncb,ncb->n", linear, linear)) + 1e-9
    ceiling = np.quantile(level, 0.95) / 10 ** (rng.uniform(*DRIVE_DB) / 20)
    gain = np.minimum(1, ceiling / level).astype(np.float32)[:, None, None]
    lost = 1 - gain
    kept = linear * gain
    power = kept * kept
    for harmonic, weight in ((3, 1 / 3), (5, 1 / 5)):
        shift = round(np.log2(harmonic) * bands_per_octave)
        added = kept[..., : max(0, kept.shape[2] - shift)] * lost * np.float32(weight)
        power[..., kept.shape[2] - added.shape[2] :] += added * added
    floor = kept.mean(axis=2, keepdims=True) * lost * np.float32(rng.uniform(0.05, 0.3))
    return np.asarray(np.sqrt(power + floor * floor), dtype=np.float32)
