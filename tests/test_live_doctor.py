"""``beattrack --doctor``: what a machine has, and a remedy for what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from beattrack_runtime import microphone
from beattrack_runtime.cli import run
from beattrack_runtime.errors import OutputError, SourceError
from beattrack_runtime.live.doctor import access, computing, examination, protocols, sound
from beattrack_runtime.live.doctor.finding import BROKEN, NOTE, OK, Finding
from beattrack_runtime.live.outputs import midi_ports
from flux_model import drum_loop
from virtual_mic import RATE, playing, sound_server


def finding(check: Any) -> Finding:
    (found,) = check()
    return found


def test_a_sound_card_is_opened_and_heard(tmp_path: Path) -> None:
    audio, _ = drum_loop(60, 240, RATE)
    with sound_server(tmp_path) as server, playing(server, audio):
        result = subprocess.run(
            [sys.executable, "-m", "beattrack_runtime", "--doctor", "--output", "json"],
            env=server.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    report = json.loads(result.stdout)
    found = {f["name"]: f for f in report["findings"]}
    if "no sound input" in found["--mic"]["fact"]:
        pytest.skip(f"PortAudio does not see the sound server: {found['--mic']}")
    assert result.returncode == 0, report
    assert report["mic"] is True
    assert found["--mic"]["state"] == OK
    inputs = [f for name, f in found.items() if name.startswith("input ")]
    assert any("opened at" in f["fact"] and "dB at most" in f["fact"] for f in inputs)
    assert all("48000" in f["fact"] for f in inputs)
    assert found["CPU"]["state"] == OK
    _, ran, _, every, _ = found["CPU"]["fact"].rsplit(" ", 4)
    assert int(ran) == int(every) > 50
    assert all(f["remedy"] for f in found.values() if f["state"] != OK)
    assert all("\n" not in f["fact"] + f["remedy"] for f in found.values())
    assert result.stderr == ""


def test_without_an_input_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> None:
        raise SourceError("There is no sound input device in this container: start it with 'X'.")

    monkeypatch.setattr(sound, "portaudio", none)
    monkeypatch.setattr(
        examination,
        "CHECKS",
        (computing.check_program, sound.check_microphones, sound.check_outputs),
    )
    assert run(["--doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("broken --mic"))
    assert lines[at + 1].strip() == "-> start it with 'X'"
    assert run(["--doctor", "--output", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["mic"] is False


def test_no_midi_is_said_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[str]:
        raise OutputError("MidiOutAlsa::initialize")

    monkeypatch.setattr(midi_ports, "port_names", missing)
    found = finding(protocols.check_midi)
    assert found.state == NOTE and "neither ALSA's sequencer" in found.fact
    assert "snd-seq" in found.remedy


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check_speed() -> list[Finding]:
        raise RuntimeError("odd\nsecond line")

    def check_midi() -> list[Finding]:
        raise OSError("none")

    monkeypatch.setattr(examination, "CHECKS", (check_speed, check_midi, computing.check_program))
    monkeypatch.setattr(examination, "NEEDED", (check_speed,))
    states = {f.name: (f.state, f.fact) for f in examination.examine()}
    assert states["speed"] == (BROKEN, "odd")
    assert states["midi"] == (NOTE, "none")
    assert states["beattrack"][0] == OK


def test_the_default_that_fails_and_another_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [
        {"index": i, "name": f"card {i}", "max_input_channels": 2, "default_samplerate": 48000.0}
        for i in range(3)
    ]
    sd = types.SimpleNamespace(query_devices=lambda *_: devices)
    monkeypatch.setattr(sound, "portaudio", lambda: sd)
    monkeypatch.setattr(microphone, "find", lambda sd, device: devices[0])
    for good, state, words in ((0, OK, ""), (2, NOTE, "--mic --device 2"), (9, BROKEN, "above")):
        monkeypatch.setattr(
            sound, "_try_input",
            lambda sd, info, good=good: Finding(
                f"input {info['index']}", OK if info["index"] == good else NOTE, "", "x"
            ),
        )  # fmt: skip
        found = sound.check_microphones()[-1]
        assert (found.name, found.state) == ("--mic", state)
        assert words in found.remedy


def test_providers_that_run_nothing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    found = {f.name: f for f in computing.check_providers()}
    assert found["CPU"].state == OK
    assert found["CUDA"].state == NOTE  # this machine has no GPU wheel: it cannot run there
    assert found["CUDA"].remedy


def test_a_read_only_system_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(computing.tempfile, "TemporaryDirectory", none)
    found = {f.name: f for f in computing.check_providers()}
    assert found["CPU"].state == OK
    assert "not counted" in found["CPU"].fact


def test_permissions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PULSE_SERVER", raising=False)
    monkeypatch.setattr(microphone, "SOUND", tmp_path / "none")
    monkeypatch.setattr(microphone, "_CONTAINER_MARKS", ())
    assert finding(access.check_permissions).remedy == "plug in a sound card, or load its driver"
    monkeypatch.setattr(microphone, "SOUND", tmp_path)
    (tmp_path / "pcmC0D0c").touch()
    assert finding(access.check_permissions).state == OK
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "usermod -aG audio" in finding(access.check_permissions).remedy
    monkeypatch.setattr(microphone, "_CONTAINER_MARKS", (tmp_path,))
    assert "--group-add audio" in finding(access.check_permissions).remedy


def test_container_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PULSE_SERVER", raising=False)
    monkeypatch.setattr(microphone, "_CONTAINER_MARKS", ())
    assert finding(access.check_container).fact == "not in one"
    monkeypatch.setattr(microphone, "_CONTAINER_MARKS", (tmp_path,))
    monkeypatch.setattr(microphone, "SOUND", tmp_path / "none")
    assert "--device /dev/snd --group-add audio" in finding(access.check_container).remedy
    monkeypatch.setenv("PULSE_SERVER", "unix:/tmp/pulse")
    assert finding(access.check_container).state == OK


def test_other_formats_are_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--doctor", "--output", "beats"]) == 2
    assert "--output json" in capsys.readouterr().err
