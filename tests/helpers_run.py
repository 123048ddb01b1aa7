"""A finished run with random weights, made without training, and its export, for the tests."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import torch

from beattrack.model import build_model
from beattrack_trainer.config import load_settings
from beattrack_trainer.export import ExportSettings, export_run
from beattrack_trainer.training.runs import Run
from beattrack_trainer.training.train import fit_model_config

RUN_ID = "tiny-run"


def make_run(runs_dir: Path, *words: str, run_id: str = RUN_ID) -> Run:
    """Write a run that looks finished; its network knows nothing, so mix in the flux."""
    small = ("model=tcn", "dim=16", "depth=2", "kernel=3", "steps=10")
    settings = load_settings([*small, f"runs_dir={runs_dir}", f"run_id={run_id}", *words])
    config = fit_model_config(settings.model, settings.features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_model(config).eval()
    run = Run(runs_dir / run_id)
    run.path.mkdir(parents=True)
    parts = {"training": 6, "validation": 1, "test": 1}
    note = {"settings": settings.to_dict(), "model": config.to_dict(), "tracks": parts,
            "parameters": 1234}  # fmt: skip
    (run.path / "run.json").write_text(json.dumps(note))
    torch.save(network.state_dict(), run.path / "weights.pt")
    return run


@functools.cache
def exported() -> tuple[Run, tuple[Path, ...]]:
    """The run and the files of its export, made once for all tests; do not change them."""
    folder = Path(tempfile.mkdtemp(prefix="beattrack-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run = make_run(folder / "runs", "data=learned")
    settings = ExportSettings(flux_mix=0.9, licence="<b>CC BY</b>")
    files = export_run(run, folder / "exports", settings, None, folder / "results")
    return run, tuple(files)
