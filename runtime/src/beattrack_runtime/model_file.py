"""A model file, read and distrusted: what is in it is checked before anything is run.

The file is untrusted input. It is read with bounds, its metadata is checked strictly, and its
inputs and outputs are compared with what the metadata declares. What it must contain is described
in ``beattrack.contract``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from beattrack.config import DecoderConfig, FeatureConfig, ModelConfig
from beattrack.contract import FORMAT_VERSION, FRAME, NEW, OUTPUTS, PREFIX, STATE
from beattrack.features import FeatureStream, feature_bins, flux_bins
from beattrack_runtime.errors import ModelError

MAX_FILE_BYTES = 256 * 2**20
MAX_STATE_BYTES = 64 * 2**20  # all state tensors together
MAX_METADATA_CHARS = 2**20  # each entry
# Start of an external data entry of an ONNX tensor (field 1, eight bytes, "location"). Such a model
# makes onnxruntime read other files, which an honest export never does.
_EXTERNAL_DATA = b"\n\x08location"
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(int64)": np.dtype(np.int64),
}


def open_model(
    path: Path, providers: Sequence[str] | None, threads: int
) -> tuple[onnxruntime.InferenceSession, Metadata, dict[str, NDArray[Any]]]:
    """Return the session, what the file says of itself, and the state that a stream begins with.

    Raises:
        ModelError: the file is missing, not a beattrack model, of an unknown format version, or
            does not keep what its metadata promises; or a provider is not available.
    """
    session = _open(path, _read(path), _known(providers), threads)
    try:
        metadata = Metadata(path, session.get_modelmeta().custom_metadata_map)
        zeros = _check_signature(path, session, metadata.model)
    except UnicodeDecodeError:  # raised by onnxruntime wherever it hands out a text
        raise ModelError(f"The model '{path}' is damaged: a text in it is no text.") from None
    return session, metadata, zeros


class Metadata:
    """The checked metadata of a model file. Raises ModelError."""

    def __init__(self, path: Path, values: dict[str, str]) -> None:
        version = values.get(PREFIX + "format_version")
        if version is None:
            raise ModelError(f"'{path}' is an ONNX file, but not one exported by beattrack.")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"The model '{path}' has format version {version!r:.20}, but only {FORMAT_VERSION} "
                "is known here: update beattrack or export the model again."
            )
        self._path, self._values = path, values
        try:
            self.features = FeatureConfig.from_json(self._get("features"))
            self.model = ModelConfig.from_json(self._get("model"))
            self.decoder = DecoderConfig.from_json(self._get("decoder"))
            FeatureStream(self.features)  # raises if the values do not go together
            shape = (self.features.channels, feature_bins(self.features), flux_bins(self.features))
        except ModelError:
            raise
        except ValueError as error:  # ConfigError is one
            raise self._error(first_line(error)) from None
        self.provenance = self._provenance()
        config = self.model
        if shape != (config.channels, config.bins, config.flux_bins):
            raise self._error("its features do not have the shape that its network takes")
        if self._get("latency_frames") != str(config.label_delay):
            raise self._error("its latency_frames is not the label_delay of its network")
        self._check_subbands()

    def _error(self, why: str) -> ModelError:
        return ModelError(f"The metadata of the model '{self._path}' is not valid: {why}.")

    def _get(self, key: str) -> str:
        value = self._values.get(PREFIX + key)
        if value is None:
            raise self._error(f"beattrack.{key} is missing")
        if len(value) > MAX_METADATA_CHARS:
            raise self._error(f"beattrack.{key} is longer than {MAX_METADATA_CHARS} characters")
        return value

    def _provenance(self) -> dict[str, Any]:
        try:
            values = json.loads(self._get("provenance"))
        except (json.JSONDecodeError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise self._error("beattrack.provenance is not a JSON mapping")
        return values

    def _check_subbands(self) -> None:
        """Refuse a network that was trained with other sub-band curves than the installed ones."""
        if not self.features.bpfed:
            return
        from beattrack.subbands import curves_hash

        if self._get("subbands_sha256") != curves_hash(self.features.sources):
            raise self._error("its sub-band curves differ from those of this version of beattrack")


def first_line(error: Exception) -> str:
    """Return an error's first line, bounded and without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def _read(path: Path) -> bytes:
    """Read the file within bounds. Raises ModelError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ModelError(f"The model '{path}' cannot be read: {why}.") from None
    if len(data) > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 2**20
        raise ModelError(f"The model '{path}' is larger than {limit} MB, the most accepted.")
    if _EXTERNAL_DATA in data:
        raise ModelError(f"The model '{path}' refers to other files, which is not accepted.")
    return data


def _known(providers: Sequence[str] | None) -> list[str]:
    """Return the providers to use. Raises ModelError for one that is not available."""
    if not providers:
        return ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    for name in providers:
        if name not in available:
            known = ", ".join(available)
            raise ModelError(f"There is no execution provider '{name}' here, only {known}.")
    return list(providers)


def _open(
    path: Path, data: bytes, providers: list[str], threads: int
) -> onnxruntime.InferenceSession:
    """Make the session from bytes, not from a path: then it can read no other file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # fatal: errors are raised, and must not be printed as well
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception:  # onnxruntime's errors share no base class
        raise ModelError(f"'{path}' is not an ONNX model that onnxruntime can run.") from None


def _check_signature(
    path: Path, session: onnxruntime.InferenceSession, config: ModelConfig
) -> dict[str, NDArray[Any]]:
    """Compare inputs and outputs with the metadata; return the initial state. Raises ModelError."""
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    frame = inputs.pop(FRAME, None)
    states = {name: _state(path, i) for name, i in inputs.items() if name.startswith(STATE)}
    wanted = {*OUTPUTS, *(NEW + name for name in states)}
    if frame is None or len(states) != len(inputs) or set(outputs) != wanted:
        raise ModelError(f"The model '{path}' does not have the inputs and outputs of its format.")
    shape = frame.shape
    fixed = [1, config.channels, config.bins]
    if frame.type != "tensor(float)" or shape[:3] != fixed or len(shape) != 4 or _fixed(shape[3]):
        raise ModelError(f"The input of the model '{path}' does not have the shape it declares.")
    if sum(size for _, _, size in states.values()) > MAX_STATE_BYTES:
        limit = MAX_STATE_BYTES // 2**20
        raise ModelError(f"The state of the model '{path}' is larger than {limit} MB.")
    return {name: np.zeros(shape, dtype) for name, (shape, dtype, _) in states.items()}


def _fixed(dimension: object) -> bool:
    return isinstance(dimension, int)


def _state(path: Path, value: onnxruntime.NodeArg) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, dtype and bytes of a state input, without allocating it. Raises ModelError."""
    dtype = _DTYPES.get(value.type)
    if dtype is None or not all(_fixed(d) and d > 0 for d in value.shape):
        raise ModelError(
            f"The state '{value.name[:80]}' of the model '{path}' is of no known type."
        )
    size = dtype.itemsize
    for dimension in value.shape:
        size *= dimension
    return tuple(value.shape), dtype, size
