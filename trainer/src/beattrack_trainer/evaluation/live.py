"""The live path on a file: blocks of audio in, events out, as a live user gets them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beattrack.activations import ActivationModel
from beattrack.events import Beat
from beattrack_runtime.session import LiveTracker, load_model
from beattrack_runtime.sources import FileSource


@dataclass(frozen=True)
class Curves:
    """The activations of one piece."""

    frames: NDArray[np.float32]  # [frames, 2]: beat and downbeat, 0-1
    first_s: float  # the moment that the first frame speaks of, the model's own bias corrected
    fps: float
    input_delay_s: float = 0.0  # of the resampler

    def times(self) -> NDArray[np.float64]:
        """Return the moment that each frame of activations speaks of, float64 [frames], s."""
        return self.first_s + np.arange(len(self.frames)) / self.fps


@dataclass(frozen=True)
class Heard:
    """What the live path made of one file."""

    events: NDArray[np.float64]  # [events, 4]: stated time, beat in bar, emitted time (s), bpm
    curves: Curves  # from the same pass
    seconds: float  # length of the audio


@lru_cache(maxsize=1)
def opened(path: Path | None) -> ActivationModel:
    """Return a model; a process that scores many tracks opens it once."""
    return load_model(path)


def listen(model: Path | None, audio: Path) -> Heard:
    """Push a file through the live tracker, block by block.

    Args:
        model: an ONNX file; None is the shipped starter model.
        audio: any file that the runtime reads.

    Raises:
        BeattrackError: the model or the audio cannot be used.
    """
    chosen = opened(model)
    source = FileSource(audio)
    frames: list[tuple[float, float, float]] = []
    try:
        tracker = LiveTracker(chosen, source.sample_rate)
        tracker.on_frame = lambda at, beat, down: frames.append((at, beat, down))
        found = [event for block in source.blocks() for event in tracker.push(block)]
        found += tracker.flush()
    finally:
        source.close()
    beats = [(e.time_s, e.position, e.emitted_s, e.tempo_bpm) for e in found if isinstance(e, Beat)]
    table = np.array(frames, dtype=np.float64).reshape(-1, 3)
    curves = Curves(
        frames=table[:, 1:].astype(np.float32),
        first_s=float(table[0, 0]) + chosen.decoder.offset_s if len(table) else 0.0,
        fps=chosen.features.fps,
        input_delay_s=tracker.input_delay_s,
    )
    events = np.array(beats, dtype=np.float64).reshape(-1, 4)
    return Heard(events, curves, tracker.time_s)
