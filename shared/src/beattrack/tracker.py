"""From samples to beats: the one path that file, microphone and evaluation share."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from beattrack.activations import ActivationModel
from beattrack.config import DecoderConfig
from beattrack.decoding import BarPointerFilter, Estimate
from beattrack.events import Beat, Event, StateChange, TrackerState
from beattrack.features import FeatureStream
from beattrack.following import Follower

MIN_GAP = 0.6  # of a beat: two reports are at least this far apart
BAR_HOLD = 5.0  # another reading of the bar must be this many times as likely to replace one
MAX_COUNTED = 8  # beats over which the bar is counted on when none was reported
LOUDEST = 1e6  # samples that overflow when squared are cut to this
MAX_LATE_S = 0.1  # a beat found later than this after it sounded is no longer reported


class BeatReporter:
    """Turns the filter's estimates into beats, each reported once and in order.

    The estimate at an activation frame speaks of a moment some frames ago (the model's latency).
    The pulse is carried on from there to the present, so a beat is reported when it is due, not
    when it has been confirmed.
    """

    def __init__(self, bar: BarPointerFilter, fps: float, latency: int) -> None:
        self._filter = bar
        self._space = bar.space
        self._fps = fps
        self._latency = latency
        self._config = bar.config
        self.reset()

    def reset(self) -> None:
        """Forget the last beat."""
        self._last_s = -np.inf
        self._slot: int | None = None  # of the last beat reported
        self.next_beat_s: float | None = None

    def step(self, frame: int, now_s: float, estimate: Estimate) -> Beat | None:
        """Return the beat that is due, if any.

        Args:
            frame: index of the activation frame that the estimate belongs to.
            now_s: stream time at which it is known, seconds.
            estimate: where the music stood at that frame.
        """
        period_s = estimate.period / self._fps
        heard_s = (frame + 0.5 - self._latency) / self._fps + self._config.offset_s
        last_s = heard_s - estimate.phase * period_s
        passed = int((now_s + self._config.ahead_s - last_s) // period_s)
        due_s = last_s + passed * period_s
        self.next_beat_s = due_s + period_s
        if self.next_beat_s - self._last_s < MIN_GAP * period_s:
            self.next_beat_s += period_s  # that one has been reported
        if (
            due_s - self._last_s < MIN_GAP * period_s
            or now_s - due_s > MAX_LATE_S + max(0.0, -self._config.ahead_s)
            or due_s < 0
        ):
            return None
        slot = self._read_bar(passed, round((due_s - self._last_s) / period_s)
                              if self._slot is not None else 0)  # fmt: skip
        self._last_s, self._slot = due_s, slot
        return Beat(
            time_s=float(due_s),
            position=int(self._space.slot_position[slot]),
            beats_per_bar=int(self._space.slot_beats[slot]),
            tempo_bpm=float(60 / period_s),
            confidence=float(estimate.confidence),
            emitted_s=now_s,
        )

    def _read_bar(self, passed: int, gap: int) -> int:
        """Return the slot of the beat due: the bar counted so far, unless another is far likelier.

        ``passed`` beats lie between the estimate and the beat due, ``gap`` between reports.
        """
        belief = self._filter.bar()
        weights = np.zeros(len(belief))
        slots = np.arange(len(weights))
        for _ in range(passed):
            slots = self._space.next_slot[slots]
        np.add.at(weights, slots, belief)
        likeliest = int(weights.argmax())
        if self._slot is None:
            return likeliest
        counted = self._slot
        for _ in range(min(gap, MAX_COUNTED)):
            counted = int(self._space.next_slot[counted])
        return counted if weights[likeliest] < BAR_HOLD * weights[counted] else likeliest


class BeatTracker:
    """Push samples, get events.

    The events depend on the samples alone, not on how they were cut into blocks: the work is
    done hop by hop whatever the block.

    Args:
        model: a source of activations; the tracker owns its state.
        decoder: settings of the filter; None takes those that the model brings.
        input_delay_s: seconds by which the samples come late (a resampler's delay), >= 0; added
            to ``emitted_s``.

    Attributes:
        on_frame: called for every frame with (time_s, beat, downbeat): the moment the activations
            speak of, and both probabilities. For plots.
        on_silence: called with (now_s, silent) when nothing sounds any more and when something does
            again; before the events of that moment. A stream begins silent.
    """

    def __init__(
        self,
        model: ActivationModel,
        decoder: DecoderConfig | None = None,
        input_delay_s: float = 0.0,
    ) -> None:
        config = decoder or model.decoder
        self._model = model
        self._features = FeatureStream(model.features)
        self._fps = model.features.fps
        self._begin(config)
        self._input_delay_s = input_delay_s
        self.on_frame: Callable[[float, float, float], None] | None = None
        self.on_silence: Callable[[float, bool], None] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything heard so far; the next sample is at time 0."""
        for part in (self._model, self._features, self._follower, self._reporter):
            part.reset()
        # float32 [< hop]: samples short of a hop
        self._pending: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._frame = 0
        self._samples = 0
        self._estimate: Estimate | None = None

    def retune(self, decoder: DecoderConfig) -> None:
        """Go on with other settings of the filter, which begins anew; time and model go on."""
        self._begin(decoder)
        self._estimate = None

    def _begin(self, decoder: DecoderConfig) -> None:
        model = self._model
        self._follower = Follower(decoder, model.features, model.latency_frames)
        self._reporter = BeatReporter(self._follower.filter, self._fps, model.latency_frames)

    @property
    def decoder(self) -> DecoderConfig:
        """The settings of the filter."""
        return self._follower.filter.config

    @property
    def time_s(self) -> float:
        """Seconds of audio heard since the start or the last reset."""
        return self._samples / self._model.features.sample_rate

    @property
    def state(self) -> TrackerState:
        """Searching, locked or lost."""
        return self._follower.gate.state

    @property
    def confidence(self) -> float:
        """Belief in the present reading of tempo and phase, smoothed, 0-1."""
        return self._follower.gate.confidence

    @property
    def tempo_bpm(self) -> float | None:
        """Beats a minute; None unless locked."""
        if self._estimate is None or self.state is not TrackerState.LOCKED:
            return None
        return 60 * self._fps / self._estimate.period

    @property
    def next_beat_s(self) -> float | None:
        """Where the next beat will fall, seconds from the first sample; None unless locked."""
        return self._reporter.next_beat_s if self.state is TrackerState.LOCKED else None

    def push(self, samples: NDArray[np.float32]) -> list[Event]:
        """Take the next samples and return what they brought.

        Args:
            samples: float32 [n], n >= 0, mono at the model's sample rate, full scale +-1; what is
                not finite is taken as silence.

        Returns:
            Beats and changes of state in order of ``emitted_s``.
        """
        hop = self._model.features.hop
        self._samples += len(samples)
        block = np.concatenate([self._pending, np.asarray(samples, dtype=np.float32)])
        events: list[Event] = []
        used = len(block) - len(block) % hop
        for start in range(0, used, hop):
            events += self._hop(block[start : start + hop])
        self._pending = block[used:].copy()
        return events

    def _hop(self, samples: NDArray[np.float32]) -> list[Event]:
        """Take exactly one hop."""
        energy = float(np.dot(samples, samples))
        if not math.isfinite(energy):  # one such sample would stay in the state for ever
            samples = np.nan_to_num(samples, nan=0, posinf=0, neginf=0).clip(-LOUDEST, LOUDEST)
            energy = float(np.dot(samples, samples))
        features = self._features.push(samples)
        activations = self._model.step(features)
        beat, downbeat = float(activations.beat[0]), float(activations.downbeat[0])
        gate = self._follower.gate
        silent, power = gate.silent, energy / len(samples)
        estimate, changed = self._follower.step(
            features[0], beat, downbeat, activations.tempo[0], power
        )
        self._estimate = estimate
        frame, self._frame = self._frame, self._frame + 1
        now_s = self._frame / self._fps + self._input_delay_s
        if self.on_frame is not None:
            at = (frame + 0.5 - self._model.latency_frames) / self._fps
            self.on_frame(at, beat, downbeat)
        events: list[Event] = []
        if silent is not gate.silent and self.on_silence is not None:
            self.on_silence(now_s, not silent)
        if changed:
            events.append(StateChange(gate.state, now_s, gate.confidence))
        found = self._reporter.step(frame, now_s, estimate)
        if found is not None and gate.state is TrackerState.LOCKED:
            events.append(found)
        return events
