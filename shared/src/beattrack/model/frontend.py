"""From feature frames to the trunk: convolutions over the spectrogram, a linear path for flux."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beattrack.config import ModelConfig
from beattrack.model.streaming import State, Zeros, join

FILTERS = (8, 16, 32)  # of the three convolutions; the first sees all bins, so its count costs most
POOL = 3  # bins that each max-pooling merges
WIDE = 12  # bins, height of the second convolution


def _pooled(bins: int) -> int:
    return -(-bins // POOL)


class FrontEnd(nn.Module):
    """The front-end of All-In-One (Kim & Nam 2023, section 3.1), made causal.

    Convolutions of 3 x 3, 12 x 1 and 3 x 3 (bins x frames), each followed by max-pooling of 3 bins
    and ELU; what is left of the frequency axis is projected linearly, not pooled away, so that bass
    and treble stay apart. The last ``flux_bins`` bins skip all that: they are already what
    an onset looks like, and are added by one linear map. Either part is absent if it has no bins.

    State, streams being batch x channels:
        front1: float [streams, 1, spectrogram bins, 2]  # the last input frames
        front3: float [streams, 16, pooled bins, 2]  # the last inputs of the third convolution
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.spec_bins = config.bins - config.flux_bins
        self.flux_bins = config.flux_bins
        if self.spec_bins:
            first, second, third = FILTERS
            bins1 = _pooled(self.spec_bins)
            wide = min(WIDE, bins1)
            self.bins2 = _pooled(bins1 - wide + 1)
            self.conv1 = nn.Conv2d(1, first, (3, 3))
            self.conv2 = nn.Conv2d(first, second, (wide, 1))
            self.conv3 = nn.Conv2d(second, third, (3, 3))
            self.project = nn.Conv1d(third * _pooled(self.bins2), config.dim, 1)
        if self.flux_bins:
            self.flux = nn.Conv1d(self.flux_bins, config.dim, 1)
        self.dropout = nn.Dropout1d(config.dropout)

    def init_state(self, streams: int, zeros: Zeros) -> State:
        """Return the caches described above, zeros, for streams = batch x channels."""
        if not self.spec_bins:
            return {}
        return {
            "front1": zeros(streams, 1, self.spec_bins, 2),
            "front3": zeros(streams, FILTERS[1], self.bins2, 2),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map float [streams, bins, n] to [streams, dim, n]; also return the next state."""
        if not self.spec_bins:
            return self.dropout(self.flux(x)), {}
        spec, flux = torch.split_with_sizes(x, (self.spec_bins, self.flux_bins), dim=1)
        y, front1 = join(state["front1"], spec[:, None])
        y = _convolve(y, self.conv1, pad=1)
        y = _convolve(y, self.conv2, pad=0)
        y, front3 = join(state["front3"], y)
        y = _convolve(y, self.conv3, pad=1)
        y = self.project(y.flatten(1, 2))
        if self.flux_bins:
            y = y + self.flux(flux)
        return self.dropout(y), {"front1": front1, "front3": front3}


def _convolve(x: Tensor, conv: nn.Conv2d, pad: int) -> Tensor:
    """Convolve, max-pool along frequency, then ELU, which commutes with max and is now cheaper.

    Zero bins are added on top so that the pooling comes out even.
    """
    outputs = x.shape[2] + 2 * pad - conv.kernel_size[0] + 1
    x = conv(F.pad(x, (0, 0, pad, pad + -outputs % POOL)))
    return F.elu(torch.amax(torch.unflatten(x, 2, (-1, POOL)), dim=3))
