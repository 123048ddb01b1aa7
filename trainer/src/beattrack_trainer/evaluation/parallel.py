"""Work on many tracks, in this process or in several, with a progress bar."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from rich.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(
    work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, title: str
) -> Iterator[tuple[Task, Result]]:
    """Yield (task, result) in the order in which they are done.

    Args:
        work: a function of a module, or a partial of one, when ``jobs`` is above 1.
        tasks: what to do.
        jobs: processes; 1 works in this one.
        title: of the progress bar.
    """
    if jobs == 1:
        for task in track(tasks, title):
            yield task, work(task)
        return
    # Fresh processes: the threads of onnxruntime and torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _leave_interrupts) as pool:
        futures = {pool.submit(work, task): task for task in tasks}
        try:
            for done in track(as_completed(futures), title, total=len(futures)):
                yield futures[done], done.result()
        finally:  # after Ctrl-C the tasks that have begun are finished, and no more
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    """Leave Ctrl-C to the parent, which tells the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
