"""The network. With ``beattrack.export``, the only part of beattrack that imports torch."""

from beattrack.model.network import BeatNetwork, build_model

__all__ = ["BeatNetwork", "build_model"]
