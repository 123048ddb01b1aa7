"""What the user says: addresses of outputs, commands, OSC control, keys; and stream time."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pty
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.udp_client import SimpleUDPClient

from beattrack.config import ConfigError
from beattrack_runtime.errors import MisuseError, OutputError
from beattrack_runtime.live import controls
from beattrack_runtime.live.controls import AUTO, MAX_WAITING, Command, CommandQueue, parse
from beattrack_runtime.live.keys import HELP, KEYS, TerminalKeys
from beattrack_runtime.live.osc_control import MAX_TOLD, OscControl
from beattrack_runtime.live.outputs import make_output
from beattrack_runtime.live.setup import read_request
from beattrack_runtime.live.show import HASTY
from beattrack_runtime.live.spec import KINDS, OutputSpec, parse_output
from beattrack_runtime.live.walltime import MAX_SLEW, StreamTime

# Addresses


def test_addresses() -> None:
    assert parse_output("osc://127.0.0.1:9000?delay=-20") == OutputSpec(
        "osc://127.0.0.1:9000", "osc", "127.0.0.1", 9000, "", -20.0
    )
    assert parse_output("osc://[::1]:9000").host == "::1"
    assert parse_output("midi://").place == ""
    assert parse_output("midi://My%20Synth?channel=3&clock=no").options == {
        "channel": 3, "clock": False,
    }  # fmt: skip
    assert parse_output("midi://My%20Synth").place == "My Synth"
    assert parse_output("serial:///dev/ttyUSB0?baud=9600").place == "/dev/ttyUSB0"
    assert (parse_output("web://").host, parse_output("web://").port) == ("127.0.0.1", 8080)
    assert parse_output("os2l://desk").port == 9996


@pytest.mark.parametrize(
    "text",
    ["serial:///dev/ttyUSB0?baud=9600", "midi://My%20Synth?channel=3&clock=no&delay=7&notes=yes",
     "osc://h:1?prefix=/a%26b", "click://?volume=0.3", "web://?token=12345678&name=a.b", "link://"],
)  # fmt: skip
def test_an_address_with_another_delay_keeps_its_other_keys(text: str) -> None:
    spec = parse_output(text)
    again = parse_output(spec.with_delay(-20))
    assert again == dataclasses.replace(spec, delay_ms=-20.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ocs://127.0.0.1:9000", "did you mean 'osc'"),
        ("osc:127.0.0.1", "lacks '://'"),
        ("osc://127.0.0.1", "a host and a port"),
        ("osc://127.0.0.1:99999", "a host and a port"),
        ("osc://:9000", "a host and a port"),
        ("osc://user@host:9000", "a host and a port"),
        ("osc://127.0.0.1:9000/path", "a host and a port"),
        ("osc://127.0.0.1:9000?dealy=3", "did you mean 'delay'"),
        ("osc://127.0.0.1:9000?delay=", "must be a number"),
        ("osc://127.0.0.1:9000?delay=nan", "must be -250 to 2000"),
        ("osc://127.0.0.1:9000?delay=-251", "must be -250 to 2000"),
        ("osc://127.0.0.1:9000?delay=1&delay=2", "given twice"),
        ("osc://127.0.0.1:9000?channel=1", "no key 'channel'"),
        ("link://somewhere", "takes no address"),
        ("serial://ttyUSB0", "must name a device"),
        ("midi://?channel=x", "must be a whole number"),
        ("midi://?clock=maybe", "must be yes or no"),
        ("web://:x", "a host and a port"),
        ("osc://127.0.0.1:9000?" + "a" * 600, "too long"),
        ("osc://127.0.0.1:9000?delay=\x07", "no text"),
    ],
)
def test_a_wrong_address_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(MisuseError) as error:
        parse_output(text)
    assert words in str(error.value)
    assert str(error.value)[-1] in ".?" and "\n" not in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    ["midi://?channel=17", "midi://?note=128", "serial:///dev/x?baud=1", "link://?quantum=0",
     "click://?volume=2", "osc://h:1?prefix=beat", "osc://h:1?prefix=/a%20b"],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(text: str) -> None:
    if text.startswith("link"):
        pytest.importorskip("aalink")
    with pytest.raises(ConfigError):
        make_output(parse_output(text), lambda command, at: None)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.text(max_size=40), st.text(max_size=40))
def test_no_address_does_anything_but_fail_in_a_sentence(
    scheme: str, address: str, query: str
) -> None:
    for text in (f"{scheme}://{address}?{query}", address + query):
        try:
            parse_output(text)
        except MisuseError as error:
            assert str(error)


def test_the_same_output_twice_is_refused() -> None:
    with pytest.raises(MisuseError, match="given twice"):
        read_request(["osc://h:1", "osc://h:1?delay=3"], None, None, None)
    with pytest.raises(MisuseError, match=r"'osc://h:1' is given twice"):
        read_request(["osc://h:1", "osc://h:1?prefix=/beattrack"], None, None, None)
    with pytest.raises(MisuseError, match=r"'osc://h:1\?prefix=/a' is given twice"):
        read_request(["osc://h:1?prefix=/a", "osc://h:1?prefix=/a&delay=3"], None, None, None)


def test_one_osc_address_may_have_several_prefixes_told_apart_by_name() -> None:
    asked = ["osc://h:1", "osc://h:1?prefix=/a", "osc://h:1?prefix=/b", "osc://h:2?prefix=/b"]
    names = [spec.text for spec in read_request(asked, None, None, None).outputs]
    assert names == ["osc://h:1", "osc://h:1?prefix=/a", "osc://h:1?prefix=/b", "osc://h:2"]
    assert parse(f"delay {names[1]} -20").output == names[1]


def test_meter_and_tempo_range() -> None:
    from beattrack.config import DecoderConfig

    request = read_request([], None, 3, "80-160")
    config = request.decoder(DecoderConfig())
    assert (config.beats_per_bar, config.min_bpm, config.max_bpm) == ((3,), 80.0, 160.0)
    for meter, tempo in (
        (0, None),
        (None, "80"),
        (None, "160-80"),
        (None, "a-b"),
        (17, None),
        (None, "tempo-keep"),
    ):
        with pytest.raises(MisuseError):
            read_request([], None, meter, tempo)
    with pytest.raises(MisuseError):
        read_request([], None, None, "0-0").decoder(DecoderConfig())
    with pytest.raises(MisuseError):  # the filter has bars of at most 12
        read_request([], None, 14, None).decoder(DecoderConfig())


# Commands


def test_commands() -> None:
    assert parse("tap") == Command("tap")
    assert parse(" meter  3 ") == Command("meter", (3.0,))
    assert parse("meter 0") == Command("meter", (0.0,))  # as the tracker hears it
    assert parse("tempo 80 160") == Command("tempo", (80.0, 160.0))
    assert parse("delay midi://A  B:1 7 ") == Command("delay", (7.0,), "midi://A  B:1")
    assert parse("tempo auto") == parse("tempo 0 0") == Command("tempo", AUTO)
    assert parse("tempo keep") == Command("tempo")
    assert parse("nudge -5") == Command("nudge", (-5.0,))
    assert parse("delay osc://h:1 -20") == Command("delay", (-20.0,), "osc://h:1")


@pytest.mark.parametrize(
    "text",
    ["", "tapp", "tap 1", "meter", "meter -1", "meter 17", "meter 2.5", "meter nan", "tempo 80",
     "tempo 80 81", "tempo 10 100", "tempo 100 1e9", "delay x", "delay x 5000",
     "tempo 0 100", "tempo keep 3", "tempo now", "nudge", "nudge 51", "nudge -51", "nudge nan",
     "x" * 300, "meter \ud800", "__import__('os')"],
)  # fmt: skip
def test_a_wrong_command_is_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    for words in (text, f"meter {text}", f"tempo 60 {text}", f"delay a {text}"):
        try:
            assert parse(words).kind in words
        except ConfigError as error:
            assert len(str(error)) < 400


def test_the_queue_is_bounded_and_knows_when() -> None:
    queue = CommandQueue()
    now = time.monotonic()
    queue.put(parse("tap"), now - 0.2)
    for _ in range(MAX_WAITING + 2):
        queue.put(parse("one"))
    found = queue.drain()
    assert len(found) == MAX_WAITING and queue.dropped == 3
    assert found[0] == (now - 0.2, parse("tap"))
    assert now <= found[1][0] <= time.monotonic()
    assert queue.drain() == []


# OSC control


@pytest.fixture
def control() -> Iterator[tuple[OscControl, CommandQueue]]:
    queue = CommandQueue()
    listener = OscControl(("127.0.0.1", 0), queue.put)
    listener.start()
    yield listener, queue
    listener.stop()


def received(queue: CommandQueue, count: int, seconds: float = 5.0) -> list[Command]:
    found: list[Command] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += [command for _, command in queue.drain()]
        time.sleep(0.005)
    return found


def test_commands_by_osc(control: tuple[OscControl, CommandQueue]) -> None:
    listener, queue = control
    client = SimpleUDPClient("127.0.0.1", listener.port)
    client.send_message("/beattrack/control/tap", [])
    client.send_message("/beattrack/control/double", 1.0)
    client.send_message("/beattrack/control/double", 0.0)  # the button is let go
    client.send_message("/beattrack/control/meter", 3)
    client.send_message("/beattrack/control/tempo", [80, 160.5])
    client.send_message("/beattrack/control/delay", ["osc://127.0.0.1:9000", -20.0])
    client.send_message("/beattrack/control/delay", ["midi://Drum machine:1", 7.5])
    client.send_message("/beattrack/control/nudge", -5)
    client.send_message("/beattrack/control/tempo", "keep")
    client.send_message("/beattrack/control/tempo", [0.0, 0.0])
    assert received(queue, 9) == [
        parse("tap"), parse("double"), parse("meter 3"), parse("tempo 80 160.5"),
        parse("delay osc://127.0.0.1:9000 -20"), Command("delay", (7.5,), "midi://Drum machine:1"),
        parse("nudge -5"), parse("tempo keep"), parse("tempo auto"),
    ]  # fmt: skip
    assert listener.refused == 0


def test_what_is_no_command_is_told_once(
    control: tuple[OscControl, CommandQueue], caplog: pytest.LogCaptureFixture
) -> None:
    listener, queue = control
    client = SimpleUDPClient("127.0.0.1", listener.port)
    for _ in range(3):
        client.send_message("/beattrack/tap", 1)
        client.send_message("/elsewhere", [])
        client.send_message("/beattrack/control/metre", 3)
        client.send_message("/beattrack/control/meter", ["3 4"])
    for number in range(20):
        client.send_message(f"/noise/{number}", [])
    client.send_message("/beattrack/control/tap", [])
    assert received(queue, 1) == [parse("tap")]
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "did you mean /beattrack/control/tap?" in line]) == 1
    assert len([line for line in lines if "they begin with /beattrack/control/." in line]) == 5
    assert len([line for line in lines if "did you mean 'meter'?" in line]) == 1
    assert len(lines) == MAX_TOLD and all(line.isprintable() for line in lines)
    assert listener.refused == 3 * 4 + 20


def test_a_bundle_of_commands(control: tuple[OscControl, CommandQueue]) -> None:
    listener, queue = control
    bundle = OscBundleBuilder(IMMEDIATELY)
    for name in ("tap", "one"):
        message = OscMessageBuilder(f"/beattrack/control/{name}").build()
        bundle.add_content(message)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bundle.build().dgram, ("127.0.0.1", listener.port))
    assert received(queue, 2) == [parse("tap"), parse("one")]


def test_whatever_comes_in_is_refused_and_the_next_command_is_heard(
    control: tuple[OscControl, CommandQueue],
) -> None:
    listener, queue = control
    chance = random.Random(3)
    good = OscMessageBuilder("/beattrack/control/meter")
    good.add_arg(3)
    template = good.build().dgram
    nested = b"#bundle\0" + bytes(8)
    for _ in range(60):
        nested = b"#bundle\0" + bytes(8) + len(nested).to_bytes(4, "big") + nested
        if len(nested) > 1000:
            break
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        where = ("127.0.0.1", listener.port)
        sender.sendto(nested, where)
        sender.sendto(b"x" * 60_000, where)
        sender.sendto(b"", where)
        for number in range(1500):
            data = bytearray(template)
            if number % 2:
                for _ in range(chance.randrange(1, 6)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            else:
                data = bytearray(chance.randbytes(chance.randrange(0, 200)))
            sender.sendto(bytes(data), where)
            if number % 20 == 0:
                time.sleep(0.002)
                queue.drain()
        time.sleep(0.3)
        queue.drain()
        for _ in range(3):  # the system's own buffer may have been full
            sender.sendto(template, where)
    assert parse("meter 3") in received(queue, 1)
    assert listener.refused > 500


def test_a_port_that_is_taken_is_a_sentence(control: tuple[OscControl, CommandQueue]) -> None:
    listener, queue = control
    other = OscControl(("127.0.0.1", listener.port), queue.put)
    with pytest.raises(OutputError, match="Cannot listen"):
        other.start()


# Keys


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_keys_of_a_terminal_and_the_terminal_as_it_was() -> None:
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    found: list[Command] = []
    keys = TerminalKeys(found.append, theirs)
    keys.start()
    assert not termios.tcgetattr(theirs)[3] & termios.ECHO
    assert termios.tcgetattr(theirs)[3] & termios.ISIG  # Ctrl-C stays what it is
    os.write(ours, b" dh1\x1b[A3xr\xff")
    wait_for(lambda: len(found) == 6)
    keys.stop()
    assert [c.kind for c in found] == ["tap", "double", "halve", "one", "meter", "restart"]
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


READS_KEYS = """
import os, sys, time
from beattrack_runtime.live.keys import TerminalKeys
keys = TerminalKeys(lambda command: print("took", command.kind, flush=True))
keys.start()
print("process", os.getpid(), flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
keys.stop()
print("end", "of it", flush=True)
"""


@pytest.mark.parametrize("suspended", [True, False])
def test_the_shell_may_have_its_terminal_meanwhile(tmp_path: Path, suspended: bool) -> None:
    import termios

    ours, theirs = pty.openpty()
    script, end = tmp_path / "keys.py", tmp_path / "end"
    script.write_text(READS_KEYS)
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        env={**os.environ, "TERM": "dumb", "PS1": "$ "},
    )  # fmt: skip
    said = ""

    def until(text: str) -> str:
        nonlocal said
        stop = time.monotonic() + 10
        while text not in said:
            assert time.monotonic() < stop, said
            if select.select([ours], [], [], 0.1)[0]:
                said += os.read(ours, 4096).decode()
        found, _, said = said.partition(text)
        return found

    def runs() -> bool:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "T"

    def settled(canonical: bool) -> None:
        wait_for(lambda: bool(termios.tcgetattr(theirs)[3] & termios.ICANON) == canonical)

    try:
        until("$ ")
        line = f"{sys.executable} {script} {end}" + ("" if suspended else " &")
        os.write(ours, line.encode() + b"\n")
        until("process ")
        number = int(until("\n"))
        if suspended:
            settled(False)
            os.write(ours, b"d")
            until("took double")
            os.write(ours, b"\x1a")
            until("Stopped")
            os.write(ours, b"bg\n")
            wait_for(runs)
        time.sleep(0.5)
        os.write(ours, b"echo h$((6*7))\n")  # all of it reaches the shell
        assert "took" not in until("h42")
        assert runs()
        os.write(ours, b"fg\n")
        until("keys.py")
        settled(False)
        os.write(ours, b"h")
        until("took halve")
        end.touch()
        until("end of it")
        os.write(ours, b"stty -a\n")
        until(" icanon")
        assert " echo " in until("$ ")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
        os.close(theirs)


def test_every_key_is_a_command_and_told_of() -> None:
    assert parse(KEYS["k"]) == Command("tempo") and parse(KEYS["a"]) == Command("tempo", AUTO)
    assert [parse(KEYS[key]).numbers for key in ",."] == [(-5.0,), (5.0,)]
    kinds = {parse(command).kind for command in KEYS.values()}
    assert kinds == set(controls.KINDS) - {"delay"}
    for words in ("k keeps", "a takes any", "comma and full stop"):
        assert words in HELP


def test_keys_do_nothing_where_there_is_no_terminal() -> None:
    read, write = os.pipe()
    keys = TerminalKeys(lambda command: None, read)
    keys.start()
    keys.stop()
    os.close(read)
    os.close(write)


# Stream time


def arrivals(
    seconds: float, drift_ppm: float = 0.0, jitter_s: float = 0.0, block_s: float = 0.005
) -> Iterator[tuple[float, float]]:
    """(stream time, when it came) of blocks from a card that is slow by ``drift_ppm``."""
    chance = random.Random(5)
    for number in range(1, int(seconds / block_s)):
        stream = number * block_s
        yield stream, 1000 + stream * (1 + drift_ppm * 1e-6) + abs(chance.gauss(0, jitter_s))


def test_jitter_of_blocks_does_not_reach_the_time() -> None:
    clock, found = StreamTime(), []
    for stream, at in arrivals(60, jitter_s=0.01):
        clock.heard(stream, at)
        wall = clock.wall(stream)
        assert wall is not None
        found.append(wall - stream - 1000)
    late = found[400:]
    assert max(late) - min(late) < 0.001
    assert max(map(abs, late)) < 0.001
    assert clock.jumps == 0


@pytest.mark.parametrize("drift_ppm", [-300.0, 0.0, 120.0, 1000.0])
def test_drift_is_followed_and_told(drift_ppm: float) -> None:
    clock = StreamTime()
    for stream, at in arrivals(90, drift_ppm, 0.002):
        clock.heard(stream, at)
    assert clock.drift_ppm == pytest.approx(drift_ppm, abs=8)
    assert clock.wall(stream) == pytest.approx(1000 + stream * (1 + drift_ppm * 1e-6), abs=0.005)
    assert clock.stream(clock.wall(5.0) or 0) == pytest.approx(5.0)


def test_it_moves_slowly_but_a_stream_that_broke_off_is_taken_up_anew() -> None:
    clock, last = StreamTime(), None
    for stream, at in arrivals(20, jitter_s=0.001):
        clock.heard(stream, at + (0.03 if stream > 10 else 0.0))  # 30 ms more from now on
        wall = clock.wall(stream)
        assert wall is not None
        if last is not None and stream > 2:
            assert abs(wall - last[1] - (stream - last[0])) <= MAX_SLEW * 0.005 + 1e-9
        last = (stream, wall)
    for stream, at in arrivals(5):
        clock.heard(20 + stream, at + 30)
    assert clock.jumps == 1
    assert clock.wall(25.0) == pytest.approx(1035, abs=0.01)


def test_what_comes_faster_than_real_time_is_noticed() -> None:
    clock = StreamTime()
    for stream, at in arrivals(8, jitter_s=0.01):
        clock.heard(stream, at)
    for stream, _ in arrivals(3):  # the end of a gap, all of it at once
        clock.heard(8 + stream, 1012)
    for stream, at in arrivals(4):
        clock.heard(11 + stream, at + 12)
        assert clock.hasty < HASTY
    for stream, _ in arrivals(8):
        clock.heard(15 + stream, 1016 + 0.8 * stream)  # a quarter too fast
    assert clock.hasty >= HASTY


def test_before_anything_was_heard_there_is_no_time() -> None:
    clock = StreamTime()
    assert clock.wall(1.0) is None and clock.stream(1.0) is None and clock.drift_ppm is None
