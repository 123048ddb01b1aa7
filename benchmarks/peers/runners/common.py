"""What every runner shares: reading the song, timing the hops, the answer as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

WARM_UP = 50  # hops that are not timed
Beat = tuple[float, int, float]  # stated time (s), beat in bar or 0, stream time when it was said


class Meter:
    """Counts the processor time of this process, which other programs do not add to."""

    def __init__(self) -> None:
        self._hops: list[float] = []

    def hop(self, work: Callable[..., Any], *given: Any) -> Any:
        """Do the work of one hop on what is given and return what it returns."""
        begun = time.process_time()
        result = work(*given)
        self._hops.append(time.process_time() - begun)
        return result

    def cost(self, hop_s: float) -> dict[str, float]:
        """Return median and p99 of a hop (ms), its length (s) and all processor time (s)."""
        timed = self._hops[WARM_UP:] or self._hops or [0.0]
        median, tail = np.percentile(timed, [50, 99]) * 1e3
        return {
            "hop_s": hop_s,
            "hop_median_ms": float(median),
            "hop_p99_ms": float(tail),
            "busy_s": sum(self._hops),
        }


def song() -> Path:
    """Return the audio file that this runner was given: mono WAV at the tracker's rate."""
    return Path(sys.argv[1])


def blocks(hop: int) -> Iterator[NDArray[np.float32]]:
    """Yield float32 [hop]: the song as a sound card hands it over, without a last short one."""
    with soundfile.SoundFile(song()) as file:
        while len(block := file.read(hop, dtype="float32")) == hop:
            yield block


def whole() -> NDArray[np.float32]:
    """Return the song at once, float32 [samples]."""
    audio: NDArray[np.float32] = soundfile.read(song(), dtype="float32")[0]
    return audio


def peak_memory_mb() -> float:
    """Return the largest resident size of this process, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the process that started this one as well
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(
    beats: list[Beat], cost: dict[str, float], packages: list[str], memory_mb: float | None = None
) -> None:
    """Write what the tracker said, what it cost and the versions of these packages."""
    said = {
        "beats": [[float(at), int(position), float(emitted)] for at, position, emitted in beats],
        **cost,
        "peak_mb": peak_memory_mb() if memory_mb is None else memory_mb,
        "versions": {name: version(name) for name in packages},
    }
    Path(sys.argv[2]).write_text(json.dumps(said))
