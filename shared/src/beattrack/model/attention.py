"""Causal dilated neighbourhood attention over time, and attention across instruments.

Each frame attends to itself and to the kernel - 1 frames at distances dilation, 2 * dilation, ...
before it (neighbourhood attention of Hassani et al. 2023, as in All-In-One of Kim & Nam 2023).
Without a sense of position such a frame could not tell a beat ago from two beats ago. All-In-One
learns a bias per distance, which NATTEN's fused kernels cannot add; a rotary embedding (Su et al.
2021) in units of the dilation serves instead, since it needs nothing but the queries and keys.

Two ways compute the same: ``slices``, shifted slices in plain torch, is the reference and runs
anywhere, with any history; ``natten``, a fused CUDA kernel, runs whole sequences in training.
"""

from __future__ import annotations

import functools
import importlib
import math
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beattrack.model.streaming import join

HEAD_DIM = 16  # suits every NATTEN backend
HALF = HEAD_DIM // 2
# Rotary frequencies fall from 1 rad per step of the kernel to 0.13: over the 14 steps of
# the longest kernel the slow pairs stay below half a turn, so every distance is distinct.
ROTARY_BASE = 10.0


@functools.cache
def _natten() -> ModuleType | None:
    """NATTEN if it is installed, else None; imported late, since that costs seconds."""
    try:
        return importlib.import_module("natten")
    except ImportError:
        return None


def attention_backend(device: torch.device) -> str:
    """Return ``natten`` on a CUDA device where NATTEN is installed, otherwise ``slices``."""
    return "natten" if device.type == "cuda" and _natten() is not None else "slices"


def _rotation(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Factors that rotate a head by float64 [n] steps: x * cos + _swap(x) * sin.

    Returns:
        cos, sin: float64 [HEAD_DIM, n]; sin is negative in the first half. float64, since at step
        3000 a float32 angle is wrong by 2e-4 rad, which the parity test would see
    """
    exponents = -torch.arange(HALF, dtype=steps.dtype, device=steps.device) / HALF
    angles = (ROTARY_BASE**exponents)[:, None] * steps
    sin = torch.sin(angles)
    return torch.cos(angles).repeat(2, 1), torch.cat((-sin, sin))


def _swap(x: Tensor) -> Tensor:
    """Swap the pairs (i, i + 8) of float [..., HEAD_DIM, n]."""
    a, b = x.chunk(2, dim=-2)
    return torch.cat((b, a), dim=-2)


class Slices(nn.Module):
    """Neighbourhood attention as ``kernel`` shifted slices of keys and values: the reference."""

    cos: Tensor
    sin: Tensor
    reach: Tensor

    def __init__(self, kernel: int, dilation: int) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        cos, sin = _rotation(torch.arange(kernel, dtype=torch.float64))
        scale = 1 / math.sqrt(HEAD_DIM)
        # float32 [kernel, 1, HEAD_DIM, 1] by distance in steps; constants, so not in checkpoints
        self.register_buffer("cos", (scale * cos).float().T[:, None, :, None], persistent=False)
        self.register_buffer("sin", (scale * sin).float().T[:, None, :, None], persistent=False)
        # int64 [kernel, 1, 1, 1]: frames that must have been heard before for a key to be real
        reach = torch.arange(kernel) * dilation
        self.register_buffer("reach", reach[:, None, None, None], persistent=False)

    def forward(self, q: Tensor, kv: Tensor, age: Tensor) -> Tensor:
        """Attend from each new frame to the kernel's frames, itself the first.

        Args:
            q: float [streams, dim, n], queries of the new frames
            kv: float [streams, 2 * dim, (kernel - 1) * dilation + n], keys then values, cached
                frames first; those that were never heard hold zeros and are masked
            age: int64 [n], frames heard before each new one, at least up to the history's length

        Returns:
            float [streams, dim, n]
        """
        n = q.shape[-1]
        last = (self.kernel - 1) * self.dilation
        starts = [last - j * self.dilation for j in range(self.kernel)]
        slices = torch.cat([kv[..., s : s + n] for s in starts], dim=1)
        # From here on all is [streams, kernel, heads, HEAD_DIM, n].
        k, v = torch.unflatten(slices, 1, (self.kernel, 2, -1, HEAD_DIM)).unbind(2)
        q = torch.unflatten(q, 1, (1, -1, HEAD_DIM))
        # Only distance matters to rotary attention: turn the query by it and leave the keys.
        turned = q * self.cos + _swap(q) * self.sin
        logits = (turned * k).sum(dim=3, keepdim=True)
        unheard = age < self.reach
        weights = torch.softmax(logits.masked_fill(unheard, -math.inf), dim=1)
        return torch.sum(weights * v, dim=1).flatten(1, 2)


def attend_natten(q: Tensor, k: Tensor, v: Tensor, kernel: int, dilation: int) -> Tensor:
    """Compute the same as ``Slices`` for a whole sequence that nothing precedes, by NATTEN.

    Args:
        q, k, v: float [streams, dim, T]

    Returns:
        float [streams, dim, T]
    """
    natten = _natten()
    assert natten is not None, "attention_backend chose natten without its being installed"
    length = q.shape[-1]
    cos, sin = _rotation(torch.arange(length, dtype=torch.float64, device=q.device) / dilation)
    cos, sin = cos.to(q.dtype), sin.to(q.dtype)
    q, k, v = (torch.unflatten(x, 1, (-1, HEAD_DIM)) for x in (q, k, v))
    q, k = (x * cos + _swap(x) * sin for x in (q, k))
    pad = max(0, kernel * dilation - length)  # NATTEN's least length; causality ignores the rest
    q, k, v = (F.pad(x, (0, pad)).permute(0, 3, 1, 2).contiguous() for x in (q, k, v))
    out: Tensor = natten.na1d(q, k, v, kernel, dilation=dilation, is_causal=True)
    return out[:, :length].flatten(2).transpose(1, 2)


class TimeAttention(nn.Module):
    """Multi-head causal dilated neighbourhood attention of each stream to its own past.

    Its cache is float [streams, 2 * dim, (kernel - 1) * dilation]: the last keys, then values,
    along axis 1. It starts as zeros, which are masked as long as they stand for frames that were
    never heard: a zero key is not "nothing", it would draw attention.
    """

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.dim, self.kernel, self.dilation = dim, kernel, dilation
        self.qkv = nn.Conv1d(dim, 3 * dim, 1)
        self.slices = Slices(kernel, dilation)
        self.out = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, cache: Tensor, age: Tensor, backend: str) -> tuple[Tensor, Tensor]:
        """Map float [streams, dim, n] to the same shape; also return the next cache.

        ``age`` is as in ``Slices``; ``backend`` may be ``natten`` only if nothing precedes ``x``.
        """
        q, kv = torch.split_with_sizes(self.qkv(x), (self.dim, 2 * self.dim), dim=1)
        joined, new_cache = join(cache, kv)
        if backend == "natten":
            k, v = kv.chunk(2, dim=1)
            y = attend_natten(q, k, v, self.kernel, self.dilation)
        else:
            y = self.slices(q, joined, age)
        out: Tensor = self.out(y)
        return out, new_cache


class InstrumentAttention(nn.Module):
    """Multi-head attention of each frame's instrument channels to one another; no memory."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.qkv = nn.Conv1d(dim, 3 * dim, 1)
        self.out = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [batch * channels, dim, n] to the same shape."""
        heads = torch.unflatten(self.qkv(x), 1, (-1, HEAD_DIM))
        q, k, v = torch.unflatten(heads, 0, (-1, self.channels)).chunk(3, dim=2)
        # Each is [batch, channels, heads, HEAD_DIM, n].
        # Few channels, many frames: plain products along the fast time axis beat tiny matrices.
        logits = (q[:, :, None] * k[:, None]).sum(dim=4) / math.sqrt(HEAD_DIM)
        weights = torch.softmax(logits, dim=2)
        y = (weights[:, :, :, :, None] * v[:, None]).sum(dim=2)
        out: Tensor = self.out(y.flatten(0, 1).flatten(1, 2))
        return out
