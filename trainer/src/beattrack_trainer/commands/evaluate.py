"""``trainer eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from beattrack_trainer.commands.common import Jobs, console
from beattrack_trainer.config import DataConfig


def evaluate(
    data: Annotated[str, typer.Option(help="Data set: a name under data/ or a folder.")] = "gtzan",
    model: Annotated[
        Optional[Path], typer.Option(help="An ONNX model [default: the shipped one].")
    ] = None,
    jobs: Jobs = 1,
) -> None:
    """Score the events that a live user would get, at the time they were emitted."""
    from beattrack_trainer.data.folders import open_data_sets
    from beattrack_trainer.evaluation.evaluate import score_items

    (chosen,) = open_data_sets(DataConfig(data=(data,)))
    console.print(score_items(model, chosen.tracks(), jobs).mean())
