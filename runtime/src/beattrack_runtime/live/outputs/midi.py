"""MIDI clock with start, continue, stop and song position, and a note for each beat."""

from __future__ import annotations

import contextlib
import math
import time

import mido

from beattrack.config import require
from beattrack_runtime.live.clock.ticks import RUNNING, TICKS, ClockStateChange, Tick
from beattrack_runtime.live.output import Due, Pulse, Status
from beattrack_runtime.live.outputs.midi_ports import Port, open_port
from beattrack_runtime.live.spec import OutputSpec

SIXTEENTHS = 4  # of a beat: what a song position counts
LAST_BEAT = 16384 // SIXTEENTHS  # song positions have 14 bits
NOTE_TICKS = 6  # how long the note of a beat sounds


class MidiOutput:
    """Drives a MIDI port as a sequencer's master clock.

    The clock begins, and after a pause or a jump goes on, on a whole beat: with *start* at the
    first beat of the first bar, else with a song position that lies as far into a bar as the music
    does, and *continue*. Where no beat is known it is stopped; the clock's ticks alone may go on,
    of themselves, at the last tempo.
    """

    ahead_s = 0.0

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; the keys are those of `spec.KINDS`.

        Raises:
            ConfigError: a key's value is out of range.
        """
        self.name = spec.text
        self._place = spec.place
        option = spec.options
        self._channel = int(option.get("channel", 10)) - 1
        self._notes = {True: int(option.get("one", 76)), False: int(option.get("note", 77))}
        self._clock = bool(option.get("clock", True))
        self._sounds = bool(option.get("notes", True))
        self._transport = self._clock and bool(option.get("transport", True))
        self._free = self._clock and bool(option.get("free", False))
        self._clock_s = self._period_s = 0.0  # when the last tick was due, until the next; 0: none
        require(0 <= self._channel <= 15, "channel", self._channel + 1, "1-16")
        for key, note in zip(("one", "note"), self._notes.values(), strict=True):
            require(0 <= note <= 127, key, note, "0-127")
        self.beats_only = not self._clock and not self._sounds
        self._port: Port | None = None
        self._begin()

    def _begin(self) -> None:
        self._song_beat: int | None = None  # of the last beat; None before the first
        self._expected: int | None = None  # the next tick in a row; None while stopped
        self._sounding: int | None = None  # the note that is on
        self.pulse_s = math.inf  # when a tick of our own is due; inf: the clock gives them

    def open(self) -> None:
        """Make or find the port. Raises OSError and OutputError."""
        self._begin()
        self._port = open_port(self._place)

    def send(self, due: Due) -> None:
        """Send what it means at once. Raises OSError."""
        if isinstance(due.what, Tick):
            self._clock_s, self._period_s = due.at, 60 / due.what.tempo_bpm / TICKS
            self.pulse_s = math.inf
            self._tick(due.what)
        elif isinstance(due.what, ClockStateChange) and due.what.state not in RUNNING:
            self._halt()
            if self._free and self._period_s and self.pulse_s == math.inf:
                self.pulse_s = max(self._clock_s + self._period_s, time.monotonic())
        elif isinstance(due.what, Pulse):
            # Held up, it goes on from now: a burst of ticks would be another tempo.
            self.pulse_s = max(due.at, time.monotonic() - self._period_s) + self._period_s
            self._message("clock")
        elif isinstance(due.what, Status) and self._port is not None:
            self._port.check()

    def _tick(self, tick: Tick) -> None:
        number = tick.beat * TICKS + tick.tick
        follows = number == self._expected and not tick.jump
        if tick.tick == 0:
            follows = self._count(tick, follows)
            if not follows:
                self._halt()
                self._go(tick)
        elif not follows:
            self._halt()  # some were dropped
            if self._transport:
                return  # go on at the next beat
        self._expected = number + 1
        if self._clock:
            self._message("clock")
        if self._sounds:
            if tick.tick == 0:
                self._silence()
                self._sounding = self._notes[tick.position == 1]
                self._message("note_on", channel=self._channel, note=self._sounding, velocity=100)
            elif tick.tick == NOTE_TICKS:
                self._silence()

    def _count(self, tick: Tick, follows: bool) -> bool:
        """Count the song's beats on; return whether that follows without a jump."""
        place = tick.position - 1
        next_beat = 0 if self._song_beat is None else self._song_beat + 1
        beat = next_beat + (place - next_beat) % tick.beats_per_bar
        if beat >= LAST_BEAT:  # some 17 minutes at 240 bpm: begin again with a bar
            beat = place
            self._song_beat = beat
            return follows  # the receiver counts on by itself; only the next pause tells it
        self._song_beat = beat
        return follows and beat == next_beat

    def _go(self, tick: Tick) -> None:
        if not self._transport or self._song_beat is None:
            return
        if self._song_beat == 0:
            self._message("start")
        else:
            self._message("songpos", pos=self._song_beat * SIXTEENTHS)
            self._message("continue")

    def _halt(self) -> None:
        """Stop the clock and the note."""
        self._silence()
        if self._expected is not None and self._transport:
            self._message("stop")
        self._expected = None

    def _silence(self) -> None:
        if self._sounding is not None:
            self._message("note_off", channel=self._channel, note=self._sounding)
            self._sounding = None

    def _message(self, kind: str, **values: int) -> None:
        if self._port is None:
            raise ConnectionError("not connected")
        self._port.send(mido.Message(kind, **values))

    def close(self) -> None:
        """Stop the receiver and let go of the port."""
        port = self._port
        if port is None:
            return
        with contextlib.suppress(Exception):
            self._halt()
        self._port = None
        with contextlib.suppress(Exception):
            port.close()
