"""Eight folds: six to train on, one to validate, one to test."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from beattrack.config import ConfigError
from beattrack_trainer.data.annotations import read_text

FOLDS = 8
_NAMES = tuple(str(fold) for fold in range(FOLDS))


@dataclass(frozen=True)
class Split:
    """Track names of one fold's three parts, each sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def read_folds(path: Path) -> dict[str, int]:
    """Return the fold of each track from a ``folds.tsv``: a header, then track, tab, fold.

    The header may be missing.

    Raises:
        ConfigError: it cannot be read, a row has no track and fold of 0-7, or a track stands twice.
    """
    try:
        lines = read_text(path).splitlines()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    folds: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells) or (number == 1 and cells[1:2] == ["fold"]):
            continue
        if len(cells) < 2 or not cells[0] or cells[1] not in _NAMES:
            raise ConfigError(
                f"'{path}', line {number}: a track, a tab and a fold of 0-{FOLDS - 1} must stand."
            )
        if cells[0] in folds:
            raise ConfigError(f"'{path}', line {number}: '{cells[0]}' stands there twice.")
        folds[cells[0]] = int(cells[1])
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
