"""Other music than was recorded: its drums silent for some bars, a voice over it.

Both take linear magnitudes, float32 [n, channels, bands], and return new ones of that shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

HIT_FRAMES = (7, 13)  # what is shorter counts as a hit; the analysis window alone makes it 5 long
LEAK = 0.2  # share of a hit that may remain
SYLLABLES_S = (3.0, 7.0)  # a second
PITCH_HZ = (90.0, 260.0)
FORMANTS_HZ = ((300, 850), (850, 2400), (2400, 3500))  # of vowels (Peterson and Barney 1952)
VOWELS = 8  # of one speaker in one excerpt
VOICE_DB = (-15.0, 3.0)  # against the music


def mute_drums(
    linear: NDArray[np.float32],
    bars: NDArray[np.float64],
    drums: int | None,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Take short sounds away over some bars: what rises and falls within ``HIT_FRAMES``.

    A morphological opening of each band over time: notes that are held keep their onsets.

    Args:
        linear: float32 [n, channels, bands].
        bars: where bars begin, in frames, rising; they may lie outside.
        drums: the drums' channel, if there is one; half of the time it falls silent.
        rng: what decides.
    """
    n = len(linear)
    edges = np.unique(np.concatenate([[0], bars[(bars > 0) & (bars < n)].astype(int), [n]]))
    first = int(rng.integers(len(edges) - 1))
    last = int(rng.integers(first + 1, len(edges)))
    out = linear.copy()
    piece = out[edges[first] : edges[last]]
    width = int(rng.integers(*HIT_FRAMES))
    held = maximum_filter1d(minimum_filter1d(piece, width, axis=0), width, axis=0)
    piece *= np.float32(rng.uniform(0, LEAK))
    np.maximum(piece, held, out=piece)
    if drums is not None and rng.random() < 0.5:
        piece[:, drums] = 0
    return out


def add_voice(
    linear: NDArray[np.float32],
    centres: NDArray[np.float64],
    gains: NDArray[np.float32],
    fps: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Add syllables of vowel-like spectra in phrases, as of somebody who speaks over the music.

    Args:
        linear: float32 [n, channels, bands].
        centres: of the bands, Hz, float64 [bands].
        gains: of the bands in each channel, float32 [channels, bands].
        fps: frames a second.
        rng: what decides.
    """
    voice = np.zeros((len(linear), len(centres)), dtype=np.float32)
    octaves = np.log2(centres)
    rate, pitch = rng.uniform(*SYLLABLES_S), rng.uniform(*PITCH_HZ)
    vowels = [_vowel(octaves, pitch * 2 ** rng.uniform(-0.3, 0.3), rng) for _ in range(VOWELS)]
    at = float(rng.uniform(0, 2 * fps))
    while at < len(voice):
        length = int(fps / rate * rng.uniform(0.6, 1.6)) + 2
        piece = voice[int(at) : int(at) + length]
        envelope = np.sin(np.pi * (np.arange(length) + 0.5) / length)[: len(piece)]
        loud = rng.uniform(0.3, 1) * envelope.astype(np.float32)
        piece += loud[:, None] * vowels[rng.integers(VOWELS)]
        pause = rng.uniform(0.3, 2) if rng.random() < 0.12 else 0.0  # between phrases
        at += length + pause * fps
    loudness = np.sqrt((linear**2).mean() / max(1e-12, float(((voice * gains[0]) ** 2).mean())))
    level = np.float32(loudness * 10 ** (rng.uniform(*VOICE_DB) / 20))
    added = level * voice[:, None] * gains
    return np.asarray(np.sqrt(linear * linear + added * added), dtype=np.float32)


def _vowel(
    octaves: NDArray[np.float64], pitch: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw the magnitudes of a voiced sound in bands at log2 frequencies, float32 [bands]."""
    formants = np.log2([rng.uniform(*f) for f in FORMANTS_HZ])
    envelope = np.exp(-(((octaves[:, None] - formants) / 0.35) ** 2)) @ np.array([1, 0.5, 0.25])
    # Below a kilohertz the bands resolve harmonics: between these there is little.
    harmonic = 2**octaves / pitch
    resolved = np.cos(2 * np.pi * harmonic) * 0.5 + 0.5
    sounding = np.where(harmonic < 6, resolved * (harmonic > 0.5), 0.5)
    return np.asarray(envelope * sounding, dtype=np.float32)
