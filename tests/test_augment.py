"""Targets and augmentation: what the network is shown and what it should say."""

import numpy as np
import pytest

from beattrack.config import FeatureConfig
from beattrack_trainer.training.augment import colour, stretch
from beattrack_trainer.training.targets import pulse_targets, tempo_targets


def test_pulse_targets_stand_where_the_network_should_answer():
    target = pulse_targets(np.array([1.0]), 100, 50.0, delay=2)
    # 1.0 s is the boundary of frames 49 and 50; two frames later both are equally near
    assert target[[51, 52]] == pytest.approx([2 / 3, 2 / 3], abs=1e-6)
    assert target[[50, 53]] == pytest.approx([0, 0], abs=1e-6)
    assert target.sum() == pytest.approx(4 / 3, abs=1e-5)


def test_pulse_targets_outside_are_ignored():
    assert pulse_targets(np.array([-1.0, 99.0]), 50, 50.0, 2).sum() == 0


def test_tempo_targets():
    target = tempo_targets(np.arange(1, 9, 0.5), 600, 50.0, 300)
    assert (target[:75] == -1).all()  # before two beats are known
    assert (target[80:420] == 119).all()  # class k is k + 1 beats a minute
    assert (target[-50:] == -1).all()


def test_stretch_moves_time():
    frames = np.arange(100, dtype=np.float32)[:, None, None]
    fast = stretch(frames, 1.5, 60, delay=2)
    # frame 10 speaks of time 8.5; 1.5 times as fast that is 12.75, of which frame 14.25 spoke
    assert fast[10, 0, 0] == pytest.approx(14.25)
    assert stretch(frames, 1.0, 60, delay=2).shape == (60, 1, 1)


def test_colour_keeps_shape_and_range():
    rng = np.random.default_rng(0)
    frames = rng.random((200, 2, 94), dtype=np.float32)
    before = frames.copy()
    for seed in range(20):
        out = colour(frames, 12, FeatureConfig(), np.random.default_rng(seed))
        assert out.shape == frames.shape
        assert np.isfinite(out).all()
        assert out.min() >= 0
    assert np.array_equal(frames, before)
