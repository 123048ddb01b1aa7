"""Settings of the trainer: dataclass defaults, then a YAML file, then ``key=value`` words.

All keys live in one flat name space, with the manual's words: those of the data sets, of
FeatureConfig, of ModelConfig, of augmentation and of TrainConfig.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from beattrack.config import Config, ConfigError, FeatureConfig, ModelConfig, require

WARM_UP = 100  # frames at the start of an excerpt that do not count: the network has no past there
# What follows from the features or is decided when exporting, so that nobody may set it.
DERIVED = ("channels", "bins", "flux_bins", "flux_mix")


@dataclass(frozen=True)
class DataConfig(Config):
    """Which data sets, and where their parts lie if not in the usual places."""

    data: tuple[str, ...] = ("harmonix",)  # names under data/, or folders; several are united
    path_base_dir: str = ""  # of the one data set; the usual place is data/<name>
    path_track_dir: str = ""  # audio; usually <base>/tracks
    path_beats_dir: str = ""  # annotations; usually <base>/beats
    path_metadata: str = ""  # usually <base>/metadata.csv
    path_bpf_feature_dir: str = ""  # usually <base>/features/bpf-<sources>
    path_no_demixed_feature_dir: str = ""  # usually <base>/features/plain


@dataclass(frozen=True)
class TrainConfig(Config):
    """How to train; the network's own settings are a ModelConfig beside it."""

    project_name: str = "beattrack"  # of W&B
    run_id: str = ""  # folder under runs_dir and name in W&B; made from the settings when empty
    runs_dir: str = "runs"
    fold: int = 0  # 0-7: the fold that is tested on; 8 and above: train on everything
    seed: int = 0
    steps: int = 6000  # optimiser steps
    batch_size: int = 4
    frames: int = 1500  # of one training excerpt; 30 s
    learning_rate: float = 2e-3  # peak; one warm-up, then a cosine to zero
    warmup_steps: int = 200
    weight_decay: float = 1e-3
    gradient_clip: float = 1.0
    average_decay: float = 0.998  # of the exponential moving average of the weights
    loss_weight_beat: float = 1.0
    loss_weight_downbeat: float = 3.0
    loss_weight_tempo: float = 0.1
    validate_every: int = 500  # steps
    threads: int = 2  # of torch on the CPU

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "validate_every", "threads"):
            require(1 <= getattr(self, key) <= 10**8, key, getattr(self, key), "1 or more")
        require(
            2 * WARM_UP <= self.frames <= 10**6, "frames", self.frames, f"{2 * WARM_UP} or more"
        )
        require(
            0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, at most 1"
        )
        require(self.gradient_clip > 0, "gradient_clip", self.gradient_clip, "above 0")
        require(0 <= self.average_decay < 1, "average_decay", self.average_decay, "0-1, below 1")
        for key in ("fold", "seed", "warmup_steps", "weight_decay", "loss_weight_beat",
                    "loss_weight_downbeat", "loss_weight_tempo"):  # fmt: skip
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")


@dataclass(frozen=True)
class AugmentConfig(Config):
    """How training excerpts are changed, so that the network hears more rooms than the data has."""

    augment: bool = True


@dataclass(frozen=True)
class Settings:
    """All settings of the trainer together."""

    data: DataConfig
    features: FeatureConfig
    model: ModelConfig
    augment: AugmentConfig
    train: TrainConfig

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Sort flat keys to where they belong; missing ones take their defaults.

        Raises:
            ConfigError: an unknown key (the nearest known one is named), one that follows from
                others, a wrong type or an impossible value.
        """
        parts: dict[str, dict[str, Any]] = {name: {} for name in _PARTS}
        for key, value in values.items():
            owner = next((n for n, kind in _PARTS.items() if key in _keys(kind)), None)
            if owner is None:
                every = [k for kind in _PARTS.values() for k in _keys(kind)]
                near = difflib.get_close_matches(key, every, n=1)
                hint = f" did you mean '{near[0]}'?" if near else " docs/training.md lists them."
                raise ConfigError(f"Unknown setting '{key}';{hint}")
            if key in DERIVED:
                raise ConfigError(f"'{key}' cannot be set for training: it follows from the rest.")
            listed = isinstance(_default(_PARTS[owner], key), tuple) and isinstance(value, str)
            parts[owner][key] = [value] if listed else value
        return cls(**{n: kind.from_dict(parts[n]) for n, kind in _PARTS.items()})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as flat plain JSON types; ``from_dict`` reads them back."""
        flat: dict[str, Any] = {}
        for name in _PARTS:
            flat |= getattr(self, name).to_dict()
        return {k: v for k, v in flat.items() if k not in DERIVED}


_PARTS: dict[str, type[Config]] = {
    "data": DataConfig,
    "features": FeatureConfig,
    "model": ModelConfig,
    "augment": AugmentConfig,
    "train": TrainConfig,
}


def _keys(kind: type[Config]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]


def _default(kind: type[Config], key: str) -> object:
    return next(f.default for f in dataclasses.fields(kind) if f.name == key)  # type: ignore[arg-type]


def parse_words(words: list[str]) -> dict[str, Any]:
    """Return the settings that words like ``steps=200 sources=[bass,drums]`` give.

    Raises:
        ConfigError: a word without ``=`` or one that cannot be read.
    """
    for word in words:
        if "=" not in word:
            raise ConfigError(f"'{word}' is not of the form key=value.")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(words))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The settings {' '.join(words)} cannot be read: {reason}.") from None
    return {str(k): v for k, v in values.items()} if isinstance(values, dict) else {}


def read_file(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML file: a flat mapping. Raises ConfigError."""
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigError(f"The settings file '{path}' cannot be read: {error.strerror}.") from None
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The settings file '{path}' cannot be read: {reason}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"The settings file '{path}' must hold key: value lines.")
    return {str(k): v for k, v in values.items()}


def load_settings(words: list[str], file: Path | None = None) -> Settings:
    """Return the settings of a YAML file, if any, with those of the words over them.

    Raises:
        ConfigError: as ``Settings.from_dict``, ``read_file`` and ``parse_words``.
    """
    return Settings.from_dict((read_file(file) if file else {}) | parse_words(words))
