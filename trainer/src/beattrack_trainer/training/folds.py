"""Several folds: trained one by one or side by side, then scored on their own test tracks."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from beattrack.config import ConfigError
from beattrack_trainer.config import Settings
from beattrack_trainer.data.folders import Track, open_data_sets
from beattrack_trainer.data.folds import FOLDS
from beattrack_trainer.files import replacing, write_text
from beattrack_trainer.say import say
from beattrack_trainer.training.excerpts import open_parts
from beattrack_trainer.training.runs import Run, digest, identity, make_run_id
from beattrack_trainer.training.train import check_start

SHOWN = {
    "beat_f": "beat F",
    "downbeat_f": "down F",
    "beat_f_emitted": "emitted F",
    "cmlt": "CMLt",
    "amlt": "AMLt",
    "tempo_acc1": "tempo",
    "latency_ms": "late ms",
}
TEST = "test.json"
COMMAND = [sys.executable, "-m", "beattrack_trainer.cli"]
STOP_S = 120.0  # a fold that is asked to stop has this long to save


def train_folds(asked: list[Settings], console: Console) -> dict[str, Any]:
    """Train the folds that are not finished, score each on its test tracks, show and write a table.

    Each fold is a run like any other; ``<runs_dir>/<group>/`` holds ``folds.json`` and
    ``folds.csv``. On GPUs there is one fold on each, otherwise one at a time.

    Returns:
        What ``folds.json`` holds: ``folds`` by number, ``mean`` and ``sd`` over folds.

    Raises:
        ConfigError: a fold of 8 or more, which has no test tracks; data missing.
        ValueError: folds failed; the others are finished and kept.
    """
    if any(s.train.fold >= FOLDS for s in asked):
        raise ConfigError(f"fold of 8 or more has no test tracks; give folds of 0-{FOLDS - 1}.")
    for settings in asked:
        open_parts(settings)  # so that what is missing is told before hours of training
        check_start(settings)
    group = asked[0].train.group or make_group_id(asked[0])
    folder = Path(asked[0].train.runs_dir) / group
    folder.mkdir(parents=True, exist_ok=True)
    jobs = {s.train.fold: _with_ids(s, group) for s in asked}
    failed = _train_all(jobs, folder, console)
    if failed:
        names = ", ".join(map(str, failed))
        raise ValueError(f"Training failed for fold {names}; the same command goes on with them.")
    result = aggregate({fold: _score(settings, console) for fold, settings in jobs.items()})
    result = {"group": group, "runs": {f: s.train.run_id for f, s in jobs.items()}, **result}
    _write(folder, result)
    console.print(table(result))
    say(console, f"wrote {folder}/folds.json and folds.csv")
    return result


def make_group_id(settings: Settings) -> str:
    """Return the id that the folds of the same settings share."""
    shared = {k: v for k, v in identity(settings).items() if k != "fold"}
    return f"{settings.model.model}-folds-{digest(shared)}"


def _with_ids(settings: Settings, group: str) -> Settings:
    name = settings.train.run_id or make_run_id(settings)
    return dataclasses.replace(
        settings, train=dataclasses.replace(settings.train, run_id=name, group=group)
    )


def find_devices(accelerator: str) -> list[str]:
    """Return the GPUs that are seen, as CUDA_VISIBLE_DEVICES names them; empty: the CPU."""
    if accelerator == "cpu" or not torch.cuda.is_available():
        return []
    named = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    return named or [str(i) for i in range(torch.cuda.device_count())]


def _train_all(jobs: dict[int, Settings], folder: Path, console: Console) -> list[int]:
    """Train every fold that is not finished, each in a process; return those that failed."""
    waiting = []
    for fold, settings in jobs.items():
        if not Run(Path(settings.train.runs_dir) / settings.train.run_id).finished:
            waiting.append(fold)
    devices = find_devices(next(iter(jobs.values())).train.accelerator)
    free: list[str | None] = list(devices) or [None]
    side_by_side = len(free) > 1
    running: dict[int, tuple[subprocess.Popen[str], str | None]] = {}
    failed: list[int] = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and free:
                fold, device = waiting.pop(0), free.pop(0)
                say(console, f"fold {fold}: {jobs[fold].train.run_id}")
                process = _start(jobs[fold], folder, device, side_by_side)
                running[fold] = process, device
                if side_by_side:
                    _relay(process, fold, console)
            for fold, (process, device) in list(running.items()):
                if process.poll() is not None:
                    del running[fold]
                    free.append(device)
                    if process.returncode:
                        failed.append(fold)
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGTERM, before)
        _stop([process for process, _ in running.values()])
    return sorted(failed)


def _start(
    settings: Settings, folder: Path, device: str | None, side_by_side: bool
) -> subprocess.Popen[str]:
    """Start the training of one fold on one device."""
    file = folder / f"fold-{settings.train.fold}.yaml"
    file.write_text(OmegaConf.to_yaml(OmegaConf.create(settings.to_dict())))
    environment = dict(os.environ)
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return subprocess.Popen(
        [*COMMAND, "train", "--config", str(file)],
        env=environment,
        stderr=subprocess.PIPE if side_by_side else None,
        text=True,
    )


def _relay(process: subprocess.Popen[str], fold: int, console: Console) -> None:
    """Show what a fold says, marked with its number."""

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            say(console, f"fold {fold}: {line.rstrip()}")

    threading.Thread(target=read, daemon=True).start()


def _stop(processes: list[subprocess.Popen[str]]) -> None:
    """Ask processes to save and stop, and wait; those that do not in time are killed."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + STOP_S
    try:
        for process in processes:
            process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return
    finally:  # also after a second Ctrl-C
        for process in processes:
            process.kill()
            process.wait()


def find_test_tracks(settings: Settings) -> list[Track]:
    """Return the tracks that a fold is tested on, with their audio, over all data sets."""
    wanted = {(item.store.path, item.name) for item in open_parts(settings).test}
    return [
        track
        for data in open_data_sets(settings.data)
        for track in data.tracks()
        if (data.feature_dir(settings.features), track.name) in wanted
    ]


def _score(settings: Settings, console: Console) -> dict[str, Any]:
    """Return the mean scores of a fold's model on its test tracks; kept beside the model."""
    from beattrack_trainer.evaluation.evaluate import score_items
    from beattrack_trainer.export import ExportSettings, is_export_of, write_onnx

    run = Run(Path(settings.train.runs_dir) / settings.train.run_id)
    model, kept = run.path / "model.onnx", run.path / TEST
    if is_export_of(model, run, ExportSettings()) and kept.is_file():
        result: dict[str, Any] = json.loads(kept.read_text())
        return result
    kept.unlink(missing_ok=True)
    write_onnx(run, model, ExportSettings(), None)
    say(console, f"fold {settings.train.fold}: scoring its test tracks")
    tracks = find_test_tracks(settings)
    # A process takes seconds to start.
    processes = min(len(os.sched_getaffinity(0)), 1 + len(tracks) // 8)
    scored = score_items(model, tracks, processes)
    if not scored.rows:
        raise ValueError(f"No test track of fold {settings.train.fold} could be scored.")
    for name, reason in scored.skipped.items():
        say(console, f"skipped {name}: {reason}")
    result = {
        "mean": scored.mean(),
        "tracks": {n: s.to_dict() for n, s in scored.rows.items()},
        "skipped": scored.skipped,
    }
    write_text(kept, json.dumps(result, indent=2) + "\n")
    return result


def aggregate(scored: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return the folds' means, and mean and standard deviation of these over folds.

    The deviation is that of a sample (n - 1), None for a single fold; scores that a fold does not
    have are left out.
    """
    folds = {
        fold: {"tracks": len(s["tracks"]), "skipped": len(s["skipped"]), **s["mean"]}
        for fold, s in sorted(scored.items())
    }
    mean: dict[str, float | None] = {}
    spread: dict[str, float | None] = {}
    for name in next(iter(scored.values()))["mean"]:
        values = [f[name] for f in folds.values() if f.get(name) is not None]
        mean[name] = round(float(np.mean(values)), 4) if values else None
        spread[name] = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    return {"folds": folds, "mean": mean, "sd": spread}


def table(result: dict[str, Any]) -> Table:
    """Return a row for each fold, then the mean and the standard deviation over folds."""
    shown = Table(title=f"{result['group']}: test folds, live path")
    for name in ("fold", "tracks", *SHOWN.values()):
        shown.add_column(name, justify="right")

    def cells(row: dict[str, Any]) -> list[str]:
        return ["-" if row.get(n) is None else f"{row[n]:.3f}" for n in SHOWN]

    for fold, row in result["folds"].items():
        shown.add_row(str(fold), str(row["tracks"]), *cells(row))
    shown.add_section()
    shown.add_row("mean", "", *cells(result["mean"]), style="bold")
    shown.add_row("sd", "", *cells(result["sd"]))
    return shown


def _write(folder: Path, result: dict[str, Any]) -> None:
    """Write ``folds.json``, and ``folds.csv`` with the rows of the table."""
    write_text(folder / "folds.json", json.dumps(result, indent=2) + "\n")
    rows = {**result["folds"], "mean": result["mean"], "sd": result["sd"]}
    columns = list(next(iter(result["folds"].values())))
    with replacing(folder / "folds.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["fold", *columns])
        writer.writeheader()
        writer.writerows({"fold": name, **row} for name, row in rows.items())
