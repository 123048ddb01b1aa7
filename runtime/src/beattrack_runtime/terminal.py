"""What a person sees: events on stdout, notes and a live status line on stderr."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any, cast

from beattrack_runtime.errors import printable
from beattrack_runtime.stats import clock
from beattrack_runtime.streams import CLOSE_S, Stream
from beattrack_runtime.view import View, times

if TYPE_CHECKING:
    from beattrack_runtime.live.health import Health
    from beattrack_runtime.sources import Source

_REFRESH_S = 1 / 25
_FLASH_S = 0.12  # how long the lamp stays lit after a beat
_BAR_CELLS = 10
_LAST_S = 0.1  # that stderr has for its end, whatever stdout took


class Terminal:
    """Prints lines; where stderr is a terminal, keeps a live line below them.

    Lines reach stdout at once, so that whoever reads them from a pipe is not late. A reader that
    does not read is waited for, or, where ``waits`` is no, costs nobody but itself anything.
    """

    def __init__(self, waits: bool = True) -> None:
        """Look what stdout and stderr are."""
        self._waits = waits
        self._out, self._err = Stream(sys.stdout), Stream(sys.stderr)
        if not waits:
            self._out.free()
            self._err.free(self._out)
        self._needed = False  # whether stdout must have a reader, although we do not write there
        self._lock = threading.Lock()  # the live line and notes of other threads share a console
        self._live: Any = None
        self._console: Any = None
        self._shown_s = 0.0  # monotonic time of the last refresh
        self._peak = 0.0  # loudest sample since the last refresh
        if _is_terminal(sys.stderr):
            from rich.console import Console  # 0.1 s that a pipe need not wait for

            self._console = Console(file=cast("IO[str]", self._err), highlight=False)

    @property
    def has_live_line(self) -> bool:
        """Whether a person sees how things are."""
        return self._console is not None

    def lend(self, only: bool) -> None:
        """Leave stdout to a live output; ``only``: without its reader the program has no purpose.

        Where it shares a screen with us there is no live line: they would tear each other.
        """
        self._needed = only
        if _is_terminal(sys.stdout):
            self._console = None

    def line(self, text: str) -> None:
        """Print one event's line on stdout. Raises OSError as `check` does."""
        if self._live is not None and _is_terminal(sys.stdout):
            # The same screen: rich moves the live line out of the way.
            self._print(text)
            return
        self.check()
        self._out.write(text + "\n")

    def check(self) -> None:
        """Raise BrokenPipeError when nobody reads stdout any more, or why it cannot be written."""
        if self._out.error is not None:
            raise self._out.error
        if self._needed and self._out.unread:
            raise BrokenPipeError

    def note(self, text: str) -> None:
        """Print one line on stderr."""
        text = printable(text)
        if self._console is not None:
            self._print(text)
        else:
            self._err.write(text + "\n")

    def _print(self, text: str) -> None:
        with self._lock:
            self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Write what still waits; for a reader that is stuck it waits a second at most."""
        end_s = time.monotonic() + CLOSE_S
        self._out.drain(end_s)
        for stream, name in ((self._out, "stdout"), (self._err, "stderr")):
            if stream.lost:
                lines = "1 line" if stream.lost == 1 else f"{stream.lost} lines"
                self.note(f"beattrack: warning: {name} was not read: {lines} are missing.")
        end_s = max(end_s, time.monotonic() + _LAST_S)
        if not self._err.drain(end_s) or not self._err.takes(end_s):
            # The last words of the program would wait for ever.
            sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        self._out.end()
        self._err.end()

    def start(self) -> None:
        """Begin a stream: show the live line, if there is a terminal."""
        if self._console is not None:
            from rich.live import Live

            # Not transient and not redirecting: what is printed goes through line() and note().
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start()

    def stop(self) -> None:
        """End the stream: remove the live line."""
        if self._live is not None:
            with self._lock:
                self._live.stop()
            self._live = None

    def update(self, source: Source, view: View, health: Health) -> None:
        """Refresh the live line, at most 25 times a second. Raises OSError as `check` does."""
        self.check()
        if self._live is None:
            return
        self._peak = max(self._peak, health.peak)
        now = time.monotonic()
        if now - self._shown_s < _REFRESH_S:
            return
        self._shown_s = now
        status = self._status(source, view, health)
        with self._lock:
            self._err.latest = True
            try:
                self._live.update(status, refresh=True)
            finally:
                self._err.latest = False
        self._peak = 0.0

    def _status(self, source: Source, view: View, health: Health) -> Any:
        """Return the live line as rich text."""
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ellipsis")
        self._lamp(line, view)
        tempo = view.tempo_bpm
        line.append(
            f"  {tempo:5.1f} bpm" if tempo else "   --.- bpm", "bold" if view.sure else "dim"
        )
        if view.factor != 1:
            line.append(f" {times(view.factor)}", "magenta")
        filled = round(5 * min(1.0, max(0.0, view.confidence)))
        line.append("  sure ", "dim").append("■" * filled, "green").append(
            "·" * (5 - filled), "dim"
        )
        line.append(f"  {view.state:<9} ", "green" if view.sure else "yellow")
        self._progress(line, source, health, view.time_s)
        return line

    def _lamp(self, line: Any, view: View) -> None:
        """Append the beats of the bar; the present one is lit, brightly while it sounds."""
        beat = view.beat
        if beat is None:
            line.append("○ ", "dim")
            return
        flash = view.time_s - beat.time_s < _FLASH_S
        colour = "bright_red" if beat.position == 1 else "bright_cyan"
        line.append("● " if flash else "○ ", colour)
        for position in range(1, beat.beats_per_bar + 1):
            here = position == beat.position
            style = f"bold {colour}" + (" reverse" if flash else "") if here else "dim"
            line.append(f" {position} ", style)

    def _progress(self, line: Any, source: Source, health: Health, time_s: float) -> None:
        """Append how far a file has come; of live sound the level; and how it does."""
        if source.duration_s:
            share = min(1.0, time_s / source.duration_s)
            cells = round(share * _BAR_CELLS)
            line.append("━" * cells, "cyan").append("━" * (_BAR_CELLS - cells), "bright_black")
            line.append(f" {share:4.0%}  {clock(time_s)}/{clock(source.duration_s)}", "dim")
            if self._waits:  # as fast as it goes: nobody hears it
                return
        else:
            level = 20 * math.log10(max(self._peak, 1e-5))
            cells = round(_BAR_CELLS / 2 * min(1.0, max(0.0, 1 + level / 60)))
            colour = "red" if level > -1 else "green"
            line.append("▮" * cells, colour)
            line.append("▯" * (_BAR_CELLS // 2 - cells), "bright_black")
            line.append(f"  {clock(time_s)}", "dim")
        bad = source.note or source.overruns or health.clipping
        line.append(f"  {health.line()}", "red" if bad else "dim")


class NoteHandler(logging.Handler):
    """Sends the program's log through the terminal, so that it does not tear the live line."""

    def __init__(self, terminal: Terminal) -> None:
        """Send records to ``terminal``."""
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Print ``beattrack: [level:] message``."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        with contextlib.suppress(OSError):  # a closed stderr is no reason to stop
            self._terminal.note(f"beattrack: {level}{record.getMessage()}")


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
