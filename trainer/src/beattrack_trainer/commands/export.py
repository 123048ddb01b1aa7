"""``trainer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from beattrack.config import DecoderConfig
from beattrack_trainer.commands.common import console
from beattrack_trainer.config import parse_words
from beattrack_trainer.say import say


def export(
    run: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[RUN_ID]", help="Id or folder of a run [default: the latest finished one]."
        ),
    ] = None,
    save_dir: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("exports"),
    runs_dir: Annotated[Path, typer.Option(help="Where the runs lie.")] = Path("runs"),
    results: Annotated[
        Path, typer.Option(help="Where 'trainer eval' wrote; the card quotes the run's scores.")
    ] = Path("results"),
    flux_mix: Annotated[
        Optional[float],
        typer.Option(help="Share of the no-learning flux logit, 0-1 [default: 0.3]."),
    ] = None,
    decoder: Annotated[
        Optional[list[str]], typer.Option(help="Setting of the decoder, key=value; repeatable.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data, kept in the file.")] = "",
    audio: Annotated[
        Optional[Path], typer.Option(help="Music to check it on [default: the bundled song].")
    ] = None,
) -> None:
    """Write a finished run as RUN_ID.onnx, with settings, weights and a model card beside it.

    The model is compared with torch on 30 s of real music first: probabilities within 1e-4 in
    blocks of 1 and 50 frames, and the same events. It takes half a minute or more.

    \b
    trainer export
    trainer export tcn-f0-1a2b3c4d --save-dir exports --licence "CC BY 4.0"
    trainer export tcn-f0-1a2b3c4d --flux-mix 0.5 --decoder max_bpm=190
    """
    from beattrack_trainer.export import ExportSettings, export_run
    from beattrack_trainer.training.runs import find_run

    chosen = DecoderConfig.from_dict(parse_words(decoder or []))
    found = find_run(run, runs_dir)
    with console.status(f"Exporting {found.id}, half a minute or more"):
        settings = ExportSettings(flux_mix, chosen, licence)
        files = export_run(found, save_dir, settings, audio, results)
    for file in files:
        say(console, f"wrote {file} ({file.stat().st_size / 1e3:.1f} kB)")
