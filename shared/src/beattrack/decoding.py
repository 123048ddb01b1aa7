"""The online joint beat, downbeat and tempo filter."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beattrack.config import DecoderConfig
from beattrack.level import ActivationLevel
from beattrack.statespace import build_state_space

# How far from the likeliest state another may lie and still count as the same reading of the
# music: in beats of phase and in ratio of tempo.
NEAR_PHASE = 0.15
NEAR_TEMPO = 0.08
NEW_PULSE = 1e-4  # probability in a frame that a new pulse starts there
TEMPO_WIDTH = 0.03  # octaves, standard deviation: tempo classes this near speak for a tempo
TEMPO_CLIP = 0.02  # of the likeliest tempo's probability: a tempo is never ruled out
CLIP = 1e-3  # activations are kept this far from 0 and 1
SHARE_CLIP = 0.02  # and the share of downbeats among beats this far
# How much likelier a frame is with a beat than without, as the evidence for a pulse weighs it: a
# factor on the odds and their exponent. Unlike the filter's own likelihood it does not adapt.
EVIDENCE_GAIN, EVIDENCE_POWER = 10.0, 0.7
# What a network that is sure of the tempo adds to it, a second, in proportion to how far its
# sharpness (1: one class alone, 0: all alike) is above that which it has where nothing pulses.
TEMPO_EVIDENCE, TEMPO_FLAT = 5.5, 0.3


_Reading = tuple[slice, NDArray[np.bool_], NDArray[np.float32], int, float]


class Estimate(NamedTuple):
    """Where the music stands at one activation frame; `BarPointerFilter.bar` says more of it."""

    phase: float  # beats since the last beat, 0-1
    period: float  # frames per beat
    confidence: float  # 0-1, probability of this reading of tempo and phase
    # log of how much likelier this frame is with a pulse than without any, and something more where
    # the network is sure of the tempo; a second, so that it does not depend on the frame rate
    evidence: float


class BarPointerFilter:
    """Forward filter over tempo, phase and meter.

    One ``step`` costs a shift of the belief by one frame, a small matrix product for the beats
    that end, and a reweighting of the states at a beat. Only states at a beat (one frame wide,
    whatever the tempo) differ in likelihood from the rest; a region that grew with the period
    would favour slow tempi.
    """

    def __init__(self, config: DecoderConfig, fps: float) -> None:
        self.config = config
        self._fps = fps
        # how many tempo classes there are and what `_tempo_window` says, from the first frame on
        self._window: tuple[int, NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]] | None = (
            None
        )
        self.space = build_state_space(config, fps)
        space = self.space
        lean = (space.prior / space.prior.max()) ** config.prior_power
        self._lean: NDArray[np.float32] = lean.astype(np.float32)
        self._tails = np.concatenate([space.ends - 1, space.ends])
        self._downbeat = space.slot_position[:, None] == 1
        log_period = np.log(space.periods)
        self._log_period = log_period[space.tempo_of]
        # for each tempo the states, a stretch of the row, of all tempi near it
        near = np.abs(log_period[:, None] - log_period) < NEAR_TEMPO
        first, last = near.argmax(axis=1), near.shape[1] - 1 - near[:, ::-1].argmax(axis=1)
        self._near_tempo = [
            slice(int(space.starts[a]), int(space.ends[b]) + 1)
            for a, b in zip(first, last, strict=True)
        ]
        first = np.where(space.slot_position == 1, space.meter_prior, 0)
        self._new_pulse = (NEW_PULSE * np.outer(first, space.prior)).astype(np.float32)
        self._slot_change = np.ascontiguousarray(space.slot_change.T)
        self._tempo_change = space.tempo_change * np.float32(1 - NEW_PULSE)
        self._over_slots = np.ones(len(first), dtype=np.float32)  # sums them, as a product
        self._level = ActivationLevel(fps)
        self.reset()

    def reset(self) -> None:
        """Return to the prior: any phase, any position, tempo as its prior says."""
        space = self.space
        row = (space.prior / space.periods)[space.tempo_of]
        weight = np.tile(row, (len(space.slot_beats), 1))
        weight *= (space.meter_prior / space.slot_beats)[:, None]
        # float32 [slots, row]: the belief, sums to _total
        self._belief = (weight / weight.sum()).astype(np.float32)
        self._total = np.float32(1)
        self._spare = np.empty_like(self._belief)  # takes the next belief
        # of the last estimate: its row, which states are near, how far each is, the likeliest
        # state, and the refined phase, not wrapped
        self._reading: _Reading | None = None
        self._level.reset()

    def step(
        self, beat: float, downbeat: float, tempo: NDArray[np.float32] | None = None
    ) -> Estimate:
        """Take one frame's activations and return where the music stands.

        Args:
            beat: probability of a beat, 0-1.
            downbeat: probability of a downbeat, 0-1; at most ``beat`` is used.
            tempo: probabilities of tempo classes, float32 [classes]; class k is k + 1 beats a
                minute. None or no classes: no evidence.
        """
        space, old, new = self.space, self._belief, self._spare
        # A model that fails must not leave the belief without a way back.
        beat = beat if math.isfinite(beat) else 0.0
        downbeat = downbeat if math.isfinite(downbeat) else 0.0
        # The last step's normalisation and the tempo evidence ride on this step's shift.
        scale = self._tempo_likelihood(tempo) / self._total
        tails = old.take(self._tails, axis=1).reshape(len(old), 2, -1) * scale
        before_end = tails[:, 0]
        leave_early = before_end * space.early
        leaving = tails[:, 1] + leave_early
        entering = self._slot_change @ leaving @ self._tempo_change
        entering += self._new_pulse
        beat = min(max(beat, CLIP), 1 - CLIP)
        odds = beat / (1 - beat)
        due = float(entering.sum())  # how surely a beat was expected in this frame
        log_odds = math.log(odds)
        above = log_odds - self._level.step(log_odds)
        entering *= self._beat_likelihood(above, downbeat / beat)
        np.multiply(old[:, :-1], scale.take(space.tempo_of[:-1]), out=new[:, 1:])
        new[:, space.ends] = before_end - leave_early
        new[:, space.starts] = entering
        marginal = self._over_slots @ new
        self._total = np.add.reduce(marginal)
        self._belief, self._spare = new, old
        due /= max(float(self._total) - float(entering.sum()) + due, 1e-30)
        likelier = math.log(1 - due + due * EVIDENCE_GAIN * odds**EVIDENCE_POWER)
        evidence = likelier * self._fps
        evidence += TEMPO_EVIDENCE * max(0.0, _sharpness(tempo) - TEMPO_FLAT)
        return self._read(marginal / self._total, evidence)

    def weigh_change(self, change: float) -> None:
        """Let a change of harmony at the last beat speak for a bar that began there.

        Args:
            change: as ``HarmonicChange`` returns it, late in the beat, after that frame's ``step``.
        """
        factor = math.exp(self.config.harmony_power * change)
        self._belief *= np.where(self._downbeat, np.float32(factor), np.float32(1))
        self._total = np.add.reduce(self._over_slots @ self._belief)

    def _tempo_likelihood(self, tempo: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return the likelihood of each tempo of the states up to a factor, float32 [tempi]."""
        if tempo is None or not len(tempo):
            return self._lean
        if self._window is None or self._window[0] != len(tempo):
            self._window = len(tempo), *self._tempo_window(len(tempo))
        _, classes, weights, starts = self._window
        share: NDArray[np.float32] = np.add.reduceat(tempo.take(classes) * weights, starts)
        most = share.max()
        if not 0 < most < np.inf:  # also of NaN
            return self._lean
        share /= most
        np.maximum(share, TEMPO_CLIP, out=share)
        share **= self.config.tempo_power
        share *= self._lean
        return share

    def _tempo_window(
        self, classes: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
        """Return which tempo classes speak for each tempo and how much, tempo after tempo.

        The classes and weights of tempo i begin at the i-th start. A tempo beyond the classes
        is spoken for by the nearest.
        """
        number = np.arange(1, classes + 1)
        away = np.log2(number * self.space.periods[:, None] / (60 * self._fps)) / TEMPO_WIDTH
        near = np.abs(away) < 5  # beyond, a weight would be below 1e-5 of the highest
        near[np.arange(len(away)), np.abs(away).argmin(axis=1)] = True
        tempo, which = np.nonzero(near)
        weights = np.exp(-0.5 * away[near] ** 2)
        starts = np.searchsorted(tempo, np.arange(len(away)))
        sums = np.maximum(np.add.reduceat(weights, starts), np.finfo(np.float32).tiny)
        return which, (weights / sums[tempo]).astype(np.float32), starts

    def _beat_likelihood(self, above: float, share: float) -> NDArray[np.float32]:
        """Return the likelihood of a beat of each slot relative to no beat, float32 [slots, 1].

        ``above`` are the log odds of a beat less those of a typical one, ``share`` that of the
        downbeat in the beat's probability. A frame that looks like no beat says nothing against
        one: music leaves beats out.
        """
        config = self.config
        ratio = max(1.0, config.beat_gain * math.exp(config.beat_power * above))
        share = min(max(share, SHARE_CLIP), 1 - SHARE_CLIP)
        expected = config.downbeat_share
        plain = ratio * ((1 - share) / (1 - expected)) ** config.downbeat_power
        first = ratio * (share / expected) ** config.downbeat_power
        return np.where(self._downbeat, np.float32(first), np.float32(plain))

    def _read(self, marginal: NDArray[np.float32], evidence: float) -> Estimate:
        """Read the likeliest tempo and phase, refined by the belief around it.

        ``marginal``: float32 [row], the belief summed over slots.
        """
        space = self.space
        best = int(marginal.argmax())
        row = self._near_tempo[space.tempo_of[best]]
        away = space.phase[row] - space.phase[best]
        away -= np.rint(away)
        near = np.abs(away) < NEAR_PHASE
        weight = marginal[row] * near
        total = float(np.add.reduce(weight))
        phase = float(space.phase[best]) + float(weight @ away) / total
        period = math.exp(float(weight @ self._log_period[row]) / total)
        self._reading = row, near, away, best, phase
        return Estimate(phase % 1.0, period, min(total, 1.0), evidence)

    def bar(self) -> NDArray[np.float32]:
        """Return the belief in each slot for the beat before the last estimate, float32 [slots].

        A state on the far side of the bar pointer's wrap belongs to the neighbouring beat, seen
        from the estimate: one whose phase, unwrapped, is 1 or more has passed a beat already.

        Raises:
            ValueError: no frame has been taken since the last reset.
        """
        if self._reading is None:
            raise ValueError("There is no estimate yet: call step() first.")
        row, near, away, best, phase = self._reading
        turn = np.floor(away + self.space.phase[best]) - np.floor(phase)
        # turn -1: one beat behind, 1: one ahead
        sides = np.stack([near & (turn == 0), near & (turn < 0), near & (turn > 0)], axis=1)
        belief = self._belief[:, row] @ sides.astype(np.float32) / self._total
        here, behind, ahead = belief.T
        change = self.space.slot_change
        return np.asarray(here + change.T @ behind + change @ ahead)


def _sharpness(tempo: NDArray[np.float32] | None) -> float:
    """Return how sure tempo probabilities are, 0-1: one less their entropy as a share of the most.

    0 where there are fewer than two classes, or they are no probabilities.
    """
    total = 0.0 if tempo is None or len(tempo) < 2 else float(np.add.reduce(tempo))
    if tempo is None or not 0 < total < math.inf:
        return 0.0
    share = np.maximum(tempo, np.float32(1e-9))
    entropy = -float(share @ np.log(share)) / total + math.log(total)
    return 1 - entropy / math.log(len(tempo))
