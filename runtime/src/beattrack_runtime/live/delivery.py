"""Every output on a thread of its own, on time, whatever the others do."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time

from beattrack_runtime.errors import reason
from beattrack_runtime.live.clock.ticks import ClockStateChange, Tick
from beattrack_runtime.live.glide import Glide
from beattrack_runtime.live.output import Due, Output, OutputHealth, Pulse, Pulsing, Status

QUEUE = 512  # things that wait for one output at most: 21 beats of ticks
LATE_S = 0.005  # what is sent later than this after its moment counts as late
STALE_S = 0.1  # a tick later than this is not sent: worse than no beat is one in the wrong place
RETRY_S = (0.25, 0.5, 1.0, 2.0, 4.0)  # waits between attempts to open an output again
STEADY = 5  # things sent in a row before an output that failed in sending is said to work again
CLOSE_S = 1.0  # how long the end of the program waits for an output

_log = logging.getLogger("beattrack")


class Delivery:
    """One output with its thread and its bounded queue.

    ``put`` never waits: a dead receiver costs nobody else anything. Ticks that cannot be sent in
    time are dropped and counted. A failed output is opened again, and told the state first.
    """

    def __init__(self, output: Output, delay_ms: float = 0.0) -> None:
        """Wrap ``output``; `start` begins."""
        self._output = output
        self._pulsing = output if isinstance(output, Pulsing) else None
        self._wake = threading.Condition()
        self._heap: list[tuple[float, int, Due]] = []  # (when to send, order, what)
        self._numbers = itertools.count()
        self._ended = False
        self._end_s = math.inf  # what is due later than this is not waited for
        self._delay = Glide(delay_ms / 1000)
        self._known: Due | None = None  # the last state that has fallen due
        self._counted: Due | None = None  # and the last one sent: sent again, it counts no more
        self._sent = self._late = self._dropped = self._reconnects = 0
        self._state = "opening"
        self._told = False  # that it failed, and not yet that it works again
        self._doubtful = False  # whether it failed in sending: that it opens then shows nothing
        self._row = 0  # things sent since it was opened
        self._opened = False
        self._thread = threading.Thread(target=self._run, name=output.name, daemon=True)

    @property
    def name(self) -> str:
        """The output's name."""
        return self._output.name

    @property
    def opened(self) -> bool:
        """Whether it could ever be opened."""
        return self._opened

    @property
    def early_s(self) -> float:
        """How long before its audio time this output must be given a thing, seconds, >= 0."""
        return max(0.0, self._output.ahead_s - self._delay.earliest_s)

    def set_delay(self, delay_ms: float) -> None:
        """Sound ``delay_ms`` later than the music, or earlier: the next ticks begin to glide."""
        self._delay.goal_s = delay_ms / 1000

    def health(self) -> OutputHealth:
        """Return the counts so far."""
        return OutputHealth(
            self.name, round(1000 * self._delay.goal_s, 6), self._sent, self._late, self._dropped,
            self._reconnects, self._state,
        )  # fmt: skip

    def start(self) -> None:
        """Open the output, on its own thread."""
        self._thread.start()

    def put(self, what: Tick | ClockStateChange | Status, at_s: float) -> None:
        """Have something sent that sounds at ``at_s``, monotonic; the delay is added here."""
        if isinstance(what, Tick) and what.tick and self._output.beats_only:
            return
        if not isinstance(what, Status):
            at_s = self._delay.delayed(at_s)
        with self._wake:
            if len(self._heap) >= QUEUE:
                self._make_room()
            item = (at_s - self._output.ahead_s, next(self._numbers), Due(what, at_s))
            heapq.heappush(self._heap, item)
            if self._heap[0] is item:
                self._wake.notify()

    def _make_room(self) -> None:
        """Drop what would be sent first, but no state if there is anything else."""
        states = []
        while self._heap and isinstance(self._heap[0][2].what, ClockStateChange):
            states.append(heapq.heappop(self._heap))
        self._dropped += isinstance(heapq.heappop(self._heap or states)[2].what, Tick)
        for state in states:
            heapq.heappush(self._heap, state)

    def stop(self) -> None:
        """End: what is due within moments and the last state are sent, then it is closed."""
        with self._wake:
            self._ended, self._end_s = True, time.monotonic() + CLOSE_S / 2
            self._wake.notify()

    def join(self) -> None:
        """Wait until it has ended, but not for a receiver that is stuck."""
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        attempt = 0
        while not self._ended:
            try:
                self._open()
                if self._known is not None:
                    self._send(self._known)
                attempt = 0
                self._serve()
                break
            except Exception as error:  # a fault of a library, or of ours, must not end the show
                self._fail(error)
            self._discard(time.monotonic() + RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1
        self._close()
        self._state = "closed"

    def _open(self) -> None:
        try:
            self._output.open()
        except Exception:
            self._doubtful = False
            raise
        self._opened = True
        self._row = 0
        if not self._doubtful:
            self._works()

    def _works(self) -> None:
        self._state = "open"
        if self._told:
            self._told = False
            self._reconnects += 1
            _log.info("%s: connected again.", self.name)

    def _fail(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            text = reason(error) if isinstance(error, OSError) else str(error)
            text = text.rstrip(".") or type(error).__name__
            _log.warning("%s: %s; it is tried again.", self.name, text)
        self._state = "broken"
        self._close()

    def _close(self) -> None:
        try:
            self._output.close()
        except Exception as error:
            _log.debug("%s: closing: %s", self.name, error)

    def _serve(self) -> None:
        """Send everything at its moment, until the end or a failure."""
        while (due := self._next()) is not None:
            late_s = time.monotonic() - (due.at - self._output.ahead_s)
            if isinstance(due.what, Tick) and late_s > STALE_S:
                self._dropped += 1
            else:
                self._send(due, late_s)

    def _send(self, due: Due, late_s: float = 0.0) -> None:
        """Send one thing and count it.

        Over UDP a dead receiver can be opened, and shows only when something is sent: so one that
        failed in sending works again when some beats or states, not statuses, which few outputs
        send, have got through. What fails again and again is told of once.
        """
        try:
            self._output.send(due)
        except Exception:
            self._dropped += isinstance(due.what, Tick)
            self._doubtful = True
            raise
        if isinstance(due.what, (Status, Pulse)) or due is self._counted:
            return
        self._counted = due if isinstance(due.what, ClockStateChange) else self._counted
        self._sent += 1
        # An output that schedules by itself loses nothing with a part of its head start.
        self._late += late_s > LATE_S + self._output.ahead_s / 2
        self._row += 1
        if self._row == STEADY:
            self._doubtful = False
            self._works()

    def _next(self) -> Due | None:
        """Wait for the next moment at which something is to be sent; None: the end."""
        with self._wake:
            while True:
                first_s = self._heap[0][0] if self._heap else math.inf
                pulse_s = math.inf if self._pulsing is None else self._pulsing.pulse_s
                wait = min(first_s, pulse_s) - time.monotonic()
                if wait <= 0:
                    return self._take() if first_s <= pulse_s else Due(Pulse(), pulse_s)
                if first_s > self._end_s:
                    return self._last_word()
                self._wake.wait(None if wait == math.inf else wait)

    def _take(self) -> Due:
        due = heapq.heappop(self._heap)[2]
        if isinstance(due.what, ClockStateChange):
            self._known = due
        return due

    def _last_word(self) -> Due | None:
        """Return the last state of all, to be sent at once, and forget the rest."""
        waiting, self._heap = sorted(self._heap), []
        states = [due.what for _, _, due in waiting if isinstance(due.what, ClockStateChange)]
        return Due(states[-1], time.monotonic()) if states else None

    def _discard(self, until_s: float) -> None:
        """Wait, dropping the ticks that fall due; the last state is kept for the new connection."""
        with self._wake:
            while not self._ended and (left := until_s - time.monotonic()) > 0:
                self._wake.wait(left)
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                self._dropped += isinstance(self._take().what, Tick)
