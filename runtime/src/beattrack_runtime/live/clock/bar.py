"""The bar as the clock counts it: as the tracker does, but for what the user has set."""

from __future__ import annotations

import math

from beattrack.events import Beat


class Bar:
    """Which of the clock's beats are the first of a bar, and how many a bar has."""

    def __init__(self) -> None:
        """Bars of four, from beat 0 on, until told otherwise."""
        self.beats = 4
        self.origin = 0  # a beat that was the first of a bar
        self.chosen = 0  # beats in a bar as the user chose; 0: as the tracker counts them
        self._one_chosen = False  # the user set the first beat: the tracker's bar is not followed

    def position(self, beat: int) -> int:
        """Return a beat's place in its bar, from 1."""
        return (beat - self.origin) % self.beats + 1

    def choose_beats(self, beats: int) -> None:
        """Count bars of so many beats; 0: as the tracker counts, from its next beat on."""
        self.chosen = beats
        self.beats = beats or self.beats
        self._one_chosen = self._one_chosen and beats > 0

    def choose_one(self, beat: int) -> None:
        """Begin a bar with this beat, whatever the tracker says."""
        self.origin, self._one_chosen = beat, True

    def release_one(self) -> None:
        """Let the tracker say again where a bar begins."""
        self._one_chosen = False

    def read(self, beat: Beat, number: int, factor: float) -> None:
        """Count the bar as the tracker does, unless the user has set it.

        Where the levels differ, the tracker's first beats may fall on several beats of our bar.

        Args:
            beat: what the tracker reported.
            number: which of our beats that is.
            factor: our beats in one of the tracker's.
        """
        if self._one_chosen or self.chosen not in (0, beat.beats_per_bar):
            return
        self.beats = beat.beats_per_bar
        first = number - (beat.position - 1) * factor
        bar = beat.beats_per_bar * factor  # one bar of the tracker, in our beats
        if first == int(first):
            every = math.gcd(int(bar), self.beats) if bar == int(bar) else self.beats
            if (int(first) - self.origin) % every:
                self.origin = int(first)

    def rescale(self, number: int, ratio: float) -> None:
        """From beat ``number`` on beats go ``ratio`` times as fast: keep the place in the bar."""
        past = (number - self.origin) % self.beats * ratio  # beats since the bar's first
        self.origin = number - int(past) % self.beats
