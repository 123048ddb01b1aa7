"""A network in an ONNX file, run by onnxruntime: everything it needs to know is in the file.

The file is opened by `model_file`, which distrusts it; two trial steps are run here before it is
accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from beattrack.activations import Activations
from beattrack.config import DecoderConfig, FeatureConfig, ModelConfig
from beattrack.contract import FRAME, NEW, OUTPUTS
from beattrack_runtime.errors import ModelError
from beattrack_runtime.model_file import first_line, open_model


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
        self._session, self._metadata, zeros = open_model(path, providers, threads)
        self._names = [*OUTPUTS, *(NEW + name for name in zeros)]
        # Two copies of the state: a step reads one and writes the other.
        self._states = [zeros, {name: value.copy() for name, value in zeros.items()}]
        self._now = 0  # which is to be read
        self._live = [_OneFrame(self._session, self._metadata.model, *pair)
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
                why = first_line(error)
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
