"""Commands by the keys of the terminal that the program runs in."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
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

    Ctrl-C stays what it is. Where stdin is no terminal nothing happens; while another program has
    the terminal (after Ctrl-Z and ``bg``, or with ``&``), its keys and settings are left to that.
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
            import termios  # noqa: F401

            number = sys.stdin.fileno() if self._descriptor is None else self._descriptor
            if not os.isatty(number):
                return
        except (ImportError, OSError, ValueError, AttributeError):
            return  # no terminal
        self._descriptor = number
        if self._has_terminal() and not self._set():
            return
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._thread.start()

    def _has_terminal(self) -> bool:
        """Whether we may read and set it: else the system would stop the whole program."""
        assert self._descriptor is not None
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # not the one that controls us: nobody is stopped because of it
            return True

    def _set(self) -> bool:
        """Have keys come one by one and unseen; return whether the terminal can do it."""
        import termios
        import tty

        assert self._descriptor is not None
        try:
            now = termios.tcgetattr(self._descriptor)
            if not now[3] & termios.ICANON and self._before is not None:
                return True
            tty.setcbreak(self._descriptor, termios.TCSANOW)
        except (OSError, termios.error):
            return False
        if self._before is None:
            self._before = now
            _log.info("%s", HELP)
        return True

    def _run(self) -> None:
        number = self._descriptor
        assert number is not None
        # Should the terminal change hands just before a read, that fails instead of stopping us.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTIN,))
        while not self._ended.is_set():
            if not self._has_terminal():
                self._ended.wait(_POLL_S)
                continue
            if not self._set():  # anew, for a shell had it in between
                return
            try:
                if not select.select([number], [], [], _POLL_S)[0] or not self._has_terminal():
                    continue
                typed = os.read(number, 64)
            except OSError:
                if self._has_terminal():
                    return
                continue
            if not typed:  # the terminal was closed
                return
            for key in typed.decode("latin-1"):
                if key in KEYS:
                    self._put(parse(KEYS[key]))

    def stop(self) -> None:
        """Give the terminal back as it was."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(1)
        if self._before is not None and self._descriptor is not None and self._has_terminal():
            import termios

            with contextlib.suppress(OSError, termios.error):
                # At once: output that waits, as after Ctrl-S, may wait for ever.
                termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)
        self._before = None
