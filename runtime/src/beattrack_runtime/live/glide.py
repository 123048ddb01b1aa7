"""A delay that the user may change while the music plays."""

from __future__ import annotations

import math

SHARE = 0.1  # of the time that passes: by so much a delay moves to its new value at most


class Glide:
    """Adds a delay to moments; a new delay is reached gradually.

    Jumping at once would send ticks in another order than they sound, which breaks a MIDI clock.
    While the delay glides, the pulse runs at most ``SHARE`` fast or slow. Where nothing is sent
    for a while, as in a pause, the time that passed counts as well.
    """

    def __init__(self, delay_s: float) -> None:
        """Begin with this delay, seconds; negative is early."""
        self.goal_s = delay_s  # what the user asked for
        self._now_s = delay_s
        self._last_s = -math.inf  # the latest moment asked about: the first takes any delay

    @property
    def earliest_s(self) -> float:
        """The smaller of the present delay and the one that it glides to, seconds."""
        return min(self.goal_s, self._now_s)

    def delayed(self, at_s: float) -> float:
        """Return ``at_s``, seconds, with the delay of that moment; moments may be out of order."""
        room_s = SHARE * max(0.0, at_s - self._last_s)
        self._last_s = max(self._last_s, at_s)
        self._now_s += max(-room_s, min(room_s, self.goal_s - self._now_s))
        return at_s + self._now_s
