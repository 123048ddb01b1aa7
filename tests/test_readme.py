"""Every command of the README is executed here, or said to be the one that runs this."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beattrack_runtime.live.spec import parse_output
from flux_model import drum_loop
from test_mic import RATE, microphone  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]
DEMO = "pip install rust-just && just demo"
TRACK = ".venv/bin/beattrack --file song.mp3 --beats song.beats --click clicks.wav --plot song.png"
LIVE = [
    ".venv/bin/beattrack --mic",
    ".venv/bin/beattrack --mic --device default --output jsonl",
]


OUTPUTS = [
    ".venv/bin/beattrack --mic --output web://127.0.0.1:8080 "
    "--output osc://127.0.0.1:9000?delay=-20 --output midi://",
    ".venv/bin/beattrack --file song.mp3 --realtime --output web://",
]


def test_no_command_is_left_out():
    tracking = [TRACK, ".venv/bin/beattrack --list-devices", *LIVE]
    driving = [*OUTPUTS, ".venv/bin/beattrack --doctor"]
    assert [DEMO, "just test", *tracking, *driving, "just pipeline"] == COMMANDS
    # `just test` is what runs this test; `pip install rust-just` must have come before it.
    # `just pipeline` is run by test_pipeline.py, in a smaller size.


@pytest.mark.parametrize("command", OUTPUTS)
def test_the_live_outputs_named_are_outputs(command):
    """They are driven in test_live_outputs.py and test_web.py; here, that they are called so."""
    given = command.split()
    outputs = [parse_output(w) for w, before in zip(given[1:], given, strict=False)
               if before == "--output"]  # fmt: skip
    assert len(outputs) == command.count("--output") > 0


@pytest.fixture(scope="module")
def demo_run():
    if shutil.which("just") is None:
        pytest.skip("just is not on the PATH: pip install rust-just")
    shutil.rmtree(ROOT / "demo", ignore_errors=True)
    return subprocess.run(["just", "demo"], cwd=ROOT, capture_output=True, text=True, check=False)


def words(command: str) -> list[str]:
    return [str(ROOT / w) if w.startswith(".venv") else w for w in command.split()]


def test_demo(demo_run):
    assert demo_run.returncode == 0, demo_run.stderr
    lines = (ROOT / "demo" / "song.beats").read_text().splitlines()
    assert len(lines) > 200
    beats = np.array([line.split("\t") for line in lines], dtype=float)
    assert np.median(np.diff(beats[:, 0])) == pytest.approx(0.5, abs=0.01)  # the song has 120 bpm
    clicks = soundfile.info(ROOT / "demo" / "song_clicks.wav")
    assert clicks.duration == pytest.approx(120, abs=0.1)
    assert (ROOT / "demo" / "song.png").read_bytes().startswith(b"\x89PNG")
    assert "Traceback" not in demo_run.stderr
    assert "bpm" in demo_run.stdout


def test_the_demo_environment_has_no_torch(demo_run):
    python = ROOT / ".venv" / "bin" / "python"
    code = "import importlib.util as u; print([n for n in ('torch', 'scipy') if u.find_spec(n)])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_track_a_file(demo_run, tmp_path):
    audio, _ = drum_loop(8, 120)
    soundfile.write(tmp_path / "song.mp3", audio, 22050)
    done = subprocess.run(words(TRACK), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {f.name for f in tmp_path.iterdir()} == {
        "song.mp3", "song.beats", "clicks.wav", "song.png"
    }  # fmt: skip


def test_list_devices(demo_run):
    command = words(".venv/bin/beattrack --list-devices")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", LIVE)
def test_live(demo_run, microphone, command):  # noqa: F811
    audio, _ = drum_loop(9, 120, sample_rate=RATE)
    process = subprocess.Popen(
        words(command), env=microphone.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    stop = threading.Event()
    player = threading.Thread(target=microphone.play, args=(audio, stop))
    player.start()
    player.join(10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    stop.set()
    player.join()
    assert process.returncode == 130, err
    lines = out.splitlines()
    assert len(lines) > 6, err
    if "jsonl" in command:
        assert "beat" in {json.loads(line)["type"] for line in lines}


def test_python_example(capsys):
    (code,) = blocks("python")
    block = np.repeat(drum_loop(8, 120, sample_rate=48000)[0][:, None], 2, axis=1)
    exec(compile(code, "README.md", "exec"), {"block": block})
    assert "'type': 'beat'" in capsys.readouterr().out


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    missing = [x for x in links if "://" not in x and not (ROOT / x).exists()]
    assert not missing
