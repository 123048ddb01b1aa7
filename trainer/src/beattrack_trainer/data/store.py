"""A feature store: one memory-mapped array for each track, and the settings that made them.

    <store>/store.json        format, feature settings, their hash
    <store>/<id>.npy          float16 [frames, channels, bins]
    <store>/<id>.beats        the annotation that lies within the audio

A track is in the store when its ``.npy`` is: that is written last, and renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beattrack.config import ConfigError, FeatureConfig
from beattrack.subbands import curves_hash
from beattrack_trainer.data.annotations import read_beats

FORMAT = 1
NOTE = "store.json"


def feature_hash(features: FeatureConfig) -> str:
    """Return what tells feature settings apart, the sub-band curves' content included."""
    curves = curves_hash(features.sources) if features.bpfed else ""
    return hashlib.sha256(f"{FORMAT} {features.to_json()} {curves}".encode()).hexdigest()[:16]


class FeatureStore:
    """A folder of features; open it with ``open`` to read, with ``create`` to add to it."""

    def __init__(self, path: Path, features: FeatureConfig) -> None:
        self.path = path
        self.features = features

    @classmethod
    def create(cls, path: Path, features: FeatureConfig) -> FeatureStore:
        """Make the folder, or open it if it holds the same features.

        Raises:
            ConfigError: it holds features of other settings.
        """
        if (path / NOTE).exists():
            store = cls.open(path)
            store.require(features)
            return store
        path.mkdir(parents=True, exist_ok=True)
        note = {"format": FORMAT, "features": features.to_dict(), "hash": feature_hash(features)}
        temporary = path / f".{NOTE}.{os.getpid()}"
        temporary.write_text(json.dumps(note, indent=2) + "\n")
        temporary.replace(path / NOTE)
        return cls(path, features)

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open a store.

        Raises:
            ConfigError: it is none, or it was made by another version or with other curves.
        """
        try:
            note = json.loads((path / NOTE).read_text())
            features = FeatureConfig.from_dict(note["features"])
            known = note["hash"] == feature_hash(features)
        except FileNotFoundError:
            raise ConfigError(
                f"There are no features in '{path}'; make them with: trainer preprocess"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"'{path / NOTE}' is damaged; preprocess again.") from None
        if not known:
            raise ConfigError(
                f"The features in '{path}' were made by another version; remove the folder and "
                "preprocess again."
            )
        return cls(path, features)

    def require(self, features: FeatureConfig) -> None:
        """Raise ConfigError, naming the keys that differ, unless the settings are these."""
        mine, wanted = self.features.to_dict(), features.to_dict()
        different = ", ".join(f"{k}={mine[k]}" for k in mine if mine[k] != wanted[k])
        if different:
            raise ConfigError(
                f"The features in '{self.path}' are stale: they were made with {different}. "
                "Give another folder, or remove it and preprocess again."
            )

    def names(self) -> list[str]:
        """Return the ids of the tracks in the store, sorted."""
        return sorted(f.stem for f in self.path.glob("[!.]*.npy"))

    def frames(self, name: str) -> NDArray[np.float16]:
        """Return a track's features without reading them yet, float16 [frames, channels, bins]."""
        frames: NDArray[np.float16] = np.load(
            self.path / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return frames

    def beats(self, name: str) -> NDArray[np.float64]:
        """Return a track's beats, float64 [beats, 2]: seconds, beat in bar."""
        return read_beats(self.path / f"{name}.beats")

    def add(self, name: str, frames: NDArray[np.float32], beats: NDArray[np.float64]) -> None:
        """Add a track: float32 [frames, channels, bins] and float64 [beats, 2]."""
        rows = "".join(f"{time:.6f}\t{position:.0f}\n" for time, position in beats)
        for suffix in (".beats", ".npy"):
            target = self.path / f"{name}{suffix}"
            temporary = self.path / f".{os.getpid()}-{name}{suffix}"
            if suffix == ".beats":
                temporary.write_text(rows)
            else:
                np.save(temporary, frames.astype(np.float16))
            temporary.replace(target)
