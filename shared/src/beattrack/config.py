"""Frozen, strict configuration of features, model and decoder, with a JSON round trip.

A configuration travels inside the ONNX file that it describes, so reading one is reading
untrusted input: every key, type and range is checked, and each complaint is one sentence that
names the key, its value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from typing import Any, TypeVar

SOURCES = ("bass", "drums", "vocals", "others")
FEATURE_KINDS = ("logspec", "flux", "logspec+flux")
MODEL_KINDS = ("allinonetempo", "tcn")

C = TypeVar("C", bound="Config")


class ConfigError(ValueError):
    """A configuration key is unknown, of a wrong type or out of range; the text is one sentence."""


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise ConfigError, naming key, value and what is allowed, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={value!r} is not possible: it must be {allowed}.")


class Config:
    """Base of the frozen configuration dataclasses: strict reading, JSON writing."""

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON types; tuples become lists."""
        raw = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in raw.items()}

    def to_json(self) -> str:
        """Return one line of JSON with sorted keys, the same text for equal configurations."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls: type[C], values: object) -> C:
        """Build a configuration from plain JSON types.

        Missing keys take their defaults.

        Raises:
            ConfigError: not a mapping, an unknown key (the nearest valid name is suggested), a
                wrong type or an impossible value.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} must be a mapping of keys, not {values!r:.60}.")
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        clean: dict[str, Any] = {}
        for key, value in values.items():
            if key not in fields:
                near = difflib.get_close_matches(str(key), fields, n=1)
                hint = f" did you mean '{near[0]}'?" if near else f" known: {', '.join(fields)}."
                raise ConfigError(f"Unknown key '{key}' in {cls.__name__};{hint}")
            clean[key] = _coerce(key, value, fields[key].default)
        return cls(**clean)

    @classmethod
    def from_json(cls: type[C], text: str) -> C:
        """Build a configuration from JSON text. Raises ConfigError as from_dict does."""
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"{cls.__name__} is not valid JSON: {error}.") from None
        return cls.from_dict(values)


def _coerce(key: str, value: object, default: object) -> object:
    """Check ``value`` against the type of the field's default; lists become tuples."""
    if isinstance(default, bool):
        require(isinstance(value, bool), key, value, "true or false")
    elif isinstance(default, int):
        require(isinstance(value, int) and not isinstance(value, bool), key, value, "an integer")
    elif isinstance(default, float):
        ok = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(ok and math.isfinite(value), key, value, "a finite number")  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    elif isinstance(default, str):
        require(isinstance(value, str), key, value, "a text")
    elif isinstance(default, tuple):
        require(isinstance(value, (list, tuple)), key, value, "a list")
        kind: type = type(default[0])
        items: tuple[object, ...] = tuple(value)  # type: ignore[arg-type]
        ok = all(isinstance(i, kind) and not isinstance(i, bool) for i in items)
        require(ok, key, value, f"a list of {kind.__name__}")
        return items
    return value


@dataclasses.dataclass(frozen=True)
class FeatureConfig(Config):
    """What a feature frame is. Frame t uses samples before (t + 1) * hop, never later ones."""

    sample_rate: int = 22050  # Hz
    hop: int = 441  # samples; 50 frames a second
    window: int = 2048  # samples, Hann
    bands_per_octave: int = 12
    fmin: float = 30.0  # Hz
    fmax: float = 10000.0  # Hz
    log_mul: float = 1000.0  # log10(1 + log_mul * x); a full-scale sine has x near 1
    kind: str = "logspec+flux"  # one of FEATURE_KINDS; stacked along the bins
    flux_bands: int = 12
    flux_lag: int = 2  # frames; 40 ms: the difference is taken against this earlier frame
    flux_mean_s: float = 3.0  # s, time constant of the causal running mean that normalises a band
    bpfed: bool = False  # split into instrument sub-bands (the manual's word)
    sources: tuple[str, ...] = ("bass", "drums")  # which sub-bands, when bpfed

    def __post_init__(self) -> None:
        require(8000 <= self.sample_rate <= 192000, "sample_rate", self.sample_rate, "8000-192000")
        require(16 <= self.window <= 16384, "window", self.window, "16-16384")
        require(1 <= self.hop <= self.window, "hop", self.hop, f"1-{self.window} (the window)")
        require(5 <= self.fps <= 250, "hop", self.hop, "5 to 250 frames a second")
        require(1 <= self.bands_per_octave <= 96, "bands_per_octave", self.bands_per_octave, "1-96")
        require(0 < self.fmin < self.fmax, "fmin", self.fmin, f"above 0 and below fmax={self.fmax}")
        nyquist = self.sample_rate / 2
        require(
            self.fmax <= nyquist, "fmax", self.fmax, f"at most {nyquist} (half the sample rate)"
        )
        require(0 < self.log_mul <= 1e9, "log_mul", self.log_mul, "above 0")
        require(self.kind in FEATURE_KINDS, "kind", self.kind, f"one of {', '.join(FEATURE_KINDS)}")
        require(1 <= self.flux_bands <= 64, "flux_bands", self.flux_bands, "1-64")
        require(1 <= self.flux_lag <= 16, "flux_lag", self.flux_lag, "1-16")
        require(0.1 <= self.flux_mean_s <= 60, "flux_mean_s", self.flux_mean_s, "0.1-60")
        known = set(self.sources) <= set(SOURCES) and len(set(self.sources)) == len(self.sources)
        require(bool(self.sources) and known, "sources", list(self.sources),
                 f"a list of different names out of {', '.join(SOURCES)}")  # fmt: skip

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def channels(self) -> int:
        """Number of instrument channels: one, or one per source when bpfed."""
        return len(self.sources) if self.bpfed else 1


@dataclasses.dataclass(frozen=True)
class ModelConfig(Config):
    """The network. ``channels`` and ``bins`` must fit the features that it is fed."""

    model: str = "allinonetempo"  # one of MODEL_KINDS
    channels: int = 1  # instrument channels of the input
    bins: int = 94  # bins of the input: log-spectrogram bands, then flux bands
    flux_bins: int = 12  # how many of the last bins are flux
    dim: int = 32  # width of the trunk; heads of 16
    depth: int = 8  # blocks; dilations 1, 2, 4, ... 2 ** (depth - 1)
    kernel: int = 5  # frames, spaced by the dilation
    tempo_bins: int = 300  # class k is k + 1 beats a minute
    dropout: float = 0.1
    label_delay: int = 2  # frames between a beat and the frame that the network marks for it
    flux_mix: float = 0.5  # share of the no-learning flux logit in the beat logit

    def __post_init__(self) -> None:
        require(self.model in MODEL_KINDS, "model", self.model, f"one of {', '.join(MODEL_KINDS)}")
        require(1 <= self.channels <= 8, "channels", self.channels, "1-8")
        require(1 <= self.bins <= 1024, "bins", self.bins, "1-1024")
        require(0 <= self.flux_bins <= self.bins, "flux_bins", self.flux_bins, f"0-{self.bins}")
        require(16 <= self.dim <= 512 and self.dim % 16 == 0, "dim", self.dim, "a multiple of 16")
        require(1 <= self.depth <= 12, "depth", self.depth, "1-12")
        require(2 <= self.kernel <= 15, "kernel", self.kernel, "2-15")
        require(1 <= self.tempo_bins <= 1000, "tempo_bins", self.tempo_bins, "1-1000")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more and below 1")
        require(0 <= self.label_delay <= 10, "label_delay", self.label_delay, "0-10")
        require(0 <= self.flux_mix <= 1, "flux_mix", self.flux_mix, "0-1")
        require(self.flux_mix == 0 or self.flux_bins > 0, "flux_mix", self.flux_mix,
                 "0 when the features have no flux bins")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DecoderConfig(Config):
    """The online joint beat and downbeat filter, and when the tracker reports."""

    min_bpm: float = 55.0
    max_bpm: float = 215.0
    beats_per_bar: tuple[int, ...] = (3, 4)
    tempo_change: float = 50.0  # lambda of exp(-lambda * |ratio - 1|) at a beat
    tempo_centre_bpm: float = 115.0  # centre of the log-normal tempo prior
    tempo_spread: float = 0.7  # its standard deviation in octaves
    prior_power: float = 0.04  # exponent, each frame, of that prior; 0: it counts once
    # Odds of a beat against those of a typical beat of the music at hand: factor and exponent.
    beat_gain: float = 12.0
    beat_power: float = 0.9
    # Exponent, each frame, of the model's tempo probabilities; 0 ignores them.
    tempo_power: float = 0.025
    downbeat_power: float = 0.5  # the same for a downbeat among beats; 0 ignores downbeats
    downbeat_share: float = 0.5  # share of downbeats that speaks neither for nor against one
    # Log odds of a downbeat for each spread by which the harmony changes more than usual.
    harmony_power: float = 1.4
    offset_s: float = 0.0  # added to every beat time: the model's bias on development data
    ahead_s: float = 0.02  # a beat is reported once it is expected within this time

    def __post_init__(self) -> None:
        require(20 <= self.min_bpm < self.max_bpm, "min_bpm", self.min_bpm,
                 f"at least 20 and below max_bpm={self.max_bpm}")  # fmt: skip
        require(self.max_bpm <= 400, "max_bpm", self.max_bpm, "at most 400")
        wide = self.max_bpm >= 1.2 * self.min_bpm
        require(wide, "max_bpm", self.max_bpm, f"at least 1.2 times min_bpm={self.min_bpm}")
        ok = all(1 <= b <= 12 for b in self.beats_per_bar)
        ok = ok and 1 <= len(set(self.beats_per_bar)) == len(self.beats_per_bar) <= 8
        require(ok, "beats_per_bar", list(self.beats_per_bar), "1 to 8 different numbers of 1-12")
        # What a filter step costs grows with the states; the default has about 26 thousand.
        states = sum(self.beats_per_bar) * (60 / self.min_bpm + 60 / self.max_bpm) / 2
        states *= math.log(self.max_bpm / self.min_bpm)
        require(states <= 60, "beats_per_bar", list(self.beats_per_bar),
                 f"fewer or shorter bars for {self.min_bpm:g}-{self.max_bpm:g} bpm, or real time "
                 "cannot be kept")  # fmt: skip
        require(1 <= self.tempo_change <= 10000, "tempo_change", self.tempo_change, "1-10000")
        require(
            20 <= self.tempo_centre_bpm <= 400, "tempo_centre_bpm", self.tempo_centre_bpm, "20-400"
        )
        require(0.05 <= self.tempo_spread <= 100, "tempo_spread", self.tempo_spread, "0.05-100")
        require(1e-3 <= self.beat_gain <= 1e3, "beat_gain", self.beat_gain, "0.001-1000")
        require(0 < self.beat_power <= 10, "beat_power", self.beat_power, "above 0, at most 10")
        require(0 <= self.prior_power <= 1, "prior_power", self.prior_power, "0-1")
        require(0 <= self.tempo_power <= 1, "tempo_power", self.tempo_power, "0-1")
        require(0 <= self.downbeat_power <= 10, "downbeat_power", self.downbeat_power, "0-10")
        require(
            0.05 <= self.downbeat_share <= 0.95, "downbeat_share", self.downbeat_share, "0.05-0.95"
        )
        require(0 <= self.harmony_power <= 10, "harmony_power", self.harmony_power, "0-10")
        require(-0.2 <= self.offset_s <= 0.2, "offset_s", self.offset_s, "-0.2 to 0.2")
        require(-0.2 <= self.ahead_s <= 0.5, "ahead_s", self.ahead_s, "-0.2 to 0.5")
