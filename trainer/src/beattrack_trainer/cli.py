"""``trainer``: each step of making a model is one command."""

from __future__ import annotations

import sys

import typer

from beattrack.config import ConfigError
from beattrack_runtime.errors import BeattrackError
from beattrack_trainer.commands.check import check
from beattrack_trainer.commands.common import console
from beattrack_trainer.commands.doctor import doctor
from beattrack_trainer.commands.evaluate import evaluate
from beattrack_trainer.commands.export import export
from beattrack_trainer.commands.label import label
from beattrack_trainer.commands.preprocess import preprocess
from beattrack_trainer.commands.synth import synth
from beattrack_trainer.commands.train import train
from beattrack_trainer.synth.subband_curves import subbands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Render, preprocess, train, evaluate and export beat trackers.",
)
app.command("synth")(synth)
app.command("check")(check)
app.command("label")(label)
app.command("preprocess")(preprocess)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("export")(export)
app.command("subbands")(subbands)
app.command("doctor")(doctor)


def main() -> None:
    """Run the command line: exit code 2 for misuse, 1 for failure, never a traceback for either."""
    try:
        app()
    except ConfigError as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(2)
    except (ValueError, OSError, BeattrackError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stop:  # typer makes the second of the first
        if isinstance(stop, SystemExit) and stop.code != 130:
            raise
        console.print("stopped; the same command goes on from here.", markup=False)
        sys.exit(130)


if __name__ == "__main__":
    main()
