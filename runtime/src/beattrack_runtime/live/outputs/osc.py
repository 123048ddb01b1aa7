"""OSC: a message over UDP for each beat, each new tempo and each change of state."""

from __future__ import annotations

import socket

from pythonosc.osc_message_builder import OscMessageBuilder

from beattrack.config import require
from beattrack_runtime.live.clock.ticks import ClockStateChange, Tick
from beattrack_runtime.live.delivery import Due
from beattrack_runtime.live.spec import OutputSpec

TEMPO_STEP = 0.05  # bpm by which the tempo must have changed to be told again


class OscOutput:
    """Sends ``/beattrack/beat`` (position, beats per bar, tempo, confidence), ``/beattrack/tempo``
    and ``/beattrack/state``.

    UDP knows no connection: what nobody receives is gone. Where the system reports that nobody
    listens, the output counts as broken and is opened again.
    """

    ahead_s = 0.0
    beats_only = True

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; ``prefix`` replaces ``/beattrack``. Raises ConfigError."""
        self.name = spec.text
        self._address = (spec.host, spec.port)
        self._prefix = str(spec.options.get("prefix", "/beattrack"))
        good = self._prefix.startswith("/") and not set(self._prefix) & set(" #*,?[]{}")
        require(good, "prefix", self._prefix, "an OSC address such as /beattrack")
        self._socket: socket.socket | None = None
        self._tempo_bpm = 0.0

    def open(self) -> None:
        """Look the host up. Raises OSError."""
        found = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        self._socket.connect(address)
        self._tempo_bpm = 0.0

    def send(self, due: Due) -> None:
        """Send what it means at once. Raises OSError."""
        what = due.what
        if isinstance(what, Tick):
            self._message("beat", what.position, what.beats_per_bar, what.tempo_bpm,
                          what.confidence)  # fmt: skip
            if abs(what.tempo_bpm - self._tempo_bpm) >= TEMPO_STEP:
                self._tempo_bpm = what.tempo_bpm
                self._message("tempo", what.tempo_bpm)
        elif isinstance(what, ClockStateChange):
            self._message("state", what.state.value)

    def _message(self, address: str, *values: int | float | str) -> None:
        builder = OscMessageBuilder(f"{self._prefix}/{address}")
        for value in values:
            kind = "i" if isinstance(value, int) else "s" if isinstance(value, str) else "f"
            builder.add_arg(value, kind)
        if self._socket is None:
            raise ConnectionError("not connected")
        self._socket.send(builder.build().dgram)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
