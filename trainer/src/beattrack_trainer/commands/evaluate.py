"""``trainer eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from beattrack_trainer.commands.common import Jobs, console, results


def evaluate(
    runs: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[RUN_ID]...", help="Runs [default: the latest finished one]."),
    ] = None,
    save_dir: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    data: Annotated[str, typer.Option(help="Data set: a name under data/ or a folder.")] = "gtzan",
    model: Annotated[
        Optional[list[str]],
        typer.Option(help="An ONNX file, or 'starter' for the shipped model; repeatable."),
    ] = None,
    part: Annotated[
        Optional[str],
        typer.Option(help="Of a set that the model was trained on: test, validation or all."),
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the runs lie.")] = Path("runs"),
    flux_mix: Annotated[
        Optional[float],
        typer.Option(help="Share of the no-learning flux logit, 0-1, as export would mix it in."),
    ] = None,
    dbn: Annotated[bool, typer.Option(help="Run madmom's offline DBN beside it.")] = True,
    limit: Annotated[
        Optional[int], typer.Option(help="Score at most so many tracks, evenly spread.", min=1)
    ] = None,
    jobs: Jobs = 1,
) -> None:
    """Score the events that a live user would get, at the time they were emitted.

    Writes scores.json, tracks.csv, thresholds.json and report.html into a folder for each run and
    data set. Of a set that a run was trained on, only its test fold is scored. An evaluation that
    was stopped goes on where it was.

    \b
    trainer eval
    trainer eval tcn-f0-1a2b3c4d tcn-f1-5e6f7a8b --data harmonix
    trainer eval --model starter --data my-songs/ --save-dir /tmp/results
    """
    from beattrack_trainer.evaluation.start import Wish, start

    wish = Wish(runs or [], model or [], runs_dir, save_dir, data, part, flux_mix, dbn, limit, jobs)
    start(wish, console, results)
