"""A TCP server that takes raw PCM from a client."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.errors import MisuseError, SourceError, reason
from beattrack_runtime.live.fit import Fitter
from beattrack_runtime.live.hosts import find_host
from beattrack_runtime.live.pace import Pace, in_step, silence
from beattrack_runtime.live.pcm import (
    AUDIO_FILES,
    FIRST_BYTES,
    MAGIC,
    POLL_S,
    QUIET_S,
    READ_BYTES,
    PcmDecoder,
    PcmFormat,
    check_channel,
    parse_header,
)

MAX_HEADER = 128  # bytes of a client's header line, its end included
IDLE_S = 5.0  # a client that sends nothing for so long makes room for another

_log = logging.getLogger("beattrack")


class TcpSource:
    """A TCP server that takes raw PCM from one client at a time; mono, at one rate.

    A client may begin with a line such as ``beattrack-pcm rate=44100 channels=2 format=f32le``;
    what it leaves out, or all of it where there is no such line, is as ``form`` says. Audio of
    another rate is converted. Between clients the stream goes on with silence.

    One thread, no queue: what is not yet read waits in the system's bounded buffers, and the
    client with it.
    """

    channels = 1
    duration_s: float | None = None

    def __init__(self, address: str, form: PcmFormat, channel: int | None = None) -> None:
        """Listen on ``address``, such as ``tcp://127.0.0.1:7000``.

        Raises:
            MisuseError: an impossible address or channel.
            SourceError: the system does not let us listen there.
        """
        check_channel(channel, form.channels)
        host, port = parse_address(address)
        self._form, self._channel = form, channel
        self.sample_rate = form.rate
        self.overruns = 0
        self.note = "no client"
        self._pace = Pace(form.rate)
        self._client: _Client | None = None
        self._server = _listen(address, host, port)
        bound, self.port = self._server.getsockname()[:2]
        self.name = f"tcp://{f'[{bound}]' if ':' in bound else bound}:{self.port}"
        if bound in ("0.0.0.0", "::"):
            _log.warning("Anyone on the network may send sound to %s.", self.name)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, 1] as it comes, silence while it does not; never ends."""
        last, gap = time.monotonic(), False
        while True:
            waiting: list[socket.socket | _Client] = [self._server]
            if self._client is not None:
                waiting.append(self._client)
            ready = select.select(waiting, [], [], POLL_S)[0]
            now = time.monotonic()
            block = self._receive(now) if self._client in ready else None
            if self._server in ready:
                self._accept(now)
            if block is not None and len(block):
                last, gap = now, False
                yield from in_step(self._pace, block, now, self.sample_rate)
                continue
            gone = self._client is None or now - last > QUIET_S
            missing = self._pace.behind(now) if gone else 0
            self.overruns += bool(missing) and not gap and self._client is not None
            gap = gap or bool(missing)
            self._pace.fill(missing)
            if self._client is not None:
                self.note = "client sends nothing" if now - last > QUIET_S else ""
            yield from silence(missing, 1, self.sample_rate)

    def _accept(self, now: float) -> None:
        """Take a new client, or send it away while another is there."""
        try:
            connection, peer = self._server.accept()
        except OSError as error:  # it has gone again, or there are too many open files
            _log.debug("accepting a client: %s", error)
            return
        name = f"{peer[0]}:{peer[1]}"
        client = _Client(connection, name, self._form, self._channel, self.sample_rate, now)
        if self._client is not None:
            if now - self._client.last < IDLE_S:
                client.refuse("Another client is connected.")
                return
            self._leave(f"was silent for {IDLE_S:.0f} s and makes room")
        self._client, self.note = client, ""
        self._pace.restart()
        _log.info("Audio from %s.", name)

    def _receive(self, now: float) -> NDArray[np.float32] | None:
        """Return what the client sent; None if it has gone or was sent away."""
        client = self._client
        assert client is not None
        try:
            data = client.connection.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            self._leave(f"is gone: {reason(error)}")
            return None
        if not data:
            self._leave("has ended")
            return None
        try:
            return client.push(data, now)
        except MisuseError as error:
            client.refuse(str(error))
            self._leave(f"was sent away: {error}".rstrip("."))
            return None

    def _leave(self, why: str) -> None:
        assert self._client is not None
        _log.info("The client %s %s.", self._client.name, why)
        self._client.close()
        self._client, self.note = None, "no client"

    def close(self) -> None:
        """Send the client away and stop listening."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._server.close()


class _Client:
    """One connection: its header, its odd bytes, its rate."""

    def __init__(
        self, connection: socket.socket, name: str, form: PcmFormat, channel: int | None,
        rate: int, now: float,
    ) -> None:  # fmt: skip
        self.connection = connection
        self.name = name
        self.last = now  # when it last sent something
        self._form, self._channel, self._rate = form, channel, rate
        self._head: bytes | None = b""  # the first bytes, until what they are is known
        self._decoder: PcmDecoder | None = None
        self._fitter = Fitter(form.rate, rate, 1)
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # notice a client whose machine has died
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def fileno(self) -> int:
        """Return the socket's number, for select."""
        return self.connection.fileno()

    def push(self, data: bytes, now: float) -> NDArray[np.float32]:
        """Return float32 [n, 1] at the source's rate; raises MisuseError for a bad header."""
        self.last = now
        if self._head is not None:
            self._head += data
            found = self._begin(self._head)
            if found is None:
                return np.zeros((0, 1), np.float32)
            data, self._head = found, None
        assert self._decoder is not None
        return self._fitter.push(self._decoder.push(data))

    def _begin(self, head: bytes) -> bytes | None:
        """Return the audio after the header, if any; None while that cannot be told."""
        form = self._form
        if head[: len(MAGIC)] == MAGIC[: len(head)]:
            line, end, rest = head[:MAX_HEADER].partition(b"\n")
            if not end:
                if len(head) >= MAX_HEADER:
                    raise MisuseError(f"The header has no end within {MAX_HEADER} bytes.")
                return None
            form, rest = parse_header(line, form), head[len(line) + 1 :]
            check_channel(self._channel, form.channels)
        else:
            if len(head) < FIRST_BYTES:
                return None
            if AUDIO_FILES.match(head):
                raise MisuseError("This is an audio file: raw PCM is wanted.")
            rest = head
        self._decoder = PcmDecoder(form, self._channel)
        self._fitter = Fitter(form.rate, self._rate, 1)
        return rest

    def refuse(self, sentence: str) -> None:
        """Tell the client why it is sent away."""
        with contextlib.suppress(OSError):
            self.connection.send(f"error: {sentence}\n".encode())
        self.close()

    def close(self) -> None:
        self.connection.close()


def parse_address(address: str) -> tuple[str, int]:
    """Return (host, port) of ``tcp://HOST:PORT``; no host is this machine alone.

    Raises:
        MisuseError: anything else.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
        extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    except ValueError:
        port, extra, parts = None, None, urlsplit("")
    if parts.scheme != "tcp" or port is None or extra:
        raise MisuseError(f"--listen '{address}' is no address such as tcp://127.0.0.1:7000.")
    return parts.hostname or "127.0.0.1", port


def _listen(address: str, host: str, port: int) -> socket.socket:
    try:
        family, where = find_host(host, port, socket.SOCK_STREAM)
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(where)
            server.listen(4)
            server.setblocking(False)
        except OSError:
            server.close()
            raise
    except OSError as error:
        raise SourceError(f"Cannot listen on '{address}': {reason(error)}.") from None
    return server
