"""A data set folder: where its audio, annotations, metadata and features lie.

    <base>/tracks/<id>.<ext>       audio; also one folder further down, as in tracks/blues/
    <base>/beats/<id>.beats        or <id>.txt, the public Harmonix form
    <base>/metadata.csv            optional
    <base>/segments/<id>.txt       optional
    <base>/folds.tsv               optional
    <base>/features/...            written by preprocessing

Audio and beats may also lie side by side in ``<base>`` itself. docs/datasets.md says more.
"""

from __future__ import annotations

import unicodedata
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
class Listing:
    """The files of a data set, by id and sorted by it."""

    audio: dict[str, Path]
    beats: dict[str, Path]
    tracks: tuple[Track, ...]  # audio with its beats; named as the audio is
    spare: tuple[tuple[Path, Path], ...]  # a file that is not used, the one of its id that is


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

    def listing(self) -> Listing:
        """Return what files there are, and which belong together. Raises ConfigError."""
        audio, audio_spare = _by_id(self.track_dir, AUDIO_SUFFIXES, self.track_dir != self.base)
        beats, beats_spare = _by_id(self.beats_dir, BEATS_SUFFIXES, False)
        if self.beats_dir == self.track_dir:  # there a .txt may be anything, such as a README
            beats = {n: f for n, f in beats.items() if f.suffix == ".beats" or n in audio}
        partners = _match(list(audio), list(beats))
        tracks = tuple(Track(n, f, beats[partners[n]]) for n, f in audio.items() if n in partners)
        return Listing(audio, beats, tracks, (*audio_spare, *beats_spare))

    def tracks(self) -> list[Track]:
        """Return the tracks that have both audio and beats, by id.

        Raises:
            ConfigError: there is none, or a folder cannot be read.
        """
        found = self.listing().tracks
        if not found:
            raise ConfigError(
                f"The data set '{self.base}' has no audio in {self.track_dir} with beats of the "
                f"same name in {self.beats_dir}."
            )
        return list(found)

    def feature_dir(self, features: FeatureConfig) -> Path:
        """Return the folder of the store for these features."""
        if features.bpfed:
            named = self.base / "features" / "-".join(("bpf", *features.sources))
            return self.bpf_feature_dir or named
        return self.plain_feature_dir or self.base / "features" / "plain"


def plain_id(name: str) -> str:
    """Return an id as it is compared where no file is named alike.

    Upper and lower case, the forms in which Unicode writes an accent, and dots, spaces, hyphens
    and underscores are taken for the same.
    """
    text = unicodedata.normalize("NFC", name).casefold()
    return text.translate(str.maketrans(". -", "___"))


def _match(audio: list[str], beats: list[str]) -> dict[str, str]:
    """Return the annotation's id of each audio id that has one.

    The same id first; then the same ``plain_id``, without the word and underscore that all
    annotations may begin with (gtzan_blues_00000 belongs to blues.00000), where that leaves
    one audio file and one annotation alone.
    """
    known = set(beats)
    found = {name: name for name in audio if name in known}
    first = {plain_id(name).split("_")[0] for name in beats}
    prefix = first.pop() + "_" if len(first) == 1 else ""
    left: dict[str, tuple[list[str], list[str]]] = {}
    for name in audio:
        if name not in found:
            left.setdefault(plain_id(name), ([], []))[0].append(name)
    for name in beats:
        plain = plain_id(name)
        short = plain.removeprefix(prefix)
        key = plain if plain in left else short
        if name not in found and key in left:
            left[key][1].append(name)
    pairs = (pair for pair in left.values() if len(pair[0]) == len(pair[1]) == 1)
    return found | {mine[0]: theirs[0] for mine, theirs in pairs}


def _by_id(
    folder: Path, suffixes: tuple[str, ...], deeper: bool
) -> tuple[dict[str, Path], list[tuple[Path, Path]]]:
    """Return the file of each id, and those not used with the one that is.

    Of several with the same id the kind that stands first in ``suffixes`` is used, then the first
    by path.
    """
    files = [f for f in _files(folder, deeper) if f.suffix.lower() in suffixes]
    files.sort(key=lambda f: (f.stem, suffixes.index(f.suffix.lower()), f))
    used: dict[str, Path] = {}
    spare = []
    for file in files:
        if used.setdefault(file.stem, file) != file:
            spare.append((file, used[file.stem]))
    return used, spare


def _files(folder: Path, deeper: bool) -> list[Path]:
    """Return the files in a folder and, if ``deeper``, in its folders; none if it is missing."""
    found = []
    try:
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _files(entry, False) if deeper else []
            else:
                found.append(entry)
    except OSError as error:
        raise ConfigError(f"The folder '{folder}' cannot be read: {error.strerror}.") from None
    return found


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
            f"There is no data set folder '{base}'; docs/datasets.md shows what belongs in it."
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
