"""The trainer image on a stand-in base, without CUDA: contents, and the whole way from nothing to
an exported file by ``docker compose run``, as a user whom the image does not know."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import soundfile
from engines import ROOT, Engine

TAG, RUNTIME_TAG = "beattrack-trainer:cpu", "beattrack-jetson:amd64"
PYTORCH = "https://download.pytorch.org/whl/cpu"
FOLDER = "/work"  # the working folder in the container, as compose.yaml mounts it
UID, GID = 1234, 2345  # not 1000, and no name in the image
REVISION = "f" * 40
KEY = "0123456789abcdef" * 2 + "01234567"  # looks like a key of W&B


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="session")
def torch_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An index with torch's build without CUDA for the base's Python, as this machine's pip has it.

    Where pip has none, that of PyTorch itself.
    """
    folder = tmp_path_factory.mktemp("index")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder / "torch"), "--only-binary=:all:", "--python-version", "3.11"]
    subprocess.run([*command, "torch==2.13.0"], capture_output=True, check=False)
    if not list(folder.glob("torch/*+cpu*")):
        yield PYTORCH
        return
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def image(engine: Engine, base_amd64: str, torch_index: str, pip_settings: list[str]) -> str:
    """The trainer image without CUDA."""
    arguments = {"BASE_IMAGE": base_amd64, "VARIANT": "cpu", "TORCH_INDEX": torch_index}
    arguments["REVISION"] = REVISION
    words = [w for k, v in arguments.items() for w in ("--build-arg", f"{k}={v}")]
    engine.build("trainer.Dockerfile", TAG, ["--network", "host", *words, *pip_settings], 2400)
    return TAG


@pytest.fixture(scope="session")
def runtime_image(engine: Engine, base_amd64: str, pip_settings: list[str]) -> str:
    """The runtime image, as test_runtime_image.py builds it."""
    arguments = ["--build-arg", f"BASE_IMAGE={base_amd64}", *pip_settings]
    engine.build("jetson.Dockerfile", RUNTIME_TAG, arguments, 1200)
    return RUNTIME_TAG


def inside(engine: Engine, image: str, command: str) -> list[str]:
    """Lines that a shell command prints in the image, run as root to see everything."""
    words = ("run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", command)
    return engine.value(*words).splitlines()


# What it holds


def test_size_user_and_entry(engine: Engine, image: str, base_amd64: str) -> None:
    size, base = (
        int(engine.value("image", "inspect", "--format", "{{.Size}}", name)) / 1e6
        for name in (image, base_amd64)
    )
    print(f"trainer image without CUDA: {size:.0f} MB, {size - base:.0f} MB on top of its base")
    config = json.loads(engine.value("image", "inspect", "--format", "{{json .Config}}", image))
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["trainer"]
    assert config["WorkingDir"] == FOLDER


def test_no_compiler_no_pip_no_models_of_madmom(engine: Engine, image: str) -> None:
    for line in inside(
        engine, image,
        "for name in cc gcc g++ clang make cmake git curl pip; do command -v $name; done; "
        "find /opt/venv -path '*/madmom/models/*.onnx'; "
        "ls -d /build /source /dist /opt/build /opt/own /root/.cache /var/lib/apt/lists/* "
        "/etc/pip.conf /root/.config /opt/venv/lib/python3*/site-packages/[Cc]ython* 2>/dev/null "
        "|| true",
    ):  # fmt: skip
        raise AssertionError(line)


def test_no_secret_and_no_certificate_stays(
    engine: Engine, image: str, base_amd64: str, pip_settings: list[str]
) -> None:
    # Made anew while packages are installed, the bundle is in another order.
    listing = (
        "cd /; find usr/local/share/ca-certificates etc/apt -type f | sort | xargs -d '\\n' md5sum;"
        " sort etc/ssl/certs/ca-certificates.crt | md5sum"
    )
    assert inside(engine, image, listing) == inside(engine, base_amd64, listing)
    settings = Path(pip_settings[1].split("src=")[1]).read_text().splitlines()[1:]
    history = engine.value("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    config = engine.value("image", "inspect", image)
    for line in settings:
        assert line.split(" = ")[1] not in history + config
    assert not re.search("WANDB|API_KEY|127.0.0.1", history + config)


def test_nobody_can_change_the_code(engine: Engine, image: str, base_amd64: str) -> None:
    everybody = (
        "find / -xdev \\( -type f -o -type d ! -perm -1000 \\) -perm -o+w ! -path '/proc/*' | sort"
    )
    assert inside(engine, image, everybody) == inside(engine, base_amd64, everybody)
    assert not inside(engine, image, "find /opt /usr -xdev ! -user root")


def test_inventory(engine: Engine, image: str) -> None:
    sbom = json.loads("\n".join(inside(engine, image, "cat /usr/share/beattrack/sbom.json")))
    found = {c["purl"].rpartition("@")[0]: c for c in sbom["components"]}
    for name in ("pypi/torch", "pypi/natten", "pypi/numpy", "pypi/beattrack-trainer",
                 "deb/debian/ffmpeg", "deb/debian/mma", "deb/debian/fluidsynth"):  # fmt: skip
        assert f"pkg:{name}" in found
    lines = (ROOT / "docker" / "trainer.lock").read_text().splitlines()
    entries = [s.split(" ")[0].split("==") for s in lines if "==" in s and "full_version" not in s]
    assert len(entries) > 80
    for name, version in entries:
        component = found[f"pkg:pypi/{name.lower().replace('_', '-')}"]
        assert component["version"] == version
    licences = inside(engine, image, "cat /usr/share/beattrack/licences.txt")
    assert len(licences) == len(sbom["components"])
    # Python packages under copyleft are few enough to know: docs/images.md names them.
    copyleft = {s.split("\t")[2].lower() for s in licences if s.startswith("copyleft\tpypi")}
    text = (ROOT / "docs" / "images.md").read_text().lower()
    assert [name for name in sorted(copyleft) if name not in text] == []


# What it does


@dataclass(frozen=True)
class Compose:
    """docker compose with this project's files, in another folder and as another user."""

    engine: Engine
    folder: Path
    environment: dict[str, str]

    def run(self, *words: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        command = [
            "docker",
            "compose",
            "--project-directory",
            str(self.folder),
            "run",
            "--rm",
            "-T",
        ]
        return subprocess.run(
            [*command, *map(str, words)], env=self.engine.environment | self.environment,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def trainer(self, *words: object) -> str:
        """Run a command of the trainer that must not fail; return all that it says."""
        done = self.run("trainer", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def compose(
    engine: Engine, image: str, runtime_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compose]:
    """A folder of user 1234, who runs the compose files without a GPU."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    folder = tmp_path_factory.mktemp("compose") / "project"
    folder.mkdir()
    for parent in folder.parents:  # pytest closes its folders to others
        if parent.stat().st_mode & 0o077 == 0 and parent.is_relative_to("/tmp"):
            parent.chmod(0o711)
    os.chown(folder, UID, GID)
    environment = {
        "COMPOSE_FILE": f"{ROOT}/compose.yaml:{ROOT}/compose.ci.yaml",
        "COMPOSE_PROJECT_NAME": "beattrack-images-test",
        "TRAINER_IMAGE": image,
        "RUNTIME_IMAGE": runtime_image,
        "UID": str(UID),
        "GID": str(GID),
        "WANDB_API_KEY": "",
    }
    yield Compose(engine, folder, environment)
    engine.docker("volume", "rm", f"beattrack-cache-{UID}", "beattrack-cache-1000")
    engine.docker("network", "rm", "beattrack-images-test_default")


def test_doctor_in_a_folder_of_ones_own_and_in_another_s(compose: Compose) -> None:
    told = compose.trainer("doctor")
    assert "broken" not in told
    assert re.search(r"^ok +NATTEN .*agrees with torch", told, re.M), told
    assert re.search(r"^ok +synth .*FluidR3_GM, .*TimGM6mb", told, re.M)
    assert re.search(r"^ok +madmom ", told, re.M)
    assert re.search(r"^ok +/dev/shm +4\.\d+ GB", told, re.M), "shm_size"
    assert re.search(rf"^ok +user +uid {UID} \(without a name", told, re.M)
    other = replace(compose, environment=compose.environment | {"UID": "1000", "GID": "1000"})
    done = other.run("trainer", "doctor")
    assert done.returncode == 1
    assert f"UID={UID}" in done.stdout + done.stderr


@pytest.fixture(scope="session")
def trained(compose: Compose) -> Path:
    """The whole way in a small size, by ``docker compose run trainer``; returns the ONNX file."""
    compose.trainer("synth", "data/tiny", "--hours", 0.06, "--seconds", 20, "--seed", 3)
    assert len(list((compose.folder / "data/tiny/tracks").iterdir())) >= 8
    done = compose.run("trainer", "check", "data=tiny")
    assert done.returncode in (0, 1), done.stderr  # so small a set may lack something
    assert "Traceback" not in done.stdout + done.stderr
    compose.trainer("preprocess", "data=tiny")
    small = ("model=tcn", "fold=0", "steps=4", "validate_every=4", "batch_size=2", "frames=300")
    said = compose.trainer("train", "data=tiny", *small, "wandb=disabled")
    assert "torch 2.13.0" in said, "the machine is told at the start"
    (run,) = (compose.folder / "runs").iterdir()
    assert REVISION in (run / "environment.json").read_text()
    compose.trainer("eval", run.name, "--data", "tiny", "--part", "all", "--limit", 2)
    assert list((compose.folder / "results").rglob("scores.json"))
    # Four steps teach nothing: the flux alone follows the beat.
    compose.trainer("export", run.name, "--flux-mix", 1)
    (model,) = (compose.folder / "exports").glob("*.onnx")
    assert "relaxation_piece" in model.with_suffix(".md").read_text(), "checked on real music"
    return model


def test_files_belong_to_the_caller(compose: Compose, trained: Path) -> None:
    everything = [compose.folder, *compose.folder.rglob("*")]
    assert len(everything) > 30
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in everything} == {(UID, GID)}


def test_exported_file_runs_in_the_runtime_image(compose: Compose, trained: Path) -> None:
    song, model = compose.folder / "song.wav", trained.relative_to(compose.folder)
    audio, rate = soundfile.read(ROOT / "runtime/demo/relaxation_piece.ogg", frames=44100 * 30)
    soundfile.write(song, audio, rate)
    words = ("--file", "song.wav", "--model", str(model), "--jsonl", "events.jsonl")
    done = compose.run("runtime", *words)
    assert done.returncode == 0, done.stderr
    written = compose.folder / "events.jsonl"
    assert written.stat().st_uid == UID
    events = [json.loads(s) for s in written.read_text().splitlines()]
    outside = compose.folder / "outside.jsonl"
    command = [sys.executable, "-m", "beattrack_runtime", *words[:-1], str(outside)]
    subprocess.run(command, cwd=compose.folder, check=True, capture_output=True)
    wanted = [json.loads(s) for s in outside.read_text().splitlines()]
    assert [e["type"] for e in events] == [e["type"] for e in wanted]
    beats = [[e["time_s"] for e in side if e["type"] == "beat"] for side in (events, wanted)]
    assert len(beats[0]) > 20
    assert beats[0] == pytest.approx(beats[1], abs=1e-3)


def test_read_only_data_is_one_sentence(compose: Compose, trained: Path) -> None:
    features = compose.folder / "data/tiny/features"
    shutil.move(features, compose.folder / "features")
    try:
        mount = ("-v", f"{compose.folder}/data:{FOLDER}/data:ro")
        done = compose.run(*mount, "trainer", "preprocess", "data=tiny")
    finally:
        shutil.move(compose.folder / "features", features)
    assert done.returncode in (1, 2)
    said = [s for s in done.stderr.splitlines() if "error:" in s]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search("read-only|written|write", " ".join(done.stderr.split()), re.I)


def test_full_disk_is_one_sentence_and_the_command_goes_on_later(
    compose: Compose, trained: Path
) -> None:
    """A disk of 200 kB for the features; afterwards the same command with room finishes."""
    full = compose.folder / "data/full"
    shutil.copytree(compose.folder / "data/tiny/tracks", full / "tracks")
    shutil.copytree(compose.folder / "data/tiny/beats", full / "beats")
    shutil.copy(compose.folder / "data/tiny/metadata.csv", full)
    (full / "features").mkdir()
    for path in (full, *full.rglob("*")):
        os.chown(path, UID, GID)
    features = full / "features"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k,mode=777", "tmpfs", features], check=True
    )
    try:
        done = compose.run("trainer", "preprocess", "data=full")
    finally:
        subprocess.run(["umount", features], check=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert re.search("space", " ".join(done.stderr.split())), done.stderr
    compose.trainer("preprocess", "data=full")


def test_key_of_wandb_reaches_the_container_and_nothing_else(compose: Compose, image: str) -> None:
    with_key = replace(compose, environment=compose.environment | {"WANDB_API_KEY": KEY})
    told = with_key.trainer("doctor")
    assert "key from WANDB_API_KEY" in told
    assert KEY not in told
    history = compose.engine.value("history", "--no-trunc", image)
    assert KEY not in history + compose.engine.value("image", "inspect", image)
    assert not any(KEY.encode() in p.read_bytes() for p in compose.folder.rglob("*") if p.is_file())
