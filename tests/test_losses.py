"""The losses: plain and shift-tolerant cross-entropy over the frames that count."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from beattrack_trainer.config import WARM_UP, TrainConfig
from beattrack_trainer.training.losses import all_losses, bce, shift_tolerant_bce
from beattrack_trainer.training.targets import pulse_targets

FRAMES = 300
TIMES = np.arange(0.31, 5.8, 0.5)


def widened(times=TIMES):
    return torch.from_numpy(pulse_targets(times, FRAMES, 50.0, 2))[None]


def hard(frames):
    target = torch.zeros(1, FRAMES)
    target[0, frames] = 1
    return target


def sure(frames):
    """Logits of a network that is sure of beats at ``frames`` and of nothing elsewhere."""
    return 16 * hard(frames) - 8


def test_plain_loss_is_torchs_over_valid_frames():
    torch.manual_seed(0)
    logits, target = torch.randn(2, FRAMES), torch.rand(2, FRAMES)
    valid = torch.ones(2, FRAMES)
    valid[1, 100:] = 0
    kept = valid.bool()
    expected = F.binary_cross_entropy_with_logits(logits[kept], target[kept])
    torch.testing.assert_close(bce(logits, target, valid), expected)
    weighted = F.binary_cross_entropy_with_logits(
        logits[kept], target[kept], pos_weight=torch.tensor(5.0)
    )
    torch.testing.assert_close(bce(logits, target, valid, 5.0), weighted)


def test_without_tolerance_it_is_the_plain_loss():
    torch.manual_seed(1)
    logits, target, valid = torch.randn(1, FRAMES), hard([20, 60, 61, 130]), torch.ones(1, FRAMES)
    target[0, 61] = 0
    for weight in (1.0, 4.0):
        torch.testing.assert_close(
            shift_tolerant_bce(logits, target, valid, weight, tolerance=0),
            bce(logits, target, valid, weight),
        )


@pytest.mark.parametrize("shift", [-3, -1, 1, 3])
def test_a_small_shift_costs_nothing_and_a_large_one_does(shift):
    beats, valid = np.arange(20, 290, 25), torch.ones(1, FRAMES)
    target = widened(beats / 50 + 0.01 - 2 / 50)  # peaks at the frames ``beats``
    assert (target[0, beats] == 1).all()
    right = shift_tolerant_bce(sure(beats), target, valid)
    assert right < 1e-3
    torch.testing.assert_close(shift_tolerant_bce(sure(beats + shift), target, valid), right)
    assert shift_tolerant_bce(sure(beats + 4 * shift), target, valid) > 0.1 * (abs(shift) > 1)
    assert shift_tolerant_bce(sure(beats + 8), target, valid) > 100 * right
    # and the plain loss does mind
    assert bce(sure(beats + 3), target, valid) > bce(sure(beats), target, valid) + 0.1


def test_a_missed_beat_costs_more_with_a_positive_weight():
    target, valid = widened(), torch.ones(1, FRAMES)
    silent = torch.full((1, FRAMES), -8.0)
    for loss in (bce, shift_tolerant_bce):
        assert loss(silent, target, valid, 6.0) > 5 * loss(silent, target, valid)


def test_an_invented_beat_costs():
    target, valid = widened(), torch.ones(1, FRAMES)
    beats = target[0].topk(len(TIMES)).indices
    clean = shift_tolerant_bce(sure(beats), target, valid)
    # half way between two beats
    invented = shift_tolerant_bce(sure(torch.cat([beats, torch.tensor([30])])), target, valid)
    assert invented > clean + 0.05


@pytest.mark.parametrize("loss", [bce, shift_tolerant_bce])
def test_frames_that_do_not_count_never_do(loss):
    torch.manual_seed(2)
    logits = torch.randn(1, FRAMES, requires_grad=True)
    valid = torch.ones(1, FRAMES)
    valid[0, :50], valid[0, 200:] = 0, 0
    first = loss(logits, widened(), valid)
    first.backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0, :50] == 0).all() and (logits.grad[0, 200:] == 0).all()
    assert (logits.grad[0, 50:200] != 0).any()
    changed = logits.detach().clone()
    changed[0, :50], changed[0, 200:] = 1e4, -1e4
    torch.testing.assert_close(loss(changed, widened(), valid), first.detach())


@pytest.mark.parametrize("size", [0.0, 100.0, 1e4])
def test_gradients_stay_finite(size):
    logits = (size * torch.randn(2, FRAMES)).requires_grad_()
    shift_tolerant_bce(logits, widened().repeat(2, 1), torch.ones(2, FRAMES), 10.0).backward()
    assert torch.isfinite(logits.grad).all()


def test_the_whole_is_the_weighted_sum_and_warm_up_does_not_count():
    torch.manual_seed(3)
    out = {k: torch.randn(1, FRAMES) for k in ("beat", "downbeat")}
    out["tempo"] = torch.randn(1, FRAMES, 300)
    batch = {
        "beat": widened(),
        "downbeat": widened(TIMES[::4]),
        "tempo": torch.full((1, FRAMES), 119),
        "valid": torch.ones(1, FRAMES),
    }
    for name in ("bce", "shift_tolerant"):
        config = TrainConfig(loss=name, loss_weight_beat=2.0, loss_weight_tempo=0.5)
        parts = all_losses(out, batch, config)
        whole = 2 * parts["beat"] + 3 * parts["downbeat"] + 0.5 * parts["tempo"]
        torch.testing.assert_close(parts["loss"], whole)
        early = {k: v.clone() for k, v in out.items()}
        for value in early.values():
            value[:, :WARM_UP] += 50 * torch.randn_like(value[:, :WARM_UP])
        torch.testing.assert_close(all_losses(early, batch, config)["loss"], parts["loss"])
    unknown = batch | {"tempo": torch.full((1, FRAMES), -1)}
    assert all_losses(out, unknown, TrainConfig())["tempo"] == 0
