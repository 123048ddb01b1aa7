"""Test material made of numpy: drum tracks with known beats, and a model that needs no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beattrack.activations import Activations
from beattrack.config import DecoderConfig, FeatureConfig


def drum_track(
    seconds: float,
    sample_rate: int = 44100,
    bpm: float = 120.0,
    beats_per_bar: int = 4,
    first_s: float = 0.25,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return a plain drum pattern, float32 [n], and the times of its beats in seconds.

    A kick opens the bar with a crash, a snare falls on the even beats, a hi-hat on the eighths.
    """
    rng = np.random.default_rng(7)
    audio = np.zeros(round(seconds * sample_rate), np.float32)

    def add(at_s: float, sound: NDArray[np.float64]) -> None:
        start = round(at_s * sample_rate)
        part = audio[start : start + len(sound)]
        part += sound[: len(part)].astype(np.float32)

    def burst(length_s: float, decay_s: float, level: float) -> NDArray[np.float64]:
        time = np.arange(round(length_s * sample_rate)) / sample_rate
        return level * rng.standard_normal(len(time)) * np.exp(-time / decay_s)

    time = np.arange(round(0.2 * sample_rate)) / sample_rate
    kick = 0.7 * np.exp(-time / 0.05) * np.sin(2 * np.pi * (50 * time + 4 * (1 - np.exp(-time / 0.02))))
    beats = np.arange(first_s, seconds - 0.1, 60 / bpm)
    for number, at in enumerate(beats):
        if number % beats_per_bar == 0:
            add(at, kick * 1.2)
            add(at, burst(0.3, 0.08, 0.15))
        elif number % 2:
            add(at, burst(0.15, 0.04, 0.25))
        else:
            add(at, kick)
        for eighth in (0.0, 30 / bpm):
            add(at + eighth, burst(0.05, 0.01, 0.06))
    return audio, beats


class FluxModel:
    """Band-wise flux as the beat activation: no learning, no file, no latency."""

    features = FeatureConfig(kind="flux")
    decoder = DecoderConfig()
    latency_frames = 0

    def step(self, frames: NDArray[np.float32]) -> Activations:
        """Take float32 [n, 1, bands]."""
        flux = frames[:, 0].mean(axis=1)
        low = frames[:, 0, :3].mean(axis=1)
        beat = (1 - np.exp(-0.7 * flux)).astype(np.float32)
        downbeat = (0.3 * beat * (1 - np.exp(-0.7 * low))).astype(np.float32)
        return Activations(beat, downbeat, np.zeros((len(frames), 0), np.float32))

    def reset(self) -> None:
        """There is no state."""


def share_found(
    found: NDArray[np.float64], truth: NDArray[np.float64], window_s: float = 0.07
) -> float:
    """Return the share of true beats that have a found one within ``window_s``."""
    if not len(found) or not len(truth):
        return 0.0
    return float(np.mean([np.abs(found - beat).min() <= window_s for beat in truth]))


# For `python -c`: the command with a model that needs no file.
FAKE_COMMAND = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from audio_tools import FluxModel
from beattrack_runtime import session
from beattrack_runtime.cli import main
session.load_model = lambda path=None: FluxModel()
main()
"""
