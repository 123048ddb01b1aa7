"""OS2L, Open Sound to Light: a JSON message over TCP for each beat, as VirtualDJ sends them.

https://os2l.org; the lighting software (QLC+, Daslight, SoundSwitch and others) is the server.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket

from beattrack_runtime.live.clock.ticks import Tick
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.outputs.os2l_search import find_os2l
from beattrack_runtime.live.spec import OutputSpec

CONNECT_S = 2.0
BUFFER = 8192  # bytes that wait for a receiver that does not read: some hundred beats
SEND_S = 0.2  # a receiver that takes nothing for so long is stuck


class Os2lOutput:
    """Sends ``{"evt":"beat","change":...,"pos":...,"bpm":...,"strength":...}``.

    ``pos`` counts beats so that its remainder by the beats of a bar is 0 on the one; ``change``
    says that the beats do not go on from the last one; ``strength`` is the confidence in percent.
    """

    ahead_s = 0.0
    beats_only = True

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare."""
        self.name = spec.text
        self._address = None if spec.text == "os2l://auto" else (spec.host, spec.port)
        self._socket: socket.socket | None = None
        self._position = -1  # of the last beat

    def open(self) -> None:
        """Connect; with ``os2l://auto`` to whom the network names. Raises OSError, OutputError."""
        places = find_os2l() if self._address is None else [self._address]
        self._socket = _connect(places)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._socket.settimeout(SEND_S)
        self._position = -1

    def send(self, due: Due) -> None:
        """Send a beat at once. Raises OSError."""
        tick = due.what
        if not isinstance(tick, Tick):
            self._read()
            return
        expected = self._position + 1
        self._position = expected + (tick.position - 1 - expected) % tick.beats_per_bar
        beat = {
            "evt": "beat",
            "change": tick.jump or self._position != expected,
            "pos": self._position,
            "bpm": round(tick.tempo_bpm, 2),
            "strength": round(100 * tick.confidence),
        }
        if self._socket is None:
            raise ConnectionError("not connected")
        self._socket.sendall(json.dumps(beat, separators=(",", ":")).encode() + b"\n")

    def _read(self) -> None:
        """Throw away what lighting software says of its buttons. Raises OSError when it is gone."""
        if self._socket is None:
            raise ConnectionError("not connected")
        while select.select([self._socket], [], [], 0)[0]:
            if not self._socket.recv(4096):
                raise ConnectionError("the lighting software has closed the connection")

    def close(self) -> None:
        """Disconnect."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _connect(places: list[tuple[str, int]]) -> socket.socket:
    """Return a connection to the first of these hosts and ports that takes one. Raises OSError."""
    for place in places[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection(place, timeout=CONNECT_S)
    return socket.create_connection(places[-1], timeout=CONNECT_S)
