"""``trainer preprocess``."""

from __future__ import annotations

from beattrack_trainer.commands.common import File, Jobs, Words, console
from beattrack_trainer.config import load_settings


def preprocess(settings: Words = None, config: File = None, jobs: Jobs = 1) -> None:
    """Compute features: trainer preprocess data=harmonix bpfed=true sources=[bass,drums]."""
    from beattrack_trainer.data.folders import open_data_sets
    from beattrack_trainer.data.preprocess import preprocess as start

    chosen = load_settings(settings or [], config)
    for data in open_data_sets(chosen.data):
        for complaint in start(data, chosen.features, jobs):
            console.print(f"skipped {complaint}", markup=False)
