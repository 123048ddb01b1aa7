"""Where several trackers agree on the beats of a piece.

Mutual agreement is evidence that beats are right without any annotation (Zapata, Davies, Gomez,
"Multi-feature beat tracking", IEEE TASLP 2014). It is asked for in every window of time, so that
the clear parts of a piece can be used and the others left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE_S = 0.05  # beats this near are the same
WINDOW_S = 10.0  # in which members must agree
STEP_S = 1.0
AGREE = 0.85  # F-measure of two members in a window from which on they agree
SHORTEST_S = 20.0  # of a part that is worth keeping
MIN_BEATS = 8  # in a window


@dataclass(frozen=True)
class Part:
    """A part of a piece whose beats are agreed on."""

    start: float  # s
    end: float  # s
    leader: str  # the member whose beats are taken
    beats: Floats  # [beats, 2]: seconds of the piece, beat in bar
    agreement: float  # mean F-measure between the leader and the others in its windows


def agreement(one: Floats, other: Floats) -> float:
    """Return the F-measure of two lists of rising times within ``TOLERANCE_S``, 0-1."""
    if not len(one) or not len(other):
        return 0.0
    after = np.searchsorted(other, one).clip(1, max(1, len(other) - 1))
    nearest = np.abs(other[np.stack([after - 1, after.clip(max=len(other) - 1)])] - one).min(axis=0)
    matched = int((nearest <= TOLERANCE_S).sum())
    return min(1.0, 2 * matched / (len(one) + len(other)))


def agreed_parts(
    members: Mapping[str, Floats], seconds: float, needed: int, leaders: tuple[str, ...]
) -> list[Part]:
    """Return the parts in which a leader agrees with at least ``needed`` other members.

    The leader of a piece is the one of ``leaders`` that agrees most with all others over the whole
    of it (the maximal mutual agreement of Zapata et al.).

    Args:
        members: by name, the beats that each found, float64 [beats, 2]: s, beat in bar.
        seconds: length of the piece.
        needed: how many others must agree, 1 or more.
        leaders: members that count bars and whose beats may be taken.
    """
    times = {name: beats[:, 0] for name, beats in members.items()}
    mutual = {
        name: float(np.mean([agreement(times[name], t) for n, t in times.items() if n != name]))
        for name in leaders
    }
    leader = max(leaders, key=mutual.__getitem__)
    starts = np.arange(0.0, max(0.0, seconds - WINDOW_S) + STEP_S / 2, STEP_S)
    good: list[bool] = []
    found: list[float] = []
    for start in starts:
        cut = {n: t[(t >= start) & (t < start + WINDOW_S)] for n, t in times.items()}
        shares = sorted(
            (agreement(cut[leader], t) for n, t in cut.items() if n != leader), reverse=True
        )
        found.append(float(np.mean(shares[:needed])))
        good.append(bool(len(cut[leader]) >= MIN_BEATS and shares[needed - 1] >= AGREE))
    parts: list[Part] = []
    for first, last in _runs(np.array(good, dtype=bool)):
        begin, end = float(starts[first]), float(min(seconds, starts[last] + WINDOW_S))
        if end - begin >= SHORTEST_S:
            beats = members[leader]
            inside = beats[(beats[:, 0] >= begin) & (beats[:, 0] < end)]
            level = float(np.mean(found[first : last + 1]))
            parts.append(Part(begin, end, leader, inside, level))
    return parts


def _runs(good: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(int), [0]])))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]
