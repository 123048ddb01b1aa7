"""The `beattrack` command: what it writes, what it says, and with which exit code it ends."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_tools import FLUX_COMMAND, share_found
from beattrack.events import Beat
from beattrack_runtime import __version__, microphone, session
from beattrack_runtime.cli import run
from beattrack_runtime.following import SAME_S, StopRequest
from beattrack_runtime.live import journal
from beattrack_runtime.outputs import pending
from beattrack_runtime.session import STARTER_MODEL, LiveTracker
from flux_model import FluxModel, drum_loop

RATE = 44100


@pytest.fixture(autouse=True)
def _flux_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run with a model that needs no file; give the test runner its signals and log back."""
    monkeypatch.setattr(session, "load_model", lambda path=None: FluxModel())
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    log = logging.getLogger("beattrack")
    log.handlers, log.propagate, log.level = [], True, logging.NOTSET


@pytest.fixture(scope="module")
def drums() -> tuple[np.ndarray, np.ndarray]:
    audio, truth = drum_loop(8, 120, RATE, 0.25)
    return np.clip(audio / 2, -1, 1), truth


@pytest.fixture
def song(drums: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, drums[0], RATE)
    return path


def beattrack(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def test_a_picture_without_a_home_is_drawn_without_a_word(song: Path, tmp_path: Path) -> None:
    """As by a user of a container who has none: matplotlib would tell of its folders."""
    environment = {**os.environ, "HOME": "/proc/none"}
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        environment.pop(name, None)
    command = [sys.executable, "-c", FLUX_COMMAND, "--file", str(song), "--output", "none"]
    done = subprocess.run(
        [*command, "--plot", str(tmp_path / "a.png")], env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "a.png").stat().st_size > 1000
    assert "matplotlib" not in done.stderr.lower()


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FLUX_COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# What it writes


def test_text_lines(
    song: Path, drums: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    assert beattrack("--file", song) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) > 8
    for line in lines:
        time_s, s, position, tempo, bpm, conf, confidence = line.split()
        assert (s, bpm, conf) == ("s", "bpm", "conf")
        assert float(time_s) > 0
        first, bar = map(int, position.split("/"))
        assert 1 <= first <= bar
        assert 55 <= float(tempo) <= 215
        assert 0 <= float(confidence) <= 1
    assert share_found(np.array([float(x.split()[0]) for x in lines]), drums[1][8:-1]) == 1
    assert "locked" in err
    assert f"song.wav: {len(lines)} beats" in err
    assert "0:08 of audio" in err


def test_all_results_of_one_song(song: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    names = {"--beats": "a.beats", "--jsonl": "a.jsonl", "--click": "a.wav", "--plot": "a.png"}
    options = [part for option, name in names.items() for part in (option, out / name)]
    assert beattrack("--file", song, *options, "--output", "none") == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(names.values())
    events = [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()]
    assert events[0]["type"] == "state"
    beats = [event for event in events if event["type"] == "beat"]
    wanted = {"time_s", "position", "beats_per_bar", "tempo_bpm", "confidence", "emitted_s"}
    assert all(wanted <= event.keys() and event["state"] == "locked" for event in beats)
    rows = [line.split("\t") for line in (out / "a.beats").read_text().splitlines()]
    assert [(float(t), int(p)) for t, p in rows] == [(b["time_s"], b["position"]) for b in beats]
    assert all(len(t.split(".")[1]) == 4 for t, _ in rows)
    assert soundfile.info(out / "a.wav").frames == 8 * RATE
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")


def test_events_equal_those_of_the_library(song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio, rate = soundfile.read(song, dtype="float32")
    assert beattrack("--file", song, "--output", "jsonl") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for block in (160, 441, 1000, 48000):
        tracker = LiveTracker(FluxModel(), rate)
        events = [
            event
            for begin in range(0, len(audio), block)
            for event in tracker.push(audio[begin : begin + block])
        ]
        assert [event.to_dict() for event in events + tracker.flush()] == lines


def test_beats_and_none_on_stdout(song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert beattrack("--file", song, "--output", "beats") == 0
    assert all(len(line.split("\t")) == 2 for line in capsys.readouterr().out.splitlines())
    assert beattrack("--file", song, "--output", "none") == 0
    assert capsys.readouterr().out == ""


def test_several_songs(song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other" / "song.flac"
    other.parent.mkdir()
    soundfile.write(other, soundfile.read(song)[0], RATE)
    folder = tmp_path / "results"
    code = beattrack("--file", song, "--file", other, "--beats", folder, "--click", folder)
    assert code == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["song-2.beats", "song-2.wav", "song.beats", "song.wav"]
    assert (folder / "song.beats").read_text() == (folder / "song-2.beats").read_text()
    out = capsys.readouterr().out
    assert out.count("== ") == 2
    assert f"== {other} ==" in out


def test_a_folder_takes_the_results_of_one_song(song: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert beattrack("--file", song, "--beats", tmp_path / "results", "--output", "none") == 0
    assert (tmp_path / "results" / "song.beats").stat().st_size > 50
    # A slash at the end means a folder too, which is made.
    assert beattrack("--file", song, "--beats", f"{tmp_path}/new/", "--output", "none") == 0
    assert (tmp_path / "new" / "song.beats").stat().st_size > 50


def test_one_bad_song_does_not_stop_the_others(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    missing = tmp_path / "missing.wav"
    folder = tmp_path / "results"
    files = [part for path in (bad, missing, song) for part in ("--file", path)]
    assert beattrack(*files, "--beats", folder, "--output", "none") == 1
    assert [path.name for path in folder.iterdir()] == ["song.beats"]
    err = capsys.readouterr().err
    assert "bad.wav' holds no audio" in err
    assert "There is no file" in err


@pytest.mark.parametrize("count", [0, 3, 440, 22050])
def test_next_to_nothing(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(count), RATE)
    out = {"--beats": "o.beats", "--click": "o.wav", "--plot": "o.png", "--jsonl": "o.jsonl"}
    options = [part for option, name in out.items() for part in (option, tmp_path / name)]
    assert beattrack("--file", path, *options) == 0
    assert (tmp_path / "o.beats").read_text() == ""
    assert soundfile.info(tmp_path / "o.wav").frames == count
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no beats" in printed.err


def test_silence_makes_no_beats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((20 * 8000, 2)), 8000)
    assert beattrack("--file", tmp_path / "a.wav") == 0
    assert capsys.readouterr().out == ""


def test_an_older_result_is_replaced_through_a_link(song: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "real.beats", tmp_path / "link.beats"
    real.write_text("older")
    link.symlink_to(real)
    assert beattrack("--file", song, "--beats", link, "--output", "none") == 0
    assert link.is_symlink()
    assert "\t" in real.read_text()


def test_a_pipe_takes_lines(song: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    process = start("--file", song, "--jsonl", fifo, "--output", "none")
    _, err = process.communicate(timeout=60)
    lines = os.read(reader, 65536).decode().splitlines()
    os.close(reader)
    assert process.returncode == 0, err
    assert len([json.loads(line) for line in lines]) > 8
    assert fifo.is_fifo()


def test_a_pipe_without_a_reader_ends_in_a_sentence(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "READER_S", 0.2)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert beattrack("--file", song, "--beats", fifo, "--output", "none") == 1
    err = capsys.readouterr().err
    assert "Waiting 0 s for a reader of the pipe" in err
    assert "Nobody reads the pipe" in err


@pytest.mark.parametrize("option", ["--beats", "--jsonl", "--click", "--plot", "--file", "--model"])
def test_an_empty_name_is_misuse(
    option: str, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beattrack("--file", song, f"{option}=") == 2
    assert "An empty name was given" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert beattrack("--version") == 0
    assert capsys.readouterr().out == f"beattrack {__version__}\n"
    assert beattrack("--help") == 0
    text = capsys.readouterr().out
    for word in ("--file", "--mic", "--device", "--list-devices", "--realtime", "--output",
                 "--beats", "--jsonl", "--click", "--plot", "--model", "--version",
                 "Examples", "beattrack --file song.mp3"):  # fmt: skip
        assert word in text


# What it refuses


def _sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("beattrack: error: ")
    assert err.count("\n") == 1
    return err.strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Give --file SONG or --mic"),
        (["--file", "{song}", "--mic"], "not both"),
        (["--file", "{song}", "--device", "1"], "--device belongs to --mic"),
        (["--mic", "--realtime"], "--realtime belongs to --file and --stdin"),
        (["--file", "{tmp}/nothing.wav"], "There is no file"),
        (["--file", "{tmp}"], "is a folder"),
        (["--file", "{song}", "--model", "{tmp}/nothing.onnx"], "There is no model file"),
        (["--file", "{song}", "--output", "xml"], "xml"),
        (["--file", "{song}", "--frobnicate"], "--frobnicate"),
        (["--file"], "--file"),
        (["{song}"], "give it as --file {song}"),
        (["{tmp}/nothing.wav"], "unexpected extra argument"),
        (["--file", "{song}", "--meter", "abc"], "value for '--meter': 'abc'"),
        (["--file", "{song}", "--beats", "a", "--beats", "b"], "--beats is given twice"),
        (["--file", "{song}", "--beats", "{song}/"], "must name a folder"),
        (["--calibrate", "--file", "{tmp}/nothing.wav"], "--calibrate stands alone"),
        (["--calibrate", "--meter", "3"], "--calibrate stands alone"),
        (["--file", "{song}", "--beats", "{tmp}/none/a.beats"], "There is no folder"),
        (["--file", "{song}", "--click", "{tmp}/a.mp3"], "must end in .wav"),
        (["--file", "{song}", "--plot", "{tmp}/a.bmp"], "must end in .png"),
        (["--file", "{song}", "--click", "{song}"], "would overwrite the input"),
        (["--file", "{song}", "--beats", "{song}"], "would overwrite the input"),
        (["--file", "{song}", "--beats", "{tmp}/a", "--jsonl", "{tmp}/a"], "would both write"),
        (["--file", "{song}", "--file", "{song}", "--beats", "{song}"], "must name a folder"),
        (["--file", "{song}", "--plot", "{tmp}/dir.png"], "not a regular file"),
    ],
)
def test_misuse(
    arguments: list[str], says: str, song: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if any("dir.png" in argument for argument in arguments):
        os.mkfifo(tmp_path / "dir.png")
    before = song.read_bytes()
    values = {"song": song, "tmp": tmp_path}
    assert beattrack(*(argument.format(**values) for argument in arguments)) == 2
    assert says.format(**values) in _sentence(capsys)
    assert song.read_bytes() == before


def test_control_characters_of_a_name_do_not_reach_the_terminal(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "a\x1b[2Jb\x07.wav"
    evil.write_bytes(song.read_bytes())
    assert beattrack("--file", evil, "--file", song) == 0
    assert beattrack("--file", tmp_path / "\x1b]0;gone.wav") == 2
    for text in capsys.readouterr():
        assert "\x1b" not in text and "\x07" not in text
        assert "\\x1b" in text
    assert beattrack("--file", tmp_path / "two\nlines.wav") == 2
    assert "two\\nlines" in _sentence(capsys)


def test_unreadable_audio_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wav"
    path.write_text("hello\n" * 1000)
    code = beattrack("--file", path, "--beats", tmp_path / "o.beats")
    assert code == 1
    assert "holds no audio" in _sentence(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_a_truncated_song_is_tracked_with_a_warning(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song.write_bytes(song.read_bytes()[:-300_000])
    assert beattrack("--file", song) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) > 3
    assert "warning: " in err
    assert "cut off" in err


def test_a_bad_model_is_a_failure(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.undo()
    model = tmp_path / "bad.onnx"
    model.write_bytes(b"this is no model")
    assert beattrack("--file", song, "--model", model) == 1
    assert "bad.onnx" in _sentence(capsys)


def test_a_full_disk_is_a_failure(song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = song.with_suffix(".jsonl")
    assert beattrack("--file", song, "--beats", "/dev/full", "--jsonl", other) == 1
    out, err = capsys.readouterr()
    assert "beattrack: error: Cannot write '/dev/full': No space left on device.\n" in err
    assert "Traceback" not in err
    # The other results do not suffer.
    assert len(out.splitlines()) < len(other.read_text().splitlines())
    assert len(out.splitlines()) > 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_a_failure(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    assert beattrack("--file", song, "--beats", tmp_path / "locked" / "a.beats") == 1
    assert "Permission denied" in _sentence(capsys)


def test_a_defect_is_one_sentence_unless_asked(
    song: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: object = None) -> None:
        raise ZeroDivisionError("deep inside\nsecond line")

    monkeypatch.setattr(session, "load_model", fails)
    assert beattrack("--file", song) == 1
    assert "Unexpected failure: deep inside (BEATTRACK_DEBUG=1" in _sentence(capsys)
    monkeypatch.setenv("BEATTRACK_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        beattrack("--file", song)


def test_no_portaudio_and_no_device_are_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for arguments in (["--mic"], ["--list-devices"]):
        assert beattrack(*arguments) == 1
        assert "apt install libportaudio2" in _sentence(capsys)


def test_without_sound_a_container_names_the_missing_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoInput(types.ModuleType):
        PortAudioError = RuntimeError

        def query_devices(self, device: object = None, kind: str | None = None) -> list[object]:
            if kind:
                raise self.PortAudioError("Error querying device -1")
            return []

    monkeypatch.setitem(sys.modules, "sounddevice", NoInput("sounddevice"))
    monkeypatch.delenv("PULSE_SERVER", raising=False)
    mark, sound = tmp_path / "mark", tmp_path / "snd"
    monkeypatch.setattr(microphone, "_CONTAINER_MARKS", (mark,))
    monkeypatch.setattr(microphone, "SOUND", sound)

    def told() -> str:
        told = set()
        for arguments in (["--mic"], ["--mic", "--device", "USB"], ["--list-devices"]):
            assert beattrack(*arguments) == 1
            told.add(_sentence(capsys))
        assert len(told) == 1
        return told.pop()

    assert told() == "beattrack: error: There is no sound input device."
    mark.touch()
    assert "--device /dev/snd --group-add audio" in told()
    assert "PULSE_SERVER=unix:" in told()
    sound.mkdir()
    assert "connect one" in told()
    (sound / "pcmC0D0c").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "--group-add audio" in told()
    assert "--device" not in told()
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert "in use" in told()
    monkeypatch.setenv("PULSE_SERVER", "unix:/tmp/pulse")
    assert "PULSE_SERVER does not answer" in told()


# How it ends


def test_interrupting_writes_what_there_is(song: Path, tmp_path: Path) -> None:
    names = {"--beats": "a.beats", "--jsonl": "a.jsonl", "--click": "a.wav", "--plot": "a.png"}
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = tmp_path / str(code)
        out.mkdir()
        options = [part for option, name in names.items() for part in (option, out / name)]
        process = start("--file", song, "--realtime", *options)
        assert process.stdout is not None
        for _ in range(3):
            assert " bpm " in process.stdout.readline()
        process.send_signal(number)
        rest, err = process.communicate(timeout=30)
        assert process.returncode == code, err
        assert "Traceback" not in err
        assert "song.wav: " in err
        assert "cut short: the whole lasts 0:08" in err
        assert sorted(path.name for path in out.iterdir()) == sorted(names.values())
        lines = 3 + len(rest.splitlines())
        assert len((out / "a.beats").read_text().splitlines()) == lines
        assert 0 < soundfile.info(out / "a.wav").frames < 8 * RATE


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_two_signals_at_once_are_one_wish() -> None:
    stop = StopRequest()
    stop.install()
    both = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    for number in both:
        signal.raise_signal(number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    assert stop.signal in both
    stop._asked_s -= SAME_S  # and later, a second one ends the program
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_real_time_is_real(song: Path) -> None:
    began = time.monotonic()
    process = start("--file", song, "--realtime", "--output", "jsonl")
    assert process.stdout is not None
    waits = []  # between hearing a beat and reading its line, by the clock on the wall
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "beat":
            waits.append(time.monotonic() - began - event["emitted_s"])
    assert process.wait() == 0
    assert time.monotonic() - began > 8
    # Starting takes its time; after that, lines must keep pace.
    assert max(waits) - min(waits) < 0.25


def test_without_a_terminal_the_log_says_how_a_live_source_does(
    song: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "APART_S", 0.1)
    monkeypatch.setattr(journal, "EVERY_S", 3.0)
    assert beattrack("--file", song, "--realtime") == 0
    assert len(re.findall(r"^beattrack: song\.wav: -\d+ dB$", capsys.readouterr().err, re.M)) == 2
    monkeypatch.setattr(journal, "EVERY_S", 0.0)
    assert beattrack("--file", song) == 0
    assert " dB" not in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly(song: Path, tmp_path: Path) -> None:
    process = start("--file", song, "--realtime", "--beats", tmp_path / "a.beats")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    err = process.stderr.read()
    assert "Traceback" not in err
    assert "Exception" not in err
    assert "Broken" not in err
    assert len((tmp_path / "a.beats").read_text().splitlines()) >= 1


def test_closed_stdout_and_stderr_do_no_harm(song: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FLUX_COMMAND, "--file", str(song), "--beats"]
    shell = 'exec "$@" <&- >&- 2>&-'
    result = subprocess.run(["sh", "-c", shell, "sh", *command, str(tmp_path / "a.beats")])
    assert result.returncode == 0
    assert len((tmp_path / "a.beats").read_text().splitlines()) > 5


def test_the_command_stays_small(song: Path) -> None:
    # Not resource.getrusage: a child begins with the peak of the process that started it.
    code = """
import atexit, sys
def report():
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
    print(*sorted({"av", "matplotlib", "rich", "scipy", "sounddevice"} & set(sys.modules)))
atexit.register(report)
"""
    result = subprocess.run(
        [sys.executable, "-c", code + FLUX_COMMAND, "--file", str(song), "--output", "none"],
        capture_output=True,
        text=True,
    )
    peak_kb, imported = result.stdout.splitlines()
    assert imported == ""
    assert int(peak_kb) < 100_000  # without onnxruntime, some 25 MB


def test_the_live_line_shares_a_terminal_with_the_beats(song: Path) -> None:
    import pty

    main_end, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", FLUX_COMMAND, "--file", str(song)],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(main_end)
    assert process.wait() == 0
    text = shown.decode()
    assert "━" in text
    assert "locked" in text
    assert re.search(r"\d+%  0:0\d/0:08", text)
    beats = [line for line in text.splitlines() if " conf " in line]
    assert len(beats) > 8
    assert "of audio in" in text.splitlines()[-1]


def test_three_lines_of_python(drums: tuple[np.ndarray, np.ndarray]) -> None:
    from beattrack_runtime import open_tracker

    tracker = open_tracker(sample_rate=RATE)
    events = tracker.push(drums[0])
    assert sum(isinstance(event, Beat) for event in events) > 8


@pytest.mark.skipif(not STARTER_MODEL.exists(), reason="the starter model is not there yet")
def test_the_shipped_model_on_the_bundled_song() -> None:
    song = next((Path(__file__).parents[1] / "runtime" / "demo").glob("*.ogg"))
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "beattrack_runtime", "--file", str(song), "--output", "jsonl"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    first_s = time.monotonic() - began
    # The peak so far; the program cannot be asked after its end.
    status = Path(f"/proc/{process.pid}/status").read_text()
    lines += process.stdout.readlines()
    assert process.wait() == 0
    assert first_s < 3  # `just bench` measures it; here the machine may be busy
    assert int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) < 150_000
    beats = [event for event in map(json.loads, lines) if event["type"] == "beat"]
    assert len(beats) > 50
    assert all(b["time_s"] < a["time_s"] for b, a in itertools.pairwise(beats))
