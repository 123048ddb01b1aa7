"""``trainer train``."""

from __future__ import annotations

from beattrack_trainer.commands.common import File, Words, console
from beattrack_trainer.config import load_settings


def train(settings: Words = None, config: File = None) -> None:
    """Train a network: trainer train data=harmonix fold=3 batch_size=16."""
    from beattrack_trainer.training.train import train as start

    run = start(load_settings(settings or [], config))
    console.print(f"finished {run.path}", markup=False)
