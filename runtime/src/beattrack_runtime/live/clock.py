"""The clock that drives lights and machines: ticks ahead of time, from beats as they are reported.

A tracker's beats may come a little early or late, or not at all for a while; a lamp or a drum
machine wants a steady pulse. This clock is a phase-locked loop over stream time: it is given the
tracker's events and asked for the ticks of the near future. What it answers depends on the events,
on the commands and on their times alone, never on the wall clock nor on how often it is asked, so
recorded audio gives identical ticks every time.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import Enum

from beattrack.events import Beat, Event, TrackerState
from beattrack_runtime.live.controls import MAX_BPM, MAX_METER, MIN_BPM, Command

TICKS = 24  # in a beat, as MIDI counts
MAX_SLEW = 0.03  # share of the tempo by which the clock may run fast or slow to correct its phase
CORRECT_BEATS = 3.0  # beats over which an error is worked off, if MAX_SLEW allows
TEMPO_GAIN = 0.25  # share of a reported tempo that the clock's takes over with each beat
JUMP_BEATS = 0.25  # an error beyond this is not worked off: it is another pulse
JUMP_AFTER = 3  # beats in a row that must agree on another pulse before the clock jumps to it
MAX_GAP_BEATS = 4.5  # beats further apart are not in a row
SAME_TEMPO = 0.08  # tempi within this share are the same; so are tempi within it of double or half
FLIP_AFTER_S = 6.0  # s for which double or half tempo must be reported before it is believed
HOLD_S = 4.0  # s for which the clock runs on when the tracker has lost the beat
LEVELS = (1.0, 2.0, 0.5, 3.0, 1 / 3)  # metrical levels that a tracker may confuse
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # clock beats per tracker beat that the user may choose

TAPS = 4  # taps that tell a tempo
MAX_TAPS = 12  # of which the last so many are counted
TAP_GAP_S = 2.0  # s between taps of one row at most
TAP_EVEN = 0.15  # share by which their gaps may differ from the middle one
TAP_RUN_S = 60.0  # s for which a tapped pulse runs when the tracker finds none


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


@dataclass(frozen=True)
class _Stretch:
    """From ``time_s`` on, where ``phase`` beats had passed, beats pass at ``rate`` a second."""

    time_s: float
    phase: float
    rate: float


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
        self.tempo_bpm = 0.0  # of the clock's own level; 0 while none is known
        self.confidence = 0.0
        self.factor = 1.0  # clock beats per tracker beat, as the user chose
        self._meter_chosen: int | None = None  # beats per bar that the user chose
        self._given: list[Tick | ClockStateChange] = []  # not yet returned by advance()
        self._line = [_Stretch(0.0, 0.0, 0.0)]  # in order of time; the last one goes on
        # the next tick to be given, in ticks since the start
        self._next: int = 0 if before is None else before.beats * TICKS
        self._origin = 0  # a beat that was the first of a bar
        self._meter = 4
        self._heard: Beat | None = None  # the last beat taken, since the clock runs
        self._given_s = -math.inf  # when the last tick given falls
        self._strays: list[float] = []  # times of beats in a row that told of another pulse
        self._flip_s: float | None = None  # since when another level has been reported
        self._hold_until_s = math.inf
        self._jump = True
        self._one_chosen = False  # the user set the first beat: the tracker's bar is not followed
        self._scaled_s = -math.inf  # when the last change of level takes effect
        self._shift = 0.0  # the tracker's beats fall on our whole beats plus this: 0, or 0.5
        self._tapped_until_s = -math.inf  # the user's taps alone keep the clock running until then
        self._taps: list[float] = []

    @property
    def beats(self) -> int:
        """The number of the next beat."""
        return math.ceil(self._next / TICKS)

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
            self._origin, self._one_chosen = round(self._phase(now_s)), True
        elif command.kind == "meter":
            self._choose_meter(int(min(max(command.numbers[0], 0), MAX_METER)))

    def restart(self, time_s: float) -> None:
        """Forget the pulse and what the user chose; beats are counted on."""
        self._give(time_s + self.lookahead_s)
        self.factor, self._meter_chosen, self._taps = 1.0, None, []
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
        while self._time(self._next / TICKS) < end_s:
            self._give_tick()
        if ends:
            self._stop(ClockState.LOST, end_s)

    def _give_tick(self) -> None:
        self._given_s = self._time(self._next / TICKS)
        beat, tick = divmod(self._next, TICKS)
        position = (beat - self._origin) % self._meter + 1
        self._given.append(
            Tick(self._given_s, beat, tick, position, self._meter, self.tempo_bpm,
                 self.confidence, self._jump)
        )  # fmt: skip
        self._jump = False
        self._next += 1

    def _become(self, state: ClockState, time_s: float) -> None:
        if state is not self.state:
            self.state = state
            self._given.append(ClockStateChange(state, time_s, self.tempo_bpm, self.confidence))

    def _stop(self, state: ClockState, time_s: float) -> None:
        """Give no more ticks."""
        self._strays, self._flip_s, self._heard = [], None, None
        self._one_chosen, self._shift = False, 0.0
        self._hold_until_s, self._tapped_until_s = math.inf, -math.inf
        self.tempo_bpm, self.confidence = 0.0, 0.0
        self._become(state, max(time_s, self._given_s))  # ticks once given are not taken back

    # The line that ticks lie on

    def _phase(self, time_s: float) -> float:
        """Return how many beats will have passed at ``time_s``."""
        at = self._line[0]
        for stretch in self._line:
            if stretch.time_s <= time_s:
                at = stretch
        return at.phase + (time_s - at.time_s) * at.rate

    def _time(self, phase: float) -> float:
        """Return when ``phase`` beats will have passed."""
        at = self._line[0]
        for stretch in self._line:
            if stretch.phase <= phase:
                at = stretch
        return at.time_s + (phase - at.phase) / at.rate

    def _turn(self, *stretches: _Stretch) -> None:
        """Go on along ``stretches``; what lies before them stays, as far as it is still asked."""
        before = [s for s in self._line if s.time_s < stretches[0].time_s]
        self._line = [*before[-3:], *stretches]

    def _jump_to(self, time_s: float, tempo_bpm: float, earliest_s: float) -> int:
        """Begin anew with a whole beat at ``time_s``; return that beat's number.

        The first beat given is the first that is not before ``earliest_s`` nor before what was
        given.
        """
        rate = tempo_bpm / 60
        late_s = max(earliest_s, self._given_s) - time_s
        skipped = max(0, math.ceil(late_s * rate))
        number = self.beats
        self._next = number * TICKS
        self._line = [_Stretch(time_s, float(number - skipped), rate)]
        self.tempo_bpm = tempo_bpm
        self._strays, self._flip_s, self._jump = [], None, True
        self._one_chosen, self._hold_until_s, self._scaled_s = False, math.inf, -math.inf
        return number - skipped

    def _rescale(self, number: int, ratio: float) -> None:
        """Run ``ratio`` times as fast from beat ``number`` on; the ticks before it are given."""
        while self._next < number * TICKS:
            self._give_tick()
        self._scaled_s = self._time(number)
        self._turn(_Stretch(self._scaled_s, float(number), self.tempo_bpm * ratio / 60))
        self.tempo_bpm *= ratio
        past = (number - self._origin) % self._meter * ratio  # beats since the bar's first
        self._origin = number - int(past) % self._meter
        self._flip_s = None

    # Following the tracker

    def _take(self, beat: Beat) -> None:
        self.confidence = beat.confidence
        if self.state not in RUNNING:
            self._start(beat)
            return
        if beat.time_s < self._scaled_s:
            return  # of the level before
        level = _level(beat.tempo_bpm * self.factor / self.tempo_bpm)
        split = max(1, round(beat.tempo_bpm / self.tempo_bpm))  # its beats in one of ours
        phase = (self._phase(beat.time_s) - self._shift) * split
        if level is None or abs(phase - round(phase)) > JUMP_BEATS:
            self._stray(beat)
            return
        self._strays, self._hold_until_s = [], math.inf
        self._tapped_until_s = -math.inf
        self._heard = beat
        if level == 1.0:
            self._flip_s = None
        elif self._flip_s is None:
            self._flip_s = beat.time_s
        self._become(ClockState.LOCKED, beat.emitted_s)
        self._follow(beat, beat.tempo_bpm * self.factor / level, round(phase) / split + self._shift)
        if self._flip_s is not None and beat.time_s - self._flip_s > FLIP_AFTER_S:
            self._flip(round(phase / split), level)

    def _follow(self, beat: Beat, tempo_bpm: float, phase: float) -> None:
        """Work the error off, knowing that at the beat ``phase`` beats should have passed."""
        if self._flip_s is None:
            self._read_bar(beat)
        self.tempo_bpm += TEMPO_GAIN * (tempo_bpm - self.tempo_bpm)
        rate = self.tempo_bpm / 60
        at_s = max(self._given_s, beat.time_s)
        here = self._phase(at_s)
        error = here - phase - (at_s - beat.time_s) * rate
        slew = max(-MAX_SLEW, min(MAX_SLEW, -error / CORRECT_BEATS))
        beats = -error / slew if slew else 0.0
        self._turn(
            _Stretch(at_s, here, rate * (1 + slew)),
            _Stretch(at_s + beats / rate, here + beats * (1 + slew), rate),
        )

    def _stray(self, beat: Beat) -> None:
        """A beat of another pulse: jump to it when it is not the first."""
        if self._strays:
            beats = (beat.time_s - self._strays[-1]) * beat.tempo_bpm / 60
            if beats > MAX_GAP_BEATS or abs(beats - round(beats)) > JUMP_BEATS:
                self._strays = []  # it agrees with none before
        self._strays.append(beat.time_s)
        if len(self._strays) >= JUMP_AFTER:
            self._start(beat)

    def _start(self, beat: Beat) -> None:
        """Begin, or begin anew, so that this beat is a whole one."""
        self._shift = 0.0
        self._tapped_until_s = -math.inf
        self._jump_to(beat.time_s, beat.tempo_bpm * self.factor, beat.emitted_s)
        self._heard = beat
        self._read_bar(beat)
        self._become(ClockState.LOCKED, beat.emitted_s)

    def _flip(self, matched: int, level: float) -> None:
        """Take over the tracker's other level, from a beat on that is one of its own."""
        number = self.beats
        every = max(1, round(1 / level))
        self._rescale(number + (matched - number) % every, level)

    def _read_bar(self, beat: Beat) -> None:
        """Count the bar as the tracker does, unless the user has set it.

        Where the levels differ, the tracker's first beats may fall on several beats of our bar.
        """
        if self._one_chosen or self._meter_chosen not in (None, beat.beats_per_bar):
            return
        self._meter = beat.beats_per_bar
        first = round(self._phase(beat.time_s) - self._shift) - (beat.position - 1) * self.factor
        bar = beat.beats_per_bar * self.factor  # one bar of the tracker, in our beats
        if first == int(first):
            every = math.gcd(int(bar), self._meter) if bar == int(bar) else self._meter
            if (int(first) - self._origin) % every:
                self._origin = int(first)

    # What the user steers

    def _choose_meter(self, beats: int) -> None:
        """Count bars of so many beats; 0: as the tracker counts, from its next beat on."""
        self._meter_chosen = beats or None
        self._meter = beats or self._meter
        self._one_chosen = self._one_chosen and beats > 0

    def _scale(self, factor: float) -> None:
        """Run with so many beats to one of the tracker's, from the next fitting beat on."""
        if factor not in FACTORS:
            return
        ratio, self.factor = factor / self.factor, factor
        if self.state in RUNNING:
            number = self.beats
            every = max(1, round(1 / ratio))
            self._rescale(number + (self._origin - number) % every, ratio)

    def _tap(self, time_s: float) -> None:
        """Count taps; a row of them says which level is meant, and which of its beats."""
        if self._taps and time_s - self._taps[-1] > TAP_GAP_S:
            self._taps = []
        self._taps = [*self._taps[-MAX_TAPS + 1 :], time_s]
        if len(self._taps) < TAPS:
            return
        gaps = [b - a for a, b in zip(self._taps, self._taps[1:], strict=False)]
        gap_s = statistics.median(gaps)
        if any(abs(gap - gap_s) > TAP_EVEN * gap_s for gap in gaps[1 - TAPS :]):
            return
        at_s = statistics.median(t + gap_s * (len(self._taps) - 1 - i)
                                 for i, t in enumerate(self._taps))  # fmt: skip
        tempo_bpm = 60 / gap_s
        if not MIN_BPM <= tempo_bpm <= MAX_BPM:
            return
        if self.state is ClockState.LOCKED and self._heard is not None:
            self._choose(self._heard.tempo_bpm, tempo_bpm, at_s)
        else:
            self._run_tapped(tempo_bpm, at_s, time_s)

    def _choose(self, tracked_bpm: float, tapped_bpm: float, at_s: float) -> None:
        """Take the tracker's level that was tapped; shift by half a beat if that was tapped."""
        factor = min(FACTORS, key=lambda f: abs(math.log(tapped_bpm / (tracked_bpm * f))))
        if abs(tapped_bpm / (tracked_bpm * factor) - 1) > TAP_EVEN:
            return  # another tempo altogether: what is heard goes before it
        self._scale(factor)
        phase = self._phase(at_s)
        if abs(phase - round(phase)) <= JUMP_BEATS:
            return
        if tracked_bpm < 1.5 * self.tempo_bpm:  # else its beats fall on both
            self._shift = 0.5 - self._shift
        half_s = 30 / self.tempo_bpm
        self._jump_to(self._time(self.beats) - half_s, self.tempo_bpm, at_s)

    def _run_tapped(self, tempo_bpm: float, at_s: float, time_s: float) -> None:
        """Run on the taps alone."""
        self._shift = 0.0
        if self.state in RUNNING and _level(tempo_bpm / self.tempo_bpm) == 1.0:
            phase = self._phase(at_s)
            if abs(phase - round(phase)) > JUMP_BEATS:
                self._jump_to(at_s, tempo_bpm, time_s)
        else:
            self._jump_to(at_s, tempo_bpm, time_s)
        self._hold_until_s = self._tapped_until_s = time_s + TAP_RUN_S
        self._become(ClockState.HOLDING, time_s)


def _level(ratio: float) -> float | None:
    """Return which metrical level a ratio of tempi is; None for another tempo."""
    for level in LEVELS:
        if abs(ratio / level - 1) <= SAME_TEMPO:
            return level
    return None
