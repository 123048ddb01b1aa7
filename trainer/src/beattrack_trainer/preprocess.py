"""Data set folder to feature store: the runtime's own features, kept in half precision.

A data set folder holds ``tracks/<id>.<ext>`` and ``beats/<id>.beats``; the two may also lie side
by side in one folder. A store holds ``<id>.npz`` for each track and the feature configuration.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.progress import track

from beattrack.config import FeatureConfig
from beattrack.features import compute

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
CONFIG_NAME = "features.json"


@dataclass(frozen=True)
class Track:
    """One track of a data set: its audio and its annotation."""

    name: str
    audio: Path
    beats: Path


def find_tracks(folder: Path) -> list[Track]:
    """Return the tracks of a data set folder that have both audio and beats, by name.

    Raises:
        ValueError: there is none.
    """
    places = [(folder / "tracks", folder / "beats"), (folder, folder)]
    for audio_dir, beats_dir in places:
        files = sorted(audio_dir.glob("*")) if audio_dir.is_dir() else []
        pairs = [Track(f.stem, f, beats_dir / f"{f.stem}.beats") for f in files
                 if f.suffix.lower() in AUDIO_SUFFIXES]  # fmt: skip
        pairs = [t for t in pairs if t.beats.is_file()]
        if pairs:
            return pairs
    raise ValueError(f"{folder} holds no audio with .beats beside it or in tracks/ and beats/.")


def read_audio(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Return a file as mono float32 [n] at ``sample_rate``. Raises soundfile's LibsndfileError."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(audio.mean(axis=1), rate, sample_rate), dtype=np.float32)


def read_beats(path: Path) -> NDArray[np.float64]:
    """Return annotated beats, float64 [beats, 2]: seconds, beat in bar from 1.

    Raises:
        ValueError: not numbers, times that do not increase, or positions below 1.
    """
    table = np.loadtxt(path, dtype=np.float64, ndmin=2)
    if table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(f"{path} must have two columns, time and beat in bar.")
    if (np.diff(table[:, 0]) <= 0).any() or (table[:, 1] < 1).any():
        raise ValueError(f"{path} has times that do not increase or positions below 1.")
    return table[:, :2]


def _store_track(job: Track, store: Path, config: FeatureConfig) -> str | None:
    """Compute one track's features; return a complaint, or None when it is done."""
    target = store / f"{job.name}.npz"
    if target.exists():
        return None
    try:
        audio = read_audio(job.audio, config.sample_rate)
        beats = read_beats(job.beats)
    except (ValueError, soundfile.LibsndfileError, OSError) as error:
        return f"{job.name}: {error}"
    inside = beats[beats[:, 0] < len(audio) / config.sample_rate]
    if len(inside) < 2:
        return f"{job.name}: fewer than two beats lie within the audio."
    frames = compute(audio, config).astype(np.float16)
    temporary = target.with_name(f".{os.getpid()}-{job.name}.npz")
    np.savez(temporary, frames=frames, beats=inside)
    temporary.replace(target)
    return None


def preprocess(folder: Path, store: Path, config: FeatureConfig, jobs: int = 1) -> list[str]:
    """Compute the features of every track that the store does not hold yet.

    Returns:
        One sentence for each track that was skipped.

    Raises:
        ValueError: no tracks, or the store was made with another configuration.
    """
    tracks = find_tracks(folder)
    store.mkdir(parents=True, exist_ok=True)
    note = store / CONFIG_NAME
    if note.exists() and note.read_text() != config.to_json():
        raise ValueError(f"{store} was made with other feature settings; give a new folder.")
    note.write_text(config.to_json())
    complaints: list[str] = []
    with ProcessPoolExecutor(jobs) as pool:
        work = [pool.submit(_store_track, t, store, config) for t in tracks]
        for done in track(as_completed(work), "Features", total=len(work)):
            complaint = done.result()
            if complaint:
                complaints.append(complaint)
    return complaints
