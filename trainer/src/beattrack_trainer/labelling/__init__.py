"""Beats for music that nobody has annotated: what several offline trackers agree on."""
