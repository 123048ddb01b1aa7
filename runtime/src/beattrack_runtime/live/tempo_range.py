"""The tempi that the tracker searches, as the command line and then the user gave them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from beattrack.config import ConfigError
from beattrack_runtime.live.controls import AUTO, MAX_BPM, MIN_BPM

if TYPE_CHECKING:
    from beattrack_runtime.session import LiveTracker


class TempoRange:
    """The range of one stream's tracker. Whenever it is set, the tracker begins anew."""

    def __init__(self, tracker: LiveTracker) -> None:
        """Take the tracker's present settings as those of the start."""
        self._tracker = tracker
        self._start = tracker.decoder

    @property
    def bpm(self) -> tuple[float, float]:
        """Lowest and highest tempo that is searched."""
        return self._tracker.decoder.min_bpm, self._tracker.decoder.max_bpm

    @property
    def chosen(self) -> bool:
        """Whether the user has changed it since the start."""
        return self.bpm != (self._start.min_bpm, self._start.max_bpm)

    def steer(self, numbers: tuple[float, ...], tempo_bpm: float) -> None:
        """Set it as the command ``tempo`` asks.

        Args:
            numbers: of the command: LOW and HIGH; AUTO: the range of the start; none: the octave
                around ``tempo_bpm``.
            tempo_bpm: of the tracker's level; 0 while none is known.

        Raises:
            ConfigError: the filter cannot do it, or no tempo is known.
        """
        if numbers == AUTO:
            self.restore()
            return
        low, high = numbers or octave(tempo_bpm)
        self._tracker.retune(dataclasses.replace(self._tracker.decoder, min_bpm=low, max_bpm=high))

    def restore(self) -> None:
        """Go back to the settings of the start."""
        self._tracker.retune(self._start)


def octave(tempo_bpm: float) -> tuple[float, float]:
    """Return the range around a tempo that holds neither its double nor its half, in bpm.

    Raises:
        ConfigError: the tempo is 0: none is known.
    """
    if not tempo_bpm:
        raise ConfigError("No tempo is known yet that could be kept.")
    low, high = tempo_bpm / math.sqrt(2), tempo_bpm * math.sqrt(2)
    return max(MIN_BPM, round(low, 1)), min(MAX_BPM, round(high, 1))
