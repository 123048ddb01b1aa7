"""trainer check: real breakage of data sets, and annotations made on another release."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from typer.testing import CliRunner

from beattrack_trainer.cli import app, run
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data import check as checking
from beattrack_trainer.data.alignment import align, onset_strength
from beattrack_trainer.data.annotations import read_annotation, read_beats
from beattrack_trainer.data.check import _pairs, check
from beattrack_trainer.data.findings import KINDS, check_beats
from beattrack_trainer.data.folders import open_data_sets
from helpers_trainer import write_set

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
RATE = 22050
real_songs = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development songs")


def open_set(folder, **paths):
    return open_data_sets(DataConfig(data=(str(folder),), **paths))[0]


def played(beats, seconds, seed=0):
    """Return audio float32 [n] with a drum on each beat, softer ones between, and some noise."""
    rng = np.random.default_rng(seed)
    audio = 0.01 * rng.standard_normal(int(seconds * RATE))
    t = np.arange(int(0.08 * RATE)) / RATE
    between = (beats[:-1] + beats[1:]) / 2
    for times, level in ((beats, 0.6), (between[rng.random(len(between)) < 0.5], 0.25)):
        for at in times:
            hit = np.sin(2 * np.pi * 70 * t) + 0.5 * rng.standard_normal(len(t))
            first = round(at * RATE)
            if first >= 0:
                part = audio[first : first + len(t)]
                part += (level * hit * np.exp(-t * 50))[: len(part)]
    return audio.astype(np.float32)


def human_beats(seconds=100.0, seed=3):
    """Return beats whose tempo wanders as that of players does, float64 [beats]."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(0, 0.004, 400))
    return (lambda t: t[t < seconds])(0.4 + np.cumsum(0.5 + drift - drift.mean()))


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A played song: its beats and its audio file."""
    beats = human_beats()
    return beats, played(beats, 102.0)


def onsets_of(folder, audio):
    soundfile.write(folder / "song.flac", audio, RATE)
    return onset_strength(folder / "song.flac")


def test_what_is_aligned_is_left_alone(tmp_path, song):
    beats, audio = song
    found = align(onsets_of(tmp_path, audio), beats)
    assert found.aligned and found.confident and found.unique
    assert abs(found.offset_s) < 0.02 and found.speed == 1 and found.contrast_before > 2


@pytest.mark.parametrize("shift", [-31.37, -4.21, 0.13, 7.77, 58.3])
def test_offset_is_recovered(tmp_path, song, shift):
    beats, audio = song
    lead = round(abs(shift) * RATE)
    other = audio[lead:] if shift < 0 else np.concatenate([np.zeros(lead, np.float32), audio])
    found = align(onsets_of(tmp_path, other), beats)
    assert found.confident and not found.aligned and found.unique and found.speed == 1
    assert abs(found.offset_s - shift) < 0.02
    assert found.contrast_after > 2 > found.contrast_before


@pytest.mark.parametrize(("speed", "shift"), [(1.005, 0.0), (0.995, 2.5), (0.96, 0.0)])
def test_speed_is_recovered(tmp_path, song, speed, shift):
    beats, audio = song
    slower = soxr.resample(audio, RATE, RATE * speed)
    slower = np.concatenate([np.zeros(round(shift * RATE), np.float32), slower])
    found = align(onsets_of(tmp_path, slower), beats)
    assert found.confident and not found.aligned and found.unique
    assert np.abs(found.apply(beats) - (speed * beats + shift)).max() < 0.02


def test_nothing_is_proposed_for_other_music_or_silence(tmp_path, song):
    beats, audio = song
    other = human_beats(seed=8)
    found = align(onsets_of(tmp_path, played(other, 102.0, seed=1)), beats)
    assert not found.confident
    assert align(onsets_of(tmp_path, np.zeros(RATE * 60, np.float32)), beats) is None
    assert align(onsets_of(tmp_path, audio), beats[:5]) is None


def test_strong_offbeats_are_no_reason_to_move_beats(tmp_path, song):
    beats, _ = song
    audio = played((beats[:-1] + beats[1:]) / 2, 102.0)  # loud between beats, soft on half of them
    found = align(onsets_of(tmp_path, audio), beats)
    assert found.aligned and found.confident
    assert 0.2 < abs(found.better_s) < 0.35


@real_songs
@pytest.mark.parametrize("name", ["b_happy", "relaxation_piece", "triangles"])
def test_real_songs_shifted_cropped_and_resampled(tmp_path, name):
    """Their tempo is constant, so a place is known up to whole beats; the search says so."""
    beats = read_beats(SHARED / "realdev" / f"{name}.beats")[:, 0]
    audio, rate = soundfile.read(SHARED / "realdev" / f"{name}.ogg", dtype="float32")
    audio = soxr.resample(audio[: 60 * rate], rate, RATE)
    beats = beats[beats < 60]
    period = np.diff(beats).mean()
    assert align(onsets_of(tmp_path, audio), beats).aligned

    def off_by(found, true):
        error = found.apply(beats) - true
        return np.abs(error - period * np.round(np.median(error) / period)).max()

    third = round(period / 3 * RATE)
    cases = [
        (np.concatenate([np.zeros(9 * third, np.float32), audio[third:]]), 1.0, 8 * third / RATE),
        (audio[10 * third :], 1.0, -10 * third / RATE),
        (soxr.resample(audio, RATE, RATE * 1.005), 1.005, 0.0),
    ]
    for changed, speed, shift in cases:
        found = align(onsets_of(tmp_path, changed), beats)
        assert found.confident and not found.aligned
        assert off_by(found, speed * beats + shift) < 0.02


def kinds(report):
    return {(f.kind, f.track) for f in report.findings}


def test_a_sound_set_has_no_findings(tmp_path):
    write_set(tmp_path / "set", 3)
    report = check(open_set(tmp_path / "set"), always_align=True)
    assert report.findings == [] and len(report.tracks) == 3
    assert all(t.alignment.aligned and t.alignment.confident for t in report.tracks.values())
    assert report.tracks["t00"].seconds == pytest.approx(12.0)


def test_every_kind_of_broken_file_is_named_and_none_is_fatal(tmp_path):
    folder = tmp_path / "set"
    write_set(folder, 12)
    tracks, beats = folder / "tracks", folder / "beats"
    (tracks / "t00.flac").write_bytes(b"not audio at all")
    (tracks / "t01.flac").write_bytes(b"")
    (tracks / "t02.flac").unlink()
    (beats / "t03.beats").unlink()
    (beats / "t04.beats").write_text("1.0 1\n0.5 2\n")
    (beats / "t05.beats").write_bytes(bytes(200))
    (beats / "t06.beats").write_text("1.0 1\n")
    soundfile.write(tracks / "t07.flac", np.zeros(0, np.float32), RATE)
    (tracks / "t08.flac").unlink()
    (tracks / "t08.flac").symlink_to(tmp_path / "nowhere.flac")
    (tracks / "t09.flac").unlink()
    os.mkfifo(tracks / "t09.flac")
    soundfile.write(tracks / "t10.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    (tracks / ".hidden.flac").write_bytes(b"x")
    (folder / "metadata.csv").write_text("id,seconds,bpm\nt11,44,101\n")
    (folder / "folds.tsv").write_text("track\tfold\nt00\t9\n")
    (folder / "segments").mkdir()
    (folder / "segments" / "t00.txt").write_text("no number\n")
    report = check(open_set(folder), jobs=2)
    found = kinds(report)
    for kind, names in {
        "audio_unreadable": "t00 t01 t07 t08 t09 t10",
        "audio_without_beats": "t03",
        "beats_without_audio": "t02",
        "beats_unreadable": "t04 t05",
        "too_few_beats": "t06",
        "spare_file": "t10",
        "duration_differs": "t11",
        "tempo_differs": "t11",
        "segments_unreadable": "t00",
    }.items():
        assert {t for k, t in found if k == kind} == set(names.split()), kind
    assert {"metadata_missing", "folds_unreadable"} <= {k for k, _ in found}
    assert "nothing_to_train" not in {k for k, _ in found}
    assert all(f.message.endswith(".") and "\n" not in f.message for f in report.findings)


def test_few_even_beats_are_not_odd(tmp_path):
    for count in range(2, 7):
        (tmp_path / "a.beats").write_text("".join(f"{i / 2}\t{i + 1}\n" for i in range(count)))
        assert list(check_beats("a", read_annotation(tmp_path / "a.beats"))) == []


def test_a_set_without_a_usable_track(tmp_path):
    write_set(tmp_path / "set", 1)
    (tmp_path / "set" / "tracks" / "t00.flac").write_bytes(b"junk")
    assert ("nothing_to_train", "") in kinds(check(open_set(tmp_path / "set")))
    (tmp_path / "empty").mkdir()
    assert ("nothing_to_train", "") in kinds(check(open_set(tmp_path / "empty")))


def test_audio_of_another_release(tmp_path, song):
    """One starts 20 s later, one has an end cut off, one is another song."""
    beats, audio = song
    for part in ("tracks", "beats"):
        (tmp_path / "set" / part).mkdir(parents=True)
    lines = "".join(f"{t:.4f}\t{i % 4 + 1}\n" for i, t in enumerate(beats))
    changed = {
        "same": audio,
        "later": audio[20 * RATE :],
        "cut": audio[: 70 * RATE],
        "other": played(human_beats(seed=8), 70.0, seed=1),
    }
    for name, samples in changed.items():
        soundfile.write(tmp_path / "set" / "tracks" / f"{name}.flac", samples, RATE)
        (tmp_path / "set" / "beats" / f"{name}.beats").write_text(lines)
    words = ["check", f"data={tmp_path / 'set'}", "--json", str(tmp_path / "a.json"), "--verbose"]
    out = tmp_path / "aligned"
    done = CliRunner().invoke(app, [*words, "--write-aligned", str(out)])
    assert done.exit_code == 1 and done.exception.__class__ is SystemExit
    result = json.loads((tmp_path / "a.json").read_text())
    (data,) = result["data"]
    found = {(f["kind"], f["track"]) for f in data["findings"]}
    assert found == {
        ("offset", "later"), ("beats_run_on", "cut"),
        ("beats_beyond_audio", "other"), ("alignment_unclear", "other"),
    }  # fmt: skip
    assert result["errors"] == 2 and result["warnings"] == 2 and result["format"] == 1
    assert abs(data["tracks"]["later"]["alignment"]["offset_s"] + 20) < 0.02
    assert sorted(f.name for f in out.iterdir()) == ["cut.beats", "later.beats", "same.beats"]
    moved = read_beats(out / "later.beats")
    inside = beats > 20.02
    assert np.abs(moved[-inside.sum() :, 0] - (beats[inside] - 20)).max() < 0.02
    assert (tmp_path / "set" / "beats" / "later.beats").read_text() == lines
    again = CliRunner().invoke(app, [*words, "--write-aligned", str(out)])
    assert again.exit_code == 2 or "not an empty folder" in str(again.exception)
    corrected = open_set(tmp_path / "set", path_beats_dir=str(out))
    assert [t.name for t in corrected.tracks()] == ["cut", "later", "same"]
    later = align(onset_strength(tmp_path / "set" / "tracks" / "later.flac"), moved[:, 0])
    assert later.aligned and later.confident


def test_exit_codes_and_errors(tmp_path):
    write_set(tmp_path / "set", 1)
    invoke = CliRunner().invoke
    assert invoke(app, ["check", f"data={tmp_path / 'set'}"]).exit_code == 0
    assert "no data set folder" in str(invoke(app, ["check", "data=/none/there"]).exception)
    union = f"data=[{tmp_path / 'set'},{tmp_path / 'set'}]"
    two = invoke(app, ["check", union, "--write-aligned", "x"])
    assert "one data set at a time" in str(two.exception)


def test_the_json_file_may_be_a_link_or_a_pipe_and_no_neighbour_is_touched(tmp_path, capsys):
    write_set(tmp_path / "set", 1)
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    (tmp_path / ".link.json").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    words = ["check", f"data={tmp_path / 'set'}", "--json"]
    assert run([*words, str(tmp_path / "link.json")]) == 0
    assert capsys.readouterr().out == "set: 1 track, 0.0 h: nothing found.\n"
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["format"] == 1
    assert (tmp_path / ".link.json").read_text() == "mine"
    with ThreadPoolExecutor() as pool:
        reading = pool.submit((tmp_path / "pipe").read_text)
        assert run([*words, str(tmp_path / "pipe")]) == 0
        assert json.loads(reading.result(10))["format"] == 1
    assert (tmp_path / "pipe").is_fifo()


def test_a_json_file_that_cannot_be_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    write_set(tmp_path / "set", 1)
    monkeypatch.setattr(checking, "check", None)
    words = ["check", f"data={tmp_path / 'set'}", "--json", str(tmp_path / "none" / "a.json")]
    assert run(words) == 1
    said = f"error: Cannot write '{tmp_path}/none/a.json': No such file or directory.\n"
    assert capsys.readouterr().err == said


def test_every_kind_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()
    assert [k for k, level in KINDS.items() if f"| `{k}` | {level} |" not in text] == []


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_gtzan_lies_in_folders_of_genres_and_its_annotations_have_a_prefix(tmp_path):
    touch(tmp_path / "tracks", "blues/blues.00000.wav", "rock/rock.00001.wav")
    touch(tmp_path / "beats", "gtzan_blues_00000.beats", "gtzan_rock_00001.beats")
    pairs = [(t.name, t.beats.name) for t in open_set(tmp_path).tracks()]
    assert pairs == [
        ("blues.00000", "gtzan_blues_00000.beats"),
        ("rock.00001", "gtzan_rock_00001.beats"),
    ]


def test_names_are_matched_across_case_and_unicode_forms(tmp_path):
    touch(tmp_path / "tracks", "Cafe\u0301.WAV", "Song One.mp3", "a.wav", "a_.wav", "A-.flac")
    touch(tmp_path / "beats", "caf\u00e9.beats", "song_one.txt", "a.beats", "A_.beats")
    listing = open_set(tmp_path).listing()
    names = {t.name: t.beats.name for t in listing.tracks}
    # What two files could mean is matched with neither.
    assert names == {"Cafe\u0301": "caf\u00e9.beats", "Song One": "song_one.txt", "a": "a.beats"}


def test_which_of_several_files_wins(tmp_path):
    touch(tmp_path / "tracks", "a.mp3", "a.wav", "x/b.wav", "y/b.wav", "x/.c.wav", "x/deep/d.wav")
    touch(tmp_path / "beats", "a.txt", "a.beats", "b.beats", "d.beats")
    data = open_set(tmp_path)
    listing = data.listing()
    assert [(t.audio.name, t.beats.name) for t in listing.tracks] == [
        ("a.wav", "a.beats"), ("b.wav", "b.beats"),
    ]  # fmt: skip
    found = {(f.kind, f.track) for f in _pairs(listing, data)}
    assert found == {("spare_file", "a"), ("id_not_unique", "b"), ("beats_without_audio", "d")}


def test_texts_beside_the_songs_are_no_annotations(tmp_path):
    touch(tmp_path, "a.ogg", "a.beats", "b.ogg", "b.txt", "README.txt", "LICENSE.txt")
    listing = open_set(tmp_path).listing()
    assert sorted(listing.beats) == ["a", "b"]
