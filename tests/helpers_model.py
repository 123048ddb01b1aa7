"""Small networks and a small ONNX model, for tests that need one but not a good one."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beattrack.config import DecoderConfig, FeatureConfig, ModelConfig
from beattrack.features import feature_bins, flux_bins

if TYPE_CHECKING:
    from beattrack.model import BeatNetwork

PROVENANCE = {"run": "none: random weights for tests", "licence": "MIT", "commit": "0" * 40}


def tiny_features(channels: int = 1) -> FeatureConfig:
    """Features with few bins; two channels are the sub-bands bass and drums."""
    return FeatureConfig(bands_per_octave=3, flux_bands=4, bpfed=channels > 1)


def tiny_config(model: str = "tcn", channels: int = 1, **changes: Any) -> ModelConfig:
    """A network for ``tiny_features`` that is quick to export and to run."""
    features = tiny_features(channels)
    values: dict[str, Any] = {
        "model": model,
        "channels": channels,
        "bins": feature_bins(features),
        "flux_bins": flux_bins(features),
        "dim": 16,
        "depth": 2,
        "kernel": 3,
        "tempo_bins": 300,
    }
    return ModelConfig(**(values | changes))


def tiny_model(model: str = "tcn", channels: int = 1, **changes: Any) -> BeatNetwork:
    """A network of ``tiny_config`` with random weights that are always the same, in eval mode."""
    import torch

    from beattrack.model import build_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build_model(tiny_config(model, channels, **changes)).eval()


def tiny_onnx(model: str = "tcn", channels: int = 1) -> Path:
    """An ONNX file of ``tiny_model``, written once for all tests; do not change it."""
    return _write_onnx(model, channels)


@functools.cache
def _write_onnx(model: str, channels: int) -> Path:
    from beattrack.export import export_onnx

    folder = Path(tempfile.mkdtemp(prefix="beattrack-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / f"{model}-{channels}.onnx"
    network = tiny_model(model, channels)
    export_onnx(network, tiny_features(channels), DecoderConfig(), path, PROVENANCE)
    return path
