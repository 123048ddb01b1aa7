"""Causal peak picking: the manual's simple decoder, for beats and downbeats apart."""

from __future__ import annotations

from collections import deque

from beattrack.config import ConfigError


class PeakPicker:
    """A frame is a peak if it reaches the threshold and is the maximum of its neighbourhood.

    The manual's max-pooling, with its look-ahead declared: the peak of frame t is told at frame
    t + ``latency_frames``. Of equal neighbours the first is the peak.

    Args:
        threshold: 0-1; a peak's activation is at least this.
        before: frames before it that must be lower, >= 0.
        after: frames after it that must not be higher, >= 0: the look-ahead.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(self, threshold: float, before: int = 3, after: int = 1) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold={threshold} is not possible: it must be 0-1, above 0.")
        if not (0 <= before <= 1000 and 0 <= after <= 1000):
            raise ConfigError(f"before={before}, after={after} are not possible: each is 0-1000.")
        self._threshold = threshold
        self._before, self._after = before, after
        self.reset()

    @property
    def latency_frames(self) -> int:
        """Frames between a peak and the call that tells it."""
        return self._after

    def reset(self) -> None:
        """Forget everything heard so far."""
        self._frame = 0
        self._recent: deque[float] = deque(maxlen=self._before + 1 + self._after)

    def step(self, activation: float) -> int | None:
        """Take one frame's activation, 0-1; return the frame index of a peak now certain."""
        self._recent.append(activation)
        self._frame += 1
        candidate = self._frame - 1 - self._after
        place = len(self._recent) - 1 - self._after
        if place < 0:
            return None
        values = list(self._recent)
        height = values[place]
        if height < self._threshold:
            return None
        if any(v >= height for v in values[:place]) or any(v > height for v in values[place + 1 :]):
            return None
        return candidate
