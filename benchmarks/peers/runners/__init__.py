"""One module for each tracker. It runs inside that tracker's own environment, on one song.

A module is started as ``python -m peers.runners.NAME AUDIO.wav ANSWER.json [ARGUMENT ...]`` and
imports nothing of this project but ``common``.
"""
