"""Settings of a training run: dataclass defaults, then ``key=value`` words of the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from beattrack.config import Config, ConfigError, ModelConfig


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


def parse_overrides(words: list[str]) -> tuple[ModelConfig, TrainConfig]:
    """Build both configurations from words like ``steps=200 model=tcn``.

    Raises:
        ConfigError: a word without ``=``, an unknown key, a wrong type or an impossible value.
    """
    for word in words:
        if "=" not in word:
            raise ConfigError(f"'{word}' is not of the form key=value.")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(words))
    except OmegaConfBaseException as error:
        raise ConfigError(f"The settings {' '.join(words)} cannot be read: {error}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"The settings {' '.join(words)} are not key=value words.")
    model_keys = {f.name for f in dataclasses.fields(ModelConfig)}
    model = {str(k): v for k, v in values.items() if k in model_keys}
    train = {str(k): v for k, v in values.items() if k not in model_keys}
    return ModelConfig.from_dict(model), TrainConfig.from_dict(train)
