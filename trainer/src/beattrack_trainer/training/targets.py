"""From annotated beats to what the network should say at each frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TEMPO_BEATS = 8  # beat intervals whose median is the tempo
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

    Args:
        times: of the beats, seconds, rising, float64 [beats]; they may lie outside.
        frames: length of the result.
        fps: frames per second.
        bins: number of classes.
    """
    target = np.full(frames, -1, dtype=np.int64)
    # The class of a beat holds until the next: only those that reach into the frames matter.
    begin = max(1, int(np.searchsorted(times, 0.0)) - 1)
    end = int(np.searchsorted(times, frames / fps))
    if begin >= end:
        return target
    past = np.diff(times[max(0, begin - TEMPO_BEATS) : end])
    padded = np.concatenate([np.full(TEMPO_BEATS - 1, np.nan), past])
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(padded, TEMPO_BEATS), axis=1)
    known = TEMPO_BEATS - np.isnan(windows).sum(axis=1)  # sorting puts what is unknown last
    rows = np.arange(len(windows))
    gaps = (windows[rows, (known - 1) // 2] + windows[rows, known // 2]) / 2
    for i, gap in zip(range(begin, end), gaps[begin - end :], strict=True):
        stop = times[i + 1] if i + 1 < len(times) else times[i] + gap
        first, last = int(times[i] * fps), int(stop * fps)
        target[max(0, first) : max(0, last)] = round(60 / gap) - 1
    target[(target < 0) | (target >= bins)] = -1
    return target
