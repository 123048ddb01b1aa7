"""Render a data set with exact beats.

The set is a folder with ``tracks/<id>.ogg`` (mono, 22050 Hz), ``beats/<id>.beats`` (time in
seconds, tab, position in the bar), ``metadata.csv`` and ``synth.json``, which says how it was
rendered, and ``folds.tsv``; sets along real grids also have ``segments/``. A track depends on the
seed and its id alone, so a run that was cut off goes on where it stopped, and the ids are ordered
so that the first hours of a set are as mixed as the whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from beattrack_trainer.data.folds import FOLDS
from beattrack_trainer.say import say
from beattrack_trainer.synth.arrange import check_soundfonts
from beattrack_trainer.synth.harmonix import copy_folds, grid_files
from beattrack_trainer.synth.sources import Sources, available_kinds, track_ids
from beattrack_trainer.synth.track import (
    SECONDS,
    Job,
    Track,
    make_track,
    read_metadata,
    write_metadata,
)
from beattrack_trainer.synth.work import claimed, workers, write_whole

console = Console(stderr=True)

WHOLE_SONG_S = 215.0  # median length of a Harmonix song
SAVE_EVERY_S = 2.0
RANDOM_PIECES = Sources()  # what needs no data set


@dataclass(frozen=True)
class Report:
    """What a run did: rows of finished tracks, and (id, reason) of those that failed."""

    tracks: tuple[Track, ...]
    failures: tuple[tuple[str, str], ...]

    @property
    def hours(self) -> float:
        """Hours of audio in the set."""
        return sum(t.seconds for t in self.tracks) / 3600


def synthesize(
    out_dir: Path,
    hours: float | None = None,
    seed: int = 0,
    jobs: int = 1,
    *,
    sources: Sources = RANDOM_PIECES,
    seconds: float | None = None,
    whole: bool = False,
    soundfonts: Sequence[Path] | None = None,
    limit: int | None = None,
) -> Report:
    """Render tracks into ``out_dir`` until it holds ``hours`` of audio (or ``limit`` tracks).

    Without ``hours`` it is one hour, or with Harmonix grids every song. A track lasts ``seconds``,
    or 40 to 75 s, or with ``whole`` as long as its grid. Data sets that are not given leave their
    share to the other kinds. Complete tracks of the same settings are kept. A track that fails is
    named in the report and skipped. Raises ``ValueError`` for impossible arguments and
    ``SynthError`` when a program, a library or a soundfont is missing.
    """
    if (hours is not None and not hours > 0) or jobs < 1:
        raise ValueError("hours must be above 0 and jobs at least 1.")
    if seconds is not None and not 10 <= seconds <= 3600:
        raise ValueError(f"seconds is {seconds:g}; give 10 to 3600.")
    if whole and (sources.harmonix is None or seconds is not None):
        raise ValueError("whole goes with Harmonix grids alone, and without seconds.")
    length = None if whole else SECONDS if seconds is None else (seconds, seconds)
    if sources.only is not None and (sources.nothing or sources.harmonix is not None):
        raise ValueError("only chooses among random pieces: without nothing and Harmonix grids.")
    music = (sources.harmonix, sources.groove, sources.pop909, sources.freedoom)
    if sources.nothing and any(music):
        raise ValueError(
            "nothing goes without Harmonix, Groove, POP909, Freedoom: it has no music."
        )
    if sources.harmonix is not None and (sources.pop909 or sources.freedoom):
        raise ValueError(
            "Harmonix grids go with Groove alone: POP909 and Freedoom have their own beats."
        )
    fonts = () if sources.nothing else check_soundfonts(soundfonts)
    with claimed(out_dir) as scratch:
        opened = sources.unpacked(scratch)
        kinds = available_kinds(opened)
        grids = "harmonix" if opened.harmonix else "none" if opened.nothing else "random"
        made = {
            "seed": seed,
            "seconds": length and list(length),
            "grids": grids,
            "only": sources.only,
            "kinds": kinds,
            "soundfonts": [f.stem for f in fonts],
        }
        check_settings(out_dir, made)
        given = (opened.groove, opened.pop909)
        pattern = Job("", "", seed, out_dir, *given, fonts, length, freedoom=opened.freedoom)
        if opened.harmonix is None:
            hours = 1.0 if hours is None else hours
            queue = (replace(pattern, id=i, kind=k) for i, k in track_ids(kinds))
            return _run(queue, out_dir, jobs, Goal(hours, limit, None), _even_folds(out_dir))
        files = grid_files(opened.harmonix)
        pattern = replace(pattern, kind="harmonix", harmonix=opened.harmonix)
        queue = (replace(pattern, id=i, beats=path) for i, path in files.items())
        folder = opened.harmonix

        def folds(ids: Sequence[str]) -> None:
            copy_folds(folder, out_dir / "folds.tsv", ids)

        return _run(queue, out_dir, jobs, Goal(hours, limit, len(files)), folds)


def _even_folds(out_dir: Path) -> Callable[[Sequence[str]], None] | None:
    """What writes ``folds.tsv`` for the ids of random pieces: their numbers in turn.

    None for a set that was begun without one: its folds are drawn by a hash, and stay so.
    """
    path = out_dir / "folds.tsv"
    if not path.exists() and read_metadata(out_dir / "metadata.csv"):
        return None

    def write(ids: Sequence[str]) -> None:
        rows = "".join(f"{i}\t{int(i.split('_')[0]) % FOLDS}\n" for i in ids)
        write_whole(path, "track\tfold\n" + rows)

    return write


def check_settings(out_dir: Path, made: dict[str, Any]) -> None:
    """Write how the set is rendered, or compare; raises ``ValueError`` where it was otherwise."""
    path, table = out_dir / "synth.json", read_metadata(out_dir / "metadata.csv")
    if path.exists():
        try:
            before = dict(json.loads(path.read_text("utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}; give a new folder.") from error
    else:  # a set of before this file was written says its seed alone
        before = {**made, "seed": next((t.seed for t in table.values()), made["seed"])}
    before.setdefault("kinds", made.get("kinds"))  # older sets do not say them
    for key, value in made.items():
        if before.get(key) != value:
            raise ValueError(
                f"{out_dir} holds tracks of {key} {_words(before.get(key))}, not {_words(value)}; "
                "render as before (with the same data sets) or into a new folder."
            )
    write_whole(path, json.dumps(made, indent=1) + "\n")


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Goal:
    """When a run is done: hours of audio, or tracks; ``songs`` is how many there are at all."""

    hours: float | None
    limit: int | None
    songs: int | None

    def reached(self, done: dict[str, Track], running: Sequence[Job]) -> bool:
        """Whether the tracks done and under way, at their mean length, are enough."""
        if self.limit is not None and len(done) + len(running) >= self.limit:
            return True
        lengths = (sum(j.seconds) / 2 if j.seconds else WHOLE_SONG_S for j in running)
        seconds = sum(t.seconds for t in done.values()) + sum(lengths)
        return self.hours is not None and seconds >= self.hours * 3600

    def progress(self, done: dict[str, Track], failed: int) -> tuple[int, int, str]:
        """How much is done, of how much, and of what: minutes of audio, or tracks."""
        if self.hours is not None and self.limit is None:
            minutes = sum(t.seconds for t in done.values()) / 60
            return round(minutes), round(self.hours * 60), "min"
        total = min(n for n in (self.limit, self.songs) if n is not None)
        return len(done) + failed, total, "tracks"


def _run(
    queue: Iterator[Job],
    out_dir: Path,
    jobs: int,
    goal: Goal,
    write_folds: Callable[[Sequence[str]], None] | None = None,
) -> Report:
    table, tracks = out_dir / "metadata.csv", out_dir / "tracks"
    known = {i: t for i, t in read_metadata(table).items() if (tracks / f"{i}.ogg").exists()}
    done: dict[str, Track] = {}
    failures: list[tuple[str, str]] = []
    running: dict[Future[Track], Job] = {}

    def save() -> float:
        write_metadata(table, list({**known, **done}.values()))
        if write_folds is not None:
            write_folds(sorted({*known, *done}))
        return monotonic()

    def collect(future: Future[Track]) -> None:
        track_id = running.pop(future).id
        try:
            done[track_id] = future.result()
        except BrokenProcessPool as error:
            raise _killed() from error
        except Exception as error:  # one bad item must not end hours of rendering
            failures.append((track_id, str(error)))
            say(console, f"skipped {track_id}: {error}", style="yellow")

    saved = save()
    try:
        with _progress() as bar, workers(jobs) as pool:
            task = bar.add_task("", unit="")
            while True:
                while (
                    not goal.reached(done, list(running.values()))
                    and len(running) < 2 * jobs
                    and len(failures) < 20 + len(done)
                    and (job := next(queue, None)) is not None
                ):
                    if job.id in known:
                        done[job.id] = known[job.id]
                    else:
                        running[_submit(pool, job)] = job
                at, total, unit = goal.progress(done, len(failures))
                bar.update(task, completed=at, total=total, unit=unit)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    collect(future)
                if monotonic() - saved > SAVE_EVERY_S:
                    saved = save()
    finally:
        save()
    return Report(tuple(done.values()), tuple(failures))


def _progress() -> Progress:
    return Progress(
        TextColumn("rendering"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
        console=console,
    )


def _submit(pool: ProcessPoolExecutor, job: Job) -> Future[Track]:
    try:
        return pool.submit(make_track, job)
    except BrokenProcessPool as error:
        raise _killed() from error


def _killed() -> ChildProcessError:
    return ChildProcessError(
        "A rendering process was killed, perhaps for lack of memory; the same command goes on."
    )
