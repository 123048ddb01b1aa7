"""Settings of a training run: dataclass defaults, then ``key=value`` words of the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from beattrack.config import Config, ConfigError, ModelConfig, require

WARM_UP = 100  # frames at the start of an excerpt that do not count: the network has no past there


@dataclass(frozen=True)
class TrainConfig(Config):
    """How to train; the network's own settings are a ModelConfig beside it."""

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
    validation_share: float = 0.05  # of the tracks, chosen by a hash of their names
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
        share = self.validation_share
        require(0 < share < 1, "validation_share", share, "between 0 and 1")
        for key in ("seed", "warmup_steps", "weight_decay", "loss_weight_beat",
                    "loss_weight_downbeat", "loss_weight_tempo"):  # fmt: skip
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")


def parse_words(words: list[str]) -> dict[str, object]:
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


def parse_overrides(words: list[str]) -> tuple[ModelConfig, TrainConfig]:
    """Build both configurations from words like ``steps=200 model=tcn``.

    Raises:
        ConfigError: a word without ``=``, an unknown key, a wrong type or an impossible value.
    """
    values = parse_words(words)
    model_keys = {f.name for f in dataclasses.fields(ModelConfig)}
    model = {k: v for k, v in values.items() if k in model_keys}
    train = {k: v for k, v in values.items() if k not in model_keys}
    return ModelConfig.from_dict(model), TrainConfig.from_dict(train)
