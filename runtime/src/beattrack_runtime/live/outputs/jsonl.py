"""Lines of JSON: the clock's beats and states at their moment, on stdout, in a file or a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import sys

from beattrack_runtime.live.clock.ticks import ClockStateChange, Tick
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.outputs.web_messages import event_fields, plain
from beattrack_runtime.live.spec import OutputSpec
from beattrack_runtime.streams import write_all


class JsonlOutput:
    """Writes a line at each beat and each change of state.

    A reader that does not read is waited for, on this output's thread; what is stale when it goes
    on is dropped. A named pipe is opened when it has a reader.
    """

    ahead_s = 0.0
    beats_only = True

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; without a path it is stdout."""
        self.name = spec.text
        self._path = spec.place
        self._file: int | None = None

    def open(self) -> None:
        """Open it, a file at its end. Raises OSError; so does a named pipe without a reader."""
        if not self._path:
            # A copy, which may be closed.
            self._file = os.dup(sys.stdout.fileno())
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        self._file = os.open(self._path, flags, 0o666)
        os.set_blocking(self._file, True)

    def send(self, due: Due) -> None:
        """Write a line at once. Raises OSError."""
        line = encode(due)
        if line is None:
            return
        if self._file is None:
            raise ConnectionError("not connected")
        write_all(self._file, line.encode() + b"\n")

    def close(self) -> None:
        """Let go of it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None


def encode(due: Due) -> str | None:
    """Return the line of a beat or a state, with the page's names; None for anything else."""
    what = due.what
    if not isinstance(what, (Tick, ClockStateChange)):
        return None
    kind, values = event_fields(what)
    return json.dumps(plain({"type": kind, **values, "at": due.at}))
