"""The table's rows: what each tracker said, scored alike by the trainer's own scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beattrack_trainer.evaluation.evaluate import interval, mean_scores
from beattrack_trainer.evaluation.scores import Scores, score
from peers.catalogue import Peer
from peers.hearing import Heard

# What is shown of Scores; _ms and _s are medians over songs, the rest means.
SHOWN = ("beat_f", "cmlt", "amlt", "downbeat_f", "latency_ms", "delay_ms", "lock_s")
# Times of a peer: as they reached a listener, as it states them, or after the whole song.
HEARD, STATED, OFFLINE = "heard", "stated", "offline"


@dataclass(frozen=True)
class Song:
    """One song of the folder."""

    name: str
    reference: NDArray[np.float64]  # [beats, 2]: seconds, beat in bar; cut to the audio's length
    heard: dict[str, Heard]  # by the peer's name; a peer that failed is missing


@dataclass
class Row:
    """One line of the table."""

    peer: Peer
    times: str  # HEARD, STATED or OFFLINE
    songs: dict[str, Scores] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the row is called."""
        return self.peer.name if self.times == HEARD else f"{self.peer.name} ({self.times})"

    def means(self) -> dict[str, float | None]:
        """Return SHOWN over all songs; None for what there is not."""
        means = mean_scores(list(self.songs.values()))
        found = {name: means.get(name) for name in SHOWN}
        if not self.peer.downbeats:
            found["downbeat_f"] = None
        if not self.peer.online:  # it spoke after the song
            found["latency_ms"] = found["delay_ms"] = found["lock_s"] = None
        return found

    def interval(self) -> list[float] | None:
        """Return the 95 % bootstrap interval of the mean beat F over songs."""
        return interval([s.beat_f for s in self.songs.values()])


def score_song(reference: NDArray[np.float64], heard: Heard, times: str) -> Scores:
    """Score one tracker on one song.

    Args:
        reference: float64 [beats, 2]: seconds, beat in bar; cut to the audio's length.
        heard: what it said.
        times: which of its times are held against the annotation: HEARD takes the moment at
            which each beat reached a listener, STATED and OFFLINE the time that the tracker gives.

    Raises:
        ValueError: fewer than two beats are annotated after the first 5 s.
    """
    stated, position, emitted = heard.events.T
    judged = emitted if times == HEARD else stated
    tempo = np.zeros(len(judged))  # no tempo is scored here: not every peer says one
    result = score(reference, np.column_stack([judged, position, emitted, tempo]))
    delay = float(np.median(emitted - stated) * 1000) if len(judged) else float("nan")
    return Scores(**{**vars(result), "delay_ms": delay})


def rows(peers: list[Peer], songs: list[Song]) -> list[Row]:
    """Return the rows: each online peer as heard, and as stated where that scores otherwise; then
    the offline ones.

    A song counts in a row where the peer could be run on it.
    """
    found: list[Row] = []
    for peer in sorted(peers, key=lambda p: not p.online):
        for times in (HEARD, STATED) if peer.online else (OFFLINE,):
            row = Row(peer, times)
            for song in songs:
                if peer.name in song.heard:
                    heard = song.heard[peer.name]
                    row.songs[song.name] = score_song(song.reference, heard, times)
            if row.songs and (times != STATED or _scores(row) != _scores(found[-1])):
                found.append(row)
    return found


def _scores(row: Row) -> list[float | None]:
    """Return the scores as the table shows them."""
    means = row.means()
    return [None if (v := means[name]) is None else round(v, 3) for name in SHOWN[:4]]


def costs(peer: Peer, songs: list[Song]) -> dict[str, Any]:
    """Return what a peer costs: of a hop the median over songs, of memory the most.

    ``real_time_factor`` is processor time over length of audio; start-up does not count.
    """
    heard = [s.heard[peer.name] for s in songs if peer.name in s.heard]
    busy = sum(h.cost["busy_s"] for h in heard)
    timed = sum(h.cost.get("timed_s", h.seconds) for h in heard)
    per_hop = {k: _median([h.cost[k] for h in heard]) for k in ("hop_median_ms", "hop_p99_ms")}
    return {
        "hop_s": heard[0].cost["hop_s"] if peer.online else None,
        **(per_hop if peer.online else dict.fromkeys(per_hop)),
        "real_time_factor": round(busy / timed, 5),
        "peak_mb": round(max(h.cost["peak_mb"] for h in heard), 1),
    }


def _median(values: list[float]) -> float:
    return round(float(np.median(values)), 4)


def beats_only(reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a reference whose downbeats are not scored."""
    return np.column_stack([reference[:, 0], np.zeros(len(reference))])
