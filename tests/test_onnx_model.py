"""The runtime's reader: the streaming contract, and one clear sentence for any file it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from beattrack.activations import Activations
from beattrack.config import DecoderConfig
from beattrack_runtime import model_file
from beattrack_runtime.errors import BeattrackError, ModelError
from beattrack_runtime.onnx_model import OnnxModel
from helpers_model import PROVENANCE, tiny_config, tiny_features, tiny_onnx


@pytest.fixture
def model() -> OnnxModel:
    return OnnxModel(tiny_onnx("allinonetempo", 2))


def random_frames(count: int, channels: int = 2) -> NDArray[np.float32]:
    shape = (count, channels, tiny_config(channels=channels).bins)
    return 2 * np.random.default_rng(6).random(shape, dtype=np.float32)


def run(model: OnnxModel, frames: NDArray[np.float32], size: int) -> Activations:
    parts = [model.step(frames[i : i + size]) for i in range(0, len(frames), size)]
    return Activations(
        np.concatenate([p.beat for p in parts]),
        np.concatenate([p.downbeat for p in parts]),
        np.concatenate([p.tempo for p in parts]),
    )


def assert_same(a: Activations, b: Activations, tolerance: float) -> None:
    np.testing.assert_allclose(a.beat, b.beat, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.downbeat, b.downbeat, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.tempo, b.tempo, rtol=0, atol=tolerance)


def test_properties_come_from_the_file(model: OnnxModel) -> None:
    assert model.features == tiny_features(2)
    assert model.config == tiny_config("allinonetempo", 2)
    assert model.decoder == DecoderConfig()
    assert model.provenance == PROVENANCE
    assert model.latency_frames == 2
    assert model.providers == ["CPUExecutionProvider"]


def test_outputs_are_probabilities(model: OnnxModel) -> None:
    result = model.step(random_frames(30))
    assert result.beat.shape == result.downbeat.shape == (30,)
    assert result.tempo.shape == (30, 300)
    for values in (result.beat, result.downbeat, result.tempo):
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() <= 1
    np.testing.assert_allclose(result.tempo.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_blocks_do_not_matter_and_reset_resets(model: OnnxModel, size: int) -> None:
    frames = random_frames(120)
    whole = run(model, frames, 120)
    later = run(model, frames, 120)
    assert np.abs(whole.downbeat - later.downbeat).max() > 1e-4
    model.reset()
    assert_same(run(model, frames, size), whole, 1e-5)
    model.reset()
    assert_same(run(model, frames, 120), whole, 0)


def test_two_models_do_not_share_their_state(model: OnnxModel) -> None:
    frames = random_frames(20)
    first = model.step(frames)
    assert_same(OnnxModel(tiny_onnx("allinonetempo", 2)).step(frames), first, 0)


@pytest.mark.parametrize("shape", [(0, 2, 29), (3, 29), (3, 1, 29), (3, 2, 5)])
def test_wrong_frames_are_refused(model: OnnxModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        model.step(np.zeros(shape, dtype=np.float32))


# Files that must be refused

Change = Callable[[onnx.ModelProto], None]


def set_metadata(key: str, value: str | None) -> Change:
    """Replace one metadata entry, or remove it if ``value`` is None."""

    def change(proto: onnx.ModelProto) -> None:
        kept = {e.key: e.value for e in proto.metadata_props if e.key != f"beattrack.{key}"}
        if value is not None:
            kept[f"beattrack.{key}"] = value
        onnx.helper.set_model_props(proto, kept)

    return change


def edit_config(key: str, **changes: object) -> Change:
    """Change values of one of the configurations in the metadata."""

    def change(proto: onnx.ModelProto) -> None:
        values = next(e.value for e in proto.metadata_props if e.key == f"beattrack.{key}")
        set_metadata(key, json.dumps(json.loads(values) | changes))(proto)

    return change


def no_metadata(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]


def rename_frame(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].name = "frames"
    for node in proto.graph.node:
        node.input[:] = ["frames" if name == "frame" else name for name in node.input]


def fix_frames(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 4


def extra_output(proto: onnx.ModelProto) -> None:
    value = onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1])
    proto.graph.node.append(
        onnx.helper.make_node("Constant", [], ["extra"], value_floats=[1.0], name="extra")
    )
    proto.graph.output.append(value)


def add_state(shape: list[int | str], kind: int) -> Change:
    """Add a state tensor that the graph only hands on."""

    def change(proto: onnx.ModelProto) -> None:
        make = onnx.helper.make_tensor_value_info
        proto.graph.input.append(make("state.more", kind, shape))
        proto.graph.output.append(make("new_state.more", kind, shape))
        proto.graph.node.append(
            onnx.helper.make_node("Identity", ["state.more"], ["new_state.more"])
        )

    return change


def external_data(proto: onnx.ModelProto) -> None:
    weights = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/hostname")


def not_finite(proto: onnx.ModelProto) -> None:
    for weights in proto.graph.initializer:
        if weights.name.endswith("heads.tempo.bias"):
            weights.raw_data = b"\xff" * len(weights.raw_data)


FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
REFUSED = {
    "no-metadata": (no_metadata, "not one exported by beattrack"),
    "newer-version": (set_metadata("format_version", "2"), "format version '2', but only 1"),
    "no-features": (set_metadata("features", None), "beattrack.features is missing"),
    "not-json": (set_metadata("model", "{"), "not valid JSON"),
    "deep-json": (set_metadata("decoder", "[" * 100_000), "not valid"),
    "long": (set_metadata("model", " " * 2**21), "longer than"),
    "unknown-key": (edit_config("model", dims=16), "did you mean 'dim'"),
    "bad-value": (edit_config("features", hop=-1), "hop=-1"),
    "impossible-features": (edit_config("features", flux_bands=64), "flux_bands=64"),
    "other-bins": (edit_config("model", bins=40), "do not have the shape"),
    "other-tempo": (edit_config("model", tempo_bins=10), "outputs that it declares"),
    "other-latency": (set_metadata("latency_frames", "3"), "latency_frames"),
    "provenance-list": (set_metadata("provenance", "[]"), "not a JSON mapping"),
    "sub-bands": (set_metadata("subbands_sha256", "0" * 64), "sub-band curves differ"),
    "renamed-input": (rename_frame, "inputs and outputs"),
    "fixed-frames": (fix_frames, "shape it declares"),
    "extra-output": (extra_output, "inputs and outputs"),
    "huge-state": (add_state([1, 2**24 + 1], FLOAT), "larger than 64 MB"),
    "open-state": (add_state([1, "k"], FLOAT), "no known type"),
    "double-state": (add_state([1, 2], DOUBLE), "no known type"),
    "external-data": (external_data, "other files"),
    "not-finite": (not_finite, "outputs that it declares"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_changed_file_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    proto = onnx.load(tiny_onnx("allinonetempo", 2))
    change(proto)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        OnnxModel(path)
    assert_one_sentence(str(caught.value))


def assert_one_sentence(text: str) -> None:
    assert "\n" not in text
    assert text.endswith((".", "?"))
    assert len(text) < 600


@pytest.mark.parametrize("content", [b"", b"not a model" * 10, b"\x08\x0a"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not an ONNX model"):
        OnnxModel(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        OnnxModel(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxModel(tmp_path)
    assert issubclass(ModelError, BeattrackError)
    assert issubclass(ModelError, ValueError)


def test_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "MAX_FILE_BYTES", 2**10)
    with pytest.raises(ModelError, match="larger than"):
        OnnxModel(tiny_onnx("tcn"))


def test_unknown_provider_is_refused() -> None:
    with pytest.raises(ModelError, match="no execution provider 'AbacusExecutionProvider'"):
        OnnxModel(tiny_onnx("tcn"), providers=["AbacusExecutionProvider"])


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255))))
def test_damaged_file_is_refused_or_runs(
    tmp_path: Path, cut: float, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(tiny_onnx("tcn").read_bytes())
    for where, mask in flips:
        data[int(where * (len(data) - 1))] ^= mask
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int((0.5 + cut) * len(data))])
    try:
        model = OnnxModel(path)
    except ModelError as error:
        assert_one_sentence(str(error))
    else:
        assert model.step(random_frames(3, 1)).beat.shape == (3,)
