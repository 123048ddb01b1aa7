"""Flux of a log spectrum that was changed after it was made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from beattrack.config import FeatureConfig
from beattrack.features import divide_by_mean, flux_groups, superflux


def flux_of(
    logspec: NDArray[np.float32], config: FeatureConfig, settle: int
) -> NDArray[np.float32]:
    """Return what ``beattrack.features`` would give as flux for this log spectrum.

    The same functions as the stream's, but for its running mean, whose recursion runs here over
    all frames at once; a test holds the two together.

    Args:
        logspec: float32 [n, channels, bands].
        config: of the features.
        settle: frames at the start that have no flux; ``flux_settle`` for a stream from its start.

    Returns:
        float32 [n, channels, flux_bands].
    """
    lag = config.flux_lag
    history = np.concatenate([np.zeros_like(logspec[:lag]), logspec])
    flux = superflux(
        logspec, history[: len(logspec)], flux_groups(logspec.shape[2], config.flux_bands)
    )
    flux[:settle] = 0
    keep = np.exp(-1 / (config.flux_mean_s * config.fps))
    heard = np.maximum(0, np.arange(len(flux)) + 1 - settle)
    weight = np.maximum(1 - keep**heard, 1 - keep)
    mean = lfilter([1 - keep], [1, -keep], flux, axis=0) / weight[:, None, None]
    return divide_by_mean(flux, mean.astype(np.float32))
