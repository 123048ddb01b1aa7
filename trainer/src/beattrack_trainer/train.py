"""Train a network on feature stores; a run lies in ``runs/<run_id>/`` and can be resumed."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack.features import feature_bins, flux_bins
from beattrack.model import BeatNetwork, build_model
from beattrack_trainer.config import TrainConfig
from beattrack_trainer.datasets import Excerpts, read_feature_config, split_names
from beattrack_trainer.lightning_module import BeatModule

RUN_NAME = "run.json"
CHECKPOINT = "last.ckpt"
WEIGHTS = "weights.pt"


def fit_model_config(model: ModelConfig, features: FeatureConfig) -> ModelConfig:
    """Return the model configuration with the input shape of these features."""
    return ModelConfig.from_dict(
        model.to_dict()
        | {
            "channels": features.channels,
            "bins": feature_bins(features),
            "flux_bins": flux_bins(features),
            "flux_mix": 0.0,  # mixed in when exporting: trained together, the flux is unlearned
        }
    )


def train(stores: list[Path], run: Path, model: ModelConfig, config: TrainConfig) -> None:
    """Train, or go on with a run that was interrupted; a finished run is left as it is.

    Raises:
        ConfigError: the stores or settings do not fit, or ``run`` holds a run of other settings.
    """
    features = read_feature_config(stores)
    model = fit_model_config(model, features)
    training, validation = split_names(stores, config.validation_share)
    torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    note: dict[str, object] = {
        "features": features.to_dict(),
        "model": model.to_dict(),
        "train": config.to_dict(),
    }
    note["tracks"] = {"training": len(training), "validation": len(validation)}
    _prepare_run(run, note)
    if (run / WEIGHTS).exists():
        return
    last = run / CHECKPOINT if (run / CHECKPOINT).exists() else None
    done = _steps_done(last) if last else 0
    # The excerpts go on where they were: an excerpt is a function of its index.
    first, count = done * config.batch_size, config.steps * config.batch_size
    data = [
        Excerpts(training, features, model, config, range(first, first + count), True),
        Excerpts(validation, features, model, config, range(8 * config.batch_size), False),
    ]
    loaders = [DataLoader(d, batch_size=config.batch_size) for d in data]
    trainer = lightning.Trainer(
        max_steps=config.steps,
        accelerator="auto",
        devices=1,
        default_root_dir=run,
        logger=CSVLogger(run, name="", version=f"metrics-{done}", flush_logs_every_n_steps=50),
        callbacks=[
            ModelCheckpoint(dirpath=run, save_last=True, save_top_k=0, every_n_train_steps=250),
            TQDMProgressBar(refresh_rate=50),
            # What is validated, kept and exported are the averaged weights.
            EMAWeightAveraging(decay=config.average_decay),
        ],
        gradient_clip_val=config.gradient_clip,
        val_check_interval=min(config.validate_every, config.steps),
        check_val_every_n_epoch=None,
        log_every_n_steps=25,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )
    module = BeatModule(model, config)
    started = time.time()
    trainer.fit(module, loaders[0], loaders[1], ckpt_path=last, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if last and done >= config.steps:  # stopped after its last step: nothing was left to train
        module.load_state_dict(torch.load(last, weights_only=True)["state_dict"])
    metrics = {k: round(float(v), 5) for k, v in trainer.callback_metrics.items()}
    summary = {"seconds": round(time.time() - started), "metrics": metrics}
    parameters = sum(p.numel() for p in module.network.parameters())
    _write_json(run / RUN_NAME, note | {"parameters": parameters, "result": summary})
    temporary = run / f".{WEIGHTS}"
    torch.save(module.network.state_dict(), temporary)
    temporary.replace(run / WEIGHTS)


def _steps_done(checkpoint: Path) -> int:
    """Return how many optimiser steps a checkpoint has behind it."""
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def _prepare_run(run: Path, note: dict[str, object]) -> None:
    """Make or check the run's folder."""
    path = run / RUN_NAME
    if path.exists():
        known = json.loads(path.read_text())
        if any(known.get(k) != note[k] for k in ("features", "model", "train")):
            raise ConfigError(f"{run} holds a run of other settings; give a new folder.")
        return
    run.mkdir(parents=True, exist_ok=True)
    _write_json(path, note)


def _write_json(path: Path, values: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.replace(path)


def load_run(run: Path) -> tuple[BeatNetwork, FeatureConfig, dict[str, object]]:
    """Return a finished run's network (in evaluation mode), its features and its ``run.json``.

    Raises:
        ConfigError: the folder holds no finished run, or files that do not fit each other.
    """
    if not (run / RUN_NAME).is_file() or not (run / WEIGHTS).is_file():
        raise ConfigError(f"{run} holds no finished run: run.json or weights.pt is missing.")
    note = json.loads((run / RUN_NAME).read_text())
    network = build_model(ModelConfig.from_dict(note["model"]))
    try:
        weights = torch.load(run / WEIGHTS, map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
    except (RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{run / 'weights.pt'} does not fit run.json: {reason}") from None
    return network.eval(), FeatureConfig.from_dict(note["features"]), note
