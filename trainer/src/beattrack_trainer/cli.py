"""``trainer``: each step of making a model is one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from beattrack.config import ConfigError, DecoderConfig
from beattrack_trainer.config import DataConfig, load_settings, parse_words
from beattrack_trainer.synth.dataset import synth
from beattrack_trainer.synth.subband_curves import subbands

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
File = Annotated[Optional[Path], typer.Option("--config", help="YAML file of settings.")]
Jobs = Annotated[int, typer.Option(help="Processes.", min=1)]


@app.command()
def preprocess(settings: Words = None, config: File = None, jobs: Jobs = 1) -> None:
    """Compute features: trainer preprocess data=harmonix bpfed=true sources=[bass,drums]."""
    from beattrack_trainer.data.folders import open_data_sets
    from beattrack_trainer.data.preprocess import preprocess as start

    chosen = load_settings(settings or [], config)
    for data in open_data_sets(chosen.data):
        for complaint in start(data, chosen.features, jobs):
            console.print(f"skipped {complaint}", markup=False)


@app.command()
def train(settings: Words = None, config: File = None) -> None:
    """Train a network: trainer train data=harmonix fold=3 batch_size=16."""
    from beattrack_trainer.training.train import train as start

    run = start(load_settings(settings or [], config))
    console.print(f"finished {run.path}", markup=False)


@app.command("eval")
def evaluate(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    data: Annotated[str, typer.Option(help="Data set: a name under data/ or a folder.")] = "gtzan",
    model: Annotated[
        Optional[Path], typer.Option(help="An ONNX model [default: the shipped one].")
    ] = None,
    jobs: Jobs = 1,
) -> None:
    """Score the events that a live user would get, at the time they were emitted."""
    from beattrack_trainer.data.folders import open_data_sets
    from beattrack_trainer.evaluation.evaluate import evaluate as start
    from beattrack_trainer.evaluation.evaluate import table

    (chosen,) = open_data_sets(DataConfig(data=(data,)))
    console.print(table(start(model, chosen, out, jobs)))


@app.command("export")
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
