"""What the trunk's features say: beat, downbeat and tempo; and the flux logit beside them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from beattrack.config import ModelConfig
from beattrack.model.streaming import State, Zeros, causal_mean, join

FLUX_PEAK_FRAMES = 2  # the flux of an onset peaks this many frames after the frame of the beat
# A logistic fit of "this frame is a beat" on the mean flux of the development songs.
FLUX_GAIN = 3.54
FLUX_OFFSET = -4.86

TEMPO_WINDOW = 128  # frames (2.6 s at 50 fps) that the tempo head averages over
BEAT_PRIOR = -3.0  # initial beat and downbeat logit: about one frame in 25 is a beat


def flux_logit(mean_flux: Tensor) -> Tensor:
    """Beat logit that needs no learning, from the mean of the flux bins: float, any shape."""
    return FLUX_GAIN * mean_flux + FLUX_OFFSET


class Heads(nn.Module):
    """Linear heads for beat and downbeat; for tempo a map that forgets the phase of the beat.

    A tempo is a property of the last seconds, not of a frame: rectified features are averaged over
    the last TEMPO_WINDOW frames, then classified (300 classes of 1 BPM as in Böck et al. 2019).

    State:
        tempo: float [batch, dim, TEMPO_WINDOW - 1]  # the last rectified features
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.beats = nn.Conv1d(config.dim, 2, 1)
        self.tempo_features = nn.Conv1d(config.dim, config.dim, 1)
        self.tempo = nn.Conv1d(config.dim, config.tempo_bins, 1)
        assert self.beats.bias is not None
        nn.init.constant_(self.beats.bias, BEAT_PRIOR)

    def init_state(self, batch: int, zeros: Zeros) -> State:
        """Return the cache described above, zeros."""
        return {"tempo": zeros(batch, self.dim, TEMPO_WINDOW - 1)}

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Map float [batch, dim, n] to the logits of BeatNetwork.forward and the next state."""
        beats = self.beats(x)
        mean, cache = causal_mean(F.elu(self.tempo_features(x)), state["tempo"])
        tempo = self.tempo(mean).transpose(1, 2)
        return {"beat": beats[:, 0], "downbeat": beats[:, 1], "tempo": tempo}, {"tempo": cache}


class FluxSkip(nn.Module):
    """Mix the flux logit into the beat logit: (1 - w) * network + w * flux, w = ``flux_mix``.

    It has no parameters, so that a network trained with w = 0 can be exported with any w. The flux
    is delayed until its peak falls on the frame that the network marks.

    State, absent if w is 0:
        flux: float [batch, max(0, label_delay - FLUX_PEAK_FRAMES)]  # the last mean fluxes
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = config.flux_mix
        self.bins = config.flux_bins
        self.delay = max(0, config.label_delay - FLUX_PEAK_FRAMES)

    def init_state(self, batch: int, zeros: Zeros) -> State:
        """Return the cache described above, zeros: silence."""
        return {"flux": zeros(batch, self.delay)} if self.weight and self.delay else {}

    def forward(self, beat: Tensor, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Mix into ``beat``, float [batch, n], what ``x``, the input [batch, C, F, n], shows."""
        if not self.weight:
            return beat, {}
        flux = x[:, :, -self.bins :].mean(dim=(1, 2))
        new_state: State = {}
        if self.delay:
            joined, new_state["flux"] = join(state["flux"], flux)
            flux = joined[..., : -self.delay]
        return (1 - self.weight) * beat + self.weight * flux_logit(flux), new_state
