"""Outputs of one line per event: readable text, the field's .beats format, and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beattrack.events import Beat, Event
from beattrack_runtime.outputs.pending import LineFile

Formatter = Callable[[Event], "str | None"]  # None: this event makes no line


def text_line(event: Event) -> str | None:
    """Return a line for people: time, beat in bar, tempo and confidence."""
    if not isinstance(event, Beat):
        return None
    return (
        f"{event.time_s:9.3f} s  {event.position}/{event.beats_per_bar}  "
        f"{event.tempo_bpm:5.1f} bpm  conf {event.confidence:.2f}"
    )


def beats_line(event: Event) -> str | None:
    """Return ``time<TAB>position``: seconds, and the beat in the bar where 1 is the downbeat."""
    return f"{event.time_s:.4f}\t{event.position}" if isinstance(event, Beat) else None


def jsonl_line(event: Event) -> str | None:
    """Return the event as one JSON object; changes of state are lines too."""
    return json.dumps(event.to_dict())


FORMATS: dict[str, Formatter] = {"text": text_line, "jsonl": jsonl_line, "beats": beats_line}


class LineOutput:
    """Writes a line per event to a file."""

    def __init__(self, path: Path, formatter: Formatter, waits: bool = True) -> None:
        """Open ``path``; ``waits``: for the reader of a pipe. Raises OutputError."""
        self.path = path
        self._file = LineFile(path, waits)
        self._format = formatter

    def audio(self, block: NDArray[np.float32]) -> None:
        """Audio makes no lines."""

    def frame(self, time_s: float, beat: float, downbeat: float) -> None:
        """Activations make no lines."""

    def event(self, event: Event) -> None:
        """Write the event's line."""
        line = self._format(event)
        if line is not None:
            self._file.write(line)

    def finish(self) -> None:
        """Close the file and give it its name."""
        self._file.finish()

    def abandon(self) -> None:
        """Remove the file."""
        self._file.abandon()
