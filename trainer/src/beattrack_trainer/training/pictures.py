"""Pictures of a training: activations against beats, and its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from matplotlib.figure import Figure

from beattrack_trainer.files import replacing
from beattrack_trainer.training.loggers import METRICS, read_metrics
from beattrack_trainer.training.validation import Heard

FROM_S, TO_S = 10.0, 30.0  # what is drawn of a track; its last 20 s if it is shorter
COLOURS = {"beat": "#1f77b4", "downbeat": "#d62728", "reported": "#2ca02c"}


def draw_activations(tracks: list[Heard], title: str, path: Path) -> None:
    """Draw each track: activations at the time they speak of, annotated beats, reported beats."""
    figure = Figure(figsize=(11, 0.6 + 2.0 * len(tracks)), layout="constrained")
    for axes, heard in zip(
        figure.subplots(len(tracks), 1, squeeze=False)[:, 0], tracks, strict=True
    ):
        seconds = len(heard.beat) / heard.fps
        start = max(0.0, min(FROM_S, seconds - (TO_S - FROM_S)))
        axes.set(xlim=(start, min(seconds, start + TO_S - FROM_S)), ylim=(-0.14, 1.05))
        at = [(t + 0.5 - heard.latency) / heard.fps for t in range(len(heard.beat))]
        for key in ("beat", "downbeat"):
            axes.plot(at, getattr(heard, key), color=COLOURS[key], linewidth=1, label=key)
        for time_s, position in heard.annotated:
            colour = COLOURS["downbeat" if position == 1 else "beat"]
            axes.axvline(time_s, color=colour, linewidth=0.8, linestyle=":")
        for position, marker in ((True, "D"), (False, "o")):
            chosen = heard.reported[(heard.reported[:, 1] == 1) == position, 0]
            label = "reported downbeat" if position else "reported beat"
            axes.plot(chosen, [-0.07] * len(chosen), marker, color=COLOURS["reported"],
                      markersize=4, label=label)  # fmt: skip
        axes.set_title(heard.name, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
    axes.set_xlabel("seconds; dotted: annotated", fontsize=8)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    _write(figure, path)


def draw_curves(metrics: Path, path: Path) -> None:
    """Draw losses, validation F and learning rate over the steps of a ``metrics.csv``."""
    rows = read_metrics(metrics)
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    parts = (
        ("loss", ("train/loss", "val/loss")),
        ("validation F", ("val/beat_f", "val/downbeat_f", "val/f")),
        ("learning rate", ("learning_rate",)),
    )
    for axes, (title, keys) in zip(figure.subplots(1, 3), parts, strict=True):
        for key in keys:
            points = [(r["step"], r[key]) for r in rows if key in r]
            marker = "o" if key.startswith("val/") else ""
            axes.plot(*zip(*points, strict=True) if points else ((), ()),
                      marker=marker, markersize=3, linewidth=1, label=key)  # fmt: skip
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(keys) > 1:
            axes.legend(fontsize=8, frameon=False)
        if title == "validation F":
            axes.set_ylim(0, 1.03)
        elif title == "loss":
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


class Pictures(lightning.Callback):
    """Draws the tracks that were heard at each validation, into the folder and to W&B."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Draw ``module.heard``."""
        if not trainer.is_global_zero or not module.heard:
            return
        step = trainer.global_step
        path = self._folder / f"activations-{step:06d}.png"
        f = float(trainer.callback_metrics["val/f"])
        draw_activations(module.heard, f"step {step}, validation F {f:.3f}", path)
        show(trainer, "activations", path)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Draw the curves."""
        if trainer.is_global_zero:
            path = self._folder / "curves.png"
            draw_curves(self._folder.parent / METRICS, path)
            show(trainer, "curves", path)


def show(trainer: Any, key: str, path: Path) -> None:
    """Hand a picture to those loggers that take pictures."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key, [str(path)], step=trainer.global_step)
