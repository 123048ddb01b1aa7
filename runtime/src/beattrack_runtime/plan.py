"""Where each result will lie: decided, and checked, before any work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beattrack_runtime.errors import MisuseError, OutputError, reason

# The kind of result -> suffixes that its file may have; the first is used in folders. None: any.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "beats": (".beats",),
    "jsonl": (".jsonl",),
    "click": (".wav",),
    "plot": (".png", ".pdf", ".svg", ".jpg", ".jpeg"),
}
_LINES = ("beats", "jsonl")  # any suffix will do, and a pipe or device as well


@dataclass(frozen=True)
class Plan:
    """What becomes of one stream: the kinds of result wanted and their paths."""

    stem: str
    paths: dict[str, Path]


def make_plans(stems: Sequence[str], wanted: dict[str, str], inputs: Sequence[Path]) -> list[Plan]:
    """Return one plan per stream.

    Args:
        stems: a name for each stream, without suffix.
        wanted: what the user gave for each kind of result: a file, or a folder where there are
            several streams, a folder of that name exists already, or it ends in a slash.
        inputs: files that must not be overwritten.

    Raises:
        MisuseError: an impossible path.
        OutputError: a folder cannot be made.
    """
    names = _unique(stems)
    plans = [Plan(name, {}) for name in names]
    for kind, text in wanted.items():
        given = Path(text)
        if len(stems) > 1 or given.is_dir() or text.endswith("/"):
            _make_folder(kind, given)
            for plan in plans:
                plan.paths[kind] = given / (plan.stem + SUFFIXES[kind][0])
        else:
            plans[0].paths[kind] = given
    taken: dict[str, str] = {}
    for plan in plans:
        for kind, path in plan.paths.items():
            _check(kind, path, inputs)
            real = os.path.realpath(path)
            if real in taken:
                raise MisuseError(f"--{kind} and --{taken[real]} would both write '{path}'.")
            taken[real] = kind
    return plans


def _unique(stems: Sequence[str]) -> list[str]:
    """Return the stems with a number added where one occurs again."""
    names: list[str] = []
    for stem in stems:
        name, number = stem, 1
        while name in names or (number > 1 and name in stems):
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def _make_folder(kind: str, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise MisuseError(f"--{kind} must name a folder here, and '{folder}' is none.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder '{folder}': {reason(error)}.") from None


def _check(kind: str, path: Path, inputs: Sequence[Path]) -> None:
    """Refuse a path that cannot or must not be written."""
    if not path.parent.is_dir():
        raise MisuseError(f"There is no folder '{path.parent}' for --{kind} '{path.name}'.")
    if any(given.exists() and path.exists() and path.samefile(given) for given in inputs):
        raise MisuseError(f"--{kind} would overwrite the input '{path}'.")
    if kind in _LINES:
        return
    if path.suffix.lower() not in SUFFIXES[kind]:
        raise MisuseError(f"--{kind} '{path}' must end in {' or '.join(SUFFIXES[kind])}.")
    if path.exists() and not path.is_file():
        raise MisuseError(f"--{kind} '{path}' is not a regular file.")
