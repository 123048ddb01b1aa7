"""The best beats of a whole piece, given its activations: the offline twin of the live filter.

A dynamic programme over (frame of a beat, tempo) as in Ellis, "Beat tracking by dynamic
programming" (2007), but with tempo as a state of its own, the tempi and transitions of
`beattrack.statespace`, and the filter's likelihoods, of which that of a beat does not adapt: each
beat is paid by its activation, each interval by the model's tempo evidence, each change of tempo by
the filter's penalty. Bars are read in a second pass over the beats, from the downbeat activation
and from where the harmony changes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from beattrack.config import DecoderConfig
from beattrack.decoding import (
    CLIP,
    EVIDENCE_GAIN,
    EVIDENCE_POWER,
    SHARE_CLIP,
    TEMPO_CLIP,
    TEMPO_WIDTH,
)
from beattrack.harmony import LAST_PHASE, MOST, change_between, sharpened
from beattrack.statespace import StateSpace, build_state_space

AROUND = 16  # beats on either side against whose changes of harmony one is judged

Floats = NDArray[np.float64]


def best_beats(
    beat: NDArray[np.float32],
    downbeat: NDArray[np.float32],
    tempo: NDArray[np.float32],
    config: DecoderConfig,
    fps: float,
    spectrum: NDArray[np.float32] | None = None,
) -> Floats:
    """Return the likeliest beats, float64 [beats, 2]: position in frames, beat in bar.

    Args:
        beat: activations, 0-1, float32 [frames].
        downbeat: the same for downbeats.
        tempo: probabilities of tempo classes, float32 [frames, classes]; no classes: no evidence.
        config: of the live filter, whose likelihoods are used.
        fps: frames a second.
        spectrum: log spectrogram, float32 [frames, bins], as late as the activations; None: bars
            are read from the downbeat activation alone.
    """
    space = build_state_space(config, fps)
    reward = _beat_reward(beat)
    frames = _best_path(reward, _tempo_reward(tempo, space, config, fps), space)
    if len(frames) < 2:
        return np.empty((0, 2))
    share = _downbeat_share(beat, downbeat, frames)
    changes = np.zeros(len(frames)) if spectrum is None else _changes(spectrum, frames)
    bars = _best_bars(share, changes, space, config)
    return np.column_stack([_refined(beat, frames), bars])


def _beat_reward(beat: NDArray[np.float32]) -> Floats:
    """Return the log likelihood ratio of a beat in each frame, float64 [frames]."""
    odds = np.clip(beat.astype(np.float64), CLIP, 1 - CLIP)
    odds /= 1 - odds
    return np.asarray(np.log(EVIDENCE_GAIN) + EVIDENCE_POWER * np.log(odds))


def _tempo_reward(
    tempo: NDArray[np.float32], space: StateSpace, config: DecoderConfig, fps: float
) -> Floats:
    """Return the evidence for each tempo summed up to each frame, float64 [frames + 1, tempi]."""
    total = np.zeros((len(tempo) + 1, len(space.periods)))
    if tempo.shape[1]:
        number = np.arange(1, tempo.shape[1] + 1)
        away = np.log2(number * space.periods[:, None] / (60 * fps)) / TEMPO_WIDTH
        weights = np.exp(-0.5 * away**2)
        share = tempo @ (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)).T
        share /= np.maximum(share.max(axis=1, keepdims=True), 1e-12)
        rows = config.tempo_power * np.log(np.maximum(share, TEMPO_CLIP))
        np.cumsum(rows, axis=0, out=total[1:])
    return total


def _best_path(reward: Floats, evidence: Floats, space: StateSpace) -> NDArray[np.intp]:
    """Return the frames of the beats of the best path, rising."""
    count, tempi = len(reward), len(space.periods)
    change = np.log(space.tempo_change.astype(np.float64) + 1e-12)
    steps = np.unique(np.concatenate([np.floor(space.periods), np.ceil(space.periods)]))
    shortest = np.floor(space.periods).astype(int)
    longest = int(steps.max())
    # best[t, i]: of paths whose last beat is in frame t - longest and whose next has tempo i
    best = np.full((count + longest, tempi), -np.inf)
    came = np.zeros((count, tempi), dtype=np.int16)  # tempo of the interval before
    length = np.zeros((count, tempi), dtype=np.int16)  # its frames; 0: the first beat
    prior = np.log(space.prior.astype(np.float64) + 1e-12)
    columns = np.arange(tempi)
    for t in range(count):
        # the interval that ends here, for each tempo: rounded down or up
        options = np.stack([best[t + longest - shortest - k, columns] for k in (0, 1)])
        since = np.maximum(t - shortest - np.arange(2)[:, None], 0)
        options = options + evidence[t, columns] - evidence[since, columns]
        which = options.argmax(axis=0)
        arrive = options[which, columns]
        onward = arrive[:, None] + change
        origin = onward.argmax(axis=0)
        value = onward[origin, columns]
        start = prior if t < 2 * longest else np.full(tempi, -np.inf)
        fresh = start > value
        best[t + longest] = np.where(fresh, start, value) + reward[t]
        came[t] = origin
        length[t] = np.where(fresh, 0, (shortest + which)[origin])
    return _traced(best[longest:], came, length, longest)


def _traced(
    best: Floats, came: NDArray[np.int16], length: NDArray[np.int16], longest: int
) -> NDArray[np.intp]:
    """Follow the best path back from its last beat, which lies within a period of the end."""
    tail = best[-longest:]
    if not len(tail) or not np.isfinite(tail.max()):
        return np.empty(0, dtype=np.intp)
    row, tempo = np.unravel_index(int(tail.argmax()), tail.shape)
    t, i = len(best) - len(tail) + int(row), int(tempo)
    frames = []
    while True:
        frames.append(t)
        step, before = int(length[t, i]), int(came[t, i])
        if step == 0:
            return np.array(frames[::-1], dtype=np.intp)
        t, i = t - step, before


def _refined(beat: NDArray[np.float32], frames: NDArray[np.intp]) -> Floats:
    """Return where the activation peaks near each frame, by a parabola through its logarithm."""
    inner = frames.clip(1, len(beat) - 2)
    logs = np.log(np.clip(beat.astype(np.float64), CLIP, 1))
    left, mid, right = (logs[inner + k] for k in (-1, 0, 1))
    bend = left - 2 * mid + right
    shift = np.where(bend < -1e-6, 0.5 * (left - right) / np.minimum(bend, -1e-6), 0.0)
    return np.asarray(inner + shift.clip(-0.5, 0.5))


def _downbeat_share(
    beat: NDArray[np.float32], downbeat: NDArray[np.float32], frames: NDArray[np.intp]
) -> Floats:
    """Return how much of the beat activation around each beat is the downbeat's, 0-1."""
    around = (frames[:, None] + np.arange(-1, 2)).clip(0, len(beat) - 1)
    share = downbeat[around].max(axis=1) / np.maximum(beat[around].max(axis=1), CLIP)
    return np.asarray(share.clip(SHARE_CLIP, 1 - SHARE_CLIP), dtype=np.float64)


def _changes(spectrum: NDArray[np.float32], frames: NDArray[np.intp]) -> Floats:
    """Return how much more than around it the harmony changes at each beat, in spreads.

    The offline twin of `beattrack.harmony.HarmonicChange`: the beats around lie on both sides.
    """
    ends = frames + np.diff(frames, append=2 * frames[-1] - frames[-2]) * LAST_PHASE
    ends = np.minimum(ends.astype(int), len(spectrum))
    starts = np.minimum(frames + 1, ends - 1)
    beats = [sharpened(spectrum[a:b].mean(axis=0)) for a, b in zip(starts, ends, strict=True)]
    between = [change_between(a, b) for a, b in pairwise(beats)]
    known = np.array([np.nan, *(np.nan if c is None else c for c in between)])
    changes = np.zeros(len(frames))
    for i in np.flatnonzero(np.isfinite(known)):
        near = known[max(0, i - AROUND) : i + AROUND + 1]
        near = near[np.isfinite(near)]
        changes[i] = (known[i] - near.mean()) / max(float(near.std()), 1e-3)
    return changes.clip(-MOST, MOST)


def _best_bars(
    share: Floats, changes: Floats, space: StateSpace, config: DecoderConfig
) -> NDArray[np.intp]:
    """Return the beat in bar of each beat: the best path through the bars' slots."""
    expected, power = config.downbeat_share, config.downbeat_power
    first = power * np.log(share / expected) + config.harmony_power * changes
    other = power * np.log((1 - share) / (1 - expected))
    reward = np.where(space.slot_position == 1, first[:, None], other[:, None])
    change = np.log(space.slot_change.astype(np.float64) + 1e-12)
    score = np.log(space.meter_prior / space.slot_beats) + reward[0]
    back = np.zeros(reward.shape, dtype=np.intp)
    for t in range(1, len(reward)):
        onward = score[:, None] + change
        back[t] = onward.argmax(axis=0)
        score = onward[back[t], np.arange(len(score))] + reward[t]
    slot = int(score.argmax())
    path = [slot]
    for t in range(len(reward) - 1, 0, -1):
        slot = int(back[t, slot])
        path.append(slot)
    return np.asarray(space.slot_position[np.array(path[::-1])], dtype=np.intp)
