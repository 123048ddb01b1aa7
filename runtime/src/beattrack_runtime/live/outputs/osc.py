"""OSC: a message over UDP for each beat, each new tempo and each change of state."""

from __future__ import annotations

import socket
import time

from pythonosc.osc_message_builder import OscMessageBuilder

from beattrack.config import require
from beattrack_runtime.live.clock.ticks import ClockStateChange, Tick
from beattrack_runtime.live.hosts import find_host
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.spec import OSC_PREFIX, OutputSpec

TEMPO_STEP = 0.05  # bpm by which the tempo must have changed to be told again
REPEAT_S = 5.0  # after which a state is told again: a receiver may have come since


class OscOutput:
    """Sends ``/beattrack/beat`` (position, beats per bar, tempo, confidence), ``/beattrack/tempo``
    and ``/beattrack/state``.

    UDP knows no connection: what nobody receives is gone. Where the system reports that nobody
    listens, the output counts as broken and is opened again. The state is repeated now and then,
    since nothing tells of a receiver that comes late.
    """

    ahead_s = 0.0
    beats_only = True

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; ``prefix`` replaces ``/beattrack``. Raises ConfigError."""
        self.name = spec.text
        self._address = (spec.host, spec.port)
        self._prefix = str(spec.options.get("prefix", OSC_PREFIX))
        good = self._prefix.startswith("/") and not set(self._prefix) & set(" #*,?[]{}")
        require(good, "prefix", self._prefix, "an OSC address such as /beattrack")
        self._socket: socket.socket | None = None
        self._begin()

    def _begin(self) -> None:
        self._tempo_bpm = 0.0
        self._state = b""  # the message of the last state; empty before it
        self._told_s = 0.0  # when it was sent last, monotonic
        self._refused = False  # whether the last message found another one refused

    def open(self) -> None:
        """Look the host up, which may be a broadcast address. Raises OSError."""
        self._begin()
        family, address = find_host(*self._address, socket.SOCK_DGRAM)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.connect(address)

    def send(self, due: Due) -> None:
        """Send what it means at once. Raises OSError."""
        what = due.what
        if isinstance(what, Tick):
            values = what.position, what.beats_per_bar, what.tempo_bpm, what.confidence
            self._send(self._message("beat", *values))
            if abs(what.tempo_bpm - self._tempo_bpm) >= TEMPO_STEP:
                self._send(self._message("tempo", what.tempo_bpm))
                self._tempo_bpm = what.tempo_bpm
        elif isinstance(what, ClockStateChange):
            self._state = self._message("state", what.state.value)
            self._tell_state()
        elif self._state and time.monotonic() - self._told_s >= REPEAT_S:
            self._tell_state()

    def _tell_state(self) -> None:
        self._told_s = time.monotonic()
        self._send(self._state)

    def _send(self, message: bytes) -> None:
        """Send a message, once more if an earlier one was refused.

        The system says so at the next one, which it does not send. Meanwhile somebody may have
        come to listen, who knows neither state nor tempo. Refused twice in a row: nobody has.
        """
        if self._socket is None:
            raise ConnectionError("not connected")
        try:
            self._socket.send(message)
            self._refused = False
        except ConnectionRefusedError:
            if self._refused:
                raise
            self._refused = True
            self._tempo_bpm = 0.0
            for again in dict.fromkeys((self._state or message, message)):
                self._socket.send(again)  # on this machine a refusal shows at the second

    def _message(self, address: str, *values: int | float | str) -> bytes:
        builder = OscMessageBuilder(f"{self._prefix}/{address}")
        for value in values:
            kind = "i" if isinstance(value, int) else "s" if isinstance(value, str) else "f"
            builder.add_arg(value, kind)
        return builder.build().dgram

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
