"""From a frame's activations to where the music stands and whether to speak of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beattrack.config import DecoderConfig, FeatureConfig
from beattrack.decoding import BarPointerFilter, Estimate
from beattrack.features import spectrum_bins
from beattrack.gate import Gate
from beattrack.harmony import HarmonicChange
from beattrack.tonality import Tonality


class Follower:
    """Filter, harmony, tonality and gate, step by step; tracking and validation share it.

    Args:
        decoder: settings of the filter.
        features: what a feature frame is.
        latency: frames by which the activations come late.

    Attributes:
        filter: the filter over tempo, phase and meter.
        gate: whether what it says is to be believed.
    """

    def __init__(self, decoder: DecoderConfig, features: FeatureConfig, latency: int) -> None:
        self.filter = BarPointerFilter(decoder, features.fps)
        self.gate = Gate(features.fps)
        self._bins = spectrum_bins(features)
        self._harmony = HarmonicChange(self._bins, latency)
        self._tonality = Tonality(features)

    def reset(self) -> None:
        """Forget everything heard so far."""
        for part in (self.filter, self._harmony, self._tonality, self.gate):
            part.reset()

    def step(
        self,
        frame: NDArray[np.float32],
        beat: float,
        downbeat: float,
        tempo: NDArray[np.float32] | None,
        power: float,
    ) -> tuple[Estimate, bool]:
        """Take one frame.

        Args:
            frame: float32 [channels, bins], the newest feature frame.
            beat: probability of a beat, 0-1, ``latency`` frames ago.
            downbeat: probability of a downbeat, 0-1.
            tempo: float32 [classes], probabilities of tempo classes; None: no evidence.
            power: mean square of the newest hop, full scale 1.

        Returns:
            Where the music stands, and whether the gate's state changed.
        """
        estimate = self.filter.step(beat, downbeat, tempo)
        spectrum = frame[:, : self._bins].mean(axis=0)
        change = self._harmony.step(spectrum, estimate.phase, estimate.period)
        if change is not None:
            self.filter.weigh_change(change)
        evidence = estimate.evidence + self._tonality.step(spectrum)
        return estimate, self.gate.step(power, estimate.confidence, evidence)
