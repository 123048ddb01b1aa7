"""``trainer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from beattrack.config import DecoderConfig
from beattrack_trainer.commands.common import console
from beattrack_trainer.config import parse_words


def export(
    out: Annotated[Path, typer.Argument(help="ONNX file to write.")],
    run: Annotated[
        Optional[str], typer.Option(help="Id or folder of a run [default: the latest finished].")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the runs lie.")] = Path("runs"),
    flux_mix: Annotated[
        float, typer.Option(help="Share of the no-learning flux logit, 0-1.")
    ] = 0.5,
    decoder: Annotated[
        Optional[list[str]], typer.Option(help="Setting of the decoder, key=value; repeatable.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data, kept in the file.")] = "",
) -> None:
    """Write a finished run as one self-describing ONNX file, checked against torch."""
    from beattrack_trainer.export import export_run
    from beattrack_trainer.training.runs import find_run

    chosen = DecoderConfig.from_dict(parse_words(decoder or []))
    export_run(find_run(run, runs_dir), out, flux_mix, chosen, licence)
    console.print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", markup=False)
