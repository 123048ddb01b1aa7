"""Metrical levels: how many beats one takes where another takes one."""

from __future__ import annotations

import math

LEVELS = (1.0, 2.0, 0.5, 3.0, 1 / 3)  # that a tracker may confuse
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # clock beats per tracker beat that the user may choose
SAME_TEMPO = 0.08  # tempi within this share are the same; so are tempi within it of double or half


def level_of(ratio: float) -> float | None:
    """Return which metrical level a ratio of tempi is; None for another tempo."""
    for level in LEVELS:
        if abs(ratio / level - 1) <= SAME_TEMPO:
            return level
    return None


def factor_of(ratio: float, within: float) -> float | None:
    """Return the factor nearest to a ratio of tempi; None where it is off by a larger share."""
    factor = min(FACTORS, key=lambda f: abs(math.log(ratio / f)))
    return factor if abs(ratio / factor - 1) <= within else None
