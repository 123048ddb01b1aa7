"""Runs on disk: one folder each, with all that is needed to go on, to judge and to export.

<runs_dir>/<run_id>/
    run.json            settings, model, number of tracks; when finished the result
    settings.yaml       the settings alone: trainer train --config repeats the run
    environment.json    for each start: versions, machine, command, commit
    metrics.csv         losses, validation F, learning rate, frames a second, by step
    log.txt             what the terminal said
    figures/            activations against beats at each validation; the curves
    last.ckpt           where an interrupted run goes on; previous.ckpt is the one before
    best.ckpt           of the validation that chose the weights
    wandb/              what W&B has or will be sent
    weights.pt          the weights to use; there when the run is finished
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack.model import BeatNetwork, build_model
from beattrack_trainer.config import Settings
from beattrack_trainer.files import replacing, write_text
from beattrack_trainer.training.widen import widened

NOTE = "run.json"
CHECKPOINT = "last.ckpt"
WEIGHTS = "weights.pt"
SETTINGS = "settings.yaml"
STARTS = "environment.json"
# Where, how fast and under whose eyes a run is computed does not change what it is.
_INCIDENTAL = ("run_id", "runs_dir", "group", "project_name", "wandb", "pictures", "accelerator",
               "devices", "nodes", "workers", "threads", "checkpoint_every")  # fmt: skip


def identity(settings: Settings) -> dict[str, Any]:
    """Return the settings that make a run what it is."""
    return {k: v for k, v in settings.to_dict().items() if k not in _INCIDENTAL}


def digest(values: dict[str, Any]) -> str:
    """Return eight characters that tell these settings apart.

    Those at their defaults are left out, so that a key that a later version adds changes no id.
    """
    usual = Settings.from_dict({}).to_dict()
    own = {k: v for k, v in values.items() if v != usual[k]}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]


def make_run_id(settings: Settings) -> str:
    """Return the id of a run: the same settings give the same id, so a repeated command goes on."""
    name = f"{settings.model.model}-f{settings.train.fold}"
    return f"{name}-{digest(identity(settings))}"


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
        except (ValueError, RecursionError):
            raise ConfigError(f"'{self.path / NOTE}' is damaged: it is not JSON.") from None
        parts = ("settings", "model", "tracks")
        if not isinstance(values, dict) or any(not isinstance(values.get(k), dict) for k in parts):
            raise ConfigError(f"'{self.path / NOTE}' is not the note of a run.")
        return values

    def settings(self) -> Settings:
        """Return the settings that it was started with."""
        values = self.note()["settings"]
        try:
            return Settings.from_dict(values)
        except ConfigError as error:
            raise ConfigError(
                f"'{self.path / NOTE}' was written by another version of the trainer: {error}"
            ) from None

    def write_note(self, values: dict[str, Any]) -> None:
        """Write ``run.json``."""
        self._write(NOTE, json.dumps(values, indent=2) + "\n")

    def write_start(self, settings: Settings, environment: dict[str, Any]) -> None:
        """Write ``settings.yaml``, and add a start to ``environment.json``."""
        self._write(SETTINGS, OmegaConf.to_yaml(OmegaConf.create(settings.to_dict())))
        try:
            starts = json.loads((self.path / STARTS).read_text())
        except (OSError, ValueError):
            starts = []
        starts = [*(starts if isinstance(starts, list) else []), environment]
        self._write(STARTS, json.dumps(starts, indent=2) + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this run meanwhile; a kill gives it free.

        Raises:
            ConfigError: another one does.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"'{self.path}' is being trained by another process.") from None
            except OSError:  # a file system without locks
                pass
            yield

    def _write(self, name: str, text: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / name, text)

    def write_weights(self, network: BeatNetwork) -> None:
        """Write the weights: the run is finished with that. Raises OSError."""
        target = self.path / WEIGHTS
        try:
            with replacing(target) as temporary:
                torch.save(network.state_dict(), temporary)
        except RuntimeError as error:  # torch's word for a disk that is full
            reason = str(error).splitlines()[0]
            raise OSError(f"'{target}' cannot be written: {reason}") from None

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
        try:
            network = build_model(ModelConfig.from_dict(note["model"]))
        except ConfigError as error:
            raise ConfigError(f"'{self.path / NOTE}' describes no network: {error}") from None
        _read_weights(network, self.path / WEIGHTS, NOTE, "copy the run anew or train it again")
        return network.eval(), self.settings().features, note


def _read_weights(
    network: BeatNetwork, path: Path, what: str, remedy: str, widen: bool = False
) -> None:
    """Put the weights of a file into a network; ``what`` names what it should fit."""
    state = _load_state(path)
    if not state:
        raise ConfigError(
            f"'{path}' does not fit {what}: it is damaged or holds no weights; {remedy}."
        )
    try:
        network.load_state_dict((widened(state, network) if widen else None) or state)
    except Exception:  # the numbers may be of any shape and kind
        odd = _difference(state, network.state_dict())
        raise ConfigError(
            f"'{path}' does not fit {what}: it is of another network{odd}; {remedy}."
        ) from None


def _load_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a file by their names; empty for a file of anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's thoughts about a file that is not its own
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception:  # torch raises some eight kinds for a damaged file, with advice on its API
        return {}
    named = isinstance(state, dict) and all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    )
    return dict(state) if named else {}


def _difference(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str:
    """Return in words where the sizes of some weights first differ from those wanted."""
    for name, weight in wanted.items():
        size = list(weight.shape)
        if name not in state:
            return f", without {name} {size}"
        if list(state[name].shape) != size:
            return f", whose {name} is {list(state[name].shape)} instead of {size}"
    return ""


def load_weights(network: BeatNetwork, init: str, runs_dir: Path) -> None:
    """Let a network begin with the weights of a finished run, or of a ``.weights.pt``.

    A TCN may be wider than the one whose weights these are (widen.py).

    Raises:
        ConfigError: there is no such run or file, or it is of another network.
    """
    path = Path(init)
    if path.suffix == ".pt" and not path.is_file():
        raise ConfigError(f"init={init} is not possible: there is no such file.")
    if not path.is_file():
        run = find_run(init, runs_dir)
        if not run.finished:
            raise ConfigError(f"init={init} is a run that is not finished: it has no {WEIGHTS}.")
        path = run.path / WEIGHTS
    remedy = "give a run or a .weights.pt of the same features, model, depth and kernel"
    _read_weights(network, path, "the network that is to be trained", remedy, widen=True)


def find_run(name: str | None, runs_dir: Path = Path("runs")) -> Run:
    """Return a run by id or by path; None is the latest finished one.

    One that is not on this machine is fetched from W&B, where there is an account; there it may
    also be named ``project/run_id`` or ``entity/project/run_id``.

    Raises:
        ConfigError: there is no such run.
    """
    if name is not None:
        path = Path(name) if (Path(name) / NOTE).is_file() else runs_dir / name
        if (path / NOTE).is_file():
            return Run(path)
        local = runs_dir / name.rsplit("/", 1)[-1]
        if (local / NOTE).is_file():
            return Run(local)
        from beattrack_trainer.training.tracking import fetch_run, has_account

        if has_account():
            return fetch_run(name, runs_dir)
        raise ConfigError(
            f"There is no run '{name}' in '{runs_dir}', and no W&B account to ask for it."
        )
    finished = sorted(runs_dir.glob(f"*/{WEIGHTS}"), key=lambda f: f.stat().st_mtime)
    if not finished:
        raise ConfigError(f"There is no finished run in '{runs_dir}'; make one with: trainer train")
    return Run(finished[-1].parent)
