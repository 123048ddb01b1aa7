"""The annotations of the Harmonix Set as they are published: beats, bars, sections, genre, folds.

A folder holds ``beats_corrected/<id>.beats`` or ``beats/<id>.txt``, and may hold ``segments/``,
``metadata.csv`` and ``folds.tsv``. The corrected beats are preferred. They follow other copies of
the songs than ``beats/`` and ``segments/`` do, so section times are carried over by the beats.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.synth.midi import Floats, SynthError
from beattrack_trainer.synth.work import write_whole

LICENCE = "Harmonix Set MIT"
LONGEST_S = 3600.0  # a grid that goes on for longer is taken for damaged
MATCH_S = 0.07


@dataclass(frozen=True, eq=False)
class Grid:
    """One song's annotation: beat times (s, increasing, from 0), positions in the bar, sections.

    ``sections`` are (start in s, label), a label holds until the next; empty where not known.
    """

    id: str
    times: Floats
    positions: tuple[int, ...]
    sections: tuple[tuple[float, str], ...]
    genre: str
    time_signature: str
    bpm: str  # as in metadata.csv


def grid_files(folder: Path) -> dict[str, Path]:
    """The annotation file of each song, by id; raises ``SynthError`` when there is none.

    Ids come in an order that a hash draws, so that a part of the set is as mixed as the whole.
    The public files name a song differently here and there; its number in front is the same.
    """
    files: dict[str, Path] = {}
    for name, pattern in (("beats", "*.txt"), ("beats_corrected", "*.beats")):
        for path in sorted((folder / name).glob(pattern)):
            files[path.stem.split("_")[0]] = path
    if not files:
        raise SynthError(
            f"{folder} holds neither beats_corrected/*.beats nor beats/*.txt of the Harmonix Set."
        )
    ids = {path.stem: path for path in files.values()}
    return dict(sorted(ids.items(), key=lambda item: zlib.crc32(item[0].encode())))


@lru_cache(maxsize=2)
def metadata(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of ``metadata.csv`` by the song's number; none when the file is not there."""
    path = folder / "metadata.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {(r.get("File") or "").split("_")[0]: r for r in csv.DictReader(file)}


def read_grid(folder: Path, path: Path) -> Grid:
    """One song of a Harmonix folder from its beats file.

    Beats before 0 s are left out: they lie before the recording. Raises ``SynthError`` for a file
    that cannot be read, or that holds fewer than eight beats or more than an hour.
    """
    try:
        table = read_beats(path)
    except (OSError, ValueError) as error:
        raise SynthError(f"{path.name} is not a readable grid: {error}") from error
    table = table[table[:, 0] >= 0]
    if len(table) < 8 or table[-1, 0] > LONGEST_S or table[:, 1].max() > 64:
        raise SynthError(
            f"{path.name} has fewer than 8 beats, more than an hour or bars of more than 64 beats."
        )
    times = table[:, 0]
    row = metadata(folder).get(path.stem.split("_")[0], {})
    return Grid(
        id=path.stem,
        times=times,
        positions=tuple(int(p) for p in table[:, 1]),
        sections=_sections(folder, path, times),
        genre=(row.get("Genre") or "").strip(),
        time_signature=(row.get("Time Signature") or "").replace("|", "/"),
        bpm=(row.get("BPM") or "").strip(),
    )


def _sections(folder: Path, path: Path, times: Floats) -> tuple[tuple[float, str], ...]:
    number = path.stem.split("_")[0]
    found = next(iter(sorted((folder / "segments").glob(f"{number}_*.txt"))), None)
    if found is None:
        return ()
    rows = [line.split(None, 1) for line in found.read_text("utf-8").splitlines() if line.strip()]
    try:
        starts = np.array([float(r[0]) for r in rows])
    except ValueError:
        return ()
    if not len(rows) or (np.diff(starts) < 0).any() or any(len(r) < 2 for r in rows):
        return ()
    if path.parent.name == "beats_corrected":
        source = next(iter(sorted((folder / "beats").glob(f"{number}_*.txt"))), None)
        moved = None if source is None else carried(starts, read_beats(source)[:, 0], times)
        if moved is None:
            return ()
        starts = moved
    return tuple((float(t), r[1].strip().lower()) for t, r in zip(starts, rows, strict=True))


def carried(moments: Floats, source: Floats, target: Floats) -> Floats | None:
    """Moments (s) on the time line of one copy of a song, given on that of another.

    ``source`` and ``target`` are the beats of both. Where they are as many, each is taken for the
    same beat, whatever the speed of the copies; else the shift counts that brings most of them
    together, and None is returned when fewer than half meet.
    """
    if len(source) == len(target):
        before = np.minimum(moments - source[0], 0.0)
        after = np.maximum(moments - source[-1], 0.0)
        carried_over: Floats = np.interp(moments, source, target) + before + after
        return carried_over
    shifts = np.unique((target[:32, None] - source[None, :32]).round(2))
    best, shift = 0.0, 0.0
    for candidate in shifts:
        moved = source + candidate
        near = np.clip(np.searchsorted(target, moved), 1, len(target) - 1)
        gap = np.minimum(np.abs(moved - target[near]), np.abs(moved - target[near - 1]))
        share = float(np.mean(gap < MATCH_S))
        if share > best:
            best, shift = share, float(candidate)
    return moments + shift if best >= 0.5 else None


def copy_folds(folder: Path, out: Path, ids: Sequence[str]) -> None:
    """Write the rows of ``folds.tsv`` for these ids into ``out``; nothing where it is missing."""
    path = folder / "folds.tsv"
    if not path.exists():
        return
    wanted = set(ids)
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines[1:] if line.split("\t")[0] in wanted]
    write_whole(out, "\n".join([*lines[:1], *kept]) + "\n")
