"""Write a network as one self-describing ONNX file, checked against torch before it appears.

What such a file holds is described in ``beattrack.contract``.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from beattrack import contract
from beattrack.config import DecoderConfig, FeatureConfig
from beattrack.features import feature_bins, flux_bins
from beattrack.model import BeatNetwork

OPSET = 20  # the first with Gelu; onnxruntime 1.17 and later read it
TOLERANCE = 1e-4  # greatest difference allowed between torch and onnxruntime, in probability
CHECK_BLOCKS = (1, 7, 50)  # frames a step
CHECK_FRAMES = 600  # more than the longest cache of the default network, so that all roll over


class ExportError(ValueError):
    """The exported graph does not compute what the network computes."""


class _Step(nn.Module):
    """The step as a graph: state tensors by position, probabilities out."""

    def __init__(self, network: BeatNetwork) -> None:
        super().__init__()
        self.network = network
        self.names = list(network.init_state(1))

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        outputs, new_state = self.network.step(frame, dict(zip(self.names, state, strict=True)))
        return *_probabilities(outputs), *(new_state[name] for name in self.names)


def _probabilities(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    tempo = torch.softmax(outputs["tempo"], dim=-1)
    return torch.sigmoid(outputs["beat"]), torch.sigmoid(outputs["downbeat"]), tempo


def export_onnx(
    model: BeatNetwork,
    features: FeatureConfig,
    decoder: DecoderConfig,
    path: Path,
    provenance: dict[str, Any],
) -> None:
    """Write ``model`` to ``path``; the file appears only if it agrees with torch.

    Args:
        model: the network; neither its mode nor its device is changed
        features: the features that it was trained on
        decoder: the decoder settings that were tuned for it
        path: the file, replaced if it exists
        provenance: plain JSON types: training run, data, licence, commit

    Raises:
        ValueError: features and model do not fit each other.
        ExportError: onnxruntime's numbers differ from torch's by more than TOLERANCE.
        OSError: the file cannot be written.
    """
    _check_fit(model, features)
    network = copy.deepcopy(model).cpu().float().eval()
    proto = _to_proto(_Step(network).eval())
    _describe(proto, network, features, decoder, provenance)
    data = proto.SerializeToString(deterministic=True)
    _check_parity(network, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_fit(model: BeatNetwork, features: FeatureConfig) -> None:
    have = (model.config.channels, model.config.bins, model.config.flux_bins)
    want = (features.channels, feature_bins(features), flux_bins(features))
    if have != want:
        raise ValueError(
            f"The model's channels, bins and flux_bins are {have}, but the features have {want}."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about packages that are not installed and about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _to_proto(step: _Step) -> onnx.ModelProto:
    """Trace the step with n left open, and drop what the tracer noted about the source files."""
    state = step.network.init_state(1)
    config = step.network.config
    frame = torch.zeros(1, config.channels, config.bins, 7)
    names = [contract.STATE + name for name in step.names]
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            step,
            (frame, *state.values()),
            input_names=[contract.FRAME, *names],
            output_names=[*contract.OUTPUTS, *(contract.NEW + name for name in names)],
            dynamic_shapes={"frame": {3: torch.export.Dim("n")}, "state": tuple({} for _ in names)},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output,
                 *proto.graph.initializer):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.graph.ClearField("value_info")
    onnx.checker.check_model(proto)
    return proto


def _describe(
    proto: onnx.ModelProto,
    network: BeatNetwork,
    features: FeatureConfig,
    decoder: DecoderConfig,
    provenance: dict[str, Any],
) -> None:
    """Set the metadata that the runtime configures itself from."""
    values = {
        "format_version": contract.FORMAT_VERSION,
        "features": features.to_json(),
        "model": network.config.to_json(),
        "decoder": decoder.to_json(),
        "latency_frames": str(network.latency_frames),
        "provenance": json.dumps(provenance, sort_keys=True),
    }
    if features.bpfed:
        from beattrack.subbands import curves_hash

        values["subbands_sha256"] = curves_hash(features.sources)
    for key in contract.METADATA:
        if key in values:
            proto.metadata_props.add(key=contract.PREFIX + key, value=values[key])


def _check_parity(network: BeatNetwork, data: bytes) -> None:
    """Compare the whole sequence in torch with the graph fed block by block. Raises ExportError."""
    config = network.config
    random = np.random.default_rng(0)
    shape = (1, config.channels, config.bins, CHECK_FRAMES)
    x = (2 * random.random(shape)).astype(np.float32)
    with torch.no_grad():
        expected = [y.numpy() for y in _probabilities(network(torch.from_numpy(x)))]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    zeros = {contract.STATE + name: value.numpy() for name, value in network.init_state(1).items()}
    for size in CHECK_BLOCKS:
        actual = _run_blocks(session, x, zeros, size)
        worst = max(float(np.abs(a - e).max()) for a, e in zip(actual, expected, strict=True))
        if not worst <= TOLERANCE:  # also true of NaN
            raise ExportError(
                f"The exported graph in blocks of {size} frames differs from torch by {worst:.2g}."
            )


def _run_blocks(
    session: onnxruntime.InferenceSession,
    x: NDArray[np.float32],
    state: dict[str, NDArray[Any]],
    size: int,
) -> list[NDArray[np.float32]]:
    names = [*contract.OUTPUTS, *(contract.NEW + name for name in state)]
    parts: list[list[NDArray[np.float32]]] = [[], [], []]
    for start in range(0, x.shape[-1], size):
        results = session.run(names, {contract.FRAME: x[..., start : start + size], **state})
        state = dict(zip(state, results[3:], strict=True))
        for part, result in zip(parts, results, strict=False):
            part.append(result)
    return [np.concatenate(part, axis=1) for part in parts]
