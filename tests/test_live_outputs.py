"""Every live output, heard by its protocol's own library in another process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pythonosc.osc_message import OscMessage
from zeroconf import ServiceInfo, Zeroconf

from beattrack_runtime.errors import OutputError
from beattrack_runtime.live.clock.loop import BeatClock
from beattrack_runtime.live.clock.ticks import TICKS, ClockState, ClockStateChange, Tick
from beattrack_runtime.live.delivery import Delivery
from beattrack_runtime.live.hosts import find_host
from beattrack_runtime.live.osc_control import OscControl
from beattrack_runtime.live.output import Due, Output
from beattrack_runtime.live.outputs import make_output, os2l_search
from beattrack_runtime.live.outputs.link import LinkOutput
from beattrack_runtime.live.outputs.midi import LAST_BEAT, MidiOutput
from beattrack_runtime.live.outputs.os2l import Os2lOutput
from beattrack_runtime.live.outputs.serial import frame
from beattrack_runtime.live.pcm import PcmFormat
from beattrack_runtime.live.spec import parse_output
from beattrack_runtime.live.tcp import TcpSource
from live_receivers import Receiver, free_port, jack_server
from test_live_clock import beats
from test_web import status

# The performance: 150 bpm from the third of a bar on, silence, 180 bpm from a first on.
FIRST_S, SECOND_S, END_S = 0.4, 3.6, 5.2
LATE_S = 0.08  # a busy machine may keep a thread from its moment so long


def perform() -> list[Tick | ClockStateChange]:
    clock = BeatClock(0.25)
    for event in beats(150, FIRST_S, 2.3, first=3):
        clock.event(event)
    clock.silence(2.5, True)
    clock.silence(3.0, False)
    for event in beats(180, SECOND_S, END_S):
        clock.event(event)
    given = clock.advance(END_S - 0.25)
    clock.restart(END_S - 0.25)
    return given + clock.advance(END_S)


class Stage:
    """What was played when, and what each receiver made of it."""

    def __init__(self, folder: Path) -> None:
        self.given = perform()
        self.fifo = folder / "midi"
        ports = {"osc": free_port(socket.SOCK_DGRAM), "os2l": free_port()}
        self.receivers = {
            "osc": Receiver("osc", ports["osc"]),
            "midi": Receiver("midi", self.fifo),
            "serial": Receiver("serial"),
            "os2l": Receiver("os2l", ports["os2l"]),
        }
        specs = [
            f"osc://127.0.0.1:{ports['osc']}", f"midi://{self.fifo}", f"os2l://127.0.0.1:"
            f"{ports['os2l']}", f"serial://{self.receivers['serial'].ready}",
        ]  # fmt: skip
        try:
            import aalink  # noqa: F401

            self.receivers["link"] = Receiver("link")
            specs.append("link://")
        except ImportError:
            pass
        self.deliveries = [
            Delivery(make_output(parse_output(text), lambda command, at: None)) for text in specs
        ]
        for delivery in self.deliveries:
            delivery.start()
        if "link" in self.receivers:  # peers take some seconds to find each other
            end = time.monotonic() + 10
            while not any(line.get("peers") for line in self.receivers["link"].lines):
                if time.monotonic() > end:
                    break
                time.sleep(0.1)
        self.began = time.monotonic() + 0.3
        for what in self.given:
            for delivery in self.deliveries:
                delivery.put(what, self.began + what.time_s)
        time.sleep(END_S + 0.7)
        for delivery in self.deliveries:
            delivery.stop()
        for delivery in self.deliveries:
            delivery.join()
        time.sleep(0.2)
        for receiver in self.receivers.values():
            receiver.close()

    @property
    def ticks(self) -> list[Tick]:
        return [g for g in self.given if isinstance(g, Tick)]

    @property
    def beats(self) -> list[Tick]:
        return [t for t in self.ticks if t.tick == 0]

    def check_times(self, lines: list[dict[str, Any]], ticks: list[Tick]) -> None:
        """Every one came, at its moment."""
        assert len(lines) == len(ticks)
        late = np.array([line["at"] for line in lines]) - self.began
        late -= np.array([t.time_s for t in ticks])
        assert late.min() > -0.002
        assert np.median(late) < LATE_S / 2
        assert np.percentile(late, 90) < LATE_S


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beattrack_runtime.live.delivery.STALE_S", 1.0)
        yield Stage(tmp_path_factory.mktemp("stage"))


def test_nothing_was_lost_on_our_side(stage: Stage) -> None:
    for delivery in stage.deliveries:
        health = delivery.health()
        assert (health.dropped, health.reconnects, health.state) == (0, 0, "closed"), health
        wanted = stage.beats if delivery._output.beats_only else stage.ticks
        changes = [g for g in stage.given if isinstance(g, ClockStateChange)]
        assert health.sent == len(wanted) + len(changes), health.name


def test_osc(stage: Stage) -> None:
    lines = stage.receivers["osc"].lines
    told = [line for line in lines if line["address"] == "/beattrack/beat"]
    stage.check_times(told, stage.beats)
    for line, tick in zip(told, stage.beats, strict=True):
        position, meter, tempo, confidence = line["values"]
        assert (position, meter) == (tick.position, tick.beats_per_bar)
        assert type(position) is int and type(meter) is int
        assert tempo == pytest.approx(tick.tempo_bpm) and confidence == pytest.approx(0.9)
    said = [line["values"] for line in lines if line["address"] == "/beattrack/state"]
    assert said == [["locked"], ["silent"], ["searching"], ["locked"], ["searching"]]
    tempi = [line["values"][0] for line in lines if line["address"] == "/beattrack/tempo"]
    assert tempi == pytest.approx([150, 180])


def test_midi_clock_start_continue_stop_and_position(stage: Stage) -> None:
    lines = stage.receivers["midi"].with_key("message")
    clocks = [line for line in lines if line["message"] == "clock"]
    stage.check_times(clocks, stage.ticks)
    transport = [
        (line["message"], line.get("pos"))
        for line in lines
        if line["message"] in ("start", "continue", "stop", "songpos")
    ]
    first = [t for t in stage.beats if t.time_s < 3]
    # It begins two beats into a bar; after the pause it goes on at the next bar's first.
    resumed = -(-(2 + len(first)) // 4) * 4
    assert transport == [
        ("songpos", 8), ("continue", None), ("stop", None),
        ("songpos", 4 * resumed), ("continue", None), ("stop", None),
    ]  # fmt: skip
    # Between continue and stop, the receiver's own count of clocks is our place in the bar.
    count, counting, places = 0, False, []
    for line in lines:
        if line["message"] == "songpos":
            count = line["pos"] * 6
        elif line["message"] in ("continue", "stop"):
            counting = line["message"] == "continue"
        elif line["message"] == "clock" and counting:
            if count % TICKS == 0:
                places.append(count // TICKS % 4 + 1)
            count += 1
    assert places == [t.position for t in stage.beats]


def test_midi_notes(stage: Stage) -> None:
    lines = stage.receivers["midi"].with_key("message")
    on = [line for line in lines if line["message"] == "note_on"]
    stage.check_times(on, stage.beats)
    assert [line["note"] for line in on] == [76 if t.position == 1 else 77 for t in stage.beats]
    assert {line["channel"] for line in on} == {9}
    off = [line for line in lines if line["message"] == "note_off"]
    assert [line["note"] for line in off] == [line["note"] for line in on]


def test_serial_packets(stage: Stage) -> None:
    lines = stage.receivers["serial"].lines
    assert not [line for line in lines if "broken" in line]
    told = [line for line in lines if "beat" in line]
    stage.check_times(told, stage.beats)
    assert [line["sequence"] for line in lines] == list(range(len(lines)))
    for line, tick in zip(told, stage.beats, strict=True):
        assert (line["beat"], line["position"], line["meter"]) == (tick.beat, tick.position, 4)
        assert line["tempo"] == pytest.approx(tick.tempo_bpm, abs=0.01)
        assert line["confidence"] == pytest.approx(0.9, abs=0.003)
        assert line["jump"] == tick.jump
    assert [line["state"] for line in lines if "state" in line] == [1, 3, 0, 1, 0]


def test_os2l(stage: Stage) -> None:
    lines = stage.receivers["os2l"].lines
    stage.check_times(lines, stage.beats)
    for line, tick in zip(lines, stage.beats, strict=True):
        assert line["evt"] == "beat"
        assert line["pos"] % tick.beats_per_bar == tick.position - 1
        assert line["bpm"] == pytest.approx(tick.tempo_bpm, abs=0.01)
        assert line["strength"] == 90
    assert [line["change"] for line in lines] == [t.jump for t in stage.beats]
    positions = [line["pos"] for line in lines]
    assert positions == sorted(set(positions))


def test_link(stage: Stage) -> None:
    if "link" not in stage.receivers:
        pytest.skip("aalink is not installed")
    lines = stage.receivers["link"].with_key("tempo")
    if any(line["peers"] > 1 for line in lines):
        pytest.skip("another Link session on this network leads as well")
    if not any(line["peers"] for line in lines):
        pytest.skip("Link peers cannot see each other on this machine's network")
    for begin, end, tempo in ((FIRST_S, 2.4, 150), (SECOND_S, END_S - 0.3, 180)):
        within = [li for li in lines if begin + 0.75 < li["at"] - stage.began < end]
        assert within
        for line in within:
            assert line["tempo"] == pytest.approx(tempo, rel=0.06)
            assert line["playing"]
            at = line["at"] - stage.began
            # The peer woke on the beat: its phase then is next to nothing over a whole beat.
            on_beat = at - (line["phase"] % 1) * 60 / tempo
            tick = min(stage.beats, key=lambda t: abs(t.time_s - on_beat))
            assert abs(tick.time_s - on_beat) < LATE_S
            assert int(line["phase"]) == tick.position - 1
    assert not lines[-1]["playing"]


# One by one


def due(what: Tick | ClockStateChange) -> Due:
    return Due(what, time.monotonic())


def tick(number: int, position: int = 1, jump: bool = False) -> Tick:
    beat, part = divmod(number, TICKS)
    return Tick(0.0, beat, part, position, 4, 120.0, 0.9, jump)


class Recorder:
    """A MIDI port that remembers."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass

    def kinds(self) -> list[str]:
        return [m.type for m in self.messages if m.type != "clock"]


@pytest.fixture
def midi(monkeypatch: pytest.MonkeyPatch) -> tuple[MidiOutput, Recorder]:
    port = Recorder()
    monkeypatch.setattr("beattrack_runtime.live.outputs.midi.open_port", lambda place: port)
    output = MidiOutput(parse_output("midi://?notes=no"))
    output.open()
    return output, port


def test_midi_starts_at_a_first_beat(midi: tuple[MidiOutput, Recorder]) -> None:
    output, port = midi
    output.send(due(tick(0, jump=True)))
    assert port.kinds() == ["start"]


def test_midi_waits_for_a_beat_when_ticks_are_missing(midi: tuple[MidiOutput, Recorder]) -> None:
    output, port = midi
    for number in (*range(0, 10), *range(15, 30)):
        output.send(due(tick(number, 1 + number // TICKS, jump=number == 0)))
    assert port.kinds() == ["start", "stop", "songpos", "continue"]
    assert port.messages[-8].pos == 4  # the second beat, in sixteenths
    clocks = sum(m.type == "clock" for m in port.messages)
    assert clocks == 10 + 6


def test_midi_tells_a_new_one_without_losing_a_clock(midi: tuple[MidiOutput, Recorder]) -> None:
    output, port = midi
    for number in range(2 * TICKS):
        # After the first beat the user says that the second is a one.
        output.send(due(tick(number, 1, jump=number == 0)))
    assert port.kinds() == ["start", "stop", "songpos", "continue"]
    (position,) = [m.pos for m in port.messages if m.type == "songpos"]
    assert position == 16
    assert sum(m.type == "clock" for m in port.messages) == 2 * TICKS


def test_midi_counts_on_beyond_the_longest_song_position(
    midi: tuple[MidiOutput, Recorder],
) -> None:
    output, port = midi
    output._song_beat = LAST_BEAT - 9
    for number in range(20 * TICKS):
        output.send(due(tick(number, number // TICKS % 4 + 1, jump=number == 0)))
    assert port.kinds() == ["songpos", "continue"]
    assert sum(m.type == "clock" for m in port.messages) == 20 * TICKS


def send_on(output: Output, count: int, wait_s: float = 0.0) -> None:
    for number in range(count):
        output.send(due(tick(number * TICKS)))
        time.sleep(wait_s)


def test_cobs_of_every_awkward_payload() -> None:
    from cobs import cobs

    generator = np.random.default_rng(1)
    for size in range(1, 60):
        for payload in (bytes(size), generator.integers(0, 3, size, np.uint8).tobytes(),
                        generator.integers(0, 256, size, np.uint8).tobytes()):  # fmt: skip
            packet = frame(payload)
            assert packet[-1] == 0 and 0 not in packet[:-1]
            assert cobs.decode(packet[:-1])[:-2] == payload


def test_os2l_notices_that_the_receiver_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        output = Os2lOutput(parse_output(f"os2l://127.0.0.1:{server.getsockname()[1]}"))
        output.open()
        client, _ = server.accept()
        client.close()
    time.sleep(0.05)
    with pytest.raises(ConnectionError, match="closed the connection"):
        output.send(due(ClockStateChange(ClockState.LOCKED, 0, 0, 0)))
    output.close()


def test_os2l_gives_up_on_a_receiver_that_never_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        output = Os2lOutput(parse_output(f"os2l://127.0.0.1:{server.getsockname()[1]}"))
        output.open()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            send_on(output, 200_000)
        assert time.monotonic() - began < 20
        output.close()


def check_os2l(output: Os2lOutput, server: socket.socket) -> None:
    """Open it, and see that its beats come to ``server``."""
    output.open()
    client, _ = server.accept()
    send_on(output, 1)
    assert json.loads(client.recv(4096))["evt"] == "beat"
    client.close()
    output.close()


def test_os2l_finds_the_software_that_announces_itself(caplog: pytest.LogCaptureFixture) -> None:
    output = Os2lOutput(parse_output("os2l://auto"))
    with socket.create_server(("127.0.0.1", 0)) as server, Zeroconf() as network:
        service = ServiceInfo(
            os2l_search.SERVICE, f"A desk \u202e.{os2l_search.SERVICE}",
            port=server.getsockname()[1], addresses=[socket.inet_aton("127.0.0.1")],
        )  # fmt: skip
        network.register_service(service)
        caplog.set_level("DEBUG", "beattrack")
        check_os2l(output, server)
        assert "A desk" in caplog.text and "\u202e" not in caplog.text
        server.close()
        with pytest.raises(ConnectionRefusedError):  # it still says that it is there
            output.open()
    assert not [t for t in threading.enumerate() if "zeroconf" in t.name.lower()]


def test_os2l_tries_every_address_that_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    """Of two programs one is not running any more; of the other one address leads nowhere."""
    output = Os2lOutput(parse_output("os2l://auto"))
    caplog.set_level("DEBUG", "beattrack")
    with socket.create_server(("127.0.0.1", 0)) as server, Zeroconf() as network:
        good = server.getsockname()[1]
        announced = [("A", free_port(), ["127.0.0.1"]), ("B", good, ["127.9.9.9", "127.0.0.1"])]
        for name, port, hosts in announced:
            addresses = [socket.inet_aton(host) for host in hosts]
            full = f"{name}.{os2l_search.SERVICE}"
            network.register_service(
                ServiceInfo(os2l_search.SERVICE, full, port=port, addresses=addresses)
            )
        check_os2l(output, server)
    for name, port, hosts in announced:
        for host in hosts:
            assert f"{name}.{os2l_search.SERVICE}' is at {host}:{port}." in caplog.text


def test_os2l_says_that_nobody_announces_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os2l_search, "SEARCH_S", 0.3)
    with pytest.raises(OutputError, match="no lighting software announces itself"):
        Os2lOutput(parse_output("os2l://auto")).open()
    assert parse_output("os2l://auto:9000").host == "auto"  # a host of that name


def test_osc_notices_that_nobody_listens() -> None:
    port = free_port(socket.SOCK_DGRAM)
    output = make_output(parse_output(f"osc://127.0.0.1:{port}"), lambda command, at: None)
    output.open()
    with pytest.raises(ConnectionRefusedError):
        send_on(output, 20, 0.01)
    output.close()


def osc_to(host: str, port: int) -> Output:
    return make_output(parse_output(f"osc://{host}:{port}"), lambda command, at: None)


def osc_receiver(port: int = 0, host: str = "127.0.0.1") -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((host, port))
    receiver.settimeout(2)
    return receiver


def osc_heard(receiver: socket.socket, count: int) -> list[tuple[str, Any]]:
    """Return the addresses and first values of so many messages, and that no more came."""
    heard = [OscMessage(receiver.recv(1000)) for _ in range(count)]
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(1000)
    return [(message.address.rpartition("/")[2], message.params[0]) for message in heard]


LOCKED = ClockStateChange(ClockState.LOCKED, 0.0, 120.0, 0.9)


def test_osc_tells_a_receiver_restarted_between_two_beats_the_state() -> None:
    with osc_receiver() as receiver:
        port = receiver.getsockname()[1]
        output = osc_to("127.0.0.1", port)
        output.open()
        output.send(due(LOCKED))
        send_on(output, 1)
        assert osc_heard(receiver, 3) == [("state", "locked"), ("beat", 1), ("tempo", 120.0)]
    output.send(due(tick(TICKS)))  # to nobody; the system says so at the next one
    with osc_receiver(port) as receiver:
        send_on(output, 1)
        assert osc_heard(receiver, 3) == [("state", "locked"), ("beat", 1), ("tempo", 120.0)]
    output.send(due(tick(TICKS)))
    with osc_receiver(port) as receiver:
        output.send(due(LOCKED))
        assert osc_heard(receiver, 1) == [("state", "locked")]
    with pytest.raises(ConnectionRefusedError):
        send_on(output, 2)
    output.close()


def test_osc_repeats_the_state_for_a_receiver_that_comes_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("beattrack_runtime.live.outputs.osc.REPEAT_S", 0.2)
    with osc_receiver() as receiver:
        output = osc_to("127.0.0.1", receiver.getsockname()[1])
        output.open()
        now = status(time.monotonic())
        output.send(now)  # before any state
        output.send(due(LOCKED))
        for _ in range(2):
            for _ in range(3):
                output.send(now)
            assert osc_heard(receiver, 1) == [("state", "locked")]
            receiver.settimeout(2)
            time.sleep(0.25)
        output.close()


def test_serial_repeats_the_state_for_a_board_that_restarted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("beattrack_runtime.live.outputs.serial.REPEAT_S", 0.2)
    receiver = Receiver("serial")
    output = make_output(parse_output(f"serial://{receiver.ready}"), lambda command, at: None)
    output.open()
    now = status(time.monotonic())
    output.send(now)  # before any state
    output.send(due(LOCKED))
    output.send(now)
    time.sleep(0.25)
    output.send(now)
    output.send(now)
    time.sleep(0.3)
    output.close()
    receiver.close()
    assert [(line["sequence"], line["state"]) for line in receiver.lines] == [(0, 1), (1, 1)]


def test_osc_to_a_broadcast_address() -> None:
    with osc_receiver(host="") as receiver:
        output = osc_to("127.255.255.255", receiver.getsockname()[1])
        output.open()
        output.send(due(LOCKED))
        assert osc_heard(receiver, 1) == [("state", "locked")]
        output.close()


def test_of_a_name_the_ipv4_address_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems where localhost is ::1 first."""

    def answers(host: str, port: int, *_: object, type: int = 0, **__: object) -> list[Any]:
        assert host == "localhost"
        four = (socket.AF_INET, type, 0, "", ("127.0.0.1", port))
        return [(socket.AF_INET6, type, 0, "", ("::1", port, 0, 0)), four]

    with osc_receiver() as receiver:
        output = osc_to("localhost", receiver.getsockname()[1])
        monkeypatch.setattr(socket, "getaddrinfo", answers)
        output.open()
        output.send(due(LOCKED))
        assert osc_heard(receiver, 1) == [("state", "locked")]
        output.close()
    control = OscControl(("localhost", 0), lambda command: None)
    control.start()
    assert control._socket is not None and control._socket.getsockname()[0] == "127.0.0.1"
    control.stop()
    source = TcpSource("tcp://localhost:0", PcmFormat(44100, 1, "s16le"))
    assert source.name.startswith("tcp://127.0.0.1:")
    source.close()


def test_a_host_that_no_name_can_be_is_an_oserror() -> None:
    with pytest.raises(OSError, match="not known"):
        find_host(f"{'a' * 70}.example", 9, socket.SOCK_DGRAM)
    assert find_host("::1", 9, socket.SOCK_DGRAM)[0] is socket.AF_INET6


def test_a_midi_pipe_without_a_reader_and_a_missing_port_are_sentences(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    output = make_output(parse_output(f"midi://{tmp_path / 'pipe'}"), lambda command, at: None)
    with pytest.raises(OSError, match="nobody reads"):
        output.open()
    output = make_output(parse_output("midi://no such port"), lambda command, at: None)
    with pytest.raises(OutputError, match="no MIDI"):
        output.open()


def test_link_without_its_binding_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aalink", None)
    with pytest.raises(OutputError, match="pip install aalink"):
        make_output(parse_output("link://"), lambda command, at: None)


def test_outputs_that_are_not_asked_for_import_nothing() -> None:
    import subprocess
    import sys

    code = (
        "import sys, beattrack_runtime.live.show, beattrack_runtime.live.outputs\n"
        "print([m for m in ('pythonosc', 'mido', 'rtmidi', 'serial', 'aalink', 'websockets', "
        "'sounddevice', 'zeroconf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_end_with_their_outputs(stage: Stage) -> None:
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {delivery.name for delivery in stage.deliveries}


@contextlib.contextmanager
def jack() -> Iterator[None]:
    """Without a sound card ALSA has no sequencer: python-rtmidi on both sides, through JACK."""
    import rtmidi

    if rtmidi.API_UNIX_JACK not in rtmidi.get_compiled_api():
        pytest.skip("python-rtmidi was built without JACK")
    if Path("/dev/snd/seq").exists():
        pytest.skip("ALSA's sequencer is taken here, not JACK")
    with jack_server():
        yield


def test_midi_through_a_virtual_port_that_others_connect_to() -> None:
    with jack():
        receiver = Receiver("jack", "beattrack")
        delivery = Delivery(make_output(parse_output("midi://"), lambda command, at: None))
        delivery.start()
        end = time.monotonic() + 10
        while not receiver.with_key("connected") and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        clock = BeatClock()
        for event in beats(150, 0.1, 2.0):
            clock.event(event)
        given = clock.advance(2.0)
        clock.restart(2.0)
        given += clock.advance(2.0)
        began = time.monotonic() + 0.1
        for what in given:
            delivery.put(what, began + what.time_s)
        time.sleep(2.4)
        delivery.stop()
        delivery.join()
        time.sleep(0.2)
        receiver.close()
    messages = receiver.with_key("message")
    assert delivery.health().dropped == 0
    clocks = [m["at"] for m in messages if m["message"] == "clock"]
    # JACK itself loses messages where the machine leaves it no time.
    assert 0.9 * 118 <= len(clocks) <= sum(isinstance(g, Tick) for g in given) == 118
    assert np.median(np.diff(clocks)) == pytest.approx(0.4 / TICKS, rel=0.15)
    assert [m["message"] for m in messages if m["message"] in ("start", "stop")] == [
        "start",
        "stop",
    ]


def test_midi_to_a_port_by_its_name_that_goes_and_comes_back() -> None:
    """As an interface that is unplugged: sending to it is no error, so it must be looked for."""
    ended = threading.Event()

    def play(delivery: Delivery) -> None:
        began, number = time.monotonic(), 0
        while not ended.wait(0.05):
            while began + number * 0.02 < time.monotonic() + 0.1:
                what = dataclasses.replace(tick(number), position=number // TICKS % 4 + 1)
                delivery.put(what, began + number * 0.02)
                number += 1
            delivery.put(status(time.monotonic()).what, time.monotonic())

    def wait_for(true: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while not true():
            assert time.monotonic() < end
            time.sleep(0.02)

    with jack():
        first = Receiver("synth", "machine")
        delivery = Delivery(make_output(parse_output("midi://MACHINE"), lambda command, at: None))
        player = threading.Thread(target=play, args=(delivery,))
        delivery.start()
        player.start()
        try:
            wait_for(lambda: len(first.with_key("message")) > 30)
            assert delivery.health().state == "open"
            first.close()
            wait_for(lambda: delivery.health().state == "broken")
            second = Receiver("synth", "machine")
            wait_for(lambda: len(second.with_key("message")) > 30)
            second.close()
        finally:
            ended.set()
            player.join()
            delivery.stop()
            delivery.join()
    assert delivery.health().reconnects == 1
    for receiver in (first, second):
        kinds = [line["message"] for line in receiver.with_key("message")]
        assert kinds[0] == "start" or kinds[:2] == ["songpos", "continue"]
        assert kinds.count("clock") > 20


def test_midi_without_transport_sends_every_clock_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = Recorder()
    monkeypatch.setattr("beattrack_runtime.live.outputs.midi.open_port", lambda place: port)
    output = MidiOutput(parse_output("midi://?notes=no&transport=no"))
    output.open()
    for number in (*range(5, 50), *range(55, 90)):
        output.send(due(tick(number, 2, jump=number == 55)))
    output.send(due(ClockStateChange(ClockState.LOST, 0, 0, 0)))
    output.send(due(tick(100, 1, jump=True)))
    output.close()
    assert port.kinds() == [] and len(port.messages) == 45 + 35 + 1


@pytest.mark.parametrize("free", ["yes", "no"])
def test_midi_ticks_go_on_freely_while_no_beat_is_known(
    monkeypatch: pytest.MonkeyPatch, free: str
) -> None:
    port = Recorder()
    monkeypatch.setattr("beattrack_runtime.live.outputs.midi.open_port", lambda place: port)
    spec = parse_output(f"midi://?notes=no&free={free}")
    delivery = Delivery(make_output(spec, lambda command, at: None), 30)
    delivery.start()
    tick_s, began = 60 / 120 / TICKS, time.monotonic() + 0.1
    delivery.put(ClockStateChange(ClockState.SEARCHING, 0, 0, 0), began - 0.1)  # no tempo yet
    for number in range(TICKS):
        delivery.put(tick(number, jump=number == 0), began + number * tick_s)
    stopped_s = began + (TICKS - 1) * tick_s
    delivery.put(ClockStateChange(ClockState.SILENT, 0, 0, 0), stopped_s)
    delivery.put(ClockStateChange(ClockState.SEARCHING, 0, 0, 0), stopped_s + 0.2)
    back_s = began + 59.5 * tick_s
    for number in range(TICKS, 2 * TICKS):
        delivery.put(tick(number, jump=number == TICKS), back_s + (number - TICKS) * tick_s)
    time.sleep(back_s + TICKS * tick_s + 0.1 - time.monotonic())
    delivery.stop()
    delivery.join()
    assert delivery.health().state == "closed"
    kinds = [m.type for m in port.messages]
    assert port.kinds() == ["start", "stop", "songpos", "continue", "stop"]
    between = kinds[kinds.index("stop") : kinds.index("songpos")].count("clock")
    if free == "no":
        assert between == 0
    else:  # a hold-up of the machine costs ticks rather than to send many at once
        assert 30 <= between <= 36
    assert kinds.count("clock") == 2 * TICKS + between
    assert delivery.health().sent == 2 * TICKS + 3


def test_link_at_four_times_the_tempo_and_without_transport() -> None:
    pytest.importorskip("aalink")
    fast = dataclasses.replace(tick(0, jump=True), tempo_bpm=640.0)
    for text, playing in (("link://", True), ("link://?startstop=no", False)):
        output = LinkOutput(parse_output(text))
        output.open()
        link = output._link
        link.enabled = False  # whoever else is in the network has a tempo as well
        output.send(due(LOCKED))
        output.send(due(fast))
        assert link.tempo == pytest.approx(640, abs=0.1)
        assert bool(link.playing) is playing
        link.playing = True  # as a peer's
        output.close()
        assert bool(link.playing) is not playing
        output.open()  # again, and told the state: the clock runs
        output._link.enabled = False
        output.send(due(LOCKED))
        assert bool(output._link.playing) is playing
        output.close()
