"""Raw PCM on stdin."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.errors import MisuseError, SourceError, reason
from beattrack_runtime.live.pace import Pace, in_step, silence
from beattrack_runtime.live.pcm import (
    AUDIO_FILES,
    FIRST_BYTES,
    POLL_S,
    QUIET_S,
    READ_BYTES,
    PcmDecoder,
    PcmFormat,
    check_channel,
)

PIPE_BYTES = 1 << 20  # asked of the system for stdin: what it can hold while we are busy

_log = logging.getLogger("beattrack")


class StdinSource:
    """Raw PCM on stdin, to its end. What is late is carried on by silence, as from a microphone.

    There is no queue: the system's pipe holds what has not been read, and its writer waits.
    """

    name = "stdin"
    duration_s: float | None = None

    def __init__(self, form: PcmFormat, channel: int | None = None, file: int = 0) -> None:
        """Read ``file``, a descriptor. Raises MisuseError: a terminal, or no such channel."""
        check_channel(channel, form.channels)
        if os.isatty(file):
            raise MisuseError("--stdin reads raw PCM from a pipe, and stdin is a terminal.")
        self._file = file
        self._decoder = PcmDecoder(form, channel)
        self.sample_rate = form.rate
        self.channels = form.channels if channel is None else 1
        self.overruns = 0
        self.note = ""
        self._pace = Pace(form.rate)
        if sys.platform == "linux":
            import fcntl

            with contextlib.suppress(OSError):  # not a pipe, or not allowed: then less must do
                fcntl.fcntl(file, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels] as it comes, and [0, channels] while nothing does.

        Raises:
            SourceError: stdin holds an audio file, or cannot be read.
        """
        last, gap = time.monotonic(), False
        head: bytes | None = b""  # the first bytes, until there are enough to know a file by
        while True:
            try:
                ready = select.select([self._file], [], [], POLL_S)[0]
                data = os.read(self._file, READ_BYTES) if ready else None
            except (OSError, ValueError) as error:
                words = reason(error) if isinstance(error, OSError) else str(error)
                raise SourceError(f"Cannot read stdin: {words}.") from None
            now = time.monotonic()
            if data == b"":
                if head:
                    yield self._decoder.push(head)
                if self._decoder.rest:
                    _log.warning("stdin ended in the middle of a sample.")
                return
            if data is None:
                self.note = "waiting for audio" if now - last > QUIET_S else ""
                missing = self._pace.behind(now) if now - last > QUIET_S else 0
                self.overruns += bool(missing) and not gap
                gap = gap or bool(missing)
                self._pace.fill(missing)
                yield from silence(missing, self.channels, self.sample_rate)
                continue
            last, gap, self.note = now, False, ""
            if head is not None:
                head += data
                if len(head) < FIRST_BYTES:
                    continue
                if AUDIO_FILES.match(head):
                    raise SourceError("stdin holds an audio file: give it with --file.")
                data, head = head, None
            yield from in_step(self._pace, self._decoder.push(data), now, self.sample_rate)

    def close(self) -> None:
        """Stdin belongs to the program: nothing to do."""
