"""How strong the beats of the music at hand are, as the network sees them."""

from __future__ import annotations

import math

RELEASE = 1.0  # of the log odds, a second: how fast the peaks are forgotten
SMOOTH_S = 0.5  # time constant of what follows the peaks
LOWEST, HIGHEST = -1.0, 1.0  # log odds: no music is taken to be weaker or stronger than this
START = -2.0  # before anything was heard


class ActivationLevel:
    """Follows the peaks of a beat activation.

    In one piece of music the network is sure of each beat, in another, heavy or soft, of none.
    Whether an activation speaks for a beat is judged against those around it: what would be a
    beat in the second is an off-beat in the first. Taken as it is, it would double the tempo.
    """

    def __init__(self, fps: float) -> None:
        """Follow an activation of ``fps`` frames a second."""
        self._release = RELEASE / fps
        self._gain = 1 - math.exp(-1 / (SMOOTH_S * fps))
        self.reset()

    def reset(self) -> None:
        """Forget the music."""
        self._peak = self._smooth = START

    def step(self, log_odds: float) -> float:
        """Take a frame's log odds of a beat; return those of a typical beat now."""
        self._peak = max(log_odds, self._peak - self._release)
        self._smooth += self._gain * (self._peak - self._smooth)
        return min(max(self._smooth, LOWEST), HIGHEST)
