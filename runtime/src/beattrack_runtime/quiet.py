"""Keeps libraries from writing to stderr on their own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


def hush() -> None:
    """Send file descriptor 2 nowhere for good, where the program's own notes have another one.

    ALSA writes there whenever a buffer runs empty, in the middle of the live line. With
    BEATTRACK_DEBUG in the environment it goes on.
    """
    try:
        own = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return
    if own != 2 and not os.environ.get("BEATTRACK_DEBUG"):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Send file descriptor 2 nowhere for a while."""
    try:
        stderr = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
