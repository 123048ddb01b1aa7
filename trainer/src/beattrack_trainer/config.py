"""Settings of the trainer: dataclass defaults, then a YAML file, then ``key=value`` words.

All keys live in one flat name space, with the manual's words: those of the data sets, of
FeatureConfig, of ModelConfig, of augmentation and of TrainConfig.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from beattrack.config import Config, ConfigError, FeatureConfig, ModelConfig, require

WARM_UP = 100  # frames at the start of an excerpt that do not count: the network has no past there
MAX_FRAMES = 180_000  # of an excerpt: an hour; longer ones end with no memory, not in a sentence
# What follows from the features or is decided when exporting, so that nobody may set it.
DERIVED = ("channels", "bins", "flux_bins", "flux_mix")
CHOICES = {
    "wandb": ("auto", "online", "offline", "disabled"),
    "loss": ("bce", "shift_tolerant"),
    "precision": ("auto", "32", "bf16-mixed", "16-mixed"),
    "accelerator": ("auto", "cpu", "gpu"),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a folder and of a run in W&B


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
    bpf_band_dir: str = ""  # of sub-band curves; checked to be those that the runtime has too

    def __post_init__(self) -> None:
        require(all(self.data) and self.data != (), "data", list(self.data), "names or folders")


@dataclass(frozen=True)
class TrainConfig(Config):
    """How to train; the network's own settings are a ModelConfig beside it."""

    project_name: str = "beattrack"  # of W&B
    run_id: str = ""  # folder under runs_dir and name in W&B; made from the settings when empty
    runs_dir: str = "runs"
    group: str = ""  # of W&B; the folds of fold=all share one
    wandb: str = "auto"  # auto, online, offline or disabled; auto: online where there is an account
    fold: int = 0  # 0-7: the fold that is tested on; 8 and above: train on everything
    init: str = ""  # a finished run or a .weights.pt whose weights training begins with
    seed: int = 0
    steps: int = 6000  # optimiser steps
    batch_size: int = 4  # excerpts in a step, on each device
    frames: int = 1500  # of one training excerpt; 30 s
    learning_rate: float = 2e-3  # peak; one warm-up, then a cosine to zero
    warmup_steps: int = 200
    weight_decay: float = 1e-3
    gradient_clip: float = 1.0
    average_decay: float = 0.998  # of the exponential moving average of the weights
    loss: str = "bce"  # of beats and downbeats: bce or shift_tolerant
    loss_weight_beat: float = 1.0
    loss_weight_downbeat: float = 3.0
    loss_weight_tempo: float = 0.1
    positive_weight: float = 1.0  # how much more a frame with a beat counts than one without
    validate_every: int = 1000  # steps
    validation_tracks: int = 24  # of the validation fold, the first minute of each
    patience: int = 0  # validations without a better one until training stops; 0: never
    checkpoint_every: int = 250  # steps
    pictures: int = 3  # validation tracks drawn at each validation; 0: no pictures
    precision: str = "auto"  # auto, 32, bf16-mixed or 16-mixed; auto: bf16-mixed on CUDA, else 32
    accelerator: str = "auto"  # auto, cpu or gpu
    devices: str = "auto"  # GPUs, or processes on the CPU: a number; auto: every GPU that is seen
    nodes: int = 1  # machines of one run, started by torchrun or SLURM
    workers: int = 1  # processes that prepare excerpts, for each device; 0: training does it
    threads: int = 1  # of torch on the CPU; more than the free cores make it many times slower

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "validate_every", "validation_tracks",
                    "checkpoint_every", "nodes", "threads"):  # fmt: skip
            require(1 <= getattr(self, key) <= 10**8, key, getattr(self, key), "1 or more")
        require(2 * WARM_UP <= self.frames <= MAX_FRAMES, "frames", self.frames,
                 f"{2 * WARM_UP} to {MAX_FRAMES}")  # fmt: skip
        require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "0-1, above 0")
        require(self.gradient_clip > 0, "gradient_clip", self.gradient_clip, "above 0")
        require(0 <= self.average_decay < 1, "average_decay", self.average_decay, "0-1, below 1")
        require(1 <= self.positive_weight <= 1000, "positive_weight", self.positive_weight,
                 "1-1000")  # fmt: skip
        for key in ("fold", "seed", "warmup_steps", "weight_decay", "loss_weight_beat",
                    "loss_weight_downbeat", "loss_weight_tempo", "patience", "pictures",
                    "workers"):  # fmt: skip
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            require(value in allowed, key, value, f"one of {', '.join(allowed)}")
        counted = self.devices.isdecimal() and 1 <= int(self.devices) <= 1024
        require(counted or self.devices == "auto", "devices", self.devices,
                 "auto or a number; CUDA_VISIBLE_DEVICES chooses which GPUs are seen")  # fmt: skip
        for key in ("project_name", "run_id", "group"):
            value = getattr(self, key)
            named = NAME.fullmatch(value) or (value == "" and key != "project_name")
            require(bool(named), key, value, "1-100 letters, digits, '.', '_' or '-'")
        require(self.runs_dir != "", "runs_dir", self.runs_dir, "a folder")


@dataclass(frozen=True)
class AugmentConfig(Config):
    """How training excerpts are changed, so that the network hears more rooms than the data has."""

    augment: bool = True  # false: excerpts as they are, whatever the rest says
    # The chance, 0-1, that an excerpt is changed in this way; level and equaliser always are.
    time_stretch: float = 0.5  # up to 19 % faster or 16 % slower
    pitch_shift: float = 0.5  # up to 4 bands
    noise: float = 0.3  # a floor under all bands
    other_sounds: float = 0.5  # flux that has nothing to do with the beat
    missing_bands: float = 0.5
    gaps: float = 0.5  # the music stops for a moment
    room: float = 0.2  # reverberation
    microphone: float = 0.2  # low cut, high cut, resonances
    clipping: float = 0.1
    drum_muting: float = 0.1  # for some bars
    voices: float = 0.1  # somebody speaks

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(0 <= value <= 1, field.name, value, "0-1")


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
                raise ConfigError(_unknown(key, value))
            if key in DERIVED:
                raise ConfigError(f"'{key}' cannot be set for training: it follows from the rest.")
            parts[owner][key] = _lenient(_default(_PARTS[owner], key), value)
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


def _every_key() -> list[str]:
    return [key for kind in _PARTS.values() for key in _keys(kind) if key not in DERIVED]


def _unknown(key: str, value: object) -> str:
    """Return what to say of a key that is none."""
    if isinstance(value, dict):
        return f"'{key}' cannot hold other settings: all keys stand side by side, as in 'steps: 9'."
    near = difflib.get_close_matches(key, _every_key(), n=1)
    hint = f" did you mean '{near[0]}'?" if near else " docs/runs.md lists them."
    return f"Unknown setting '{key}';{hint}"


def _lenient(default: object, value: object) -> object:
    """Return ``value`` as its key wants it where that can only mean one thing."""
    if isinstance(default, tuple) and (value is None or isinstance(value, str)):
        return [value] if value else []  # None is what 'data=' is read as
    if isinstance(default, str) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value


def changed(settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from their defaults, as plain JSON types."""
    usual = Settings.from_dict({}).to_dict()
    return {k: v for k, v in settings.to_dict().items() if v != usual[k]}


def _texts() -> set[str]:
    """Return the keys whose values are texts: a word's value is then taken as it stands."""
    return {
        k for kind in _PARTS.values() for k in _keys(kind) if isinstance(_default(kind, k), str)
    }


def parse_words(words: list[str]) -> dict[str, Any]:
    """Return the settings that words like ``steps=200 sources=[bass,drums]`` give.

    Raises:
        ConfigError: a word without ``=``, a key given twice, or a value that cannot be read.
    """
    plain: dict[str, Any] = {}
    rest: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{word}' is not of the form key=value.")
        if key in plain:
            raise ConfigError(f"'{key}' is given twice.")
        plain[key] = text
        # 007 or 1e3 may be a name; what is quoted is left to the YAML reader.
        if key not in _texts() or text[:1] in ("'", '"'):
            rest.append(word)
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(rest))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The settings {' '.join(words)} cannot be read: {reason}.") from None
    assert isinstance(values, dict)
    return plain | {str(k): v for k, v in values.items()}


def read_file(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML file: a flat mapping. Raises ConfigError."""
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigError(f"The settings file '{path}' cannot be read: {error.strerror}.") from None
    except (OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
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


def load_folds(words: list[str], file: Path | None = None) -> list[Settings]:
    """Return one Settings for each fold asked for: ``fold=3``, ``fold=[0,3]`` or ``fold=all``.

    With several, a given ``run_id`` gets the fold behind it.

    Raises:
        ConfigError: as ``load_settings``; a fold twice, or none.
    """
    values = (read_file(file) if file else {}) | parse_words(words)
    folds = values.get("fold")
    if folds == "all":
        folds = list(range(8))
    if isinstance(folds, str):
        raise ConfigError(f"fold={folds} is not possible: it must be a number, a list or all.")
    if not isinstance(folds, list):
        return [Settings.from_dict(values)]
    if not folds or any(folds.count(f) > 1 for f in folds):
        raise ConfigError(f"fold={folds!r} is not possible: it must be a list of different folds.")
    name = values.get("run_id", "")
    each = [{"fold": f, "run_id": f"{name}-f{f}" if name else ""} for f in folds]
    return [Settings.from_dict(values | own) for own in each]
