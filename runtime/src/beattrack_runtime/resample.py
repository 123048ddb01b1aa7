"""Streaming sample-rate conversion with a short, constant delay.

soxr's streaming mode works in blocks of an FFT: at 48 kHz its output lags the input by 5 to 38 ms,
differently from call to call. A tracker that reports beats as they fall cannot afford that, so
this converter applies its linear-phase filter directly and lags by a constant 1 to 3 ms.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MIN_RATE, MAX_RATE = 1000, 768000  # Hz that can be converted; anything else is a damaged header

# Fractions of the lower of the two rates. The band edges mirror each other about its half, so
# that whatever folds back lands above the pass band: 10 kHz at 22.05 kHz, the features' `fmax`.
_PASS = 0.455
_STOP = 1.0 - _PASS
_ATTENUATION_DB = 70.0  # of all that would fold into the pass band

# More phases than this are rounded to the nearest earlier one, which moves a sample by less than
# 1/4096 of the sample period (noise below -70 dB) and bounds the table for rates such as 44101 Hz.
# Above 48 kHz the periods are shorter and the filters longer, so fewer phases do the same.
_MAX_PHASES = 4096
_GROUP = 512  # outputs computed at once: their windows and taps stay in the processor's cache


class StreamResampler:
    """Converts mono audio from one sample rate to another, block by block.

    The output is aligned with the input: output sample k stands at time k / rate_out. The
    numbers do not depend on the sizes of the blocks. Filter design: Kaiser window, after
    Oppenheim and Schafer, "Discrete-Time Signal Processing", section 7.5.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        """Prepare a conversion from ``rate_in`` to ``rate_out``, both in Hz and above 0."""
        common = math.gcd(rate_in, rate_out)
        self._up, self._down = rate_out // common, rate_in // common
        low = min(rate_in, rate_out)
        width = 2 * math.pi * (_STOP - _PASS) * low / rate_in  # radians per input sample
        self._half = math.ceil((_ATTENUATION_DB - 8) / (2.285 * width) / 2)
        phases = min(_MAX_PHASES, _MAX_PHASES * 48000 // rate_in)
        self._phases = min(self._up, max(64, phases))
        self._table = _filter_table(self._half, self._phases, low / rate_in)
        self.delay_s = self._half / rate_in  # how far the output lags the input
        self.reset()

    def reset(self) -> None:
        """Forget all input; the next sample is the first."""
        # The window of output 0 begins half - 1 samples before the first input sample.
        self._buffer: NDArray[np.float32] = np.zeros(self._half - 1, np.float32)
        self._begin = 1 - self._half  # stream index of _buffer[0]
        self._taken = 0  # input samples so far
        self._made = 0  # output samples so far

    def needed(self, outputs: int) -> int:
        """Return how many input samples must have come in all before ``outputs`` have (>= 1)."""
        return (outputs - 1) * self._down // self._up + self._half + 1

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take float32 [n] and return the output that is now complete, float32 [m]."""
        self._taken += len(samples)
        return self._produce(samples, self._taken - self._half)

    def flush(self) -> NDArray[np.float32]:
        """Return what is left, as if silence followed: in all, ceil(n * rate_out / rate_in)."""
        return self._produce(np.zeros(self._half, np.float32), self._taken)

    def _produce(self, samples: NDArray[np.float32], until: int) -> NDArray[np.float32]:
        """Append ``samples`` and return all outputs that stand before input index ``until``."""
        buffer = np.concatenate([self._buffer, samples])
        end = max(self._made, -(-until * self._up // self._down))
        out = self._filter(buffer, end) if end > self._made else np.zeros(0, np.float32)
        self._made = end
        keep = end * self._down // self._up + 1 - self._half
        self._buffer = buffer[max(0, keep - self._begin) :].copy()
        self._begin = max(self._begin, keep)
        return out

    def _filter(self, buffer: NDArray[np.float32], end: int) -> NDArray[np.float32]:
        """Return the outputs from the last one made up to ``end``, which ``buffer`` covers.

        einsum goes row by row, so that a result does not depend on how many are computed at once.
        """
        count, width = end - self._made, 2 * self._half
        before = 1 - self._half - self._begin  # from an input's index to its window's in the buffer
        if self._up == 1:  # one phase alone, windows evenly apart: halving 44.1 kHz, say
            first = self._made * self._down + before
            windows = _windows(buffer, first, self._down, count, width)
            return np.asarray(np.einsum("ij,j->i", windows, self._table[0]))
        out = np.empty(count, np.float32)
        every = _windows(buffer, 0, 1, len(buffer) - width + 1, width)
        for done in range(0, count, _GROUP):
            part = out[done : done + _GROUP]
            k = np.arange(self._made + done, self._made + done + len(part)) * self._down
            whole, rest = np.divmod(k, self._up)
            taps = self._table[rest * self._phases // self._up]
            np.einsum("ij,ij->i", every[whole + before], taps, out=part)
        return out


def _windows(
    x: NDArray[np.float32], first: int, step: int, count: int, width: int
) -> NDArray[np.float32]:
    """Return a view of windows of ``x``, float32 [count, width]; numpy's own takes far longer.

    Raises:
        TypeError: they do not lie within ``x``.
    """
    size = x.itemsize
    return np.ndarray((count, width), x.dtype, x, first * size, (step * size, size))


def _filter_table(half: int, phases: int, low: float) -> NDArray[np.float32]:
    """Return float32 [phases, 2 * half]: the low pass seen from each fractional position.

    Row p belongs to an output that stands p / phases after input sample half - 1 of its window.
    ``low`` is the lower rate as a share of the input rate; the cut-off is at half of it.
    """
    beta = 0.1102 * (_ATTENUATION_DB - 8.7)
    fraction = np.arange(phases)[:, None] / phases
    distance = np.arange(1 - half, half + 1)[None, :] - fraction  # input samples
    window = np.i0(beta * np.sqrt(np.maximum(0.0, 1 - (distance / half) ** 2))) / np.i0(beta)
    taps = low * np.sinc(low * distance) * window
    table: NDArray[np.float32] = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
    return table
