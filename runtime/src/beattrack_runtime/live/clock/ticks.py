"""What the clock says: 24 ticks in each beat, and changes of its state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TICKS = 24  # in a beat, as MIDI counts


class ClockState(str, Enum):
    """What the clock does."""

    SEARCHING = "searching"  # no beat was found yet: no ticks
    LOCKED = "locked"  # ticks follow the tracker
    HOLDING = "holding"  # the tracker has lost the beat: ticks go on at the last tempo
    SILENT = "silent"  # nothing sounds: no ticks
    LOST = "lost"  # held on for too long: no ticks


RUNNING = (ClockState.LOCKED, ClockState.HOLDING)


@dataclass(frozen=True)
class Tick:
    """One of 24 moments of a beat. Times are seconds of the stream."""

    time_s: float  # when it sounds
    beat: int  # beats since the clock was made; goes on through pauses
    tick: int  # 0-23; 0 is the beat itself
    position: int  # beat in bar, from 1
    beats_per_bar: int
    tempo_bpm: float  # of the clock, smoothed
    confidence: float  # 0-1, of the last beat reported
    jump: bool = False  # the pulse does not continue the last one: a new start or a re-lock


@dataclass(frozen=True)
class ClockStateChange:
    """The clock's state changed at stream time ``time_s``."""

    state: ClockState
    time_s: float
    tempo_bpm: float  # 0 when none is known
    confidence: float  # 0-1
