"""One track evaluated: the live path, and beside it the DBN and peak picking."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.errors import BeattrackError
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.folders import Track
from beattrack_trainer.evaluation.live import Curves, Heard, listen
from beattrack_trainer.evaluation.offline import dbn_beats, peaks
from beattrack_trainer.evaluation.scores import (
    BeatScores,
    Scores,
    beat_f,
    score,
    score_beats,
    trim,
)
from beattrack_trainer.evaluation.thresholds import Row, threshold_row
from beattrack_trainer.files import naming


@dataclass(frozen=True)
class Task:
    """What is the same for all tracks."""

    model: Path | None  # None is the shipped starter model
    thresholds: tuple[float, float]  # of peak picking: beat, downbeat
    dbn: bool
    cache: Path  # where what was heard is kept until the evaluation is finished


@dataclass(frozen=True)
class TrackResult:
    """All that the report says of one track."""

    reference: NDArray[np.float64]  # [beats, 2]: seconds, beat in bar; cut to the audio
    heard: Heard
    live: Scores
    dbn: BeatScores | None
    picked: BeatScores  # peak picking at the task's thresholds
    picked_emitted: float  # F-measure of the times at which those peaks are known
    row: Row  # peak picking at every threshold


def evaluate_track(task: Task, item: Track) -> TrackResult | str:
    """Return a track's result, or in a sentence why it has none."""
    try:
        heard, dbn = _listen_once(task, item)
        reference = read_beats(item.beats)
        # Annotations often run on after the audio ends; what was not heard is not asked for.
        reference = reference[reference[:, 0] < heard.seconds]
        live = score(reference, heard.events)
    except (ValueError, OSError, BeattrackError) as error:
        return str(error)
    beat, downbeat = peaks(heard.curves)
    high = beat[beat[:, 1] >= task.thresholds[0]]
    high_downbeat = downbeat[downbeat[:, 1] >= task.thresholds[1]]
    return TrackResult(
        reference=reference,
        heard=heard,
        live=live,
        dbn=score_beats(reference, dbn[:, 0], dbn[dbn[:, 1] == 1, 0]) if task.dbn else None,
        picked=score_beats(reference, high[:, 0], high_downbeat[:, 0]),
        picked_emitted=beat_f(trim(reference[:, 0]), trim(high[:, 2])),
        row=threshold_row(reference, beat, downbeat),
    )


def _listen_once(task: Task, item: Track) -> tuple[Heard, NDArray[np.float64]]:
    """Return what is heard and the DBN's beats; from the cache if a stopped evaluation got them."""
    about = item.audio.stat()
    stamp = np.array([about.st_size, about.st_mtime_ns, task.dbn], dtype=np.int64)
    file = task.cache / f"{item.name}.npz"
    known = _read(file, stamp)
    if known is not None:
        return known
    heard = listen(task.model, item.audio)
    dbn = dbn_beats(heard.curves) if task.dbn else np.empty((0, 2))
    curves = heard.curves
    numbers = [curves.first_s, curves.fps, curves.input_delay_s, heard.seconds]
    temporary = task.cache / f".{os.getpid()}-{item.name}.npz"
    with naming(file):
        np.savez(temporary, stamp=stamp, events=heard.events, frames=curves.frames,
                 numbers=numbers, dbn=dbn)  # fmt: skip
        temporary.replace(file)
    return heard, dbn


def _read(file: Path, stamp: NDArray[np.int64]) -> tuple[Heard, NDArray[np.float64]] | None:
    """Return what the cache holds of a track; None if nothing, or of another audio file."""
    try:
        with np.load(file, allow_pickle=False) as values:
            if not np.array_equal(values["stamp"], stamp):
                return None
            first_s, fps, delay, seconds = map(float, values["numbers"])
            curves = Curves(values["frames"], first_s, fps, delay)
            return Heard(values["events"], curves, seconds), values["dbn"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
