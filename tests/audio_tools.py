"""What the tests of the runtime share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# For `python -c`: the command with a model that needs no file.
FLUX_COMMAND = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from flux_model import FluxModel
from beattrack_runtime import session
from beattrack_runtime.cli import main
session.load_model = lambda path=None: FluxModel()
main()
"""


def share_found(
    found: NDArray[np.float64], truth: NDArray[np.float64], window_s: float = 0.07
) -> float:
    """Return the share of true beats that have a found one within ``window_s`` seconds."""
    if not len(found) or not len(truth):
        return 0.0
    return float(np.mean([np.abs(found - beat).min() <= window_s for beat in truth]))
