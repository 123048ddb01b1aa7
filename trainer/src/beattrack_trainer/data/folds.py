"""Eight folds: six to train on, one to validate, one to test."""

from __future__ import annotations

import csv
import zlib
from dataclasses import dataclass
from pathlib import Path

from beattrack.config import ConfigError

FOLDS = 8


@dataclass(frozen=True)
class Split:
    """Track names of one fold's three parts, each sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def read_folds(path: Path) -> dict[str, int]:
    """Return the fold of each track from a ``folds.tsv``: a header, then track, tab, fold.

    Raises:
        ConfigError: a row without a fold of 0-7.
    """
    folds: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t"), start=1):
            if number == 1 or not row:
                continue
            if len(row) < 2 or not row[1].strip().isdigit() or int(row[1]) >= FOLDS:
                raise ConfigError(f"{path}, line {number}: a track and a fold of 0-7 must stand.")
            folds[row[0]] = int(row[1])
    return folds


def fold_of(name: str, known: dict[str, int]) -> int:
    """Return a track's fold: the data set's own, else one by a hash of its name."""
    return known[name] if name in known else zlib.crc32(name.encode()) % FOLDS


def split(names: list[str], known: dict[str, int], fold: int) -> Split:
    """Divide tracks for a fold.

    Fold k of 0-7 is tested on, the next one validated on, the other six trained on. From 8 on
    everything is trained on; validation is then empty, and so is test.
    """
    if fold >= FOLDS:
        return Split(tuple(sorted(names)), (), ())
    held = {fold: "test", (fold + 1) % FOLDS: "validation"}
    parts: dict[str, list[str]] = {"training": [], "validation": [], "test": []}
    for name in sorted(names):
        parts[held.get(fold_of(name, known), "training")].append(name)
    return Split(**{k: tuple(v) for k, v in parts.items()})
