"""What the live chain costs on this machine: time per hop, start-up, memory, disk.

Run by ``just bench``; it fails (exit code 1) when a bound of docs/architecture.md is broken.
The chain runs on one CPU thread, hop by hop, as behind a microphone.
"""

from __future__ import annotations

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from beattrack.features import FeatureStream
from beattrack.following import Follower
from beattrack_runtime import open_tracker
from beattrack_runtime.session import load_model

SONG = Path(__file__).parents[1] / "runtime" / "demo" / "relaxation_piece.ogg"
BOUNDS = {
    "whole chain, median": (0.8, "ms"),
    "whole chain, p99": (5.0, "ms"),
    "filter, median": (0.3, "ms"),
    "peak memory": (150.0, "MB"),
    "first event line": (1.5, "s"),
    "environment": (350.0, "MB"),
}


def time_calls(calls: list[float]) -> tuple[float, float]:
    """Return median and 99th percentile in ms of durations in s; the first 50 are warm-up."""
    return tuple(float(np.percentile(calls[50:], q) * 1e3) for q in (50, 99))  # type: ignore[return-value]


def hop_by_hop(audio: NDArray[np.float32], rate: int) -> dict[str, tuple[float, float]]:
    """Time the whole chain and each of its parts on every hop of the audio."""
    tracker = open_tracker(sample_rate=rate)
    size = round(0.02 * rate)
    whole: list[float] = []
    times: dict[str, list[float]] = {"features": [], "model": [], "filter": []}
    for start in range(0, len(audio) - size, size):
        begun = time.perf_counter()
        tracker.push(audio[start : start + size])
        whole.append(time.perf_counter() - begun)
    model = load_model()
    features = FeatureStream(model.features)
    follower = Follower(model.decoder, model.features, model.latency_frames)
    hop = model.features.hop
    for start in range(0, len(audio) - hop, hop):  # any audio will do: the rate does not matter
        t0 = time.perf_counter()
        frames = features.push(audio[start : start + hop])
        t1 = time.perf_counter()
        found = model.step(frames)
        t2 = time.perf_counter()
        beat, downbeat = float(found.beat[0]), float(found.downbeat[0])
        follower.step(frames[0], beat, downbeat, found.tempo[0], power=0.1)
        t3 = time.perf_counter()
        for part, value in zip(times, (t1 - t0, t2 - t1, t3 - t2), strict=True):
            times[part].append(value)
    return {"whole chain": time_calls(whole)} | {k: time_calls(v) for k, v in times.items()}


def first_line_s() -> float:
    """Seconds from starting the program to its first line on stdout, median of five."""
    command = [sys.executable, "-m", "beattrack_runtime", "--file", str(SONG), "--output", "jsonl"]
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.readline()
        taken.append(time.perf_counter() - begun)
        process.stdout.close()
        process.kill()
        process.wait()
    return float(np.median(taken))


def peak_memory_mb() -> float:
    """Largest resident size of ``beattrack --file`` with every output, as in the demo, MB."""
    command = [sys.executable, "-m", "beattrack_runtime", "--file", str(SONG), "--output", "none"]
    with tempfile.TemporaryDirectory() as folder:
        for option, name in (("--beats", "a.beats"), ("--click", "a.wav"), ("--plot", "a.png")):
            command += [option, str(Path(folder) / name)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def environment_mb() -> float:
    """Disk used by the virtual environment that this runs in, MB."""
    size = sum(f.lstat().st_blocks * 512 for f in Path(sys.prefix).rglob("*"))
    return size / 2**20


def measure() -> list[tuple[str, float, str]]:
    """Return (what, value, unit) rows."""
    audio, rate = soundfile.read(SONG, dtype="float32")
    rows = []
    for part, (median, tail) in hop_by_hop(audio[: 60 * rate], rate).items():
        rows += [(f"{part}, median", median, "ms"), (f"{part}, p99", tail, "ms")]
    rows.append(("first event line", first_line_s(), "s"))
    rows.append(("peak memory", peak_memory_mb(), "MB"))
    rows.append(("environment", environment_mb(), "MB"))
    return rows


def machine(*packages: str) -> str:
    """Return one line: processor, cores, load, Python and the versions of these packages."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [s.split(":", 1)[1].strip() for s in info.read_text().splitlines()
                 if s.startswith("model name")]  # fmt: skip
        model = names[0] if names else model
    load = os.getloadavg()[0]
    libraries = ", ".join(f"{p} {version(p)}" for p in packages)
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, load {load:.1f}; Python {python}, {libraries}"


def main() -> int:
    """Print the table; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-bounds", action="store_true", help="print only, never fail")
    options = parser.parse_args()
    console = Console(width=100)
    console.print(machine("numpy", "onnxruntime"), highlight=False)
    table = Table("what", "measured", "bound")
    broken = False
    for what, value, unit in measure():
        bound = BOUNDS.get(what)
        bad = bound is not None and value > bound[0]
        broken |= bad
        shown = f"{bound[0]:g} {bound[1]}" if bound else ""
        table.add_row(what, f"{value:.3g} {unit}", shown, style="red" if bad else None)
    console.print(table)
    return 1 if broken and not options.no_bounds else 0


if __name__ == "__main__":
    sys.exit(main())
