"""The server of the live page: its messages, and what it does with those it should not trust."""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from audio_tools import FLUX_COMMAND
from beattrack.config import ConfigError
from beattrack_runtime.live.clock.ticks import ClockState, ClockStateChange, Tick
from beattrack_runtime.live.controls import Command
from beattrack_runtime.live.output import Due, OutputHealth, Status
from beattrack_runtime.live.outputs import make_output, web, web_access
from beattrack_runtime.live.outputs.web import MAX_CONNECTIONS, MAX_PAGES, WebOutput
from beattrack_runtime.live.outputs.web_access import Access, Refusal, is_loopback, page_url
from beattrack_runtime.live.spec import parse_output
from flux_model import drum_loop
from virtual_mic import wait_for

TOKEN = "a-token-of-tests"


class Server(WebOutput):
    """The real thing, which keeps the commands that it was given."""

    def __init__(self, host: str = "127.0.0.1", token: str | None = None) -> None:
        self.commands: list[tuple[Command, float]] = []
        super().__init__((host, 0), token, lambda command, at: self.commands.append((command, at)))

    def address(self, path: str = "/", scheme: str = "http", token: str | None = None) -> str:
        query = "" if token is None else f"?token={token}"
        return f"{scheme}://127.0.0.1:{self.port}{path}{query}"

    def connect(self, token: str | None = None, **more: Any) -> ClientConnection:
        return connect(self.address("/socket", "ws", token), **more)


@contextlib.contextmanager
def running(*arguments: Any) -> Iterator[Server]:
    server = Server(*arguments)
    server.open()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as started:
        yield started


def beat(number: int, at: float, bpm: float = 120.0) -> Due:
    return Due(Tick(at - 5.0, number, 0, number % 4 + 1, 4, bpm, 0.9, number == 0), at)


def status(at: float, **more: Any) -> Due:
    outputs = (OutputHealth("osc://127.0.0.1:9000", -20.0, 10, 1, 0, 2, "open"),)
    values: dict[str, Any] = {
        "stream_s": 12.0, "state": ClockState.LOCKED, "tempo_bpm": 120.0, "confidence": 0.9,
        "level_db": -14.0, "clipping": False, "activation": 0.5, "downbeat": 0.1,
        "source": "a microphone", "health": "no dropouts", "outputs": outputs,
        "frames": ((11.98, 0.5, 0.1),), **more,
    }  # fmt: skip
    return Due(Status(**values), at)


def said(client: ClientConnection, kind: str, timeout_s: float = 10) -> dict[str, Any]:
    """Return the next message of a kind."""
    end = time.monotonic() + timeout_s
    while True:
        message = json.loads(client.recv(timeout=max(0.01, end - time.monotonic())))
        assert message["v"] == 1
        if message["type"] == kind:
            found: dict[str, Any] = message
            return found


def closing_code(client: ClientConnection) -> int | None:
    """Read to the end and return the code that the server closed with."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(timeout=3)
    return client.close_code


def ask(client: ClientConnection, kind: str, **values: Any) -> None:
    client.send(json.dumps({"v": 1, "type": kind, **values}))


def until(condition: Any, timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def fetch(address: str, **headers: str) -> tuple[int, Any, str]:
    """Return status, headers and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


# What is served


def test_serves_the_page_and_lets_it_run_nothing_foreign(server: Server) -> None:
    code, headers, html = fetch(server.url)
    assert code == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)", html), "a script within the page"
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|https?://", html)
    for path in ("/lamp.js", "/pictures.js", "/steer.js", "/page.js", "/page.css"):
        assert path[1:] in html
        assert fetch(server.address(path))[0] == 200
    code, _, text = fetch(server.address("/../web.py"))
    assert code == 404 and text.count("\n") == 1


def test_tells_what_the_clock_says(server: Server) -> None:
    now = time.monotonic()
    with server.connect() as client:
        hello = said(client, "hello")
        assert hello["output"] == server.name and hello["session"]
        server.send(beat(7, now + 0.06))
        server.send(Due(ClockStateChange(ClockState.HOLDING, 3.0, 120.0, 0.2), now + 0.1))
        server.send(status(now, tempo_range=(60.0, 120.0), range_chosen=True, factor=0.5, meter=3))
        told = said(client, "beat")
        assert told["at"] == pytest.approx(now + 0.06, abs=1e-4)
        del told["at"]
        assert told == {
            "v": 1, "type": "beat", "beat": 7, "position": 4, "beats_per_bar": 4,
            "tempo_bpm": 120.0, "confidence": 0.9, "jump": False,
        }  # fmt: skip
        assert said(client, "state")["state"] == "holding"
        told = said(client, "status")
        assert told["outputs"][0] == {
            "name": "osc://127.0.0.1:9000", "delay_ms": -20.0, "sent": 10, "late": 1, "dropped": 0,
            "reconnects": 2, "state": "open",
        }  # fmt: skip
        assert told["tempo_range"] == [60.0, 120.0] and told["range_chosen"] is True
        assert told["factor"] == 0.5 and told["meter"] == 3
        assert told["frames"][0][0] == pytest.approx(now - 0.02, abs=1e-4)  # in the server's clock


def test_numbers_that_json_lacks_become_null(server: Server) -> None:
    with server.connect() as client:
        server.send(status(time.monotonic(), level_db=-math.inf, tempo_bpm=math.nan))
        told = said(client, "status")
    assert told["level_db"] is None and told["tempo_bpm"] is None


def test_a_page_that_comes_later_learns_the_state_but_no_old_beat(server: Server) -> None:
    server.send(beat(1, time.monotonic()))
    server.send(Due(ClockStateChange(ClockState.LOCKED, 3.0, 120.0, 0.9), time.monotonic()))
    server.send(status(time.monotonic()))
    with server.connect() as client:
        kinds = [json.loads(client.recv(timeout=3))["type"] for _ in range(3)]
        assert kinds == ["hello", "state", "status"]


def test_tells_its_clock(server: Server) -> None:
    with server.connect() as client:
        for number in (0, 2**53 - 1):
            before = time.monotonic()
            ask(client, "ping", id=number)
            pong = said(client, "pong")
            assert pong["id"] == number
            assert before - 1e-4 <= pong["time"] <= time.monotonic() + 1e-4


def test_takes_commands_with_their_moment(server: Server) -> None:
    with server.connect() as client:
        pressed = time.monotonic() - 0.08
        ask(client, "command", command="tap", at=pressed)
        assert said(client, "done")["command"] == "tap"
        ask(client, "command", command="delay osc://127.0.0.1:9000 -20")
        said(client, "done")
        for at in (pressed - 3600, pressed + 3600):  # a clock that is wrong
            ask(client, "command", command="one", at=at)
            said(client, "done")
        ask(client, "command", command="tapp")
        assert "did you mean 'tap'" in said(client, "error")["text"]
    kinds = [command.kind for command, _ in server.commands]
    assert kinds == ["tap", "delay", "one", "one"]
    assert server.commands[0][1] == pytest.approx(pressed, abs=1e-4)
    assert server.commands[1][0] == Command("delay", (-20.0,), "osc://127.0.0.1:9000")
    assert all(abs(at - time.monotonic()) < 2 for _, at in server.commands)


# Who may


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css"])
@pytest.mark.parametrize("token", [None, "", "a-token-of-testt", TOKEN + "x", "%ff%00", TOKEN[:-1]])
def test_pages_need_the_token(token_server: Server, path: str, token: str | None) -> None:
    code, _, text = fetch(token_server.address(path, token=token))
    assert code == 403
    assert "token" in text and TOKEN not in text and "{{" not in text
    assert fetch(token_server.address(path, token=TOKEN))[0] == 200


@pytest.fixture(scope="module")
def token_server() -> Iterator[Server]:
    with running("127.0.0.1", TOKEN) as started:
        yield started


@pytest.mark.parametrize("token", [None, "", "wrong-token", TOKEN + "&token=", "a" * 8000])
def test_the_socket_needs_the_token(token_server: Server, token: str | None) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed, EOFError, OSError)) as refused:
        token_server.connect(token and token.replace("&token=", "x"))
    if isinstance(refused.value, InvalidStatus):
        assert refused.value.response.status_code == 403
    with token_server.connect(TOKEN) as client:
        said(client, "hello")


def test_the_page_hands_its_token_on(token_server: Server) -> None:
    html = fetch(token_server.url)[2]
    assert f"page.js?token={TOKEN}" in html and f"page.css?token={TOKEN}" in html
    assert TOKEN not in fetch(token_server.address("/page.js", token=TOKEN))[2]


def test_beyond_loopback_a_token_is_made() -> None:
    first, second = (Server("0.0.0.0") for _ in range(2))
    tokens = [server.url.partition("?token=")[2] for server in (first, second)]
    assert tokens[0] != tokens[1] and all(len(token) >= 22 for token in tokens)
    assert "0.0.0.0" not in first.url
    assert "token" not in Server("127.0.0.1").url
    with pytest.raises(ConfigError, match="8-128"):
        Server("0.0.0.0", "short")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_other_sites_may_not_steer(server: Server, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        server.connect(origin=origin)
    assert refused.value.response.status_code == 403
    with server.connect(origin=f"http://127.0.0.1:{server.port}") as client:
        said(client, "hello")


@pytest.mark.parametrize(
    ("bound", "token", "host", "allowed"),
    [
        ("127.0.0.1", None, "127.0.0.1:8080", True),
        ("127.0.0.1", None, "localhost:9000", True),  # through a tunnel
        ("127.0.0.1", None, "LOCALHOST", True),
        ("127.0.0.1", None, "[::1]:8080", True),
        ("127.0.0.1", None, "lights.example.org", True),  # named so by the user
        ("127.0.0.1", None, "Lights.example.org:8443", True),
        ("127.0.0.1", None, "192.168.1.5:8080", False),
        ("127.0.0.1", None, "evil.example:8080", False),  # a name that was pointed here
        ("127.0.0.1", None, "127.0.0.1.evil.example", False),
        ("127.0.0.1", None, "evil.lights.example.org", False),
        ("127.0.0.1", None, "lights.example.org.evil.example", False),
        ("127.0.0.1", None, "lightsxexample.org", False),
        ("127.0.0.1", None, "", False),
        ("127.0.0.1", None, "127.0.0.1:8080\t;x", False),
        ("127.0.0.1", TOKEN, "127.0.0.1:8080", True),
        ("127.0.0.1", TOKEN, "stage.example", True),  # through a proxy: the token decides
        ("127.0.0.1", TOKEN, "192.168.1.5:8080", True),
        ("127.0.0.1", TOKEN, "", False),
        ("127.0.0.1", TOKEN, "127.0.0.1:8080\t;x", False),
        ("127.0.0.1", TOKEN, "stage.example; script-src *", False),
        ("127.0.0.1", TOKEN, "stage.example/x", False),
        ("127.0.0.1", TOKEN, "me@stage.example", False),
        ("0.0.0.0", None, "192.168.1.5:8080", True),
        ("0.0.0.0", None, "evil.example", True),  # it lacks the token that is made
        ("stage.lan", None, "stage.lan:8080", True),
    ],
)
def test_names_of_this_machine(bound: str, token: str | None, host: str, allowed: bool) -> None:
    access = Access(bound, token, "lights.example.org")
    target = f"/?token={access.token or ''}"
    if allowed:
        assert access.check(target, {"host": [host], "origin": []}) == "/"
    else:
        with pytest.raises(Refusal, match="not called so"):
            access.check(target, {"host": [host], "origin": []})
    if access.token:  # however this machine is called
        with pytest.raises(Refusal):
            access.check("/", {"host": [host], "origin": []})
    with pytest.raises(Refusal):
        access.check(target, {"host": [host, host], "origin": []})


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("lights.example.org", "https://lights.example.org", True),
        ("lights.example.org:8443", "https://LIGHTS.example.org:8443", True),
        ("127.0.0.1:8080", "https://lights.example.org:8443", True),  # a proxy that renames
        ("127.0.0.1:8080", "http://lights.example.org", False),
        ("127.0.0.1:8080", "https://evil.example", False),
        ("127.0.0.1:8080", "https://lights.example.org.evil.example", False),
        ("127.0.0.1:8080", "https://lightsxexample.org", False),
        ("127.0.0.1:8080", "null", False),
        ("127.0.0.1:8080", "", False),
        ("stage.example", "https://stage.example", True),
        ("stage.example", "http://stage.example", True),
        ("stage.example", "https://evil.example", False),
        ("stage.example", "https://stage.example:1", False),
    ],
)
def test_whose_page_may_steer(host: str, origin: str, allowed: bool) -> None:
    access = Access("127.0.0.1", TOKEN, "lights.example.org")
    target, headers = f"/socket?token={TOKEN}", {"host": [host], "origin": [origin]}
    if allowed:
        assert access.check(target, headers) == "/socket"
    else:
        with pytest.raises(Refusal, match="Another site"):
            access.check(target, headers)
    with pytest.raises(Refusal):
        access.check(target, {"host": [host], "origin": [origin, origin]})
    with pytest.raises(Refusal):
        access.check("/socket", headers)


@pytest.mark.parametrize("name", ["", "a b", "a:1", "a/b", "https://a", "a\n", "é", "a" * 300])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="lights.example.org"):
        Access("127.0.0.1", None, name)


def test_behind_a_proxy_that_keeps_the_host(token_server: Server) -> None:
    """Page and socket, asked for as a TLS proxy passes them on; the address says the name."""
    headers = {"Host": "stage.example"}
    code, told, _ = fetch(token_server.address(token=TOKEN), **headers)
    assert code == 200 and "wss://stage.example" in told["Content-Security-Policy"]
    assert fetch(token_server.address(), **headers)[0] == 403
    for origin, welcome in (("https://stage.example", True), ("https://evil.example", False)):
        raw = socket.create_connection(("127.0.0.1", token_server.port), timeout=3)
        address = f"ws://stage.example/socket?token={TOKEN}"
        if welcome:
            with connect(address, sock=raw, origin=origin) as client:
                said(client, "hello")
        else:
            with pytest.raises(InvalidStatus):
                connect(address, sock=raw, origin=origin)


def test_the_name_is_a_key_of_the_address() -> None:
    output = make_output(parse_output("web://?name=lights.example.org"), lambda command, at: None)
    assert isinstance(output, WebOutput)
    found = output._access.check("/", {"host": ["lights.example.org"], "origin": []})
    assert found == "/" and output._access.token is None


def test_without_a_route_the_address_is_one_that_phones_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_access, "_own_address", lambda: None)
    for name, shown in (("stage", "stage.local"), ("stage.lan", "stage.lan")):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        assert page_url("0.0.0.0", 8080, "t" * 8) == f"http://{shown}:8080/?token=tttttttt"


def test_the_address_to_open() -> None:
    assert page_url("::1", 8080, None) == "http://[::1]:8080/"
    assert page_url("10.0.0.7", 80, "t" * 8) == "http://10.0.0.7:80/?token=tttttttt"
    assert is_loopback("127.1.2.3") and is_loopback("::1") and is_loopback("Localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("stage.lan")


# What must not hurt


def test_nonsense_is_answered_and_forgotten(server: Server) -> None:
    source = random.Random(6)
    values = [None, True, -1, 0.5, 1e400, 10**300, "", "tap", [], {}, "ping", "command", "\0", "💥"]
    with server.connect() as client:
        said(client, "hello")
        for number in range(100):
            keys = source.sample(["v", "type", "id", "command", "at", "__class__"], 4)
            message: str | bytes = json.dumps({"v": 1, **{k: source.choice(values) for k in keys}})
            if number % 4 == 1:
                message = "".join(chr(source.randrange(1, 0xD7FF)) for _ in range(200))
            elif number % 4 == 2:
                message = source.randbytes(source.randrange(400))
            elif number % 4 == 3:
                message = source.choice(["[" * 1000, '{"v":' * 150, "NaN", "1" * 1000, "", "null"])
            client.send(message)
            answer = json.loads(client.recv(timeout=3))
            assert answer["type"] in ("error", "pong", "done")
            assert len(answer.get("text", "")) < 400
        ask(client, "ping", id=5)
        assert said(client, "pong")["id"] == 5
    assert all(command.kind == "tap" for command, _ in server.commands)


def test_raw_nonsense_on_the_port(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    source = random.Random(7)
    starts = [b"", b"GET ", b"POST / HTTP/1.1\r\n", b"GET /\xff HTTP/1.1\r\nHost: \xff\r\n\r\n",
              b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"\x16\x03\x01\x02\x00"]  # fmt: skip
    for number in range(60):
        raw = socket.create_connection(("127.0.0.1", server.port), timeout=3)
        with raw, contextlib.suppress(OSError):
            raw.sendall(starts[number % len(starts)] + source.randbytes(3000) + b"\r\n\r\n")
    time.sleep(0.2)  # as many as this at once are turned away
    assert fetch(server.url)[0] == 200
    out, err = capfd.readouterr()
    assert out == err == "", "strangers can write on the terminal"


def test_long_messages_end_the_connection(server: Server) -> None:
    with server.connect() as client:
        client.send("x" * 2000)
        assert closing_code(client) == 1009


def test_too_many_messages_end_the_connection(server: Server) -> None:
    with server.connect() as client:
        with contextlib.suppress(ConnectionClosed):
            for number in range(300):
                ask(client, "ping", id=number)
        assert closing_code(client) == 1008
    assert server.turned_away == 1


def test_as_many_pages_as_allowed(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(MAX_PAGES)]
        until(lambda: server.pages == MAX_PAGES)
        with pytest.raises(InvalidStatus) as refused:
            server.connect()
        assert refused.value.response.status_code == 503
        server.send(beat(3, time.monotonic() + 0.05))
        assert [said(client, "beat")["beat"] for client in clients] == [3] * MAX_PAGES
        clients[0].close()
        until(lambda: server.pages < MAX_PAGES)
        with server.connect() as client:
            said(client, "hello")


def test_idle_connections_are_bounded(server: Server) -> None:
    with contextlib.ExitStack() as stack, server.connect() as client:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(MAX_CONNECTIONS + 30)
        ]
        server.send(beat(3, time.monotonic()))
        assert said(client, "beat")["beat"] == 3
        for raw in idle:
            raw.settimeout(0.005)
        ended = 0
        for raw in idle:
            try:
                ended += raw.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                ended += 1
        assert ended >= 30


def test_a_page_that_does_not_read_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "READ_S", 1.0)
    with running() as server, _deaf(server), server.connect() as client:
        until(lambda: server.pages == 2)
        filler = status(time.monotonic(), health="x" * 20000)
        delays, longest = [], 0.0
        for number in range(60):
            server.send(filler)
            began = time.monotonic()
            server.send(beat(number, began))
            longest = max(longest, time.monotonic() - began)
            assert said(client, "beat")["beat"] == number
            delays.append(time.monotonic() - began)
        assert longest < 0.5, "send waited for a page"
        assert sorted(delays)[30] < 0.2
        waiting = max(len(page._mailbox) for page in server._pages)
        assert waiting <= web.MAILBOX
        until(lambda: server.pages == 1)  # the deaf one was disconnected
        server.send(beat(99, time.monotonic()))
        assert said(client, "beat")["beat"] == 99


@contextlib.contextmanager
def _deaf(server: Server) -> Iterator[socket.socket]:
    """A page that shakes hands and never reads again."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", server.port))
    raw.sendall(
        f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    try:
        yield raw
    finally:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


# As an output among others


def test_opens_again_after_a_close_on_the_same_port(server: Server) -> None:
    threads = threading.active_count()
    with server.connect() as client:
        said(client, "hello")
        server.close()
        with pytest.raises(ConnectionClosed):
            said(client, "beat")
    assert threading.active_count() < threads + 1
    with pytest.raises(ConnectionError):
        server.send(beat(1, time.monotonic()))
    server.close()
    port = server.port
    server.open()
    assert server.port == port
    with server.connect() as client:
        said(client, "hello")


@pytest.mark.parametrize("host", ["::1", "::"])
def test_addresses_of_version_6(host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    with running(host, TOKEN) as server:
        at = f"http://[::1]:{server.port}/?token={TOKEN}"
        assert fetch(at)[0] == 200
        assert "[" not in server.url or host == "::1"


def test_a_port_that_is_taken_is_said(server: Server) -> None:
    other = WebOutput(("127.0.0.1", server.port), None, lambda command, at: None)
    with pytest.raises(OSError, match="in use"):
        other.open()
    other.close()


# Through the command


def test_a_song_drives_the_page_and_the_page_steers(tmp_path: Path) -> None:
    """Beats come ahead of their time, lie where the song has them, and obey a page."""
    audio, truth = drum_loop(9, 120, 22050, 0.25)
    soundfile.write(tmp_path / "drums.wav", audio, 22050)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", FLUX_COMMAND, "--file", str(tmp_path / "drums.wav"), "--realtime",
         "--output", f"web://127.0.0.1:{port}?token={TOKEN}&delay=30"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    name = f"web://127.0.0.1:{port}"
    told: list[tuple[float, dict[str, Any]]] = []
    try:
        wait_for(process, f"http://127.0.0.1:{port}/?token={TOKEN}")
        with connect(f"ws://127.0.0.1:{port}/socket?token={TOKEN}") as client:
            steered = False
            with contextlib.suppress(ConnectionClosed):
                while True:
                    message = json.loads(client.recv(timeout=10))
                    told.append((time.monotonic(), message))
                    if not steered and message["type"] == "status" and message["stream_s"] > 5.5:
                        steered = True
                        ask(client, "command", command="double")
                        ask(client, "command", command=f"delay {name} 80")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
    statuses = [message for _, message in told if message["type"] == "status"]
    start = float(np.median([message["at"] - message["stream_s"] for message in statuses]))
    beats = [(came, message) for came, message in told if message["type"] == "beat"]
    early = [(came, m) for came, m in beats if start + 3 < m["at"] < start + 5.5]
    assert len(early) >= 4
    ahead = [message["at"] - came for came, message in early]
    assert np.median(ahead) > 0.04, "told too late to be shown on time"
    at = np.array([message["at"] for _, message in early]) - start - 0.03
    assert np.abs(at[:, None] - truth[None]).min(axis=1).max() < 0.06
    late = [message for _, message in beats if message["at"] > start + 7]
    assert np.median([message["tempo_bpm"] for message in late]) == pytest.approx(240, abs=8)
    assert statuses[-1]["outputs"][0]["name"] == name
    assert [status["outputs"][0]["delay_ms"] for status in (statuses[5], statuses[-1])] == [30, 80]
    assert any(message["frames"] for message in statuses)
    heights = [beat for message in statuses for _, beat, _ in message["frames"]]
    assert len(heights) > 250 and max(heights) > 0.5
