"""What a live output is, what it gets and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from beattrack_runtime.live.clock.ticks import ClockState, ClockStateChange, Tick


@dataclass(frozen=True)
class OutputHealth:
    """What became of one output so far."""

    name: str
    delay_ms: float
    sent: int  # ticks and changes of state
    late: int  # of those sent, later than LATE_S
    dropped: int  # ticks that were stale, or found the output closed or its queue full
    reconnects: int
    state: str  # "opening", "open", "broken" or "closed"


@dataclass(frozen=True)
class Status:
    """How things stand, about ten times a second, for page and terminal."""

    stream_s: float
    state: ClockState
    tempo_bpm: float | None
    confidence: float  # 0-1
    level_db: float  # RMS since the last status, dB of full scale, at least -120
    clipping: bool
    activation: float  # of the last frame, beat, 0-1
    downbeat: float  # and downbeat
    source: str
    health: str
    outputs: tuple[OutputHealth, ...]
    # (stream time in s, beat, downbeat) of the frames since the last status, for the page's scope
    frames: tuple[tuple[float, float, float], ...] = ()
    tempo_range: tuple[float, float] | None = None  # bpm that the tracker searches
    range_chosen: bool = False  # the user has changed that since the start
    factor: float = 1.0  # clock beats per tracker beat, as the user chose
    meter: int = 0  # beats in a bar, as the user chose; 0: as the tracker counts them


@dataclass(frozen=True)
class Pulse:
    """A moment that an output asked for itself."""


@dataclass(frozen=True)
class Due:
    """What an output gets."""

    what: Tick | ClockStateChange | Status | Pulse
    at: float  # monotonic seconds at which it should take effect, the output's delay included


class Output(Protocol):
    """One receiver. Only its own thread calls it."""

    @property
    def name(self) -> str:
        """How it is counted and shown: osc://127.0.0.1:9000."""

    @property
    def ahead_s(self) -> float:
        """How long before its moment a thing is wanted, seconds."""

    @property
    def beats_only(self) -> bool:
        """Whether of the ticks only beats are wanted."""

    def open(self) -> None:
        """Connect. Raises OSError, or BeattrackError with a sentence for the user."""

    def send(self, due: Due) -> None:
        """Pass one thing on. Raises as `open` does; the output is then opened anew."""

    def close(self) -> None:
        """Disconnect; also after a failure. Never raises."""


@runtime_checkable
class Pulsing(Protocol):
    """An output that may ask to be sent a `Pulse`; only its own thread sets and reads when."""

    pulse_s: float  # when the next one is wanted, monotonic seconds; inf: none is
