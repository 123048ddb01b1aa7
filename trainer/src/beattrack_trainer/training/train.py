"""Train a network on feature stores; a run lies in ``runs/<run_id>/`` and can be resumed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack.features import feature_bins, flux_bins
from beattrack_trainer.config import Settings
from beattrack_trainer.training.excerpts import Excerpts, open_parts
from beattrack_trainer.training.module import BeatModule
from beattrack_trainer.training.runs import CHECKPOINT, NOTE, Run, make_run_id


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


def train(settings: Settings) -> Run:
    """Train, or go on with a run that was interrupted; a finished run is left as it is.

    Raises:
        ConfigError: data and settings do not fit, or the run's folder holds one of other settings.
    """
    config, features = settings.train, settings.features
    model = fit_model_config(settings.model, features)
    parts = open_parts(settings)
    torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    run = Run(Path(config.runs_dir) / (config.run_id or make_run_id(settings)))
    note: dict[str, Any] = {
        "settings": settings.to_dict(),
        "model": model.to_dict(),
        "tracks": {k: len(getattr(parts, k)) for k in ("training", "validation", "test")},
    }
    _prepare(run, note)
    if run.finished:
        return run
    checkpoint = run.path / CHECKPOINT
    last = checkpoint if checkpoint.exists() else None
    done = _steps_done(last) if last else 0
    # The excerpts go on where they were: an excerpt is a function of its index.
    first, count = done * config.batch_size, config.steps * config.batch_size
    held = parts.validation or parts.training
    data = [
        Excerpts(
            parts.training,
            features,
            model,
            config,
            range(first, first + count),
            settings.augment.augment,
        ),
        Excerpts(held, features, model, config, range(8 * config.batch_size), False),
    ]
    loaders = [DataLoader(d, batch_size=config.batch_size) for d in data]
    trainer = lightning.Trainer(
        max_steps=config.steps,
        accelerator="auto",
        devices=1,
        default_root_dir=run.path,
        logger=CSVLogger(run.path, name="", version=f"metrics-{done}", flush_logs_every_n_steps=50),
        callbacks=[
            ModelCheckpoint(
                dirpath=run.path, save_last=True, save_top_k=0, every_n_train_steps=250
            ),
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
    run.write_note(note | {"parameters": parameters, "result": summary})
    run.write_weights(module.network)
    return run


def _steps_done(checkpoint: Path) -> int:
    """Return how many optimiser steps a checkpoint has behind it."""
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def _prepare(run: Run, note: dict[str, Any]) -> None:
    """Make or check the run's folder."""
    if not (run.path / NOTE).exists():
        run.write_note(note)
    elif make_run_id(run.settings()) != make_run_id(Settings.from_dict(note["settings"])):
        raise ConfigError(f"'{run.path}' holds a run of other settings; give another run_id.")
