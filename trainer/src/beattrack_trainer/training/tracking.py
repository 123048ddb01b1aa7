"""A run at Weights & Biases: figures and pictures while it trains, its model when it is done."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from beattrack.config import ConfigError
from beattrack_trainer.config import Settings, TrainConfig
from beattrack_trainer.say import say
from beattrack_trainer.training.runs import NOTE, SETTINGS, WEIGHTS, Run

LARGEST = 10**9  # bytes of a model that is fetched
FINISH_S = 120.0  # for what is not sent yet at the end
INIT_S = 30.0  # to reach the server at the start
_NAME = re.compile(r"([\w.-]+/){0,2}[\w.-]+")


def _sdk() -> Any:
    """Return the package wandb; it is slow to import, and sends no reports of its own errors."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def has_account() -> bool:
    """Whether WANDB_API_KEY or a netrc file gives a key for the W&B server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    _sdk()
    from wandb.sdk.lib.wbauth import read_netrc_auth

    host = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    try:
        return read_netrc_auth(host=host) is not None
    except Exception:  # a netrc file that cannot be read holds no key
        return False


def choose_mode(config: TrainConfig) -> str:
    """Return online, offline or disabled; WANDB_MODE decides where the settings say ``auto``."""
    if config.wandb != "auto":
        return config.wandb
    wanted = os.environ.get("WANDB_MODE", "")
    if wanted in ("online", "offline", "disabled"):
        return wanted
    return "online" if has_account() else "offline"


@contextlib.contextmanager
def follow(run: Run, settings: Settings, console: Console) -> Iterator[WandbLogger | None]:
    """Give Lightning's W&B logger for a run while it trains; None where there is none.

    Without a network at the start the run goes on offline. One that fails later is retried by the
    SDK in the background, and waited for FINISH_S at the end; all stays under ``<run>/wandb``.
    """
    mode = choose_mode(settings.train)
    if mode == "disabled" or rank_zero_only.rank != 0:
        yield None
        return
    wandb = _sdk()
    try:
        logger = _logger(run, settings, mode)
    except (wandb.errors.Error, OSError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        say(console, f"W&B cannot be reached, so the run stays offline: {reason}")
        wandb.teardown()
        mode, logger = "offline", _logger(run, settings, "offline")
    code = 1
    try:
        yield logger
        code = 0
    finally:
        folder = Path(logger.experiment.dir).parent
        wandb.finish(exit_code=code)
        if mode == "offline":
            wandb.teardown()  # finish() alone returns before the last records are on disk
            say(console, f"W&B ran offline; send it with: wandb sync {_short(folder)}")


def _short(folder: Path) -> Path:
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _logger(run: Run, settings: Settings, mode: str) -> WandbLogger:
    """Start the run in W&B and return Lightning's logger of it. Raises what wandb.init does."""
    wandb = _sdk()
    config = settings.train
    in_sweep = "WANDB_SWEEP_ID" in os.environ  # the agent has chosen the id then
    # Started here: Lightning would pass on a setting that the SDK warns of.
    started = wandb.init(
        project=config.project_name,
        name=run.id,
        id=None if in_sweep else run.id,
        resume="allow",
        dir=str(run.path),
        mode=mode,
        group=config.group or None,
        tags=[f"fold-{config.fold}", settings.model.model],
        config=settings.to_dict(),
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=INIT_S,
            finish_timeout=FINISH_S,
            summary_timeout=10,
        ),
    )
    started.define_metric("trainer/global_step")
    started.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=started, save_dir=str(run.path))


def keep_model(run: Run, logger: WandbLogger | None, config: TrainConfig, best: bool) -> None:
    """Log weights, run.json and settings.yaml as the artifact ``<run_id>-model``.

    Its aliases are ``latest``, ``fold-<n>`` and, if validation chose the weights, ``best``.
    """
    if logger is None:
        return
    artifact = _sdk().Artifact(f"{run.id}-model", type="model", metadata=run.note().get("result"))
    for name in (WEIGHTS, NOTE, SETTINGS):
        # The files do not change any more: no copy is needed until they are sent.
        artifact.add_file(str(run.path / name), policy="immutable")
    aliases = ["latest", f"fold-{config.fold}", *(["best"] if best else [])]
    logger.experiment.log_artifact(artifact, aliases=aliases)


def fetch_run(name: str, runs_dir: Path, api: Any = None) -> Run:
    """Download a run's model from W&B into ``runs_dir``.

    Args:
        name: run id, ``project/run_id`` or ``entity/project/run_id``.
        runs_dir: where it will lie.
        api: a ``wandb.Api``; None makes one.

    Raises:
        ConfigError: there is none, it cannot be reached, or it is no model of this trainer.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(f"'{name}' is neither a run in '{runs_dir}' nor the name of one in W&B.")
    wandb = _sdk()
    full = name if "/" in name else f"{TrainConfig().project_name}/{name}"
    target = runs_dir / name.rsplit("/", 1)[-1]
    runs_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".fetch-", dir=runs_dir))
    try:
        artifact = (api or wandb.Api(timeout=20)).artifact(f"{full}-model:latest", type="model")
        if set(artifact.manifest.entries) != {WEIGHTS, NOTE, SETTINGS} or artifact.size > LARGEST:
            raise ConfigError(f"The artifact '{full}-model' of W&B is no model of this trainer.")
        artifact.download(root=str(folder), skip_cache=True)
        Run(folder).load()
        folder.rename(target)
    except ConfigError:
        raise
    except (wandb.errors.Error, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"There is no run '{name}' in '{runs_dir}', and W&B does not give it: {reason}"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Run(target)
