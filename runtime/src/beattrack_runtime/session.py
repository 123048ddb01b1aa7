"""The tracker as a program uses it: any sample rate, any number of channels, any block size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beattrack.events import Event, TrackerState
from beattrack.tracker import LOUDEST, BeatTracker
from beattrack_runtime.resample import MAX_RATE, MIN_RATE, StreamResampler

if TYPE_CHECKING:
    from beattrack.activations import ActivationModel
    from beattrack.config import DecoderConfig

STARTER_MODEL = Path(__file__).parent / "models" / "starter.onnx"

MAX_CHANNELS = 64  # more: the array is probably [channels, n]

_SLICE = 4096  # input samples handled at once: a whole song may be pushed without growing memory
_INT_SCALE = {np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}


class LiveTracker:
    """Tracks one stream of audio; made by `open_tracker`.

    Event times are seconds from the first sample pushed. ``on_frame``, when set, is called with
    (time in s, beat activation, downbeat activation) for every frame, for pictures.
    """

    def __init__(
        self,
        model: ActivationModel,
        sample_rate: float | None = None,
        decoder: DecoderConfig | None = None,
    ) -> None:
        """Wrap ``model`` for input at ``sample_rate`` Hz (None: the model's own).

        Raises:
            ValueError: a sample rate outside 1000-768000 Hz.
        """
        rate = model.features.sample_rate
        self.sample_rate = rate if sample_rate is None else _whole(sample_rate)
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            raise ValueError(
                f"sample_rate={self.sample_rate} is not possible: "
                f"it must be {MIN_RATE}-{MAX_RATE} Hz."
            )
        same = self.sample_rate == rate
        self._resampler = None if same else StreamResampler(self.sample_rate, rate)
        self.input_delay_s = 0.0 if self._resampler is None else self._resampler.delay_s
        self._tracker = BeatTracker(model, decoder, self.input_delay_s)
        self._hop = model.features.hop
        self._begin()

    def _begin(self) -> None:
        self._samples = 0  # input samples pushed
        self._flushed = False
        self.bad_samples = 0  # values that were not finite and were taken as silence
        self._waiting: list[NDArray[np.float32]] = []  # heard, but short of the next frame
        self._passed_on = 0  # samples at the model's rate that the tracker has had
        self._due = self._next_due()

    @property
    def time_s(self) -> float:
        """Seconds of audio pushed so far."""
        return self._samples / self.sample_rate

    @property
    def state(self) -> TrackerState:
        """What the tracker believes now."""
        return self._tracker.state

    @property
    def tempo_bpm(self) -> float | None:
        """The present tempo in beats a minute; None while none is known."""
        return self._tracker.tempo_bpm

    @property
    def confidence(self) -> float:
        """How sure the tracker is now, 0-1."""
        return self._tracker.confidence

    @property
    def next_beat_s(self) -> float | None:
        """When the next beat is expected, in seconds of the stream; None while not locked."""
        return self._tracker.next_beat_s

    @property
    def on_frame(self) -> Callable[[float, float, float], None] | None:
        """Called with (time in s, beat, downbeat) for every frame of activations."""
        return self._tracker.on_frame

    @on_frame.setter
    def on_frame(self, callback: Callable[[float, float, float], None] | None) -> None:
        self._tracker.on_frame = callback

    @property
    def on_silence(self) -> Callable[[float, bool], None] | None:
        """Called with (stream time in s, silent) when silence begins and when it ends."""
        return self._tracker.on_silence

    @on_silence.setter
    def on_silence(self, callback: Callable[[float, bool], None] | None) -> None:
        self._tracker.on_silence = callback

    @property
    def decoder(self) -> DecoderConfig:
        """The settings of the beat filter."""
        return self._tracker.decoder

    def retune(self, decoder: DecoderConfig) -> None:
        """Track on with other settings of the beat filter, such as the tempo range.

        The filter begins anew: the tracker searches. Stream time and the model's memory go on.
        """
        self._tracker.retune(decoder)

    def push(self, samples: NDArray[np.generic]) -> list[Event]:
        """Take the next samples and return the events that they made known.

        Args:
            samples: [n] or [n, channels], n >= 0; float32 or float64 with full scale at 1, or
                int16 or int32. Channels are averaged; what is not finite is taken as silence.

        Raises:
            ValueError: another shape or type, or audio after `flush` without `reset`.
        """
        if self._flushed:
            raise ValueError("The tracker was flushed: call reset() before pushing more audio.")
        samples = np.asarray(samples)
        _check(samples)
        events: list[Event] = []
        for start in range(0, len(samples), _SLICE):
            mono = _mono(samples[start : start + _SLICE])
            self._samples += len(mono)
            self._waiting.append(mono)
            # Nothing can be known before a frame is complete: until then, blocks cost nothing.
            if self._samples >= self._due:
                events += self._work()
        return events

    def flush(self) -> list[Event]:
        """End the stream and return the last events; the resampler's delay is heard out."""
        if self._flushed:
            return []
        events = self._work()
        self._flushed = True
        if self._resampler is not None:
            events += self._tracker.push(self._resampler.flush())
        return events

    def reset(self) -> None:
        """Forget everything: the next sample is the first of a new stream."""
        self._tracker.reset()
        if self._resampler is not None:
            self._resampler.reset()
        self._begin()

    def _work(self) -> list[Event]:
        """Pass on what waits and return the events."""
        if not self._waiting:
            return []
        mono = self._clean(np.concatenate(self._waiting))
        self._waiting.clear()
        if self._resampler is not None:
            mono = self._resampler.push(mono)
        self._passed_on += len(mono)
        self._due = self._next_due()
        return self._tracker.push(mono)

    def _next_due(self) -> int:
        """Return how many input samples in all complete the next frame."""
        wanted = (self._passed_on // self._hop + 1) * self._hop
        return wanted if self._resampler is None else self._resampler.needed(wanted)

    def _clean(self, mono: NDArray[np.float32]) -> NDArray[np.float32]:
        if float(np.dot(mono, mono)) <= LOUDEST**2:  # then every sample is finite and within bounds
            return mono
        finite = np.isfinite(mono)
        if not finite.all():
            self.bad_samples += int(len(mono) - np.count_nonzero(finite))
            mono = np.where(finite, mono, np.float32(0))
        return np.clip(mono, -LOUDEST, LOUDEST)


def open_tracker(
    model: str | Path | None = None,
    sample_rate: float | None = None,
    decoder: DecoderConfig | None = None,
) -> LiveTracker:
    """Open a tracker for live audio.

    Args:
        model: an ONNX file made by beattrack's export; None takes the shipped starter model.
        sample_rate: of the audio that will be pushed, in Hz; None takes the model's own.
        decoder: settings of the beat filter, such as the tempo range; None takes the model's.

    Raises:
        ModelError: the model is missing, unreadable or of another contract.
        ValueError: a sample rate outside 1000-768000 Hz.
    """
    return LiveTracker(load_model(model), sample_rate, decoder)


def load_model(path: str | Path | None = None) -> ActivationModel:
    """Load an ONNX model; None loads the shipped starter model. Raises ModelError."""
    from beattrack_runtime.onnx_model import OnnxModel

    return OnnxModel(STARTER_MODEL if path is None else path)


def _whole(sample_rate: float) -> int:
    """Return a rate as an integer: sound libraries state it as a float. Raises ValueError."""
    if not float(sample_rate).is_integer():
        raise ValueError(f"sample_rate={sample_rate} is not possible: it must be a whole number.")
    return int(sample_rate)


def _check(samples: NDArray[np.generic]) -> None:
    """Refuse arrays that are not [n] or [n, channels] of a known sample type."""
    flat = samples.ndim == 1
    if not flat and not (samples.ndim == 2 and 1 <= samples.shape[1] <= MAX_CHANNELS):
        raise ValueError(
            f"Samples must be [n] or [n, channels] with 1-{MAX_CHANNELS} channels, "
            f"not of shape {samples.shape}."
        )
    known = samples.dtype.kind == "f" or samples.dtype in _INT_SCALE
    if not known:
        raise ValueError(f"Samples must be float32, float64, int16 or int32, not {samples.dtype}.")


def _mono(samples: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the mean of the channels, float32 [n], full scale at 1."""
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes inf, then silence
        real = samples.astype(np.float32)
    scale = _INT_SCALE.get(samples.dtype)
    if scale is not None:
        real = real * np.float32(scale)
    if real.ndim == 1:
        return real
    # Channel by channel: np.mean may add in another order for another block size.
    total: NDArray[np.float32] = real[:, 0].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for channel in range(1, real.shape[1]):
            total += real[:, channel]
        total /= np.float32(real.shape[1])
    return total
