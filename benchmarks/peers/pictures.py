"""Two pictures: scores of each row of the table, and beat F song by song."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from peers.scoring import OFFLINE, STATED, Row

_SHOWN = (("beat_f", "beat F"), ("cmlt", "CMLt"), ("amlt", "AMLt"), ("downbeat_f", "downbeat F"))
_COLOURS = ("#1f9e89", "#e4572e", "#2f6690", "#e0a526", "#7b4fa3", "#8796a5", "#b0413e", "#4c8c2b")
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def _colours(rows: list[Row]) -> dict[str, str]:
    names = list(dict.fromkeys(row.peer.name for row in rows))
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}


def scores(rows: list[Row], title: str) -> Figure:
    """Draw the four scores of every row as bars; pale where no live listener hears it so."""
    colours = _colours(rows)
    figure = Figure(figsize=(11, 1.4 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(_SHOWN), sharey=True)
    places = np.arange(len(rows))[::-1]
    means = [row.means() for row in rows]
    for axis, (name, label) in zip(axes, _SHOWN, strict=True):
        for place, row, mean in zip(places, rows, means, strict=True):
            value = mean[name]
            pale = 0.4 if row.times in (STATED, OFFLINE) else 1.0
            if value is not None:
                axis.barh(place, value, color=colours[row.peer.name], alpha=pale)
            text = "none" if value is None else f"{value:.2f}"
            axis.text((value or 0) + 0.01, place, text, va="center", fontsize=8)
        axis.set(xlim=(0, 1.12), xticks=[0, 0.5, 1], title=label, ylim=(-0.6, len(rows) - 0.4))
    axes[0].set_yticks(places, [row.label for row in rows])
    figure.suptitle(f"{title}. Pale: not what a live listener hears.", x=0.01, ha="left")
    return figure


def songs(rows: list[Row], title: str) -> Figure:
    """Draw the beat F of every song and peer, as heard or offline; songs by our own score."""
    shown = [row for row in rows if row.times != STATED]
    ours = shown[0].songs
    every = {name for row in shown for name in row.songs}
    names = sorted(every, key=lambda n: (ours[n].beat_f if n in ours else -1.0, n))
    colours = _colours(rows)
    figure = Figure(figsize=(9, 1.8 + 0.26 * len(names)), layout="constrained")
    axis = figure.subplots()
    for number, row in enumerate(shown):
        known = [(n, row.songs[name].beat_f) for n, name in enumerate(names) if name in row.songs]
        heights, values = zip(*known, strict=True)
        axis.scatter(
            values, np.array(heights) + 0.08 * (len(shown) / 2 - number), label=row.label,
            s=60 if row is shown[0] else 26, zorder=3 if row is shown[0] else 2,
            facecolors="none" if row.times == OFFLINE else colours[row.peer.name],
            edgecolors=colours[row.peer.name],
        )  # fmt: skip
    axis.set_yticks(range(len(names)), [n if len(n) <= 40 else f"{n[:39]}…" for n in names])
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(names) - 0.3), xlabel="beat F")
    axis.grid(axis="y", color="#eeeeee", zorder=0)
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def save(draw: Any, rows: list[Row], title: str, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with rc_context(_STYLE):
        draw(rows, title).savefig(temporary, format="png", dpi=110, facecolor="white")
    temporary.replace(path)
