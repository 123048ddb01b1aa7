"""Which excerpts and tracks each process sees, and where a resumed run goes on among them."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from beattrack.config import ModelConfig
from beattrack_trainer.config import Settings
from beattrack_trainer.training.excerpts import Excerpts, Item, Parts
from beattrack_trainer.training.validation import LONGEST_S

VALIDATION_EXCERPTS = 32  # for the validation losses
VALIDATION_BATCH = 8
FIRST_S = 5.0  # beats before this are not scored


class WholeTracks(Dataset[dict[str, Any]]):
    """Tracks from their start, as ``validation.follow`` takes them: frames, beats and name."""

    def __init__(self, items: list[Item], fps: float) -> None:
        self._items, self._fps = items, fps

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self._items[index]
        stored = item.store.frames(item.name)[: int(LONGEST_S * self._fps)]
        beats = item.store.beats(item.name)
        return {
            "frames": torch.from_numpy(stored.astype(np.float32).transpose(1, 2, 0).copy()),
            "beats": torch.from_numpy(beats[beats[:, 0] < len(stored) / self._fps]),
            "name": item.name,
        }


def choose_tracks(items: tuple[Item, ...], count: int) -> list[Item]:
    """Return up to ``count`` tracks spread over ``items`` that have beats where they are scored."""

    def scored(item: Item) -> bool:
        times = item.store.beats(item.name)[:, 0]
        length = len(item.store.frames(item.name)) / item.store.features.fps
        return bool(((times > FIRST_S) & (times < min(length, LONGEST_S))).sum() >= 2)

    usable = [i for i in items if scored(i)]
    picked = np.linspace(0, len(usable) - 1, min(count, len(usable)))
    return [usable[int(k)] for k in picked]


class ExcerptData(lightning.LightningDataModule):
    """An excerpt is a function of its index: process r of n takes every n-th index from r on.

    A checkpoint keeps how many indices all processes together have used, so that a run goes on with
    the next one, on however many processes.
    """

    def __init__(self, settings: Settings, model: ModelConfig, parts: Parts) -> None:
        super().__init__()
        self._settings, self._model, self._parts = settings, model, parts
        self._first = self._step = 0  # the index and the step that this process began with

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the excerpts from the next index on."""
        assert self.trainer is not None
        config = self._settings.train
        self._step = self.trainer.global_step
        count = config.steps * config.batch_size * self.trainer.world_size
        return self._loader(
            self._parts.training, range(self._first, self._first + count), True, config.workers
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return excerpts as they are, for losses, and whole tracks; none without a fold."""
        if not self._parts.validation:
            return []
        assert self.trainer is not None
        size, rank = self.trainer.world_size, self.trainer.global_rank
        tracks = choose_tracks(self._parts.validation, self._settings.train.validation_tracks)
        # Each process takes equally many, or there would be one that waits for ever.
        if len(tracks) >= size:
            tracks = tracks[: len(tracks) // size * size][rank::size]
        whole = WholeTracks(tracks, self._settings.features.fps)
        excerpts = range(max(1, VALIDATION_EXCERPTS // size) * size)
        return [
            self._loader(self._parts.validation, excerpts, False, 0),
            DataLoader(whole, batch_size=None),
        ]

    def _loader(
        self, items: tuple[Item, ...], indices: range, training: bool, workers: int
    ) -> DataLoader[dict[str, Tensor]]:
        assert self.trainer is not None
        settings = self._settings
        data = Excerpts(
            items,
            settings.features,
            self._model,
            settings.train,
            indices[self.trainer.global_rank :: self.trainer.world_size],
            settings.augment if training else None,
        )
        return DataLoader(
            data,
            batch_size=settings.train.batch_size if training else VALIDATION_BATCH,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def state_dict(self) -> dict[str, int]:
        """Return how many indices are used up."""
        assert self.trainer is not None
        steps = self.trainer.global_step - self._step
        used = steps * self._settings.train.batch_size * self.trainer.world_size
        return {"used": self._first + used}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the indices that are used up."""
        self._first = state["used"]
