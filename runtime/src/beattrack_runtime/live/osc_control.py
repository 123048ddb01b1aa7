"""Commands by OSC: a UDP port that a controller, such as a phone or a lighting desk, sends to."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_message import OscMessage

from beattrack.config import ConfigError
from beattrack_runtime.errors import OutputError, reason
from beattrack_runtime.live.controls import KINDS, Command, parse
from beattrack_runtime.live.hosts import find_host

PREFIX = "/beattrack/control/"
MAX_BYTES = 1024  # of a datagram; longer ones are no command
MAX_IN_BUNDLE = 16  # messages
MAX_TOLD = 8  # addresses that are none, of which the user is told
_POLL_S = 0.2

_log = logging.getLogger("beattrack")


class OscControl:
    """Listens for ``/beattrack/control/tap``, ``.../meter 3`` and so on: a command is an address.

    A command without values may have one number, since buttons send one when they are pressed and
    0 when they are let go: 0 means nothing. Whatever is no command is counted, and the first
    addresses that are none are told of.
    """

    def __init__(self, address: tuple[str, int], put: Callable[[Command], None]) -> None:
        """Prepare to listen at ``address``, a host and a port; ``put`` takes the commands."""
        self._address = address
        self._put = put
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.refused = 0  # datagrams and messages that were no command
        self._told: set[str] = set()  # addresses of which the user was told that they are none

    @property
    def port(self) -> int:
        """The port that is listened at."""
        return self._address[1]

    def start(self) -> None:
        """Begin. Raises OutputError when the port cannot be had."""
        host, port = self._address
        try:
            family, address = find_host(host, port, socket.SOCK_DGRAM)
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.bind(address)
        except OSError as error:
            self.stop()
            raise OutputError(f"Cannot listen at osc://{host}:{port}: {reason(error)}.") from None
        self._address = (host, self._socket.getsockname()[1])
        self._socket.settimeout(_POLL_S)
        self._thread = threading.Thread(target=self._run, name="osc control", daemon=True)
        self._thread.start()
        _log.info("Commands are taken at osc://%s:%d.", host, self.port)

    def _run(self) -> None:
        assert self._socket is not None
        while not self._ended.is_set():
            try:
                data = self._socket.recv(MAX_BYTES + 1)
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                self._take(data)
            except Exception:  # whatever the parser makes of it: it comes from outside
                self.refused += 1

    def _take(self, data: bytes) -> None:
        if len(data) > MAX_BYTES:
            raise ValueError("too long")
        for message in _messages(data):
            try:
                command = read(message.address, list(message.params))
            except ConfigError as error:
                self.refused += 1
                self._tell(str(message.address), str(error))
                continue
            if command is not None:
                self._put(command)

    def _tell(self, address: str, sentence: str) -> None:
        """Say what is wrong with an address once; anyone may send here, so not for ever."""
        if address not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(address)
            _log.warning("OSC control: %s", sentence)

    def stop(self) -> None:
        """End."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(1)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()


def _messages(data: bytes) -> Iterator[OscMessage]:
    """Yield the messages of a datagram; a bundle's, which may not hold bundles, at once."""
    if not data.startswith(b"#bundle\0"):
        yield OscMessage(data)
        return
    for number, content in enumerate(OscBundle(data)):
        if number >= MAX_IN_BUNDLE or not isinstance(content, OscMessage):
            raise ValueError("a bundle of too much")
        yield content


def read(address: str, values: list[Any]) -> Command | None:
    """Return the command that a message means; None for a button that was let go.

    Raises:
        ConfigError: it is none.
    """
    if not address.startswith(PREFIX):
        kind = address.rstrip("/").rpartition("/")[2]
        hint = (
            f": did you mean {PREFIX}{kind}?" if kind in KINDS else f": they begin with {PREFIX}."
        )
        raise ConfigError(f"There is no OSC address {address[:60]!a}{hint}")
    kind = address[len(PREFIX) :]
    words = [_word(value, kind == "delay") for value in values[:4]]
    if KINDS.get(kind) == "" and len(words) == 1 and words.pop() == "0":
        return None
    return parse(" ".join([kind, *words]))


def _word(value: Any, spaces: bool) -> str:
    """Return a value as a command has it; names of outputs have spaces. Raises ConfigError."""
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return f"{float(value):.10g}"
    if isinstance(value, str) and value and value.isprintable() and (spaces or " " not in value):
        return value
    raise ConfigError("An OSC command takes numbers, and words without spaces.")
