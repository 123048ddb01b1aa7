"""Evaluate a model on tracks: the live path, and beside it what is not live."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from beattrack_runtime.errors import BeattrackError
from beattrack_runtime.session import load_model
from beattrack_trainer import __version__
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.folders import DataSet, Track
from beattrack_trainer.data.pool import DIED
from beattrack_trainer.evaluation.live import listen
from beattrack_trainer.evaluation.offline import require_dbn
from beattrack_trainer.evaluation.parallel import each
from beattrack_trainer.evaluation.scores import LEVELS, BeatScores, Scores, plain, score
from beattrack_trainer.evaluation.subjects import Selection, Subject
from beattrack_trainer.evaluation.thresholds import Choice, choose, default_choice
from beattrack_trainer.evaluation.tracks import Task, TrackResult, evaluate_track

CACHE = ".heard"  # in the folder of the results, until they are written
BOOTSTRAP = 10_000  # resamples of the tracks
CONFIDENCE = 0.95


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
    for item, result in each(partial(_score_live, model), tracks, jobs, "Scoring"):
        if result is None or isinstance(result, str):
            skipped[item.name] = result or DIED
        else:
            rows[item.name] = result
    return Scored(dict(sorted(rows.items())), dict(sorted(skipped.items())))


def _score_live(model: Path | None, item: Track) -> Scores | str:
    """Return a track's scores, or in a sentence why it has none."""
    try:
        heard = listen(model, item.audio)
        reference = read_beats(item.beats)
        return score(reference[reference[:, 0] < heard.seconds], heard.events)
    except (ValueError, OSError, BeattrackError) as error:
        return str(error)


@dataclass(frozen=True)
class Evaluation:
    """A model on a selection of tracks."""

    subject: Subject
    data: DataSet
    selection: Selection
    choice: Choice  # of the thresholds of peak picking
    tracks: dict[str, TrackResult]  # by name, sorted
    skipped: dict[str, str]  # name, reason
    dbn: bool  # whether the offline DBN was run
    took_s: float

    def live(self) -> list[Scores]:
        """Return the scores of the live path, in the order of ``tracks``."""
        return [t.live for t in self.tracks.values()]


def evaluate(
    subject: Subject, data: DataSet, selection: Selection, folder: Path, dbn: bool, jobs: int
) -> Evaluation:
    """Evaluate a model; what was heard is kept in ``folder`` so that a kill loses nothing.

    Args:
        subject: the model.
        data: the data set, for its name.
        selection: the tracks.
        folder: where the results will be written.
        dbn: run madmom's offline DBN as well.
        jobs: processes.

    Raises:
        ConfigError: the DBN is asked for and madmom is not installed.
        ValueError: not one track can be scored.
    """
    if dbn:
        require_dbn()
    began = time.monotonic()
    choice = _thresholds(subject, selection, jobs)
    # Another model or version of the code must not go on with what this one heard.
    cache = folder / CACHE / f"{__version__}-{subject.sha256()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    task = Task(subject.model, (choice.beat, choice.downbeat), dbn, cache)
    found: dict[str, TrackResult] = {}
    skipped: dict[str, str] = {}
    for item, result in each(
        partial(evaluate_track, task), selection.tracks, jobs, f"{subject.name} on {data.name}"
    ):
        if result is None or isinstance(result, str):
            skipped[item.name] = result or DIED
        else:
            found[item.name] = result
    if not found:
        reason = next(iter(skipped.values()))
        raise ValueError(f"Not one of {len(skipped)} tracks could be scored; the first: {reason}")
    return Evaluation(
        subject, data, selection, choice, dict(sorted(found.items())),
        dict(sorted(skipped.items())), dbn, time.monotonic() - began,
    )  # fmt: skip


def _thresholds(subject: Subject, selection: Selection, jobs: int) -> Choice:
    """Return thresholds that were chosen on other tracks than those evaluated."""
    if subject.run is None:
        return default_choice("a model file comes without its validation tracks")
    if not selection.held_out:
        return default_choice("the validation tracks are among those scored")
    return choose(subject.model, subject.run, jobs)


def mean_scores(rows: list[Scores] | list[BeatScores]) -> dict[str, float | None]:
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


def interval(values: list[float]) -> list[float] | None:
    """Return the 95 % bootstrap interval of the mean over tracks; None below two tracks.

    Percentiles of the means of 10,000 resamples with a fixed seed (Efron 1979).
    """
    known = np.array([v for v in values if not np.isnan(v)])
    if len(known) < 2:
        return None
    random = np.random.default_rng(0)
    means = [known[random.integers(len(known), size=len(known))].mean() for _ in range(BOOTSTRAP)]
    edge = 50 * (1 - CONFIDENCE)
    return [round(float(v), 4) for v in np.percentile(means, [edge, 100 - edge])]


def level_shares(rows: list[Scores]) -> dict[str, float]:
    """Return the share of tracks at each metrical level."""
    return {name: round(sum(r.level == name for r in rows) / len(rows), 4) for name in LEVELS}
