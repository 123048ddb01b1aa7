"""Scores of reported beats against annotated ones, by mir_eval."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import mir_eval
import numpy as np
from numpy.typing import NDArray

TRIM_S = 5.0  # the first seconds do not count, as is the custom (Davies et al. 2009)


@dataclass(frozen=True)
class Scores:
    """One track. Times in ms, everything else 0-1; nan where it does not apply."""

    beat_f: float  # F-measure, +-70 ms, of the times that the events state
    beat_f_emitted: float  # the same of the times at which they were emitted
    cmlt: float
    amlt: float
    downbeat_f: float
    error_ms: float  # median of stated minus annotated time, over beats within 70 ms
    delay_ms: float  # median of emitted minus stated time; negative: ahead of the beat
    lock_s: float  # when the first beat was emitted

    def to_dict(self) -> dict[str, float | None]:
        """Return plain JSON types, rounded; nan becomes None."""
        return {k: None if np.isnan(v) else round(v, 4) for k, v in asdict(self).items()}


def _trim(times: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort(times[times >= TRIM_S])


def score(reference: NDArray[np.float64], events: NDArray[np.float64]) -> Scores:
    """Score one track.

    Args:
        reference: float64 [beats, 2]: seconds, beat in bar; cut to the length of the audio.
        events: float64 [events, 3]: stated time, beat in bar, emitted time, all in seconds.
    """
    truth, stated, emitted = (_trim(t) for t in (reference[:, 0], events[:, 0], events[:, 2]))
    downbeats = _trim(reference[reference[:, 1] == 1, 0])
    enough = len(truth) > 1 and len(stated) > 1
    continuity = mir_eval.beat.continuity(truth, stated) if enough else (0.0,) * 4
    errors = np.empty(0)
    if len(stated):
        nearest = stated[np.abs(stated[None, :] - truth[:, None]).argmin(axis=1)]
        errors = (nearest - truth)[np.abs(nearest - truth) <= 0.07]
    return Scores(
        beat_f=float(mir_eval.beat.f_measure(truth, stated)),
        beat_f_emitted=float(mir_eval.beat.f_measure(truth, emitted)),
        cmlt=float(continuity[1]),
        amlt=float(continuity[3]),
        downbeat_f=_downbeat_f(downbeats, events),
        error_ms=float(np.median(errors) * 1000) if len(errors) else np.nan,
        delay_ms=float(np.median(events[:, 2] - events[:, 0]) * 1000) if len(events) else np.nan,
        lock_s=float(events[0, 2]) if len(events) else np.nan,
    )


def _downbeat_f(downbeats: NDArray[np.float64], events: NDArray[np.float64]) -> float:
    """Return the F-measure of downbeats; nan when none is annotated."""
    if not len(downbeats):
        return float("nan")
    return float(mir_eval.beat.f_measure(downbeats, _trim(events[events[:, 1] == 1, 0])))


def mean_scores(rows: list[Scores]) -> dict[str, float]:
    """Return the mean of each score over tracks (the median for times), nan left out."""
    result = {}
    for name in asdict(rows[0]):
        values = np.array([getattr(r, name) for r in rows])
        values = values[~np.isnan(values)]
        middle = np.median if name.endswith(("_ms", "_s")) else np.mean
        result[name] = round(float(middle(values)), 4) if len(values) else float("nan")
    return result
