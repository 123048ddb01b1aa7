"""BeatNet, model 1, in its real-time mode: a network and two particle filters, 20 ms at a time."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np

from peers.runners.common import Meter, answer, whole

RATE = 22050
HOP = 441
WINDOW = 1411  # samples of BeatNet's 64 ms frame


def main() -> None:
    """Run a step as soon as the samples that it reads have been heard.

    Step n of BeatNet's real-time mode reads up to sample 441 n + 1411, which is when its beats can
    be known; it dates them 441 n. Its microphone mode is as late: there the newest frame's centre
    lies 44 ms back. Its own loop takes the same steps, and tells the beats when the song is over.
    """
    # Imported by BeatNet for its microphone mode alone.
    sys.modules.setdefault("pyaudio", ModuleType("pyaudio"))
    from BeatNet.BeatNet import BeatNet

    np.random.seed(0)  # noqa: NPY002  # of its particles
    tracker = BeatNet(1, mode="realtime", inference_model="PF", plot=[], thread=False)
    audio = whole()

    def step(number: int) -> None:
        tracker.counter = number
        tracker.activation_extractor_realtime(audio)
        tracker.estimator.process(tracker.pred)

    meter = Meter()
    beats = []
    known = len(tracker.estimator.path)
    for number in range((len(audio) - WINDOW) // HOP + 1):
        meter.hop(step, number)
        path = tracker.estimator.path
        heard = (number * HOP + WINDOW) / RATE
        beats += [(float(at), int(position), heard) for at, position in path[known:]]
        known = len(path)
    answer(beats, meter.cost(HOP / RATE), ["BeatNet", "torch", "numpy"])


if __name__ == "__main__":
    main()
