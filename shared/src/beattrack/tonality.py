"""Whether what sounds has tones that last, as music has and applause and speech have not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from beattrack.config import FeatureConfig
from beattrack.features import spectrum_bins
from beattrack.harmony import above_neighbours

LAST_S = 0.3  # tones that last some tenths of a second stay in a mean so long, noise does not
# Evidence a second: in proportion to how far the tonality is above that of rhythmic music with
# little tone, and never more than a weak pulse's. A drum alone has no tones and a pulse that needs
# no such help; a held chord has tones and no pulse. Chosen with 12 bands to the octave.
EVENLY, SLOPE, MOST = 0.064, 18.75, 0.75
BANDS_PER_OCTAVE = 12
SILENT, LOUDEST = np.float32(0), np.float32(27)  # natural log of a magnitude: full scale is near 7
LN_10 = np.float32(math.log(10))


class Tonality:
    """Follows how much of the sound stands out of its neighbouring bands and stays there.

    The tonality is the share of a smoothed spectrum that is above the mean of each band and its
    two neighbours; the spectrum is of the roots of the bands' magnitudes, so that it does not
    depend on the level. Medians: applause 0.01, rain 0.03, speech 0.04, metal 0.04, other music
    0.06 to 0.08, a held chord 0.15 (measured in docs/decoder.md).
    """

    def __init__(self, features: FeatureConfig) -> None:
        """Follow frames of these features.

        They say nothing where they hold no log spectrogram, or one of other bands than the
        twelve to the octave for which the even point is known.
        """
        known = features.bands_per_octave == BANDS_PER_OCTAVE
        self._bins = spectrum_bins(features) if known else 0
        self._gain = np.float32(1 - math.exp(-1 / (LAST_S * features.fps)))
        self.reset()

    def reset(self) -> None:
        """Forget the sound."""
        self._spectrum = np.zeros(self._bins, dtype=np.float32)

    def step(self, spectrum: NDArray[np.float32]) -> float:
        """Take a frame's log spectrogram and return its evidence for music.

        Args:
            spectrum: float32 [bins], the mean of its channels.

        Returns:
            -0.75 to 0.75 a second, to be added to the filter's evidence for a pulse.
        """
        if not self._bins:
            return 0.0
        natural = spectrum * LN_10
        root = np.sqrt(np.expm1(np.minimum(np.maximum(natural, SILENT), LOUDEST)))
        if not math.isfinite(float(np.add.reduce(root))):
            return -MOST
        self._spectrum += self._gain * (root - self._spectrum)
        above = float(np.add.reduce(above_neighbours(self._spectrum)))
        share = above / (float(np.add.reduce(self._spectrum)) + 1e-6)
        return min(max(SLOPE * (share - EVENLY), -MOST), MOST)
