"""What is seen of a training while it runs: a bar in a terminal, else lines; figures to logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from beattrack_trainer.files import naming
from beattrack_trainer.say import say
from beattrack_trainer.training.checkpoints import LOG_EVERY
from beattrack_trainer.training.loggers import VALIDATED

LINE_EVERY_S = 30.0  # without a terminal


class Progress(ProgressBar):
    """Shows loss, validation F, learning rate, frames a second and the time that is left.

    The same lines go to ``log.txt`` and, where stderr is no terminal, to stderr. The figures go to
    the loggers every LOG_EVERY steps and at each validation, numbered by steps done; Lightning's
    own count shifts by one when a run is resumed.
    """

    def __init__(self, console: Console, log: Path, steps: int) -> None:
        super().__init__()
        self._console, self._log, self._steps = console, log, steps
        self._shown: RichProgress | None = None
        self._values: dict[str, float] = {}
        self._began = self._line_at = 0.0
        self._batch_end, self._busy, self._counted = 0.0, 0.0, 0
        self._first_step, self._quiet = 0, False

    def disable(self) -> None:
        """Be still: Lightning asks this of all processes but the first."""
        self._quiet = True

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begin where the run goes on."""
        self._batch_end = self._began = self._line_at = time.monotonic()
        self._first_step = trainer.global_step
        if self._quiet:
            return
        if trainer.global_step:
            self.say(f"goes on from step {trainer.global_step}")
        if self._console.is_terminal:
            self._shown = RichProgress(
                TextColumn("step"), MofNCompleteColumn(), BarColumn(None),
                TextColumn("{task.description}"), TextColumn("left"), TimeRemainingColumn(),
                console=self._console, refresh_per_second=4, expand=True,
            )  # fmt: skip
            self._shown.add_task("", total=self._steps, completed=trainer.global_step)
            self._shown.start()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count, and now and then tell."""
        step, now = trainer.global_step, time.monotonic()
        self._busy += now - self._batch_end
        self._batch_end = now
        self._counted += batch["valid"].numel() * trainer.world_size
        if step % LOG_EVERY == 0:
            self._values |= {f"train/{k}": float(v.detach()) for k, v in outputs.items()}
            self._values["learning_rate"] = trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[
                0
            ]
            self._values["frames_per_second"] = self._counted / max(self._busy, 1e-9)
            self._busy, self._counted = 0.0, 0
            trained = {k: v for k, v in self._values.items() if not k.startswith("val/")}
            for logger in trainer.loggers:
                logger.log_metrics(trained, step=step)
        if self._shown:
            self._shown.update(self._shown.task_ids[0], completed=step, description=self._figures())
        if not self._quiet and (now - self._line_at > LINE_EVERY_S or step == self._steps):
            self._line_at = now
            done = max(1, step - self._first_step)
            left = (now - self._began) / done * (self._steps - step)
            line = f"step {step}/{self._steps}  {self._figures()}  left {left / 60:.0f} min"
            self.say(line, seen=self._shown is None)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Tell what a validation gave; its time is not training time."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k in VALIDATED}
        self._values |= values
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        self._batch_end = time.monotonic()
        if not self._quiet:
            self.say(
                f"step {trainer.global_step}/{self._steps}  validation: F {values['val/f']:.3f}  "
                f"beats {values['val/beat_f']:.3f}  downbeats {values['val/downbeat_f']:.3f}  "
                f"loss {values['val/loss']:.3f}"
            )

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Leave the terminal as it was."""
        if self._shown:
            self._shown.stop()
            self._shown = None

    def say(self, line: str, seen: bool = True) -> None:
        """Write one line to the log and, if it is to be seen, to stderr, above the bar."""
        with naming(self._log), self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
        if seen:
            say(self._console, line)

    def _figures(self) -> str:
        names = (
            ("train/loss", "loss", ".3f"),
            ("val/f", "val F", ".3f"),
            ("learning_rate", "lr", ".1e"),
            ("frames_per_second", "frames/s", ",.0f"),
        )
        return "  ".join(f"{n} {self._values[k]:{f}}" for k, n, f in names if k in self._values)
