"""Files that appear under their own name only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import time
from pathlib import Path
from typing import TextIO

from beattrack_runtime.errors import OutputError, reason
from beattrack_runtime.streams import CLOSE_S, Stream

READER_S = 10.0  # how long a named pipe is given to find a reader

_log = logging.getLogger("beattrack")
_numbers = itertools.count()


class PendingFile:
    """A file written beside its destination and renamed onto it by `commit`.

    Opened at once, so that a folder that cannot be written to is known before any work is done.
    """

    def __init__(self, path: Path) -> None:
        """Create the temporary file next to ``path``.

        Raises:
            OutputError: the folder does not exist or cannot be written to.
        """
        self.path = path
        # Through a link to the file that it stands for: renaming would replace the link itself.
        self._target = Path(os.path.realpath(path))
        self.temporary = self._target.parent / f".beattrack-{os.getpid()}-{next(_numbers)}.part"
        try:
            self.temporary.touch(exist_ok=False)
        except OSError as error:
            raise OutputError(f"Cannot write '{path}': {reason(error)}.") from None

    def commit(self) -> None:
        """Give the file its name, replacing an older one. Raises OutputError."""
        try:
            self.temporary.replace(self._target)
        except OSError as error:
            self.abandon()
            raise OutputError(f"Cannot write '{self.path}': {reason(error)}.") from None

    def abandon(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)


class LineFile:
    """A text file of lines. A pipe or a device is written to directly, line by line.

    Its reader is waited for unless ``waits`` is no: then what it does not read in time is lost.
    """

    def __init__(self, path: Path, waits: bool = True) -> None:
        """Open ``path`` for writing. Raises OutputError."""
        self.path = path
        self._stream: Stream | None = None
        self._pending: PendingFile | None = None
        self._file: TextIO
        direct = path.exists() and not path.is_file()
        try:
            if path.is_fifo():
                self._file = os.fdopen(_open_pipe(path), "w", encoding="utf-8", buffering=1)
            elif direct:
                self._file = path.open("w", encoding="utf-8", buffering=1)
            else:
                self._pending = PendingFile(path)
                self._file = self._pending.temporary.open("w", encoding="utf-8")
            if direct and not waits:
                self._stream = Stream(self._file)
                self._stream.free()
        except OSError as error:
            raise OutputError(f"Cannot write '{path}': {reason(error)}.") from None

    def write(self, line: str) -> None:
        """Append one line, given without its end. Raises OutputError."""
        if self._stream is not None:
            self._stream.write(line + "\n")
            self._check(self._stream)
            return
        try:
            self._file.write(line + "\n")
        except OSError as error:
            raise self._failure(error) from None

    def _check(self, stream: Stream) -> None:
        if stream.error is not None:
            raise self._failure(stream.error)

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"Cannot write '{self.path}': {reason(error)}.")

    def finish(self) -> None:
        """Close the file and give it its name. Raises OutputError."""
        if self._stream is not None:
            self._stream.drain(time.monotonic() + CLOSE_S)
            self._check(self._stream)
            if self._stream.lost:
                raise OutputError(f"'{self.path}' was not read: some lines are missing.")
            self._stream.end()
        try:
            self._file.close()
        except OSError as error:
            self.abandon()
            raise self._failure(error) from None
        if self._pending is not None:
            self._pending.commit()

    def abandon(self) -> None:
        """Close and remove the file."""
        if self._stream is not None:
            self._stream.end()
        with contextlib.suppress(OSError):
            self._file.close()
        if self._pending is not None:
            self._pending.abandon()


def _open_pipe(path: Path) -> int:
    """Open a named pipe for writing; a plain open would wait for a reader without a word or end.

    Raises:
        OSError: it cannot be opened.
        OutputError: nobody has begun to read it in ``READER_S`` seconds.
    """
    told = False
    end = time.monotonic() + READER_S
    while True:
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        else:
            os.set_blocking(pipe, True)
            return pipe
        if time.monotonic() > end:
            raise OutputError(f"Nobody reads the pipe '{path}': start its reader first.")
        if not told:
            _log.info("Waiting %.0f s for a reader of the pipe '%s'.", READER_S, path)
            told = True
        time.sleep(0.05)
