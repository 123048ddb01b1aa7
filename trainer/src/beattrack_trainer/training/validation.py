"""How well the network's activations are followed: the live filter on whole validation tracks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import mir_eval
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beattrack.config import DecoderConfig, FeatureConfig
from beattrack.events import TrackerState
from beattrack.following import Follower
from beattrack.model import BeatNetwork
from beattrack.tracker import BeatReporter

LONGEST_S = 60.0  # of a track that is listened to


@dataclass(frozen=True)
class Heard:
    """A track as the network and the filter heard it.

    beat, downbeat: float32 [frames], probabilities; frame t speaks of ``latency`` frames ago
    annotated: float64 [beats, 2]: seconds, beat in bar
    reported: float64 [beats, 2]: the same of the beats that were reported
    """

    name: str
    fps: float
    latency: int
    beat: NDArray[np.float32]
    downbeat: NDArray[np.float32]
    annotated: NDArray[np.float64]
    reported: NDArray[np.float64]


def follow(
    network: BeatNetwork, frames: Tensor, beats: Tensor, name: str, features: FeatureConfig
) -> Heard:
    """Run one track, float32 [C, F, T], through the network and then the filter, frame by frame.

    The network is in evaluation mode and has no flux mixed in. The steps are those of
    ``BeatTracker``, except that silence is not looked for: the features do not hold the level.

    Args:
        network: as it is; the caller decides which weights it has.
        frames: features from the start of the track, on the network's device.
        beats: float64 [beats, 2]: annotated seconds, beat in bar.
        name: of the track.
        features: what a feature frame is.
    """
    with torch.no_grad():
        out = network(frames[None])
    beat, downbeat = (torch.sigmoid(out[k][0].float()).cpu().numpy() for k in ("beat", "downbeat"))
    tempo = torch.softmax(out["tempo"][0].float(), dim=-1).cpu().numpy()
    latency = network.latency_frames
    fps = features.fps
    follower = Follower(DecoderConfig(), features, latency)
    reporter = BeatReporter(follower.filter, fps, latency)
    reported = []
    heard = frames.float().cpu().numpy()
    for t in range(len(beat)):
        estimate, _ = follower.step(
            heard[:, :, t], float(beat[t]), float(downbeat[t]), tempo[t], power=1.0
        )
        event = reporter.step(t, (t + 1) / fps, estimate)
        if event is not None and follower.gate.state is TrackerState.LOCKED:
            reported.append((event.time_s, event.position))
    found = np.array(reported, dtype=np.float64).reshape(-1, 2)
    return Heard(name, fps, latency, beat, downbeat, beats.cpu().numpy(), found)


def f_measures(heard: Heard) -> tuple[float, float]:
    """Return the F-measures (+-70 ms) of beats and of downbeats, the first 5 s left out; 0-1.

    The second is nan where no downbeats are annotated.
    """
    truth, found = heard.annotated, heard.reported
    downbeats = truth[truth[:, 1] == 1, 0]
    beat_f = _f_measure(truth[:, 0], found[:, 0])
    if not len(mir_eval.beat.trim_beats(downbeats)):
        return beat_f, float("nan")
    return beat_f, _f_measure(downbeats, found[found[:, 1] == 1, 0])


def _f_measure(truth: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return mir_eval's F-measure of times in seconds; 0 when nothing was found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no beats shows in the figure
        return float(
            mir_eval.beat.f_measure(*(np.sort(mir_eval.beat.trim_beats(t)) for t in (truth, found)))
        )
