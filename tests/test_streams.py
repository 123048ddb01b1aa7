"""Stdout and stderr whose reader hangs: nothing else may, and nothing is lost without need."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audio_tools import FLUX_COMMAND
from beattrack_runtime import streams
from beattrack_runtime.streams import Stream
from beattrack_runtime.terminal import Terminal
from pipes_and_beats import SONG_S, full_pipe, on_time, osc_beats, write_song


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_song(tmp_path_factory.mktemp("song"))


def command(song: Path, *options: object) -> list[str]:
    return [sys.executable, "-c", FLUX_COMMAND, "--file", str(song), *map(str, options)]


# The command


@pytest.mark.parametrize("stuck", ["stdout", "stderr", "both"])
def test_a_reader_that_hangs_stops_nothing_else(song: Path, stuck: str) -> None:
    read, write = full_pipe()
    taken = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    taken.update({"stdout": write, "stderr": write} if stuck == "both" else {stuck: write})
    with osc_beats() as (port, beats):
        process = subprocess.Popen(
            command(song, "--realtime", "--output", "jsonl", "--output", f"osc://127.0.0.1:{port}"),
            env={**os.environ, "BEATTRACK_DEBUG": "1"}, **taken,
        )  # fmt: skip
        began = time.monotonic()
        assert process.wait(SONG_S + 15) == 0
        assert time.monotonic() - began < SONG_S + 8
    on_time(beats)
    if stuck == "stdout":
        assert process.stderr is not None
        assert b"stdout was not read: " in process.stderr.read()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("speed", [[], ["--realtime"]])
def test_a_named_pipe_is_waited_for_unless_it_is_live(
    song: Path, tmp_path: Path, speed: list[str]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    plain = subprocess.run(command(song, "--output", "beats"), capture_output=True, check=True)
    read = os.open(fifo, os.O_RDWR)
    fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 4096)
    os.write(read, b"#" * 4095 + b"\n")
    process = subprocess.Popen(
        command(song, *speed, "--beats", fifo), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    if speed:
        assert process.wait(SONG_S + 10) == 1
        out, err = process.communicate()
        assert len(out.splitlines()) == len(plain.stdout.splitlines())
        assert f"'{fifo}' was not read: some lines are missing.".encode() in err
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(5)
        got = b""
        while len(got) < 4096 + len(plain.stdout):
            got += os.read(read, 4096)
        assert got[4096:] == plain.stdout
        process.communicate(timeout=10)
        assert process.returncode == 0
    os.close(read)


def test_warnings_of_libraries_go_the_same_way() -> None:
    code = """
import logging
from beattrack_runtime.job import log_to
from beattrack_runtime.terminal import Terminal
log_to(Terminal())
logging.getLogger("library").info("nothing")
logging.getLogger("library").warning("a warning")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "beattrack: warning: a warning\n"


def test_a_failure_that_nobody_reads_of_still_ends(song: Path) -> None:
    read, write = full_pipe()
    options = ["--output", "osc://127.0.0.1:9", "--control", "osc://nosuch.invalid:1"]
    process = subprocess.Popen(command(song, "--realtime", *options), stderr=write)
    assert process.wait(10) == 1
    os.close(read)
    os.close(write)


def test_a_terminal_that_stands_still_stops_nothing_else(song: Path) -> None:
    ours, terminal = pty.openpty()
    with osc_beats() as (port, beats):
        process = subprocess.Popen(
            command(song, "--realtime", "--output", f"osc://127.0.0.1:{port}"),
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
        )  # fmt: skip
        os.read(ours, 10)
        os.write(ours, b"\x13")  # Ctrl-S
        assert process.wait(SONG_S + 15) == 0
    on_time(beats)
    os.close(terminal)
    os.close(ours)


def test_what_waits_at_the_end_is_still_written(song: Path) -> None:
    plain = subprocess.run(command(song, "--output", "jsonl"), capture_output=True, check=True)
    read, write = full_pipe()
    process = subprocess.Popen(
        command(song, "--realtime", "--output", "jsonl"), stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert process.stderr is not None
    # The summary comes last, while stdout is still full.
    assert any(b"of audio in" in line for line in process.stderr)
    got = b""
    while part := os.read(read, 65536):
        got += part
    os.close(read)
    assert process.wait(10) == 0
    assert got[4096:] == plain.stdout
    assert b"was not read" not in process.stderr.read()


def test_a_file_waits_for_a_slow_reader(song: Path) -> None:
    plain = subprocess.run(command(song, "--output", "jsonl"), capture_output=True, check=True)
    read, write = full_pipe()
    process = subprocess.Popen(command(song, "--output", "jsonl"), stdout=write)
    os.close(write)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(5)
    with os.fdopen(read, "rb") as file:
        assert file.read()[4096:] == plain.stdout
    assert process.wait(10) == 0


def test_a_pipe_that_closes_ends_the_show_without_another_line(song: Path) -> None:
    process = subprocess.Popen(
        command(song, "--realtime", "--output", "jsonl"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())
    process.stdout.close()
    assert process.wait(SONG_S) == 128 + signal.SIGPIPE
    assert b"cut short" in process.stderr.read()


@pytest.mark.parametrize("speed", [[], ["--realtime"]])
def test_a_full_disk_behind_stdout_is_a_failure(song: Path, speed: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(song, *speed), stdout=full, stderr=subprocess.PIPE, text=True, timeout=30
        )
    assert done.returncode == 1
    assert "error: Cannot use the output: No space left on device.\n" in done.stderr


def test_both_streams_in_one_pipe_keep_their_order(song: Path) -> None:
    def both(*options: str) -> list[str]:
        done = subprocess.run(
            command(song, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0
        return done.stdout.splitlines()[:-1]  # the last one tells how long it took

    assert both("--realtime") == both()


# The parts


def test_the_oldest_goes_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "QUEUE", 5)
    read, write = full_pipe()
    with os.fdopen(write, "w") as file, os.fdopen(read, "rb") as reader:
        stream = Stream(file)
        stream.free()
        for number in range(20):
            stream.write(f"{number}\n")
            time.sleep(0.01)  # the thread takes the first one
        assert stream.lost == 14
        assert not stream.drain(time.monotonic() + 0.1)
        assert stream.lost == 20
        reader.read(4096)
        assert reader.readline() == b"0\n"
        stream.write("after\n")
        assert reader.readline() == b"after\n"
        assert stream.drain(time.monotonic() + 5)
        stream.end()
        stream.write("too late\n")
        file.close()
        assert reader.read() == b""  # nobody holds it open


def test_of_the_live_line_the_newest_is_enough() -> None:
    read, write = full_pipe()
    with os.fdopen(write, "w") as file, os.fdopen(read, "rb", buffering=0) as reader:
        stream = Stream(file)
        stream.free()
        for number in range(3000):
            stream.latest = number % 1000 > 0
            stream.write(f"{number}\n")
        assert stream.lost == 0
        reader.read(4096)
        assert stream.drain(time.monotonic() + 5)
        assert reader.read(4096).split()[-5:] == [b"999", b"1000", b"1999", b"2000", b"2999"]
        stream.end()


def test_a_descriptor_that_does_not_wait_loses_nothing() -> None:
    read, write = full_pipe()
    os.set_blocking(write, False)
    with os.fdopen(write, "w") as file, os.fdopen(read, "rb") as reader:
        stream = Stream(file)
        stream.free()
        text = "x" * 5000 + "\n"
        stream.write(text)
        time.sleep(0.1)
        reader.read(4096)
        assert reader.read(len(text)).decode() == text
        assert stream.error is None
        stream.end()


def test_without_descriptors_the_terminal_writes_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal(waits=False)
    terminal.line("a line")
    terminal.note("a note")
    assert capsys.readouterr() == ("a line\n", "a note\n")
    terminal.close()
