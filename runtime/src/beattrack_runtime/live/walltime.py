"""From seconds of the stream to seconds of the clock on the wall."""

from __future__ import annotations

from collections import deque

SETTLE_S = 3.0  # s of stream in which the first blocks, which may come in a burst, set the time
WINDOW_S = 1.0  # s over which the earliest arrival counts
WINDOWS = 120  # of them that the drift is fitted to
MAX_SLEW = 0.002  # s by which the time moves in a second: too little to be heard
MAX_HURRY = 0.01  # and towards earlier, where an earlier arrival has proved it to be late
JUMP_S = 0.1  # a whole window that is off by more is a stream that was broken off and went on
MIN_DRIFT_S = 10.0  # s of stream before a drift is told


class StreamTime:
    """Maps stream seconds to ``time.monotonic()`` seconds.

    A block arrives as soon as its last sample has been heard, or later, never earlier: so the
    earliest arrivals of each second tell the time, and the rest is jitter. A sound card's second is
    not quite that of the computer; the time follows it by at most ``MAX_SLEW``, or ``MAX_HURRY``
    towards earlier.
    """

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._offset_s: float | None = None  # monotonic minus stream
        self._began_s = 0.0  # stream time of the first block
        self._last_s = 0.0  # stream time of the last one
        self._window_end_s = 0.0
        self._earliest = (0.0, 0.0)  # of this window: (stream time, offset)
        self._minima: deque[tuple[float, float]] = deque(maxlen=WINDOWS)
        self._goal_s = 0.0  # the offset that is slewed to
        self.jumps = 0  # times that the stream was broken off
        self.hasty = 0  # windows in a row in which it gained on the clock as no sound card does

    def heard(self, stream_s: float, at_s: float) -> None:
        """Take one arrival: at ``at_s`` (monotonic) the stream had come to ``stream_s``."""
        offset = at_s - stream_s
        if self._offset_s is None:
            self._offset_s = self._goal_s = offset
            self._began_s = self._last_s = stream_s
            self._open_window(stream_s, offset)
            return
        passed, self._last_s = stream_s - self._last_s, stream_s
        if offset < self._earliest[1]:
            self._earliest = (stream_s, offset)
        if stream_s - self._began_s <= SETTLE_S:
            self._offset_s = self._goal_s = min(self._offset_s, offset)
        if stream_s >= self._window_end_s:
            self._close_window(stream_s, offset)
        step = MAX_SLEW * max(0.0, passed)
        hurry = MAX_HURRY * max(0.0, passed)
        self._offset_s += max(-hurry, min(step, self._goal_s - self._offset_s))

    def _open_window(self, stream_s: float, offset: float) -> None:
        self._window_end_s = stream_s + WINDOW_S
        self._earliest = (stream_s, offset)

    def _close_window(self, stream_s: float, offset: float) -> None:
        """The earliest arrival of a window is what the time goes by."""
        assert self._offset_s is not None
        earliest = self._earliest
        self.hasty = self.hasty + 1 if earliest[1] < self._offset_s - JUMP_S else 0
        self._open_window(stream_s, offset)
        if abs(earliest[1] - self._offset_s) > JUMP_S:
            self.jumps += 1
            self._minima.clear()
            self._offset_s = self._goal_s = earliest[1]
            return
        self._minima.append(earliest)
        # The median of the last few: one window may have had late arrivals alone.
        recent = sorted(o for _, o in list(self._minima)[-5:])
        self._goal_s = recent[len(recent) // 2]

    def wall(self, stream_s: float) -> float | None:
        """Return when ``stream_s`` sounds, monotonic seconds; None before anything was heard."""
        return None if self._offset_s is None else stream_s + self._offset_s

    def stream(self, at_s: float) -> float | None:
        """Return what sounds at ``at_s``, stream seconds; None before anything was heard."""
        return None if self._offset_s is None else at_s - self._offset_s

    @property
    def drift_ppm(self) -> float | None:
        """How slow the card's clock is against the wall's, parts in a million; None at first.

        The least-squares slope of the last minutes' earliest arrivals.
        """
        if len(self._minima) < 3 or self._minima[-1][0] - self._minima[0][0] < MIN_DRIFT_S:
            return None
        n = len(self._minima)
        mean_s = sum(s for s, _ in self._minima) / n
        mean_o = sum(o for _, o in self._minima) / n
        spread = sum((s - mean_s) ** 2 for s, _ in self._minima)
        return 1e6 * sum((s - mean_s) * (o - mean_o) for s, o in self._minima) / spread
