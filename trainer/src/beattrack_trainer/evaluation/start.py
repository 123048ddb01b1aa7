"""``trainer eval`` from its words to its results."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from beattrack_runtime.onnx_model import OnnxModel
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data.folders import DataSet, open_data_sets
from beattrack_trainer.evaluation import results
from beattrack_trainer.evaluation.evaluate import CACHE, Evaluation, evaluate
from beattrack_trainer.evaluation.report import (
    comparison,
    report,
    terminal_comparison,
    terminal_table,
)
from beattrack_trainer.evaluation.subjects import Subject, model_subject, result_folder, select
from beattrack_trainer.export import ExportSettings, is_export_of, write_onnx
from beattrack_trainer.files import write_text
from beattrack_trainer.say import say
from beattrack_trainer.training.runs import Run, find_run


@dataclass(frozen=True)
class Wish:
    """The words of the command."""

    runs: list[str]
    models: list[str]
    runs_dir: Path
    save_dir: Path
    data: str
    part: str | None
    flux_mix: float | None
    dbn: bool
    limit: int | None
    jobs: int


def start(wish: Wish, console: Console, shown: Console) -> list[Path]:
    """Evaluate everything that was asked for; return the folders of the results.

    Args:
        wish: what was asked for.
        console: what is going on is said there.
        shown: the scores are printed there.

    Raises:
        ConfigError, BeattrackError: a run, model or data set is missing, or not one track can be
            scored.
    """
    (data,) = open_data_sets(DataConfig(data=(wish.data,)))
    subjects = [model_subject(word) for word in wish.models]
    wanted: list[str | None] = [*wish.runs] if wish.runs or wish.models else [None]
    subjects += [_run_subject(find_run(name, wish.runs_dir), wish, console) for name in wanted]
    done = []
    for subject in subjects:
        selection = select(subject, data, wish.part, wish.limit)
        say(console, f"{selection.remark}.")
        folder = result_folder(subject, data, selection, wish.save_dir)
        folder.mkdir(parents=True, exist_ok=True)
        found = evaluate(subject, data, selection, folder, wish.dbn, wish.jobs)
        done.append((folder, write(found, folder)))
        for name, why in found.skipped.items():
            say(console, f"skipped {name}: {why}")
    for folder, scores in done:
        shown.print(terminal_table(scores))
        say(console, f"wrote {folder / 'report.html'}")
    if len(done) > 1:
        shown.print(terminal_comparison([scores for _, scores in done]))
        _compare(done, data, wish.save_dir, console)
    return [folder for folder, _ in done]


def _run_subject(run: Run, wish: Wish, console: Console) -> Subject:
    """Return the subject of a run: it is scored as the file that a user would get of it.

    The file is kept beside the run's results and made again only if the run or the wish differs.
    """
    path = wish.save_dir / ".models" / f"{run.id}.onnx"
    settings = ExportSettings(flux_mix=wish.flux_mix)
    if not is_export_of(path, run, settings):
        path.parent.mkdir(parents=True, exist_ok=True)
        with console.status(f"Exporting {run.id}, half a minute or more"):
            write_onnx(run, path, settings, None)
    return Subject(run.id, path, run, OnnxModel(path))


def write(found: Evaluation, folder: Path) -> dict[str, Any]:
    """Write the files of an evaluation; ``scores.json``, which tells that it is done, last."""
    genres = results.read_genres(found.data)
    scores = results.scores_json(found, genres)
    write_text(folder / "tracks.csv", results.tracks_csv(found, genres))
    results.write_json(folder / "thresholds.json", results.thresholds_json(found))
    write_text(folder / "report.html", report(found, scores))
    results.write_json(folder / "scores.json", scores)
    shutil.rmtree(folder / CACHE)
    return scores


def _compare(
    done: list[tuple[Path, dict[str, Any]]], data: DataSet, save_dir: Path, console: Console
) -> None:
    target = save_dir / f"comparison-{data.name}.html"
    write_text(target, comparison(done))
    say(console, f"wrote {target}")
