"""MIDI ports: those of ALSA and JACK, and raw devices."""

from __future__ import annotations

import errno
import os
import time
from typing import Any, Protocol

import mido

from beattrack_runtime.errors import OutputError
from beattrack_runtime.quiet import quiet_libraries

PORT_NAME = "beattrack"
CHECK_S = 0.5  # s between two looks at whether a port is still there


class Port(Protocol):
    """An open port."""

    def send(self, message: mido.Message) -> None:
        """Send one message at once. Raises OSError."""

    def check(self) -> None:
        """Look now and then whether the receiver is there. Raises ConnectionError if not."""

    def close(self) -> None:
        """Let go of it."""


def open_port(place: str) -> Port:
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
    client = _client()
    try:
        return _ClientPort(client, place)
    except Exception:
        client.delete()
        raise


def port_names() -> list[str]:
    """Return the ports that `open_port` finds by name. Raises OutputError: no MIDI at all."""
    client = _client()
    try:
        names: list[str] = client.get_ports()
        return names
    finally:
        client.delete()


def _client() -> Any:
    """Return a client of ALSA's sequencer where there is one, else of JACK. Raises OutputError."""
    import rtmidi

    for api in ("LINUX_ALSA", "UNIX_JACK", "MACOSX_CORE"):
        number = getattr(rtmidi, f"API_{api}")
        if number not in rtmidi.get_compiled_api():
            continue
        try:
            with quiet_libraries():  # ALSA's says on stderr that there is no sequencer
                return rtmidi.MidiOut(rtapi=number, name=PORT_NAME)
        except rtmidi.RtMidiError:
            continue
    raise OutputError(
        "there is no MIDI here: ALSA's sequencer (/dev/snd/seq, 'modprobe snd-seq') and JACK are "
        "both missing; a raw device works without them, as midi:///dev/snd/midiC1D0"
    )


class _ClientPort:
    """A port of our own, offered to others or connected to the one that is wanted."""

    def __init__(self, client: Any, place: str) -> None:
        """Offer it, or connect it to the first whose name has ``place``. Raises OutputError."""
        self._client = client
        self._receiver = ""  # the name of the port that it is connected to
        self._checked_s = time.monotonic()
        if not place:
            client.open_virtual_port(PORT_NAME)
            return
        names = client.get_ports()
        for number, name in enumerate(names):
            if place.lower() in name.lower():
                client.open_port(number, PORT_NAME)
                self._receiver = name
                return
        known = f"those found are {', '.join(names)}" if names else "none is connected"
        raise OutputError(f"there is no MIDI port '{place}': {known}")

    def send(self, message: mido.Message) -> None:
        self._client.send_message(message.bytes())

    def check(self) -> None:
        # Neither ALSA nor JACK says at sending that a receiver has gone.
        now = time.monotonic()
        if not self._receiver or now - self._checked_s < CHECK_S:
            return
        self._checked_s = now
        if self._receiver not in self._client.get_ports():
            raise ConnectionError(f"the MIDI port '{self._receiver}' has gone")

    def close(self) -> None:
        self._client.close_port()
        self._client.delete()


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

    def check(self) -> None:
        pass  # writing to it says so

    def close(self) -> None:
        os.close(self._file)
