"""Music along an annotated grid: real bars of any length, gaps, pick-ups and sections.

Regular music is made for the bar lengths that are common in the grid, one of its bars for each bar
of the grid. Each beat of the grid then takes the notes of one beat of that music, so that downbeats
fall where the annotation has them: a short bar ends early, a long one repeats its last beats.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import mido
import numpy as np
from numpy.typing import NDArray

from beattrack_trainer.synth.band import PADS, pick, program
from beattrack_trainer.synth.harmonix import LICENCE, Grid
from beattrack_trainer.synth.midi import Control, Floats, Note, Score
from beattrack_trainer.synth.sections import arranged
from beattrack_trainer.synth.styles import BASES, Wish, regular_score

EARLY = 0.08  # beats; a note that comes so little before a beat belongs to it
GAP, HALF = 1.5, 0.75  # times the local period: beyond, an interval is no ordinary beat
COMMON = 0.1  # share of the bars from which a bar length gets music of its own


@dataclass(frozen=True)
class Window:
    """The part of a grid that is rendered: its beats ``first`` to ``stop``, ``start`` in s."""

    start: float
    first: int
    stop: int


def choose_window(grid: Grid, seconds: float | None, rng: np.random.Generator) -> Window:
    """About ``seconds`` of a song (None: all of it): its beginning in a third of the draws.

    Elsewhere the window begins shortly before a downbeat. A beginning that holds fewer than 16
    beats is not taken.
    """
    if seconds is None:
        return Window(0.0, 0, len(grid.times))
    starts = [k for k, p in enumerate(grid.positions) if p == 1]
    starts = [k for k in starts if grid.times[k] + seconds - 2 <= grid.times[-1]] or starts[:1]
    wait = float(rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.2, 2.0)]))
    chosen = starts[int(rng.integers(len(starts)))] if starts else 0
    from_zero = rng.random() < 1 / 3
    if from_zero and int(np.searchsorted(grid.times, seconds)) >= 16:
        return Window(0.0, 0, int(np.searchsorted(grid.times, seconds)))
    start = round(max(0.0, float(grid.times[chosen]) - wait), 3)
    return Window(start, chosen, int(np.searchsorted(grid.times, start + seconds)))


def bars_of(positions: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the bar of each beat, and beats of that bar; int64[beats] each.

    A bar begins where the position does not rise. The first and the last may be incomplete: they
    count as long as the commonest bar, or as they are if that is longer.
    """
    p = np.asarray(positions)
    bar = np.concatenate([[0], np.cumsum(np.diff(p) <= 0)])
    # the highest position, not the number of beats: a beat that is missing leaves a gap
    lengths = np.array([p[bar == b].max() for b in range(bar[-1] + 1)])
    if len(lengths) > 2:
        common = Counter(lengths[1:-1].tolist()).most_common(1)[0][0]
        lengths[[0, -1]] = np.maximum(lengths[[0, -1]], common)
    return bar.astype(np.int64), lengths[bar].astype(np.int64)


def interval_ratios(times: Floats) -> Floats:
    """Each beat interval over the median of the eight around it; float64[beats], the last is 1."""
    periods = np.diff(times)
    around = [np.median(periods[max(0, k - 4) : k + 5]) for k in range(len(periods))]
    return np.append(periods / np.array(around), 1.0)


def beat_plan(
    bar: NDArray[np.int64], length: NDArray[np.int64], positions: tuple[int, ...]
) -> list[tuple[int, int]]:
    """For each beat of the grid the meter of the music that it takes from, and the beat of it."""
    counts = Counter(n for _, n in set(zip(bar.tolist(), length.tolist(), strict=True)))
    usable = {n: c for n, c in counts.items() if n in BASES}
    main = max(usable, key=lambda n: (usable[n], n == 4), default=4)
    own = {n for n, c in usable.items() if c >= max(4, COMMON * sum(counts.values()))} | {main}
    plan = []
    for number, beats, position in zip(bar - bar[0], length, positions, strict=True):
        meter = int(beats) if int(beats) in own else main
        inside = position - 1
        if inside >= meter:  # a long bar: its last beats are those of the music's bar again
            inside = (inside - int(beats)) % meter
        plan.append((meter, int(number) * meter + inside))
    return plan


def spliced(
    scores: dict[int, Score], plan: list[tuple[int, int]], ratios: Floats
) -> tuple[list[Note], list[Control]]:
    """Notes and controls along a plan of beats, in beats of the grid.

    In an interval much longer or shorter than a beat the music keeps its pace: it pauses until the
    next beat, or is cut off by it.
    """
    odd = (ratios > GAP) | (ratios < HALF)
    buckets: dict[tuple[int, int], list[Note]] = {}
    for meter, score in scores.items():
        for note in score.notes:
            buckets.setdefault((meter, int(np.floor(note.beat + EARLY))), []).append(note)
    notes: list[Note] = []
    ends = _unbroken_ends(plan, odd)
    for k, (meter, source) in enumerate(plan):
        for note in buckets.get((meter, source), ()):
            inside, length = note.beat - source, note.length
            if odd[k]:
                inside = inside / ratios[k] if inside > 0 else inside
                length = min(length, 1.0) / ratios[k]
                if inside > 1 - EARLY:
                    continue
            else:
                length = min(length, ends[k] - k - inside)
            notes.append(replace(note, beat=k + inside, length=length))
    return notes, _spliced_controls(scores, plan)


def _unbroken_ends(plan: list[tuple[int, int]], odd: NDArray[np.bool_]) -> list[int]:
    """For each beat the first later one that does not follow on from it in the music."""
    ends = [len(plan) + 64] * len(plan)
    for k in range(len(plan) - 2, -1, -1):
        meter, source = plan[k]
        follows = plan[k + 1] == (meter, source + 1) and not odd[k + 1]
        ends[k] = ends[k + 1] if follows else k + 1
    return ends


def _spliced_controls(scores: dict[int, Score], plan: list[tuple[int, int]]) -> list[Control]:
    """Controls along a plan; after a jump what is in force there is sent where it differs."""
    ordered = {m: sorted(s.controls, key=lambda c: c.beat) for m, s in scores.items()}
    beats = {m: [c.beat for c in controls] for m, controls in ordered.items()}
    sent: dict[tuple[str, int, int], mido.Message] = {}
    result: list[Control] = []
    for k, (meter, source) in enumerate(plan):
        first = bisect_right(beats[meter], source - EARLY)
        stop = bisect_right(beats[meter], source + 1 - EARLY)
        due = ordered[meter][first:stop]
        if k == 0 or plan[k - 1] != (meter, source - 1):
            in_force = {_key(c): c for c in ordered[meter][:first]}
            due = [*in_force.values(), *due]
        for control in due:
            if _key(control) not in sent or sent[_key(control)] != control.message:
                sent[_key(control)] = control.message
                result.append(replace(control, beat=k + max(0.0, control.beat - source)))
    return result


def _key(control: Control) -> tuple[str, int, int]:
    message = control.message
    return message.type, message.channel, int(getattr(message, "control", -1))


def lead_in(
    first_s: float, period: float, rng: np.random.Generator
) -> tuple[list[Note], list[Control]]:
    """What sounds before a grid that begins late: nothing, or a held chord without a pulse."""
    if first_s < 2.5 or rng.random() < 0.5:
        return [], []
    root = int(rng.integers(45, 57))
    length = (first_s - 0.3) / period
    notes = [Note(-length, 0.97 * length, root + i, 62, 15) for i in (0, 7, 12, 16)]
    return notes, program(15, pick(PADS, rng), 80, -length)


def grid_score(
    grid: Grid, window: Window, groove: Path | None, folder: Path, rng: np.random.Generator
) -> tuple[Score, Floats]:
    """A score along a window of a grid and the times (s) of its beats from the window's start.

    Raises ``SynthError`` when the regular music cannot be made.
    """
    inside = slice(window.first, window.stop)
    times = np.round(grid.times[inside] - window.start, 9)
    positions = grid.positions[inside]
    bar, length = bars_of(grid.positions)
    bar, length = bar[inside], length[inside]
    plan = beat_plan(bar, length, positions)
    period = float(np.median(np.diff(times)))
    bars = int(bar[-1] - bar[0]) + 1
    scores: dict[int, Score] = {}
    for meter in sorted({m for m, _ in plan}):
        wish = Wish(meter, 60.0 / period, bars, grid.genre)
        scores[meter] = regular_score(wish, groove, folder, rng)
    notes, controls = spliced(scores, plan, interval_ratios(times))
    sections = [(t - window.start, label) for t, label in grid.sections]
    notes = arranged(notes, controls, sections, times, bar, rng)
    before, voices = lead_in(float(times[0]), float(times[1] - times[0]), rng)
    made = " and ".join(scores[m].source for m in sorted(scores))
    licences = "; ".join(sorted({s.licence for s in scores.values()}))
    return Score(
        before + notes,
        voices + controls,
        list(positions),
        Counter(length.tolist()).most_common(1)[0][0],
        60.0 / period,
        f"Harmonix {grid.id} from {window.start:.3f} s with {made}",
        f"grid: {LICENCE}; {licences}",
        times,
    ), times
