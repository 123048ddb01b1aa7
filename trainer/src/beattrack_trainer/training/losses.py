"""Losses of beat, downbeat and tempo over the frames that count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from beattrack_trainer.config import WARM_UP, TrainConfig

TOLERANCE = 3  # frames by which a shift-tolerant network may be off: 60 ms at 50 frames a second


def bce(logits: Tensor, target: Tensor, valid: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Return the mean binary cross-entropy over valid frames.

    Args:
        logits: float [B, T].
        target: float [B, T], 0-1: a widened beat counts in part as one, in part as none.
        valid: float [B, T], 0 or 1.
        positive_weight: factor, 1 or more, on the part of the loss that beats have.
    """
    weight = logits.new_tensor(positive_weight)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
    return (loss * valid).sum() / valid.sum().clamp(min=1)


def shift_tolerant_bce(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    positive_weight: float = 1.0,
    tolerance: int = TOLERANCE,
) -> Tensor:
    """Return a cross-entropy that does not mind a beat up to ``tolerance`` frames off.

    At the frame of a beat (where the widened target peaks) the highest logit within ``tolerance``
    frames is what counts. Elsewhere that highest logit must be low, except within twice the
    tolerance of a beat, where a peak that answers the beat may be seen. (Foscarin, Schlüter,
    Widmer: Beat this! Accurate beat tracking without DBN postprocessing, ISMIR 2024.)

    What it gives up in a causal network is timing: an answer up to ``tolerance`` frames late costs
    nothing, and a late answer is the easier one. The bias shows as ``error_ms`` in an evaluation;
    the decoder's ``offset_s``, set when exporting, takes it out again.

    Args:
        logits: float [B, T].
        target: float [B, T], 0-1, as ``pulse_targets`` makes them.
        valid: float [B, T], 0 or 1; a frame that is not valid is never looked at, nor is its logit
            by a neighbour.
        positive_weight: factor, 1 or more, on the loss at beats.
        tolerance: frames; 0 is the plain cross-entropy at the peaks of the targets.
    """
    lowest = torch.finfo(logits.dtype).min
    highest = _widest(logits.masked_fill(valid == 0, lowest), tolerance)
    peaks = _peaks(target)
    near = _widest(peaks, 2 * tolerance)
    beat = peaks * valid
    counted = (beat + (1 - near) * valid).clamp(max=1)
    highest = torch.where(counted > 0, highest, 0)
    weight = logits.new_tensor(positive_weight)
    loss = F.binary_cross_entropy_with_logits(highest, beat, reduction="none", pos_weight=weight)
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def _widest(x: Tensor, reach: int) -> Tensor:
    """Return the maximum over ``reach`` frames on either side, float [B, T]."""
    return F.max_pool1d(x[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]


def _peaks(target: Tensor) -> Tensor:
    """Return 1 at one frame of each widened beat, else 0: float [B, T].

    A beat half way between two frames marks both alike; the first is taken.
    """
    before = F.pad(target, (1, 0))[:, :-1]
    after = F.pad(target, (0, 1))[:, 1:]
    return ((target > before) & (target >= after)).to(target.dtype)


def all_losses(
    out: dict[str, Tensor], batch: dict[str, Tensor], config: TrainConfig
) -> dict[str, Tensor]:
    """Return ``beat``, ``downbeat``, ``tempo`` and their weighted sum ``loss``, each a scalar.

    Args:
        out: logits ``beat`` and ``downbeat`` [B, T] and ``tempo`` [B, T, classes].
        batch: as ``Excerpts`` gives it; the first WARM_UP frames do not count.
        config: the weights, and which loss the beats have.
    """
    valid = batch["valid"].clone()
    valid[:, :WARM_UP] = 0
    loss = shift_tolerant_bce if config.loss == "shift_tolerant" else bce
    parts = {
        key: loss(out[key].float(), batch[key], valid, config.positive_weight)
        for key in ("beat", "downbeat")
    }
    tempo = torch.where(valid > 0, batch["tempo"], -1)
    # A batch without any tempo would make the mean cross-entropy 0 / 0.
    parts["tempo"] = (
        F.cross_entropy(out["tempo"].float().transpose(1, 2), tempo, ignore_index=-1)
        if (tempo >= 0).any()
        else out["tempo"].sum() * 0
    )
    parts["loss"] = (
        config.loss_weight_beat * parts["beat"]
        + config.loss_weight_downbeat * parts["downbeat"]
        + config.loss_weight_tempo * parts["tempo"]
    )
    return parts
