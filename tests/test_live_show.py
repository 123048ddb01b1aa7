"""The command with live outputs: a song as if live, heard and steered from other processes."""

from __future__ import annotations

import logging
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pythonosc.udp_client import SimpleUDPClient

from audio_tools import FLUX_COMMAND
from beattrack_runtime import session
from beattrack_runtime.cli import run
from beattrack_runtime.live.clock.ticks import ClockStateChange, Tick
from beattrack_runtime.live.controls import CommandQueue, parse
from beattrack_runtime.live.health import Health
from beattrack_runtime.live.output import Due, Status
from beattrack_runtime.live.show import Show
from beattrack_runtime.session import LiveTracker
from beattrack_runtime.sources import FileSource
from flux_model import FluxModel, drum_loop
from live_receivers import Receiver, free_port

RATE = 44100


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """11 s of drums at 120 bpm, and 3 s of silence."""
    audio, truth = drum_loop(11, 120, RATE, 0.25)
    path = tmp_path_factory.mktemp("song") / "song.wav"
    audio = np.concatenate([np.clip(audio / 2, -1, 1), np.zeros(3 * RATE)])
    soundfile.write(path, audio, RATE)
    return path, truth


def test_a_song_as_if_live_drives_and_is_steered(
    song: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, _ = song
    port, control, nobody = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM), free_port()
    osc, midi = Receiver("osc", port), Receiver("midi", tmp_path / "midi")
    command = [sys.executable, "-c", FLUX_COMMAND, "--file", str(path), "--realtime"]
    command += ["--output", "jsonl", "--output", f"osc://127.0.0.1:{port}?delay=100"]
    command += ["--output", f"midi://{tmp_path / 'midi'}", "--output", f"os2l://127.0.0.1:{nobody}"]
    command += ["--control", f"osc://127.0.0.1:{control}"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def steer() -> None:
        end = time.monotonic() + 30
        while not osc.lines and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(3.5)
        SimpleUDPClient("127.0.0.1", control).send_message("/beattrack/control/double", 1)

    helper = threading.Thread(target=steer)
    helper.start()
    out, err = process.communicate(timeout=60)
    helper.join()
    time.sleep(0.3)
    osc.close()
    midi.close()
    assert process.returncode == 1, err  # for the output that never opened
    assert f"error: os2l://127.0.0.1:{nobody}: it never opened, " in err
    assert "Traceback" not in err
    # stdout is what it is without live outputs.
    plain = subprocess.run(
        [sys.executable, "-c", FLUX_COMMAND, "--file", str(path), "--output", "jsonl"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert out == plain.stdout and out.count("\n") > 15

    beats = [line for line in osc.lines if line["address"] == "/beattrack/beat"]
    ons = [line["at"] for line in midi.lines if line.get("message") == "note_on"]
    at = np.array([line["at"] for line in beats])
    # The delay of 100 ms lies between the two outputs.
    apart = [a - min(ons, key=lambda on: abs(on + 0.1 - a)) for a in at]
    assert np.median(apart) == pytest.approx(0.1, abs=0.03)
    # Both are on the music, up to the one constant that we do not know here: when it began.
    phases = np.exp(2j * np.pi * (at / 0.5))
    spread = np.abs(np.angle(phases / np.mean(phases))) / (2 * np.pi) * 0.5
    tempi = np.array([line["values"][2] for line in beats])
    assert np.median(spread[tempi < 150]) < 0.02
    assert tempi[3] == pytest.approx(120, rel=0.03) and tempi[-1] == pytest.approx(240, rel=0.03)
    gaps = np.diff(at)
    assert np.median(gaps[:4]) == pytest.approx(0.5, abs=0.05)
    assert np.median(gaps[-5:]) == pytest.approx(0.25, abs=0.05)
    said = [line["values"][0] for line in osc.lines if line["address"] == "/beattrack/state"]
    assert said[-4:-2] == ["locked", "silent"] or said[-3:-1] == ["locked", "silent"], said
    kinds = [line["message"] for line in midi.lines if line["message"] in ("continue", "stop")]
    assert kinds[-1] == "stop"
    assert f"os2l://127.0.0.1:{nobody}: Connection refused; it is tried again." in err
    assert "\nbeattrack: double: " in err
    changes = [state for state, before in zip(said, [None, *said], strict=False) if state != before]
    assert len(said) > len(changes)  # every 5 s it is repeated, which is not counted
    assert f"osc://127.0.0.1:{port}: {len(beats) + len(changes)} sent" in err


def test_a_pipe_that_is_faster_than_real_time_is_told_or_slowed_down(
    song: tuple[Path, np.ndarray],
) -> None:
    audio, _ = soundfile.read(song[0], dtype="int16")
    command = [sys.executable, "-c", FLUX_COMMAND, "--stdin", "--rate", str(RATE)]
    command += ["--output", "jsonl", "--output", f"osc://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"]
    errors, seconds = [], []
    for options in ([], ["--realtime"]):
        began = time.monotonic()
        done = subprocess.run([*command, *options], input=audio.tobytes(), capture_output=True)
        seconds.append(time.monotonic() - began)
        errors.append(done.stderr.decode())
        assert done.returncode == 0 and done.stdout.count(b'"beat"') > 14
    assert "comes faster than real time" in errors[0] and errors[0].count("faster") == 1
    assert "faster" not in errors[1] and seconds[1] > 13.9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "osc://127.0.0.1:9"], "give --realtime"),
        (["--realtime", "--control", "osc://127.0.0.1:9"], "steers live outputs"),
        (["--realtime", "--output", "ocs://127.0.0.1:9"], "did you mean 'osc'"),
        (["--realtime", "--output", "text", "--output", "jsonl"], "stdout takes one"),
        (["--output", "txt"], "it is text, jsonl, beats, none"),
        (["--realtime", "--output", "midi://?channel=99"], "1-16"),
        (["--tempo-range", "100-105"], "too narrow"),
        (["--tempo-range", "80"], "must be LOW-HIGH"),
        (["--tempo-range", "160-80"], "wrong way round"),
        (["--meter", "0"], "meter"),
        (["--meter", "17", "--tempo-range", "80-160"], "--meter 17 is not possible"),
        (["--realtime", "--output", "osc://127.0.0.1:9", "--control", "http://x:1"], "osc://HOST"),
    ],
)
def test_misuse(
    song: tuple[Path, np.ndarray], arguments: list[str], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(["--file", str(song[0]), *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err


def test_a_control_that_cannot_begin_is_all_that_is_said(
    song: tuple[Path, np.ndarray], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(session, "load_model", lambda path=None: FluxModel())
    port = free_port(socket.SOCK_DGRAM)
    options = ["--output", f"osc://127.0.0.1:{port}", "--control", "osc://nosuch.invalid:1"]
    assert run(["--file", str(song[0]), "--realtime", *options]) == 1
    err = capsys.readouterr().err
    assert err.startswith("beattrack: error: Cannot listen at osc://nosuch.invalid:1")
    assert err.count("\n") == 1


class Collector:
    """An output that keeps what it gets."""

    name, ahead_s, beats_only = "test://", 0.0, False

    def __init__(self) -> None:
        self.got: list[Due] = []

    def open(self) -> None:
        pass

    def send(self, due: Due) -> None:
        self.got.append(due)

    def close(self) -> None:
        pass


class Named(Collector):
    """One of several."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name  # type: ignore[misc]


def play(
    path: Path,
    block_s: float,
    commands: dict[float, str],
    statuses: list[Status] | None = None,
    delays: tuple[float, ...] = (),
) -> list[Tick | ClockStateChange]:
    """Run a show over a file as fast as it goes, with a wall clock of our own."""
    source = FileSource(path, block_s)
    tracker = LiveTracker(FluxModel(), source.sample_rate)
    queue = CommandQueue()
    show = Show([(Named(f"test://{n}"), delay) for n, delay in enumerate(delays)], queue)
    given: list[Tick | ClockStateChange] = []
    told = [] if statuses is None else statuses
    show._put = lambda what, at_s: (  # type: ignore[method-assign]
        (told if isinstance(what, Status) else given).append(what)  # type: ignore[arg-type]
    )
    health = Health(source)
    show.begin(source, tracker, health)
    tracker.on_frame = show.frame
    waiting = sorted(commands.items())
    for block in source.blocks():
        at_s = 1000.0 + tracker.time_s + len(block) / source.sample_rate
        while waiting and 1000.0 + waiting[0][0] <= at_s:
            when_s, text = waiting.pop(0)
            queue.put(parse(text), 1000.0 + when_s)
        show.step(block, tracker.push(block), at_s)
    show.end()
    show.close()
    source.close()
    return given


def test_the_same_audio_gives_the_same_ticks_for_every_block_size(
    song: tuple[Path, np.ndarray],
) -> None:
    path, truth = song
    first = play(path, 0.02, {})
    ticks = [g for g in first if isinstance(g, Tick)]
    assert len(ticks) > 24 * 12
    late = np.array([t.time_s for t in ticks if t.tick == 0 and t.time_s < 10.9])
    assert np.median(np.abs(late[:, None] - truth).min(axis=1)) < 0.015
    states = [g.state.value for g in first if isinstance(g, ClockStateChange)]
    assert states == ["searching", "locked", "silent", "searching"] or states == [
        "locked", "silent", "searching",
    ]  # fmt: skip
    for block_s in (0.005, 0.31):
        assert play(path, block_s, {}) == first


def test_silence_at_the_very_end_of_a_stream_is_none_of_the_next(
    song: tuple[Path, np.ndarray],
) -> None:
    source = FileSource(song[0])
    tracker, health = LiveTracker(FluxModel(), source.sample_rate), Health(source)
    show = Show([])
    given: list[object] = []
    show._put = lambda what, at_s: given.append(what)  # type: ignore[method-assign]
    show.begin(source, tracker, health)
    assert tracker.on_silence is not None
    tracker.on_silence(180.0, True)  # as from flush(), which no step follows
    show.end()
    tracker.reset()
    show.begin(source, tracker, health)
    show.step(np.zeros((882, 1), np.float32), tracker.push(np.zeros(882, np.float32)), 1000.0)
    show.end()
    show.close()
    source.close()
    assert not [g for g in given if isinstance(g, ClockStateChange) and g.time_s > 1]


def test_commands_reach_clock_and_tracker(song: tuple[Path, np.ndarray]) -> None:
    given = play(song[0], 0.02, {5.0: "meter 3", 7.0: "halve", 9.0: "delay nobody 3"})
    late = [g for g in given if isinstance(g, Tick) and g.time_s > 9]
    assert {t.beats_per_bar for t in late} == {3}
    assert all(t.tempo_bpm == pytest.approx(60, rel=0.05) for t in late)


def test_what_became_of_each_command_is_told(
    song: tuple[Path, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beattrack")
    commands = [*["double"] * 3, *["halve"] * 5, "double", "one", "meter 3", "meter 0",
                "delay nobody 3", "nudge -5", "tempo 100 150"]  # fmt: skip
    steps = {5.0 + 0.3 * number: text for number, text in enumerate(commands)}
    play(song[0], 0.02, {0.1: "one", 0.2: "double", 0.3: "restart", **steps, 13.9: "restart"})
    lines = [record.getMessage() for record in caplog.records]
    states = [line.split()[2] for line in lines if line.split()[1] == "s"]
    assert states == ["locked", "holding", "locked", "silent", "searching"]
    told = [line for line in lines if line.split()[1] != "s"]
    assert told[:3] == ["one: not possible while no beat is known",
                        "double: x2 as soon as a beat is known",
                        "restart: the clock searches anew"]  # fmt: skip
    scaled = [text.split(": ") for text in told[3:12]]
    assert [kind for kind, _ in scaled] == commands[:9]
    tempi = [float(text.split()[0]) for _, text in scaled if text.endswith(" bpm")]
    assert tempi == pytest.approx([240, 480, 240, 120, 60, 30, 60], rel=0.05)
    assert scaled[2][1] == "not possible beyond four times"
    assert scaled[7][1] == "not possible beyond a quarter"
    assert told[12:] == [
        "one: this beat is the first of a bar", "meter: 3 beats in a bar",
        "meter: as the tracker counts", "There is no output 'nobody'.",
        "nudge: all outputs by -5 ms", "tempo: 100 to 150 bpm",
        "restart: the clock searches anew",
    ]  # fmt: skip


def test_the_live_line_is_the_clocks(song: tuple[Path, np.ndarray]) -> None:
    ours, terminal = pty.openpty()
    port = free_port(socket.SOCK_DGRAM)
    process = subprocess.Popen(
        [sys.executable, "-c", FLUX_COMMAND, "--file", str(song[0]), "--realtime",
         "--output", f"osc://127.0.0.1:{port}", "--output", "none"],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "140"},
    )  # fmt: skip
    os.close(terminal)
    shown, plain, typed = "", "", False
    while True:
        try:
            shown += os.read(ours, 65536).decode(errors="replace")
        except OSError:  # how Linux says that the other end is closed
            break
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
        if re.search(r" 1\d\d\.\d bpm  sure .* locked ", plain) and not typed:
            typed = True
            os.write(ours, b"d3")
    os.close(ours)
    assert process.wait(10) == 0
    assert re.search(r"beattrack: double: 2\d\d\.\d bpm\r\n", plain)
    assert "beattrack: meter: 3 beats in a bar\r\n" in plain
    assert re.search(
        r"  1  2  3   2\d\d\.\d bpm x2  sure .* locked .*0:1[0-4]/0:14  -\d+ dB", plain
    )
    assert " silent " in plain


def test_a_new_tempo_range_is_searched_while_the_clock_holds(
    song: tuple[Path, np.ndarray],
) -> None:
    given = play(song[0], 0.02, {5.0: "tempo 100 150"})
    states = [g.state.value for g in given if isinstance(g, ClockStateChange)]
    assert "holding" in states and "lost" not in states
    assert states[states.index("holding") + 1] == "locked"
    ticks = [g for g in given if isinstance(g, Tick)]
    assert sum(t.jump for t in ticks) == 1


def at_level(given: list[Tick | ClockStateChange], start: float, end: float) -> list[float]:
    return [g.tempo_bpm for g in given if isinstance(g, Tick) and start < g.time_s < end]


def test_the_user_s_range_sets_the_level_as_soon_as_the_tracker_is_back(
    song: tuple[Path, np.ndarray],
) -> None:
    given = play(song[0], 0.02, {5.0: "tempo 200 300"})
    states = [g for g in given if isinstance(g, ClockStateChange) and g.time_s >= 5.0]
    assert [s.state.value for s in states[:2]] == ["holding", "locked"]
    back = states[1].time_s
    assert back < 9, "so long a search leaves no time to see more"
    late = at_level(given, back + 0.6, 10.9)
    assert late and all(tempo == pytest.approx(240, rel=0.05) for tempo in late)


@pytest.mark.parametrize("way_back", ["restart", "tempo auto", "tempo 0 0"])
def test_there_is_a_way_back_from_a_tempo_range(
    song: tuple[Path, np.ndarray], way_back: str
) -> None:
    told: list[Status] = []
    commands = {3.0: "tempo 100 150", 4.0: "tempo 100 160", 6.0: way_back}
    given = play(song[0], 0.02, commands, told)
    start, present = told[0].tempo_range, [s for s in told if 4.2 < s.stream_s < 5.9]
    assert not told[0].range_chosen and start == (55.0, 215.0)
    assert {(s.tempo_range, s.range_chosen) for s in present} == {((100.0, 160.0), True)}
    assert (told[-1].tempo_range, told[-1].range_chosen) == (start, False)
    late = at_level(given, 9.5, 10.9)
    assert late and all(tempo == pytest.approx(120, rel=0.05) for tempo in late)


def test_the_octave_of_the_present_tempo_is_kept_whatever_the_factor(
    song: tuple[Path, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Status] = []
    commands = {0.1: "tempo keep", 3.0: "double", 3.1: "meter 3", 5.0: "tempo keep"}
    given = play(song[0], 0.02, commands, told)
    assert "No tempo is known yet" in caplog.text
    low, high = told[-1].tempo_range or (0, 0)
    assert (low, high) == pytest.approx((120 / 2**0.5, 120 * 2**0.5), rel=0.03)
    assert told[-1].factor == 2.0 and told[-1].meter == 3
    assert told[5].factor == 1.0 and told[5].meter == 0
    late = at_level(given, 9.0, 10.9)
    assert late and all(tempo == pytest.approx(240, rel=0.05) for tempo in late)


def test_a_nudge_moves_all_delays_as_far_as_all_of_them_can(
    song: tuple[Path, np.ndarray],
) -> None:
    told: list[Status] = []
    commands = {1.0: "nudge -5", 2.0: "nudge -50", 3.0: "nudge -50", 4.0: "nudge 2.5"}
    play(song[0], 0.02, commands, told, delays=(-200.0, 1990.0))
    seen = [tuple(output.delay_ms for output in status.outputs) for status in told]
    assert list(dict.fromkeys(seen)) == [
        (-200.0, 1990.0), (-205.0, 1985.0), (-250.0, 1940.0), (-247.5, 1942.5),
    ]  # fmt: skip
    play(song[0], 0.5, {1.0: "nudge 5"})  # nor does it mind that there is none


def test_restart_forgets_the_pulse(song: tuple[Path, np.ndarray]) -> None:
    given = play(song[0], 0.02, {5.0: "double", 6.0: "restart"})
    states = [g.state.value for g in given if isinstance(g, ClockStateChange)]
    place = states.index("locked")
    assert states[place : place + 3] == ["locked", "searching", "locked"]
    late = [g.tempo_bpm for g in given if isinstance(g, Tick) and g.time_s > 9.5]
    assert late and all(tempo == pytest.approx(120, rel=0.05) for tempo in late)


def test_ticks_are_given_as_early_as_the_delays_of_now_want(song: tuple[Path, np.ndarray]) -> None:
    """Also early while a delay glides back; then as late as before it was changed."""
    source = FileSource(song[0], 0.05)
    tracker = LiveTracker(FluxModel(), source.sample_rate)
    queue = CommandQueue()
    show = Show([(Collector(), 0.0)], queue)
    show.begin(source, tracker, Health(source))
    began = time.monotonic() + 1000  # nothing falls due: what is asked for is looked at alone
    waiting = {4.0: "delay test:// -250", 7.0: "delay test:// 0"}
    lookahead: dict[float, float] = {}
    given: list[Tick] = []
    put = show._put
    show._put = lambda what, at_s: (  # type: ignore[method-assign]
        given.append(what) if isinstance(what, Tick) else None, put(what, at_s)
    )[1]  # fmt: skip
    for block in source.blocks():
        at_s = began + tracker.time_s + len(block) / source.sample_rate
        while waiting and began + min(waiting) <= at_s:
            when_s = min(waiting)
            queue.put(parse(waiting.pop(when_s)), began + when_s)
        show.step(block, tracker.push(block), at_s)
        lookahead[round(tracker.time_s, 2)] = show._clock.lookahead_s
    source.close()
    show.close()
    assert {round(lookahead[t], 3) for t in lookahead if t < 3.9} == {0.06}
    assert {round(lookahead[t], 3) for t in lookahead if 4.2 < t < 6.9} == {0.31}
    assert 0.1 < lookahead[min(t for t in lookahead if t > 8)] < 0.3
    assert {round(lookahead[t], 3) for t in lookahead if 10.2 < t < 10.9} == {0.06}
    times = [t.time_s for t in given]
    assert times == sorted(set(times))
    assert max(np.diff([t for t in times if 3 < t < 10.9])) < 1.1 * 0.5 / 24
