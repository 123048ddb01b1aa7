"""A model without a network: activations straight from the flux. For tests of what comes after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beattrack.activations import Activations
from beattrack.config import DecoderConfig, FeatureConfig


class FluxModel:
    """An ActivationModel that needs no learning; its state delays the answer by one frame."""

    def __init__(self, decoder: DecoderConfig | None = None, kind: str = "flux") -> None:
        self.features = FeatureConfig(kind=kind)
        self.decoder = decoder or DecoderConfig()
        self.latency_frames = 3
        self.reset()

    def step(self, frames: NDArray[np.float32]) -> Activations:
        flux = frames[:, :, -self.features.flux_bands :]
        joined = np.append(self._last, flux.mean(axis=(1, 2)))
        mean, self._last = joined[:-1], joined[-1]
        beat = 1 / (1 + np.exp(4.86 - 3.54 * mean))
        return Activations(beat, 0.25 * beat, np.empty((len(frames), 0), np.float32))

    def reset(self) -> None:
        self._last = 0.0


def drum_loop(seconds: float, bpm: float, sample_rate: int = 22050, start_s: float = 0.0):
    """Return audio float32 [n] with a kick on each beat, and the beat times in seconds."""
    rng = np.random.default_rng(0)
    audio = np.zeros(int(seconds * sample_rate), dtype=np.float32)
    beats = np.arange(start_s, seconds - 0.1, 60 / bpm)
    t = np.arange(int(0.09 * sample_rate)) / sample_rate
    for i, at in enumerate(beats):
        loud = 0.8 if i % 4 == 0 else 0.5
        kick = np.sin(2 * np.pi * 60 * t) + 0.5 * rng.standard_normal(len(t))
        first = int(at * sample_rate)
        audio[first : first + len(t)] += (loud * kick * np.exp(-t * 50)).astype(np.float32)[
            : len(audio) - first
        ]
    return audio, beats
