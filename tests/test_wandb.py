"""W&B as the SDK's own offline mode writes it, and the ways to and from its server."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from beattrack.config import ConfigError, FeatureConfig
from beattrack_trainer.config import DataConfig, TrainConfig, load_settings
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.preprocess import preprocess
from beattrack_trainer.training import tracking
from beattrack_trainer.training.loggers import read_metrics
from beattrack_trainer.training.runs import Run, find_run
from beattrack_trainer.training.train import train
from helpers_trainer import write_set

WORDS = ("model=tcn dim=16 depth=2 steps=50 batch_size=1 frames=200 warmup_steps=2 threads=1 "
         "validate_every=25 validation_tracks=1 pictures=1 fold=0 run_id=seen "
         "project_name=trial group=folds wandb=offline").split()  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A data set, and the run ``seen`` trained on it with W&B offline and no account."""
    base = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(base / "home"))
        patch.setenv("NETRC", str(base / "none"))
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SWEEP_ID"):
            patch.delenv(name, raising=False)
        write_set(base / "set", 12)
        (data,) = open_data_sets(DataConfig(data=(str(base / "set"),)))
        preprocess(data, FeatureConfig())
        train(load_settings([f"data={base / 'set'}", f"runs_dir={base / 'runs'}", *WORDS]))
    return base


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def records(run):
    """Return what ``wandb sync`` would read: the records of the run's transaction log."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    return [Record.FromString(data) for data in log_entries(file.read_bytes())]


def log_entries(data):
    """Yield the entries of a LevelDB log (github.com/google/leveldb, doc/log_format.md).

    W&B puts seven bytes of its own before the first entry, within the first block.
    """
    assert data[:4] == b":W&B"
    at, entry = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + 7 : at + 7 + length]
        assert len(piece) == length and zlib.crc32(bytes([kind]) + piece) == checksum
        entry += piece
        if kind in (1, 4):  # whole, or the last of several
            yield entry
            entry = b""
        at += 7 + length
    assert entry == b"" and at == len(data)


def test_offline_nothing_is_lost(stage):
    run = stage / "runs" / "seen"
    written = records(run)
    kinds = [r.WhichOneof("record_type") for r in written]
    assert {"run", "history", "exit", "artifact"} <= set(kinds)
    (about, *_) = (r.run for r in written if r.WhichOneof("record_type") == "run")
    assert (about.run_id, about.project, about.run_group) == ("seen", "trial", "folds")
    assert about.display_name == "seen"
    config = {c.key: json.loads(c.value_json) for c in about.config.update}
    assert (config["steps"], config["model"]) == (50, "tcn")
    seen = {}
    for record in written:
        if record.WhichOneof("record_type") == "history":
            row = {
                (item.key or ".".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }
            seen.setdefault(row["trainer/global_step"], {}).update(row)
    for row in read_metrics(run / "metrics.csv"):  # the same figures as in the folder
        for key in row.keys() - {"step"}:
            assert seen[row["step"]][key] == pytest.approx(row[key], rel=1e-4), key
    assert seen[25]["activations.count"] == 1 and seen[50]["curves.count"] == 1
    pictures = list((run / "wandb").glob("offline-run-*/files/media/images/*.png"))
    assert len(pictures) == 3


def test_offline_the_model_is_an_artifact_with_aliases(stage):
    run = stage / "runs" / "seen"
    logged = [r.artifact for r in records(run) if r.WhichOneof("record_type") == "artifact"]
    (artifact,) = (a for a in logged if a.type == "model")
    assert artifact.name == "seen-model"
    assert set(artifact.aliases) == {"latest", "best", "fold-0"}
    entries = {e.path: e for e in artifact.manifest.contents}
    assert entries.keys() == {"weights.pt", "run.json", "settings.yaml"}
    for name, entry in entries.items():  # what will be sent is what lies in the folder
        assert Path(entry.local_path).samefile(run / name)
        assert entry.size == (run / name).stat().st_size


def test_the_sdk_would_send_the_files(stage, tmp_path):
    """``wandb sync --dry-run`` lists a run that it can read, and asks nobody."""
    (folder,) = (stage / "runs" / "seen" / "wandb").glob("offline-run-*")
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(folder)],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"),
                          "WANDB_ERROR_REPORTING": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert folder.name in done.stdout + done.stderr


def test_nothing_is_printed_but_how_to_send_it(stage, no_account, capfd, monkeypatch):
    monkeypatch.setenv("HOME", str(stage / "home"))
    words = [w for w in WORDS if not w.startswith(("run_id", "steps", "wandb"))]
    train(load_settings([f"data={stage / 'set'}", f"runs_dir={stage / 'runs'}", "run_id=quiet",
                         "steps=2", *words]))  # fmt: skip
    out, err = capfd.readouterr()
    assert out == ""
    about = [line for line in err.splitlines() if "W&B" in line]
    assert len(about) == 1
    assert re.fullmatch(r"W&B ran offline; send it with: wandb sync \S*offline-run-\S+", about[0])
    assert "wandb:" not in err and "Traceback" not in err


def test_who_decides_the_mode(no_account, tmp_path, monkeypatch):
    assert tracking.choose_mode(TrainConfig()) == "offline"
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'a' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert tracking.choose_mode(TrainConfig()) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example")
    assert tracking.choose_mode(TrainConfig()) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert tracking.choose_mode(TrainConfig()) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.choose_mode(TrainConfig()) == "disabled"
    assert tracking.choose_mode(TrainConfig(wandb="offline")) == "offline"


def test_a_server_that_cannot_be_reached_leaves_the_run_offline(
    stage, no_account, tmp_path, monkeypatch
):
    from rich.console import Console

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(tracking, "INIT_S", 2.0)
    settings = load_settings([f"runs_dir={tmp_path}", "run_id=lost", "wandb=online"])
    run = Run(tmp_path / "lost")
    run.path.mkdir()
    console = Console(record=True, stderr=True)
    with tracking.follow(run, settings, console) as logger:
        logger.log_metrics({"train/loss": 1.0}, step=1)
    said = console.export_text()
    assert "cannot be reached" in said and "wandb sync" in said
    assert "history" in [r.WhichOneof("record_type") for r in records(run.path)]


class Server:
    """Stands for ``wandb.Api``: it has one artifact, whose files are those of a run."""

    def __init__(self, run, names=("weights.pt", "run.json", "settings.yaml"), size=1000):
        self.asked = []
        self._artifact = SimpleNamespace(
            manifest=SimpleNamespace(entries=dict.fromkeys(names)), size=size,
            download=lambda root, skip_cache: [shutil.copy(run / n, root) for n in names],
        )  # fmt: skip

    def artifact(self, name, type):
        import wandb

        self.asked.append((name, type))
        if "seen" not in name:
            raise wandb.errors.CommError("it does not exist")
        return self._artifact


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("seen", "beattrack/seen-model:latest"),
        ("trial/seen", "trial/seen-model:latest"),
        ("me/trial/seen", "me/trial/seen-model:latest"),
    ],
)
def test_a_run_is_fetched(stage, tmp_path, name, asked):
    server = Server(stage / "runs" / "seen")
    run = tracking.fetch_run(name, tmp_path, server)
    assert server.asked == [(asked, "model")]
    assert run.path == tmp_path / "seen" and run.finished
    assert run.load()[2]["settings"]["run_id"] == "seen"
    assert [p.name for p in tmp_path.iterdir()] == ["seen"]
    assert find_run(name, tmp_path).path == run.path  # no need to ask again


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("other", {}, "it does not exist"),
        ("../seen", {}, "neither"),
        ("a/b/c/seen", {}, "neither"),
        ("seen", {"size": 10**10}, "no model of this trainer"),
        ("seen", {"names": ("weights.pt",)}, "no model of this trainer"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(stage, tmp_path, name, change, says):
    server = Server(stage / "runs" / "seen", **change)
    with pytest.raises(ConfigError, match=says) as caught:
        tracking.fetch_run(name, tmp_path / "new", server)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "new").glob("*"))


def test_a_fetched_model_is_not_trusted(stage, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(stage / "runs" / "seen", bad, ignore=shutil.ignore_patterns("wandb"))
    (bad / "weights.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ConfigError, match="does not fit"):
        tracking.fetch_run("seen", tmp_path / "new", Server(bad))
    assert not list((tmp_path / "new").iterdir())


def test_without_an_account_nobody_is_asked(no_account, tmp_path):
    with pytest.raises(ConfigError, match="no W&B account"):
        find_run("nowhere", tmp_path)
