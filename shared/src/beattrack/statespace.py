"""The bar-pointer state space: where in the bar, and how fast.

After Krebs, Boeck, Widmer, "An efficient state-space model for joint tempo and meter tracking"
(ISMIR 2015), with two changes. A beat period need not be a whole number of frames: at 50 frames
a second whole periods would leave gaps of 7 % at fast tempi. And a new pulse may start at any
frame with a small probability, so that the filter recovers from a change of song.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from beattrack.config import DecoderConfig

TEMPO_STEP = 0.025  # neighbouring tempi differ by this ratio, about 2.9 bpm at 115
METER_WEIGHT = {4: 0.6, 3: 0.2, 2: 0.1, 6: 0.1}  # how common each meter is; others: 0.05
METER_CHANGE = 1e-4  # probability at a bar line that the next bar has another meter
TEMPO_FLOOR = 1e-5  # probability at a beat of a jump to any tempo


@dataclass(frozen=True)
class StateSpace:
    """The constants of the filter for one configuration and frame rate.

    A state is (slot, tempo, k): slot is a beat of a bar of one meter, k the frames since that
    beat. States of one slot lie in one row, tempo after tempo, each with floor(period) + 1 states.
    From the last but one state the next beat comes with probability ``early``, so that the mean
    period is the tempo's.
    """

    periods: NDArray[np.float32]  # [tempi] frames per beat, ascending
    starts: NDArray[np.intp]  # [tempi] first state of each tempo within a row
    ends: NDArray[np.intp]  # [tempi] last state of each tempo within a row
    early: NDArray[np.float32]  # [tempi] probability to leave from the state before the last
    phase: NDArray[np.float32]  # [row] k / period of each state, 0-1
    tempo_of: NDArray[np.intp]  # [row] tempo index of each state
    prior: NDArray[np.float32]  # [tempi] tempo prior, sums to 1
    tempo_change: NDArray[np.float32]  # [tempi, tempi] from row to column, rows sum to 1
    slot_beats: NDArray[np.intp]  # [slots] beats per bar of each slot's meter
    slot_position: NDArray[np.intp]  # [slots] beat in bar, from 1
    meter_prior: NDArray[np.float32]  # [slots] prior of each slot's meter; meters sum to 1
    slot_change: NDArray[np.float32]  # [slots, slots] from row to column, rows sum to 1
    next_slot: NDArray[np.intp] = field(repr=False)  # [slots] the likeliest slot after each

    @property
    def row(self) -> int:
        """Number of states of one slot."""
        return len(self.phase)


def build_state_space(config: DecoderConfig, fps: float) -> StateSpace:
    """Lay out the states and transitions for ``fps`` frames a second."""
    longest, shortest = 60 * fps / config.min_bpm, 60 * fps / config.max_bpm
    tempi = int(np.ceil(np.log(longest / shortest) / np.log1p(TEMPO_STEP))) + 1
    periods = np.geomspace(shortest, longest, tempi)
    counts = np.floor(periods).astype(int) + 1
    ends = np.cumsum(counts) - 1
    starts = ends - counts + 1
    tempo_of = np.repeat(np.arange(tempi), counts)
    octaves = np.log2(60 * fps / periods / config.tempo_centre_bpm) / config.tempo_spread
    prior = np.exp(-0.5 * octaves**2)
    prior /= prior.sum()
    ratio = periods[None, :] / periods[:, None]
    change = np.exp(-config.tempo_change * np.abs(ratio - 1))
    change = change / change.sum(axis=1, keepdims=True) * (1 - TEMPO_FLOOR) + TEMPO_FLOOR * prior
    beats = np.concatenate([[b] * b for b in config.beats_per_bar])
    position = np.concatenate([np.arange(1, b + 1) for b in config.beats_per_bar])
    common = np.array([METER_WEIGHT.get(b, 0.05) for b in beats])
    common /= common[position == 1].sum()
    slots = _slot_change(beats, position, common)
    return StateSpace(
        periods=periods.astype(np.float32),
        starts=starts,
        ends=ends,
        early=(1 - (periods - np.floor(periods))).astype(np.float32),
        phase=((np.arange(len(tempo_of)) - starts[tempo_of]) / periods[tempo_of]).astype(
            np.float32
        ),
        tempo_of=tempo_of,
        prior=prior.astype(np.float32),
        tempo_change=change.astype(np.float32),
        slot_beats=beats,
        slot_position=position,
        meter_prior=common.astype(np.float32),
        slot_change=slots.astype(np.float32),
        next_slot=slots.argmax(axis=1),
    )


def _slot_change(
    beats: NDArray[np.intp], position: NDArray[np.intp], common: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probabilities from slot to slot: the next beat, or at a bar line a new meter."""
    change = np.zeros((len(beats), len(beats)))
    firsts = np.flatnonzero(position == 1)
    for slot, (bar, beat) in enumerate(zip(beats, position, strict=True)):
        if beat < bar:
            change[slot, slot + 1] = 1
        else:
            change[slot, firsts] = METER_CHANGE * common[firsts]
            change[slot, slot - bar + 1] += 1 - METER_CHANGE
    return change
