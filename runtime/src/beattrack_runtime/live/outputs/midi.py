"""MIDI clock with start, continue, stop and song position, and a note for each beat."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Protocol

import mido

from beattrack.config import require
from beattrack_runtime.errors import OutputError
from beattrack_runtime.live.clock.ticks import RUNNING, TICKS, ClockStateChange, Tick
from beattrack_runtime.live.delivery import Due
from beattrack_runtime.live.spec import OutputSpec
from beattrack_runtime.quiet import quiet_libraries

PORT_NAME = "beattrack"
SIXTEENTHS = 4  # of a beat: what a song position counts
LAST_BEAT = 16384 // SIXTEENTHS  # song positions have 14 bits
NOTE_TICKS = 6  # how long the note of a beat sounds


class _Port(Protocol):
    def send(self, message: mido.Message) -> None: ...

    def close(self) -> None: ...


class MidiOutput:
    """Drives a MIDI port as a sequencer's master clock.

    The clock begins, and after a pause or a jump goes on, on a whole beat: with *start* at the
    first beat of the first bar, else with a song position that lies as far into a bar as the music
    does, and *continue*. Where no beat is known it is stopped.
    """

    ahead_s = 0.0

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; keys are ``channel``, ``note``, ``one``, ``clock`` and ``notes``.

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
        require(0 <= self._channel <= 15, "channel", self._channel + 1, "1-16")
        for key, note in zip(("one", "note"), self._notes.values(), strict=True):
            require(0 <= note <= 127, key, note, "0-127")
        self.beats_only = not self._clock and not self._sounds
        self._port: _Port | None = None
        self._begin()

    def _begin(self) -> None:
        self._song_beat: int | None = None  # of the last beat; None before the first
        self._expected: int | None = None  # the next tick in a row; None while stopped
        self._sounding: int | None = None  # the note that is on

    def open(self) -> None:
        """Make or find the port. Raises OSError and OutputError."""
        self._begin()
        self._port = open_port(self._place)

    def send(self, due: Due) -> None:
        """Send what it means at once. Raises OSError."""
        if isinstance(due.what, Tick):
            self._tick(due.what)
        elif isinstance(due.what, ClockStateChange) and due.what.state not in RUNNING:
            self._halt()

    def _tick(self, tick: Tick) -> None:
        number = tick.beat * TICKS + tick.tick
        follows = number == self._expected and not tick.jump
        if tick.tick == 0:
            follows = self._count(tick, follows)
            if not follows:
                self._halt()
                self._go(tick)
        elif not follows:
            self._halt()  # some were dropped: go on at the next beat
            return
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
        if not self._clock or self._song_beat is None:
            return
        if self._song_beat == 0:
            self._message("start")
        else:
            self._message("songpos", pos=self._song_beat * SIXTEENTHS)
            self._message("continue")

    def _halt(self) -> None:
        """Stop the clock and the note."""
        self._silence()
        if self._expected is not None and self._clock:
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


def open_port(place: str) -> _Port:
    """Return an open port.

    Args:
        place: a raw device such as /dev/snd/midiC1D0, a part of the name of an ALSA or JACK port,
            or nothing: then a port called beattrack is offered to others.

    Raises:
        OutputError: there is no such port, or no MIDI at all.
        OSError: the device cannot be opened.
    """
    if place.startswith("/"):
        return _RawPort(place)
    backend = _backend()
    if not place:
        port: _Port = backend.open_output(PORT_NAME, virtual=True, client_name=PORT_NAME)
        return port
    names = port_names()
    for name in names:
        if place.lower() in name.lower():
            port = backend.open_output(name, client_name=PORT_NAME)
            return port
    known = f"those found are {', '.join(names)}" if names else "none is connected"
    raise OutputError(f"there is no MIDI port '{place}': {known}")


def port_names() -> list[str]:
    """Return the ports that `open_port` finds by name. Raises OutputError: no MIDI at all."""
    names: list[str] = _backend().get_output_names()
    return names


def _backend() -> mido.Backend:
    """Return ALSA's sequencer where there is one, else JACK. Raises OutputError."""
    import rtmidi

    for api in ("LINUX_ALSA", "UNIX_JACK", "MACOSX_CORE"):
        number = getattr(rtmidi, f"API_{api}")
        if number not in rtmidi.get_compiled_api():
            continue
        try:
            with quiet_libraries():  # ALSA's says on stderr that there is no sequencer
                rtmidi.MidiOut(rtapi=number, name=PORT_NAME).delete()
        except rtmidi.RtMidiError:
            continue
        return mido.Backend(f"mido.backends.rtmidi/{api}")
    raise OutputError(
        "there is no MIDI here: ALSA's sequencer (/dev/snd/seq, 'modprobe snd-seq') and JACK are "
        "both missing; a raw device works without them, as midi:///dev/snd/midiC1D0"
    )


class _RawPort:
    """A raw MIDI device, or a pipe."""

    def __init__(self, path: str) -> None:
        try:
            # A pipe without a reader, or a device in use, is an error and no wait.
            self._file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(errno.ENXIO, f"nobody reads {path}") from None
            raise

    def send(self, message: mido.Message) -> None:
        data = bytes(message.bytes())
        # Short enough that the system takes all or nothing.
        if os.write(self._file, data) != len(data):
            raise OSError(errno.EIO, "the MIDI device took a part of a message")

    def close(self) -> None:
        os.close(self._file)
