"""What is evaluated, and on which tracks it may be: never silently on what it was trained on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beattrack.config import ConfigError
from beattrack_runtime.onnx_model import OnnxModel
from beattrack_runtime.session import STARTER_MODEL
from beattrack_trainer.data.folders import DataSet, Track
from beattrack_trainer.data.folds import FOLDS, read_folds, split
from beattrack_trainer.training.runs import Run

STARTER = "starter"  # the word for the shipped model
PARTS = ("test", "validation", "all")


@dataclass(frozen=True)
class Subject:
    """A model file, and the run that it comes from where that is at hand."""

    name: str
    model: Path
    run: Run | None
    about: OnnxModel

    def sha256(self) -> str:
        """Return the hash of the model file."""
        return hashlib.sha256(self.model.read_bytes()).hexdigest()

    def trained_on(self) -> tuple[tuple[str, ...], int]:
        """Return the names of the data sets of its training, and its fold.

        A model file says it of itself. What it says decides only which tracks are refused.
        """
        said = self.about.provenance.get("settings")
        settings: dict[str, Any] = said if isinstance(said, dict) else {}
        names = settings.get("data", [])
        places = settings.get("path_base_dir", "")
        listed = [n for n in (names if isinstance(names, list) else [names]) if isinstance(n, str)]
        if isinstance(places, str) and places:
            listed.append(places)
        fold = settings.get("fold", FOLDS)
        return tuple(listed), fold if isinstance(fold, int) else FOLDS


def model_subject(word: str) -> Subject:
    """Return the subject of ``--model``: a file, or ``starter``.

    Raises:
        ConfigError: there is no such file.
        ModelError: the file is no model.
    """
    path = STARTER_MODEL if word == STARTER else Path(word)
    if not path.is_file():
        raise ConfigError(f"There is no model file '{word}'.")
    return Subject(path.stem, path, None, OnnxModel(path))


@dataclass(frozen=True)
class Selection:
    """Tracks to score, and what must be said of them."""

    tracks: list[Track]
    part: str  # one of PARTS
    trained: bool  # whether the set is one that the model was trained on
    remark: str

    @property
    def seen(self) -> bool:
        """Whether tracks that it was trained on are among them."""
        return self.trained and self.part == "all"

    @property
    def held_out(self) -> bool:
        """Whether no decision about the model was taken on these tracks."""
        return not self.trained or self.part == "test"


def select(subject: Subject, data: DataSet, part: str | None, limit: int | None) -> Selection:
    """Return the tracks to score.

    Of a set that the model was trained on, the test fold unless another part is asked for; of
    any other set, everything.

    Args:
        subject: the model.
        data: the data set.
        part: one of PARTS or None.
        limit: at most so many tracks, evenly spread over the names; None for all.

    Raises:
        ConfigError: the part does not exist, or is empty.
    """
    if part is not None and part not in PARTS:
        raise ConfigError(f"part={part!r} is not possible: it must be {', '.join(PARTS)}.")
    tracks = data.tracks()
    names, fold = subject.trained_on()
    if not any(_same_set(name, data) for name in names):
        if part in ("test", "validation"):
            raise ConfigError(
                f"'{subject.name}' was not trained on {data.name}, so it has no {part} part there; "
                "leave --part away to score all of it."
            )
        chosen, remark = tracks, f"{data.name} was not trained on: all of it is scored"
        return Selection(_thin(chosen, limit), "all", False, remark)
    part = part or "test"
    if part == "all":
        remark = f"{data.name} includes tracks that it was TRAINED ON: no measure of quality"
        return Selection(_thin(tracks, limit), part, True, remark)
    table = data.base / "folds.tsv"
    known = read_folds(table) if table.is_file() else {}
    wanted = set(getattr(split([t.name for t in tracks], known, fold), part))
    chosen = [t for t in tracks if t.name in wanted]
    if not chosen:
        raise ConfigError(
            f"'{subject.name}' was trained on {data.name} with fold={fold}, which leaves no "
            f"{part} tracks; score another set, or say --part all to score what it has seen."
        )
    remark = f"{data.name} was trained on: only the {part} part of fold {fold} is scored"
    return Selection(_thin(chosen, limit), part, True, remark)


def _same_set(name: str, data: DataSet) -> bool:
    """Whether a name in a run's settings means this data set: the same folder, or its name."""
    return Path(name).name == data.name or Path(name).resolve() == data.base.resolve()


def _thin(tracks: list[Track], limit: int | None) -> list[Track]:
    if limit is None or limit >= len(tracks):
        return tracks
    return [tracks[i * len(tracks) // limit] for i in range(limit)]


def result_folder(subject: Subject, data: DataSet, selection: Selection, save_dir: Path) -> Path:
    """Return where the results of a subject on these tracks go."""
    part = f"-{selection.part}" if selection.trained and selection.part != "test" else ""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", f"{subject.name}-{data.name}{part}")
    return save_dir / safe.lstrip(".")
