"""A data set folder: where its audio, annotations, metadata and features lie.

    <base>/tracks/<id>.<ext>       audio
    <base>/beats/<id>.beats        or <id>.txt, the public Harmonix form
    <base>/metadata.csv            optional
    <base>/segments/<id>.txt       optional
    <base>/folds.tsv               optional
    <base>/features/...            written by preprocessing

Audio and beats may also lie side by side in ``<base>`` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from beattrack.config import ConfigError, FeatureConfig
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data.annotations import BEATS_SUFFIXES

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff")


@dataclass(frozen=True)
class Track:
    """One track of a data set: its audio and its annotation."""

    name: str
    audio: Path
    beats: Path


@dataclass(frozen=True)
class DataSet:
    """The places of one data set; nothing is read before it is asked for."""

    name: str
    base: Path
    track_dir: Path
    beats_dir: Path
    metadata: Path
    bpf_feature_dir: Path | None = None  # None: a folder under ``base``, named by the sources
    plain_feature_dir: Path | None = None

    def audio_files(self) -> dict[str, Path]:
        """Return the audio file of each track id, sorted by id."""
        return _by_stem(self.track_dir, AUDIO_SUFFIXES)

    def beats_files(self) -> dict[str, Path]:
        """Return the annotation file of each track id, sorted by id."""
        return _by_stem(self.beats_dir, BEATS_SUFFIXES)

    def tracks(self) -> list[Track]:
        """Return the tracks that have both audio and beats, by id.

        Raises:
            ConfigError: there is none.
        """
        beats = self.beats_files()
        found = [Track(n, a, beats[n]) for n, a in self.audio_files().items() if n in beats]
        if not found:
            raise ConfigError(
                f"The data set '{self.base}' has no audio in {self.track_dir} with beats of the "
                f"same name in {self.beats_dir}."
            )
        return found

    def feature_dir(self, features: FeatureConfig) -> Path:
        """Return the folder of the store for these features."""
        if features.bpfed:
            named = self.base / "features" / "-".join(("bpf", *features.sources))
            return self.bpf_feature_dir or named
        return self.plain_feature_dir or self.base / "features" / "plain"


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    files = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    ranked = sorted(
        (f for f in files if f.suffix.lower() in suffixes and not f.name.startswith(".")),
        key=lambda f: -suffixes.index(f.suffix.lower()),
    )
    return dict(sorted((f.stem, f) for f in {f.stem: f for f in ranked}.values()))


def open_data_sets(config: DataConfig) -> list[DataSet]:
    """Return the data sets that a configuration names.

    Raises:
        ConfigError: a folder is missing, or path keys that describe one set stand beside several.
    """
    given = [k for k, v in config.to_dict().items() if k.startswith("path_") and v]
    if len(config.data) > 1 and given:
        raise ConfigError(f"{given[0]} describes one data set, but data names several.")
    return [_open(name, config) for name in config.data]


def _open(name: str, config: DataConfig) -> DataSet:
    is_path = "/" in name or Path(name).is_dir()
    base = Path(config.path_base_dir or (name if is_path else f"data/{name}"))
    if not base.is_dir():
        raise ConfigError(
            f"There is no data set folder '{base}'; docs/training.md shows what belongs in it."
        )
    together = not (base / "tracks").is_dir()

    def place(given: str, usual: str) -> Path:
        return Path(given) if given else base if together else base / usual

    return DataSet(
        name=base.resolve().name,
        base=base,
        track_dir=place(config.path_track_dir, "tracks"),
        beats_dir=place(config.path_beats_dir, "beats"),
        metadata=Path(config.path_metadata or base / "metadata.csv"),
        bpf_feature_dir=_optional(config.path_bpf_feature_dir),
        plain_feature_dir=_optional(config.path_no_demixed_feature_dir),
    )


def _optional(path: str) -> Path | None:
    return Path(path) if path else None
