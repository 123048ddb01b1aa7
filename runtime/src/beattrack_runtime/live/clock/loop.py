"""The phase-locked loop from beats to ticks.

A tracker's beats may come a little early or late, or not at all for a while; a lamp or a drum
machine wants a steady pulse. The loop works in stream time: it is given the tracker's events and
asked for the ticks of the near future. What it answers depends on the events, on the commands and
on their times alone, never on the wall clock nor on how often it is asked, so recorded audio gives
identical ticks every time.
"""

from __future__ import annotations

import math

from beattrack.events import Beat, Event, StateChange, TrackerState
from beattrack_runtime.live.clock.bar import Bar
from beattrack_runtime.live.clock.levels import FACTORS, factor_of, level_of
from beattrack_runtime.live.clock.oscillator import Oscillator
from beattrack_runtime.live.clock.strays import JUMP_BEATS, Strays
from beattrack_runtime.live.clock.taps import TAP_EVEN, Taps
from beattrack_runtime.live.clock.ticks import RUNNING, TICKS, ClockState, ClockStateChange, Tick
from beattrack_runtime.live.controls import MAX_METER, Command

MAX_SLEW = 0.03  # share of the tempo by which the clock may run fast or slow to correct its phase
CORRECT_BEATS = 3.0  # beats over which an error is worked off, if MAX_SLEW allows
TEMPO_GAIN = 0.25  # share of a reported tempo that the clock's takes over with each beat
FLIP_AFTER_S = 6.0  # s for which double or half tempo must be reported before it is believed
FLIP_YOUNG_S = 1.5  # and at least, where the present tempo has not lasted longer than that itself
HOLD_S = 4.0  # s for which the clock runs on when the tracker has lost the beat
TAP_RUN_S = 60.0  # s for which a tapped pulse runs when the tracker finds none


class BeatClock:
    """A phase-locked loop from beats to ticks.

    `event`, `silence` and `command` tell it what happened, in order of time; `advance` returns what
    is new. A tick once given is never taken back: corrections begin after it, and ticks are given
    ``lookahead_s`` ahead. The phase is corrected by running at most ``MAX_SLEW`` fast or slow; the
    clock jumps only to a pulse that ``JUMP_AFTER`` beats agree on, or when it starts anew. A change
    to double, half or triple tempo must last ``FLIP_AFTER_S``.
    """

    def __init__(self, lookahead_s: float = 0.06, before: BeatClock | None = None) -> None:
        """Begin at stream time 0.

        Args:
            lookahead_s: how long before they sound ticks are given.
            before: the clock of the stream before: beats are counted on from there.
        """
        self.lookahead_s = lookahead_s
        self.state = ClockState.SEARCHING
        self.confidence = 0.0
        self.factor = 1.0  # clock beats per tracker beat, as the user chose
        self._given: list[Tick | ClockStateChange] = []  # not yet returned by advance()
        self._oscillator = Oscillator(0 if before is None else before.beats)
        self._bar = Bar()
        self._heard: Beat | None = None  # the last beat taken, since the clock runs
        self._strays = Strays()
        self._flip_s: float | None = None  # since when another level has been reported
        self._level_s = 0.0  # since when the present one has been believed
        self._hold_until_s = math.inf
        self._scaled_s = -math.inf  # when the last change of level takes effect
        self._shift = 0.0  # the tracker's beats fall on our whole beats plus this: 0, or 0.5
        self._tapped_until_s = -math.inf  # the user's taps alone keep the clock running until then
        self._taps = Taps()
        self._retuned = False  # another tempo range was asked for, and no beat has come since
        self._silent = False  # nothing sounds, whatever the taps keep running

    @property
    def beats(self) -> int:
        """The number of the next beat."""
        return self._oscillator.beats

    @property
    def tempo_bpm(self) -> float:
        """Of the clock's own level; 0 while none is known."""
        return self._oscillator.tempo_bpm

    @property
    def meter(self) -> int:
        """Beats in a bar as the user chose; 0: as the tracker counts them."""
        return self._bar.chosen

    # What the clock is told

    def event(self, event: Event) -> None:
        """Take what the tracker reported."""
        self._give(event.emitted_s + self.lookahead_s)
        if isinstance(event, Beat):
            self._take(event)
        elif event.state is TrackerState.LOST and self.state is ClockState.LOCKED:
            self._hold_until_s = event.emitted_s + HOLD_S
            self._become(ClockState.HOLDING, event.emitted_s)

    def silence(self, time_s: float, silent: bool) -> None:
        """Take that from ``time_s`` on nothing sounds, or that something does again."""
        self._give(time_s + self.lookahead_s)
        self._silent = silent
        if silent and time_s > self._tapped_until_s:
            self._stop(ClockState.SILENT, time_s)
        elif not silent and self.state is ClockState.SILENT:
            self._become(ClockState.SEARCHING, time_s)

    def command(self, command: Command, now_s: float) -> None:
        """Carry out what the user asked for at ``now_s``: tap, double, halve, one or meter.

        The other commands are not for the clock and are ignored.
        """
        self._give(now_s + self.lookahead_s)
        if command.kind == "tap":
            self._tap(now_s)
        elif command.kind in ("double", "halve"):
            self._scale(self.factor * (2.0 if command.kind == "double" else 0.5))
        elif command.kind == "one" and self.state in RUNNING:
            self._bar.choose_one(round(self._oscillator.phase(now_s)))
        elif command.kind == "meter":
            self._bar.choose_beats(int(min(max(command.numbers[0], 0), MAX_METER)))

    def retune(self, now_s: float, level_chosen: bool) -> None:
        """Take that the tracker begins anew for another tempo range; its next beat sets the level.

        ``level_chosen``: the range itself says how many beats are wanted, so forget the factor.
        """
        self.event(StateChange(TrackerState.LOST, now_s, 0.0))
        if self.state is ClockState.HOLDING:  # also if it held before
            self._hold_until_s = max(self._hold_until_s, now_s + HOLD_S)
        self._retuned = self._silent = True  # silent until the tracker says that it hears something
        self.factor = 1.0 if level_chosen else self.factor

    def restart(self, time_s: float) -> None:
        """Forget the pulse and what the user chose; beats are counted on."""
        self._give(time_s + self.lookahead_s)
        self.factor = 1.0
        self._bar.choose_beats(0)
        self._taps.forget()
        self._stop(ClockState.SEARCHING, time_s)

    # What the clock says

    def advance(self, now_s: float) -> list[Tick | ClockStateChange]:
        """Return what is new: changes of state, and ticks before ``now_s + lookahead_s``."""
        self._give(now_s + self.lookahead_s)
        given, self._given = self._given, []
        return given

    def _give(self, until_s: float) -> None:
        """Make the ticks that fall before ``until_s`` and were not yet made."""
        if self.state not in RUNNING:
            return
        ends = self.state is ClockState.HOLDING and until_s > self._hold_until_s
        end_s = self._hold_until_s if ends else until_s
        while self._oscillator.next_s < end_s:
            self._give_tick()
        if ends:
            self._stop(ClockState.SILENT if self._silent else ClockState.LOST, end_s)

    def _give_tick(self) -> None:
        self._given.append(self._oscillator.tick(self._bar, self.confidence))

    def _become(self, state: ClockState, time_s: float) -> None:
        if state is not self.state:
            self.state = state
            self._given.append(ClockStateChange(state, time_s, self.tempo_bpm, self.confidence))

    def _stop(self, state: ClockState, time_s: float) -> None:
        """Give no more ticks."""
        self._strays.forget()
        self._flip_s, self._heard = None, None
        self._bar.release_one()
        self._shift = 0.0
        self._hold_until_s, self._tapped_until_s = math.inf, -math.inf
        self._oscillator.tempo_bpm, self.confidence = 0.0, 0.0
        # Ticks once given are not taken back.
        self._become(state, max(time_s, self._oscillator.given_s))

    def _jump_to(self, time_s: float, tempo_bpm: float, earliest_s: float) -> None:
        """Begin anew with a whole beat at ``time_s``, and give none before ``earliest_s``."""
        self._oscillator.jump_to(time_s, tempo_bpm, earliest_s)
        self._bar.release_one()
        self._strays.forget()
        self._flip_s, self._retuned = None, False
        self._hold_until_s, self._scaled_s = math.inf, -math.inf

    def _rescale(self, number: int, ratio: float) -> None:
        """Run ``ratio`` times as fast from beat ``number`` on; the ticks before it are given."""
        while self._oscillator.next < number * TICKS:
            self._give_tick()
        self._scaled_s = self._oscillator.rescale(number, ratio)
        self._bar.rescale(number, ratio)
        self._flip_s = None

    # Following the tracker

    def _take(self, beat: Beat) -> None:
        self.confidence = beat.confidence
        if self.state not in RUNNING:
            self._start(beat)
            return
        if beat.time_s < self._scaled_s:
            return  # of the level before
        level = level_of(beat.tempo_bpm * self.factor / self.tempo_bpm)
        split = max(1, round(beat.tempo_bpm / self.tempo_bpm))  # its beats in one of ours
        phase = (self._oscillator.phase(beat.time_s) - self._shift) * split
        if level is None or abs(phase - round(phase)) > JUMP_BEATS:
            if (level is None and self._retuned) or self._strays.agree(beat):
                self._start(beat)
            return
        self._strays.forget()
        self._hold_until_s, self._tapped_until_s = math.inf, -math.inf
        self._heard = beat
        if level == 1.0:
            self._flip_s = None
        elif self._flip_s is None:
            self._flip_s = beat.time_s
        self._become(ClockState.LOCKED, beat.emitted_s)
        self._follow(beat, beat.tempo_bpm * self.factor / level, round(phase) / split + self._shift)
        if self._flip_s is not None:
            wait_s = min(FLIP_AFTER_S, max(FLIP_YOUNG_S, self._flip_s - self._level_s))
            if self._retuned or beat.time_s - self._flip_s > wait_s:
                self._flip(round(phase / split), level)
                self._level_s = beat.time_s
        if self._retuned:
            self._retuned, self._level_s = False, beat.time_s

    def _follow(self, beat: Beat, tempo_bpm: float, phase: float) -> None:
        """Work the error off, knowing that at the beat ``phase`` beats should have passed."""
        if self._flip_s is None:
            self._read_bar(beat)
        oscillator = self._oscillator
        oscillator.tempo_bpm += TEMPO_GAIN * (tempo_bpm - oscillator.tempo_bpm)
        at_s = max(oscillator.given_s, beat.time_s)
        error = oscillator.phase(at_s) - phase - (at_s - beat.time_s) * (oscillator.tempo_bpm / 60)
        slew = max(-MAX_SLEW, min(MAX_SLEW, -error / CORRECT_BEATS))
        oscillator.slew(at_s, slew, -error / slew if slew else 0.0)

    def _start(self, beat: Beat) -> None:
        """Begin, or begin anew, so that this beat is a whole one."""
        self._shift = 0.0
        self._tapped_until_s = -math.inf
        self._jump_to(beat.time_s, beat.tempo_bpm * self.factor, beat.emitted_s)
        self._heard, self._level_s = beat, beat.time_s
        self._read_bar(beat)
        self._become(ClockState.LOCKED, beat.emitted_s)

    def _flip(self, matched: int, level: float) -> None:
        """Take over the tracker's other level, from a beat on that is one of its own."""
        every = max(1, round(1 / level))
        self._rescale(self.beats + (matched - self.beats) % every, level)

    def _read_bar(self, beat: Beat) -> None:
        number = round(self._oscillator.phase(beat.time_s) - self._shift)
        self._bar.read(beat, number, self.factor)

    # What the user steers

    def _scale(self, factor: float) -> None:
        """Run with so many beats to one of the tracker's, from the next fitting beat on."""
        if factor not in FACTORS:
            return
        ratio, self.factor = factor / self.factor, factor
        if self.state in RUNNING:
            every = max(1, round(1 / ratio))
            self._rescale(self.beats + (self._bar.origin - self.beats) % every, ratio)

    def _tap(self, time_s: float) -> None:
        """Count taps; a row of them says which level is meant, and which of its beats."""
        tapped = self._taps.tap(time_s)
        if tapped is None:
            return
        tempo_bpm, at_s = tapped
        if self.state is ClockState.LOCKED and self._heard is not None:
            self._choose(self._heard.tempo_bpm, tempo_bpm, at_s)
        else:
            self._run_tapped(tempo_bpm, at_s, time_s)

    def _choose(self, tracked_bpm: float, tapped_bpm: float, at_s: float) -> None:
        """Take the tracker's level that was tapped; shift by half a beat if that was tapped."""
        factor = factor_of(tapped_bpm / tracked_bpm, TAP_EVEN)
        if factor is None:
            return  # another tempo altogether: what is heard goes before it
        self._scale(factor)
        phase = self._oscillator.phase(at_s)
        if abs(phase - round(phase)) <= JUMP_BEATS:
            return
        if tracked_bpm < 1.5 * self.tempo_bpm:  # else its beats fall on both
            self._shift = 0.5 - self._shift
        half_s = 30 / self.tempo_bpm
        self._jump_to(self._oscillator.time(self.beats) - half_s, self.tempo_bpm, at_s)

    def _run_tapped(self, tempo_bpm: float, at_s: float, time_s: float) -> None:
        """Run on the taps alone."""
        self._shift = 0.0
        if self.state in RUNNING and level_of(tempo_bpm / self.tempo_bpm) == 1.0:
            phase = self._oscillator.phase(at_s)
            if abs(phase - round(phase)) > JUMP_BEATS:
                self._jump_to(at_s, tempo_bpm, time_s)
        else:
            self._jump_to(at_s, tempo_bpm, time_s)
        self._hold_until_s = self._tapped_until_s = time_s + TAP_RUN_S
        self._become(ClockState.HOLDING, time_s)
