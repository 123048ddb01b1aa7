"""Render a data set with exact beats: ``synthesize`` and the command ``synth``.

The set is a folder with ``tracks/<id>.ogg`` (mono, 22050 Hz), ``beats/<id>.beats`` (time in
seconds, tab, position in the bar) and ``metadata.csv``. A track depends on the seed and its id
alone, so a run that was cut off goes on where it stopped, and the ids are ordered so that the
first hours of a set are as mixed as the whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from beattrack_trainer.synth.arrange import check_soundfonts
from beattrack_trainer.synth.groove import performances, unpack
from beattrack_trainer.synth.midi import SynthError, find_program
from beattrack_trainer.synth.mma import library
from beattrack_trainer.synth.pop909 import songs
from beattrack_trainer.synth.track import (
    SECONDS,
    Job,
    Track,
    make_track,
    read_metadata,
    write_metadata,
)

console = Console(stderr=True)

# The kinds of twenty tracks in the order of their ids: 45 % MMA, 30 % Groove, 25 % the others.
MIX = tuple(
    "mma groove own mma pop909 mma groove mma own groove "
    "mma pop909 mma groove mma own groove mma groove mma".split()
)


@dataclass(frozen=True)
class Report:
    """What a run did: rows of finished tracks, and (id, reason) of those that failed."""

    tracks: tuple[Track, ...]
    failures: tuple[tuple[str, str], ...]

    @property
    def hours(self) -> float:
        """Hours of audio in the set."""
        return sum(t.seconds for t in self.tracks) / 3600


def track_ids(kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Endless (id, kind); a kind that is not in ``kinds`` is replaced by one that is."""
    number = 0
    while True:
        for kind in MIX:
            if kind not in kinds:
                kind = kinds[number % len(kinds)]
            yield f"{number:06d}_{kind}", kind
            number += 1


def available_kinds(groove: Path | None, pop909: Path | None) -> list[str]:
    """Kinds that can be made from the sources given; raises ``SynthError`` if one is broken."""
    find_program("fluidsynth", "fluidsynth")
    find_program("mma", "mma")
    library()
    kinds = ["mma", "own"]
    if groove is not None:
        performances(groove)
        kinds.append("groove")
    if pop909 is not None:
        songs(pop909)
        kinds.append("pop909")
    return kinds


def synthesize(
    out_dir: Path,
    hours: float,
    seed: int = 0,
    jobs: int = 1,
    *,
    groove: Path | None = None,
    pop909: Path | None = None,
    soundfonts: Sequence[Path] | None = None,
    limit: int | None = None,
) -> Report:
    """Render tracks into ``out_dir`` until it holds ``hours`` of audio (or ``limit`` tracks).

    ``groove`` and ``pop909`` are archives or folders of those data sets; without them their share
    goes to the other kinds. Complete tracks of the same seed are kept. A track that fails is
    named in the report and skipped. Raises ``ValueError`` for impossible arguments and
    ``SynthError`` when a program, a library or a soundfont is missing.
    """
    if not (hours > 0 and jobs >= 1):
        raise ValueError("hours must be above 0 and jobs at least 1.")
    fonts = check_soundfonts(soundfonts)
    for name in ("tracks", "beats"):
        (out_dir / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="beattrack-sources-") as scratch:
        sources = {
            name: None if path is None else unpack(path, Path(scratch) / name)
            for name, path in (("groove", groove), ("pop909", pop909))
        }
        kinds = available_kinds(sources["groove"], sources["pop909"])
        queue = (
            Job(i, k, seed, out_dir, sources["groove"], sources["pop909"], fonts)
            for i, k in track_ids(kinds)
        )
        return _run(queue, out_dir, hours, seed, jobs, limit)


def _run(
    queue: Iterator[Job], out_dir: Path, hours: float, seed: int, jobs: int, limit: int | None
) -> Report:
    table = out_dir / "metadata.csv"
    known = read_metadata(table)
    others = {t.seed for t in known.values()} - {seed}
    if others:
        raise ValueError(
            f"{out_dir} holds tracks of seed {min(others)}; give that seed or a new folder."
        )
    done: dict[str, Track] = {}
    failures: list[tuple[str, str]] = []
    columns = (
        TextColumn("rendering"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("min"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar, ProcessPoolExecutor(jobs) as pool:
        task = bar.add_task("", total=round(hours * 60))
        running: dict[Future[Track], str] = {}

        def rendered() -> float:
            return sum(t.seconds for t in done.values())

        def full() -> bool:
            # tracks under way count at their mean length, so that a run hardly overshoots
            waiting = len(running) * sum(SECONDS) / 2
            enough = limit is not None and len(done) + len(running) >= limit
            return enough or rendered() + waiting >= hours * 3600

        while True:
            while not full() and len(running) < 2 * jobs and len(failures) < 20 + len(done):
                job = next(queue)
                if job.id in known and (out_dir / "tracks" / f"{job.id}.ogg").exists():
                    done[job.id] = known[job.id]
                else:
                    running[pool.submit(make_track, job)] = job.id
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                track_id = running.pop(future)
                try:
                    done[track_id] = future.result()
                except Exception as error:  # one bad item must not end hours of rendering
                    failures.append((track_id, str(error)))
                    console.print(f"[yellow]skipped {track_id}: {error}")
                if len(done) % 20 == 0:
                    write_metadata(table, list({**known, **done}.values()))
            bar.update(task, completed=round(rendered() / 60))
    write_metadata(table, list({**known, **done}.values()))
    return Report(tuple(done.values()), tuple(failures))


def synth(
    out: Annotated[Path, typer.Argument(help="Folder of the data set; a run goes on in it.")],
    hours: Annotated[float, typer.Option(help="Hours of audio.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed; another seed gives other music.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    groove: Annotated[
        Path | None, typer.Option(help="Groove MIDI Dataset: tar archive or folder.")
    ] = None,
    pop909: Annotated[Path | None, typer.Option(help="POP909: tar archive or folder.")] = None,
    soundfont: Annotated[
        list[Path] | None, typer.Option(help="Soundfont; may be repeated [default: installed].")
    ] = None,
) -> None:
    """Render music with exact beat labels by MMA, FluidSynth and random bands."""
    try:
        report = synthesize(
            out, hours, seed, jobs, groove=groove, pop909=pop909, soundfonts=soundfont or None
        )
    except (SynthError, ValueError) as error:
        console.print(f"[red]{error}")
        raise typer.Exit(2) from error
    console.print(
        f"{len(report.tracks)} tracks, {report.hours:.2f} hours in {out}; "
        f"{len(report.failures)} skipped."
    )
    if not report.tracks:
        raise typer.Exit(1)
