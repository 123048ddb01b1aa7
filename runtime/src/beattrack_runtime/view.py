"""What a person is shown of the pulse at one moment, whoever keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from beattrack.events import Beat, TrackerState

if TYPE_CHECKING:
    from beattrack_runtime.session import LiveTracker


@dataclass(frozen=True)
class LastBeat:
    """The beat that sounds, or sounded last."""

    time_s: float  # of the stream
    position: int  # in the bar, from 1
    beats_per_bar: int


@dataclass(frozen=True)
class View:
    """The pulse at one moment."""

    time_s: float  # of the stream
    state: str  # of the tracker, or of the clock
    sure: bool  # whether it follows what sounds
    tempo_bpm: float | None
    confidence: float  # 0-1
    beat: LastBeat | None  # None while none is known
    factor: float = 1.0  # beats to one of the tracker's, as the user chose


def tracker_view(tracker: LiveTracker, last: Beat | None) -> View:
    """Return what ``tracker`` believes, where no clock stands behind it; ``last`` is its beat."""
    locked = tracker.state is TrackerState.LOCKED
    beat = None
    if locked and last is not None:
        beat = LastBeat(last.time_s, last.position, last.beats_per_bar)
    return View(
        tracker.time_s, tracker.state.value, locked, tracker.tempo_bpm, tracker.confidence, beat
    )


def times(factor: float) -> str:
    """Return x2, or x1/2."""
    return f"x{factor:g}" if factor >= 1 else f"x1/{1 / factor:g}"
