"""Stdout and stderr for a program that must not wait for whoever reads them.

A viewer hangs, a terminal is stopped with Ctrl-S, a network link stalls: then a write waits without
end, and with it what should drive lights and machines. So a thread writes, and what finds its queue
full is lost and counted.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from typing import TextIO

QUEUE = 1024  # texts that wait at most: some five minutes of events
CLOSE_S = 1.0  # how long the end of the program waits for readers
_BUSY_S = 0.02  # between two attempts at a descriptor that does not wait and takes nothing


class Stream:
    """Stdout or stderr; until `free` is called a write waits for its reader, and nothing is lost.

    It is file enough for rich's console.
    """

    def __init__(self, file: TextIO) -> None:
        """Write to ``file``."""
        self._file = file
        self._lane: Lane | None = None
        self._descriptor = -1
        self.latest = False  # what is written now stands for what was so written before
        self.lost = 0  # texts that nobody took in time
        self.error: OSError | None = None  # of a write that somebody else was to hear of

    def free(self, other: Stream | None = None) -> None:
        """From now on never wait. ``other``, if it leads to the same place, keeps its order to us.

        A stream without a descriptor, as in a notebook, stays as it is.
        """
        try:
            # A copy: number 2 itself is sent nowhere while libraries chatter.
            self._descriptor = os.dup(self._file.fileno())
        except (OSError, ValueError, AttributeError):
            return
        if other is not None and other._lane is not None:
            with contextlib.suppress(OSError):
                if os.path.sameopenfile(self._descriptor, other._descriptor):
                    self._lane = other._lane
        self._lane = self._lane or Lane()

    @property
    def encoding(self) -> str:
        """The file's."""
        return self._file.encoding or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._file.isatty()

    @property
    def unread(self) -> bool:
        """Whether it is a pipe whose reader has gone, as far as can be told."""
        if self._descriptor < 0 or not hasattr(select, "poll"):
            return False
        return bool(_poll(self._descriptor, 0, 0.0) & (select.POLLERR | select.POLLHUP))

    def write(self, text: str) -> int:
        """Write whole lines. Raises OSError where a write waits; else see `error`."""
        if self._lane is None:
            self._file.write(text)
            self._file.flush()
        else:
            data = text.encode(self.encoding, self._file.errors or "strict")
            self._lane.put(self, data, self.latest)
        return len(text)

    def flush(self) -> None:
        """Everything is on its way at once."""

    def write_now(self, data: bytes) -> None:
        """Write and wait, on the lane's thread; a failure is kept in `error`."""
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            self.error = self.error or error

    def drain(self, until_s: float) -> bool:
        """Wait until all is written, at most till then, monotonic; return whether it is.

        What is not is lost.
        """
        return self._lane is None or self._lane.drain(until_s)

    def takes(self, until_s: float) -> bool:
        """Whether it takes more, if need be after waiting till then, monotonic."""
        if self._descriptor < 0 or not hasattr(select, "poll"):
            return True
        return _poll(self._descriptor, select.POLLOUT, until_s - time.monotonic()) != 0

    def end(self) -> None:
        """Take nothing more, and let go of it unless it is stuck."""
        if self._lane is None or self._descriptor < 0:
            return
        self._lane.end()  # first: nobody may write any more when the descriptor is closed
        if self._lane.drain(time.monotonic()):
            os.close(self._descriptor)
            self._descriptor = -1


class Lane:
    """The thread and the bounded queue of one place, or of both streams if they lead there."""

    def __init__(self) -> None:
        """Begin."""
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Stream, bytes, bool]] = deque()
        self._writing: Stream | None = None
        self._ended = False
        threading.Thread(target=self._run, name="streams", daemon=True).start()

    def put(self, stream: Stream, data: bytes, latest: bool) -> None:
        """Have something written; never waits. When the queue is full the oldest goes."""
        with self._changed:
            if self._ended:
                return
            if latest and self._waiting and self._waiting[-1][2]:
                self._waiting.pop()
            elif len(self._waiting) >= QUEUE:
                self._lose()
            self._waiting.append((stream, data, latest))
            self._changed.notify_all()

    def _lose(self) -> None:
        stream, _, latest = self._waiting.popleft()
        stream.lost += not latest

    def drain(self, until_s: float) -> bool:
        """Wait until the queue is written, at most till then; return whether it is."""
        with self._changed:
            while self._waiting or self._writing is not None:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            while self._waiting:
                self._lose()
            if self._writing is not None:
                self._writing.lost += 1
            return self._writing is None

    def end(self) -> None:
        """Take nothing more, and end the thread, unless it is stuck."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = None
                self._changed.notify_all()
                while not self._waiting:
                    if self._ended:
                        return
                    self._changed.wait()
                self._writing, data, _ = self._waiting.popleft()
            self._writing.write_now(data)


def _poll(descriptor: int, wanted: int, seconds: float) -> int:
    """Return the events of a descriptor; wait for those wanted so long at most."""
    look = select.poll()
    look.register(descriptor, wanted)
    return sum(found for _, found in look.poll(max(0.0, seconds) * 1000))


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a descriptor, waiting also where it is set not to. Raises OSError."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program on the same terminal has set it so
            time.sleep(_BUSY_S)
