"""How a source does, in the log: for services and other runs that no terminal shows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from beattrack_runtime.live.health import SILENT_S, Health

if TYPE_CHECKING:
    from beattrack_runtime.sources import Source

EVERY_S = 300.0  # between two lines while nothing changes
APART_S = 10.0  # between two lines at least
LASTS_S = 60.0  # for which a dropout, or clipping, counts as going on

_log = logging.getLogger("beattrack")


class Journal:
    """Logs a source's health line every 5 minutes, and when something begins or ends.

    That is: trouble with the device, dropouts, clipping, silence.
    """

    def __init__(self, source: Source, health: Health, now_s: float) -> None:
        """Begin at ``now_s``, monotonic seconds; all is well."""
        self._source, self._health = source, health
        self._counts = (0, 0)  # dropouts and clippings so far
        self._last_s = [now_s - LASTS_S, now_s - LASTS_S]  # when either became more, monotonic
        self._told: tuple[str, bool, bool, bool] = ("", False, False, False)
        self._told_s = now_s

    def update(self, now_s: float) -> None:
        """Look at the source, ``now_s`` being monotonic seconds, and tell what is worth it."""
        source, health = self._source, self._health
        counts = (source.overruns, health.clipped)
        for place, (count, before) in enumerate(zip(counts, self._counts, strict=True)):
            if count != before:
                self._last_s[place] = now_s
        self._counts = counts
        losing, clipping = (now_s - last_s < LASTS_S for last_s in self._last_s)
        now = (source.note, losing, clipping or health.clipping, health.silent_s > SILENT_S)
        since_s = now_s - self._told_s
        if since_s < APART_S or (now == self._told and since_s < EVERY_S):
            return
        self._told, self._told_s = now, now_s
        _log.info("%s: %s", source.name, health.line())
