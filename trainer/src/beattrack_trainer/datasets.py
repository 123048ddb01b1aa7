"""Feature stores as torch data sets."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack.features import flux_bins
from beattrack_trainer.augment import colour, stretch, stretch_factor
from beattrack_trainer.config import TrainConfig
from beattrack_trainer.preprocess import CONFIG_NAME
from beattrack_trainer.targets import pulse_targets, tempo_targets


def read_feature_config(stores: list[Path]) -> FeatureConfig:
    """Return the settings that all stores share.

    Raises:
        ConfigError: a folder is no store, or two differ.
    """
    texts = {}
    for store in stores:
        note = store / CONFIG_NAME
        if not note.is_file():
            raise ConfigError(f"{store} is no feature store: it has no {CONFIG_NAME}.")
        texts[note.read_text()] = store
    if len(texts) != 1:
        names = " and ".join(str(s) for s in texts.values())
        raise ConfigError(f"The feature stores {names} were made with different settings.")
    return FeatureConfig.from_json(next(iter(texts)))


def split_names(stores: list[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Return the tracks for training and for validation, by a hash of their names."""
    files = sorted(f for store in stores for f in store.glob("[!.]*.npz"))
    held = [f for f in files if zlib.crc32(f.stem.encode()) % 10000 < share * 10000]
    kept = sorted(set(files) - set(held))
    if not kept or not held:
        raise ConfigError(f"{len(files)} tracks are too few to train on and to validate with.")
    return kept, held


class Excerpts(Dataset[dict[str, Tensor]]):
    """Random excerpts of tracks, augmented; one of ``indices`` and the seed decide each.

    Items: ``frames`` float32 [C, F, T]; ``beat`` and ``downbeat`` float32 [T], 0-1; ``tempo``
    int64 [T], -1 for none; ``valid`` float32 [T], 0 beyond the end of a short track.
    """

    def __init__(
        self,
        files: list[Path],
        features: FeatureConfig,
        model: ModelConfig,
        config: TrainConfig,
        indices: range,
        augment: bool,
    ) -> None:
        self._files, self._features, self._model = files, features, model
        self._config, self._indices, self._augment = config, indices, augment
        self._cache: dict[Path, tuple[NDArray[np.float16], NDArray[np.float64]]] = {}

    def __len__(self) -> int:
        return len(self._indices)

    def _load(self, file: Path) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
        # Half-precision features of a few hours fit in memory (34 MB an hour).
        if file not in self._cache:
            with np.load(file, allow_pickle=False) as data:
                self._cache[file] = data["frames"], data["beats"]
        return self._cache[file]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self._config.seed, int(self._augment), self._indices[index]])
        file = self._files[int(rng.integers(len(self._files)))]
        stored, beats = self._load(file)
        length, fps = self._config.frames, self._features.fps
        factor = stretch_factor(rng) if self._augment else 1.0
        need = int(length * factor) + 4
        start = int(rng.integers(max(1, len(stored) - need + 1)))
        piece = stored[start : start + need].astype(np.float32)
        valid = np.zeros(length, dtype=np.float32)
        valid[: int(len(piece) / factor)] = 1
        piece = np.pad(piece, ((0, need - len(piece)), (0, 0), (0, 0)))
        piece = stretch(piece, factor, length, self._model.label_delay)
        if self._augment:
            piece = colour(piece, flux_bins(self._features), self._features, rng)
        times = (beats[:, 0] - start / fps) / factor
        down = times[beats[:, 1] == 1]
        delay = self._model.label_delay
        return {
            "frames": torch.from_numpy(np.ascontiguousarray(piece.transpose(1, 2, 0))),
            "beat": torch.from_numpy(pulse_targets(times, length, fps, delay)),
            "downbeat": torch.from_numpy(pulse_targets(down, length, fps, delay)),
            "tempo": torch.from_numpy(tempo_targets(times, length, fps, self._model.tempo_bins)),
            "valid": torch.from_numpy(valid),
        }
