"""Thresholds of peak picking: every pair scored, and a pair chosen on validation tracks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beattrack.config import ConfigError
from beattrack_trainer.evaluation.live import Curves, opened
from beattrack_trainer.evaluation.offline import peaks
from beattrack_trainer.evaluation.parallel import each
from beattrack_trainer.evaluation.scores import beat_f, plain, trim
from beattrack_trainer.training.excerpts import Item, open_parts
from beattrack_trainer.training.runs import Run

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
# Taken where no validation track is at hand; about what suits the starter model.
DEFAULT = (0.2, 0.2)
_BLOCK = 500  # frames a step

# float64 [2, thresholds]: F-measure of beats, of downbeats, at each of THRESHOLDS
Row = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A pair of thresholds and where it comes from."""

    beat: float
    downbeat: float
    origin: str  # in words
    tracks: int  # on which it was chosen; 0 for the default

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return vars(self).copy()


def threshold_row(
    reference: NDArray[np.float64], beat: NDArray[np.float64], downbeat: NDArray[np.float64]
) -> Row:
    """Score the peaks of one track at every threshold.

    Args:
        reference: float64 [beats, 2]: seconds, beat in bar.
        beat: peaks of the beat activation as ``offline.peaks`` gives them.
        downbeat: peaks of the downbeat activation.

    Returns:
        float64 [2, thresholds]; nan where no downbeats are annotated.
    """
    truths = trim(reference[:, 0]), trim(reference[reference[:, 1] == 1, 0])
    pairs = zip(truths, (beat, downbeat), strict=True)
    return np.array(
        [[beat_f(t, trim(p[p[:, 1] >= level, 0])) for level in THRESHOLDS] for t, p in pairs]
    )


def mean_row(rows: Sequence[Row]) -> Row:
    """Return the mean over tracks, nan left out; nan where nothing is left."""
    stack = np.array(rows)
    known = ~np.isnan(stack)
    total, count = np.where(known, stack, 0).sum(axis=0), known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def all_pairs(row: Row) -> list[dict[str, float | None]]:
    """Return the F-measures of every pair of thresholds.

    Beats and downbeats are picked apart, so ``beat_f`` follows from the first threshold alone and
    ``downbeat_f`` from the second.
    """
    return [
        {"beat": b, "downbeat": d, "beat_f": plain(row[0, i]), "downbeat_f": plain(row[1, j])}
        for i, b in enumerate(THRESHOLDS)
        for j, d in enumerate(THRESHOLDS)
    ]


def best_pair(row: Row) -> tuple[float, float]:
    """Return the pair with the best mean of both F-measures; the default where one is unknown."""
    best = [
        DEFAULT[k] if np.isnan(row[k]).any() else THRESHOLDS[int(row[k].argmax())] for k in (0, 1)
    ]
    return best[0], best[1]


def default_choice(why: str) -> Choice:
    """Return the default thresholds, with the reason why none were chosen."""
    return Choice(*DEFAULT, f"the default, since {why}", 0)


def choose(model: Path, run: Run, jobs: int) -> Choice:
    """Choose thresholds on the run's validation tracks, from its feature stores.

    Args:
        model: the ONNX file of the run.
        run: says which tracks it was validated on.
        jobs: processes.
    """
    try:
        items = open_parts(run.settings()).validation
    except ConfigError as error:
        return default_choice(f"the run's validation tracks are not at hand ({error})")
    if not items:
        return default_choice("the run was trained on all folds and has no validation tracks")
    answers = each(partial(_item_row, model), items, jobs, "Thresholds")
    rows = [row for _, row in answers if row is not None]
    if not rows:
        return default_choice("not one of the run's validation tracks could be read")
    best = best_pair(mean_row(rows))
    where = ", ".join(run.settings().data.data)
    return Choice(*best, f"chosen on the validation fold of {where}", len(rows))


def _item_row(model: Path, item: Item) -> Row:
    """Return the row of a track in a feature store."""
    network = opened(model)
    network.reset()
    frames = item.store.frames(item.name)
    parts = []
    for start in range(0, len(frames), _BLOCK):
        said = network.step(np.asarray(frames[start : start + _BLOCK], dtype=np.float32))
        parts.append(np.column_stack([said.beat, said.downbeat]))
    fps = network.features.fps
    first_s = (0.5 - network.latency_frames) / fps + network.decoder.offset_s
    return threshold_row(
        item.store.beats(item.name), *peaks(Curves(np.concatenate(parts), first_s, fps))
    )
