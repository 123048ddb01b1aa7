"""The trunk of All-In-One, made causal."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beattrack.config import ModelConfig
from beattrack.model.attention import InstrumentAttention, TimeAttention, attention_backend
from beattrack.model.streaming import State, Zeros

MLP_RATIO = 3  # width of the MLP over ``dim``


def rms_norm(x: Tensor) -> Tensor:
    """Scale float [streams, dim, n] to unit root mean square over dim.

    Without a learned gain: a linear map always follows and can hold it.
    """
    return x / torch.sqrt((x * x).mean(dim=1, keepdim=True) + 1e-6)


class AllInOneBlock(nn.Module):
    """Attention over time, attention across instruments, MLP: pre-normed residuals."""

    def __init__(self, config: ModelConfig, dilation: int) -> None:
        super().__init__()
        dim = config.dim
        self.time = TimeAttention(dim, config.kernel, dilation)
        several = config.channels > 1
        self.instruments = InstrumentAttention(dim, config.channels) if several else None
        self.widen = nn.Conv1d(dim, MLP_RATIO * dim, 1)
        self.narrow = nn.Conv1d(MLP_RATIO * dim, dim, 1)
        self.dropout = nn.Dropout1d(config.dropout)

    def forward(self, x: Tensor, cache: Tensor, age: Tensor, backend: str) -> tuple[Tensor, Tensor]:
        """Map float [streams, dim, n] to the same shape; the rest is as in TimeAttention."""
        y, new_cache = self.time(rms_norm(x), cache, age, backend)
        x = x + self.dropout(y)
        if self.instruments is not None:
            x = x + self.dropout(self.instruments(rms_norm(x)))
        y = self.narrow(F.gelu(self.widen(rms_norm(x))))
        return x + self.dropout(y), new_cache


class AllInOneTempo(nn.Module):
    """Blocks of dilations 1, 2, 4, ... on each instrument channel; their mean is the output.

    After All-In-One (Kim & Nam 2023): instruments are an axis of their own, shared weights serve
    them all, and a learned embedding tells them apart.

    State, streams being batch x channels:
        block<i>: float [streams, 2 * dim, (kernel - 1) * 2 ** i]  # last keys and values of block i
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.dim = config.dim
        self.instrument = nn.Parameter(0.1 * torch.randn(config.channels, config.dim, 1))
        self.blocks = nn.ModuleList(AllInOneBlock(config, 2**i) for i in range(config.depth))
        self.histories = [(config.kernel - 1) * 2**i for i in range(config.depth)]

    def init_state(self, batch: int, zeros: Zeros) -> State:
        """Return the caches described above, zeros."""
        shape = (batch * self.channels, 2 * self.dim)
        return {f"block{i}": zeros(*shape, h) for i, h in enumerate(self.histories)}

    def forward(self, x: Tensor, state: State, seen: Tensor | None) -> tuple[Tensor, State]:
        """Map float [batch * channels, dim, n] to [batch, dim, n]; also return the next state.

        ``seen`` is int64 [1], the frames heard before, or None if x is a sequence from its start.
        """
        age = torch.arange(x.shape[-1], device=x.device)
        if seen is not None:
            age = age + seen
        backend = attention_backend(x.device) if seen is None else "slices"
        x = (torch.unflatten(x, 0, (-1, self.channels)) + self.instrument).flatten(0, 1)
        new_state: State = {}
        for i, block in enumerate(self.blocks):
            x, new_state[f"block{i}"] = block(x, state[f"block{i}"], age, backend)
        instruments = torch.unflatten(rms_norm(x), 0, (-1, self.channels))
        return instruments.mean(dim=1), new_state
