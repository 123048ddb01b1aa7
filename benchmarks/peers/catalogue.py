"""The trackers that are compared: where each comes from and what its beat times mean."""

from __future__ import annotations

from dataclasses import dataclass

from beattrack.config import ConfigError


@dataclass(frozen=True)
class Peer:
    """One tracker. Its runner is ``peers.runners.<runner>``."""

    name: str  # in tables and file names
    runner: str
    environment: str | None  # of ``environments``; None: the interpreter that runs this
    rate: int  # Hz, of the audio that it is given
    online: bool  # whether it hears the song piece by piece; else it sees all of it first
    downbeats: bool
    times: str  # how its beat times come about
    arguments: tuple[str, ...] = ()  # for the runner


PEERS = (
    Peer(
        "beattrack", "beattrack", None, 44100, True, True,
        "states where the beat falls, as a rule up to 20 ms before it",
    ),
    Peer(
        "aubio", "aubio", "aubio", 44100, True, False,
        "its tempo object fed 512 samples at a time: speaks after the block in which it expects "
        "a beat and states a place inside that block or shortly before",
    ),
    Peer(
        "BeatNet", "beatnet", "beatnet", 22050, True, True,
        "model 1 and particle filters fed 20 ms at a time, a new instance for each song: dates a "
        "beat to the start of the newest 64 ms window, which it has heard whole by then",
    ),
    Peer(
        "madmom online", "madmom_online", "madmom", 44100, True, False,
        "eight online LSTMs and the online DBN fed 10 ms at a time: states the frame in which "
        "the filter passes the beat",
    ),
    Peer(
        "madmom offline", "madmom_offline", "madmom", 44100, False, True,
        "downbeat RNN and DBN (3 and 4 beats in a bar) after the whole song",
    ),
    Peer(
        "librosa", "librosa", "librosa", 22050, False, False,
        "beat_track with its defaults after the whole song",
    ),
)  # fmt: skip


def chosen(names: str, models: list[str]) -> list[Peer]:
    """Return the peers of a list such as ``aubio,BeatNet``; ours first, then one per model file.

    Raises:
        ConfigError: a name that there is not.
    """
    known = {p.name.casefold().replace(" ", "-"): p for p in PEERS}
    wanted = [w.strip().casefold().replace(" ", "-") for w in names.split(",") if w.strip()]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"There is no peer '{name}'; choose among {', '.join(known)}.")
    ours, *others = PEERS
    mine = [Peer(f"beattrack {m}", ours.runner, None, ours.rate, True, True, ours.times, (m,))
            for m in models]  # fmt: skip
    return [ours, *mine, *(p for p in others if not wanted or p in map(known.get, wanted))]
