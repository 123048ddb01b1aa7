"""Makes audio of one rate and number of channels into another, block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.resample import StreamResampler


class Fitter:
    """Fits blocks to a stream whose rate and channels were settled before.

    Where the rate or the channels differ, the sound becomes mono, the same on every channel.
    """

    def __init__(self, rate: int, wanted_rate: int, wanted_channels: int) -> None:
        """Take audio at ``rate`` Hz, give it at ``wanted_rate``."""
        self._channels = wanted_channels
        same = rate == wanted_rate
        self._resampler = None if same else StreamResampler(rate, wanted_rate)

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take float32 [n, any] and return float32 [m, channels]; n and m differ by the rates."""
        if self._resampler is None and block.shape[1] == self._channels:
            return block
        with np.errstate(over="ignore", invalid="ignore"):  # whatever a client sends
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        if self._resampler is not None:
            # One sample that is no number would stay in the filter's window.
            mono = self._resampler.push(np.nan_to_num(mono, nan=0, posinf=0, neginf=0))
        return np.repeat(mono[:, None], self._channels, axis=1)
