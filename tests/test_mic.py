"""`--mic` against a virtual sound card: PulseAudio with a microphone that reads from a pipe."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from audio_tools import FLUX_COMMAND, share_found
from flux_model import drum_loop

RATE = 48000  # of the virtual microphone, Hz
CHUNK_S = 0.01


@dataclass
class Microphone:
    """A running sound server."""

    fifo: Path
    environment: dict[str, str]

    def play(self, audio: np.ndarray, stop: threading.Event) -> None:
        """Feed audio, float32 [n] at RATE, in real time; silence follows until ``stop``."""
        pcm = (np.clip(audio, -1, 1) * 32767).astype("<i2")
        size = round(CHUNK_S * RATE)
        pipe = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        try:
            began = time.monotonic()
            number = 0
            while not stop.is_set():
                chunk = pcm[number * size : (number + 1) * size]
                chunk = np.pad(chunk, (0, size - len(chunk)))
                try:
                    os.write(pipe, chunk.tobytes())
                except OSError as error:
                    if error.errno != errno.EAGAIN:  # a full pipe: the server is behind
                        raise
                number += 1
                time.sleep(max(0.0, began + number * CHUNK_S - time.monotonic()))
        finally:
            os.close(pipe)


@pytest.fixture
def microphone(tmp_path: Path) -> Iterator[Microphone]:
    """Start a sound server of our own; skip where that is impossible."""
    if shutil.which("pulseaudio") is None or shutil.which("pactl") is None:
        pytest.skip("pulseaudio and pulseaudio-utils are not installed")
    fifo, socket = tmp_path / "fifo", tmp_path / "socket"
    (tmp_path / "mic.pa").write_text(
        f"load-module module-pipe-source source_name=vmic file={fifo} format=s16le "
        f"rate={RATE} channels=1\n"
        "set-default-source vmic\n"
        f"load-module module-native-protocol-unix auth-anonymous=1 socket={socket}\n"
    )
    (tmp_path / ".asoundrc").write_text("pcm.!default pulse\nctl.!default pulse\n")
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PULSE_SERVER": f"unix:{socket}",
    }
    command = ["pulseaudio", "-n", "-F", str(tmp_path / "mic.pa"), "--daemonize=no"]
    command += ["--exit-idle-time=-1", "--use-pid-file=no"]
    log = (tmp_path / "pulse.log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(100):
            asked = subprocess.run(
                ["pactl", "list", "short", "sources"], env=environment, capture_output=True
            )
            if b"vmic" in asked.stdout:
                break
            if server.poll() is not None:
                pytest.skip(f"no sound server can start: {(tmp_path / 'pulse.log').read_text()}")
            time.sleep(0.1)
        else:
            pytest.skip("the sound server did not offer its microphone within 10 s")
        listed = _beattrack(["--list-devices"], environment)
        if "pulse" not in listed.stdout:
            pytest.skip(f"PortAudio does not see the sound server: {listed.stdout}{listed.stderr}")
        yield Microphone(fifo, environment)
    finally:
        server.terminate()
        server.wait(10)
        log.close()


def _beattrack(
    arguments: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FLUX_COMMAND, *arguments],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def _wait_for(process: subprocess.Popen[str], text: str, seconds: float = 20) -> None:
    """Read the process's stderr until it says ``text``."""
    assert process.stderr is not None
    heard = ""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([process.stderr], [], [], 0.2)[0]:
            heard += os.read(process.stderr.fileno(), 4096).decode()
            if text in heard:
                return
    raise AssertionError(f"no '{text}' in: {heard}")


def test_lists_the_microphone(microphone: Microphone) -> None:
    result = _beattrack(["--list-devices"], microphone.environment)
    assert result.returncode == 0
    assert "(default)" in result.stdout


def test_tracks_live_sound_until_interrupted(microphone: Microphone, tmp_path: Path) -> None:
    audio, truth = drum_loop(14, 120, RATE, 0.25)
    beats, click = tmp_path / "live.beats", tmp_path / "live.wav"
    process = subprocess.Popen(
        [sys.executable, "-c", FLUX_COMMAND, "--mic", "--output", "jsonl",
         "--beats", str(beats), "--click", str(click)],
        env=microphone.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: list[tuple[float, str]] = []  # (when it came, line)
    reader = threading.Thread(target=_read_lines, args=(process, lines))
    reader.start()
    stop = threading.Event()
    try:
        _wait_for(process, "Listening to")
        began = time.monotonic()
        player = threading.Thread(target=microphone.play, args=(audio, stop))
        player.start()
        time.sleep(14)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        err = process.stderr.read() if process.stderr else ""
    finally:
        stop.set()
        process.kill()
        player.join()
        reader.join()
    assert "overrun" not in err
    assert "dropped" not in err
    events = [(when, json.loads(line)) for when, line in lines]
    found = [(when, event) for when, event in events if event["type"] == "beat"]
    times = np.array([event["time_s"] for _, event in found])
    # The device delivers from the first sample played, so stream time is the song's own.
    assert share_found(times, truth[8:-2]) >= 0.95
    # The line of a beat comes when the beat is heard, by the clock on the wall.
    late = [when - began - truth for when, _ in found]
    late_s = np.array([row[np.abs(row).argmin()] for row in late])
    assert abs(np.median(late_s)) <= 0.1
    written = [float(line.split("\t")[0]) for line in beats.read_text().splitlines()]
    assert np.allclose(written, times, atol=1e-3)
    assert click.stat().st_size > 10 * RATE * 2


def _read_lines(process: subprocess.Popen[str], lines: list[tuple[float, str]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append((time.monotonic(), line))


def test_a_device_that_goes_away_is_reported(microphone: Microphone) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FLUX_COMMAND, "--mic", "--output", "none"],
        env=microphone.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _wait_for(process, "Listening to")
        subprocess.run(["pactl", "unload-module", "module-pipe-source"], env=microphone.environment)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "went away" in err
    assert "Traceback" not in err


def test_an_unknown_device_is_one_sentence(microphone: Microphone) -> None:
    result = _beattrack(["--mic", "--device", "no such thing"], microphone.environment)
    assert result.returncode == 1
    assert "There is no input device 'no such thing'" in result.stderr
    assert "Traceback" not in result.stderr
