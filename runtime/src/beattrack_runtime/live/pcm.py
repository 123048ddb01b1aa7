"""Raw audio from elsewhere: PCM on stdin, and a TCP server that takes PCM from a client."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.errors import MisuseError, SourceError, reason
from beattrack_runtime.live.fit import Fitter
from beattrack_runtime.live.pace import Pace, in_step, silence
from beattrack_runtime.resample import MAX_RATE, MIN_RATE
from beattrack_runtime.session import MAX_CHANNELS

MAGIC = b"beattrack-pcm"  # begins the optional header line
MAX_HEADER = 128  # bytes of that line, its end included
READ_BYTES = 1 << 16  # at most, at once
QUIET_S = 1.0  # audio that does not come for so long is carried on by silence
IDLE_S = 5.0  # a client that sends nothing for so long makes room for another
PIPE_BYTES = 1 << 20  # asked of the system for stdin: what it can hold while we are busy
_POLL_S = 0.03  # how long a read may wait: the clock's ticks must go on while no audio comes
_FILES = re.compile(rb"RIFF....WAVE|fLaC|OggS|ID3|FORM....AIF|\x1aE\xdf\xa3", re.DOTALL)
_FIRST = 12  # bytes in which a file's kind shows

_log = logging.getLogger("beattrack")


@dataclass(frozen=True)
class PcmFormat:
    """What raw bytes mean: interleaved samples, little-endian."""

    rate: int = 48000  # Hz
    channels: int = 1
    sample: str = "s16le"
    SAMPLES: ClassVar[dict[str, str]] = {"s16le": "<i2", "f32le": "<f4"}

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise MisuseError(f"A rate of {self.rate} Hz is not possible: {MIN_RATE}-{MAX_RATE}.")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise MisuseError(f"{self.channels} channels are not possible: 1-{MAX_CHANNELS}.")
        if self.sample not in self.SAMPLES:
            raise MisuseError(
                f"There is no PCM format '{self.sample[:20]}': {' or '.join(self.SAMPLES)}."
            )

    def __str__(self) -> str:
        return f"{self.sample}, {self.rate} Hz, channels: {self.channels}"


class PcmDecoder:
    """Turns bytes, cut anywhere, into samples."""

    def __init__(self, form: PcmFormat, channel: int | None = None) -> None:
        """Decode ``form``; ``channel``, from 1, takes that one alone."""
        self._form = form
        self._channel = channel
        self._dtype = np.dtype(form.SAMPLES[form.sample])
        self._frame_bytes = self._dtype.itemsize * form.channels
        self.rest = b""  # bytes short of a whole frame

    def push(self, data: bytes) -> NDArray[np.float32]:
        """Return float32 [n, channels], full scale at 1; NaN and infinity stay what they are."""
        data = self.rest + data
        whole = len(data) - len(data) % self._frame_bytes
        self.rest = data[whole:]
        raw = np.frombuffer(data, self._dtype, whole // self._dtype.itemsize)
        block = raw.reshape(-1, self._form.channels).astype(np.float32)
        if self._dtype.kind == "i":
            block *= np.float32(2.0**-15)
        return block if self._channel is None else block[:, self._channel - 1 : self._channel]


class StdinSource:
    """Raw PCM on stdin, to its end. What is late is carried on by silence, as from a microphone.

    There is no queue: the system's pipe holds what has not been read, and its writer waits.
    """

    name = "stdin"
    duration_s: float | None = None

    def __init__(self, form: PcmFormat, channel: int | None = None, file: int = 0) -> None:
        """Read ``file``, a descriptor. Raises MisuseError: a terminal, or no such channel."""
        _check_channel(channel, form.channels)
        if os.isatty(file):
            raise MisuseError("--stdin reads raw PCM from a pipe, and stdin is a terminal.")
        self._file = file
        self._decoder = PcmDecoder(form, channel)
        self.sample_rate = form.rate
        self.channels = form.channels if channel is None else 1
        self.overruns = 0
        self.note = ""
        self._pace = Pace(form.rate)
        if sys.platform == "linux":
            import fcntl

            with contextlib.suppress(OSError):  # not a pipe, or not allowed: then less must do
                fcntl.fcntl(file, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels] as it comes, and [0, channels] while nothing does.

        Raises:
            SourceError: stdin holds an audio file, or cannot be read.
        """
        last, gap = time.monotonic(), False
        head: bytes | None = b""  # the first bytes, until there are enough to know a file by
        while True:
            try:
                ready = select.select([self._file], [], [], _POLL_S)[0]
                data = os.read(self._file, READ_BYTES) if ready else None
            except (OSError, ValueError) as error:
                words = reason(error) if isinstance(error, OSError) else str(error)
                raise SourceError(f"Cannot read stdin: {words}.") from None
            now = time.monotonic()
            if data == b"":
                if head:
                    yield self._decoder.push(head)
                if self._decoder.rest:
                    _log.warning("stdin ended in the middle of a sample.")
                return
            if data is None:
                self.note = "waiting for audio" if now - last > QUIET_S else ""
                missing = self._pace.behind(now) if now - last > QUIET_S else 0
                self.overruns += bool(missing) and not gap
                gap = gap or bool(missing)
                self._pace.fill(missing)
                yield from silence(missing, self.channels, self.sample_rate)
                continue
            last, gap, self.note = now, False, ""
            if head is not None:
                head += data
                if len(head) < _FIRST:
                    continue
                if _FILES.match(head):
                    raise SourceError("stdin holds an audio file: give it with --file.")
                data, head = head, None
            yield from in_step(self._pace, self._decoder.push(data), now, self.sample_rate)

    def close(self) -> None:
        """Stdin belongs to the program: nothing to do."""


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
        _check_channel(channel, form.channels)
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
            ready = select.select(waiting, [], [], _POLL_S)[0]
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
            _check_channel(self._channel, form.channels)
        else:
            if len(head) < _FIRST:
                return None
            if _FILES.match(head):
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


def parse_header(line: bytes, form: PcmFormat) -> PcmFormat:
    """Return the format that a header line, given without its end, declares.

    Args:
        line: ``beattrack-pcm`` and any of ``rate=HZ channels=N format=s16le|f32le``.
        form: what holds where the line says nothing.

    Raises:
        MisuseError: anything else.
    """
    words = line.decode("ascii", "replace").split()
    if not words or words[0] != MAGIC.decode():
        raise MisuseError(f"The header must begin with '{MAGIC.decode()} '.")
    given: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in ("rate", "channels", "format") or key in given:
            raise MisuseError(
                f"The header has '{word[:30]}': rate=, channels= and format= may stand, once each."
            )
        if key != "format" and not re.fullmatch(r"[0-9]{1,7}", value):
            raise MisuseError(f"The header's {key} '{value[:30]}' is no whole number.")
        given[key] = value
    return replace(
        form,
        rate=int(given.get("rate", form.rate)),
        channels=int(given.get("channels", form.channels)),
        sample=given.get("format", form.sample),
    )


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
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(where)
            server.listen(4)
            server.setblocking(False)
        except OSError:
            server.close()
            raise
    except (OSError, UnicodeError) as error:
        words = reason(error) if isinstance(error, OSError) else "no such host"
        raise SourceError(f"Cannot listen on '{address}': {words}.") from None
    return server


def _check_channel(channel: int | None, channels: int) -> None:
    if channel is not None and not 1 <= channel <= channels:
        raise MisuseError(f"There is no channel {channel}: the audio has {channels}.")
