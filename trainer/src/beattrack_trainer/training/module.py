"""The network under Lightning: losses, optimiser, schedule."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from beattrack.config import ModelConfig
from beattrack.model import build_model
from beattrack_trainer.config import WARM_UP, TrainConfig


def masked_bce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over valid frames; all float [B, T]."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * valid).sum() / valid.sum().clamp(min=1)


class BeatModule(lightning.LightningModule):
    """Losses of beat, downbeat and tempo, weighted as in the manual (1, 3 and a tempo weight)."""

    def __init__(self, model: ModelConfig, train: TrainConfig) -> None:
        super().__init__()
        self.config = train
        self.network = build_model(model)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``beat``, ``downbeat``, ``tempo`` and their weighted sum ``loss``."""
        out = self.network(batch["frames"])
        valid = batch["valid"].clone()
        valid[:, :WARM_UP] = 0
        tempo = torch.where(valid > 0, batch["tempo"], -1)
        known = (tempo >= 0).any()
        parts = {
            "beat": masked_bce(out["beat"], batch["beat"], valid),
            "downbeat": masked_bce(out["downbeat"], batch["downbeat"], valid),
            # A batch without any tempo would make the mean cross-entropy 0 / 0.
            "tempo": F.cross_entropy(out["tempo"].transpose(1, 2), tempo, ignore_index=-1)
            if known
            else out["tempo"].sum() * 0,
        }
        config = self.config
        parts["loss"] = (
            config.loss_weight_beat * parts["beat"]
            + config.loss_weight_downbeat * parts["downbeat"]
            + config.loss_weight_tempo * parts["tempo"]
        )
        return parts

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Return the loss of one batch."""
        parts = self.losses(batch)
        self.log_dict({f"train/{k}": v.detach() for k, v in parts.items()}, prog_bar=True)
        return parts["loss"]

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """Log the losses of one held-out batch."""
        parts = self.losses(batch)
        self.log_dict({f"val/{k}": v for k, v in parts.items()}, prog_bar=True)

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
