"""``trainer``: each step of making a model is one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from beattrack.config import ConfigError, DecoderConfig, FeatureConfig
from beattrack_trainer.subband_curves import subbands
from beattrack_trainer.synth import synth

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Render, preprocess, train, evaluate and export beat trackers.",
)
app.command("synth")(synth)
app.command("subbands")(subbands)
console = Console(stderr=True)
Words = Annotated[Optional[list[str]], typer.Argument(help="Settings, key=value.")]


@app.command()
def preprocess(
    folder: Annotated[Path, typer.Argument(help="Data set: tracks/ and beats/, or both in one.")],
    store: Annotated[Path, typer.Argument(help="Feature store to write; a run goes on in it.")],
    settings: Words = None,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Compute features. Settings are those of FeatureConfig: bpfed=true sources=[bass,drums]."""
    from beattrack_trainer.config import parse_words
    from beattrack_trainer.preprocess import preprocess as run

    complaints = run(folder, store, FeatureConfig.from_dict(parse_words(settings or [])), jobs)
    for complaint in complaints:
        console.print(f"skipped {complaint}", markup=False)


@app.command()
def train(
    store: Annotated[list[Path], typer.Option(help="Feature store; may be repeated.")],
    run: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run goes on in it.")],
    settings: Words = None,
) -> None:
    """Train a network. Example: trainer train --store feats --run runs/a model=tcn steps=4000."""
    from beattrack_trainer.config import parse_overrides
    from beattrack_trainer.train import train as start

    model, config = parse_overrides(settings or [])
    start(store, run, model, config)


@app.command("eval")
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Data set: tracks/ and beats/, or both in one.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    model: Annotated[
        Optional[Path], typer.Option(help="An ONNX model [default: the shipped one].")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Score the events that a live user would get, at the time they were emitted."""
    from beattrack_trainer.evaluate import evaluate as start
    from beattrack_trainer.evaluate import table

    console.print(table(start(model, folder, out, jobs)))


@app.command("export")
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Argument(help="ONNX file to write.")],
    flux_mix: Annotated[
        float, typer.Option(help="Share of the no-learning flux logit, 0-1.")
    ] = 0.5,
    decoder: Annotated[
        Optional[list[str]], typer.Option(help="Setting of the decoder, key=value; repeatable.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data, kept in the file.")] = "",
) -> None:
    """Write a finished run as one self-describing ONNX file, checked against torch."""
    from beattrack_trainer.config import parse_words
    from beattrack_trainer.export import export_run

    export_run(run, out, flux_mix, DecoderConfig.from_dict(parse_words(decoder or [])), licence)
    console.print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", markup=False)


def main() -> None:
    """Run the command line: exit code 2 for misuse, 1 for failure, never a traceback for either."""
    try:
        app()
    except ConfigError as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(2)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here.", markup=False)
        sys.exit(130)


if __name__ == "__main__":
    main()
