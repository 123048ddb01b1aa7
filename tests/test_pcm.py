"""Raw PCM from stdin and from TCP clients: whatever comes, in whatever pieces."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beattrack_runtime.errors import MisuseError, SourceError
from beattrack_runtime.live import stdin, tcp
from beattrack_runtime.live.pcm import READ_BYTES, PcmDecoder, PcmFormat, parse_header
from beattrack_runtime.live.stdin import StdinSource
from beattrack_runtime.live.tcp import MAX_HEADER, TcpSource, parse_address

LOOP = "tcp://127.0.0.1:0"
fixture_is_fine = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tone(n: int, channels: int = 1) -> np.ndarray:
    """Return int16 [n, channels] in which every sample is told from its neighbours."""
    steps = np.arange(n * channels).reshape(n, channels)
    return (1000 + steps % 20000).astype("<i2")


def stdin_of(data: bytes, form: PcmFormat, channel: int | None = None) -> np.ndarray:
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)))
    thread.start()
    try:
        blocks = list(StdinSource(form, channel, reader).blocks())
        return np.concatenate(blocks or [np.zeros((0, 1), np.float32)])
    finally:
        thread.join()
        os.close(reader)


class Listener:
    """A server whose blocks are collected on a thread, as the tracker would take them."""

    def __init__(self) -> None:
        self.source = TcpSource(LOOP, PcmFormat())
        self.blocks: list[np.ndarray] = []
        self.error: BaseException | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for block in self.source.blocks():
                if len(block):
                    self.blocks.append(block)
                if self._end.is_set():
                    return
        except BaseException as error:
            self.error = error

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.source.port), timeout=5)

    def heard(self, samples: int, seconds: float = 5) -> np.ndarray:
        """Wait until so many samples have come that are not silence; return those."""
        end = time.monotonic() + seconds
        while True:
            all_blocks = np.concatenate([np.zeros((0, 1), np.float32), *self.blocks])
            found = all_blocks[all_blocks[:, 0] != 0]
            if len(found) >= samples or time.monotonic() > end:
                return found
            time.sleep(0.005)

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self.source.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.stop()
    assert made.error is None


@fixture_is_fine
@given(st.data())
def test_decoding_does_not_depend_on_how_bytes_are_cut(data: st.DataObject) -> None:
    channels = data.draw(st.integers(1, 5))
    form = PcmFormat(48000, channels, data.draw(st.sampled_from(["s16le", "f32le"])))
    raw = data.draw(st.binary(max_size=600))
    decoder = PcmDecoder(form)
    parts, at = [], 0
    while at < len(raw):
        step = data.draw(st.integers(1, 50))
        parts.append(decoder.push(raw[at : at + step]))
        at += step
    whole = PcmDecoder(form)
    expected = whole.push(raw)
    got = np.concatenate(parts) if parts else expected
    assert np.array_equal(got, expected, equal_nan=True)
    assert decoder.rest == whole.rest
    assert expected.shape[1] == channels
    assert expected.dtype == np.float32


def test_stdin_gives_every_sample() -> None:
    samples = tone(5000, 2)
    heard = stdin_of(samples.tobytes(), PcmFormat(channels=2))
    assert np.array_equal(heard, samples / np.float32(32768))


def test_stdin_gives_the_chosen_channel() -> None:
    samples = tone(100, 3)
    heard = stdin_of(samples.tobytes(), PcmFormat(channels=3), channel=2)
    assert np.array_equal(heard, samples[:, 1:2] / np.float32(32768))


def test_stdin_that_ends_within_a_sample(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "beattrack"):
        assert len(stdin_of(tone(50).tobytes() + b"x", PcmFormat())) == 50
    assert "middle of a sample" in caplog.text
    for short in (b"", b"abcd"):
        assert len(stdin_of(short, PcmFormat())) == len(short) // 2


@pytest.mark.parametrize("start", [b"RIFF\x00\x01\x02\x03WAVEfmt ", b"fLaC" + bytes(20)])
def test_an_audio_file_on_stdin_is_told(start: bytes) -> None:
    with pytest.raises(SourceError, match="audio file"):
        stdin_of(start, PcmFormat())


def test_stdin_that_stalls_is_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "QUIET_S", 0.2)
    monkeypatch.setattr(stdin, "POLL_S", 0.02)
    reader, writer = os.pipe()
    source = StdinSource(PcmFormat(8000), file=reader)

    pauses = []

    def write() -> None:
        for part in range(40):  # 10 ms each, with a pause of half a second in the middle
            os.write(writer, tone(80).tobytes())
            began = time.monotonic()
            time.sleep(0.5 if part == 20 else 0.01)
            pauses.append(time.monotonic() - began)  # on a busy machine longer
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    total = sum(map(len, source.blocks()))
    thread.join()
    os.close(reader)
    stalls = [pause for pause in pauses if pause > 0.2]
    assert total / 8000 == pytest.approx(40 * 0.01 + sum(stalls), abs=0.1)
    assert source.overruns == len(stalls)


def test_a_terminal_is_refused() -> None:
    master, slave = os.openpty()
    with pytest.raises(MisuseError, match="terminal"):
        StdinSource(PcmFormat(), file=slave)
    os.close(master)
    os.close(slave)


def test_bytes_one_by_one(listener: Listener) -> None:
    samples = tone(60)
    with listener.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in samples.tobytes():
            client.send(bytes([byte]))
            time.sleep(0.001)
        heard = listener.heard(60)
    assert np.array_equal(heard, samples / np.float32(32768))


@pytest.mark.parametrize(
    ("header", "rate", "channels", "dtype"),
    [
        (b"beattrack-pcm rate=44100 channels=2 format=f32le\n", 44100, 2, "<f4"),
        (b"beattrack-pcm rate=16000\r\n", 16000, 1, "<i2"),
        (b"beattrack-pcm\n", 48000, 1, "<i2"),
        (b"", 48000, 1, "<i2"),
    ],
)
def test_rates_and_formats_come_out_as_one(
    listener: Listener, header: bytes, rate: int, channels: int, dtype: str
) -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate) * 0.5
    sent = np.repeat(wave[:, None], channels, axis=1)
    sent = sent * 32767 if dtype == "<i2" else sent
    with listener.connect() as client:
        client.sendall(header + sent.astype(dtype).tobytes())
        listener.heard(22000)
        heard = np.concatenate(listener.blocks)[:23000, 0]
    expected = np.sin(2 * np.pi * 440 * np.arange(23000) / 48000) * 0.5
    assert np.abs(heard - expected)[200:].max() < 0.01


def test_clients_come_and_go(listener: Listener) -> None:
    for _ in range(3):
        with listener.connect() as client:
            listener.blocks.clear()
            client.sendall(tone(1000).tobytes() + b"\x07")  # an odd byte ends with its client
            heard = listener.heard(1000)
            assert np.array_equal(heard[-1000:, 0] * 32768, tone(1000)[:, 0])
        time.sleep(0.03)
    assert listener.source.note in ("", "no client")


def test_stream_time_goes_on_without_a_client(listener: Listener) -> None:
    began = time.monotonic()
    with listener.connect() as client:
        client.sendall(tone(4800).tobytes())
        time.sleep(0.1)
    time.sleep(0.9)
    length = sum(map(len, listener.blocks)) / 48000
    assert length == pytest.approx(time.monotonic() - began, abs=0.25)
    assert listener.source.note == "no client"
    assert listener.source.overruns == 0  # a client that has ended has lost nothing


def test_one_client_at_a_time(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    with listener.connect() as first:
        first.sendall(tone(100).tobytes())
        listener.heard(100)
        with listener.connect() as second:
            assert second.recv(100) == b"error: Another client is connected.\n"
        monkeypatch.setattr(tcp, "IDLE_S", 0.0)  # the first has been silent for too long
        with listener.connect() as third:
            listener.blocks.clear()
            third.sendall(b"beattrack-pcm\n" + tone(300).tobytes())
            assert np.array_equal(listener.heard(300)[-300:, 0] * 32768, tone(300)[:, 0])
        assert first.recv(100) == b""


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"beattrack-pcm rate=0\n", "rate of 0 Hz"),
        (b"beattrack-pcm rate=-5\n", "no whole number"),
        (b"beattrack-pcm rate=1e5\n", "no whole number"),
        (b"beattrack-pcm channels=65\n", "channels"),
        (b"beattrack-pcm format=mp3\n", "no PCM format"),
        (b"beattrack-pcm rate=8000 rate=9000\n", "once each"),
        (b"beattrack-pcm gain=3\n", "gain=3"),
        (b"beattrack-pcmrate=3\n", "must begin with"),
        (b"beattrack-pcm \xff\xfe\n", "once each"),
        (b"beattrack-pcm " + b"x" * 500, "no end within"),
        (b"OggS" + bytes(60), "audio file"),
    ],
)
def test_a_bad_start_is_answered_in_a_sentence(
    listener: Listener, header: bytes, words: str
) -> None:
    with listener.connect() as client:
        client.sendall(header)
        answer = client.recv(400).decode()
    assert answer.startswith("error: ")
    assert answer.endswith(".\n")
    assert words in answer
    with listener.connect() as client:  # and the next one is welcome
        client.sendall(tone(100).tobytes())
        assert len(listener.heard(100)) >= 100


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_headers_are_a_format_or_one_sentence(line: bytes) -> None:
    try:
        form = parse_header(b"beattrack-pcm " + line, PcmFormat())
    except MisuseError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 200
    else:
        assert 1 <= form.channels <= 64


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: "tcp://" + text))
def test_addresses_are_an_address_or_one_sentence(text: str) -> None:
    try:
        host, port = parse_address(text)
    except MisuseError:
        return
    assert host
    assert 0 <= port < 65536


def test_addresses() -> None:
    assert parse_address("tcp://:7000") == ("127.0.0.1", 7000)
    assert parse_address("tcp://[::1]:7000") == ("::1", 7000)
    for bad in (
        "",
        "127.0.0.1:7000",
        "udp://127.0.0.1:1",
        "tcp://h",
        "tcp://h:70000",
        "tcp://h:1/x",
    ):
        with pytest.raises(MisuseError, match="no address"):
            parse_address(bad)


@fixture_is_fine
@given(st.lists(st.binary(max_size=400), max_size=5), st.booleans())
def test_any_bytes_leave_the_server_alive(
    listener: Listener, parts: list[bytes], header: bool
) -> None:
    with listener.connect() as client, contextlib.suppress(ConnectionError, BrokenPipeError):
        if header:
            client.sendall(b"beattrack-pcm ")
        for part in parts:
            client.sendall(part)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # reset
    assert listener.error is None
    listener.blocks.clear()


def test_a_flood_is_held_back_and_not_kept() -> None:
    """A client faster than the tracker waits; the source itself holds one read at most."""
    source = TcpSource(LOOP, PcmFormat())
    sent = [0]

    def flood() -> None:
        with contextlib.suppress(OSError):
            client = socket.create_connection(("127.0.0.1", source.port))
            client.settimeout(0.5)
            while True:
                sent[0] += client.send(bytes(READ_BYTES))

    thread = threading.Thread(target=flood)
    thread.start()
    blocks = source.blocks()
    taken = [len(next(blocks)) for _ in range(30)]
    thread.join()  # it has given up: nobody reads
    source.close()
    assert max(taken) <= READ_BYTES // 2
    assert sent[0] < 64 * 2**20


def test_an_address_in_use_is_one_sentence() -> None:
    first = TcpSource(LOOP, PcmFormat())
    with pytest.raises(SourceError, match="Cannot listen on .*in use"):
        TcpSource(f"tcp://127.0.0.1:{first.port}", PcmFormat())
    first.close()
    assert MAX_HEADER < 1000
