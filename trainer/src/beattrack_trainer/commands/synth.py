"""``trainer synth``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from beattrack.config import ConfigError
from beattrack_trainer.commands.common import Jobs, console
from beattrack_trainer.say import say


def synth(
    out: Annotated[Path, typer.Argument(help="Folder of the data set; a run goes on in it.")],
    hours: Annotated[
        Optional[float],
        typer.Option(help="Hours of audio [default: 1, with --harmonix every song]."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed; another seed gives other music.", min=0)] = 0,
    jobs: Jobs = 1,
    seconds: Annotated[
        Optional[float], typer.Option(help="Length of a track [default: 40 to 75].")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Whole songs along the grids.")] = False,
    harmonix: Annotated[
        Optional[Path],
        typer.Option(help="Harmonix Set folder: render along its beats, in a set of its own."),
    ] = None,
    groove: Annotated[
        Optional[Path], typer.Option(help="Groove MIDI Dataset: tar archive or folder.")
    ] = None,
    pop909: Annotated[Optional[Path], typer.Option(help="POP909: tar archive or folder.")] = None,
    freedoom: Annotated[
        Optional[Path], typer.Option(help="Music of Freedoom: tar archive or folder.")
    ] = None,
    nothing: Annotated[
        bool, typer.Option("--nothing", help="Sounds without a beat: applause, speech, noise.")
    ] = False,
    only: Annotated[
        Optional[str],
        typer.Option(help="One kind of music alone: mma, groove, own, heavy, pop909 or freedoom."),
    ] = None,
    soundfont: Annotated[
        Optional[list[Path]], typer.Option(help="Soundfont; repeatable [default: installed].")
    ] = None,
) -> None:
    """Render music with exact beats: trainer synth data/synth --hours 8 --jobs 2.

    Along real grids: trainer synth data/harmonix-synth --harmonix harmonix --jobs 2.

    Fast and heavy alone: trainer synth data/heavy --only heavy --hours 2.

    Game music alone: trainer synth data/freedoom --only freedoom --freedoom freedoom.tar.gz.

    Without any beat: trainer synth data/nothing --nothing --hours 1.
    """
    from beattrack_trainer.synth.dataset import synthesize
    from beattrack_trainer.synth.midi import SynthError
    from beattrack_trainer.synth.sources import Sources

    try:
        report = synthesize(
            out,
            hours,
            seed,
            jobs,
            sources=Sources(groove, pop909, harmonix, nothing, only, freedoom),
            seconds=seconds,
            whole=whole,
            soundfonts=soundfont or None,
        )
    except (SynthError, ValueError) as error:
        raise ConfigError(str(error)) from error
    say(
        console,
        f"{len(report.tracks)} tracks, {report.hours:.2f} hours in {out}; "
        f"{len(report.failures)} skipped.",
    )
    if len(report.failures) >= len(report.tracks):
        console.print("error: too many tracks failed; the reasons stand above.", style="red")
        raise typer.Exit(1)
