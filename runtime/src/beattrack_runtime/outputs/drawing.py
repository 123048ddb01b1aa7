"""The picture of a stream: tempo and waveform in full, some seconds beat by beat."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from beattrack_runtime.errors import OutputError, reason
from beattrack_runtime.stats import clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from beattrack.events import Beat
    from beattrack_runtime.outputs.plot import PlotOutput

_INK, _FAINT, _PAPER = "#22303c", "#8796a5", "#ffffff"
_WAVE, _CHOSEN, _QUIET, _GLOW = "#6fa0c8", "#2f6690", "#c9d2da", "#fdf3d8"
_BEAT, _DOWNBEAT = "#1f9e89", "#e4572e"  # told apart by people with any colour vision
_DETAIL_COLUMNS = 2000

_STYLE: Any = {
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}


def draw(plot: PlotOutput, path: Path, kind: str) -> None:
    """Draw what ``plot`` has gathered into ``path`` as ``kind`` (png, pdf, svg, jpg).

    Raises:
        OutputError: the file cannot be written.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = _compose(plot)
        try:
            figure.savefig(path, format=kind, dpi=150, facecolor=_PAPER)
        except OSError as error:
            raise OutputError(f"Cannot write '{plot.path}': {reason(error)}.") from None


def _compose(plot: PlotOutput) -> Figure:
    """Return the figure; a stream no longer than the detail has no overview."""
    detail = plot.detail
    short = plot.duration_s <= detail.end_s - detail.begin_s + 0.5
    figure = Figure(figsize=(13.0, 7.0 if short else 9.4))
    ratios = [1.0, 1.5, 1.2] if short else [1.0, 1.0, 1.5, 1.2]
    grid = GridSpec(len(ratios), 1, figure, height_ratios=ratios, left=0.07, right=0.975,
                    top=0.885, bottom=0.065, hspace=0.42)  # fmt: skip
    axes = [figure.add_subplot(grid[row, 0]) for row in range(len(ratios))]
    _headline(figure, plot)
    _tempo(axes[0], plot)
    if not short:
        _overview(axes[1], plot)
        _zoom(figure, axes[1], axes[2], plot)
    _waveform(axes[-2], plot)
    _activations(axes[-1], plot)
    figure.align_ylabels(axes)
    return figure


def _headline(figure: Figure, plot: PlotOutput) -> None:
    counts = plot.summary
    facts = [clock(plot.duration_s)]
    if counts.beats:
        facts += [f"{counts.beats} beats", f"median {counts.tempo_bpm:.1f} bpm"]
        facts += [f"{counts.meter} beats in a bar"]
    else:
        facts.append("no beats found")
    # A file name may hold dollar signs, which would be read as mathematics.
    figure.text(0.07, 0.955, plot.title, size=17, weight="bold", parse_math=False)
    figure.text(0.07, 0.922, "   ·   ".join(facts), size=11, color=_FAINT)


def _tempo(axis: Axes, plot: PlotOutput) -> None:
    axis.set_ylabel("tempo\n(bpm)")
    points = np.array(plot.tempo.points or [(0.0, np.nan)])
    axis.plot(points[:, 0], points[:, 1], color=_BEAT, linewidth=1.6)
    known = points[np.isfinite(points[:, 1]), 1]
    if len(known):
        centre = float(np.median(known))
        low, high = float(known.min()), float(known.max())
        axis.set_ylim(min(low - 5, centre - 15), max(high + 5, centre + 15))
    else:
        axis.set_ylim(50, 220)
    axis.grid(axis="y", color=_QUIET, linewidth=0.6)
    _time_axis(axis, 0.0, plot.duration_s)


def _overview(axis: Axes, plot: PlotOutput) -> None:
    time, low, high, locked = plot.envelope.columns()
    begin, end = plot.detail.begin_s, plot.detail.end_s
    inside = (time >= begin) & (time <= end)
    parts = ((_WAVE, locked == 1), (_QUIET, locked == 0), (_CHOSEN, inside & (locked == 1)))
    for colour, shown in parts:
        top, bottom = np.where(shown, high, np.nan), np.where(shown, low, np.nan)
        axis.fill_between(time, bottom, top, color=colour, linewidth=0.4)
    axis.axvspan(begin, end, color=_GLOW, zorder=0)
    _wave_axis(axis, low, high)
    axis.set_ylabel("waveform\n(grey: searching)")
    _time_axis(axis, 0.0, plot.duration_s)


def _zoom(figure: Figure, above: Axes, below: Axes, plot: PlotOutput) -> None:
    """Join the stretch in the overview to the panel that shows it enlarged."""
    for edge, corner in ((plot.detail.begin_s, 0.0), (plot.detail.end_s, 1.0)):
        line = ConnectionPatch(
            xyA=(edge, 0.0),
            xyB=(corner, 1.0),
            coordsA=above.get_xaxis_transform(),
            coordsB=below.transAxes,
            color=_FAINT,
            linewidth=0.8,
            alpha=0.6,
        )
        figure.add_artist(line)


def _waveform(axis: Axes, plot: PlotOutput) -> None:
    begin, samples = plot.detail.samples()
    span = max(1, len(samples) // _DETAIL_COLUMNS)
    rows = samples[: len(samples) // span * span].reshape(-1, span)
    low = rows.min(axis=1) if len(rows) else np.zeros(0)
    high = rows.max(axis=1) if len(rows) else np.zeros(0)
    time = begin + (np.arange(len(rows)) + 0.5) * span / plot.rate
    axis.fill_between(time, low, high, color=_WAVE, alpha=0.75, linewidth=0.4)
    _wave_axis(axis, low, high)
    _beat_lines(axis, list(plot.detail.beats), numbers=True)
    axis.set_ylabel("waveform\nand beats")
    _time_axis(axis, plot.detail.begin_s, plot.detail.end_s)


def _activations(axis: Axes, plot: PlotOutput) -> None:
    frames = np.array(plot.detail.frames or [(0.0, 0.0, 0.0)])
    axis.fill_between(frames[:, 0], frames[:, 1], color=_BEAT, alpha=0.25, linewidth=0)
    axis.plot(frames[:, 0], frames[:, 1], color=_BEAT, linewidth=1.1, label="beat")
    axis.plot(frames[:, 0], frames[:, 2], color=_DOWNBEAT, linewidth=1.4, label="downbeat")
    _beat_lines(axis, list(plot.detail.beats), numbers=False)
    axis.set_ylim(0, 1.02)
    axis.set_yticks([0, 0.5, 1])
    axis.set_ylabel("activation")
    axis.set_xlabel("time (s)")
    axis.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, frameon=False, borderaxespad=0
    )
    _time_axis(axis, plot.detail.begin_s, plot.detail.end_s)


def _beat_lines(axis: Axes, beats: list[Beat], numbers: bool) -> None:
    """Mark the beats; downbeats differ in colour and width. Without ``numbers``, faintly."""
    alpha = 0.9 if numbers else 0.35
    for beat in beats:
        first = beat.is_downbeat
        colour = _DOWNBEAT if first else _BEAT
        axis.axvline(beat.time_s, color=colour, linewidth=1.8 if first else 0.9, alpha=alpha)
        if numbers:
            axis.annotate(
                str(beat.position), (beat.time_s, 1.0), (0, 3), color=colour, size=10,
                xycoords=axis.get_xaxis_transform(), textcoords="offset points", ha="center",
                weight="bold" if first else "normal", annotation_clip=True,
            )  # fmt: skip


def _wave_axis(axis: Axes, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    """Scale a waveform to its loudest sample."""
    peak = max([0.01, *np.abs(low), *np.abs(high)])
    axis.set_ylim(-1.08 * peak, 1.08 * peak)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)


def _time_axis(axis: Axes, begin: float, end: float) -> None:
    """Show ``begin`` to ``end``; as minutes and seconds when there are minutes."""
    axis.set_xlim(begin, max(end, begin + 1e-3))
    axis.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 5, 6, 10]))
    if end - begin > 90:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))
