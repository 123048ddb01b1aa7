"""From annotated beats to what the network should say at each frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 1.5  # frames: a beat's target falls linearly to 0 at this distance


def pulse_targets(
    times: NDArray[np.float64], frames: int, fps: float, delay: int
) -> NDArray[np.float32]:
    """Return float32 [frames], 0-1: high where a beat was ``delay`` frames ago.

    Args:
        times: seconds, float64 [beats].
        frames: length of the result.
        fps: frames per second.
        delay: frames by which the network may come late (``label_delay``).
    """
    target = np.zeros(frames, dtype=np.float32)
    centre = times * fps + delay - 0.5  # in frames, a frame standing for its middle
    for shift in range(-2, 3):
        frame = np.floor(centre).astype(int) + shift
        height = np.maximum(0, 1 - np.abs(frame - centre) / WIDTH)
        inside = (frame >= 0) & (frame < frames)
        np.maximum.at(target, frame[inside], height[inside].astype(np.float32))
    return target


def tempo_targets(
    times: NDArray[np.float64], frames: int, fps: float, bins: int
) -> NDArray[np.int64]:
    """Return the local tempo class of each frame, int64 [frames]; -1 where there is none.

    Class k is k + 1 beats a minute, from the median of the last eight beat intervals.
    """
    target = np.full(frames, -1, dtype=np.int64)
    gaps = np.diff(times)
    for i in range(1, len(times)):
        gap = float(np.median(gaps[max(0, i - 8) : i]))
        stop = times[i + 1] if i + 1 < len(times) else times[i] + gap
        first, last = int(times[i] * fps), int(stop * fps)
        target[max(0, first) : max(0, last)] = round(60 / gap) - 1
    target[(target < 0) | (target >= bins)] = -1
    return target
