"""just bench-peers: scores, table, resumption and failures, without any peer installed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from beattrack.config import ConfigError
from flux_model import drum_loop
from peers import __main__ as command
from peers import environments, hearing, pictures, report
from peers.catalogue import PEERS, Peer, chosen
from peers.compare import Comparison, compare, find_tracks, install
from peers.hearing import Heard, HearingError, Hearings, Listener, parse, song_key
from peers.scoring import HEARD, OFFLINE, STATED, Song, beats_only, rows, score_song

TIMES = np.arange(0.5, 20, 0.5)
REFERENCE = np.column_stack([TIMES, np.arange(len(TIMES)) % 4 + 1])
COST = {"hop_s": 0.01, "hop_median_ms": 0.5, "hop_p99_ms": 1.0, "busy_s": 2.0, "peak_mb": 50.0}
ONLINE = Peer("early bird", "bird", "bird", 22050, True, False, "in a test")
WHOLE = Peer("late owl", "owl", "owl", 22050, False, True, "in a test")


def said(delay, times=TIMES, emitted=None):
    position = np.arange(len(times)) % 4 + 1
    emitted = times + delay if emitted is None else np.full(len(times), emitted)
    return Heard(np.column_stack([times, position, emitted]), 20.0, COST, {"bird": "1.0"})


def raw(**changes):
    return {"beats": [[1.0, 0, 1.02]], **COST, "versions": {"bird": "1"}, "seconds": 3.0, **changes}


def quiet():
    return Console(file=io.StringIO(), width=300)


def test_what_counts_online_is_when_it_is_heard():
    late = said(0.1)
    heard, stated = (score_song(REFERENCE, late, t) for t in (HEARD, STATED))
    assert (heard.beat_f, stated.beat_f) == (0, 1)
    assert (heard.delay_ms, stated.delay_ms) == pytest.approx((100, 100))
    near = score_song(REFERENCE, said(0.03), HEARD)
    assert (near.beat_f, near.cmlt, near.downbeat_f) == (1, 1, 1)
    assert (near.latency_ms, near.lock_s) == (pytest.approx(30), 0)


def test_rows_and_table():
    songs = [
        Song("one", REFERENCE, {"early bird": said(0.1), "late owl": said(0, emitted=20.0)}),
        Song("two", beats_only(REFERENCE), {"early bird": said(0.0)}),  # the owl failed on it
    ]
    found = rows([WHOLE, ONLINE], songs)
    labels = [(r.peer.name, r.times, len(r.songs)) for r in found]
    assert labels == [("early bird", HEARD, 2), ("early bird", STATED, 2), ("late owl", OFFLINE, 1)]
    heard, stated, offline = (r.means() for r in found)
    assert (heard["beat_f"], stated["beat_f"], offline["beat_f"]) == (0.5, 1, 1)
    assert (heard["downbeat_f"], offline["downbeat_f"]) == (None, 1)  # the bird says no downbeats
    assert offline["delay_ms"] is offline["lock_s"] is None
    assert heard["lock_s"] is None  # never on one song of two: the median is infinite
    results = report.Results("my|songs", songs, found, 40.0, {"broken": "no audio"}, {})
    text = report.markdown(results)
    line = next(line for line in text.splitlines() if line.startswith("| late owl (offline)"))
    assert line.split(" | ")[1:6] == ["1", "1.000", "1.000", "1.000", "1.000"]
    assert "- broken: no audio" in text and "- early bird: bird 1.0" in text
    about = report.as_json(results)
    assert about["rows"][0]["songs"]["one"]["beat_f"] == 0
    assert about["rows"][0]["cost"]["real_time_factor"] == 0.1
    assert json.loads(json.dumps(about, allow_nan=False)) == about


def test_stated_times_that_score_alike_have_no_row_of_their_own():
    found = rows([ONLINE], [Song("one", REFERENCE, {"early bird": said(0.01)})])
    assert [r.times for r in found] == [HEARD]


def test_a_silent_peer_scores_nothing():
    nothing = Heard(np.empty((0, 3)), 20.0, COST, {})
    (row,) = rows([ONLINE], [Song("one", REFERENCE, {"early bird": nothing})])
    means = row.means()
    assert (means["beat_f"], means["cmlt"], means["lock_s"]) == (0, 0, None)
    assert report.cells(row, [Song("one", REFERENCE, {"early bird": nothing})])[8] == "never"


def test_pictures(tmp_path):
    songs = [Song("a" * 90, REFERENCE, {"early bird": said(0.1), "late owl": said(0)})]
    for draw in (pictures.scores, pictures.songs):
        pictures.save(draw, rows([ONLINE, WHOLE], songs), "title", tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"beats": [[1.0, 2]]},
        {"beats": [[float("nan"), 0, 1.0]]},
        {"beats": "x"},
        {"busy_s": -1},
        {"peak_mb": None},
        {"versions": 3},
        {"seconds": float("inf")},
    ],
)
def test_an_answer_is_checked(wrong):
    assert parse(raw()).events.shape == (1, 3)
    for answer in (raw(**wrong), [wrong], None):
        with pytest.raises(ValueError, match=r"impossible|Error|could not|cannot"):
            parse(answer)


@pytest.fixture
def folder(tmp_path):
    """Two songs, one that is broken, one without beats, one without annotation."""
    place = tmp_path / "songs"
    place.mkdir()
    audio, beats = drum_loop(12.0, 120.0)
    lines = "".join(f"{at:.3f}\t{n % 4 + 1}\n" for n, at in enumerate(beats))
    for name in ("one", "two", "broken", "silent", "spare"):
        soundfile.write(place / f"{name}.wav", audio[: -1 if name == "two" else None], 22050)
        (place / f"{name}.beats").write_text(lines)
    (place / "broken.wav").write_bytes(b"no audio at all")
    (place / "silent.beats").write_text("# no beats\n")
    (place / "spare.beats").unlink()
    return place


def work(tmp_path, *peers):
    listeners = [Listener(p, Path(sys.executable), "1") for p in peers]
    return Comparison(listeners, Hearings(tmp_path / "kept"), frozenset(), quiet())


def test_resumes_and_names_what_fails(tmp_path, folder, monkeypatch):
    runs = []

    def run(command, scratch, limit):
        runner = command[4].removeprefix("peers.runners.")
        runs.append(runner)
        if runner == "owl" and runs.count("owl") == 2:
            raise HearingError("ValueError: owls sleep")
        Path(command[6]).write_text(json.dumps(raw(beats=[[at, 1, at] for at in TIMES])))

    monkeypatch.setattr(hearing, "_run", run)
    tracks = find_tracks(str(folder), quiet())
    assert [t.name for t in tracks] == ["broken", "one", "silent", "two"]
    first = work(tmp_path, ONLINE, WHOLE)
    results = compare(first, "songs", tracks, 1)
    assert [s.name for s in results.songs] == ["one", "two"]
    assert set(results.left_out) == {"broken", "silent"}
    assert runs == ["bird", "owl", "bird", "owl"]  # "silent" sounds as "one" does, which is kept
    assert results.failed == {"late owl on two": "ValueError: owls sleep"}
    # The same again runs the failed one alone; of a new version everything.
    compare(work(tmp_path, ONLINE, WHOLE), "songs", tracks, 1)
    assert runs[4:] == ["owl"]
    newer = work(tmp_path, ONLINE, WHOLE)
    newer.listeners[0] = replace(newer.listeners[0], key="2")
    compare(newer, "songs", tracks, 1)
    assert runs[5:] == ["bird"] * 2
    # Half an answer is no answer.
    first.hearings.place(first.listeners[0], song_key(folder / "one.wav")).write_text('{"beats": [')
    compare(work(tmp_path, ONLINE, WHOLE), "songs", tracks, 1)
    assert runs[7:] == ["bird"]


def test_a_runner_that_cannot_start(tmp_path, folder):
    lost = work(tmp_path, replace(ONLINE, runner="lost"))
    (track,) = (t for t in find_tracks(str(folder), quiet()) if t.name == "one")
    with pytest.raises(ValueError, match="Not one of 1 songs"):
        compare(lost, "songs", [track], 1)
    assert "No module named" in lost.failed["early bird on one"]
    assert not list((tmp_path / "kept").rglob("*.json"))


def test_ours(tmp_path, folder):
    (ours,) = chosen("", [])[:1]
    listeners, _ = install([ours], tmp_path, quiet())
    hearings = Hearings(tmp_path / "kept")
    wav, seconds = hearing.decode(folder / "one.wav", ours.rate, tmp_path)
    heard = hearings.listen(listeners[0], "song", wav, seconds)
    assert hearings.known(listeners[0], "song").cost == heard.cost
    assert len(heard.events) > 5
    assert heard.events[:, 2].max() < seconds + 0.1
    assert 20 < heard.cost["peak_mb"] < 500 and 0 < heard.cost["busy_s"] < seconds


def test_an_environment_that_cannot_be_made(tmp_path, monkeypatch):
    calls = []

    def run(command, stdout, stderr):
        calls.append(command)
        if "venv" in command:
            Path(command[-1], "lib/python3.11/site-packages").mkdir(parents=True, exist_ok=True)
        failing = fails and "pip" in command
        stdout.write("ERROR: No matching distribution found for bird\n" if failing else "")
        stdout.flush()
        return subprocess.CompletedProcess(command, int(failing))

    monkeypatch.setattr(environments.subprocess, "run", run)
    fails = True
    peer = next(p for p in PEERS if p.environment == "madmom")
    found, left_out = install([peer], tmp_path, quiet())
    assert not found and "No matching distribution found for bird" in left_out[peer.name]
    fails = False
    calls.clear()
    (listener,), left_out = install([peer], tmp_path, quiet())
    assert not left_out and len(calls) == 2
    assert list(tmp_path.rglob("madmom-0.17.dist-info/METADATA"))
    calls.clear()
    assert install([peer], tmp_path, quiet())[0] == [listener] and not calls


def test_recipes_are_pinned_and_hashed():
    for recipe in environments.ENVIRONMENTS.values():
        for step in recipe.steps:
            for word in step:
                file = Path(word)
                lines = file.read_text().split() if file.suffix == ".txt" else []
                assert all("==" in line for line in lines)
    aubio = environments.ENVIRONMENTS["aubio"]
    other = replace(aubio, steps=(("aubio==0.4.8",),))
    assert environments.recipe_hash(aubio) != environments.recipe_hash(other)


def test_choice():
    assert [p.name for p in chosen("aubio, madmom-online", [])] == [
        "beattrack", "aubio", "madmom online",
    ]  # fmt: skip
    assert chosen("", ["a.onnx"])[1].arguments == ("a.onnx",)
    with pytest.raises(ValueError, match="no peer 'owl'"):
        chosen("owl", [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing"], "There is no data set folder 'missing'"),
        (["empty"], "The folder 'empty' has no audio with a .beats file"),
        (["songs", "--beats-only", "three"], "There is no song 'three' in 'songs'"),
        (["songs", "--peers", "owl"], "There is no peer 'owl'"),
    ],
)
def test_misuse_is_one_sentence(words, says, tmp_path, folder, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["peers", *words])
    assert command.main() == 2
    assert capsys.readouterr().err.startswith("bench-peers: error: There is no") or words == [
        "empty"
    ]


def test_audio_without_beats_is_told(folder):
    console = quiet()
    find_tracks(str(folder), console)
    assert "1 audio files without beats are left out" in console.file.getvalue()
    for file in folder.glob("*.beats"):
        file.unlink()
    with pytest.raises(ConfigError, match="has no audio with a .beats file"):
        find_tracks(str(folder), console)
