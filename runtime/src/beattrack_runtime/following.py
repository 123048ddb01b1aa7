"""The loop that every stream goes through: source, tracker, outputs."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from beattrack.events import Beat, Event, StateChange
from beattrack_runtime.errors import OutputError, SourceError
from beattrack_runtime.live.health import Health
from beattrack_runtime.live.journal import Journal
from beattrack_runtime.outputs import Output
from beattrack_runtime.outputs.lines import Formatter
from beattrack_runtime.session import LiveTracker
from beattrack_runtime.sources import FileSource, Source, paced
from beattrack_runtime.stats import Summary
from beattrack_runtime.terminal import Terminal
from beattrack_runtime.view import View, tracker_view

if TYPE_CHECKING:
    from beattrack_runtime.live.show import Show

_log = logging.getLogger("beattrack")

SAME_S = 0.5  # signals so close are one wish, as of a terminal and a supervisor at once


class StopRequest:
    """Ctrl-C, SIGTERM or a closed terminal ask the loop to end; asked twice, the program ends."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self.signal: int | None = None  # which one asked
        self._asked_s = 0.0  # and when, monotonic

    def install(self) -> None:
        """Begin to listen."""
        # A flag and no more: an exception, or waking a lock, in the middle of anything could
        # leave a file half written or the program stuck.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._asked_s = number, time.monotonic()
        elif number == signal.SIGHUP or time.monotonic() - self._asked_s < SAME_S:
            return
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            # Not above, for the next time: Python cannot bear a default that is set while the
            # signal already waits.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    @property
    def asked(self) -> bool:
        """Whether the program has been asked to end."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell reports for a program that this signal ended; 0 if none asked."""
        return 0 if self.signal is None else 128 + self.signal


def follow(
    source: Source,
    tracker: LiveTracker,
    outputs: Sequence[Output],
    terminal: Terminal,
    formatter: Formatter | None,
    stop: StopRequest,
    realtime: bool = False,
    show: Show | None = None,
) -> bool:
    """Track ``source`` to its end, or until ``stop`` is asked, and finish the outputs.

    A summary goes to the log. An output that fails is given up with a message; the others go on.

    Args:
        source: read to its end and not closed.
        tracker: at the source's sample rate.
        outputs: finished, whatever happens to the source.
        terminal: shows the events and the live line.
        formatter: of the events on stdout; None prints nothing.
        stop: looked at after each block.
        realtime: hold the source back to the speed of the clock on the wall.
        show: drives the live outputs, if there are any; not closed.

    Returns:
        Whether every output was written.

    Raises:
        SourceError: after the outputs were written with what had been heard until then.
    """
    stream = _Stream(source, tracker, outputs, terminal, formatter, show)
    failure: SourceError | None = None
    terminal.start()
    try:
        try:
            stream.run(stop, realtime)
        except SourceError as error:
            if not tracker.time_s:
                raise  # nothing was heard: an empty result would only mislead
            failure = error
        except BrokenPipeError:  # whoever read our stdout has heard enough
            stop.signal = stop.signal or signal.SIGPIPE
        stream.summary.wall_s = time.monotonic() - stream.began_s
        if stop.asked and tracker.time_s < (source.duration_s or 0.0):
            stream.summary.cut_of_s = source.duration_s
        terminal.stop()
        _log.info("%s", stream.summary.text())
        stream.finish()
    except BaseException:
        for output in outputs:
            output.abandon()
        raise
    finally:
        terminal.stop()
    if failure is not None:
        raise failure
    return stream.complete


class _Stream:
    """One run of one source."""

    def __init__(
        self,
        source: Source,
        tracker: LiveTracker,
        outputs: Sequence[Output],
        terminal: Terminal,
        formatter: Formatter | None,
        show: Show | None,
    ) -> None:
        self._source = source
        self._tracker = tracker
        self._outputs = list(outputs)  # those that have not failed
        self._terminal = terminal
        self._format = formatter
        self._show = show
        self._last: Beat | None = None
        self.complete = True  # whether no output has failed
        self.summary = Summary(source.name)
        self.began_s = time.monotonic()

    def run(self, stop: StopRequest, realtime: bool) -> None:
        """Push every block, then what the tracker holds back."""
        source, tracker = self._source, self._tracker
        health = Health(source)
        journal = Journal(source, health, time.monotonic()) if self._quiet(realtime) else None
        tracker.on_frame = self._frame
        if self._show is not None:
            self._show.begin(source, tracker, health)
        blocks = source.blocks()
        if realtime:
            blocks = paced(blocks, source.sample_rate, lambda: stop.asked)
        try:
            for block in blocks:
                if stop.asked:
                    break
                came_s = time.monotonic()
                health.heard(block, came_s)
                for output in list(self._outputs):
                    with self._guarded(output):
                        output.audio(block)
                events = tracker.push(block)
                if self._show is not None:
                    self._show.step(block, events, came_s)
                self._deliver(events)
                self._terminal.update(source, self._view(), health)
                if journal is not None:
                    journal.update(came_s)
            self._deliver(tracker.flush())
        finally:
            if self._show is not None:
                self._show.end()
            self.summary.audio_s = tracker.time_s
            self.summary.overruns = source.overruns
            self.summary.bad_samples = tracker.bad_samples

    def _quiet(self, realtime: bool) -> bool:
        """Whether it is live and no terminal shows how it does."""
        live = realtime or self._show is not None or not isinstance(self._source, FileSource)
        return live and not self._terminal.has_live_line

    def _view(self) -> View:
        return tracker_view(self._tracker, self._last) if self._show is None else self._show.view()

    def _frame(self, time_s: float, beat: float, downbeat: float) -> None:
        for output in self._outputs:
            output.frame(time_s, beat, downbeat)
        if self._show is not None:
            self._show.frame(time_s, beat, downbeat)

    def finish(self) -> None:
        """Finish the outputs."""
        for output in list(self._outputs):
            with self._guarded(output):
                output.finish()
                _log.info("wrote %s", output.path)

    @contextlib.contextmanager
    def _guarded(self, output: Output) -> Iterator[None]:
        """Give ``output`` up if it fails."""
        try:
            yield
        except OutputError as error:
            _log.error("%s", error)
            output.abandon()
            self._outputs.remove(output)
            self.complete = False

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            self.summary.event(event)
            for output in list(self._outputs):
                with self._guarded(output):
                    output.event(event)
            self._last = event if isinstance(event, Beat) else self._last
            line = self._format(event) if self._format is not None else None
            if line is not None:
                self._terminal.line(line)
            elif isinstance(event, StateChange) and self._show is None:  # else the clock's are told
                _log.info("%9.3f s  %s", event.emitted_s, event.state.value)
