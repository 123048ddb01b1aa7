"""Runs on disk: one folder each, with all that is needed to go on, to judge and to export.

<runs_dir>/<run_id>/
    run.json        settings, data, and when finished the result
    last.ckpt       where an interrupted run goes on
    weights.pt      the best averaged weights; there when the run is finished
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack.model import BeatNetwork, build_model
from beattrack_trainer.config import Settings

NOTE = "run.json"
CHECKPOINT = "last.ckpt"
WEIGHTS = "weights.pt"
# Where and how fast a run is computed does not change what it is.
_INCIDENTAL = ("run_id", "runs_dir", "threads")


def make_run_id(settings: Settings) -> str:
    """Return the id of a run: the same settings give the same id, so a repeated command goes on."""
    values = {k: v for k, v in settings.to_dict().items() if k not in _INCIDENTAL}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return f"{settings.model.model}-f{settings.train.fold}-{digest}"


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    path: Path

    @property
    def id(self) -> str:
        """Name of the folder, and of the run in W&B."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the weights are there."""
        return (self.path / WEIGHTS).is_file()

    def note(self) -> dict[str, Any]:
        """Return ``run.json``. Raises ConfigError if there is none or it is damaged."""
        try:
            values = json.loads((self.path / NOTE).read_text())
        except FileNotFoundError:
            raise ConfigError(f"'{self.path}' is no run: it has no {NOTE}.") from None
        except ValueError:
            raise ConfigError(f"'{self.path / NOTE}' is damaged: it is not JSON.") from None
        if not isinstance(values, dict) or "settings" not in values or "model" not in values:
            raise ConfigError(f"'{self.path / NOTE}' is not the note of a run.")
        return values

    def settings(self) -> Settings:
        """Return the settings that it was started with."""
        return Settings.from_dict(self.note()["settings"])

    def write_note(self, values: dict[str, Any]) -> None:
        """Write ``run.json``."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{NOTE}.{os.getpid()}"
        temporary.write_text(json.dumps(values, indent=2) + "\n")
        temporary.replace(self.path / NOTE)

    def write_weights(self, network: BeatNetwork) -> None:
        """Write the weights: the last thing that a run does."""
        temporary = self.path / f".{WEIGHTS}.{os.getpid()}"
        torch.save(network.state_dict(), temporary)
        temporary.replace(self.path / WEIGHTS)

    def load(self) -> tuple[BeatNetwork, FeatureConfig, dict[str, Any]]:
        """Return the network (in evaluation mode), its features and ``run.json``.

        Raises:
            ConfigError: the run is not finished, or its files do not fit each other.
        """
        note = self.note()
        if not self.finished:
            raise ConfigError(
                f"The run '{self.path}' is not finished: it has no {WEIGHTS}; the command that "
                "started it goes on with it."
            )
        network = build_model(ModelConfig.from_dict(note["model"]))
        try:
            weights = torch.load(self.path / WEIGHTS, map_location="cpu", weights_only=True)
            network.load_state_dict(weights)
        except (RuntimeError, pickle.UnpicklingError, AttributeError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"'{self.path / WEIGHTS}' does not fit {NOTE}: {reason}") from None
        return network.eval(), self.settings().features, note


def find_run(name: str | None, runs_dir: Path = Path("runs")) -> Run:
    """Return a run by id or by path; None is the latest finished one.

    Raises:
        ConfigError: there is no such run.
    """
    if name is not None:
        path = Path(name) if (Path(name) / NOTE).is_file() else runs_dir / name
        if not (path / NOTE).is_file():
            raise ConfigError(f"There is no run '{name}' in '{runs_dir}'.")
        return Run(path)
    finished = sorted(runs_dir.glob(f"*/{WEIGHTS}"), key=lambda f: f.stat().st_mtime)
    if not finished:
        raise ConfigError(f"There is no finished run in '{runs_dir}'; make one with: trainer train")
    return Run(finished[-1].parent)
