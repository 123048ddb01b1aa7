"""Checkpoints: written whole or not at all; the last two kept, and the one that was chosen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from beattrack.config import ConfigError
from beattrack_trainer.config import TrainConfig
from beattrack_trainer.files import replacing

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
LOG_EVERY = 25  # steps


class Stopped(SystemExit):
    """It was asked to stop and has saved; with exit code 0, or Lightning would kill the others."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning's own goes through the system's temporary folder; from another file system that is a
    copy, which a kill may leave half done.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write; the last checkpoint becomes the previous one.

        Raises:
            OSError: it cannot be written; what was there is untouched.
        """
        target = Path(path)
        try:
            with replacing(target) as temporary:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if target.name == LAST and target.exists():
                    target.replace(target.with_name(PREVIOUS))
        except RuntimeError as error:  # torch's word for a disk that is full
            raise OSError(f"'{target}' cannot be written: {str(error).splitlines()[0]}") from None


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint, or None if it is damaged; nothing in it is executed."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises some eight kinds for a damaged file
        return None
    return values if isinstance(values, dict) and "state_dict" in values else None


def find_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest readable checkpoint and its content; None if the run has none yet.

    Raises:
        ConfigError: there are some, and all are damaged.
    """
    there = [p for p in (folder / LAST, folder / PREVIOUS) if p.exists()]
    for path in there:
        values = read_checkpoint(path)
        if values is not None:
            return path, values
    if there:
        names = " and ".join(p.name for p in there)
        raise ConfigError(f"{names} in '{folder}' cannot be read; remove them to train afresh.")
    return None


def standard_error(best: list[float], other: list[float]) -> float:
    """Return the standard error of the mean difference of two rows of scores of the same tracks.

    0 where it cannot be told: of one track, or of rows that differ in length.
    """
    if len(best) != len(other) or len(best) < 2:
        return 0.0
    differences = np.subtract(best, other)
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))


class Checkpoints(Checkpoint):
    """Keeps the last checkpoint and a chosen one, stops on Ctrl-C and on a loss that is no number.

    Chosen is the last one that is less than a standard error below the highest ``val/f`` (after
    Breiman et al. 1984, who take the simplest such tree): a few tracks, of which one or another is
    followed at double tempo, would else choose weights by chance, hours before the end of training.

    Lightning's ModelCheckpoint would save before a validation that falls on the same step, so that
    a kill between the two would lose the validation; it also forgets the best when the run's folder
    was moved.

    Attributes:
        best: the highest ``val/f``; -1 before the first
        best_tracks: what each track had there
        best_step: the step of the chosen weights
        metrics: what validation gave there
        seconds: trained so far, over all starts
    """

    def __init__(self, folder: Path, config: TrainConfig, validates: bool) -> None:
        self._folder, self._config, self._validates = folder, config, validates
        self.best, self.best_step, self.seconds = -1.0, 0, 0.0
        self.best_tracks: list[float] = []
        self.metrics: dict[str, float] = {}
        self._since = time.monotonic()
        self._handlers: dict[int, Any] = {}
        self._asked = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        return {"best": self.best, "best_tracks": self.best_tracks, "best_step": self.best_step,
                "metrics": self.metrics, "seconds": self.seconds}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what ``state_dict`` gave."""
        self.best, self.best_step = state["best"], state["best_step"]
        self.best_tracks = list(state.get("best_tracks", []))  # older checkpoints lack it
        self.metrics, self.seconds = dict(state["metrics"]), state["seconds"]

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Take Ctrl-C, SIGTERM and SIGUSR1: stop after this step; the second time, at once.

        Lightning's own way with SIGTERM makes several processes wait for each other for ever. Under
        SLURM its SIGUSR1, which puts the job into the queue again, is left to it.
        """
        self._since = time.monotonic()

        def ask(number: int, frame: object) -> None:
            self._asked = True
            signal.signal(number, signal.default_int_handler)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            usual = (signal.default_int_handler, signal.SIG_DFL)
            if number == signal.SIGTERM or signal.getsignal(number) in usual:
                self._handlers[number] = signal.signal(number, ask)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        """Look whether the loss is a number, and save now and then."""
        step, config = trainer.global_step, self._config
        saving = step % config.checkpoint_every == 0
        if (saving or step % LOG_EVERY == 0) and not torch.isfinite(outputs["loss"]):
            raise ValueError(
                f"The loss is no number any more at step {step}; try a lower learning_rate than "
                f"{config.learning_rate:g}, a longer warmup_steps or precision=32."
            )
        due = self._validates and (step % config.validate_every == 0 or step == config.steps)
        stopping = not due and self._stopping(trainer)
        if stopping or (saving and not due):
            self._save(trainer, LAST)
        if stopping:
            raise Stopped

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Save after a validation, so that none is lost or made twice."""
        f, tracks = float(trainer.callback_metrics["val/f"]), list(module.track_f)
        chosen = f > self.best - standard_error(self.best_tracks, tracks)
        if f > self.best:
            self.best, self.best_tracks = f, tracks
        if chosen:
            self.best_step = trainer.global_step
            self.metrics = {
                k: round(float(v), 5)
                for k, v in trainer.callback_metrics.items()
                if k.startswith("val/")
            }
            self._save(trainer, BEST)
        self._save(trainer, LAST)
        if trainer.state.fn == "fit" and self._stopping(trainer):
            raise Stopped

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Save the end, unless the validation that is due saves it."""
        if not self._validates:
            self._save(trainer, LAST)

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _stopping(self, trainer: Any) -> bool:
        """Whether any process was asked to stop; all of them give the same answer."""
        return bool(trainer.strategy.reduce_boolean_decision(self._asked, all=False))

    def _save(self, trainer: Any, name: str) -> None:
        trainer.save_checkpoint(self._folder / name)
