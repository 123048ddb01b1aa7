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
from beattrack_runtime.live.doctor import (
    access,
    computing,
    container,
    examination,
    protocols,
    sound,
)
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


def card(folder: Path, name: str, kind: str = "", type: int = 1, **more: int) -> None:
    """Write what the system says of a network card; ``more``: iflink, and a device behind it."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "type").write_text(f"{type}\n")
    (place / "ifindex").write_text("3\n")
    (place / "iflink").write_text(f"{more.get('iflink', 3)}\n")
    (place / "uevent").write_text(f"DEVTYPE={kind}\nINTERFACE={name}\n" if kind else "IFINDEX=3\n")
    if more.get("device"):
        (place / "device").mkdir()


def test_a_network_of_its_own_is_told_from_that_of_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def seen(*cards: tuple[str, dict[str, Any]]) -> bool:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, values in (("lo", {"type": 772}), ("tunl0", {"type": 768}), *cards):
            card(folder, name, **values)
        monkeypatch.setattr(container, "NET", folder)
        return container.own_network()

    cable = ("eth0", {"iflink": 9})
    assert seen(cable)
    assert seen(cable, ("ifb0", {}), ("eth1", {"iflink": 12}))
    assert not seen()  # without any network, or a kind that is not known
    assert not seen(("eth0", {"device": 1}))
    assert not seen(("eth0", {"device": 1}), ("docker0", {"kind": "bridge"}),
                    ("veth1", {"iflink": 9}))  # fmt: skip
    assert not seen(cable, ("docker0", {"kind": "bridge"}))  # --network host within LXC
    assert not seen(("eth0", {"iflink": 9, "kind": "macvlan"}))
    assert not seen(("tap0", {}))
    monkeypatch.setattr(container, "NET", tmp_path / "none")
    assert not container.own_network()


def test_what_a_container_s_command_line_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checks = (container.check_priority, container.check_network)
    monkeypatch.setattr(container, "hurry", lambda: None)
    monkeypatch.setattr(container, "_limit", lambda: 0)
    monkeypatch.setattr(container, "own_network", lambda: True)
    monkeypatch.setattr(microphone, "_CONTAINER_MARKS", ())
    assert [check() for check in checks] == [[], []], "a false alarm outside containers"
    monkeypatch.setattr(microphone, "_CONTAINER_MARKS", (tmp_path,))
    priority, network = (finding(check) for check in checks)
    assert priority.state == network.state == NOTE
    assert "--ulimit rtprio=5" in priority.remedy and "--network host" in network.remedy
    monkeypatch.setattr(container, "_limit", lambda: 5)
    assert "--ulimit" not in str(finding(container.check_priority))
    monkeypatch.setattr(container, "hurry", lambda: (0, os.sched_param(0)))
    monkeypatch.setattr(container, "relax", lambda policy: None)
    monkeypatch.setattr(container, "own_network", lambda: False)
    assert [finding(check).state for check in checks] == [OK, OK]
    assert set(checks) <= set(examination.CHECKS)


def devices(*channels: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"index": i, "name": f"card {i}", "max_input_channels": inputs,
         "max_output_channels": outputs, "default_samplerate": 48000.0}
        for i, (inputs, outputs) in enumerate(channels)
    ]  # fmt: skip


class FakeSound(types.SimpleNamespace):
    """PortAudio with cards that we say."""

    class PortAudioError(Exception):
        pass

    def __init__(self, default: int, broken: int, *channels: tuple[int, int]) -> None:
        super().__init__(default=types.SimpleNamespace(device=(0, default)))
        self.broken = broken
        self.query_devices = lambda: devices(*channels)

    def check_output_settings(self, index: int, **wanted: Any) -> None:
        if index == self.broken:
            raise self.PortAudioError("Device unavailable")


def test_every_output_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for default, broken, state, words in (
        (1, 9, OK, "click:// plays on output 1"), (1, 1, NOTE, "use click://2"),
        (-1, 9, NOTE, "use click://1"),
    ):  # fmt: skip
        sd = FakeSound(default, broken, (2, 0), (0, 2), (1, 8))
        monkeypatch.setattr(sound, "portaudio", lambda sd=sd: sd)
        *each, last = sound.check_outputs()
        assert [f.name for f in each] == ["output 1", "output 2"]
        assert each[1].fact == "'card 2', 8 channels, 48000 Hz, click://2"
        assert (last.name, last.state) == ("sound output", state)
        assert words in last.fact + last.remedy
        assert each[0].state == (NOTE if broken == 1 else OK)


def test_the_list_of_devices_has_outputs_under_a_heading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(microphone, "portaudio", lambda: FakeSound(2, 9, (2, 0), (1, 2), (0, 8)))
    assert run(["--list-devices"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "  0  card 0  (2 channels, 48000 Hz)  (default)", "  1  card 1  (1 channels, 48000 Hz)",
        "Outputs, for click://DEVICE:",
        "  1  card 1  (2 channels, 48000 Hz)", "  2  card 2  (8 channels, 48000 Hz)  (default)",
    ]  # fmt: skip
    monkeypatch.setattr(microphone, "portaudio", lambda: FakeSound(2, 9, (2, 0)))
    assert run(["--list-devices"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setattr(microphone, "portaudio", lambda: FakeSound(2, 9, (0, 2)))
    assert run(["--list-devices"]) == 1


def test_other_formats_are_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--doctor", "--output", "beats"]) == 2
    assert "--output json" in capsys.readouterr().err
