"""The steady pulse that the clock steers: it counts beats and gives their ticks.

Phase, in beats since the start, is a line over time, made of straight stretches. The clock turns it
to follow the tracker, or breaks it off and begins another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from beattrack_runtime.live.clock.bar import Bar
from beattrack_runtime.live.clock.ticks import TICKS, Tick


@dataclass(frozen=True)
class _Stretch:
    """From ``time_s`` on, where ``phase`` beats had passed, beats pass at ``rate`` a second."""

    time_s: float
    phase: float
    rate: float


class Oscillator:
    """Gives one tick after the other. Whatever is changed takes effect after those given."""

    def __init__(self, first: int = 0) -> None:
        """Stand still, ``first`` being the number of the next beat."""
        self.tempo_bpm = 0.0  # 0 while it stands still
        self.next = first * TICKS  # the next tick to be given, in ticks since the start
        self.given_s = -math.inf  # when the last tick given falls
        self._line = [_Stretch(0.0, 0.0, 0.0)]  # in order of time; the last one goes on
        self._jump = True

    @property
    def beats(self) -> int:
        """The number of the next beat."""
        return math.ceil(self.next / TICKS)

    @property
    def next_s(self) -> float:
        """When the next tick falls."""
        return self.time(self.next / TICKS)

    def tick(self, bar: Bar, confidence: float) -> Tick:
        """Give the next tick; it says its place in ``bar`` and ``confidence``."""
        self.given_s = self.next_s
        beat, tick = divmod(self.next, TICKS)
        given = Tick(self.given_s, beat, tick, bar.position(beat), bar.beats, self.tempo_bpm,
                     confidence, self._jump)  # fmt: skip
        self._jump = False
        self.next += 1
        return given

    def phase(self, time_s: float) -> float:
        """Return how many beats will have passed at ``time_s``."""
        at = self._line[0]
        for stretch in self._line:
            if stretch.time_s <= time_s:
                at = stretch
        return at.phase + (time_s - at.time_s) * at.rate

    def time(self, phase: float) -> float:
        """Return when ``phase`` beats will have passed."""
        at = self._line[0]
        for stretch in self._line:
            if stretch.phase <= phase:
                at = stretch
        return at.time_s + (phase - at.phase) / at.rate

    def slew(self, at_s: float, share: float, beats: float) -> None:
        """From ``at_s`` on run fast by ``share`` of the tempo for so many beats, then normally."""
        here, rate = self.phase(at_s), self.tempo_bpm / 60
        self._turn(
            _Stretch(at_s, here, rate * (1 + share)),
            _Stretch(at_s + beats / rate, here + beats * (1 + share), rate),
        )

    def rescale(self, number: int, ratio: float) -> float:
        """Run ``ratio`` times as fast from beat ``number`` on; return when that beat falls."""
        at_s = self.time(number)
        self._turn(_Stretch(at_s, float(number), self.tempo_bpm * ratio / 60))
        self.tempo_bpm *= ratio
        return at_s

    def jump_to(self, time_s: float, tempo_bpm: float, earliest_s: float) -> None:
        """Begin anew with a whole beat at ``time_s``.

        The first beat given is the first that is not before ``earliest_s`` nor before what was
        given.
        """
        rate = tempo_bpm / 60
        late_s = max(earliest_s, self.given_s) - time_s
        skipped = max(0, math.ceil(late_s * rate))
        number = self.beats
        self.next = number * TICKS
        self._line = [_Stretch(time_s, float(number - skipped), rate)]
        self.tempo_bpm = tempo_bpm
        self._jump = True

    def _turn(self, *stretches: _Stretch) -> None:
        """Go on along ``stretches``; what lies before them stays, as far as it is still asked."""
        before = [s for s in self._line if s.time_s < stretches[0].time_s]
        self._line = [*before[-3:], *stretches]
