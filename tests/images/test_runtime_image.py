"""The runtime image: what it holds, and that the command in it does what it does outside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from engines import ROOT, Engine

from audio_tools import share_found
from beattrack_runtime import __version__
from virtual_mic import RATE, read_lines, sound_server, wait_for

SONG = ROOT / "runtime" / "demo" / "relaxation_piece.ogg"
SIZE_MB = 500  # at most, on top of the base


@pytest.fixture(scope="session")
def image(engine: Engine, base_amd64: str, pip_settings: list[str]) -> Iterator[str]:
    """The runtime image for x86-64 on the stand-in base."""
    with built(engine, "amd64", base_amd64, pip_settings) as tag:
        yield tag


@contextlib.contextmanager
def built(engine: Engine, arch: str, base: str, pip_settings: list[str]) -> Iterator[str]:
    """Build the image under a name of this run's own; the build cache keeps its layers."""
    tag = f"beattrack-jetson-test:{arch}-{os.getpid()}"
    arguments = ["--platform", f"linux/{arch}", "--build-arg", f"BASE_IMAGE={base}", *pip_settings]
    engine.build("jetson.Dockerfile", tag, arguments, timeout=3600)
    try:
        yield tag
    finally:
        engine.docker("image", "rm", "--force", tag)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that any user can read, with 14 s of the bundled song."""
    folder = tmp_path_factory.mktemp("songs")
    audio, rate = soundfile.read(SONG, frames=14 * 44100, dtype="float32")
    soundfile.write(folder / "song.wav", audio, rate)
    folder.chmod(0o755)
    return folder


def outside(song: Path) -> list[dict[str, object]]:
    """Return the events of a song as this environment's command finds them."""
    command = [sys.executable, "-m", "beattrack_runtime", "--file", str(song), "--output", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_same(lines: str, wanted: list[dict[str, object]]) -> None:
    """Hold events in JSON lines equal: times to 1 ms, tempo to 0.1 bpm, confidence to 0.01."""
    within = {"time_s": 1e-3, "emitted_s": 1e-3, "tempo_bpm": 0.1, "confidence": 0.01}
    found = [json.loads(line) for line in lines.splitlines()]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if name in within and value is not None:
                assert value == pytest.approx(other[name], abs=within[name]), (name, one, other)
            else:
                assert value == other[name], (name, one, other)


# What it holds


def test_size_and_labels(engine: Engine, image: str, base_amd64: str) -> None:
    size, base = (
        int(engine.value("image", "inspect", "--format", "{{.Size}}", name)) / 1e6
        for name in (image, base_amd64)
    )
    print(f"runtime image: {size:.0f} MB, {size - base:.0f} MB on top of its base")
    assert size - base < SIZE_MB
    config = json.loads(engine.value("image", "inspect", "--format", "{{json .Config}}", image))
    prefix = "org.opencontainers.image."
    assert config["Labels"][prefix + "version"] == __version__
    assert config["Labels"][prefix + "licenses"] == "MIT"
    assert config["User"] not in ("", "root", "0")
    assert config["Entrypoint"][0] == "/usr/bin/tini"  # a list: no shell between
    assert config["Entrypoint"][-1] == "/opt/beattrack/bin/beattrack"


def inside(engine: Engine, image: str, command: str, *options: str) -> list[str]:
    """Run a shell command in the image; return the lines it prints."""
    arguments = ["run", "--rm", "--user", "0", "--entrypoint", "sh", *options, image, "-c", command]
    return engine.value(*arguments).splitlines()


def test_nothing_that_does_not_belong(engine: Engine, image: str, base_amd64: str) -> None:
    packages = inside(engine, image, "ls /opt/beattrack/lib/python3*/site-packages")
    assert {"beattrack", "beattrack_runtime", "onnxruntime"} <= set(packages)
    unwanted = {"torch", "natten", "lightning", "beattrack_trainer", "onnx", "scipy", "pip",
                "setuptools", "hatchling", "sympy"}  # fmt: skip
    assert not unwanted & set(packages)
    for line in inside(
        engine, image,
        "for name in cc gcc g++ c++ clang make git curl ffmpeg trainer; do command -v $name; done; "
        "find / -xdev -path '*-packages/torch*' -prune; "
        "ls -d /root/.* /build /alsa /tmp/* /var/lib/apt/lists/*_* /etc/pip.conf 2>/dev/null "
        "| grep -v 'rc$\\|/root/.profile\\|/[.]*$'; true",
    ):  # fmt: skip
        raise AssertionError(line)
    # Python's compiled files are those of modules in use, not of all.
    size = inside(engine, image, "find /opt -name '*.pyc' -printf '%s\n'")
    assert sum(map(int, size)) < 15e6


def test_no_secret_and_no_certificate_stays(
    engine: Engine, image: str, base_amd64: str, pip_settings: list[str]
) -> None:
    listing = (
        "cd /; find etc/ssl usr/local/share/ca-certificates etc/apt -type f "
        "| sort | xargs -d '\n' md5sum"
    )
    assert inside(engine, image, listing) == inside(engine, base_amd64, listing)
    settings = Path(pip_settings[1].split("src=")[1]).read_text().splitlines()[1:]
    history = engine.value("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    config = engine.value("image", "inspect", image)
    for line in settings:
        assert line.split(" = ")[1] not in history + config


def test_nobody_can_change_the_code(engine: Engine, image: str, base_amd64: str) -> None:
    everybody = (
        "find / -xdev \\( -type f -o -type d ! -perm -1000 \\) -perm -o+w ! -path '/proc/*' | sort"
    )
    assert inside(engine, image, everybody) == inside(engine, base_amd64, everybody)
    assert not inside(engine, image, "find / -xdev \\( -uid 1000 -o -gid 1000 \\)")
    groups = engine.value("run", "--rm", "--entrypoint", "id", image, "-Gn").split()
    assert "audio" in groups
    assert "root" not in groups


def test_the_inventory_lists_the_lock(engine: Engine, image: str) -> None:
    text = "\n".join(inside(engine, image, "cat /usr/share/beattrack/sbom.json"))
    components = {part["name"].lower().replace("_", "-") for part in json.loads(text)["components"]}
    lock = (ROOT / "docker" / "runtime.lock").read_text().splitlines()
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lock if "==" in line}
    assert pins <= components
    assert inside(engine, image, "test -s /usr/share/beattrack/licences.txt && echo yes") == ["yes"]


# What it does with files


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--user", "1234:1234"],  # a user whom /etc/passwd does not know, without a home
        ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
        ["--read-only", "--user", "1234:1234", "--network", "none", "--env", "HOME=/nonexistent"],
    ],
    ids=["plain", "other-user", "read-only", "read-only-other-user"],
)
def test_a_file_gives_the_same_events_as_outside(
    engine: Engine, image: str, folder: Path, options: list[str]
) -> None:
    mount = ["--volume", f"{folder}:/data:ro"]
    done = engine.docker(
        "run", "--rm", *options, *mount, image, "--file", "song.wav", "--output", "jsonl"
    )
    assert done.returncode == 0, done.stderr
    wanted = outside(folder / "song.wav")
    assert sum(event["type"] == "beat" for event in wanted) > 15
    assert_same(done.stdout, wanted)
    for word in ("warn", "Traceback", "cache", "permission"):
        assert word not in done.stderr.lower()


def test_all_results_by_a_user_of_the_host(
    engine: Engine, image: str, folder: Path, tmp_path: Path
) -> None:
    os.chown(tmp_path, 1234, 1234)
    names = {"--beats": "a.beats", "--jsonl": "a.jsonl", "--click": "a.wav", "--plot": "a.png"}
    wanted = [part for option, name in names.items() for part in (option, f"/out/{name}")]
    mounts = ["--volume", f"{folder}:/data:ro", "--volume", f"{tmp_path}:/out"]
    done = engine.docker(
        "run", "--rm", "--user", "1234:1234", *mounts, image, "--file", "song.wav", *wanted
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names.values())
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {1234}
    assert "warn" not in done.stderr.lower()


def test_misuse_and_failure_are_one_sentence(engine: Engine, image: str, folder: Path) -> None:
    mount = ["--volume", f"{folder}:/data:ro"]
    for arguments, code, says in (
        ([], 2, "Give --file SONG or --mic"),
        (["--file", "none.wav"], 2, "There is no file 'none.wav'"),
        (["--file", "song.wav", "--beats", "a.beats"], 1, "Cannot write 'a.beats'"),
        (["--mic"], 1, "--device /dev/snd --group-add audio"),
        (["--mic", "--device", "USB"], 1, "--device /dev/snd --group-add audio"),
        (["--list-devices"], 1, "PULSE_SERVER=unix:"),
    ):
        done = engine.docker("run", "--rm", *mount, image, *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1, done.stderr
        assert says in done.stderr
        assert done.stdout == ""


def test_version_and_help(engine: Engine, image: str) -> None:
    assert engine.value("run", "--rm", image, "--version") == f"beattrack {__version__}"
    assert "--mic" in engine.value("run", "--rm", image, "--help")


# How it ends


def test_docker_stop_leaves_what_was_heard(
    engine: Engine, image: str, folder: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    mounts = ["--volume", f"{folder}:/data:ro", "--volume", f"{tmp_path}:/out"]
    name = f"beattrack-test-{os.getpid()}"
    process = engine.start(
        "run", "--rm", "--name", name, *mounts, image,
        "--file", "song.wav", "--realtime", "--beats", "/out/a.beats",
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for _ in range(3):
            assert " bpm " in process.stdout.readline()
        began = time.monotonic()
        engine.value("stop", "--time", "20", name)
        rest, err = process.communicate(timeout=30)
    finally:
        process.kill()
        engine.docker("rm", "--force", name)
    assert time.monotonic() - began < 10
    assert process.returncode == 143
    assert "Traceback" not in err
    beats = (tmp_path / "a.beats").read_text().splitlines()
    assert len(beats) == 3 + len(rest.splitlines())
    assert len(beats) < 20


def test_docker_stop_while_it_starts(engine: Engine, image: str, folder: Path) -> None:
    name = f"beattrack-test-{os.getpid()}"
    engine.value("create", "--name", name, "--volume", f"{folder}:/data:ro", image,
                 "--file", "song.wav", "--realtime", "--output", "none")  # fmt: skip
    try:
        engine.value("start", name)
        began = time.monotonic()
        engine.value("stop", "--time", "20", name)
        assert time.monotonic() - began < 10
    finally:
        engine.docker("rm", "--force", name)


# What it hears


def test_beats_of_live_sound_come_in_time(engine: Engine, image: str, tmp_path: Path) -> None:
    seconds = 16
    audio, rate = soundfile.read(SONG, frames=seconds * 44100, dtype="float32")
    positions = np.arange(int(len(audio) * RATE / rate)) * rate / RATE
    audio = np.interp(positions, np.arange(len(audio)), audio)
    soundfile.write(tmp_path / "heard.wav", audio, RATE)
    events = outside(tmp_path / "heard.wav")
    truth = np.array([event["time_s"] for event in events if event["type"] == "beat"])
    assert len(truth) > 8
    lines: list[tuple[float, str]] = []  # (when it came, line)
    stop = threading.Event()
    with sound_server(tmp_path) as server:
        name = f"beattrack-test-{os.getpid()}"
        process = engine.start(
            "run", "--rm", "--name", name, "--volume", f"{server.socket}:/tmp/pulse",
            "--env", "PULSE_SERVER=unix:/tmp/pulse", "--read-only", image,
            "--mic", "--output", "jsonl",
        )  # fmt: skip
        reader = threading.Thread(target=read_lines, args=(process, lines))
        reader.start()
        player = threading.Thread(target=server.play, args=(audio, stop))
        try:
            wait_for(process, "Listening to")
            began = time.monotonic()
            player.start()
            time.sleep(seconds)
            engine.value("stop", "--time", "20", name)
            assert process.wait(20) == 143
            err = process.stderr.read() if process.stderr else ""
        finally:
            stop.set()
            engine.docker("rm", "--force", name)
            process.kill()
            if player.ident is not None:
                player.join()
            reader.join()
    assert "overrun" not in err
    assert "dropped" not in err
    heard = [(when, json.loads(line)) for when, line in lines]
    beats = [(when - began, event) for when, event in heard if event["type"] == "beat"]
    times = np.array([event["time_s"] for _, event in beats])
    assert share_found(times, truth[1:-1]) >= 0.9
    late_s = np.array([when - event["time_s"] for when, event in beats])
    print(f"live: {len(times)} beats, median {np.median(late_s) * 1e3:.0f} ms after they fell")
    assert abs(np.median(late_s)) <= 0.15


# With a kept wheel


def test_a_wheel_for_the_gpu_is_taken_only_with_its_hash(
    engine: Engine, image: str, base_amd64: str, pip_settings: list[str], tmp_path: Path
) -> None:
    context = tmp_path / "context"
    for part in ("docker", "shared", "runtime"):
        shutil.copytree(ROOT / part, context / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("LICENSE", "CREDITS.md", ".dockerignore"):
        shutil.copy2(ROOT / part, context)
    wheel = context / "docker" / "wheels" / "onnxruntime_gpu-1.23.0-py3-none-any.whl"
    about = "onnxruntime_gpu-1.23.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("onnxruntime/__init__.py", "")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: onnxruntime-gpu\n"
                      "Version: 1.23.0\n")  # fmt: skip
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
                      "Tag: py3-none-any\n")  # fmt: skip
        file.writestr(f"{about}/RECORD", "")

    def build(*arguments: str) -> subprocess.CompletedProcess[str]:
        return engine.docker(
            "build", "--file", context / "docker" / "jetson.Dockerfile", "--tag", tag,
            "--platform", "linux/amd64", "--target", "build",
            "--build-arg", f"BASE_IMAGE={base_amd64}", *pip_settings, *arguments, context,
            timeout=600,
        )  # fmt: skip

    tag = f"beattrack-jetson-test:wheel-{os.getpid()}"
    done = build()
    assert done.returncode != 0
    assert "needs its hash" in done.stderr
    done = build("--build-arg", f"ORT_WHEEL_SHA256={'0' * 64}")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    done = build("--build-arg", f"ORT_WHEEL_SHA256={digest}")
    assert done.returncode == 0, done.stderr
    try:
        found = inside(engine, tag, "ls -d /opt/beattrack/lib/python3*/site-packages/onnxruntime*")
        names = {Path(line).name for line in found}
        assert names == {"onnxruntime", about}
    finally:
        engine.docker("image", "rm", "--force", tag)


# On the board's processor


@pytest.fixture(scope="session")
def arm64_image(engine: Engine, base_arm64: str, pip_settings: list[str]) -> Iterator[str]:
    """The runtime image for aarch64 on the stand-in base; made anew it takes a long while."""
    with built(engine, "arm64", base_arm64, pip_settings) as tag:
        yield tag


def test_aarch64_gives_the_same_events(engine: Engine, arm64_image: str, folder: Path) -> None:
    audio, rate = soundfile.read(SONG, start=20 * 44100, frames=8 * 44100, dtype="float32")
    soundfile.write(folder / "excerpt.wav", audio, rate)
    run = ["run", "--rm", "--platform", "linux/arm64", "--volume", f"{folder}:/data:ro"]
    machine = engine.value(*run, "--entrypoint", "uname", arm64_image, "-m")
    assert machine == "aarch64"
    done = engine.docker(
        *run, arm64_image, "--file", "excerpt.wav", "--output", "jsonl", timeout=900
    )
    assert done.returncode == 0, done.stderr
    wanted = outside(folder / "excerpt.wav")
    assert sum(event["type"] == "beat" for event in wanted) > 8
    assert_same(done.stdout, wanted)
