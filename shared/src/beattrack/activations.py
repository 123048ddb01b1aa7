"""The contract between a model, however it is run, and the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from beattrack.config import DecoderConfig, FeatureConfig


@dataclass(frozen=True)
class Activations:
    """What a model says about n consecutive frames.

    beat: float32 [n], probability 0-1 of a beat
    downbeat: float32 [n], probability 0-1 of a downbeat (a downbeat is also a beat)
    tempo: float32 [n, bins], probabilities over tempo classes; class k is k + 1 beats a minute;
        bins may be 0 for a model without a tempo head
    """

    beat: NDArray[np.float32]
    downbeat: NDArray[np.float32]
    tempo: NDArray[np.float32]


class ActivationModel(Protocol):
    """A stateful, causal source of activations.

    A beat at time b (seconds) shows in frame floor(b * fps) + latency_frames, so activation
    frame t speaks of time (t + 0.5 - latency_frames) / fps.
    """

    @property
    def features(self) -> FeatureConfig:
        """The features that it must be fed."""

    @property
    def decoder(self) -> DecoderConfig:
        """The decoder settings that were tuned for it."""

    @property
    def latency_frames(self) -> int:
        """Declared delay of its activations in frames."""

    def step(self, frames: NDArray[np.float32]) -> Activations:
        """Take the next n frames, float32 [n, channels, bins], and return their activations."""

    def reset(self) -> None:
        """Forget everything heard so far."""
