"""``trainer label``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from beattrack_trainer.commands.common import Jobs, console
from beattrack_trainer.say import say


def label(
    audio: Annotated[Path, typer.Argument(help="Folder of music without annotations.")],
    out: Annotated[Path, typer.Argument(help="Folder of the data set; a run goes on in it.")],
    model: Annotated[list[Path], typer.Option(help="Exported model (.onnx); repeatable.")],
    votes: Annotated[
        Optional[list[Path]],
        typer.Option(help="Folder of another tracker's <name>.beats; repeatable."),
    ] = None,
    flux: Annotated[bool, typer.Option(help="Let the no-learning flux vote, too.")] = True,
    needed: Annotated[
        int, typer.Option(help="Members that must agree with the leader.", min=1)
    ] = 2,
    jobs: Jobs = 1,
) -> None:
    """Make a data set of what several offline trackers agree on.

    Each model is decoded over the whole piece. Parts of 20 s and more in which the leading one
    agrees with enough others are kept, with its beats and bars.

    trainer label music/ data/music --model a.onnx --model b.onnx --jobs 2
    """
    from beattrack_trainer.labelling.label import Task
    from beattrack_trainer.labelling.label import label as make

    task = Task(tuple(model), tuple(votes or ()), flux, needed, out)
    rows, left_out = make(audio, task, jobs)
    for name, why in left_out.items():
        say(console, f"left out {name}: {why}", style="yellow")
    hours = sum(r.seconds for r in rows) / 3600
    counts = f"{len(rows)} parts, {hours:.2f} hours, of {len({r.source for r in rows})} files"
    say(console, f"{counts} in {out}; {len(left_out)} files left out.")
    if not rows:
        raise typer.Exit(1)
