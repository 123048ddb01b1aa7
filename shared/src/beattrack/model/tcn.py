"""The baseline trunk: a causal temporal convolutional network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from beattrack.config import ModelConfig
from beattrack.model.streaming import CausalConv1d, State, Zeros


class TCNBlock(nn.Module):
    """x + linear(dropout(ELU(dilated convolution(x)))), after Davies & Böck (2019), made causal."""

    def __init__(self, config: ModelConfig, dilation: int) -> None:
        super().__init__()
        inner = config.dim * 3 // 2
        self.conv = CausalConv1d(config.dim, inner, config.kernel, dilation)
        self.dropout = nn.Dropout1d(config.dropout)
        self.linear = nn.Conv1d(inner, config.dim, 1)

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Map float [batch, dim, n] to the same shape; the cache is CausalConv1d's."""
        y, new_cache = self.conv(x, cache)
        return x + self.linear(self.dropout(F.elu(y))), new_cache


class TCN(nn.Module):
    """Blocks with dilations 1, 2, 4, ...; instrument channels are merged linearly before them.

    State:
        block<i>: float [batch, dim, (kernel - 1) * 2 ** i]  # the last inputs of block i
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.dim = config.dim
        self.merge = nn.Conv1d(config.channels * config.dim, config.dim, 1)
        self.blocks = nn.ModuleList(TCNBlock(config, 2**i) for i in range(config.depth))
        self.histories = [(config.kernel - 1) * 2**i for i in range(config.depth)]

    def init_state(self, batch: int, zeros: Zeros) -> State:
        """Return the caches described above, zeros."""
        return {f"block{i}": zeros(batch, self.dim, h) for i, h in enumerate(self.histories)}

    def forward(self, x: Tensor, state: State, seen: Tensor | None) -> tuple[Tensor, State]:
        """Map float [batch * channels, dim, n] to [batch, dim, n]; also return the next state.

        ``seen`` is of no use here: zeros are the padding of a convolution.
        """
        x = self.merge(x.reshape(-1, self.channels * self.dim, x.shape[-1]))
        new_state: State = {}
        for i, block in enumerate(self.blocks):
            x, new_state[f"block{i}"] = block(x, state[f"block{i}"])
        return F.elu(x), new_state
