"""The folder of a set while it is rendered: one run at a time, no leftovers, workers that end."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from beattrack_trainer.files import naming

SCRATCH = ".scratch"
PARTS = ("tracks", "beats", "segments")
PATIENCE_S = 5.0  # for the workers of a killed run to end


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Hold a set's folder and give its scratch folder, empty; what a killed run left is removed.

    Raises ``ValueError`` when another run holds the folder.
    """
    for name in PARTS[:2]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    scratch = folder / SCRATCH
    with (folder / ".lock").open("w") as lock:
        _lock(lock.fileno(), folder)
        shutil.rmtree(scratch, ignore_errors=True)
        for name in PARTS:
            for leftover in (folder / name).glob("*.part"):
                leftover.unlink()
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _lock(descriptor: int, folder: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise ValueError(
                    f"Another run is rendering into {folder}; wait for it or give a new folder."
                ) from None
            time.sleep(0.05)


def workers(jobs: int) -> ProcessPoolExecutor:
    """A pool of rendering processes that leave Ctrl-C to their parent and end when it does."""
    # Spawned, not forked: the progress display is a thread, and forking with threads can hang.
    return ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def write_whole(path: Path, text: str) -> None:
    """Write a text file by way of a temporary name, so that it is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")  # one that a kill leaves is swept up
    with naming(path):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
