"""Collects what the picture of a stream needs, in constant memory however long the stream is."""

from __future__ import annotations

import logging
import math
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beattrack.events import Beat, Event, StateChange, TrackerState
from beattrack_runtime.outputs.pending import PendingFile
from beattrack_runtime.stats import Summary

DETAIL_S = 10.0  # length of the stretch that is shown beat by beat

_COLUMNS = 4096  # of the overview; twice what the picture can resolve
_COLUMN_S = 0.005  # length of a column at first
_POINTS = 8192  # of the tempo curve


class Envelope:
    """Lowest and highest sample in each of at most 4096 columns of equal length.

    When all are full, neighbours are merged and columns become twice as long.
    """

    def __init__(self, sample_rate: int) -> None:
        """Nothing is heard yet; ``sample_rate`` is in Hz."""
        self._rate = sample_rate
        self._span = max(1, round(_COLUMN_S * sample_rate))  # samples in a column
        self._low = np.zeros(_COLUMNS, np.float32)
        self._high = np.zeros(_COLUMNS, np.float32)
        self._locked = np.zeros(_COLUMNS, np.bool_)
        self._full = 0  # complete columns
        self._part = 0  # samples in the column after them

    def add(self, mono: NDArray[np.float32], locked: bool) -> None:
        """Take samples, float32 [n], heard while the tracker was ``locked`` or not."""
        while len(mono):
            if self._full == _COLUMNS:
                self._merge()
            take = mono[: self._span - self._part]
            mono = mono[len(take) :]
            low, high, at = float(take.min()), float(take.max()), self._full
            if self._part:
                low, high = min(low, float(self._low[at])), max(high, float(self._high[at]))
                locked = locked or bool(self._locked[at])
            self._low[at], self._high[at], self._locked[at] = low, high, locked
            self._part += len(take)
            if self._part == self._span:
                self._full, self._part = self._full + 1, 0

    def columns(self) -> tuple[NDArray[np.float64], ...]:
        """Return time (centre, s), lowest, highest and locked (0 or 1), each [columns]."""
        count = self._full + (self._part > 0)
        time = (np.arange(count) + 0.5) * self._span / self._rate
        parts = (self._low, self._high, self._locked)
        return (time, *(part[:count].astype(np.float64) for part in parts))

    def _merge(self) -> None:
        half = _COLUMNS // 2
        self._low[:half] = self._low.reshape(half, 2).min(axis=1)
        self._high[:half] = self._high.reshape(half, 2).max(axis=1)
        self._locked[:half] = self._locked.reshape(half, 2).any(axis=1)
        self._full, self._span = half, self._span * 2


class Thinned:
    """At most 8192 points of a curve: when they are too many, every second one is dropped."""

    def __init__(self) -> None:
        """Begin without points."""
        self.points: list[tuple[float, float]] = []
        self._every = 1
        self._seen = 0

    def add(self, x: float, y: float) -> None:
        """Take one point."""
        if self._seen % self._every == 0:
            self.points.append((x, y))
            if len(self.points) > _POINTS:
                del self.points[1::2]
                self._every *= 2
        self._seen += 1


class Detail:
    """The last 10 s before ``stop_s`` of the stream (before its end, if it ends earlier)."""

    def __init__(self, sample_rate: int, stop_s: float) -> None:
        """Nothing is heard yet; ``sample_rate`` is in Hz, ``stop_s`` may be infinite."""
        self._rate = sample_rate
        self.stop_s = stop_s
        self._now_s = 0.0
        self._blocks: deque[tuple[float, NDArray[np.float32]]] = deque()  # (start in s, samples)
        self.frames: deque[tuple[float, float, float]] = deque()  # (time, beat, downbeat)
        self.beats: deque[Beat] = deque()

    @property
    def begin_s(self) -> float:
        """Where the stretch begins, seconds."""
        return max(0.0, self._now_s - DETAIL_S)

    @property
    def end_s(self) -> float:
        """Where the stretch ends, seconds."""
        return self._now_s

    def audio(self, start_s: float, mono: NDArray[np.float32]) -> None:
        """Take samples, float32 [n], that begin at ``start_s``."""
        if start_s >= self.stop_s:
            return
        self._blocks.append((start_s, mono))
        self._now_s = min(self.stop_s, start_s + len(mono) / self._rate)
        begin = self.begin_s
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) / self._rate < begin:
            self._blocks.popleft()
        while self.frames and self.frames[0][0] < begin:
            self.frames.popleft()
        while self.beats and self.beats[0].time_s < begin:
            self.beats.popleft()

    def samples(self) -> tuple[float, NDArray[np.float32]]:
        """Return the start in seconds and the samples, float32 [n]."""
        if not self._blocks:
            return 0.0, np.zeros(0, np.float32)
        return self._blocks[0][0], np.concatenate([block for _, block in self._blocks])


class PlotOutput:
    """Gathers the stream and draws it at the end (see `beattrack_runtime.outputs.drawing`)."""

    def __init__(
        self, path: Path, title: str, sample_rate: int, duration_s: float | None = None
    ) -> None:
        """Open ``path``.

        Args:
            path: the picture; its suffix says the format: png, pdf, svg, jpg or jpeg.
            title: written above it.
            sample_rate: of the audio, Hz.
            duration_s: expected length; the middle is shown in detail. None: not known, and the
                end is shown.

        Raises:
            OutputError: the file cannot be made.
        """
        self.path = path
        self.title = title
        self.rate = sample_rate
        self.samples = 0
        self.envelope = Envelope(sample_rate)
        middle = math.inf if duration_s is None else (duration_s + DETAIL_S) / 2
        self.detail = Detail(sample_rate, middle)
        self.tempo = Thinned()
        self.summary = Summary(title)
        self._locked = False
        self._pending = PendingFile(path)

    @property
    def duration_s(self) -> float:
        """Seconds of audio taken."""
        return self.samples / self.rate

    def audio(self, block: NDArray[np.float32]) -> None:
        """Take audio, float32 [n, channels]."""
        with np.errstate(over="ignore", invalid="ignore"):  # raw PCM may hold anything
            mono = np.clip(np.nan_to_num(block.mean(axis=1)), -1.0, 1.0)
        self.detail.audio(self.duration_s, mono)
        self.envelope.add(mono, self._locked)
        self.samples += len(block)

    def frame(self, time_s: float, beat: float, downbeat: float) -> None:
        """Take the activations that speak of ``time_s``."""
        if time_s < self.detail.stop_s:
            self.detail.frames.append((time_s, beat, downbeat))

    def event(self, event: Event) -> None:
        """Take a beat or a change of state."""
        if isinstance(event, StateChange):
            self._locked = event.state is TrackerState.LOCKED
            if not self._locked:
                self.tempo.add(event.emitted_s, math.nan)  # the curve pauses here
            return
        self.summary.event(event)
        self.tempo.add(event.time_s, event.tempo_bpm)
        if event.time_s < self.detail.stop_s:
            self.detail.beats.append(event)

    def finish(self) -> None:
        """Draw the picture. Raises OutputError."""
        # Its notes about its folders, fonts and glyphs mean nothing to who asked for a picture.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        # Imported here: matplotlib takes half a second and 40 MB that only pictures need.
        from beattrack_runtime.outputs.drawing import draw

        kind = self.path.suffix[1:].lower()
        try:
            draw(self, self._pending.temporary, kind)
        except BaseException:
            self._pending.abandon()
            raise
        self._pending.commit()

    def abandon(self) -> None:
        """Remove the file."""
        self._pending.abandon()
