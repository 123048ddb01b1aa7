"""The network as a whole: front-end, trunk, heads, and the state that they carry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from beattrack.config import ModelConfig
from beattrack.model.allinone import AllInOneTempo
from beattrack.model.frontend import FrontEnd
from beattrack.model.heads import FluxSkip, Heads
from beattrack.model.streaming import State
from beattrack.model.tcn import TCN


class BeatNetwork(nn.Module):
    """A causal network from feature frames to beat, downbeat and tempo logits.

    ``forward`` on a whole sequence and any succession of ``step`` calls on its pieces give the same
    numbers: they are one function, and what it remembers is in ``state``, never in the module.

    Attributes:
        config: the ModelConfig that it was built from
        history: frames, the longest look-back of an attention block; 0 for a TCN
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.front = FrontEnd(config)
        attention = config.model == "allinonetempo"
        self.trunk: nn.Module = AllInOneTempo(config) if attention else TCN(config)
        self.heads = Heads(config)
        self.flux = FluxSkip(config)
        self.history = (config.kernel - 1) * 2 ** (config.depth - 1) if attention else 0

    @property
    def latency_frames(self) -> int:
        """Frames between a beat and the frame whose beat logit speaks of it."""
        return self.config.label_delay

    def init_state(self, batch: int = 1) -> State:
        """Return the state before the first frame: all zeros, on the model's device.

        The caches' shapes are given where they are used: FrontEnd, TCN or AllInOneTempo, Heads and
        FluxSkip. Attention also needs

            frames: int64 [1]  # frames seen, saturating at ``history``: masks the empty caches
        """
        if batch < 1:
            raise ValueError(f"batch={batch} is not possible: it must be 1 or more.")
        one = next(self.parameters())

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=one.dtype, device=one.device)

        state = self.front.init_state(batch * self.config.channels, zeros)
        state |= self.trunk.init_state(batch, zeros)  # type: ignore[operator]
        state |= self.heads.init_state(batch, zeros)
        state |= self.flux.init_state(batch, zeros)
        if self.history:
            state["frames"] = torch.zeros(1, dtype=torch.int64, device=one.device)
        return state

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits of a whole sequence, heard from its start.

        Args:
            x: float32 [B, C, F, T], feature frames; C and F are the configuration's channels and
                bins, log-spectrogram bins before flux bins

        Returns:
            beat: float32 [B, T], logit; frame t speaks of frame t - ``latency_frames``
            downbeat: float32 [B, T], logit
            tempo: float32 [B, T, tempo_bins], logits of a softmax; class k is k + 1 BPM

        Raises:
            ValueError: x has another shape.
        """
        self._check(x)
        return self._run(x, self.init_state(x.shape[0]), None)[0]

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the logits of the next n >= 1 frames, and the state after them; in eval mode.

        Args:
            x: float32 [B, C, F, n]
            state: from ``init_state(B)`` or from the last ``step``; it is not changed

        Raises:
            ValueError: x has another shape.
            RuntimeError: the module is in training mode, whose dropout no listener wants.
        """
        if self.training:
            raise RuntimeError("A network in training mode cannot stream: call eval() first.")
        self._check(x)
        outputs, new_state = self._run(x, state, state.get("frames"))
        if self.history:
            new_state["frames"] = (state["frames"] + x.shape[-1]).clamp(max=self.history)
        return outputs, new_state

    def _check(self, x: Tensor) -> None:
        c = self.config
        if x.ndim != 4 or x.shape[1] != c.channels or x.shape[2] != c.bins or x.shape[3] < 1:
            wanted = f"[B, {c.channels}, {c.bins}, T]"
            raise ValueError(f"Frames of shape {list(x.shape)} do not fit the model's {wanted}.")

    def _run(self, x: Tensor, state: State, seen: Tensor | None) -> tuple[dict[str, Tensor], State]:
        """Both forward and step; ``seen`` None says that nothing came before ``x``."""
        y, new_state = self.front(x.flatten(0, 1), state)
        y, trunk_state = self.trunk(y, state, seen)
        outputs, heads_state = self.heads(y, state)
        outputs["beat"], flux_state = self.flux(outputs["beat"], x, state)
        return outputs, new_state | trunk_state | heads_state | flux_state


def build_model(config: ModelConfig) -> BeatNetwork:
    """Build the network of a configuration, with fresh weights, in training mode."""
    return BeatNetwork(config)
