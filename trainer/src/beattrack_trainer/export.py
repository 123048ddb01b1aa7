"""A finished run to one ONNX file, with its settings, its weights and a model card beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from beattrack.activations import Activations
from beattrack.config import ConfigError, DecoderConfig, FeatureConfig, ModelConfig
from beattrack.events import Event
from beattrack.export import TOLERANCE, ExportError, export_onnx
from beattrack.features import compute
from beattrack.model import BeatNetwork, build_model
from beattrack.tracker import BeatTracker
from beattrack_runtime.errors import BeattrackError, ModelError
from beattrack_runtime.onnx_model import OnnxModel
from beattrack_trainer.card import model_card
from beattrack_trainer.data.audio import read_audio
from beattrack_trainer.files import naming
from beattrack_trainer.training.environment import commit
from beattrack_trainer.training.runs import WEIGHTS, Run

FLUX_MIX = 0.3  # what the starter model has; chosen on development songs (docs/training.md)
CHECK_S = 30.0  # of real audio
CHECK_BLOCKS = (1, 50)  # frames a step
TIME_TOLERANCE_S = 1e-3  # between the events of torch and of the file
DEMO_SONG = Path(__file__).parents[3] / "runtime" / "demo" / "relaxation_piece.ogg"


@dataclass(frozen=True)
class ExportSettings:
    """What is decided when exporting rather than when training."""

    flux_mix: float | None = None  # 0-1; None is FLUX_MIX, or 0 for features without flux
    decoder: DecoderConfig = dataclasses.field(default_factory=DecoderConfig)
    licence: str = ""  # of the data


def export_run(
    run: Run, save_dir: Path, settings: ExportSettings, audio: Path | None, results: Path
) -> list[Path]:
    """Write ``<run_id>.onnx``, ``.settings.yaml``, ``.weights.pt`` and ``.md`` into a folder.

    Args:
        run: a finished run.
        save_dir: the folder; made if missing, files of the same names are replaced.
        settings: what is decided now.
        audio: what parity is checked on; None is the bundled song.
        results: where ``trainer eval`` wrote, for the card.

    Returns:
        The four files, the model first.

    Raises:
        ConfigError: no finished run there, or an impossible setting.
        ExportError: the file does not give the numbers or the events that the network gives.
    """
    save_dir.mkdir(parents=True, exist_ok=True)
    # A folder that a killed export left behind is hidden and never read again.
    with naming(save_dir), tempfile.TemporaryDirectory(prefix=".export-", dir=save_dir) as name:
        folder = Path(name)
        model = folder / f"{run.id}.onnx"
        check = write_onnx(run, model, settings, audio)
        words = OmegaConf.to_yaml(OmegaConf.create(run.settings().to_dict()))
        (folder / f"{run.id}.settings.yaml").write_text(words)
        shutil.copyfile(run.path / WEIGHTS, folder / f"{run.id}.weights.pt")
        card = model_card(run, OnnxModel(model), model.stat().st_size, check, results)
        (folder / f"{run.id}.md").write_text(card)
        files: list[Path] = []
        for suffix in ("settings.yaml", "weights.pt", "md", "onnx"):
            target = save_dir / f"{run.id}.{suffix}"
            (folder / target.name).replace(target)
            files.insert(0, target)
    return files


def write_onnx(run: Run, path: Path, settings: ExportSettings, audio: Path | None) -> str:
    """Write the model file alone, after checking it on real audio; return what was checked.

    Raises:
        ConfigError, ExportError: as ``export_run``.
    """
    network, features, note = run.load()
    mixed = _mix(network, settings.flux_mix)
    samples, song = check_audio(features, audio)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.onnx")
    try:
        provenance = make_provenance(run, note, settings)
        export_onnx(mixed, features, settings.decoder, temporary, provenance)
        worst = check_parity(mixed, temporary, samples)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    seconds = len(samples) / features.sample_rate
    return f"{seconds:.0f} s of {song}: the same events, probabilities within {worst:.1g}"


def is_export_of(path: Path, run: Run, settings: ExportSettings) -> bool:
    """Whether a file is there and is what ``write_onnx`` would make of the run now."""
    try:
        model = OnnxModel(path)
    except ModelError:
        return False
    return (
        model.provenance == make_provenance(run, run.note(), settings)
        and model.decoder == settings.decoder
        and model.config == _mixed_config(model.config, settings.flux_mix)
    )


def _mixed_config(config: ModelConfig, flux_mix: float | None) -> ModelConfig:
    share = flux_mix if flux_mix is not None else FLUX_MIX if config.flux_bins else 0.0
    return dataclasses.replace(config, flux_mix=share)


def _mix(network: BeatNetwork, flux_mix: float | None) -> BeatNetwork:
    """Return the network with this share of the no-learning flux logit in its beat logit."""
    mixed = build_model(_mixed_config(network.config, flux_mix)).eval()
    mixed.load_state_dict(network.state_dict())
    return mixed


def make_provenance(run: Run, note: dict[str, Any], settings: ExportSettings) -> dict[str, Any]:
    """Return what the file says of its origin."""
    return {
        "run": run.id,
        "settings": note["settings"],
        "tracks": note["tracks"],
        "data_licence": settings.licence,
        "weights_sha256": hashlib.sha256((run.path / WEIGHTS).read_bytes()).hexdigest(),
        "commit": commit(),
    }


def check_audio(features: FeatureConfig, audio: Path | None) -> tuple[NDArray[np.float32], str]:
    """Return up to 30 s of music, float32 [n] at the features' rate, and what to call it.

    Raises:
        ConfigError: the file cannot be read, or is shorter than the model's window.
    """
    rate = features.sample_rate
    path = audio or (DEMO_SONG if DEMO_SONG.is_file() else None)
    if path is None:  # an installed package without the repository around it
        return clicks(CHECK_S, rate), "generated clicks in noise (no song is at hand)"
    try:
        samples = read_audio(path, rate)[: int(CHECK_S * rate)]
    except (OSError, ValueError, BeattrackError) as error:
        raise ConfigError(f"'{path}' cannot be read to check the model on it: {error}") from None
    if len(samples) < features.window:
        raise ConfigError(f"'{path}' is too short to check a model on it; give another --audio.")
    return samples, path.name


def clicks(seconds: float, rate: int) -> NDArray[np.float32]:
    """Return decaying clicks, two a second, in faint noise: float32 [n]."""
    random = np.random.default_rng(0)
    since = np.arange(int(seconds * rate)) % (rate // 2) / rate
    sound = np.exp(-40 * since) * np.sin(2 * np.pi * 200 * since)
    noise = 0.01 * random.standard_normal(len(sound))
    return np.asarray(0.5 * sound + noise, dtype=np.float32)


class _Replay:
    """An ActivationModel that gives out what torch said of the whole sequence."""

    def __init__(self, model: OnnxModel, all_at_once: Activations) -> None:
        self.features, self.decoder = model.features, model.decoder
        self.latency_frames = model.latency_frames
        self._said = all_at_once
        self._at = 0

    def step(self, frames: NDArray[np.float32]) -> Activations:
        part = slice(self._at, self._at + len(frames))
        self._at = part.stop
        said = self._said
        return Activations(said.beat[part], said.downbeat[part], said.tempo[part])

    def reset(self) -> None:
        self._at = 0


def check_parity(network: BeatNetwork, path: Path, samples: NDArray[np.float32]) -> float:
    """Compare torch on the whole sequence with the file, as the runtime reads it, step by step.

    Args:
        network: in evaluation mode.
        path: the ONNX file.
        samples: float32 [n], mono at the model's rate.

    Returns:
        The greatest difference of a probability.

    Raises:
        ExportError: probabilities differ by more than 1e-4, or the events are not the same.
    """
    model = OnnxModel(path)
    frames = compute(samples, model.features)
    expected = _torch_activations(network, frames)
    worst = 0.0
    for size in CHECK_BLOCKS:
        model.reset()
        parts = [model.step(frames[i : i + size]) for i in range(0, len(frames), size)]
        for key in ("beat", "downbeat", "tempo"):
            actual = np.concatenate([getattr(p, key) for p in parts])
            worst = max(worst, float(np.abs(actual - getattr(expected, key)).max()))
        if not worst <= TOLERANCE:  # also true of NaN
            raise ExportError(
                f"On real audio the exported model in blocks of {size} frames differs from torch "
                f"by {worst:.2g} in probability, more than {TOLERANCE:g}; nothing was written."
            )
    ours = BeatTracker(_Replay(model, expected)).push(samples)
    theirs = BeatTracker(model).push(samples)
    if not _same_events(ours, theirs):
        raise ExportError(
            "On real audio the exported model leads to other beats than torch; nothing was written."
        )
    return worst


@torch.no_grad()
def _torch_activations(network: BeatNetwork, frames: NDArray[np.float32]) -> Activations:
    out = network(torch.from_numpy(frames.transpose(1, 2, 0)[None].copy()))
    beat, downbeat = (torch.sigmoid(out[k])[0].numpy() for k in ("beat", "downbeat"))
    return Activations(beat, downbeat, torch.softmax(out["tempo"], dim=-1)[0].numpy())


def _same_events(ours: list[Event], theirs: list[Event]) -> bool:
    """Whether both are the same but for the last digits of their times."""
    if len(ours) != len(theirs):
        return False
    for one, other in zip(ours, theirs, strict=True):
        a, b = one.to_dict(), other.to_dict()
        exact = ("type", "state", "position", "beats_per_bar", "emitted_s")
        if any(a.get(k) != b.get(k) for k in exact):
            return False
        if abs(a.get("time_s", 0.0) - b.get("time_s", 0.0)) > TIME_TOLERANCE_S:
            return False
    return True
