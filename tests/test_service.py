"""The systemd unit starts what the image and the command know."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from beattrack_runtime import microphone
from beattrack_runtime.cli import run
from beattrack_runtime.errors import SourceError

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "docker" / "beattrack.service"


def settings() -> list[tuple[str, str]]:
    """Return the unit's (key, value) in order, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", UNIT.read_text())
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def value(key: str) -> str:
    (found,) = [v for k, v in settings() if k == key]
    return found


def test_the_command_line_is_one_that_the_command_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its own defaults the command comes as far as the sound card."""

    def no_card(*arguments: object) -> None:
        raise SourceError("There is no sound card in this test.")

    monkeypatch.setattr(microphone, "MicSource", no_card)
    name, _, arguments = shlex.split(value("Environment"))[0].partition("=")
    assert name == "BEATTRACK_ARGS"
    assert f"${name}" in value("ExecStart")
    free = arguments.replace(":8080", ":0")
    assert run(free.split()) == 1
    assert "no sound card in this test" in capsys.readouterr().err


def test_the_example_in_its_comment_is_one_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_card(*arguments: object) -> None:
        raise SourceError("There is no sound card in this test.")

    monkeypatch.setattr(microphone, "MicSource", no_card)
    example = re.search(r"#\s+BEATTRACK_ARGS=(.*)", UNIT.read_text())
    assert example
    assert run(example[1].replace("192.168.1.20", "127.0.0.1").split()) == 1
    assert "no sound card in this test" in capsys.readouterr().err


def test_it_runs_the_image_that_just_builds_and_the_name_that_it_stops() -> None:
    words = shlex.split(value("ExecStart"))
    image = words[words.index("$BEATTRACK_ARGS") - 1]
    assert f"-t {image} " in (ROOT / "Justfile").read_text()
    name = words[words.index("--name") + 1]
    for key in ("ExecStop", "ExecStartPre"):
        assert value(key).endswith(f" {name}")
    assert value("Restart") == "always"


def test_a_wrong_command_line_is_not_tried_again_but_a_missing_card_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_card(*arguments: object) -> None:
        raise SourceError("There is no sound card in this test.")

    monkeypatch.setattr(microphone, "MicSource", no_card)
    final = value("RestartPreventExitStatus").split()
    for wrong in ("--mic --ouptut none", "--mic --output ocs://h:1", "--mic --meter 99"):
        assert str(run(wrong.split())) in final, wrong
    assert str(run(["--mic", "--output", "none"])) not in final
    assert not set(final) & set(value("SuccessExitStatus").split())
    assert "no sound card in this test" in capsys.readouterr().err


def test_systemd_finds_nothing_odd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/docker", "/bin/true").replace(
        "Requires=docker.service\n", ""))  # fmt: skip
    result = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr
    assert unit.name not in result.stderr
