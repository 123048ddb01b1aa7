"""The exported file: the same numbers as torch, self-describing, and only there if right."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from beattrack import contract, export
from beattrack.config import DecoderConfig, FeatureConfig, ModelConfig
from beattrack.subbands import curves_hash
from beattrack_runtime.onnx_model import OnnxModel
from helpers_model import PROVENANCE, tiny_features, tiny_model, tiny_onnx

FRAMES = 150
NETWORKS = [("tcn", 1), ("allinonetempo", 2)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 7, 50, FRAMES])
@pytest.mark.parametrize(("model", "channels"), NETWORKS)
def test_torch_equals_onnx_in_any_blocks(model: str, channels: int, size: int) -> None:
    network = tiny_model(model, channels)
    shape = (FRAMES, channels, network.config.bins)
    x = 2 * np.random.default_rng(5).random(shape, dtype=np.float32)
    logits = network(torch.from_numpy(x).permute(1, 2, 0)[None])
    onnx_model = OnnxModel(tiny_onnx(model, channels))
    parts = [onnx_model.step(x[i : i + size]) for i in range(0, FRAMES, size)]
    for key, squash in (("beat", torch.sigmoid), ("downbeat", torch.sigmoid), ("tempo", None)):
        expected = squash(logits[key]) if squash else torch.softmax(logits[key], dim=-1)
        actual = np.concatenate([getattr(p, key) for p in parts])
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected[0].numpy(), rtol=0, atol=1e-5)


def test_metadata_describes_the_model() -> None:
    proto = onnx.load(tiny_onnx("allinonetempo", 2))
    values = {entry.key: entry.value for entry in proto.metadata_props}
    assert tuple(values) == tuple(contract.PREFIX + key for key in contract.METADATA)
    network = tiny_model("allinonetempo", 2)
    assert ModelConfig.from_json(values["beattrack.model"]) == network.config
    assert FeatureConfig.from_json(values["beattrack.features"]) == tiny_features(2)
    assert DecoderConfig.from_json(values["beattrack.decoder"]) == DecoderConfig()
    assert values["beattrack.subbands_sha256"] == curves_hash(tiny_features(2).sources)
    assert values["beattrack.latency_frames"] == str(network.latency_frames)
    assert json.loads(values["beattrack.provenance"]) == PROVENANCE


def test_graph_keeps_the_declared_names_and_no_source_paths() -> None:
    path = tiny_onnx("tcn")
    proto = onnx.load(path)
    states = list(tiny_model("tcn").init_state(1))
    inputs = [value.name for value in proto.graph.input]
    outputs = [value.name for value in proto.graph.output]
    assert inputs == ["frame", *(f"state.{s}" for s in states)]
    assert outputs == ["beat", "downbeat", "tempo", *(f"new_state.{s}" for s in states)]
    assert b".py" not in path.read_bytes()


def test_export_is_deterministic_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"old")
    network = tiny_model("tcn").train()
    export.export_onnx(network, tiny_features(), DecoderConfig(), path, PROVENANCE)
    assert network.training
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, tiny_onnx("tcn"))]
    assert digests[0] == digests[1]


def test_a_graph_that_disagrees_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_model("tcn", flux_mix=0.0)
    right = onnx.load(tiny_onnx("tcn"))
    monkeypatch.setattr(export, "_to_proto", lambda step: right)
    path = tmp_path / "model.onnx"
    with pytest.raises(export.ExportError, match="blocks of 1 frames"):
        export.export_onnx(other, tiny_features(), DecoderConfig(), path, PROVENANCE)
    assert not list(tmp_path.iterdir())


def test_features_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    features = dataclasses.replace(tiny_features(), flux_bands=5)
    with pytest.raises(ValueError, match="the features have"):
        export.export_onnx(
            tiny_model("tcn"), features, DecoderConfig(), tmp_path / "m.onnx", PROVENANCE
        )
