"""A feature store: for each track a memory-mapped array, its beats, and what they were made from.

    <store>/store.json          format, feature settings, their hash
    <store>/skipped.json        tracks that the last preprocessing could not use, and why
    <store>/tracks/<id>.npy     float16 [frames, channels, bins]
    <store>/tracks/<id>.json    beats, and size and time of the audio and annotation files

A track is in the store when its ``.json`` is: that is written last. Every file is renamed into
place when it is whole, so a process may be killed at any moment. One process at a time adds to a
store. Half precision keeps 11 bits: an error of at most 0.001 where the log spectrum is below 4,
which is 20 dB above a full-scale sine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from beattrack.config import ConfigError, FeatureConfig
from beattrack.features import feature_bins
from beattrack.subbands import CURVES, curves_hash

FORMAT = 2
NOTE = "store.json"
SKIPPED = "skipped.json"
_TEMPORARY = ".part-"


def check_curves(folder: str, features: FeatureConfig) -> None:
    """Refuse a ``bpf_band_dir`` whose curves are not the installed ones.

    Training and runtime weight the spectrum with the same curves, so there is one place for them.

    Raises:
        ConfigError: a curve of the sources is missing there, or it differs.
    """
    if not folder or not features.bpfed:
        return
    for source in features.sources:
        name = f"{source}.csv"
        try:
            same = (Path(folder) / name).read_bytes() == (CURVES / name).read_bytes()
        except OSError as error:
            raise ConfigError(f"bpf_band_dir: '{folder}/{name}': {error.strerror}.") from None
        if not same:
            raise ConfigError(
                f"The curve '{folder}/{name}' is not the installed one; copy the curves to "
                f"'{CURVES}', from which the runtime takes them too."
            )


def feature_hash(features: FeatureConfig) -> str:
    """Return what tells feature settings apart, the sub-band curves' content included."""
    curves = curves_hash(features.sources) if features.bpfed else ""
    return hashlib.sha256(f"{FORMAT} {features.to_json()} {curves}".encode()).hexdigest()[:16]


def stamp(path: Path) -> list[int]:
    """Return size in bytes and time of change in ns: what tells whether a file has changed."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class TrackNote:
    """What a store knows of a track beside its frames."""

    audio: list[int]  # stamp of the audio file
    annotation: list[int]  # stamp of the annotation file
    seconds: float  # of audio
    frames: int
    bytes: int  # of the .npy file
    beats: list[list[float]]  # seconds, beat in bar; those within the audio
    remark: str = ""  # what the decoder had to say


class FeatureStore:
    """A folder of features; open it with ``open`` to read, with ``create`` to add to it."""

    def __init__(self, path: Path, features: FeatureConfig) -> None:
        self.path = path
        self.features = features
        self.shape = (features.channels, feature_bins(features))  # of a frame

    @classmethod
    def create(cls, path: Path, features: FeatureConfig) -> FeatureStore:
        """Make the folder, or open it if it holds the same features.

        Raises:
            ConfigError: it holds features of other settings.
        """
        if (path / NOTE).exists():
            store = cls.open(path)
            store.require(features)
            return store
        (path / "tracks").mkdir(parents=True, exist_ok=True)
        note = {"format": FORMAT, "features": features.to_dict(), "hash": feature_hash(features)}
        _write(path / NOTE, json.dumps(note, indent=2) + "\n")
        return cls(path, features)

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open a store.

        Raises:
            ConfigError: it is none, or it was made by another version or with other curves.
        """
        try:
            note = json.loads((path / NOTE).read_text())
            features = FeatureConfig.from_dict(note["features"])
            known = note["hash"] == feature_hash(features)
        except FileNotFoundError:
            raise ConfigError(
                f"There are no features in '{path}'; make them with: trainer preprocess"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"'{path / NOTE}' is damaged; preprocess again.") from None
        if not known:
            raise ConfigError(
                f"The features in '{path}' were made by another version; remove the folder and "
                "preprocess again."
            )
        return cls(path, features)

    def require(self, features: FeatureConfig) -> None:
        """Raise ConfigError, naming the keys that differ, unless the settings are these."""
        mine, wanted = self.features.to_dict(), features.to_dict()
        different = ", ".join(f"{k}={mine[k]}" for k in mine if mine[k] != wanted[k])
        if different:
            raise ConfigError(
                f"The features in '{self.path}' are stale: they were made with {different}. "
                "Give another folder, or remove it and preprocess again."
            )

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Keep other processes from adding, and clear away what a killed one left half-written.

        Raises:
            ConfigError: another process is adding to the store.
        """
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"Another process is adding to '{self.path}'; wait for it or stop it."
                ) from None
            for folder in (self.path, self.path / "tracks"):
                for left in folder.glob(f"{_TEMPORARY}*"):
                    left.unlink(missing_ok=True)
            yield

    def names(self) -> list[str]:
        """Return the ids of the tracks in the store, sorted.

        Preprocessing removes what the data set no longer has, so these are the data set's.
        """
        return sorted(f.stem for f in (self.path / "tracks").glob("[!.]*.json"))

    def note(self, name: str) -> TrackNote | None:
        """Return what is known of a track; None if it is not in the store, or not whole."""
        try:
            note = TrackNote(**json.loads(self._file(name, ".json").read_text()))
            whole = self._file(name, ".npy").stat().st_size == note.bytes
        except (OSError, ValueError, TypeError):
            return None
        return note if whole else None

    def frames(self, name: str) -> NDArray[np.float16]:
        """Return a track's features without reading them yet, float16 [frames, channels, bins].

        Raises:
            ConfigError: the file is missing or damaged.
        """
        path = self._file(name, ".npy")
        try:
            frames: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"'{path}' is damaged ({error}); preprocess again.") from None
        if frames.dtype != np.float16 or frames.shape[1:] != self.shape:
            raise ConfigError(f"'{path}' holds something else than features; preprocess again.")
        return frames

    def beats(self, name: str) -> NDArray[np.float64]:
        """Return a track's beats, float64 [beats, 2]: seconds, beat in bar.

        Raises:
            ConfigError: the track's files are missing or damaged.
        """
        note = self.note(name)
        if note is None:
            where = self._file(name, ".json")
            raise ConfigError(f"'{where}' or its .npy is damaged; preprocess again.")
        return np.array(note.beats, dtype=np.float64).reshape(-1, 2)

    def add(self, name: str, frames: NDArray[np.float16], note: dict[str, Any]) -> None:
        """Add a track or replace it.

        Args:
            name: its id.
            frames: float16 [frames, channels, bins].
            note: the fields of its TrackNote but ``frames`` and ``bytes``.
        """
        header = {"descr": "<f2", "fortran_order": False, "shape": frames.shape}
        with _replacing(self._file(name, ".npy")) as file:
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            file.write(np.ascontiguousarray(frames).data)
            size = file.tell()
        self.annotate(name, TrackNote(frames=len(frames), bytes=size, **note))

    def annotate(self, name: str, note: TrackNote) -> None:
        """Write what is known of a track."""
        _write(self._file(name, ".json"), json.dumps(asdict(note)) + "\n")

    def remove(self, name: str) -> None:
        """Take a track out of the store; one that is not there is no error."""
        for suffix in (".json", ".npy"):
            self._file(name, suffix).unlink(missing_ok=True)

    def write_skipped(self, reasons: dict[str, str]) -> None:
        """Write which tracks could not be used, and why."""
        _write(self.path / SKIPPED, json.dumps(reasons, indent=2, ensure_ascii=False) + "\n")

    def skipped(self) -> set[str]:
        """Return the ids of the tracks that could not be used when last they were preprocessed."""
        try:
            return set(json.loads((self.path / SKIPPED).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return set()

    def _file(self, name: str, suffix: str) -> Path:
        # Not with_suffix: an id may contain dots.
        return self.path / "tracks" / f"{name}{suffix}"


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Open a file under a temporary name; it is renamed into place once it is on the disk."""
    temporary = target.parent / f"{_TEMPORARY}{os.getpid()}{target.suffix}"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write(target: Path, text: str) -> None:
    with _replacing(target) as file:
        file.write(text.encode())
