"""How an annotation lies on its audio: the offset and the speed that would align it.

Annotations are often made on another release of a song than the one at hand, with a longer lead-in
or at another speed. The beats, as a train of pulses, are correlated with the onset strength of the
audio: its flux, by the code that trains and runs. What the correlation proposes is then tested in
short windows, each of which has to find the same place on its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from beattrack.config import FeatureConfig
from beattrack.features import FeatureStream
from beattrack_trainer.data.audio import read_blocks

Floats = NDArray[np.float64]

FLUX = FeatureConfig(kind="flux")
# From a beat to the centre of the frame in which flux peaks, s: the median over 30 songs whose
# beats are known to some ms; single songs lie between 30 and 50 ms.
FLUX_DELAY_S = 0.042
MAX_OFFSET_S = 90.0
MAX_SPEED = 0.05  # PAL video runs 4.2 % fast
BLUR_S = 0.01  # at most, at either end of a song, between neighbouring speeds that are tried
SEARCH_S = 600.0  # of a song are searched for its offset; all of it is used to refine
MIN_BEATS = 12  # fewer say nothing
WINDOW_S = 6.0  # of beats that must find their place on their own
WINDOW_BEATS = 4  # at least
STEP_S = 0.004
SAME_S = 0.02  # a window agrees when its own place is nearer than this
ALIGNED_S = 0.05  # annotations nearer than this are left alone
CLEARLY = 1.15  # a rival must be this much better than the simpler answer to replace it
TIED = 0.985  # a place this nearly as good might as well be the right one
# Beats that lie on their music mostly have 0.85 to 1 (35 songs), those of other music that is
# played by people 0.35 to 0.57; two songs of constant tempo fit each other at some speed.
MIN_CONFIDENCE = 0.75
MIN_CONTRAST = 1.3


@dataclass(frozen=True)
class Alignment:
    """Where the beats of an annotation fall on the audio: at ``speed * time + offset_s``.

    Contrast is the mean onset strength at the beats over that of all frames between the first and
    the last of them: 1 is chance, music that is aligned has 1.5 to 5.
    """

    offset_s: float  # at the start of the annotation's time, s
    speed: float  # 1: a constant offset suffices
    contrast_before: float
    contrast_after: float
    confidence: float  # 0-1: share of windows of 6 s that find this place on their own
    shift_s: float  # the largest change of any beat, s
    unique: bool  # False: the music repeats so exactly that whole beats or bars more fit as well
    better_s: float | None  # where aligned beats would lie on stronger onsets yet: off-beats, often

    @property
    def confident(self) -> bool:
        """Whether beats do fall there, by all that can be told from the audio."""
        return self.confidence >= MIN_CONFIDENCE and self.contrast_after >= MIN_CONTRAST

    @property
    def aligned(self) -> bool:
        """Whether the annotation may stay as it is."""
        return self.shift_s <= ALIGNED_S

    def apply(self, times: Floats) -> Floats:
        """Return aligned times, s."""
        return self.speed * times + self.offset_s


def onset_strength(path: Path) -> NDArray[np.float32]:
    """Return the onset strength of an audio file, float32 [frames], 50 a second.

    The file is decoded block by block, so its length hardly matters to memory.

    Raises:
        BeattrackError: it cannot be read.
    """
    stream = FeatureStream(FLUX)
    parts = [stream.push(block).mean(axis=(1, 2)) for block in read_blocks(path, FLUX.sample_rate)]
    return np.concatenate([np.empty(0, np.float32), *parts])


def align(onsets: NDArray[np.float32], beats: Floats) -> Alignment | None:
    """Return how beats lie on audio, or None where nothing can be told.

    Args:
        onsets: float32 [frames], as ``onset_strength`` returns.
        beats: float64 [beats], times in s, increasing.

    Returns:
        The simplest of three answers that no other clearly beats: the present place, a constant
        offset within +-90 s, an offset and another speed within +-5 %. A present place that the
        windows confirm stays whatever beats it. None for silence, or fewer than 12 beats.
    """
    if len(beats) < MIN_BEATS or not np.isfinite(onsets).all() or onsets.max(initial=0) <= 0:
        return None
    song = _Song(onsets, beats)
    chosen = song.refine(1.0, 0.0)
    offset, alone = song.best_offset(1.0)
    moved = song.refine(1.0, offset)
    unique = alone and abs(moved[1] - chosen[1]) < 0.06  # the search ends in the present place, too
    clearly = song.score(*moved) > CLEARLY * song.score(*chosen)
    here = song.alignment(*chosen, unique)
    if here.aligned and here.confident:
        return replace(here, better_s=offset if clearly else None)
    if clearly:
        chosen, unique = moved, alone
    if song.agreement(*chosen) < MIN_CONFIDENCE:
        speed, offset, alone = song.best_speed()
        moved = song.refine(speed, offset)
        if song.score(*moved) > CLEARLY * song.score(*chosen):
            chosen, unique = moved, alone
    return song.alignment(*chosen, unique)


class _Song:
    """The onsets and beats of one song, and how well they fit for a speed and an offset."""

    def __init__(self, onsets: NDArray[np.float32], beats: Floats) -> None:
        self.onsets = onsets.astype(np.float64)
        self.beats = beats
        self.fps = FLUX.fps
        searched = beats[beats < beats[0] + SEARCH_S]
        self._searched = searched - searched[0]
        self._reach = round(MAX_OFFSET_S * self.fps)
        # The part of the audio that the searched beats can fall on, at any offset and speed.
        first = max(0, round(searched[0] * self.fps) - self._reach)
        length = round((self._searched[-1] * (1 + MAX_SPEED) + 2 * MAX_OFFSET_S) * self.fps)
        self._first_frame = first
        part = self.onsets[first : first + length]
        self._size = fft.next_fast_len(2 * max(length, len(part)), real=True)
        self._spectrum = fft.rfft(part, self._size)

    def at(self, times: Floats) -> Floats:
        """Return the onset strength that belongs to times in s, any shape; 0 outside."""
        frames = (times + FLUX_DELAY_S) * self.fps - 0.5
        found = np.interp(frames, np.arange(len(self.onsets)), self.onsets, left=0, right=0)
        return np.asarray(found, dtype=np.float64)

    def alignment(self, speed: float, offset: float, unique: bool) -> Alignment:
        """Return a place with what speaks for it."""
        ends = np.array([self.beats[0], self.beats[-1]])
        return Alignment(
            offset_s=offset,
            speed=speed,
            contrast_before=self.contrast(1.0, 0.0),
            contrast_after=self.contrast(speed, offset),
            confidence=self.agreement(speed, offset),
            shift_s=float(np.abs((speed - 1) * ends + offset).max()),
            unique=unique,
            better_s=None,
        )

    def score(self, speed: float, offset: float) -> float:
        """Return the mean strength over all beats; those outside the audio count 0."""
        return float(self.at(speed * self.beats + offset).mean())

    def contrast(self, speed: float, offset: float) -> float:
        """Return the strength at the beats over that of all frames between them; 1 is chance."""
        times = speed * self.beats + offset
        times = times[(times >= 0) & (times * self.fps < len(self.onsets))]
        if not len(times):
            return 0.0
        first, last = (round(t * self.fps) for t in (times[0], times[-1]))
        usual = self.onsets[first : last + 1].mean()
        return float(self.at(times).mean() / usual) if usual > 0 else 0.0

    def _correlation(self, speed: float) -> tuple[Floats, Floats]:
        """Return the mean strength at the beats for each offset: offsets in s, and strengths."""
        frames = self._searched * speed * self.fps
        train = np.zeros(self._size)
        low = frames.astype(int)
        np.add.at(train, low, 1 - (frames - low))
        np.add.at(train, low + 1, frames - low)
        product = self._spectrum * np.conj(fft.rfft(train))
        correlation = fft.irfft(product, self._size) / len(frames)
        # Index k: the first beat falls on frame k of the part; negative ones lie at the end.
        start = self.beats[0] * speed  # where the first beat lies with this speed alone
        base = (self._first_frame + 0.5) / self.fps - FLUX_DELAY_S - start
        middle = round(-base * self.fps)
        shifts = np.arange(middle - self._reach, middle + self._reach + 1)
        return shifts / self.fps + base, correlation[shifts % self._size]

    def best_offset(self, speed: float) -> tuple[float, bool]:
        """Return the best offset in s for a speed, and whether no other is nearly as good."""
        offsets, strengths = self._correlation(speed)
        inner = strengths[1:-1]
        peak = (inner >= strengths[:-2]) & (inner >= strengths[2:])
        peaks = offsets[1:-1][peak & (inner >= 0.9 * strengths.max())]
        if not len(peaks):
            return 0.0, True
        steps = np.arange(-0.024, 0.025, STEP_S)
        searched = speed * (self._searched + self.beats[0])
        scores = np.array([[self.at(searched + p + s).mean() for s in steps] for p in peaks])
        # Where the tempo is constant, places whole beats apart differ by one beat in hundreds: a
        # parabola through the top keeps the steps from deciding.
        fine = [_top(row) for row in scores]
        places = peaks + np.array([steps[0] + STEP_S * place for place, _ in fine])
        heights = np.array([height for _, height in fine])
        found = float(places[heights.argmax()])
        others = heights[np.abs(places - found) > 0.06]
        return found, not (others >= TIED * heights.max()).any()

    def best_speed(self) -> tuple[float, float, bool]:
        """Return the speed and offset with the best correlation, and whether they stand alone."""
        step = 4 * BLUR_S / max(self._searched[-1], 1.0)
        speeds = 1 + np.arange(-MAX_SPEED, MAX_SPEED + step, step)
        best = max(speeds, key=lambda speed: self._correlation(float(speed))[1].max())
        offset, alone = self.best_offset(float(best))
        # Speeds between those tried turn around the middle of what was searched.
        middle = self.beats[0] + self._searched[-1] / 2
        turned = [(s, offset + (best - s) * middle) for s in best + step * np.arange(-1, 1.01, 0.1)]
        speed, offset = max(turned, key=lambda fit: self.score(*fit))
        return float(speed), float(offset), alone

    def _windows(self, speed: float, offset: float) -> tuple[Floats, Floats]:
        """Return for each window its centre in annotation time and its own offset, both in s."""
        times = speed * self.beats + offset
        inside = (times > 0) & (times * self.fps < len(self.onsets) - 1)
        beats, times = self.beats[inside], times[inside]
        if len(beats) < MIN_BEATS:
            return np.empty(0), np.empty(0)
        # A quarter of a beat either way: further off another part of the beat may be as strong.
        reach = min(0.12, float(np.median(np.diff(times))) / 4)
        steps = np.arange(-reach, reach + STEP_S / 2, STEP_S)
        window = ((beats - beats[0]) // WINDOW_S).astype(int)
        centres, places = [], []
        for number in np.unique(window):
            mine = window == number
            strengths = self.at(times[mine][:, None] + steps).mean(axis=0)
            if mine.sum() >= WINDOW_BEATS and strengths.max() > 0:
                centres.append(beats[mine].mean())
                places.append(steps[strengths.argmax()])
        return np.array(centres), np.array(places)

    def agreement(self, speed: float, offset: float) -> float:
        """Return the share of windows that find this place on their own, 0-1."""
        _, places = self._windows(speed, offset)
        return float(np.mean(np.abs(places) < SAME_S)) if len(places) else 0.0

    def refine(self, speed: float, offset: float) -> tuple[float, float]:
        """Return speed and offset moved to where the windows want them, by a robust line."""
        from scipy import stats  # here, since it takes half a second

        for _ in range(2):
            centres, places = self._windows(speed, offset)
            if not len(places):
                break
            slope = 0.0
            if len(places) >= 5:
                line = stats.theilslopes(places, centres)
                span = centres[-1] - centres[0]
                sure = line.low_slope > 0 or line.high_slope < 0
                slope = float(line.slope) if sure and abs(line.slope) * span > STEP_S * 5 else 0.0
            offset += float(np.median(places - slope * centres))
            speed += slope
        return speed, offset


def _top(values: Floats) -> tuple[float, float]:
    """Return place (in indices) and height of the highest point, by a parabola through it."""
    k = int(values.argmax())
    if not 0 < k < len(values) - 1:
        return float(k), float(values[k])
    left, middle, right = values[k - 1 : k + 2]
    curve = left - 2 * middle + right
    shift = 0.5 * (left - right) / curve if curve < 0 else 0.0
    return k + shift, middle - 0.25 * (left - right) * shift
