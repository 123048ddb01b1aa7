"""A pipe that nobody reads, drums to track, and a receiver that says whether beats were on time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from flux_model import drum_loop

RATE = 44100
SONG_S = 8


def write_song(folder: Path) -> Path:
    """Write eight seconds of drums at 120 bpm."""
    path = folder / "song.wav"
    soundfile.write(path, np.clip(drum_loop(SONG_S, 120, RATE, 0.25)[0] / 2, -1, 1), RATE)
    return path


def full_pipe() -> tuple[int, int]:
    """A pipe of one page that takes nothing more."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"#" * 4095 + b"\n")
    return read, write


@contextlib.contextmanager
def osc_beats() -> Iterator[tuple[int, list[float]]]:
    """Receive OSC: (port, when beats came)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.1)
        found: list[float] = []
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    if receiver.recv(1024).startswith(b"/beattrack/beat"):
                        found.append(time.monotonic())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield receiver.getsockname()[1], found
        finally:
            ended.set()
            thread.join()


def on_time(beats: list[float]) -> None:
    assert len(beats) > 9
    assert np.diff(beats).max() < 0.65  # at 120 bpm
