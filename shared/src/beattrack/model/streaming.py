"""Causal building blocks whose memory of the past is an explicit argument.

Every block here and in the sibling modules is written once, for n >= 1 new frames and a cache of
older ones; a full sequence is the same call with the initial (zero) cache. Time is the last axis
throughout, since that is the long and therefore the fast one. A cache's first axis counts
streams: the batch, or batch x instrument channels where the channels are handled alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]
Zeros = Callable[..., Tensor]  # zeros(*shape): a float cache of the model's own device and dtype


def join(cache: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Put a cache before new frames and take the next cache from their end.

    Args:
        cache: float [streams, ..., history], the frames before ``x``; history may be 0
        x: float [streams, ..., n], the new frames

    Returns:
        joined: float [streams, ..., history + n]
        new_cache: float [streams, ..., history]
    """
    history = cache.shape[-1]
    if history == 0:
        return x, cache
    joined = torch.cat((cache, x), dim=-1)
    return joined, joined[..., -history:]


class CausalConv1d(nn.Module):
    """A dilated convolution over time that sees ``history`` = (kernel - 1) * dilation older frames.

    Its cache is float [streams, inputs, history]: the last inputs, zeros before the first frame.
    Zeros are right for a convolution, unlike for attention: they are its ordinary padding.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.history = (kernel - 1) * dilation
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Map float [streams, inputs, n] to [streams, outputs, n]; also return the next cache."""
        joined, new_cache = join(cache, x)
        return self.conv(joined), new_cache


def causal_mean(x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the present and the ``history`` older frames; before the first they are zeros.

    Each window is summed anew: unlike a running sum, that gathers no rounding errors.

    Args:
        x: float [streams, dim, n]
        cache: float [streams, dim, history]

    Returns:
        float [streams, dim, n] and the next cache
    """
    joined, new_cache = join(cache, x)
    return F.avg_pool1d(joined, cache.shape[-1] + 1, stride=1), new_cache
