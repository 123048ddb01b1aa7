"""The live page in a real browser: when it flashes, what it shows, and how it steers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beattrack_runtime.live.clock.ticks import ClockState, ClockStateChange
from beattrack_runtime.live.controls import parse
from beattrack_runtime.live.output import Due, OutputHealth
from browser import Tab, browser
from test_web import Server, beat, running, status, until

OUTPUTS = ("web://127.0.0.1:8080", "osc://127.0.0.1:9000", "midi://Drum machine:1")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(chromium: Tab) -> Iterator[Tab]:
    chromium.problems.clear()
    yield chromium
    chromium.call("Emulation.setEmulatedMedia", features=[])
    chromium.call("Page.navigate", url="about:blank")


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as started:
        yield started


class Band:
    """Plays steady beats to a server and keeps when each one falls."""

    def __init__(self, server: Server, ahead: Callable[[], float], bpm: float = 150.0) -> None:
        self.due: dict[int, float] = {}  # beat -> monotonic seconds
        self._server, self._ahead, self._bpm = server, ahead, bpm
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)

    def __enter__(self) -> Band:
        now = time.monotonic()
        self._server.send(Due(ClockStateChange(ClockState.LOCKED, 0.0, self._bpm, 0.9), now))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _play(self) -> None:
        at, told = time.monotonic() + 0.5, 0.0
        number = 0
        while not self._stop.is_set():
            wait = at - self._ahead() - time.monotonic()
            while wait > 0 and not self._stop.is_set():
                now = time.monotonic()
                if now > told + 0.1:
                    told = now
                    self._server.send(scene(now, self._bpm))
                time.sleep(min(wait, 0.02))
                wait -= time.monotonic() - now
            self.due[number] = at
            self._server.send(beat(number, at, self._bpm))
            number += 1
            at += 60 / self._bpm


def scene(
    now: float, bpm: float | None = 120.0, state: ClockState = ClockState.LOCKED, **more: Any
) -> Due:
    outputs = tuple(OutputHealth(name, 0.0, 1200, 3, 0, 1, "open") for name in OUTPUTS)
    frames = tuple((12 - 0.02 * n, random.random(), 0.1) for n in range(5, 0, -1))
    return status(now, tempo_bpm=bpm, state=state, outputs=outputs, frames=frames, **more)


def show(tab: Tab, server: Server, **window: Any) -> None:
    """Open the page and wait until it has found the server's clock."""
    tab.open(server.url, **window)
    tab.wait("beattrack.clock.known && beattrack.clock.samples.length >= 8")
    until(lambda: server.pages == 1)


def skip_where_starved(tab: Tab) -> None:
    """What a browser without a processor cannot draw says nothing of the page."""
    frames_ms = sorted(tab.evaluate("beattrack.lamp.deltas"))
    slow_ms = frames_ms[int(0.8 * len(frames_ms))]
    if slow_ms > 25:
        pytest.skip(f"this machine is too busy: the browser draws a frame in {slow_ms:.0f} ms")


def flashes(tab: Tab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tab.evaluate("beattrack.lamp.flashes")
    return found


# On time


def test_finds_the_clock_of_the_server(tab: Tab, server: Server) -> None:
    show(tab, server)
    for _ in range(5):
        before = time.monotonic()
        there = tab.evaluate("beattrack.clock.toS(performance.now())")
        after = time.monotonic()
        error = tab.evaluate("beattrack.clock.errorMs") / 1000
        assert before - error <= there <= after + error
        assert error < 0.1  # half a round trip; 0.5 ms on an idle machine


def test_flashes_when_beats_fall_due_however_early_they_were_told(tab: Tab, server: Server) -> None:
    """Whether 40 or 350 ms ahead: flashing on arrival would be off by as much."""
    show(tab, server)
    source = random.Random(3)
    ahead: dict[int, float] = {}

    def early() -> float:
        ahead[len(ahead)] = source.uniform(0.04, 0.35)
        return ahead[len(ahead) - 1]

    with Band(server, early, 200) as band:
        time.sleep(3.8)
    skip_where_starved(tab)
    found = [f for f in flashes(tab) if f["beat"] >= 1]
    assert len(found) >= 6
    assert len({f["beat"] for f in found}) == len(found), "a beat was shown twice"
    # The page's own due times are those that the server meant.
    there = {f["beat"]: tab.evaluate(f"beattrack.clock.toS({f['dueMs']})") for f in found}
    error = tab.evaluate("beattrack.clock.errorMs") / 1000
    assert max(abs(there[n] - band.due[n]) for n in there) < 0.002 + 2 * error
    off = np.array([tab.evaluate(f"beattrack.clock.toS({f['shownMs']})") for f in found])
    off -= [band.due[f["beat"]] for f in found]
    assert abs(np.median(off)) <= 0.015 + error
    assert np.percentile(np.abs(off), 75) <= 0.045 + error  # the rest is a busy machine's
    assert not tab.problems


def test_carries_on_through_a_short_silence_of_the_network(tab: Tab, server: Server) -> None:
    show(tab, server)
    with Band(server, lambda: 0.1) as band:
        tab.wait("document.querySelector('#count').textContent === '3'")
        assert server._loop is not None
        server._loop.call_soon_threadsafe(time.sleep, 1.2)  # nothing leaves the server
        time.sleep(1.8)
    skip_where_starved(tab)
    found = flashes(tab)
    assert sum(f["carried"] for f in found) >= 2
    assert len({f["beat"] for f in found}) == len(found), "a beat was shown twice"
    there = [tab.evaluate(f"beattrack.clock.toS({f['shownMs']})") for f in found]
    off = [abs(at - band.due[f["beat"]]) for at, f in zip(there, found, strict=True)]
    assert np.percentile(off, 75) < 0.1
    waiting = tab.evaluate(
        "(() => { beattrack.lamp.waiting = []; beattrack.lamp.carry(performance.now() + 3000, 25);"
        "return beattrack.lamp.waiting.length; })()"
    )
    assert waiting == 0, "it goes on without end"


def test_a_beat_that_comes_too_late_is_not_flashed(tab: Tab, server: Server) -> None:
    show(tab, server)
    server.send(Due(ClockStateChange(ClockState.LOCKED, 0.0, 120.0, 0.9), time.monotonic()))
    server.send(beat(4, time.monotonic() - 0.3))
    server.send(beat(5, time.monotonic() + 0.2))
    tab.wait("document.querySelector('#count').textContent === '2'")
    assert 4 not in [f["beat"] for f in flashes(tab)]


def test_silence_puts_the_lamp_out(tab: Tab, server: Server) -> None:
    show(tab, server)
    now = time.monotonic()
    server.send(Due(ClockStateChange(ClockState.LOCKED, 0.0, 120.0, 0.9), now))
    server.send(beat(6, now + 0.05))
    tab.wait("document.querySelector('#count').textContent === '3'")
    now = time.monotonic()
    server.send(Due(ClockStateChange(ClockState.SILENT, 1.0, 120.0, 0.0), now + 0.1))
    server.send(beat(7, now + 5))  # taken back by the change of state
    tab.wait("document.querySelector('#state').textContent === 'silent'")
    assert tab.evaluate("document.querySelector('#count').textContent") == "–"
    assert tab.evaluate("document.querySelectorAll('#dots .on').length") == 0
    tab.wait("document.querySelector('#glow-beat').style.opacity === '0'")


def test_a_delayed_page_lags_with_its_state_as_well(tab: Tab, server: Server) -> None:
    """With a delay of a second, beats are still to come when the music has already stopped."""
    show(tab, server)
    now = time.monotonic()
    server.send(Due(ClockStateChange(ClockState.LOCKED, 0.0, 120.0, 0.9), now))
    server.send(beat(6, now + 0.7))
    server.send(Due(ClockStateChange(ClockState.SILENT, 1.0, 120.0, 0.0), now + 1.6))
    tab.wait("document.querySelector('#state').textContent === 'locked'")
    server.send(scene(now + 0.1, 99.5, ClockState.SILENT))
    tab.wait("document.querySelector('#bpm').textContent === '99.5'")
    assert tab.evaluate("document.querySelector('#state').textContent") == "locked"
    tab.wait("document.querySelector('#count').textContent === '3'")
    tab.wait("document.querySelector('#state').textContent === 'silent'")


def test_those_who_want_no_motion_get_no_flashes(tab: Tab, server: Server) -> None:
    tab.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
    )
    show(tab, server)
    tab.evaluate(
        "window.brightest = 0; (function look() { requestAnimationFrame(look);"
        "for (const id of ['glow-beat', 'glow-one']) window.brightest = Math.max(brightest,"
        "Number(document.getElementById(id).style.opacity)); })()"
    )
    with Band(server, lambda: 0.1):
        tab.wait("document.querySelectorAll('#dots .on').length === 1")
        tab.wait("document.querySelector('#count').textContent === '2'")
    assert tab.evaluate("brightest") == 0
    assert tab.evaluate("document.querySelectorAll('#dots .on').length") == 1


# Steering


def test_keys_steer(tab: Tab, server: Server) -> None:
    show(tab, server)
    pressed = time.monotonic()
    tab.key(" ", "Space", 32, " ")
    until(lambda: len(server.commands) == 1)
    assert pressed - 0.2 <= server.commands[0][1] <= time.monotonic()
    for key, code, number in [
        ("1", "Digit1", 49), ("ArrowUp", "", 38), ("ArrowLeft", "", 37), ("x", "KeyX", 88),
        ("d", "KeyD", 68), ("H", "KeyH", 72), ("r", "KeyR", 82), ("3", "Digit3", 51),
    ]:  # fmt: skip
        tab.key(key, code, number)
    until(lambda: len(server.commands) == 8)
    kinds = [command.kind for command, _ in server.commands]
    assert kinds == ["tap", "one", "double", "halve", "double", "halve", "restart", "meter"]
    tab.key("n", "KeyN", 78)
    assert tab.evaluate("document.documentElement.dataset.theme") == "night"
    tab.key("n", "KeyN", 78)


def test_buttons_and_fields_steer(tab: Tab, server: Server) -> None:
    show(tab, server)
    server.send(scene(time.monotonic()))
    tab.wait("document.querySelectorAll('#outputs tr').length === 3")
    for selector in ("[data-command=tap]", "[data-command=double]", "[data-command=one]"):
        tab.click(selector)
    tab.key(" ", "Space", 32, " ")  # a button that was clicked does not take the space bar
    until(lambda: len(server.commands) == 4)
    assert [c.kind for c, _ in server.commands] == ["tap", "double", "one", "tap"]

    tab.evaluate("document.querySelectorAll('#outputs input')[2].select()")
    for character in "-5":
        tab.key(character, "", ord(character), character)
    tab.key("1", "", 49, "1")  # in a field a figure is a figure
    server.send(scene(time.monotonic()))  # and what the server says does not overwrite it
    time.sleep(0.1)
    tab.key("Enter", "", 13, "\r")
    until(lambda: len(server.commands) == 5)
    command = server.commands[4][0]
    assert (command.kind, command.output, command.numbers) == (
        "delay", "midi://Drum machine:1", (-51.0,),
    )  # fmt: skip


def test_meter_and_tempo_range(tab: Tab, server: Server) -> None:
    show(tab, server)
    tab.evaluate(
        "(() => { const m = document.querySelector('#meter'); m.value = '3';"
        "m.dispatchEvent(new Event('change')); })()"
    )
    tab.evaluate(
        "document.querySelector('#low').value = 80; document.querySelector('#high').value = 160"
    )
    tab.click("#range-form button")
    until(lambda: len(server.commands) == 2)
    assert [c.numbers for c, _ in server.commands] == [(3.0,), (80.0, 160.0)]
    tab.evaluate("document.querySelector('#high').value = 81")
    tab.click("#range-form button")
    tab.wait("document.querySelector('#answer').textContent.includes('too narrow')")


def choices(tab: Tab) -> dict[str, Any]:
    found: dict[str, Any] = tab.evaluate(
        "(() => { const e = (id) => document.getElementById(id); return {"
        "factor: e('factor').hidden ? '' : e('factor').textContent, meter: e('meter').value,"
        "low: e('low').value, high: e('high').value, dim: e('low').placeholder,"
        "kept: e('keep').ariaPressed }; })()"
    )
    return found


def test_shows_what_was_chosen_elsewhere(tab: Tab, server: Server) -> None:
    show(tab, server)
    nothing = {"factor": "", "meter": "0", "low": "", "high": "", "dim": "55", "kept": "false"}
    server.send(status(time.monotonic(), tempo_range=(55.0, 215.0)))
    tab.wait("document.querySelector('#low').placeholder === '55'")
    assert choices(tab) == nothing
    server.send(beat(1, time.monotonic() + 0.1))
    tab.wait("document.querySelector('#meter').options[0].text === '4, heard'")
    chosen: dict[str, Any] = {"tempo_range": (61.5, 123.4), "range_chosen": True}
    server.send(status(time.monotonic(), factor=0.5, meter=3, **chosen))
    tab.wait("document.querySelector('#factor').textContent === '/2'")
    expected = {"factor": "/2", "meter": "3", "low": "62", "high": "123", "dim": "62"}
    assert choices(tab) == {**expected, "kept": "true"}
    # What is being typed stays, until somebody has set another range.
    tab.evaluate("document.querySelector('#low').select()")
    for character in "80":
        tab.key(character, "", ord(character), character)
    tab.evaluate("document.querySelector('#high').blur()")
    server.send(status(time.monotonic(), factor=2.0, **chosen))
    tab.wait("document.querySelector('#factor').textContent === '×2'")
    assert choices(tab)["low"] == "80"
    tab.evaluate("document.activeElement.blur()")
    server.send(status(time.monotonic(), tempo_range=(55.0, 215.0)))
    tab.wait("document.querySelector('#factor').hidden")
    assert choices(tab) == nothing


def test_keep_and_nudge_by_button_and_key(tab: Tab, server: Server) -> None:
    show(tab, server)
    server.send(status(time.monotonic(), tempo_range=(55.0, 215.0)))
    tab.click("#keep")
    until(lambda: len(server.commands) == 1)
    server.send(status(time.monotonic(), tempo_bpm=None))
    tab.wait("document.querySelector('#keep').disabled")
    server.send(
        status(time.monotonic(), tempo_bpm=None, tempo_range=(85.0, 170.0), range_chosen=True)
    )
    tab.wait("document.querySelector('#keep').ariaPressed === 'true'")
    assert not tab.evaluate("document.querySelector('#keep').disabled")
    tab.click("#keep")
    tab.click("[data-command='nudge -5']")
    tab.click("[data-command='nudge 5']")
    for key in "ka,.":
        tab.key(key, "", ord(key.upper()), key)
    until(lambda: len(server.commands) == 8)
    keep, auto, earlier, later = (
        parse(text) for text in ("tempo keep", "tempo auto", "nudge -5", "nudge 5")
    )
    found = [command for command, _ in server.commands]
    assert found == [keep, auto, earlier, later, keep, auto, earlier, later]
    assert not tab.problems


def test_what_others_name_is_text(tab: Tab, server: Server) -> None:
    show(tab, server)
    name = "<img src=x onerror=beattrack.hurt=1>"
    output = OutputHealth(name, 0.0, 0, 0, 0, 0, "<b>open</b>")
    server.send(status(time.monotonic(), outputs=(output,), source=name, health=name))
    tab.wait("document.querySelectorAll('#outputs th').length === 1")
    assert tab.evaluate("document.querySelector('#outputs th').textContent") == name
    assert tab.evaluate("document.images.length") == 0
    assert not tab.problems


# The connection


def test_says_that_the_connection_is_lost_and_finds_it_again(tab: Tab) -> None:
    with running("127.0.0.1", "a-token-of-tests") as server:
        show(tab, server)
        assert tab.evaluate("document.querySelector('#banner').hidden")
        server.send(scene(time.monotonic(), tempo_range=(80.0, 160.0), range_chosen=True))
        tab.wait("document.querySelectorAll('#outputs tr').length === 3")
        server.close()
        tab.wait("!document.querySelector('#banner').hidden")
        assert "lost" in tab.evaluate("document.querySelector('#banner').textContent")
        # Nothing of it looks as if it were so now.
        tab.wait("document.querySelector('#bpm').textContent === '–'")
        assert tab.evaluate("document.querySelector('#confidence').ariaValueNow") == "0"
        assert tab.evaluate("document.querySelector('#decibels').textContent") == "–"
        assert tab.evaluate("document.querySelectorAll('#outputs tr').length") == 0
        assert choices(tab)["kept"] == "false" and choices(tab)["dim"] == ""
        server.open()
        tab.wait("document.querySelector('#link').textContent === 'connected'")
        with Band(server, lambda: 0.1):
            tab.wait("document.querySelectorAll('#dots .on').length === 1")
        assert tab.evaluate("document.querySelector('#banner').hidden")


@pytest.fixture
def tls_proxy(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Return what starts a TLS proxy before a port and returns its own port."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=lights.localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, ssl.SSLError):
            writer.close()

    async def serve(port: int) -> int:
        async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

        proxy = await asyncio.start_server(both, "127.0.0.1", 0, ssl=context)
        found: int = proxy.sockets[0].getsockname()[1]
        return found

    yield lambda port: asyncio.run_coroutine_threadsafe(serve(port), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def test_behind_a_tls_proxy_it_connects_and_steers(
    tab: Tab, tls_proxy: Callable[[int], int]
) -> None:
    with running("127.0.0.1", "a-token-of-tests") as server:
        tab.call("Security.setIgnoreCertificateErrors", ignore=True)
        try:
            port = tls_proxy(server.port)
            tab.open(f"https://lights.localhost:{port}/?token=a-token-of-tests")
            tab.wait("document.querySelector('#link').textContent === 'connected'")
            assert tab.evaluate("socket.url").startswith("wss://lights.localhost")
            tab.key("d", "KeyD", 68)
            until(lambda: [c.kind for c, _ in server.commands] == ["double"])
            assert not tab.problems
        finally:
            tab.call("Security.setIgnoreCertificateErrors", ignore=False)


# How it looks


@pytest.mark.parametrize(
    ("width", "height"), [(320, 640), (375, 667), (390, 844), (768, 1024), (1280, 800)]
)
def test_fits_the_window(tab: Tab, server: Server, width: int, height: int) -> None:
    show(tab, server, width=width, height=height, touch=width < 760)
    server.send(scene(time.monotonic(), 199.9, factor=0.25, range_chosen=True,
                      tempo_range=(141.4, 282.8)))  # fmt: skip
    tab.wait("document.querySelectorAll('#outputs tr').length === 3")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wide = tab.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > "
        "e.closest('section').getBoundingClientRect().right + 1).map(e => e.outerHTML)"
    )
    assert wide == []
    tab.evaluate("document.querySelector('#meter').value = '0'")  # the longest text
    boxes = tab.evaluate(
        "[...document.querySelectorAll('.steer button, .steer select, .steer input, label')].map("
        "e => { const b = e.getBoundingClientRect();"
        "return [b.left, b.top, b.right, b.bottom, e.outerHTML]; })"
    )
    for one, two in itertools.combinations(boxes, 2):
        apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
        assert apart, f"{one[4]} lies over {two[4]}"
    if width < 760:  # where no head of the table says what the number is
        before = "getComputedStyle(document.querySelector('td.delay'), '::before').content"
        assert "delay" in tab.evaluate(before)
    small = tab.evaluate(
        "[...document.querySelectorAll('button, select, input')].filter(e => "
        "e.getBoundingClientRect().height < 40).map(e => e.outerHTML)"
    )
    assert small == [], "too small for a finger"
    if width < 760:  # beat, tempo and tap without scrolling
        assert (
            tab.evaluate("document.querySelector('.tap').getBoundingClientRect().bottom") < height
        )


@pytest.mark.parametrize("theme", ["dark", "night"])
def test_can_be_read(tab: Tab, server: Server, theme: str) -> None:
    """Contrast after WCAG 2, computed from the colours that the browser uses."""
    show(tab, server)
    server.send(scene(time.monotonic()))
    tab.wait("document.querySelectorAll('#outputs tr').length === 3")
    tab.evaluate(f"setNight({'true' if theme == 'night' else 'false'})")
    pairs = tab.evaluate(
        "[...document.querySelectorAll('p, span, label, th, td, button, kbd, select')]"
        ".filter(e => e.textContent.trim() && e.id !== 'count').map(e => {"
        "let g = e; while (getComputedStyle(g).backgroundColor === 'rgba(0, 0, 0, 0)')"
        "g = g.parentElement;"
        "return [getComputedStyle(e).color, getComputedStyle(g).backgroundColor, e.outerHTML]})"
    )
    tab.evaluate("setNight(false)")
    for ink, ground, html in pairs:
        assert contrast(ink, ground) >= (4.5 if theme == "dark" else 3.5), html
    if theme == "night":  # red alone: no blue or green light to speak of
        assert all(rgb(ink)[1] <= 0.6 * rgb(ink)[0] for ink, _, _ in pairs)


def test_every_control_has_a_name(tab: Tab, server: Server) -> None:
    show(tab, server)
    server.send(scene(time.monotonic()))
    tab.wait("document.querySelectorAll('#outputs tr').length === 3")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    names: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            role = node["role"].get("value", "")
            names.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    assert len(names["button"]) >= 6 and len(names["spinbutton"]) == 5
    for role in ("button", "spinbutton", "combobox", "image", "meter"):
        assert all(names[role]), role
    assert f"Delay of {OUTPUTS[1]} in milliseconds, negative is early" in names["spinbutton"]


def rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return red, green, blue


def contrast(first: str, second: str) -> float:
    def light(colour: str) -> float:
        parts = [c / 255 for c in rgb(colour)]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return math.fsum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    high, low = sorted((light(first), light(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_lit_lamp_in_a_picture(tab: Tab, server: Server, tmp_path: Path) -> None:
    """The pixels themselves: the middle of the lamp is dark, then has the colour of a flash."""
    show(tab, server, width=390, height=844, touch=True)
    assert lamp_colour(tab, tmp_path)[2] < 60
    # Held in the moment of a flash: a picture takes longer than the light.
    tab.evaluate("beattrack.lamp.brightness = () => 1; beattrack.lamp.carry = () => {}; 0")
    server.send(Due(ClockStateChange(ClockState.LOCKED, 0.0, 120.0, 0.9), time.monotonic()))
    server.send(beat(1, time.monotonic() + 0.1))
    tab.wait("Number(document.querySelector('#glow-beat').style.opacity) === 1")
    until(lambda: lamp_colour(tab, tmp_path)[2] > 200)  # blue
    assert lamp_colour(tab, tmp_path)[0] < 120
    server.send(beat(4, time.monotonic() + 0.1))
    tab.wait("Number(document.querySelector('#glow-one').style.opacity) === 1")
    until(lambda: lamp_colour(tab, tmp_path)[2] < 60)
    assert lamp_colour(tab, tmp_path)[0] > 200, "the one looks like other beats"


def lamp_colour(tab: Tab, folder: Path) -> tuple[int, int, int]:
    """Return a pixel of the lamp, beside its figure."""
    x, y = tab.evaluate(
        "(() => { const r = document.querySelector('#lamp').getBoundingClientRect();"
        "return [r.x + r.width / 2, r.y + r.height * 0.12]; })()"
    )
    tab.picture(folder / "lamp.png", whole=False)
    with Image.open(folder / "lamp.png") as picture:
        red, green, blue = picture.convert("RGB").getpixel((x, y))
    return red, green, blue
