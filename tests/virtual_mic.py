"""A virtual sound card: PulseAudio with a microphone that reads from a pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

RATE = 48000  # of the virtual microphone, Hz
CHUNK_S = 0.01
_SOURCE = ("source_name=vmic", "format=s16le", f"rate={RATE}", "channels=1")


@dataclass
class Microphone:
    """A running sound server."""

    fifo: Path
    socket: Path
    environment: dict[str, str]
    began_s: float = 0.0  # when the first sample of what is played was due, monotonic

    def pull_out(self) -> None:
        """Take the microphone away, as if unplugged."""
        self._control("unload-module", "module-pipe-source")

    def plug_in(self) -> None:
        """Bring it back."""
        self._control("load-module", "module-pipe-source", *_SOURCE, f"file={self.fifo}")
        self._control("set-default-source", "vmic")

    def add_sink(self) -> None:
        """Make a loudspeaker that nobody hears."""
        self._control("load-module", "module-null-sink", "sink_name=room", f"rate={RATE}")
        self._control("set-default-sink", "room")

    def loop_back(self) -> None:
        """Make a loudspeaker whose sound is what the microphone hears."""
        self.add_sink()
        self._control("set-default-source", "room.monitor")

    def _control(self, *words: str) -> None:
        subprocess.run(["pactl", *words], env=self.environment, check=True, capture_output=True)

    def play(self, audio: np.ndarray, stop: threading.Event) -> None:
        """Feed audio, float32 [n] at RATE, in real time; silence follows until ``stop``.

        A chunk goes in when its last sample is due, as a sound card would give it.
        """
        pcm = (np.clip(audio, -1, 1) * 32767).astype("<i2")
        size = round(CHUNK_S * RATE)
        pipe = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        try:
            began = self.began_s = time.monotonic()
            number = 0
            while not stop.is_set():
                chunk = pcm[number * size : (number + 1) * size]
                chunk = np.pad(chunk, (0, size - len(chunk)))
                number += 1
                time.sleep(max(0.0, began + number * CHUNK_S - time.monotonic()))
                try:
                    os.write(pipe, chunk.tobytes())
                except OSError as error:
                    if error.errno == errno.EPIPE:  # it has been pulled out
                        return
                    if error.errno != errno.EAGAIN:  # a full pipe: the server is behind
                        raise
        finally:
            os.close(pipe)


@contextlib.contextmanager
def sound_server(folder: Path) -> Iterator[Microphone]:
    """Run a sound server of our own with its files in ``folder``; skip where that is impossible."""
    if shutil.which("pulseaudio") is None or shutil.which("pactl") is None:
        pytest.skip("pulseaudio and pulseaudio-utils are not installed")
    fifo, socket = folder / "fifo", folder / "socket"
    (folder / "mic.pa").write_text(
        f"load-module module-pipe-source {' '.join(_SOURCE)} file={fifo}\n"
        "set-default-source vmic\n"
        f"load-module module-native-protocol-unix auth-anonymous=1 socket={socket}\n"
    )
    (folder / ".asoundrc").write_text("pcm.!default pulse\nctl.!default pulse\n")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_SERVER": f"unix:{socket}",
    }
    command = ["pulseaudio", "-n", "-F", str(folder / "mic.pa"), "--daemonize=no"]
    command += ["--exit-idle-time=-1", "--use-pid-file=no"]
    log = (folder / "pulse.log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(100):
            asked = subprocess.run(
                ["pactl", "list", "short", "sources"], env=environment, capture_output=True
            )
            if b"vmic" in asked.stdout:
                break
            if server.poll() is not None:
                pytest.skip(f"no sound server can start: {(folder / 'pulse.log').read_text()}")
            time.sleep(0.1)
        else:
            pytest.skip("the sound server did not offer its microphone within 10 s")
        yield Microphone(fifo, socket, environment)
    finally:
        server.terminate()
        server.wait(10)
        log.close()


@contextlib.contextmanager
def playing(microphone: Microphone, audio: np.ndarray) -> Iterator[None]:
    """Play ``audio`` into it meanwhile."""
    stop = threading.Event()
    player = threading.Thread(target=microphone.play, args=(audio, stop))
    player.start()
    try:
        yield
    finally:
        stop.set()
        player.join()


def wait_for(process: subprocess.Popen[str], text: str, seconds: float = 20) -> None:
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


def read_lines(process: subprocess.Popen[str], lines: list[tuple[float, str]]) -> None:
    """Collect the process's stdout: (when a line came, the line)."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.append((time.monotonic(), line))
