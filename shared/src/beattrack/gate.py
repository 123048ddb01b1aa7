"""Whether the tracker should speak: searching, locked or lost."""

from __future__ import annotations

import numpy as np

from beattrack.events import TrackerState

SILENCE_DBFS = -66.0  # RMS of a hop; below it nothing sounds
SILENCE_S = 2.0  # and after this long it is silence, not a rest
CONFIDENCE_S = 1.5  # time constant of the confidence
LOCK_AT = 0.5  # smoothed confidence at which beats begin; noise stays below, music is mostly above
LOSE_AT = 0.25  # and below which they end


class Gate:
    """Follows level and confidence with hysteresis and keeps the tracker's state."""

    def __init__(self, fps: float) -> None:
        self._silent_frames = SILENCE_S * fps
        self._confidence_gain = 1 - np.exp(-1 / (CONFIDENCE_S * fps))
        self._silence = 10 ** (SILENCE_DBFS / 10)
        self.reset()

    def reset(self) -> None:
        """Go back to searching."""
        self.state = TrackerState.SEARCHING
        self.confidence = 0.0
        self._quiet = np.inf  # frames since something sounded

    @property
    def silent(self) -> bool:
        """Whether nothing has sounded for `SILENCE_S`."""
        return self._quiet >= self._silent_frames

    def step(self, power: float, confidence: float) -> bool:
        """Take one hop's mean square (full scale 1) and the filter's confidence (0-1).

        Returns:
            Whether the state changed.
        """
        self._quiet = self._quiet + 1 if power < self._silence else 0
        self.confidence += self._confidence_gain * (confidence - self.confidence)
        silent = self.silent
        before = self.state
        if self.state is TrackerState.LOCKED:
            if silent or self.confidence < LOSE_AT:
                self.state = TrackerState.LOST
        elif not silent and self.confidence > LOCK_AT:
            self.state = TrackerState.LOCKED
        return self.state is not before
