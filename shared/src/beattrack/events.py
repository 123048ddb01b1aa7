"""What the tracker reports: beats and changes of its state."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class TrackerState(str, Enum):
    """What the tracker believes about the present."""

    SEARCHING = "searching"  # no beat found yet; nothing is reported
    LOCKED = "locked"  # beats are reported
    LOST = "lost"  # was locked; silence or contradiction; nothing is reported until it locks again


@dataclass(frozen=True)
class Beat:
    """One beat. Times are seconds from the first sample, float64.

    ``emitted_s`` is the stream time at which the beat became known: how much audio had been
    heard. It does not depend on the sizes of the blocks pushed. A predicted beat has
    ``emitted_s < time_s``; the delay of the report is ``emitted_s - time_s``.
    """

    time_s: float
    position: int  # beat in bar, from 1; 1 is the downbeat
    beats_per_bar: int
    tempo_bpm: float
    confidence: float  # 0-1, share of the filter's belief that agrees with this beat
    emitted_s: float
    state: TrackerState = TrackerState.LOCKED

    @property
    def is_downbeat(self) -> bool:
        """Whether this is the first beat of a bar."""
        return self.position == 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with ``type: beat`` first and times rounded to 0.1 ms."""
        return _plain("beat", self)


@dataclass(frozen=True)
class StateChange:
    """The tracker's state changed at stream time ``emitted_s`` (seconds of audio heard)."""

    state: TrackerState
    emitted_s: float
    confidence: float  # 0-1

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with ``type: state`` first and times rounded to 0.1 ms."""
        return _plain("state", self)


Event = Beat | StateChange


def _plain(kind: str, event: Beat | StateChange) -> dict[str, Any]:
    values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(event).items()}
    return {"type": kind, **values, "state": event.state.value}
