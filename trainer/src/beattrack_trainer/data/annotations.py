"""Beat annotations as text files: ``.beats`` and the columns of the Harmonix Set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BEATS_SUFFIXES = (".beats", ".txt")  # the first is preferred where both are there


def read_beats(path: Path) -> NDArray[np.float64]:
    """Return annotated beats, float64 [beats, 2]: seconds, beat in bar from 1.

    Raises:
        ValueError: not numbers, times that do not increase, or positions below 1.
    """
    table = np.loadtxt(path, dtype=np.float64, ndmin=2)
    if table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(f"{path} must have two columns, time and beat in bar.")
    if (np.diff(table[:, 0]) <= 0).any() or (table[:, 1] < 1).any():
        raise ValueError(f"{path} has times that do not increase or positions below 1.")
    return table[:, :2]
