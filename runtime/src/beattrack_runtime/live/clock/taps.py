"""The user's taps: what pulse a row of them tells."""

from __future__ import annotations

import statistics

from beattrack_runtime.live.controls import MAX_BPM, MIN_BPM

TAPS = 4  # taps that tell a tempo
MAX_TAPS = 12  # of which the last so many are counted
TAP_GAP_S = 2.0  # s between taps of one row at most
TAP_EVEN = 0.15  # share by which their gaps may differ from the middle one


class Taps:
    """Counts taps in rows. A pause begins another row."""

    def __init__(self) -> None:
        """Nothing was tapped yet."""
        self._row: list[float] = []

    def tap(self, time_s: float) -> tuple[float, float] | None:
        """Count a tap.

        Returns:
            The tempo in bpm and when the last beat of the tapped pulse falls; None while the row is
            too short, uneven, or of a tempo that no music has.
        """
        if self._row and time_s - self._row[-1] > TAP_GAP_S:
            self._row = []
        self._row = [*self._row[-MAX_TAPS + 1 :], time_s]
        if len(self._row) < TAPS:
            return None
        gaps = [b - a for a, b in zip(self._row, self._row[1:], strict=False)]
        gap_s = statistics.median(gaps)
        if any(abs(gap - gap_s) > TAP_EVEN * gap_s for gap in gaps[1 - TAPS :]):
            return None
        at_s = statistics.median(t + gap_s * (len(self._row) - 1 - i)
                                 for i, t in enumerate(self._row))  # fmt: skip
        tempo_bpm = 60 / gap_s
        return (tempo_bpm, at_s) if MIN_BPM <= tempo_bpm <= MAX_BPM else None

    def forget(self) -> None:
        """Begin another row."""
        self._row = []
