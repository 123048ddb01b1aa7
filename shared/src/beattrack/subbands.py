"""Per-instrument energy curves over frequency: the manual's sub-bands.

Instead of separating sources, the spectrum is weighted by how strongly an instrument tends to
sound at each frequency. The curves lie in ``data/subbands/<source>.csv``; the header of each
file says from what it was derived and by which command.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from beattrack.config import SOURCES

CURVES = resources.files("beattrack") / "data" / "subbands"


def _curve_text(source: str) -> str:
    if source not in SOURCES:
        raise ValueError(f"Unknown source '{source}': it must be one of {', '.join(SOURCES)}.")
    return (CURVES / f"{source}.csv").read_text(encoding="utf-8")


def load_curve(source: str, frequencies: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return one instrument's gain at the given frequencies.

    Args:
        source: one of ``config.SOURCES``.
        frequencies: Hz, float64 [bins].

    Returns:
        float32 [bins], 0-1, interpolated linearly over log frequency and constant beyond the
        ends of the stored curve.

    Raises:
        ValueError: an unknown source.
    """
    lines = [s for s in _curve_text(source).splitlines() if s and s[0] not in "#f"]
    table = np.array([[float(v) for v in s.split(",")] for s in lines])
    floor = np.maximum(frequencies, table[0, 0])
    gains = np.interp(np.log(floor), np.log(table[:, 0]), table[:, 1])
    return np.asarray(gains, dtype=np.float32)


def curves_hash(sources: Sequence[str]) -> str:
    """Return the SHA-256 (hex) of the curve files of these sources, in this order."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(_curve_text(source).replace("\r\n", "\n").encode())
    return digest.hexdigest()
