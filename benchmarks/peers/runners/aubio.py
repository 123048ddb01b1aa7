"""aubio's tempo object with the settings of its own command: window 1024, hop 512."""

from __future__ import annotations

import aubio

from peers.runners.common import Meter, answer, blocks

RATE = 44100
HOP = 512


def main() -> None:
    """Feed the song hop by hop; it says after a hop whether there was a beat, and where."""
    tempo = aubio.tempo("default", 1024, HOP, RATE)
    meter = Meter()
    beats = []
    for number, block in enumerate(blocks(HOP), start=1):
        if meter.hop(tempo, block)[0]:
            beats.append((tempo.get_last_s(), 0, number * HOP / RATE))
    answer(beats, meter.cost(HOP / RATE), ["aubio"])


if __name__ == "__main__":
    main()
