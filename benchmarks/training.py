"""What preprocessing and training cost on this machine, one thread each.

Run by ``just bench-training``; it fails (exit code 1) when a bound of docs/architecture.md is
broken. All material is the bundled song. Speeds count processor time, so that other work on the
machine does not look like ours; each is the median of several runs, with the least and the most.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from beattrack.config import FeatureConfig, ModelConfig
from beattrack_trainer.config import AugmentConfig, TrainConfig
from beattrack_trainer.data.preprocess import compute_features
from beattrack_trainer.data.store import FeatureStore
from beattrack_trainer.training.excerpts import Excerpts, Item
from beattrack_trainer.training.losses import all_losses
from beattrack_trainer.training.module import BeatModule
from beattrack_trainer.training.train import fit_model_config
from cost import SONG, machine

PLAIN = FeatureConfig()
TWO = FeatureConfig(bpfed=True, sources=("bass", "drums"))
AT_LEAST = {
    "preprocessing, Ogg mono": 100,
    "preprocessing, FLAC stereo": 100,
    "preprocessing, MP3 stereo": 100,
    "training, allinonetempo": 6000,
}
AT_MOST = {"data loading, allinonetempo": 10, "data loading, tcn": 10}
RUNS = 5  # of preprocessing
STEPS = 9  # of training, behind two that warm up
TRACKS = 6


@dataclass(frozen=True)
class Row:
    """One measurement: several values of one thing."""

    what: str
    values: list[float]
    unit: str

    @property
    def median(self) -> float:
        """What is held against the bound."""
        return float(np.median(self.values))

    @property
    def broken(self) -> bool:
        """Whether a bound is."""
        below = self.median < AT_LEAST.get(self.what, -np.inf)
        return below or self.median > AT_MOST.get(self.what, np.inf)

    def bound(self) -> str:
        """Return the bound as text."""
        if self.what in AT_LEAST:
            return f"at least {AT_LEAST[self.what]}"
        return f"at most {AT_MOST[self.what]}" if self.what in AT_MOST else ""


def cpu_s(work: Callable[[], object]) -> float:
    """Return the processor time that a call takes, seconds."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def preprocessing(folder: Path) -> Iterator[Row]:
    """Time a file to its features with two sub-bands: decoding, resampling and all."""
    audio, rate = soundfile.read(SONG, dtype="float32")
    stereo = np.stack([audio, np.roll(audio, 500)], axis=1)
    files = {"Ogg mono": SONG}
    for name, suffix in (("FLAC stereo", "flac"), ("MP3 stereo", "mp3")):
        files[name] = folder / f"song.{suffix}"
        soundfile.write(files[name], stereo, rate)
    seconds = len(audio) / rate
    for name, path in files.items():
        compute_features(path, TWO)
        speeds = [seconds / cpu_s(lambda p=path: compute_features(p, TWO)) for _ in range(RUNS)]  # type: ignore[misc]
        yield Row(f"preprocessing, {name}", speeds, "x real time")


def make_store(folder: Path, features: FeatureConfig) -> tuple[Item, ...]:
    """Return tracks to train on: the song several times, with beats at 120 a minute."""
    store = FeatureStore.create(folder, features)
    frames, seconds = compute_features(SONG, features)
    beats = [[0.5 * i, float(i % 4 + 1)] for i in range(int(2 * seconds))]
    note = {"audio": [0, 0], "annotation": [0, 0], "seconds": seconds, "beats": beats}
    for number in range(TRACKS):
        store.add(f"{number}", frames, note)
    return tuple(Item(store, name) for name in store.names())


def training(items: tuple[Item, ...], kind: str, what: str) -> Iterator[Row]:
    """Time steps on excerpts of the default length and batch: loss, gradients, optimiser."""
    features, config = items[0].store.features, TrainConfig()
    model = fit_model_config(ModelConfig(model=kind), features)
    module = BeatModule(model, config, features)
    optimiser = torch.optim.AdamW(module.network.parameters(), lr=config.learning_rate)
    count = (STEPS + 2) * config.batch_size
    excerpts = Excerpts(items, features, model, config, range(count), AugmentConfig())
    speeds, shares = [], []
    loader = iter(DataLoader(excerpts, config.batch_size, num_workers=config.workers))
    for number in range(STEPS + 2):
        begun = time.perf_counter()
        batch = next(loader)
        waited = time.perf_counter() - begun
        used = cpu_s(lambda b=batch: step(module, optimiser, b))  # type: ignore[misc]
        if number >= 2:
            speeds.append(config.batch_size * config.frames / used)
            shares.append(100 * waited / (time.perf_counter() - begun))
    yield Row(f"training, {what}", speeds, "frames/CPU s")
    yield Row(f"data loading, {what}", shares, "% of a step")


def step(module: BeatModule, optimiser: torch.optim.Optimizer, batch: dict[str, Tensor]) -> None:
    """Do what one step of training does."""
    loss = all_losses(module.network(batch["frames"]), batch, module.config)["loss"]
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(module.network.parameters(), module.config.gradient_clip)
    optimiser.step()


def measure() -> Iterator[Row]:
    """Yield all rows."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from preprocessing(folder)
        plain, two = (make_store(folder / n, f) for n, f in (("plain", PLAIN), ("two", TWO)))
        yield from training(plain, "allinonetempo", "allinonetempo")
        yield from training(two, "allinonetempo", "allinonetempo, two sub-bands")
        yield from training(plain, "tcn", "tcn")


def main() -> int:
    """Print the table; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-bounds", action="store_true", help="print only, never fail")
    options = parser.parse_args()
    console = Console(width=100)
    console.print(machine("numpy", "torch", "soxr"), highlight=False)
    table = Table("what", "median", "least", "most", "unit", "bound")
    rows = list(measure())
    for row in rows:
        values = [f"{v:,.1f}" if v < 100 else f"{v:,.0f}" for v in
                  (row.median, min(row.values), max(row.values))]  # fmt: skip
        table.add_row(row.what, *values, row.unit, row.bound(), style="red" if row.broken else None)
    console.print(table)
    return 1 if any(row.broken for row in rows) and not options.no_bounds else 0


if __name__ == "__main__":
    sys.exit(main())
