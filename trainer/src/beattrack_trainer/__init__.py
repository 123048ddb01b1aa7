"""The training stack of beattrack: render, preprocess, train, evaluate, export."""

__version__ = "0.1.0"
