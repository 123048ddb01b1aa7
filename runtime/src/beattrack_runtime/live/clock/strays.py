"""Beats that are not where the clock has its own; when they agree, they are its new pulse."""

from __future__ import annotations

from beattrack.events import Beat

JUMP_BEATS = 0.25  # an error beyond this is not worked off: it is another pulse
JUMP_AFTER = 3  # beats in a row that must agree on another pulse before the clock jumps to it
MAX_GAP_BEATS = 4.5  # beats further apart are not in a row


class Strays:
    """Collects beats of another pulse."""

    def __init__(self) -> None:
        """None was heard yet."""
        self._times: list[float] = []  # of beats in a row, s of the stream

    def agree(self, beat: Beat) -> bool:
        """Count a beat; return whether so many in a row now tell of the same pulse."""
        if self._times:
            beats = (beat.time_s - self._times[-1]) * beat.tempo_bpm / 60
            if beats > MAX_GAP_BEATS or abs(beats - round(beats)) > JUMP_BEATS:
                self._times = []  # it agrees with none before
        self._times.append(beat.time_s)
        return len(self._times) >= JUMP_AFTER

    def forget(self) -> None:
        """Begin another row."""
        self._times = []
