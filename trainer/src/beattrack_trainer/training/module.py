"""The network under Lightning: a step, a validation, optimiser and schedule."""

from __future__ import annotations

import math
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from beattrack.config import FeatureConfig, ModelConfig
from beattrack.model import build_model
from beattrack_trainer.config import TrainConfig
from beattrack_trainer.training.losses import all_losses
from beattrack_trainer.training.validation import Heard, f_measures, follow


class BeatModule(lightning.LightningModule):
    """Trains on excerpts; validates on excerpts (losses) and on whole tracks (F-measures).

    Attributes:
        heard: of the last validation, the first ``pictures`` tracks that this process heard.
        track_f: of the last validation, the mean of beat and downbeat F of each track.
    """

    def __init__(self, model: ModelConfig, train: TrainConfig, features: FeatureConfig) -> None:
        super().__init__()
        self.config = train
        self.network = build_model(model)
        self.heard: list[Heard] = []
        self.track_f: list[float] = []
        self._features = features
        self._scores: list[tuple[float, float]] = []

    def on_train_batch_start(self, batch: dict[str, Tensor], index: int) -> None:
        """Seed dropout by the step, so that a resumed run draws what it would have drawn."""
        where = [self.config.seed, self.trainer.global_step, self.trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(where).generate_state(1, np.uint64)[0]))

    def training_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """Return the losses of one batch; Lightning follows ``loss``."""
        return all_losses(self.network(batch["frames"]), batch, self.config)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._scores, self.heard = [], []

    def validation_step(self, batch: dict[str, Any], index: int, dataloader_idx: int = 0) -> None:
        """Take a batch of excerpts (the first loader) or one whole track (the second)."""
        if dataloader_idx == 0:
            parts = all_losses(self.network(batch["frames"]), batch, self.config)
            self.log_dict({f"val/{k}": v for k, v in parts.items()}, logger=False, sync_dist=True,
                          add_dataloader_idx=False, batch_size=len(batch["frames"]))  # fmt: skip
            return
        heard = follow(self.network, batch["frames"], batch["beats"], batch["name"], self._features)
        self._scores.append(f_measures(heard))
        if len(self.heard) < self.config.pictures:
            self.heard.append(heard)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all tracks of all processes; ``val/f`` chooses, with ``track_f``."""
        beat = [b for b, _ in self._scores]
        down = [d for _, d in self._scores if not math.isnan(d)]
        sums = torch.tensor([sum(beat), len(beat), sum(down), len(down)], device=self.device)
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        beat_f = float(sums[0] / sums[1].clamp(min=1))
        downbeat_f = float(sums[2] / sums[3]) if sums[3] > 0 else beat_f
        scores = {"beat_f": beat_f, "downbeat_f": downbeat_f, "f": (beat_f + downbeat_f) / 2}
        own = [b if math.isnan(d) else (b + d) / 2 for b, d in self._scores]
        every = self.all_gather(torch.tensor(own, device=self.device))
        self.track_f = [float(f) for f in every.flatten()]
        # Every process has the same numbers already.
        self.log_dict({f"val/{k}": v for k, v in scores.items()}, logger=False, batch_size=1)

    def configure_optimizers(self) -> Any:
        """AdamW, a linear warm-up and a cosine to zero, counted in steps."""
        config = self.config
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

        def scale(step: int) -> float:
            if step < config.warmup_steps:
                return (step + 1) / config.warmup_steps
            done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, scale)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
