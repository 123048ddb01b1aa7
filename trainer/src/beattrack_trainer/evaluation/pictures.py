"""The pictures of a report, drawn with matplotlib; each is returned as PNG."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from beattrack_trainer.evaluation.scores import TEMPO_TOLERANCE, WINDOW_S
from beattrack_trainer.evaluation.thresholds import THRESHOLDS, Choice, Row
from beattrack_trainer.evaluation.tracks import TrackResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT = "#22303c", "#8796a5"
_BEAT, _DOWNBEAT, _TRUTH = "#1f9e89", "#e4572e", "#2f6690"
_STYLE: Any = {
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}
EXCERPT_S = 10.0  # of a worst track
_DPI = 110


def _picture(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Turn a function that draws a figure into one that returns it as PNG."""

    @wraps(draw)
    def save(*args: Any) -> bytes:
        import matplotlib

        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # notes about fonts
        with matplotlib.rc_context(_STYLE):
            figure = draw(*args)
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=_DPI, facecolor="white")
        return file.getvalue()

    return save


@_picture
def threshold_map(row: Row, choice: Choice) -> Figure:
    """Draw the mean of beat and downbeat F over all pairs of thresholds, and both curves.

    Args:
        row: float64 [2, thresholds], means over the evaluated tracks; downbeats may be nan.
        choice: the pair that the headline uses.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    known = not np.isnan(row[1]).any()
    values = (row[0][:, None] + (row[1][None] if known else row[0][:, None])) / 2
    step = THRESHOLDS[1] - THRESHOLDS[0]
    extent = (THRESHOLDS[0] - step / 2, THRESHOLDS[-1] + step / 2) * 2
    image = left.imshow(values, origin="lower", extent=extent, cmap="viridis", vmin=0)
    left.plot(choice.downbeat, choice.beat, "o", color="white", markeredgecolor=_INK, markersize=9)
    left.set(xlabel="downbeat threshold", ylabel="beat threshold",
             title="mean of beat and downbeat F" if known else "beat F")  # fmt: skip
    figure.colorbar(image, ax=left, shrink=0.85).outline.set_visible(False)  # type: ignore[operator]
    for values_k, name, colour, at in (
        (row[0], "beat", _BEAT, choice.beat), (row[1], "downbeat", _DOWNBEAT, choice.downbeat)
    ):  # fmt: skip
        right.plot(THRESHOLDS, values_k, color=colour, label=name)
        right.axvline(at, color=colour, linewidth=0.9, linestyle=":")
    right.set(xlabel="threshold", ylabel="F-measure", ylim=(0, 1.02), xlim=(0, 1),
              title="dotted: the pair in use")  # fmt: skip
    right.legend(loc="upper right")
    return figure


@_picture
def error_histogram(errors: NDArray[np.float64]) -> Figure:
    """Draw how far stated and emitted times lie from annotated ones.

    Args:
        errors: float64 [beats found, 2]: stated, emitted minus annotated time, s.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    span = WINDOW_S * 1000
    edges = np.linspace(-span - 30, span + 30, 101).tolist()
    for k, (name, colour) in enumerate((("stated", _BEAT), ("emitted", _TRUTH))):
        values = errors[:, k] * 1000
        label = f"{name}: median {np.median(values):+.1f} ms" if len(values) else name
        axis.hist(values, edges, color=colour, alpha=0.35, label=label)
        axis.hist(values, edges, color=colour, histtype="step", linewidth=1.2)
    axis.axvline(0, color=_INK, linewidth=0.8)
    axis.set(xlabel="reported minus annotated time (ms)", ylabel="beats",
             xlim=(edges[0], edges[-1]))  # fmt: skip
    axis.legend(loc="upper right")
    return figure


@_picture
def tempo_scatter(annotated: NDArray[np.float64], tracked: NDArray[np.float64]) -> Figure:
    """Draw annotated against reported tempo, float64 [tracks] bpm each; nan is left out."""
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axis = figure.subplots()
    both = np.concatenate([annotated, tracked[np.isfinite(tracked)]])
    low, high = both.min() / 1.15, both.max() * 1.15
    line = np.array([low, high])
    for factor, name in ((1.0, "same"), (2.0, "double"), (0.5, "half")):
        low_edge, high_edge = (line * factor * (1 + s * TEMPO_TOLERANCE) for s in (-1, 1))
        axis.fill_between(line, low_edge, high_edge, color=_FAINT, linewidth=0,
                          alpha=0.35 if factor == 1 else 0.18)  # fmt: skip
        at = min(high, high / factor) / 1.03
        if low < at * factor < high * 1.01:
            axis.annotate(name, (at, at * factor), color=_FAINT, ha="right", va="bottom", size=9)
    axis.loglog(annotated, tracked, "o", color=_BEAT, alpha=0.6, markersize=6, markeredgewidth=0)
    axis.set(xlim=(low, high), ylim=(low, high), xlabel="annotated tempo (bpm)",
             ylabel="median reported tempo (bpm)", aspect="equal")  # fmt: skip
    _bpm_ticks(axis, low, high)
    return figure


def _bpm_ticks(axis: Axes, low: float, high: float) -> None:
    """Label tempi as plain numbers, every twenty or so beats a minute."""
    ticks = [t for t in (40, 60, 80, 100, 120, 140, 160, 180, 200, 240, 300) if low <= t <= high]
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks(ticks, [str(t) for t in ticks])
        side.set_ticks([], minor=True)


@_picture
def lock_curve(waits: NDArray[np.float64]) -> Figure:
    """Draw the share of tracks that have locked after so many seconds; inf is never.

    Args:
        waits: float64 [tracks], s from the first annotated beat.
    """
    figure = Figure(figsize=(9, 3.0), layout="constrained")
    axis = figure.subplots()
    known = np.sort(waits[np.isfinite(waits)])
    share = np.arange(len(known) + 1) / len(waits)
    end = max(10.0, known[-1] * 1.05 if len(known) else 0.0)
    axis.step([0, *known, end], [*share, share[-1]], where="post", color=_BEAT, linewidth=1.6)
    never = len(waits) - len(known)
    axis.set(xlim=(0, end), ylim=(0, 1.02), xlabel="s after the first annotated beat",
             ylabel="share of tracks locked", title=f"never: {never} of {len(waits)}")  # fmt: skip
    axis.grid(axis="y", color="#dde3e8", linewidth=0.7)
    return figure


@_picture
def excerpt(track: TrackResult) -> Figure:
    """Draw the ten seconds of a track in which least was right, with annotation and report."""
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    axis = figure.subplots()
    begin = worst_moment(track)
    end = begin + EXCERPT_S
    curves = track.heard.curves
    times = curves.times()
    shown = (times >= begin) & (times <= end)
    for k, colour in enumerate((_BEAT, _DOWNBEAT)):
        axis.plot(times[shown], curves.frames[shown, k], color=colour, linewidth=1.2)
    axis.set_title("beat and downbeat activation below", loc="right", color=_FAINT, size=9)
    rows = (("annotated", track.reference, 1.32), ("reported", track.heard.events, 1.17))
    for name, beats, height in rows:
        axis.axhspan(height - 0.05, height + 0.05, color="#eef2f5", zorder=0)
        axis.text(begin - 0.1, height, name, ha="right", va="center", size=9)
        for time, position in beats[(beats[:, 0] >= begin) & (beats[:, 0] <= end), :2]:
            first = position == 1
            axis.plot([time, time], [height - 0.05, height + 0.05], linewidth=3 if first else 1.6,
                      color=_DOWNBEAT if first else _BEAT, solid_capstyle="butt")  # fmt: skip
    axis.set(xlim=(begin, end), ylim=(0, 1.4), yticks=[0, 0.5, 1], xlabel="time (s)")
    axis.spines["left"].set_bounds(0, 1)
    return figure


def worst_moment(track: TrackResult) -> float:
    """Return where the ten seconds with the most beats missed or made up begin, s."""
    truth, stated = track.reference[:, 0], track.heard.events[:, 0]
    last = max(0.0, track.heard.seconds - EXCERPT_S)
    if not len(stated):
        return 0.0
    apart = np.abs(truth[:, None] - stated[None])
    # What was missed, and what was reported without being there.
    wrong = np.append(truth[apart.min(axis=1) > WINDOW_S], stated[apart.min(axis=0) > WINDOW_S])
    starts = np.arange(0.0, last + 0.1, EXCERPT_S / 2)
    counts = [((wrong >= s) & (wrong < s + EXCERPT_S)).sum() for s in starts]
    return float(min(starts[int(np.argmax(counts))], last))
