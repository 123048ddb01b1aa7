"""A network in an ONNX file, run by onnxruntime: everything it needs to know is in the file.

The file is untrusted input. It is read with bounds, its metadata is checked strictly, its inputs
and outputs are compared with what the metadata declares, and one trial step is run before it is
accepted. What it must contain is described in ``beattrack.contract``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from beattrack.activations import Activations
from beattrack.config import DecoderConfig, FeatureConfig, ModelConfig
from beattrack.contract import FORMAT_VERSION, FRAME, NEW, OUTPUTS, PREFIX, STATE
from beattrack.features import FeatureStream, feature_bins, flux_bins
from beattrack_runtime.errors import BeattrackError

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


class ModelError(BeattrackError, ValueError):
    """A model file cannot be used; the text is one sentence that says why."""


class OnnxModel:
    """A streaming model read from an ONNX file: a ``beattrack.activations.ActivationModel``.

    Args:
        path: the file
        providers: onnxruntime execution providers, best first; None runs on the CPU
        threads: threads of one operator; the graphs are small, so more than 1 seldom helps

    Raises:
        ModelError: the file is missing, not a beattrack model, of an unknown format version, or
            does not keep what its metadata promises; or a provider is not available.
    """

    def __init__(
        self, path: str | Path, providers: Sequence[str] | None = None, threads: int = 1
    ) -> None:
        path = Path(path)
        self._session = _open(path, _read(path), _known(providers), threads)
        try:
            metadata = _Metadata(path, self._session.get_modelmeta().custom_metadata_map)
            zeros = _check_signature(path, self._session, metadata.model)
        except UnicodeDecodeError:  # raised by onnxruntime wherever it hands out a text
            raise ModelError(f"The model '{path}' is damaged: a text in it is no text.") from None
        self._metadata = metadata
        self._names = [*OUTPUTS, *(NEW + name for name in zeros)]
        # Two copies of the state: a step reads one and writes the other.
        self._states = [zeros, {name: value.copy() for name, value in zeros.items()}]
        self._now = 0  # which is to be read
        self._live = [_OneFrame(self._session, metadata.model, *pair)
                      for pair in (self._states, self._states[::-1])]  # fmt: skip
        self._try(path)

    @property
    def features(self) -> FeatureConfig:
        """The features that it must be fed."""
        return self._metadata.features

    @property
    def decoder(self) -> DecoderConfig:
        """The decoder settings that were tuned for it."""
        return self._metadata.decoder

    @property
    def config(self) -> ModelConfig:
        """The network's own configuration."""
        return self._metadata.model

    @property
    def provenance(self) -> dict[str, Any]:
        """What the exporter noted: training run, data, licence, commit."""
        return self._metadata.provenance

    @property
    def latency_frames(self) -> int:
        """Declared delay of its activations in frames."""
        return self._metadata.model.label_delay

    @property
    def providers(self) -> list[str]:
        """The execution providers that the session really uses, best first."""
        return list(self._session.get_providers())

    def step(self, frames: NDArray[np.float32]) -> Activations:
        """Take the next n >= 1 frames, float32 [n, channels, bins], and return their activations.

        Raises:
            ValueError: frames of another shape.
        """
        config = self._metadata.model
        if (
            frames.ndim != 3
            or frames.shape[1:] != (config.channels, config.bins)
            or not len(frames)
        ):
            wanted = f"[n >= 1, {config.channels}, {config.bins}]"
            raise ValueError(
                f"Frames of shape {list(frames.shape)} do not fit the model's {wanted}."
            )
        now, self._now = self._now, 1 - self._now
        if len(frames) == 1:
            return self._live[now].run(frames)
        batch = np.ascontiguousarray(frames.transpose(1, 2, 0)[None], dtype=np.float32)
        results = self._session.run(self._names, {FRAME: batch, **self._states[now]})
        beat, downbeat, tempo, *state = results
        for name, value in zip(self._states[now], state, strict=True):
            if value.shape != self._states[now][name].shape:
                raise ValueError(f"the new value of '{name}' has another shape")
            self._states[1 - now][name][:] = value
        return Activations(beat[0], downbeat[0], tempo[0])

    def reset(self) -> None:
        """Forget everything heard so far."""
        for value in self._states[self._now].values():
            value[:] = 0

    def _try(self, path: Path) -> None:
        """Run two steps: sizes that the graph leaves open show only now. Raises ModelError."""
        config = self._metadata.model
        for n in (2, 1):
            try:
                result = self.step(np.zeros((n, config.channels, config.bins), dtype=np.float32))
            except Exception as error:  # onnxruntime's errors share no base class
                why = _first_line(error)
                raise ModelError(f"The model '{path}' fails when run: {why}.") from None
            shapes = (result.beat.shape, result.downbeat.shape, result.tempo.shape)
            finite = all(np.isfinite(v).all() for v in (result.beat, result.downbeat, result.tempo))
            if shapes != ((n,), (n,), (n, config.tempo_bins)) or not finite:
                raise ModelError(f"The model '{path}' does not give the outputs that it declares.")
        self.reset()


class _OneFrame:
    """The step of one frame, with every input and output bound to its buffer once and for all.

    This spares the live case a copy of the state and a third of the time.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        config: ModelConfig,
        old: dict[str, NDArray[Any]],
        new: dict[str, NDArray[Any]],
    ) -> None:
        self._session = session
        self._frame = np.zeros((1, config.channels, config.bins, 1), dtype=np.float32)
        shapes = ((1, 1), (1, 1), (1, 1, config.tempo_bins))
        self._outputs = [np.zeros(shape, dtype=np.float32) for shape in shapes]
        self._binding = session.io_binding()
        self._kept = old, new  # onnxruntime has their addresses alone
        for name, value in ((FRAME, self._frame), *old.items()):
            self._bind(self._binding.bind_input, name, value)
        outputs = zip(OUTPUTS, self._outputs, strict=True)
        for name, value in (*outputs, *((NEW + name, value) for name, value in new.items())):
            self._bind(self._binding.bind_output, name, value)

    @staticmethod
    def _bind(bind: Callable[..., None], name: str, value: NDArray[Any]) -> None:
        bind(name, "cpu", 0, value.dtype.type, value.shape, value.ctypes.data)

    def run(self, frames: NDArray[np.float32]) -> Activations:
        """Take one frame, float32 [1, channels, bins]."""
        self._frame[0, :, :, 0] = frames[0]
        self._session.run_with_iobinding(self._binding)
        beat, downbeat, tempo = self._outputs
        return Activations(beat[0].copy(), downbeat[0].copy(), tempo[0].copy())


class _Metadata:
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
            raise self._error(_first_line(error)) from None
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


def _first_line(error: Exception) -> str:
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
