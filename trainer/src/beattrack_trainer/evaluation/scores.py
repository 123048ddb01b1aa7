"""Scores of reported beats against annotated ones, by mir_eval; what it lacks is defined here."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import asdict, dataclass

import mir_eval
import numpy as np
from numpy.typing import NDArray

TRIM_S = 5.0  # the first seconds do not count, as is the custom (Davies et al. 2009)
WINDOW_S = 0.07  # a beat this near to an annotated one is right
LEVEL_SHARE = 0.175  # of a beat: how near continuity-based scores want a beat
TEMPO_TOLERANCE = 0.04  # Gouyon et al. 2006
TEMPO_FACTORS = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)  # which Accuracy 2 forgives
LOCK_BEATS = 4  # consecutive annotated beats that must be found
MARGIN_S = 1.0  # a beat this far outside the annotated part is counted as outside
LEVELS = ("right", "off_beat", "double", "half", "other")  # metrical level of a track
TIME_LEVELS = (*LEVELS, "silent")  # of an interval between two annotated beats


@dataclass(frozen=True)
class BeatScores:
    """Scores of stated times on one track, 0-1; nan where no downbeats are annotated."""

    beat_f: float  # F-measure, +-70 ms
    cmlc: float  # continuity at the annotated level: longest right stretch, share of the beats
    cmlt: float  # the same, all right stretches together
    amlc: float  # as cmlc at any of five levels: also off-beat, double, half
    amlt: float
    information_gain: float  # of the error histogram, 41 bins, divided by log2(41)
    downbeat_f: float
    downbeat_cmlt: float

    def to_dict(self) -> dict[str, float | str | None]:
        """Return plain JSON types, rounded; what is not finite becomes None."""
        return {k: v if isinstance(v, str) else plain(v) for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Scores(BeatScores):
    """Scores of the live path on one track; ``_ms`` and ``_s`` say the unit, the rest is 0-1."""

    beat_f_emitted: float  # F-measure of the times at which the beats were emitted
    tempo_acc1: float  # 1 if the median tempo is within 4 % of the annotated one
    tempo_acc2: float  # 1 if it is that times 1, 2, 3, 1/2 or 1/3
    tempo_bpm: float  # median of what was reported; nan when nothing was
    annotated_bpm: float  # of the median interval
    error_ms: float  # median of stated minus annotated time over the beats found
    latency_ms: float  # median of emitted minus annotated time over the beats found
    latency_p90_ms: float  # its 90th percentile
    delay_ms: float  # median of emitted minus stated time; negative: ahead of the beat
    first_beat_s: float  # when the first beat was emitted
    lock_s: float  # from the first annotated beat to the first of four found in a row; inf: never
    beats_outside: float  # beats stated 1 s or more before the first or after the last annotated
    level: str  # one of LEVELS
    time_right: float  # shares of the annotated time, see level_times
    time_off_beat: float
    time_double: float
    time_half: float
    time_other: float
    time_silent: float


def plain(value: float, digits: int = 4) -> float | None:
    """Return a rounded number for JSON; None for one that is not finite."""
    return round(float(value), digits) if np.isfinite(value) else None


def trim(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the times that count, sorted."""
    return np.sort(times[times >= TRIM_S])


def beat_f(truth: NDArray[np.float64], stated: NDArray[np.float64]) -> float:
    """Return the F-measure of times that were trimmed already; nan if none is annotated."""
    if not len(truth):
        return float("nan")
    with warnings.catch_warnings():  # of empty arrays, which have a score here: 0
        warnings.simplefilter("ignore")
        return float(mir_eval.beat.f_measure(truth, stated, WINDOW_S))


def score_beats(
    reference: NDArray[np.float64], beats: NDArray[np.float64], downbeats: NDArray[np.float64]
) -> BeatScores:
    """Score stated times.

    Args:
        reference: float64 [annotated, 2]: seconds, beat in bar; cut to the audio's length.
        beats: float64 [n], seconds: all beats, downbeats among them.
        downbeats: float64 [m], seconds.

    Raises:
        ValueError: fewer than two beats are annotated after the first 5 s.
    """
    truth, stated = trim(reference[:, 0]), trim(beats)
    if len(truth) < 2:
        raise ValueError(f"fewer than two beats are annotated after the first {TRIM_S:g} s.")
    true_down = trim(reference[reference[:, 1] == 1, 0])
    down = trim(downbeats)
    with warnings.catch_warnings():  # of one beat or none
        warnings.simplefilter("ignore")
        continuity = mir_eval.beat.continuity(truth, stated)
        gain = mir_eval.beat.information_gain(truth, stated) if len(stated) > 1 else 0.0
        bars = mir_eval.beat.continuity(true_down, down)[1] if len(true_down) > 1 else np.nan
    return BeatScores(
        beat_f=beat_f(truth, stated),
        cmlc=float(continuity[0]),
        cmlt=float(continuity[1]),
        amlc=float(continuity[2]),
        amlt=float(continuity[3]),
        information_gain=float(gain),
        downbeat_f=beat_f(true_down, down),
        downbeat_cmlt=float(bars),
    )


def score(reference: NDArray[np.float64], events: NDArray[np.float64]) -> Scores:
    """Score what the live path reported on one track.

    Args:
        reference: float64 [beats, 2]: seconds, beat in bar; cut to the length of the audio.
        events: float64 [events, 4]: stated time, beat in bar, emitted time, beats a minute.

    Raises:
        ValueError: fewer than two beats are annotated after the first 5 s.
    """
    base = score_beats(reference, events[:, 0], events[events[:, 1] == 1, 0])
    truth = trim(reference[:, 0])
    counted = events[events[:, 0] >= TRIM_S]
    annotated = 60 / float(np.median(np.diff(truth)))
    tempo = float(np.median(counted[:, 3])) if len(counted) else np.nan
    errors = found_errors(reference, events)
    late = errors[:, 1] * 1000
    outside = (events[:, 0] < reference[0, 0] - MARGIN_S) | (
        events[:, 0] > reference[-1, 0] + MARGIN_S
    )
    return Scores(
        **asdict(base),
        beat_f_emitted=beat_f(truth, trim(events[:, 2])),
        tempo_acc1=float(_same_tempo(tempo, annotated)),
        tempo_acc2=float(any(_same_tempo(tempo, annotated * f) for f in TEMPO_FACTORS)),
        tempo_bpm=tempo,
        annotated_bpm=annotated,
        error_ms=float(np.median(errors[:, 0]) * 1000) if len(errors) else np.nan,
        latency_ms=float(np.median(late)) if len(late) else np.nan,
        latency_p90_ms=float(np.percentile(late, 90)) if len(late) else np.nan,
        delay_ms=float(np.median(events[:, 2] - events[:, 0]) * 1000) if len(events) else np.nan,
        first_beat_s=float(events[0, 2]) if len(events) else np.nan,
        lock_s=time_to_lock(reference[:, 0], events[:, 0]),
        beats_outside=float(outside.sum()),
        level=level(truth, trim(events[:, 0])),
        **{f"time_{k}": v for k, v in level_times(truth, trim(events[:, 0])).items()},
    )


def _same_tempo(bpm: float, wanted: float) -> bool:
    return abs(bpm - wanted) <= TEMPO_TOLERANCE * wanted  # False for nan


def found_errors(
    reference: NDArray[np.float64], events: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return stated and emitted minus annotated time of the beats found, float64 [found, 2], s."""
    truth, counted = trim(reference[:, 0]), events[events[:, 0] >= TRIM_S]
    pairs = mir_eval.util.match_events(truth, counted[:, 0], WINDOW_S)
    ours, theirs = np.array(pairs, dtype=int).reshape(-1, 2).T
    errors: NDArray[np.float64] = counted[:, [0, 2]][theirs] - truth[ours, None]
    return errors


def time_to_lock(truth: NDArray[np.float64], stated: NDArray[np.float64]) -> float:
    """Return the seconds from the first annotated beat to lock; inf if it never comes.

    It has locked at the first annotated beat that begins four in a row which all have a stated
    beat within 70 ms. Nothing is trimmed here.
    """
    if not len(stated):
        return float("inf")
    found = np.abs(truth[:, None] - stated[None]).min(axis=1) <= WINDOW_S
    runs = np.convolve(found, np.ones(LOCK_BEATS), "valid") if len(found) >= LOCK_BEATS else found
    (starts,) = np.nonzero(runs == LOCK_BEATS)
    return float(truth[starts[0]] - truth[0]) if len(starts) else float("inf")


def level(truth: NDArray[np.float64], stated: NDArray[np.float64]) -> str:
    """Return the metrical level that a track was followed at: one of LEVELS.

    The level whose continuity score (the variants within AMLt) is greatest; ``other`` if even
    that one is below a half.
    """
    double = np.interp(np.arange(0, len(truth) - 0.5, 0.5), np.arange(len(truth)), truth)
    variants = {
        "right": [truth],
        "off_beat": [double[1::2]],
        "double": [double],
        "half": [truth[::2], truth[1::2]],
    }
    totals = {name: max(_total(v, stated) for v in some) for name, some in variants.items()}
    best = max(totals, key=lambda name: totals[name])  # of equals the first, which is the right one
    return best if totals[best] >= 0.5 else "other"


def _total(truth: NDArray[np.float64], stated: NDArray[np.float64]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(mir_eval.beat.continuity(truth, stated)[1])


def level_times(truth: NDArray[np.float64], stated: NDArray[np.float64]) -> dict[str, float]:
    """Return the share of the annotated time at each of TIME_LEVELS; they sum to 1.

    Each interval between two annotated beats is judged by the stated beats near it, with a
    tolerance of 17.5 % of the interval: both ends and nothing between is ``right``, both ends and
    the middle ``double``, one end alone ``half``, the middle alone ``off_beat``, no beat at all
    ``silent``, anything else ``other``.
    """
    times = dict.fromkeys(TIME_LEVELS, 0.0)
    for begin, end in itertools.pairwise(truth):
        at = (stated - begin) / (end - begin)
        near = LEVEL_SHARE
        left, right = bool((abs(at) <= near).any()), bool((abs(at - 1) <= near).any())
        inside = at[(at > near) & (at < 1 - near)]
        middle = len(inside) == 1 and bool(abs(inside[0] - 0.5) <= near)
        name = "other"
        if not len(inside):
            name = ("silent", "half", "right")[left + right]
        elif middle and left == right:
            name = "double" if left else "off_beat"
        times[name] += float(end - begin)
    whole = float(truth[-1] - truth[0])
    return {name: value / whole for name, value in times.items()}
