"""From audio to a feature store: what is stored, what is skipped, and what survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from beattrack.config import ConfigError, FeatureConfig
from beattrack.features import FeatureStream, spectrum_bands
from beattrack_trainer.cli import app
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data import audio, folders
from beattrack_trainer.data.folders import Track, open_data_sets
from beattrack_trainer.data.preprocess import compute_features, preprocess
from beattrack_trainer.data.store import FeatureStore
from flux_model import drum_loop
from helpers_trainer import write_set
from test_sources import encode

PLAIN = FeatureConfig()
TWO = FeatureConfig(bpfed=True, sources=("bass", "drums"))
REAL = Path(__file__).parents[1].parent / "shared" / "data" / "realdev"
DEMO = Path(__file__).parents[1] / "runtime" / "demo" / "relaxation_piece.ogg"


def open_set(folder):
    return open_data_sets(DataConfig(data=(str(folder),)))[0]


def store_of(folder, features=PLAIN):
    return FeatureStore.open(open_set(folder).feature_dir(features))


def contents(store):
    """All that a store holds of its tracks, by file name."""
    return {f.name: f.read_bytes() for f in (store.path / "tracks").iterdir()}


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A stereo song at 44.1 kHz."""
    path = tmp_path_factory.mktemp("song") / "song.flac"
    loop, _ = drum_loop(13.7, 117, 44100)
    soundfile.write(path, np.stack([loop, np.roll(loop, 500)], axis=1), 44100)
    return path


@pytest.mark.parametrize("block_s", [0.01, 0.37, 60.0])
def test_stored_frames_are_the_runtimes_own_in_half_precision(song, monkeypatch, block_s):
    stored, seconds = compute_features(song, TWO)
    assert seconds == pytest.approx(13.7, abs=1e-3)
    monkeypatch.setattr(audio, "BLOCK_S", block_s)
    whole = audio.read_audio(song, 22050)
    stream = FeatureStream(TWO)
    size = max(1, int(block_s * 22050))
    live = [stream.push(whole[i : i + size]) for i in range(0, len(whole), size)]
    assert np.array_equal(stored, np.concatenate(live).astype(np.float16))


def test_half_precision_costs_a_thousandth():
    songs = sorted(REAL.glob("*.ogg"))[::4] or [DEMO]
    bands = spectrum_bands(PLAIN)
    for path in songs:
        exact = FeatureStream(PLAIN).push(audio.read_audio(path, 22050)[: 60 * 22050])
        error = np.abs(exact.astype(np.float16) - exact)
        assert 1e-5 < error[..., :bands].max() <= 0.001
        assert 1e-5 < error[..., bands:].max() <= 0.001


def test_what_cannot_be_used_is_skipped_with_its_reason(tmp_path):
    write_set(tmp_path / "set", 8)
    tracks, beats = tmp_path / "set" / "tracks", tmp_path / "set" / "beats"
    (tracks / "t00.flac").write_bytes(b"not audio")
    (beats / "t01.beats").write_text("one two\n")
    (beats / "t02.beats").write_text("2.0 1\n1.0 2\n")
    (beats / "t03.beats").write_text("100.0 1\n101.0 2\n")
    (tracks / "t04.flac").unlink()
    soundfile.write(tracks / "t04.wav", np.full(50000, np.nan, np.float32), 22050, "FLOAT")
    (tracks / "t05.flac").write_bytes(b"")
    # half of a file is used as far as it goes, and that is said
    whole = (tracks / "t06.flac").read_bytes()
    (tracks / "t06.flac").write_bytes(whole[: len(whole) // 2])
    (tracks / "t07.flac").rename(tracks / "blues.00007.flac")
    (beats / "t07.beats").rename(beats / "blues.00007.beats")
    report = preprocess(open_set(tmp_path / "set"), PLAIN, jobs=2)
    assert sorted(report.skipped) == [f"t0{i}" for i in range(6)]
    assert "can be read" in report.skipped["t00"]
    assert "fewer than two beats" in report.skipped["t03"]
    assert "not finite" in report.skipped["t04"]
    assert "empty" in report.skipped["t05"]
    assert "damaged or cut off" in report.remarks["t06"]
    store = store_of(tmp_path / "set")
    assert store.names() == ["blues.00007", "t06"]
    assert store.frames("blues.00007").dtype == np.float16
    assert len(store.beats("blues.00007")) > len(store.beats("t06")) > 2
    assert json.loads((store.path / "skipped.json").read_text()) == report.skipped


def test_formats_that_libsndfile_cannot_read(tmp_path):
    write_set(tmp_path / "set", 1)
    (tmp_path / "set" / "tracks" / "t00.flac").unlink()
    loop, _ = drum_loop(12, 90, 44100)
    encode(tmp_path / "set" / "tracks" / "t00.m4a", loop)
    assert preprocess(open_set(tmp_path / "set"), PLAIN).skipped == {}
    assert store_of(tmp_path / "set").frames("t00").shape[0] == pytest.approx(600, abs=6)


def test_a_second_run_does_only_what_has_changed(tmp_path):
    write_set(tmp_path / "set", 4)
    data = open_set(tmp_path / "set")
    assert preprocess(data, PLAIN).done == 4
    store = store_of(tmp_path / "set")
    before = contents(store)
    again = preprocess(data, PLAIN)
    assert (again.done, again.present, contents(store)) == (0, 4, before)
    # an annotation, a song, one track less, one array cut short
    (data.beats_dir / "t00.beats").write_text("1.0\t1\n2.0\t2\n")
    soundfile.write(data.track_dir / "t01.flac", drum_loop(6, 100)[0], 22050)
    (data.track_dir / "t02.flac").unlink()
    cut = store.path / "tracks" / "t03.npy"
    cut.write_bytes(cut.read_bytes()[:-500])
    changed = preprocess(data, PLAIN)
    assert (changed.done, changed.present, changed.refreshed, changed.removed) == (2, 1, 1, 1)
    assert store.beats("t00").tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert (len(store.frames("t01")), store.names()) == (300, ["t00", "t01", "t03"])
    after = contents(store)
    assert all(after[n] == before[n] for n in ("t00.npy", "t03.npy", "t03.json"))
    # what can no longer be used leaves the store
    (data.beats_dir / "t00.beats").write_text("nothing\n")
    assert list(preprocess(data, PLAIN).skipped) == ["t00"]
    assert store.names() == ["t01", "t03"]


def test_a_store_of_other_settings_or_damaged_is_refused(tmp_path):
    write_set(tmp_path / "set", 1)
    data = open_set(tmp_path / "set")
    preprocess(data, PLAIN)
    with pytest.raises(ConfigError, match="stale: they were made with kind=logspec"):
        preprocess(data, FeatureConfig(kind="flux"))
    store = store_of(tmp_path / "set")
    (store.path / "tracks" / "t00.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ConfigError, match=r"t00\.npy' is damaged"):
        store.frames("t00")
    with pytest.raises(ConfigError, match="is damaged"):
        store.beats("t00")
    (store.path / "store.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        FeatureStore.open(store.path)


class Deadly(type(Path())):
    """A path that ends the process that receives it, as a crash in a codec does."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_dies_takes_nothing_else_down(tmp_path, monkeypatch):
    write_set(tmp_path / "set", 4)
    data = open_set(tmp_path / "set")
    real = data.tracks()
    tracks = [*real[:2], Track("deadly", Deadly(real[0].audio), real[0].beats), *real[2:]]
    monkeypatch.setattr(folders.DataSet, "tracks", lambda self: tracks)
    report = preprocess(data, PLAIN, jobs=2)
    assert list(report.skipped) == ["deadly"] and "died" in report.skipped["deadly"]
    assert store_of(tmp_path / "set").names() == ["t00", "t01", "t02", "t03"]


PREPROCESS = """
import sys
from beattrack.config import FeatureConfig
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.preprocess import preprocess
(data,) = open_data_sets(DataConfig(data=(sys.argv[1],)))
preprocess(data, FeatureConfig(bpfed=True, sources=("bass", "drums")))
"""


def test_kill_and_again(tmp_path):
    for name in ("cut", "whole"):
        write_set(tmp_path / name, 8, seconds=30)
    preprocess(open_set(tmp_path / "whole"), TWO, jobs=2)
    store = open_set(tmp_path / "cut").feature_dir(TWO)
    process = subprocess.Popen([sys.executable, "-c", PREPROCESS, str(tmp_path / "cut")])
    deadline = time.monotonic() + 60
    while not list(store.glob("tracks/[!.]*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = store / "tracks" / ".part-99.npy"
    left.write_bytes(b"half a file of a process that was killed")
    kept = FeatureStore.open(store).names()
    assert 1 <= len(kept) < 8
    report = preprocess(open_set(tmp_path / "cut"), TWO, jobs=2)
    assert report.done + report.present == 8 and report.present >= len(kept)
    arrays = [
        {k: v for k, v in contents(store_of(tmp_path / name, TWO)).items() if k.endswith(".npy")}
        for name in ("cut", "whole")
    ]
    assert arrays[0] == arrays[1]  # the left-over is gone, too


def test_a_full_disk_is_one_sentence(tmp_path):
    write_set(tmp_path / "set", 1)
    words = [
        sys.executable,
        "-m",
        "beattrack_trainer.cli",
        "preprocess",
        f"data={tmp_path / 'set'}",
    ]
    small = ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash", *words]  # files of 20 KiB at most
    done = subprocess.run(small, capture_output=True, text=True)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "cannot be written" in said and "goes on from here" in said
    assert "Traceback" not in said
    assert list((tmp_path / "set" / "features" / "plain" / "tracks").iterdir()) == []


def test_two_processes_cannot_add_at_once(tmp_path):
    write_set(tmp_path / "set", 1)
    data = open_set(tmp_path / "set")
    store = FeatureStore.create(data.feature_dir(PLAIN), PLAIN)
    with store.adding(), pytest.raises(ConfigError, match="Another process"):
        preprocess(data, PLAIN)


def test_the_command_says_what_it_did(tmp_path):
    for name in ("good", "bad"):
        write_set(tmp_path / name, 2)
    (tmp_path / "good" / "tracks" / "t00.flac").write_bytes(b"?")
    for file in (tmp_path / "bad" / "tracks").iterdir():
        file.write_bytes(b"?")
    run = CliRunner().invoke
    done = run(app, ["preprocess", f"data={tmp_path / 'good'}"])
    assert done.exit_code == 0
    assert "skipped t00" in done.output and "1 done, 0 already there, 1 skipped" in done.output
    done = run(app, ["preprocess", f"data=[{tmp_path / 'bad'},{tmp_path / 'good'}]"])
    assert done.exit_code == 1
    assert "0 done, 1 already there, 1 skipped" in done.output  # the second set came all the same
