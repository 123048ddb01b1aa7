"""What each tracker says of each song: run once, kept by song and version."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from beattrack_trainer.data.audio import read_audio
from peers.catalogue import Peer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OWN_CODE = ("shared/src", "runtime/src")
NO_BEATS_FROM = ("outputs", "live")  # folders of ours that only pass on what was found
SLOWEST = 30  # times real time; a tracker that takes longer has hung
START_S = 600
NUMBERS = ("hop_s", "hop_median_ms", "hop_p99_ms", "busy_s", "peak_mb")


class HearingError(Exception):
    """A tracker failed on a song; the message is one sentence."""


@dataclass(frozen=True)
class Listener:
    """A peer that can be run here."""

    peer: Peer
    python: Path
    key: str  # changes with its version, its runner and, for ours, the code and the model


@dataclass(frozen=True)
class Heard:
    """What one tracker said of one song."""

    events: NDArray[np.float64]  # [beats, 3]: stated time, beat in bar or 0, emitted time (s)
    seconds: float  # length of the audio
    cost: dict[str, float]  # of NUMBERS, and ``timed_s`` where not all was timed
    versions: dict[str, str]


def own_hash(model: Path | None) -> str:
    """Return 12 hex digits of our code and of a model file (None: the shipped one)."""
    code = (f for part in OWN_CODE for f in (ROOT / part).rglob("*.py"))
    files = [f for f in code if not set(f.relative_to(ROOT).parts) & set(NO_BEATS_FROM)]
    files += [model] if model else (ROOT / "runtime/src").rglob("*.onnx")
    return _hash(sorted(files))


def runner_hash(peer: Peer) -> str:
    """Return 12 hex digits of what runs a peer."""
    return _hash([HERE / "runners" / "common.py", HERE / "runners" / f"{peer.runner}.py"])


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def song_key(audio: Path) -> str:
    """Return 16 hex digits of an audio file's content."""
    with audio.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


class Hearings:
    """The kept answers of all trackers, one file for each song and tracker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, listener: Listener, song: str) -> Path:
        """Return the file of an answer."""
        return self._folder / f"{listener.peer.runner}-{listener.key}" / f"{song}.json"

    def known(self, listener: Listener, song: str) -> Heard | None:
        """Return a kept answer; None if there is none that can be read."""
        try:
            return parse(json.loads(self.place(listener, song).read_text()))
        except (OSError, ValueError):
            return None

    def listen(self, listener: Listener, song: str, wav: Path, seconds: float) -> Heard:
        """Run a tracker on a WAV file and keep its answer.

        Raises:
            HearingError: it failed, or what it answered makes no sense; nothing is kept.
        """
        peer, place = listener.peer, self.place(listener, song)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wav.parent) as scratch:
            answer = Path(scratch) / "answer.json"
            command = [str(listener.python), "-W", "ignore", "-m", f"peers.runners.{peer.runner}"]
            command += [str(wav), str(answer), *peer.arguments]
            _run(command, scratch, SLOWEST * seconds + START_S)
            try:
                raw = {**json.loads(answer.read_text()), "seconds": seconds}
                heard = parse(raw)
            except (OSError, ValueError) as error:
                raise HearingError(f"it gave no usable answer: {error}") from None
        temporary = place.with_name(f".{os.getpid()}-{place.name}")
        temporary.write_text(json.dumps(raw))
        temporary.replace(place)
        return heard


def _run(command: list[str], folder: str, limit_s: float) -> None:
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    )
    paths = {
        "PYTHONPATH": str(HERE.parent),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **threads, **paths}, timeout=limit_s,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HearingError(f"it had no answer after {limit_s:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise HearingError(lines[-1].strip())


def parse(raw: Any) -> Heard:
    """Return a checked answer.

    Raises:
        ValueError: it is not one: a number is missing, not finite or impossible.
    """
    try:
        events = np.array(raw["beats"], dtype=np.float64).reshape(-1, 3)
        names = [*NUMBERS, *(["timed_s"] if "timed_s" in raw else [])]
        cost = {name: float(raw[name]) for name in names}
        seconds = float(raw["seconds"])
        versions = {str(k): str(v) for k, v in raw["versions"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from None
    numbers = [*events.ravel(), *cost.values(), seconds]
    if not np.isfinite(numbers).all() or min(*cost.values(), seconds) < 0:
        raise ValueError("a number in it is impossible")
    return Heard(events[np.argsort(events[:, 2], kind="stable")], seconds, cost, versions)


def decode(audio: Path, rate: int, folder: Path) -> tuple[Path, float]:
    """Write a song as mono float WAV at a rate and return the file and its length in seconds.

    All trackers get their audio this way: one decoder, channels averaged, soxr's high quality.

    Raises:
        BeattrackError: the file cannot be read.
        ValueError: it holds no audio.
    """
    wav = folder / f"{rate}.wav"
    samples = read_audio(audio, rate)
    if not len(samples):
        raise ValueError(f"'{audio}' holds no audio.")
    soundfile.write(wav, samples, rate, subtype="FLOAT")
    return wav, len(samples) / rate


def here(peer: Peer) -> Listener:
    """Return our own tracker, which runs in this interpreter."""
    model = Path(peer.arguments[0]) if peer.arguments else None
    return Listener(peer, Path(sys.executable), f"{own_hash(model)}-{runner_hash(peer)}")
