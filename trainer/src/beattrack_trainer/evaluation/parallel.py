"""Work on many tracks, in this process or in several, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from beattrack_trainer.data.pool import run_each

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(
    work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, title: str
) -> Iterable[tuple[Task, Result | None]]:
    """Yield (task, result) in the order in which they are done.

    Args:
        work: a function of a module, or a partial of one, when ``jobs`` is above 1.
        tasks: what to do.
        jobs: processes; 1 works in this one. None is the result where another died.
        title: of the progress bar.
    """
    alone = ((task, work(task)) for task in tasks)
    done = alone if jobs == 1 else run_each(work, tasks, jobs)
    return track(done, title, total=len(tasks), console=Console(stderr=True))
