"""Lines of JSON as a live output: on stdout and in pipes, at their moment, read elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_tools import FLUX_COMMAND
from beattrack_runtime.cli import run
from beattrack_runtime.live.clock.ticks import ClockState, ClockStateChange, Tick
from beattrack_runtime.live.delivery import Delivery
from beattrack_runtime.live.output import Due, Status
from beattrack_runtime.live.outputs.jsonl import JsonlOutput, encode
from beattrack_runtime.live.spec import parse_output
from pipes_and_beats import SONG_S, full_pipe, on_time, osc_beats, write_song

BEAT = Tick(3.0, 12, 0, 1, 4, 128.0234567, 0.97, True)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_song(tmp_path_factory.mktemp("song"))


def command(path: Path, *outputs: str) -> list[str]:
    given = [part for output in outputs for part in ("--output", output)]
    return [sys.executable, "-c", FLUX_COMMAND, "--file", str(path), "--realtime", *given]


def read_json(lines: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_lines_have_the_names_of_the_page() -> None:
    assert encode(Due(BEAT, 12345.6789012)) == (
        '{"type": "beat", "beat": 12, "position": 1, "beats_per_bar": 4, "tempo_bpm": 128.02346, '
        '"confidence": 0.97, "jump": true, "at": 12345.6789}'
    )
    change = ClockStateChange(ClockState.HOLDING, 3.0, 128.0, 0.5)
    assert encode(Due(change, 7.25)) == (
        '{"type": "state", "state": "holding", "tempo_bpm": 128.0, "confidence": 0.5, "at": 7.25}'
    )
    status = Status(1, ClockState.LOST, None, 0, 0, False, 0, 0, "", "", ())
    assert encode(Due(status, 1.0)) is None


def test_beats_and_states_come_at_their_moment(song: Path) -> None:
    with osc_beats() as (port, others):
        process = subprocess.Popen(
            command(song, "jsonl://?delay=150", f"osc://127.0.0.1:{port}"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        came = [(time.monotonic(), json.loads(line)) for line in process.stdout]
        assert process.wait(10) == 0
    beats = [(at, line) for at, line in came if line["type"] == "beat"]
    states = [line["state"] for _, line in came if line["type"] == "state"]
    assert len(beats) == len(others) > 9
    assert states[-2:] == ["locked", "searching"]
    late = np.array([at - line["at"] for at, line in beats])
    assert late.min() > -0.002 and np.median(late) < 0.04
    after = [line["at"] - other for (_, line), other in zip(beats, others, strict=True)]
    assert np.median(after) == pytest.approx(0.15, abs=0.03)
    assert [b["beat"] for _, b in beats] == list(range(len(beats)))
    assert all(b["tempo_bpm"] == pytest.approx(120, rel=0.05) for _, b in beats[2:])
    assert f"jsonl://: {len(came)} sent" in process.stderr.read()


def test_a_reader_that_hangs_stops_nothing_else(song: Path) -> None:
    read, write = full_pipe()
    with osc_beats() as (port, beats):
        process = subprocess.Popen(
            command(song, "jsonl://", f"osc://127.0.0.1:{port}", "none"), stdout=write
        )
        began = time.monotonic()
        assert process.wait(SONG_S + 15) == 0
        assert time.monotonic() - began < SONG_S + 8
    on_time(beats)
    os.close(read)
    os.close(write)


def test_without_a_reader_it_ends_unless_it_drives_something_else(
    song: Path,
) -> None:
    with osc_beats() as (port, beats):
        both = subprocess.Popen(
            command(song, "jsonl://", f"osc://127.0.0.1:{port}"), stdout=subprocess.PIPE
        )
        alone = subprocess.Popen(
            command(song, "jsonl://"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for process in (alone, both):
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())
            process.stdout.close()
        assert alone.wait(SONG_S) == 128 + signal.SIGPIPE
        assert both.poll() is None
        assert both.wait(SONG_S + 10) == 0
    on_time(beats)


def test_a_pipe_gets_lines_once_it_has_a_reader(tmp_path: Path) -> None:
    fifo, got = tmp_path / "fifo", tmp_path / "got"
    os.mkfifo(fifo)
    delivery = Delivery(JsonlOutput(parse_output(f"jsonl://{fifo}")))
    delivery.start()
    end = time.monotonic() + 5
    while delivery.health().state != "broken" and time.monotonic() < end:
        time.sleep(0.01)
    assert not delivery.opened
    with got.open("wb") as file:
        reader = subprocess.Popen(["cat", str(fifo)], stdout=file)
        while delivery.health().state != "open" and time.monotonic() < end:
            time.sleep(0.01)
        delivery.put(BEAT, time.monotonic())
        delivery.put(Tick(3.1, 12, 5, 1, 4, 128.0, 0.97), time.monotonic())  # no beat
        delivery.stop()
        delivery.join()
        assert reader.wait(5) == 0
    assert [line["beat"] for line in read_json(got.read_text().splitlines())] == [12]
    assert delivery.health().reconnects == 1


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "a file.jsonl"
    path.write_text('{"before": 1}\n')
    output = JsonlOutput(parse_output(f"jsonl://{tmp_path}/a%20file.jsonl"))
    output.open()
    output.send(Due(BEAT, 1.0))
    output.close()
    assert [len(line) for line in read_json(path.read_text().splitlines())] == [1, 8]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["jsonl://", "text"], "--output text and jsonl://: stdout takes one of them"),
        (["jsonl", "jsonl://"], "--output jsonl and jsonl://: stdout takes one of them"),
        (["jsonl://relative.jsonl"], "by its whole path"),
        (["jsonl:///a%00b"], "by its whole path"),
        (["jsonl://SONG"], "would write into an input"),
        (["jsonl://?volume=1"], "known: delay"),
    ],
)
def test_misuse(
    song: Path,
    outputs: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [output.replace("SONG", str(song)) for output in outputs]
    assert run(command(song, *given)[3:]) == 2
    assert words in capsys.readouterr().err


def test_on_a_terminal_no_live_line_tears_it(song: Path) -> None:
    import pty

    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        command(song, "jsonl://"), stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
    os.close(ours)
    assert process.wait(10) == 0
    lines = shown.decode().splitlines()
    assert all(line.startswith(("{", "beattrack: ")) for line in lines), lines
    assert len(read_json(line for line in lines if line.startswith("{"))) > 9
