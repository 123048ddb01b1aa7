"""Causal features: a log-filtered spectrogram, band-wise normalised flux, or both.

Frame t is computed from samples before (t + 1) * hop alone, so it is known the moment its last
sample is. There is one implementation, ``FeatureStream``; ``compute`` feeds it a whole array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beattrack.config import FeatureConfig
from beattrack.filterbank import fft_frequencies, log_filterbank
from beattrack.subbands import load_curve

# A band's flux is divided by its own running mean plus this share of the mean over all bands, so
# that a band with little activity is not blown up, plus a floor that keeps noise down. Both were
# chosen by hand; no search was made.
FLUX_MEAN_SHARE = 0.5
FLUX_FLOOR = 0.005  # log10 units
_CHUNK = 128  # frames computed at a time: what they need stays in the processor's cache


def _bank(config: FeatureConfig) -> NDArray[np.float32]:
    """Return the weights from magnitudes to bands, float32 [window // 2, bands]."""
    return log_filterbank(
        config.window, config.sample_rate, config.bands_per_octave, config.fmin, config.fmax
    )


def _curves(config: FeatureConfig) -> NDArray[np.float32]:
    """Return the gain of each FFT bin in each channel, float32 [channels, window // 2]."""
    if not config.bpfed:
        return np.ones((1, config.window // 2), dtype=np.float32)
    frequencies = fft_frequencies(config.window, config.sample_rate)
    return np.stack([load_curve(source, frequencies) for source in config.sources])


def spectrum_bands(config: FeatureConfig) -> int:
    """Return the number of bands of the log-filtered spectrogram."""
    return int(_bank(config).shape[1])


def flux_bins(config: FeatureConfig) -> int:
    """Return how many of the last bins of a frame are flux; 0 for ``kind=logspec``."""
    return config.flux_bands if "flux" in config.kind else 0


def spectrum_bins(config: FeatureConfig) -> int:
    """Return how many of a frame's bins are of the log spectrogram: the first; 0 for flux alone."""
    return spectrum_bands(config) if "logspec" in config.kind else 0


def feature_bins(config: FeatureConfig) -> int:
    """Return the number of bins of a frame: spectrogram bands, then flux bands."""
    return flux_bins(config) + spectrum_bins(config)


def flux_groups(bands: int, flux_bands: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the first of ``bands`` spectrum bands in each flux band, and how many it has."""
    edges = np.linspace(0, bands, flux_bands + 1).round().astype(np.int64)
    return edges[:-1], np.diff(edges).astype(np.float32)


def superflux(
    logspec: NDArray[np.float32],
    earlier: NDArray[np.float32],
    groups: tuple[NDArray[np.int64], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return the rise over the maximum of neighbouring bands some frames earlier, averaged.

    SuperFlux (Boeck and Widmer, "Maximum filter vibrato suppression for onset detection",
    DAFx 2013, eq. 2-4).

    Args:
        logspec: float32 [n, channels, bands].
        earlier: the spectra ``flux_lag`` frames before, of the same shape.
        groups: the flux bands (``flux_groups``).

    Returns:
        float32 [n, channels, flux_bands], 0 or more, log10 units, not yet normalised.
    """
    widened = earlier.copy()
    np.maximum(widened[..., 1:], earlier[..., :-1], out=widened[..., 1:])
    np.maximum(widened[..., :-1], earlier[..., 1:], out=widened[..., :-1])
    rise = logspec - widened
    np.maximum(rise, 0, out=rise)
    starts, sizes = groups
    flux: NDArray[np.float32] = np.add.reduceat(rise, starts, axis=2)
    flux /= sizes
    return flux


def divide_by_mean(flux: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide flux by its running mean and compress it; both arrays are overwritten.

    Args:
        flux: float32 [n, channels, flux_bands], as ``superflux`` gives it.
        mean: its running mean at each frame, of the same shape.

    Returns:
        float32 [n, channels, flux_bands]: ``flux`` itself.
    """
    share = FLUX_MEAN_SHARE / flux.shape[2]
    mean += share * np.add.reduce(mean, axis=2, keepdims=True)
    mean += FLUX_FLOOR
    flux /= mean
    return np.log1p(flux, out=flux)


def flux_settle(config: FeatureConfig) -> int:
    """Return the number of frames at the start of a stream that have no flux."""
    return -(-config.window // config.hop) + config.flux_lag


class FeatureStream:
    """Turns samples into feature frames as they come.

    ``push`` gives the same numbers for any sizes of the blocks. The state is the last ``window``
    samples, the last ``flux_lag`` log spectra and a running mean for each flux band. Before the
    first sample there is silence, and flux is 0 until the window and the lag have filled once:
    the edge between that silence and the music is no onset.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        # The periodic Hann window that madmom and scipy use; a full-scale sine gives magnitude 1.
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.window) / config.window)
        self._window = (hann * (2 / hann.sum())).astype(np.float32)
        bank, curves = _bank(config), _curves(config)
        channels, bands = len(curves), bank.shape[1]
        if config.flux_bands > bands:
            raise ValueError(
                f"flux_bands={config.flux_bands} is not possible: the spectrum has {bands} bands."
            )
        # The filters are narrow: their weights alone are kept, band after band.
        band_of, self._bins_used = np.nonzero(bank.T)
        self._weights = curves[:, self._bins_used] * bank[self._bins_used, band_of]
        self._band_starts = np.searchsorted(band_of, np.arange(bands))
        self._groups = flux_groups(bands, config.flux_bands)
        self._shape = (channels, bands)
        self._bins = feature_bins(config)
        self._decay = float(np.exp(-1 / (config.flux_mean_s * config.fps)))
        self._settle = flux_settle(config)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard so far."""
        config, (channels, bands) = self.config, self._shape
        # float32 [window + pending]: history, then samples not yet covered by a frame
        self._samples: NDArray[np.float32] = np.zeros(config.window - config.hop, dtype=np.float32)
        # float32 [flux_lag, channels, bands]: the last log spectra
        shape = (config.flux_lag, channels, bands)
        self._spectra: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)
        # float32 [channels, flux_bands]: running mean of flux, not yet corrected for its start
        self._mean = np.zeros((channels, config.flux_bands), dtype=np.float32)
        self._mean_weight = 0.0  # sum of the weights in the mean, 0-1
        self.frames = 0  # frames made since the reset

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples and return the frames that they complete.

        Args:
            samples: float32 [n], n >= 0, mono at ``config.sample_rate``, full scale +-1.

        Returns:
            float32 [frames, channels, bins]; ``feature_bins`` says how many bins.
        """
        config = self.config
        self._samples = np.concatenate([self._samples, np.asarray(samples, dtype=np.float32)])
        count = (len(self._samples) - config.window) // config.hop + 1
        if count < 1:
            return np.empty((0, self._shape[0], self._bins), dtype=np.float32)
        if count == 1:  # the live case: a view of many windows takes longer than the frame
            windows = self._samples[None, : config.window]
        else:
            windows = np.lib.stride_tricks.sliding_window_view(self._samples, config.window)
            windows = windows[:: config.hop][:count]
        parts = [self._frames(windows[i : i + _CHUNK]) for i in range(0, count, _CHUNK)]
        self._samples = self._samples[count * config.hop :].copy()
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _frames(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frames of these windows, float32 [n, window] -> [n, channels, bins]."""
        spectrum = np.fft.rfft(windows * self._window)
        magnitude = np.abs(spectrum).astype(np.float32, copy=False)
        # A sum over each filter rather than a matrix product, which would round differently with
        # the number of frames: they must not depend on how the samples were cut.
        weighted = magnitude.take(self._bins_used, axis=1)[:, None] * self._weights
        logspec = np.add.reduceat(weighted, self._band_starts, axis=2)
        logspec *= np.float32(self.config.log_mul)
        logspec += 1
        np.log10(logspec, out=logspec)
        if self.config.kind == "logspec":
            self.frames += len(windows)
            return logspec
        flux = self._flux(logspec)
        return flux if self.config.kind == "flux" else np.concatenate([logspec, flux], axis=2)

    def _flux(self, logspec: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return normalised flux, float32 [n, channels, bands] -> [n, channels, flux_bands]."""
        lag = self.config.flux_lag
        history = np.concatenate([self._spectra, logspec])
        flux = superflux(logspec, history[: len(logspec)], self._groups)
        self._spectra = history[-lag:].copy()
        return self._normalise(flux)

    def _normalise(self, flux: NDArray[np.float32]) -> NDArray[np.float32]:
        """Divide by a causal running mean and compress; the loop is the recursion itself."""
        keep, gain = self._decay, 1 - self._decay
        scale = np.empty_like(flux)
        for i, now in enumerate(flux):
            if self.frames < self._settle:
                now[:] = 0
            else:
                self._mean *= keep
                self._mean += gain * now
                self._mean_weight = keep * self._mean_weight + gain
            np.divide(self._mean, max(self._mean_weight, gain), out=scale[i])
            self.frames += 1
        return divide_by_mean(flux, scale)


def compute(audio: NDArray[np.float32], config: FeatureConfig) -> NDArray[np.float32]:
    """Return the feature frames of a whole signal.

    Args:
        audio: float32 [n], mono at ``config.sample_rate``, full scale +-1.
        config: what to compute.

    Returns:
        float32 [n // hop, channels, bins].
    """
    return FeatureStream(config).push(audio)
