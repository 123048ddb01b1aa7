"""Feature stores as torch data sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack_trainer.config import AugmentConfig, Settings, TrainConfig
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.folds import read_folds, split
from beattrack_trainer.data.store import FeatureStore, check_curves
from beattrack_trainer.training.augment import Augmenter, stretch, stretch_factor
from beattrack_trainer.training.targets import pulse_targets, tempo_targets


@dataclass(frozen=True)
class Item:
    """A track in a store."""

    store: FeatureStore
    name: str


@dataclass(frozen=True)
class Parts:
    """The tracks of a fold's three parts, over all data sets."""

    training: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]


def open_parts(settings: Settings) -> Parts:
    """Return the tracks of the fold, from the feature stores of all data sets.

    Raises:
        ConfigError: a data set or its store is missing, the features are stale, or the tracks are
            too few.
    """
    parts: dict[str, list[Item]] = {"training": [], "validation": [], "test": []}
    check_curves(settings.data.bpf_band_dir, settings.features)
    for data in open_data_sets(settings.data):
        store = FeatureStore.open(data.feature_dir(settings.features))
        store.require(settings.features)
        table = data.base / "folds.tsv"
        folds = split(
            store.names(), read_folds(table) if table.is_file() else {}, settings.train.fold
        )
        for part, names in (("training", folds.training), ("validation", folds.validation),
                            ("test", folds.test)):  # fmt: skip
            parts[part] += [Item(store, name) for name in names]
    result = Parts(**{k: tuple(v) for k, v in parts.items()})
    if not result.training or (settings.train.fold < 8 and not result.validation):
        count = sum(len(v) for v in parts.values())
        raise ConfigError(f"{count} tracks are too few to train on and to validate with.")
    return result


def unprepared(settings: Settings) -> dict[str, int]:
    """Return, by data set, how many tracks have no features though nothing is wrong with them.

    Preprocessing was stopped or still runs, or tracks have come since. A set whose audio is not
    there any more is left out: its features suffice.
    """
    counts = {}
    for data in open_data_sets(settings.data):
        try:
            names = {track.name for track in data.tracks()}
        except ConfigError:
            continue
        store = FeatureStore.open(data.feature_dir(settings.features))
        counts[data.name] = len(names - set(store.names()) - store.skipped())
    return {name: count for name, count in counts.items() if count}


class Excerpts(Dataset[dict[str, Tensor]]):
    """Random excerpts of tracks, augmented; one of ``indices`` and the seed decide each.

    So they are the same whichever process makes them. Items: ``frames`` float32 [C, F, T];
    ``beat`` and ``downbeat`` float32 [T], 0-1; ``tempo`` int64 [T], -1 for none; ``valid``
    float32 [T], 0 beyond the end of a short track.
    """

    def __init__(
        self,
        items: tuple[Item, ...],
        features: FeatureConfig,
        model: ModelConfig,
        config: TrainConfig,
        indices: range,
        augment: AugmentConfig | None,
    ) -> None:
        """Take excerpts of ``config.frames`` frames; None for ``augment`` leaves them as they are.

        Nothing is read yet. Beats are kept in memory once they have been; frames are mapped anew
        for each excerpt, which takes a fifth of a millisecond and no file handles.
        """
        self._items, self._features, self._model = items, features, model
        self._config, self._indices = config, indices
        self._augment = augment if augment is not None and augment.augment else None
        self._augmenter = Augmenter(features, self._augment) if self._augment else None
        self._beats: dict[int, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        key = [self._config.seed, int(self._augment is not None), self._indices[index]]
        rng = np.random.default_rng(key)
        number = int(rng.integers(len(self._items)))
        length, fps = self._config.frames, self._features.fps
        factor = stretch_factor(rng, self._augment.time_stretch) if self._augment else 1.0
        item = self._items[number]
        stored = item.store.frames(item.name)
        need = int(length * factor) + 4
        start = int(rng.integers(max(1, len(stored) - need + 1)))
        piece = stored[start : start + need].astype(np.float32)
        valid = np.zeros(length, dtype=np.float32)
        valid[: int(len(piece) / factor)] = 1
        piece = np.pad(piece, ((0, need - len(piece)), (0, 0), (0, 0)))
        piece = stretch(piece, factor, length, self._model.label_delay)
        beats = self._beats_of(number)
        times = (beats[:, 0] - start / fps) / factor
        down = times[beats[:, 1] == 1]
        if self._augmenter:
            piece = self._augmenter(piece, down * fps, rng)
        delay = self._model.label_delay
        return {
            "frames": torch.from_numpy(np.ascontiguousarray(piece.transpose(1, 2, 0))),
            "beat": torch.from_numpy(pulse_targets(times, length, fps, delay)),
            "downbeat": torch.from_numpy(pulse_targets(down, length, fps, delay)),
            "tempo": torch.from_numpy(tempo_targets(times, length, fps, self._model.tempo_bins)),
            "valid": torch.from_numpy(valid),
        }

    def _beats_of(self, number: int) -> NDArray[np.float64]:
        if number not in self._beats:
            item = self._items[number]
            self._beats[number] = item.store.beats(item.name)
        return self._beats[number]
