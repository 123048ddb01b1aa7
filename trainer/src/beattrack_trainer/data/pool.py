"""Work on many files in several processes, of which any may die over a bad file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")

DIED = "the process that read it died, perhaps for want of memory or in a codec"


def run_each(
    function: Callable[[Job], Answer], work: Iterable[Job], jobs: int
) -> Iterator[tuple[Job, Answer | None]]:
    """Call a function for each job in several processes; yield each job with its answer.

    They come as they are done; None is the answer of a job whose process died. Such a process
    breaks its pool, and the pool cannot say over which job. No more jobs are handed out than there
    are processes, so it was one of these: each is tried again alone.
    """
    left = deque(work)
    while left:
        running: dict[Future[Answer], Job] = {}
        with _pool(jobs) as pool, suppress(BrokenProcessPool):
            while left or running:
                while left and len(running) < jobs:
                    running[pool.submit(function, left[0])] = left[0]
                    left.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    answer = future.result()
                    yield running.pop(future), answer
        for suspect in running.values():
            yield suspect, _run_alone(function, suspect)


def _run_alone(function: Callable[[Job], Answer], job: Job) -> Answer | None:
    with _pool(1) as pool:
        try:
            return pool.submit(function, job).result()
        except BrokenProcessPool:
            return None


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the progress display is a thread, and forking with threads can hang.
    return ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it does: a pool's worker would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
