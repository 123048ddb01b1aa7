"""The comparison itself: environments, then every song through every tracker, then scores."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from beattrack.config import ConfigError
from beattrack_runtime.errors import BeattrackError
from beattrack_runtime.session import load_model
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.audio import decoder_warnings
from beattrack_trainer.data.folders import Track, open_data_sets
from beattrack_trainer.evaluation.scores import TRIM_S, trim
from peers import environments
from peers.catalogue import Peer
from peers.hearing import (
    Heard,
    HearingError,
    Hearings,
    Listener,
    decode,
    here,
    runner_hash,
    song_key,
)
from peers.report import Results
from peers.scoring import Song, beats_only, rows


@dataclass
class Comparison:
    """What is the same for all songs, and what went wrong so far."""

    listeners: list[Listener]
    hearings: Hearings
    beats_only: frozenset[str]  # songs whose downbeats are not scored
    console: Console
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)


def find_tracks(folder: str, console: Console) -> list[Track]:
    """Return the songs of a folder that have beats, and say how many have none.

    Raises:
        ConfigError: there is no such folder, or no audio with beats in it.
    """
    (data,) = open_data_sets(DataConfig(data=(folder,)))
    listing = data.listing()
    if not listing.tracks:
        raise ConfigError(
            f"The folder '{folder}' has no audio with a .beats file of the same name beside it or "
            "in beats/; docs/peers.md says what is compared."
        )
    silent = len(listing.audio) - len(listing.tracks)
    if silent:
        console.print(f"{silent} audio files without beats are left out.")
    return list(listing.tracks)


def install(
    peers: list[Peer], folder: Path, console: Console
) -> tuple[list[Listener], dict[str, str]]:
    """Return the peers that can be run here, and why the others cannot."""
    found: list[Listener] = []
    left_out: dict[str, str] = {}
    for peer in peers:
        if peer.environment is None:
            load_model(Path(peer.arguments[0]) if peer.arguments else None)  # or says why not
            found.append(here(peer))
            continue
        recipe = environments.ENVIRONMENTS[peer.environment]
        try:
            with console.status(f"Environment of {peer.name}"):
                python = environments.ensure(recipe, folder)
        except (environments.InstallError, OSError) as error:
            left_out[peer.name] = f"cannot be installed here: {error}"
            console.print(f"{peer.name} is left out, it {left_out[peer.name]}", highlight=False)
            continue
        key = f"{environments.recipe_hash(recipe)}-{runner_hash(peer)}"
        found.append(Listener(peer, python, key))
    return found, left_out


def compare(work: Comparison, name: str, tracks: list[Track], jobs: int) -> Results:
    """Run what is not known yet and score everything.

    Args:
        work: the trackers.
        name: of the folder, for titles.
        tracks: the songs.
        jobs: songs at a time.

    Raises:
        ValueError: not one song can be scored.
    """
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=work.console,
    )  # fmt: skip
    with progress, ThreadPoolExecutor(jobs) as pool:
        bar = progress.add_task("Listening", total=len(tracks))
        try:
            songs = []
            for found in pool.map(lambda t: _hear(work, t), tracks):
                songs += [found] if found else []
                progress.advance(bar)
        except BaseException:  # Ctrl-C among them: no song is begun any more
            work.stop.set()
            raise
    if not songs:
        reason = next(iter(work.left_out.values()), "none was given")
        raise ValueError(f"Not one of {len(tracks)} songs could be scored; the first: {reason}")
    peers = [listener.peer for listener in work.listeners]
    seconds = sum(next(iter(s.heard.values())).seconds for s in songs)
    return Results(name, songs, rows(peers, songs), seconds, work.left_out, work.failed)


def _hear(work: Comparison, track: Track) -> Song | None:
    """Return a song with what was heard; None, noted in ``left_out``, if it cannot be scored."""
    try:
        reference = read_beats(track.beats)
        heard = dict(_answers(work, track))
        if not heard:
            return None
        reference = reference[reference[:, 0] < next(iter(heard.values())).seconds]
        if len(trim(reference[:, 0])) < 2:
            raise ValueError(f"fewer than two beats are annotated after the first {TRIM_S:g} s.")
    except (ValueError, OSError, BeattrackError) as error:
        work.left_out[track.name] = str(error)
        work.console.print(f"{track.name} is left out: {error}", highlight=False, markup=False)
        return None
    only = track.name in work.beats_only or not np.any(reference[:, 1] == 1)
    return Song(track.name, beats_only(reference) if only else reference, heard)


def _answers(work: Comparison, track: Track) -> Iterator[tuple[str, Heard]]:
    """Yield what each tracker says, from what is kept or by running it."""
    key = song_key(track.audio)
    with tempfile.TemporaryDirectory(prefix="peers-") as name, decoder_warnings():
        decoded: dict[int, tuple[Path, float]] = {}
        for listener in work.listeners:
            if work.stop.is_set():
                return
            peer = listener.peer
            heard = work.hearings.known(listener, key)
            try:
                if heard is None:
                    if peer.rate not in decoded:
                        decoded[peer.rate] = decode(track.audio, peer.rate, Path(name))
                    heard = work.hearings.listen(listener, key, *decoded[peer.rate])
            except HearingError as error:
                if work.stop.is_set():
                    return
                work.failed[f"{peer.name} on {track.name}"] = str(error)
                text = f"{peer.name} failed on {track.name}: {error}"
                work.console.print(text, highlight=False, markup=False)
                continue
            yield peer.name, heard
