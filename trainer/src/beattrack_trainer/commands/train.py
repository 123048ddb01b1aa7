"""``trainer train``."""

from __future__ import annotations

from beattrack_trainer.commands.common import File, Words, console
from beattrack_trainer.config import load_folds


def train(settings: Words = None, config: File = None) -> None:
    """Train a network, or go on with a training that was stopped.

    trainer train

    trainer train fold=3 batch_size=16 loss_weight_downbeat=3

    trainer train fold=all --config my.yaml

    docs/runs.md lists the settings.
    """
    asked = load_folds(settings or [], config)
    if len(asked) == 1:
        from beattrack_trainer.training.train import train as start

        start(asked[0], console)
    else:
        from beattrack_trainer.training.folds import train_folds

        train_folds(asked, console)
