"""Music made for benchmarks: steady drums with exact beats, and an evening of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RATE = 22050


def drums(seconds: float, bpm: float, seed: int = 0) -> NDArray[np.float32]:
    """Return steady music with exact beats, float32 [n] at RATE: kick, snare, hats, bass."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(0.25 * RATE)) / RATE
    kick = np.sin(2 * np.pi * (45 * t + 6 * (1 - np.exp(-t * 40)))) * np.exp(-t * 18)
    snare = rng.normal(0, 0.5, len(t)) * np.exp(-t * 30) + np.sin(2 * np.pi * 190 * t) * np.exp(
        -t * 30
    )
    hat = np.diff(rng.normal(0, 0.3, len(t) + 1)) * np.exp(-t * 90)
    audio = np.zeros(round(seconds * RATE) + len(t), np.float32)
    half = 30 / bpm
    for k in range(int(seconds / half)):
        at = round(k * half * RATE)
        bass = np.sin(2 * np.pi * (55, 55, 82.5, 73.4)[k // 8 % 4] * t) * np.exp(-t * 6)
        part = 0.3 * hat + (0.3 * bass + (0.6 * snare if k % 4 == 2 else 0.8 * kick)) * (k % 2 == 0)
        audio[at : at + len(t)] += 0.4 * part.astype(np.float32)
    return audio[: round(seconds * RATE)]


def pcm(audio: NDArray[np.floating]) -> bytes:
    """Return s16le."""
    return (np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()


def programme() -> Iterator[bytes]:
    """Yield an evening for ever, s16le in pieces of some 20 s."""
    rng = np.random.default_rng(1)
    pieces = [pcm(drums(20.0, bpm, seed)) for seed, bpm in enumerate((96, 120, 128, 140, 174))]
    silence = bytes(2 * RATE * 5)
    while True:
        order = rng.permutation(len(pieces))
        for number in order:
            yield pieces[number]
        yield silence
        yield pcm(rng.normal(0, 0.1, 10 * RATE))  # applause of a kind
