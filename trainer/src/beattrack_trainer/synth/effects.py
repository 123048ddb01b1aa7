"""Random audio effects that leave every onset where it is.

All filters are causal biquads of low order or act on levels only: nothing is delayed by more than
a millisecond in the range that matters, and the direct sound of a reverb is never moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Audio = NDArray[np.float32]


def shelf_or_peak(
    audio: Audio, rate: int, kind: str, hertz: float, gain_db: float, q: float = 0.8
) -> Audio:
    """Apply one biquad: ``kind`` is "low", "high" (shelf) or "peak".

    ``audio`` is float32[n], ``gain_db`` in dB, the result has the same shape. The coefficients are
    those of R. Bristow-Johnson's Audio EQ Cookbook. Raises ``ValueError`` for another kind.
    """
    a = 10 ** (gain_db / 40)
    w = 2 * np.pi * min(hertz, 0.45 * rate) / rate
    cos, alpha = np.cos(w), np.sin(w) / (2 * q)
    if kind == "peak":
        b = [1 + alpha * a, -2 * cos, 1 - alpha * a]
        c = [1 + alpha / a, -2 * cos, 1 - alpha / a]
    elif kind in ("low", "high"):
        s = 1.0 if kind == "low" else -1.0
        root = 2 * np.sqrt(a) * alpha
        b = [
            a * (a + 1 - s * (a - 1) * cos + root),
            s * 2 * a * (a - 1 - s * (a + 1) * cos),
            a * (a + 1 - s * (a - 1) * cos - root),
        ]
        c = [
            a + 1 + s * (a - 1) * cos + root,
            -s * 2 * (a - 1 + s * (a + 1) * cos),
            a + 1 + s * (a - 1) * cos - root,
        ]
    else:
        raise ValueError(f"The filter kind {kind!r} is not one of low, high, peak.")
    result: Audio = signal.lfilter(np.array(b) / c[0], np.array(c) / c[0], audio).astype(np.float32)
    return result


def band_limit(audio: Audio, rate: int, low: float | None, high: float | None) -> Audio:
    """Second-order Butterworth high-pass at ``low`` Hz and low-pass at ``high`` Hz, if given."""
    for hertz, kind in ((low, "highpass"), (high, "lowpass")):
        if hertz is not None and hertz < 0.48 * rate:
            sections = signal.butter(2, hertz, kind, fs=rate, output="sos")
            audio = signal.sosfilt(sections, audio).astype(np.float32)
    return audio


def soft_clip(audio: Audio, drive: float) -> Audio:
    """Tanh saturation, level kept at small signals; ``drive`` of 1 is mild, 8 is harsh."""
    peak = float(np.abs(audio).max()) or 1.0
    result: Audio = (np.tanh(audio / peak * drive) / np.tanh(drive) * peak).astype(np.float32)
    return result


def compress(audio: Audio, rate: int, ratio: float) -> Audio:
    """Compression by ``ratio`` above the middle level; the gain follows over some 60 ms."""
    # one value each 5 ms is enough for a gain that moves over 60 ms
    hop = rate // 200
    blocks = np.pad(audio, (0, -len(audio) % hop)).reshape(-1, hop)
    level = np.sqrt(np.mean(blocks**2, axis=1) + 1e-10)
    a = np.exp(-1 / 12)
    level = signal.lfilter([1 - a], [1, -a], level)
    threshold = float(np.median(level)) + 1e-6
    gain = np.minimum(1.0, (level / threshold) ** (1 / ratio - 1))
    at = np.arange(len(gain)) * hop + hop / 2
    smooth = np.interp(np.arange(len(audio)), at, gain)
    result: Audio = (audio * smooth).astype(np.float32)
    return result


def reverb(audio: Audio, rate: int, seconds: float, wet: float, rng: np.random.Generator) -> Audio:
    """Add a decaying-noise tail of ``seconds`` (to -60 dB); the direct sound is unchanged."""
    n = int(seconds * rate)
    decay = 10 ** (-3 * np.arange(n) / n)
    tail: Audio = (rng.normal(0, 1, n) * decay).astype(np.float32)
    tail[: int(0.004 * rate)] = 0  # the first reflections come after the direct sound
    tail = band_limit(tail, rate, 150, 5000)
    tail /= np.sqrt(np.sum(tail**2)) + 1e-9
    echo = signal.oaconvolve(audio, tail)[: len(audio)]
    result: Audio = (audio + wet * echo).astype(np.float32)
    return result


def noise_bed(n: int, rate: int, rng: np.random.Generator) -> Audio:
    """Noise of unit power, float32[n]: white to brown hiss, mains hum or a crowd-like murmur."""
    kind = rng.choice(["coloured", "hum", "crowd"])
    bed: NDArray[Any]
    white = rng.normal(0, 1, n).astype(np.float32)
    if kind == "hum":
        t = np.arange(n) / rate
        base = float(rng.choice([50, 60]))
        bed = 0.1 * white
        for k in range(1, 8):
            bed = bed + rng.uniform(0.1, 1) / k * np.sin(2 * np.pi * base * k * t)
    elif kind == "crowd":
        bed = band_limit(white, rate, 250, 2500)
        slow = np.interp(
            np.arange(n),
            np.linspace(0, n, max(4, n // rate)),
            rng.uniform(0.3, 1, max(4, n // rate)),
        )
        bed = bed * slow
    else:
        # one-pole filters: pole 0 is white, 0.99 is close to brown
        bed = signal.lfilter([1], [1, -float(rng.uniform(0, 0.99))], white)
    result: Audio = (bed / (np.sqrt(np.mean(bed**2)) + 1e-9)).astype(np.float32)
    return result


def random_effects(audio: Audio, rate: int, rng: np.random.Generator) -> Audio:
    """A random chain on mono float32[n] at ``rate`` Hz: the same length, peak 0.1 to 0.98."""
    for kind, low, high in (("low", 60, 300), ("high", 2000, 7000), ("peak", 150, 6000)):
        if rng.random() < 0.5:
            hertz = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            audio = shelf_or_peak(audio, rate, kind, hertz, float(rng.uniform(-10, 8)))
    if rng.random() < 0.35:
        audio = compress(audio, rate, float(rng.uniform(1.5, 6)))
    if rng.random() < 0.25:
        audio = soft_clip(audio, float(rng.uniform(1, 6)))
    if rng.random() < 0.4:
        wet = float(rng.uniform(0.05, 0.5))
        audio = reverb(audio, rate, float(rng.uniform(0.2, 1.8)), wet, rng)
    if rng.random() < 0.15:  # a telephone, a small loudspeaker or a microphone in the room
        low_cut, high_cut = float(rng.uniform(60, 350)), float(rng.uniform(2500, 8000))
        audio = band_limit(audio, rate, low_cut, high_cut)
    if rng.random() < 0.3:
        power = float(np.sqrt(np.mean(audio**2)))
        ratio = 10 ** (-float(rng.uniform(10, 40)) / 20)
        audio = audio + power * ratio * noise_bed(len(audio), rate, rng)
    peak = float(np.abs(audio).max()) or 1.0
    level = float(np.clip(10 ** (-rng.exponential(5) / 20), 0.1, 0.98))
    result: Audio = (audio / peak * level).astype(np.float32)
    return result
