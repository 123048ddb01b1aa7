"""``trainer preprocess``."""

from __future__ import annotations

import typer

from beattrack_trainer.commands.common import File, Jobs, Words, console
from beattrack_trainer.config import load_settings
from beattrack_trainer.say import say


def preprocess(settings: Words = None, config: File = None, jobs: Jobs = 1) -> None:
    """Compute the features of data sets and keep them beside the data.

    What is there already is left alone, so a run that was stopped goes on, and one after a change
    to the data does what is new. Tracks that cannot be used are named with the reason, here and in
    the store's skipped.json; the exit code is 1 only if a data set has none that can.

    Examples:

        trainer preprocess data=harmonix

        trainer preprocess data=[harmonix,gtzan] bpfed=true sources=[bass,drums] --jobs 8
    """
    from beattrack_trainer.data.folders import open_data_sets
    from beattrack_trainer.data.preprocess import prepare
    from beattrack_trainer.data.preprocess import preprocess as start
    from beattrack_trainer.data.store import check_curves

    chosen = load_settings(settings or [], config)
    check_curves(chosen.data.bpf_band_dir, chosen.features)
    sets = open_data_sets(chosen.data)
    for data in sets:  # all are looked at before hours go into the first
        prepare(data, chosen.features)
    usable = True
    for data in sets:
        report = start(data, chosen.features, jobs, console)
        for name, reason in report.skipped.items():
            say(console, f"skipped {name}: {reason}")
        for name, remark in report.remarks.items():
            say(console, f"used {name}, but: {remark}")
        say(console, str(report))
        usable &= report.usable > 0
    if not usable:
        raise typer.Exit(1)
