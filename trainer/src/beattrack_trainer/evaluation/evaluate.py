"""Score a model through the live path: blocks of audio in, events out, as a live user gets them."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from beattrack.events import Beat
from beattrack_runtime import open_tracker
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.folders import DataSet, Track
from beattrack_trainer.evaluation.scores import Scores, mean_scores, score

BLOCK = 1024  # samples; events do not depend on it


def live_events(model: Path | None, audio: Path) -> tuple[NDArray[np.float64], float]:
    """Return float64 [events, 3] (stated time, beat in bar, emitted time) and the length in s."""
    with soundfile.SoundFile(audio) as file:
        tracker = open_tracker(model, sample_rate=file.samplerate)
        found = []
        for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
            found += tracker.push(block)
        found += tracker.flush()
        seconds = tracker.time_s
    beats = [(e.time_s, e.position, e.emitted_s) for e in found if isinstance(e, Beat)]
    return np.array(beats, dtype=np.float64).reshape(-1, 3), seconds


def _score_track(model: Path | None, job: Track) -> Scores:
    events, seconds = live_events(model, job.audio)
    reference = read_beats(job.beats)
    # Annotations often run on after the audio ends; what was not heard is not asked for.
    return score(reference[reference[:, 0] < seconds], events)


def evaluate(model: Path | None, data: DataSet, out: Path, jobs: int = 1) -> dict[str, Any]:
    """Score every track of a data set folder and write the result as JSON.

    Args:
        model: an ONNX file; None is the shipped starter model.
        data: the data set.
        out: JSON file: ``mean`` and ``tracks``.
        jobs: processes.
    """
    tracks = data.tracks()
    rows: dict[str, Scores] = {}
    with ProcessPoolExecutor(jobs) as pool:
        work = {pool.submit(_score_track, model, t): t.name for t in tracks}
        for done in track(as_completed(work), "Scoring", total=len(work)):
            rows[work[done]] = done.result()
    names = sorted(rows)
    result = {
        "model": model.name if model else "starter",
        "data": data.name,
        "mean": mean_scores([rows[n] for n in names]),
        "tracks": {n: rows[n].to_dict() for n in names},
    }
    temporary = out.with_name(f".{out.name}")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(out)
    return result


def table(result: dict[str, Any]) -> Table:
    """Return the result as a table for the terminal: a row for each track, then the mean."""
    shown = Table(title=f"{result['model']} on {result['data']}")
    names = list(result["mean"])
    shown.add_column("track")
    for name in names:
        shown.add_column(name, justify="right")
    for title, row in [*result["tracks"].items(), ("mean", result["mean"])]:
        style = "bold" if title == "mean" else None
        cells = ["-" if row[n] is None else f"{row[n]:.3f}" for n in names]
        shown.add_row(title, *cells, style=style)
    return shown
