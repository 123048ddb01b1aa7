"""Features, network and online decoding of beattrack, shared by the trainer and the runtime."""

__version__ = "0.1.0"
