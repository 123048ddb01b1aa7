"""Let a wider TCN begin as the narrower one that is already trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from beattrack.model import BeatNetwork, build_model

MERGE = "trunk.merge.weight"  # its inputs come channel by channel


def widened(narrow: dict[str, Tensor], network: BeatNetwork) -> dict[str, Tensor] | None:
    """Return weights with which a wider network computes what the narrow one does.

    The trained numbers keep their places. What a new unit hears is left as the wider network was
    drawn; what it says to an old one is zero, so that nothing changes until it has learned to say
    something. (The function-preserving start of Chen, Goodfellow, Shlens: Net2Net, ICLR 2016, with
    new units in place of copied ones: the TCN has no normalisation, which copies would be for.)

    Args:
        narrow: state of a TCN of a smaller ``dim``.
        network: freshly built, of the width that is wanted.

    Returns:
        A state of ``network``; None where the two differ in anything but the width.
    """
    if network.config.model != "tcn" or MERGE not in narrow:
        return None
    dim = len(narrow[MERGE])
    if not 0 < dim < network.config.dim:
        return None
    with torch.device("meta"):
        fitting = build_model(replace(network.config, dim=dim)).state_dict()
    if {k: v.shape for k, v in narrow.items()} != {k: v.shape for k, v in fitting.items()}:
        return None
    result = {}
    for name, wide in network.state_dict().items():
        old, new = narrow[name], wide.clone()
        if name == MERGE:
            old, new = (w.reshape(len(w), network.config.channels, -1, 1) for w in (old, new))
        new[: len(old)] = 0
        new[tuple(slice(n) for n in old.shape)] = old
        result[name] = new.reshape(wide.shape)
    return result
