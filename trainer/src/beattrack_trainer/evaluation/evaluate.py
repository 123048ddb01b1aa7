"""Score a model on tracks through the live path, several tracks at a time."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.progress import track

from beattrack_runtime.errors import BeattrackError
from beattrack_runtime.session import load_model
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.folders import Track
from beattrack_trainer.evaluation.live import listen
from beattrack_trainer.evaluation.scores import Scores, plain, score

Result = TypeVar("Result")


@dataclass(frozen=True)
class Scored:
    """Scores by track name, and why the other tracks have none."""

    rows: dict[str, Scores]
    skipped: dict[str, str]

    def mean(self) -> dict[str, float | None]:
        """Return ``mean_scores`` of the rows; empty when there are none."""
        return mean_scores(list(self.rows.values()))


def score_items(model: Path | None, tracks: list[Track], jobs: int = 1) -> Scored:
    """Score the live path alone, without anything offline beside it and without a report.

    Args:
        model: an ONNX file; None is the shipped starter model.
        tracks: what to score it on; a track that cannot be scored is left out, with its reason.
        jobs: processes.

    Raises:
        ModelError: the model cannot be used.
    """
    load_model(model)  # so that a model that cannot be used is told once, not for every track
    rows: dict[str, Scores] = {}
    skipped: dict[str, str] = {}
    for name, result in each(_score_live, model, tracks, jobs):
        if isinstance(result, str):
            skipped[name] = result
        else:
            rows[name] = result
    return Scored(dict(sorted(rows.items())), dict(sorted(skipped.items())))


def _score_live(model: Path | None, item: Track) -> Scores | str:
    """Return a track's scores, or in a sentence why it has none."""
    try:
        heard = listen(model, item.audio)
        reference = read_beats(item.beats)
        # Annotations often run on after the audio ends; what was not heard is not asked for.
        return score(reference[reference[:, 0] < heard.seconds], heard.events)
    except (ValueError, OSError, BeattrackError) as error:
        return str(error)


def each(
    work: Callable[[Path | None, Track], Result],
    model: Path | None,
    tracks: list[Track],
    jobs: int,
) -> Iterator[tuple[str, Result]]:
    """Yield (track name, result) as they are done, with a progress bar."""
    if jobs == 1:
        for item in track(tracks, "Scoring"):
            yield item.name, work(model, item)
        return
    # Fresh processes: threads of onnxruntime and torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tracks)), context, _leave_interrupts) as pool:
        futures = {pool.submit(work, model, item): item.name for item in tracks}
        try:
            for done in track(as_completed(futures), "Scoring", total=len(futures)):
                yield futures[done], done.result()
        finally:  # after Ctrl-C, the tracks that have begun are finished and no more
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    """Leave Ctrl-C to the parent: it tells the others to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def mean_scores(rows: list[Scores]) -> dict[str, float | None]:
    """Return the mean of each score over tracks, for times and tempi the median; nan left out.

    A track that never locked counts as infinitely late; a median that is infinite is None.
    """
    result: dict[str, float | None] = {}
    for name in asdict(rows[0]) if rows else ():
        if name == "level":
            continue
        values = np.array([getattr(r, name) for r in rows], dtype=np.float64)
        values = values[~np.isnan(values)]
        middle = np.median if name.endswith(("_ms", "_s", "_bpm")) else np.mean
        result[name] = plain(middle(values)) if len(values) else None
    return result
