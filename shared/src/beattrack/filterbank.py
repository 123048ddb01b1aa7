"""Triangular filters on a logarithmic frequency axis.

The same filters as ``madmom.audio.filters.LogarithmicFilterbank`` (Boeck, Krebs, Widmer,
"Accurate tempo estimation based on recurrent neural networks and resonating comb filters",
ISMIR 2015, use them at 12 bands an octave); a test compares the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REFERENCE_HZ = 440.0  # the filters are tuned to semitones of this pitch


def fft_frequencies(window: int, sample_rate: int) -> NDArray[np.float64]:
    """Return the frequencies in Hz of the used FFT bins, float64 [window // 2].

    The Nyquist bin is left out, as in madmom.
    """
    return np.arange(window // 2, dtype=np.float64) * (sample_rate / window)


def log_frequencies(bands_per_octave: int, fmin: float, fmax: float) -> NDArray[np.float64]:
    """Return frequencies in Hz from fmin to fmax, spaced evenly in log frequency around 440 Hz."""
    left = np.floor(np.log2(fmin / REFERENCE_HZ) * bands_per_octave)
    right = np.ceil(np.log2(fmax / REFERENCE_HZ) * bands_per_octave)
    centres = REFERENCE_HZ * 2.0 ** (np.arange(left, right + 1) / bands_per_octave)
    return centres[(centres >= fmin) & (centres <= fmax)]


def log_filterbank(
    window: int, sample_rate: int, bands_per_octave: int, fmin: float, fmax: float
) -> NDArray[np.float32]:
    """Return the filter weights, float32 [window // 2, bands]; each filter sums to 1.

    Centres that fall on the same FFT bin are merged, so low octaves have fewer bands.

    Raises:
        ValueError: fewer than one filter fits.
    """
    bins = fft_frequencies(window, sample_rate)
    centres = log_frequencies(bands_per_octave, fmin, fmax)
    nearest = np.unique(np.abs(bins[None, :] - centres[:, None]).argmin(axis=1))
    if len(nearest) < 3:
        raise ValueError(
            f"No filter fits between {fmin} and {fmax} Hz with {bands_per_octave} bands an octave."
        )
    weights = np.zeros((len(bins), len(nearest) - 2), dtype=np.float64)
    for band, (start, centre, stop) in enumerate(
        zip(nearest[:-2], nearest[1:-1], nearest[2:], strict=True)
    ):
        if stop - start < 2:  # narrower than the FFT resolves: one bin
            centre, stop = start, start + 1
        rise = np.linspace(0, 1, centre - start, endpoint=False)
        fall = np.linspace(1, 0, stop - centre, endpoint=False)
        weights[start:stop, band] = np.concatenate([rise, fall])
    return np.asarray(weights / weights.sum(axis=0), dtype=np.float32)
