"""Whether the tracker should speak: searching, locked or lost."""

from __future__ import annotations

import numpy as np

from beattrack.events import TrackerState

SILENCE_DBFS = -66.0  # RMS of a hop; below it nothing sounds
SILENCE_S = 2.0  # and after this long it is silence, not a rest
CONFIDENCE_S = 1.0  # time constant of the confidence
LOCK_AT = 0.3  # smoothed confidence at which beats begin
LOSE_AT = 0.2  # and below which they end
EVIDENCE_S = 2.0  # time constant of the evidence
LOCK_EVIDENCE = 0.6  # a second, smoothed: a pulse must explain the sound better than none does
LOSE_EVIDENCE = -0.1  # below, that there is a pulse has become unlikely


class Gate:
    """Follows level, confidence and evidence with hysteresis and keeps the tracker's state.

    Confidence says which pulse, evidence whether there is one: the filter finds the likeliest pulse
    in applause and speech as well, but there no pulse explains the activations better than none,
    the tempo head knows no tempo, and no tones last (tonality.py).
    """

    def __init__(self, fps: float) -> None:
        self._silent_frames = SILENCE_S * fps
        self._confidence_gain = float(1 - np.exp(-1 / (CONFIDENCE_S * fps)))
        self._evidence_gain = float(1 - np.exp(-1 / (EVIDENCE_S * fps)))
        self._silence = 10 ** (SILENCE_DBFS / 10)
        self.reset()

    def reset(self) -> None:
        """Go back to searching."""
        self.state = TrackerState.SEARCHING
        self.confidence = 0.0
        self.evidence = 0.0
        self._quiet = np.inf  # frames since something sounded

    @property
    def silent(self) -> bool:
        """Whether nothing has sounded for `SILENCE_S`."""
        return self._quiet >= self._silent_frames

    def step(self, power: float, confidence: float, evidence: float) -> bool:
        """Take one hop.

        Args:
            power: its mean square, full scale 1.
            confidence: the filter's, 0-1.
            evidence: natural log of how much likelier the sound is with a pulse than without any,
                a second: the filter's and the tonality's.

        Returns:
            Whether the state changed.
        """
        self._quiet = self._quiet + 1 if power < self._silence else 0
        self.confidence += self._confidence_gain * (confidence - self.confidence)
        self.evidence += self._evidence_gain * (evidence - self.evidence)
        silent = self.silent
        before = self.state
        if self.state is TrackerState.LOCKED:
            if silent or self.confidence < LOSE_AT or self.evidence < LOSE_EVIDENCE:
                self.state = TrackerState.LOST
        elif not silent and self.confidence > LOCK_AT and self.evidence > LOCK_EVIDENCE:
            self.state = TrackerState.LOCKED
        return self.state is not before
