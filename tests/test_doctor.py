"""``trainer doctor``: a sound machine, and what it says of each thing that is not."""

from __future__ import annotations

import builtins
import importlib
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from beattrack_runtime.live.doctor.finding import BROKEN, NOTE, OK, Finding
from beattrack_trainer.cli import app
from beattrack_trainer.doctor import examination, libraries, surroundings


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real_import, real_load = builtins.__import__, importlib.import_module

    def fail(name: str) -> None:
        if name.split(".")[0] in names:
            raise ImportError(f"lib{name}.so: cannot open shared object file")

    def imported(name: str, *args: Any, **kwargs: Any) -> Any:
        fail(name)
        return real_import(name, *args, **kwargs)

    def loaded(name: str, package: str | None = None) -> Any:
        fail(name)
        return real_load(name, package)

    monkeypatch.setattr(builtins, "__import__", imported)
    monkeypatch.setattr(importlib, "import_module", loaded)


def test_this_machine_can_train() -> None:
    found = {f.name: f for f in examination.examine()}
    assert [n for n, f in found.items() if f.state == BROKEN] == []
    assert found["torch"].fact.startswith(torch.__version__)
    assert "agrees with torch" in found["NATTEN"].fact
    assert found["onnxruntime"].state == found["audio files"].state == found["madmom"].state == OK
    assert all("\n" not in f.fact + f.remedy for f in found.values())
    assert all(f.remedy for f in found.values() if f.state != OK)


def test_command_shows_each_check_and_fails_only_when_training_cannot_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [Finding("torch", OK, "fine"), Finding("synth", NOTE, "no mma", "get it")]
    monkeypatch.setattr(examination, "examine", lambda: found)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert lines == [["ok", "torch", "fine"], ["note", "synth", "no", "mma"], ["get", "it"]]
    found.append(Finding("folders", BROKEN, "[read-only]", "mend it"))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "[read-only]" in result.output


def test_brief_is_one_line() -> None:
    result = CliRunner().invoke(app, ["doctor", "--brief"])
    assert result.exit_code == 0
    assert result.output.count("\n") == 1
    assert torch.__version__ in result.output


@pytest.mark.parametrize(
    ("package", "check", "state"),
    [
        ("torch", libraries.check_torch, BROKEN),
        ("natten", libraries.check_natten, NOTE),
        ("madmom", libraries.check_madmom, NOTE),
    ],
)
def test_a_package_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, package: str, check: Any, state: str
) -> None:
    missing(monkeypatch, package)
    found = check()
    assert found.state == state
    assert "cannot open shared object" in found.fact
    assert "install" in found.remedy


def test_what_a_check_does_not_foresee_is_a_finding_too(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "av")
    found = next(f for f in examination.examine() if f.name == "audio")
    assert found.state == BROKEN
    assert "libav.so" in found.fact


def test_natten_that_computes_otherwise_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    natten = importlib.import_module("natten")
    real = natten.na1d
    monkeypatch.setattr(natten, "na1d", lambda *a, **k: real(*a, **k) * 1.001)
    assert libraries.check_natten().state == BROKEN
    assert "off by" in libraries.check_natten().fact

    def no_kernel(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(natten, "na1d", no_kernel)
    found = libraries.check_natten()
    assert found.state == BROKEN
    assert found.fact.endswith("no kernel image is available")


def test_cuda_build_without_a_device_and_a_device_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = libraries.check_devices()
    assert (found.state, found.fact) == (NOTE, "CPU only: no CUDA device is seen")
    assert "container toolkit" in found.remedy

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image is available")

    about = SimpleNamespace(name="Old GPU", total_memory=2 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(torch, "ones", fail)
    found = libraries.check_devices()
    assert found.state == BROKEN
    assert found.fact == "Old GPU: CUDA error: no kernel image is available"


def test_programs_and_soundfonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    found = surroundings.check_rendering()
    assert found.state == NOTE
    assert found.remedy.startswith("sudo apt-get install fluidsynth mma")

    def damaged(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 127)

    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", damaged)
    assert surroundings.check_rendering().state == NOTE


def test_account_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert surroundings.check_wandb().state == NOTE
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password hidden-key\n")
    found = surroundings.check_wandb()
    assert found.state == OK
    assert "hidden-key" not in found.fact
    monkeypatch.setenv("WANDB_API_KEY", "hidden-key")
    found = surroundings.check_wandb()
    assert "WANDB_API_KEY" in found.fact
    assert "hidden-key" not in found.fact


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(total=64 << 20, free=64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    found = surroundings.check_shared_memory()
    assert (found.state, found.fact) == (NOTE, "0.07 GB")
    assert "shm_size" in found.remedy


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access

    def closed(*names: str) -> None:
        paths = [tmp_path / n for n in names]
        monkeypatch.setattr(os, "access", lambda p, mode: p not in paths and real(p, mode))

    (tmp_path / "data").mkdir()
    closed("data")
    assert surroundings.check_folders().state == NOTE
    assert surroundings.check_folders().fact.startswith("data/ read-only, runs/ writable")
    (tmp_path / "runs").mkdir()
    closed("runs")
    found = surroundings.check_folders()
    assert found.state == BROKEN
    assert str(tmp_path / "runs") in found.remedy


def test_a_uid_without_a_name_that_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 987654)
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = surroundings.check_user()
    assert found.state == NOTE
    assert "uid 987654 (without a name" in found.fact
    assert f"UID={Path.cwd().stat().st_uid}" in found.remedy
