"""What the show tells the one who steers it: the pulse now, and what became of a command."""

from __future__ import annotations

from collections import deque

from beattrack_runtime.live.clock.levels import FACTORS
from beattrack_runtime.live.clock.loop import BeatClock
from beattrack_runtime.live.clock.ticks import RUNNING, ClockState, ClockStateChange, Tick
from beattrack_runtime.live.controls import Command
from beattrack_runtime.view import LastBeat, View, times

Settings = tuple[ClockState, float, float]  # state, tempo in bpm, factor


class Lamp:
    """Remembers the clock's beats, which are given ahead of time, until they sound."""

    def __init__(self) -> None:
        """None was given yet."""
        self._coming: deque[Tick] = deque()
        self._last: Tick | None = None

    def given(self, what: Tick | ClockStateChange) -> None:
        """Take what the clock gave."""
        if isinstance(what, Tick) and not what.tick:
            self._coming.append(what)

    def view(self, clock: BeatClock, now_s: float) -> View:
        """Return what is to be shown at stream time ``now_s``."""
        while self._coming and self._coming[0].time_s <= now_s:
            self._last = self._coming.popleft()
        last, beat = self._last, None
        if last is not None and clock.state in RUNNING:
            beat = LastBeat(last.time_s, last.position, last.beats_per_bar)
        return View(
            now_s, clock.state.value, clock.state is ClockState.LOCKED, clock.tempo_bpm or None,
            clock.confidence, beat, clock.factor,
        )  # fmt: skip


def settings(clock: BeatClock) -> Settings:
    """Return what commands change, to be compared afterwards."""
    return clock.state, clock.tempo_bpm, clock.factor


def outcome(
    command: Command, before: Settings, clock: BeatClock, tempi: tuple[float, float]
) -> str:
    """Return a line on what became of a command that the show took.

    Args:
        command: what was asked for.
        before: the clock's settings until then.
        clock: as it is now.
        tempi: lowest and highest tempo that the tracker searches now, bpm.
    """
    numbers = [f"{number:g}" for number in command.numbers]
    told = {
        "tap": "" if before == settings(clock) else _tempo(clock),
        "double": _scaled("four times", before, clock),
        "halve": _scaled("a quarter", before, clock),
        "one": "this beat is the first of a bar"
        if before[0] in RUNNING
        else "not possible while no beat is known",
        "meter": "as the tracker counts"
        if numbers == ["0"]
        else f"{' '.join(numbers)} beats in a bar",
        "tempo": f"{tempi[0]:g} to {tempi[1]:g} bpm",
        "delay": f"{command.output} {' '.join(numbers)} ms",
        "nudge": f"all outputs by {' '.join(numbers)} ms",
        "restart": "the clock searches anew",
    }.get(command.kind, " ".join(numbers))
    return f"{command.kind}: {told}" if told else command.kind


def _scaled(most: str, before: Settings, clock: BeatClock) -> str:
    if clock.factor != before[2]:
        return _tempo(clock)
    at_end = clock.factor in (FACTORS[0], FACTORS[-1])
    return f"not possible beyond {most}" if at_end else "not possible now"


def _tempo(clock: BeatClock) -> str:
    if clock.tempo_bpm:
        return f"{clock.tempo_bpm:.1f} bpm"
    return f"{times(clock.factor)} as soon as a beat is known"
