"""``trainer``: each step of making a model is one command."""

from __future__ import annotations

import sys
from typing import Any

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
from beattrack_trainer.say import say
from beattrack_trainer.synth.subband_curves import subbands

STOPPED = 130

app = typer.Typer(
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


def run(words: list[str]) -> int:
    """Run the command line and return its exit code: 0, 2 for misuse, 1 for failure, 130 stopped.

    Every failure that a user can mend is one sentence on stderr, without a traceback.
    """
    try:
        done = typer.main.get_command(app).main(
            words or ["--help"], prog_name="trainer", standalone_mode=False
        )
    except ConfigError as error:
        return _fail(str(error), 2)
    except BeattrackError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        place = f"'{error.filename}'" if error.filename else "a file"
        known = f"Cannot use {place}: {error.strerror}." if error.strerror else str(error)
        return _fail(known, 1)
    except ValueError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        done = STOPPED
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own, whose module typer has moved about
            raise
        return _fail(_misuse(error), 2)
    if done == STOPPED:  # what typer, too, makes of Ctrl-C
        say(console, "stopped; the same command goes on from here.")
    return done if isinstance(done, int) else 0


def _misuse(error: Any) -> str:
    """Return click's complaint as one sentence."""
    # Typer's options claim to have an environment variable, whose name is None.
    text = error.format_message().replace(" (env var: 'None')", "").rstrip(".")
    if hasattr(error, "possibilities"):  # a guess of click's, which is a sentence of its own
        text = error.message
    context = getattr(error, "ctx", None)
    return f"{text}; '{context.command_path if context else 'trainer'} --help' shows all options."


def _fail(sentence: str, code: int) -> int:
    say(console, f"error: {sentence}", "red")
    return code


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
