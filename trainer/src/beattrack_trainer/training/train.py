"""Train a network on feature stores; a run lies in ``runs/<run_id>/`` and can be resumed."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack.features import feature_bins, flux_bins
from beattrack.model import build_model
from beattrack_trainer.config import Settings, TrainConfig, changed
from beattrack_trainer.doctor.examination import brief
from beattrack_trainer.say import say
from beattrack_trainer.training import tracking
from beattrack_trainer.training.checkpoints import (
    BEST,
    Checkpoints,
    Stopped,
    WholeFiles,
    find_checkpoint,
    read_checkpoint,
)
from beattrack_trainer.training.environment import describe
from beattrack_trainer.training.excerpts import Parts, open_parts, unprepared
from beattrack_trainer.training.loaders import ExcerptData
from beattrack_trainer.training.loggers import MetricsFile
from beattrack_trainer.training.module import BeatModule
from beattrack_trainer.training.pictures import Pictures
from beattrack_trainer.training.progress import Progress
from beattrack_trainer.training.runs import NOTE, Run, identity, load_weights, make_run_id


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


def choose_precision(config: TrainConfig) -> str:
    """Return Lightning's word for the precision; ``auto`` is bfloat16 where CUDA has it."""
    if config.precision != "auto":
        return config.precision if config.precision != "32" else "32-true"
    cuda = config.accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"


def find_place(settings: Settings) -> Run:
    """Return the run of these settings, which need not be there yet."""
    config = settings.train
    return Run(Path(config.runs_dir) / (config.run_id or make_run_id(settings)))


def check_start(settings: Settings) -> None:
    """Look at what a run asks of this machine, before there is a folder, which would stay.

    Raises:
        ConfigError: GPUs that are not here, or weights to begin with that cannot be used.
    """
    run, config = find_place(settings), settings.train
    if run.finished:
        return
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.accelerator == "gpu" and not (seen or torch.backends.mps.is_available()):
        raise ConfigError(
            "accelerator=gpu is not possible: torch sees no GPU here; 'trainer doctor' says why, "
            "and accelerator=auto trains without."
        )
    wanted = 0 if config.devices == "auto" else int(config.devices)
    if config.accelerator != "cpu" and seen and wanted > seen:
        raise ConfigError(
            f"devices={wanted} is not possible: torch sees {seen} here; devices=auto takes all."
        )
    if config.init and not (run.path / NOTE).exists():
        network = build_model(fit_model_config(settings.model, settings.features))
        load_weights(network, config.init, Path(config.runs_dir))


def train(settings: Settings, console: Console | None = None) -> Run:
    """Train, or go on with a run that was interrupted; a finished run is left as it is.

    Args:
        settings: everything; ``docs/runs.md`` lists the keys.
        console: where progress is shown; None is stderr.

    Raises:
        ConfigError: data and settings do not fit, or the run's folder holds one of other settings.
        ValueError: the loss became no number.
        OSError: something cannot be written.
        KeyboardInterrupt: it was asked to stop; the same call goes on.
    """
    console = console or Console(stderr=True)
    model = fit_model_config(settings.model, settings.features)
    parts = open_parts(settings)
    run = find_place(settings)
    note: dict[str, Any] = {
        "settings": settings.to_dict(),
        "model": model.to_dict(),
        "tracks": {k: len(getattr(parts, k)) for k in ("training", "validation", "test")},
    }
    check_start(settings)
    _prepare(run, note)
    first = rank_zero_only.rank == 0  # of several processes, one speaks and writes
    if not run.finished:
        _train(run, settings, parts, note, console)
    if first:
        say(console, f"finished {run.path}")
    return run


def _train(
    run: Run, settings: Settings, parts: Parts, note: dict[str, Any], console: Console
) -> None:
    """Train a run that is not finished, to its end."""
    first = rank_zero_only.rank == 0
    config = settings.train
    with run.locked() if first else contextlib.nullcontext():
        found = find_checkpoint(run.path)
        if first:
            run.write_start(settings, describe())
            _announce(run, settings, parts, console)
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)  # what it says, we say
        torch.set_num_threads(config.threads)
        lightning.seed_everything(config.seed, verbose=False)
        model = ModelConfig.from_dict(note["model"])
        module = BeatModule(model, config, settings.features)
        if config.init and found is None:
            load_weights(module.network, config.init, Path(config.runs_dir))
        session = _Session(run, settings, parts, module, console)
        with tracking.follow(run, settings, console) as logger:
            session.fit(found, logger)
            if session.trainer.is_global_zero:
                session.finish(note, logger)
            session.trainer.strategy.barrier()


class _Session:
    """One start of a run: Lightning's trainer with its callbacks."""

    def __init__(
        self, run: Run, settings: Settings, parts: Parts, module: BeatModule, console: Console
    ) -> None:
        config = settings.train
        self._run, self._config, self._module = run, config, module
        self._validates = bool(parts.validation)
        self._data = ExcerptData(settings, module.network.config, parts)
        self._checkpoints = Checkpoints(run.path, config, self._validates)
        self._early = EarlyStopping(
            "val/f", patience=config.patience, mode="max", check_finite=False
        )
        self._callbacks = [
            # What is validated, kept and exported are the averaged weights. Buffers are constants;
            # averaged, an integer one would be rounded down.
            EMAWeightAveraging(decay=config.average_decay, use_buffers=False),
            Progress(console, run.path / "log.txt", config.steps),
            *([Pictures(run.path / "figures")] if config.pictures else []),
            *([self._early] if config.patience and self._validates else []),
            self._checkpoints,
        ]

    def fit(self, found: tuple[Path, dict[str, Any]] | None, logger: Any) -> None:
        """Train to the end, from a checkpoint if there is one."""
        config = self._config
        metrics = MetricsFile(self._run.path)
        step = int(found[1]["global_step"]) if found else 0
        metrics.keep_until(step)
        self.trainer = lightning.Trainer(
            max_steps=config.steps,
            accelerator=config.accelerator,
            devices=_devices(config),
            num_nodes=config.nodes,
            precision=choose_precision(config),
            plugins=[WholeFiles()],
            default_root_dir=self._run.path,
            logger=[metrics, *([logger] if logger else [])],
            callbacks=self._callbacks,
            gradient_clip_val=config.gradient_clip,
            val_check_interval=config.validate_every if self._validates else None,
            limit_val_batches=None if self._validates else 0,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,  # ExcerptData gives each process its own
        )
        with warnings.catch_warnings():
            # That excerpts are made without further processes, and that the loader goes on from the
            # middle, is meant so.
            warnings.filterwarnings("ignore", module=r"lightning\.")
            self._fit(found, step)

    def _fit(self, found: tuple[Path, dict[str, Any]] | None, step: int) -> None:
        config, kept = self._config, self._checkpoints
        stopped = found is not None and _had_enough(found[1], self._early, config.patience)
        if found is not None and (step >= config.steps or stopped):
            # Ended when it was killed: the weights of the end are all that is needed.
            self._module.load_state_dict(found[1]["state_dict"])
            kept.load_state_dict(found[1]["callbacks"][kept.state_key])
            return
        last = str(found[0]) if found else None
        try:
            self.trainer.fit(self._module, datamodule=self._data, ckpt_path=last, weights_only=True)
            if self._validates and self.trainer.global_step % config.validate_every:
                self.trainer.validate(self._module, datamodule=self._data, verbose=False)
        except Stopped:
            if not self.trainer.is_global_zero:
                raise
            raise KeyboardInterrupt from None
        except SystemExit:  # what Lightning makes of a second Ctrl-C
            raise KeyboardInterrupt from None
        if self.trainer.interrupted:
            raise KeyboardInterrupt

    def finish(self, note: dict[str, Any], logger: Any) -> None:
        """Write what came of the run, and the weights as the last thing."""
        network = self._module.network
        result = self._choose()
        parameters = sum(p.numel() for p in network.parameters())
        self._run.write_note(note | {"parameters": parameters, "result": result})
        self._run.write_weights(network)
        tracking.keep_model(self._run, logger, self._config, best=result["weights"] == "best")

    def _choose(self) -> dict[str, Any]:
        """Put the chosen weights into the network and return what came of the run."""
        kept = self._checkpoints
        result = {
            "weights": "last",
            "why": "all tracks were trained on, so that none was left to validate with",
            "step": self._config.steps,
            "seconds": round(kept.seconds),
            "metrics": kept.metrics,
        }
        if self._validates:
            best = read_checkpoint(self._run.path / BEST)
            if best is None:
                raise ConfigError(
                    f"'{self._run.path / BEST}' cannot be read; remove the folder to train afresh."
                )
            self._module.load_state_dict(best["state_dict"])
            f = kept.metrics["val/f"]
            why = f"val/f {f:.4f}, the last within a standard error of the highest, {kept.best:.4f}"
            result |= {"weights": "best", "why": why, "step": kept.best_step}
        return result


def _devices(config: TrainConfig) -> Any:
    return "auto" if config.devices == "auto" else int(config.devices)


def _had_enough(checkpoint: dict[str, Any], early: EarlyStopping, patience: int) -> bool:
    """Whether a run had stopped early when this checkpoint was written."""
    state = checkpoint["callbacks"].get(early.state_key, {})
    return patience > 0 and int(state.get("wait_count", 0)) >= patience


def _announce(run: Run, settings: Settings, parts: Parts, console: Console) -> None:
    """Say what is about to be trained, where and how: also what differs from the defaults."""
    say(console, brief())
    counts = f"{len(parts.training)} tracks to train on, {len(parts.validation)} to validate"
    say(console, f"run {run.path}: {counts}")
    for name, missing in unprepared(settings).items():
        say(
            console,
            f"{name}: tracks without features yet, which are not trained on: {missing}; "
            "trainer preprocess makes them",
            style="yellow",
        )
    words = [
        f"{k}=[{','.join(map(str, v))}]" if isinstance(v, list) else f"{k}={v}"
        for k, v in changed(settings).items()
    ]
    say(console, f"settings: {' '.join(words) or 'the defaults'}")


def _prepare(run: Run, note: dict[str, Any]) -> None:
    """Make or check the run's folder."""
    if not (run.path / NOTE).exists():
        if rank_zero_only.rank == 0:
            run.write_note(note)
    elif identity(run.settings()) != identity(Settings.from_dict(note["settings"])):
        raise ConfigError(f"'{run.path}' holds a run of other settings; give another run_id.")
