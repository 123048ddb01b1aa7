"""Data set folder to feature store: the runtime's own features, kept in half precision."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.progress import track

from beattrack.config import FeatureConfig
from beattrack.features import compute
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.folders import DataSet, Track
from beattrack_trainer.data.store import FeatureStore


def read_audio(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Return a file as mono float32 [n] at ``sample_rate``. Raises soundfile's LibsndfileError."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(audio.mean(axis=1), rate, sample_rate), dtype=np.float32)


def _store_track(job: Track, store: FeatureStore) -> str | None:
    """Compute one track's features; return a complaint, or None when it is done."""
    features = store.features
    try:
        audio = read_audio(job.audio, features.sample_rate)
        beats = read_beats(job.beats)
    except (ValueError, soundfile.LibsndfileError, OSError) as error:
        return f"{job.name}: {error}"
    inside = beats[beats[:, 0] < len(audio) / features.sample_rate]
    if len(inside) < 2:
        return f"{job.name}: fewer than two beats lie within the audio."
    store.add(job.name, compute(audio, features), inside)
    return None


def preprocess(data: DataSet, features: FeatureConfig, jobs: int = 1) -> list[str]:
    """Compute the features of every track that the set's store does not hold yet.

    Returns:
        One sentence for each track that was skipped.

    Raises:
        ConfigError: no tracks, or the store was made with other settings.
    """
    tracks = data.tracks()
    store = FeatureStore.create(data.feature_dir(features), features)
    known = set(store.names())
    complaints: list[str] = []
    with ProcessPoolExecutor(jobs) as pool:
        work = [pool.submit(_store_track, t, store) for t in tracks if t.name not in known]
        for done in track(as_completed(work), "Features", total=len(work)):
            complaint = done.result()
            if complaint:
                complaints.append(complaint)
    return complaints
