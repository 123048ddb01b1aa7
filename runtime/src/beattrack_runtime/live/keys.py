"""Commands by the keys of the terminal that the program runs in."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any

from beattrack_runtime.live.controls import Command, parse

KEYS = {
    " ": "tap", "t": "tap", "d": "double", "*": "double", "h": "halve", "/": "halve",
    "1": "one", "r": "restart", "0": "meter 0", "k": "tempo keep", "a": "tempo auto",
    ",": "nudge -5", ".": "nudge 5",
    **{str(n): f"meter {n}" for n in range(2, 10)},
}  # fmt: skip
HELP = (
    "Keys: space taps, d doubles, h halves, 1 sets the one, 2-9 the beats of a bar, 0 as heard, "
    "k keeps the tempo's octave, a takes any tempo, comma and full stop move all outputs 5 ms "
    "earlier and later, r restarts."
)
_POLL_S = 0.2

_log = logging.getLogger("beattrack")


class TerminalKeys:
    """Reads single keys from the terminal, without echo, until it is stopped.

    Ctrl-C stays what it is. Where stdin is no terminal, or belongs to another program in the
    foreground, nothing happens.
    """

    def __init__(self, put: Callable[[Command], None], descriptor: int | None = None) -> None:
        """Prepare; ``descriptor`` is that of the terminal, stdin's unless given."""
        self._put = put
        self._descriptor = descriptor
        self._before: list[Any] | None = None  # the terminal's settings
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin, if there is a terminal."""
        try:
            import termios
            import tty

            number = sys.stdin.fileno() if self._descriptor is None else self._descriptor
            if not os.isatty(number) or (
                self._descriptor is None and os.tcgetpgrp(number) != os.getpgrp()
            ):
                return
            self._before = termios.tcgetattr(number)
            tty.setcbreak(number, termios.TCSADRAIN)
        except (ImportError, OSError, ValueError, AttributeError):
            return  # no terminal, or one that cannot do it
        self._descriptor = number
        _log.info("%s", HELP)
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = self._descriptor
        assert number is not None
        while not self._ended.is_set():
            try:
                if not select.select([number], [], [], _POLL_S)[0]:
                    continue
                typed = os.read(number, 64)
            except OSError:
                return
            if not typed:  # the terminal was closed
                return
            for key in typed.decode("latin-1"):
                if key in KEYS:
                    self._put(parse(KEYS[key]))

    def stop(self) -> None:
        """Give the terminal back as it was."""
        self._ended.set()
        if self._before is not None and self._descriptor is not None:
            import termios

            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
            self._before = None
        if self._thread is not None:
            self._thread.join(1)
