"""Failures that a user can understand: each text is one sentence."""

from __future__ import annotations


class BeattrackError(Exception):
    """Something outside the program went wrong; the text is one sentence for the user."""

    exit_code = 1


class MisuseError(BeattrackError):
    """The command was asked for something that makes no sense."""

    exit_code = 2


class SourceError(BeattrackError):
    """Audio cannot be read from a file or a sound card."""


class OutputError(BeattrackError):
    """A result cannot be written."""


class ModelError(BeattrackError, ValueError):
    """A model file cannot be used; the text is one sentence that says why."""


def reason(error: OSError) -> str:
    """Return the system's own words for ``error``, such as 'No space left on device'."""
    return error.strerror or str(error) or type(error).__name__


def printable(text: str) -> str:
    """Return a line with control characters spelled out: file names may hold any of them."""
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)
