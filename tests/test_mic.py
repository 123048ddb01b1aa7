"""`--mic` against a virtual sound card."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audio_tools import FLUX_COMMAND, share_found
from flux_model import drum_loop
from virtual_mic import RATE, Microphone, playing, read_lines, sound_server, wait_for


@pytest.fixture
def microphone(tmp_path: Path) -> Iterator[Microphone]:
    """Start a sound server of our own; skip where that is impossible."""
    with sound_server(tmp_path) as server:
        listed = _beattrack(["--list-devices"], server.environment)
        if "pulse" not in listed.stdout:
            pytest.skip(f"PortAudio does not see the sound server: {listed.stdout}{listed.stderr}")
        yield server


def _beattrack(
    arguments: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FLUX_COMMAND, *arguments],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_lists_the_microphone(microphone: Microphone) -> None:
    result = _beattrack(["--list-devices"], microphone.environment)
    assert result.returncode == 0
    assert "(default)" in result.stdout


def test_tracks_live_sound_until_interrupted(microphone: Microphone, tmp_path: Path) -> None:
    audio, truth = drum_loop(14, 120, RATE, 0.25)
    beats, click = tmp_path / "live.beats", tmp_path / "live.wav"
    process = subprocess.Popen(
        [sys.executable, "-c", FLUX_COMMAND, "--mic", "--output", "jsonl",
         "--beats", str(beats), "--click", str(click)],
        env=microphone.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: list[tuple[float, str]] = []  # (when it came, line)
    reader = threading.Thread(target=read_lines, args=(process, lines))
    reader.start()
    stop = threading.Event()
    try:
        wait_for(process, "Listening to")
        began = time.monotonic()
        player = threading.Thread(target=microphone.play, args=(audio, stop))
        player.start()
        time.sleep(14)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        err = process.stderr.read() if process.stderr else ""
    finally:
        stop.set()
        process.kill()
        player.join()
        reader.join()
    assert "overrun" not in err
    assert "dropped" not in err
    events = [(when, json.loads(line)) for when, line in lines]
    found = [(when, event) for when, event in events if event["type"] == "beat"]
    times = np.array([event["time_s"] for _, event in found])
    # The device delivers from the first sample played, so stream time is the song's own.
    assert share_found(times, truth[8:-2]) >= 0.95
    # The line of a beat comes when the beat is heard, by the clock on the wall.
    late = [when - began - truth for when, _ in found]
    late_s = np.array([row[np.abs(row).argmin()] for row in late])
    assert abs(np.median(late_s)) <= 0.1
    written = [float(line.split("\t")[0]) for line in beats.read_text().splitlines()]
    assert np.allclose(written, times, atol=1e-3)
    assert click.stat().st_size > 10 * RATE * 2


def test_a_device_that_is_pulled_out_and_comes_back(microphone: Microphone) -> None:
    """Silence goes on meanwhile, so that stream time keeps step with the clock on the wall."""
    audio, _ = drum_loop(30, 120, RATE, 0.25)
    process = subprocess.Popen(
        [sys.executable, "-c", FLUX_COMMAND, "--mic", "--output", "jsonl"],
        env=microphone.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: list[tuple[float, str]] = []
    reader = threading.Thread(target=read_lines, args=(process, lines))
    reader.start()
    try:
        wait_for(process, "Listening to")
        with playing(microphone, audio):
            time.sleep(4)
            microphone.pull_out()
        wait_for(process, "went away")
        time.sleep(2.4)
        unplugged = len(lines)
        microphone.plug_in()
        with playing(microphone, audio):
            wait_for(process, "is back")
            time.sleep(5)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
    finally:
        process.kill()
        reader.join()
    events = [(when, json.loads(line)) for when, line in lines]
    states = [event["state"] for _, event in events if event["type"] == "state"]
    assert states == ["locked", "lost", "locked"]
    assert events[unplugged - 1][1]["state"] == "lost"
    ahead = [when - event["emitted_s"] for when, event in events if event["type"] == "beat"]
    before, after = ahead[: unplugged - 2], ahead[unplugged - 2 :]
    assert len(after) >= 4
    assert abs(np.median(after) - np.median(before)) < 0.06


def test_a_click_does_not_hinder_the_search_for_a_lost_device(microphone: Microphone) -> None:
    """New devices are seen only when no stream is open: the click's is closed and opens again."""
    microphone.add_sink()
    code = (
        "from beattrack_runtime.live.clock.ticks import Tick\n"
        "from beattrack_runtime.live.output import Due\n"
        "from beattrack_runtime.live.outputs.click import ClickOutput\n"
        "from beattrack_runtime.live.spec import parse_output\n"
        "from beattrack_runtime.portaudio import look_again\n"
        "click = ClickOutput(parse_output('click://'))\n"
        "due = Due(Tick(0.0, 0, 0, 1, 4, 120.0, 1.0), 0.0)\n"
        "click.open(); click.send(due); look_again()\n"
        "try:\n"
        "    click.send(due)\n"
        "except ConnectionError as error:\n"
        "    print(error)\n"
        "click.close(); click.open(); click.send(due); click.close()\n"
        "print('open again')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=microphone.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["the sound card has gone", "open again"], done.stderr


def test_channels_are_checked(microphone: Microphone) -> None:
    result = _beattrack(["--mic", "--channel", "99"], microphone.environment)
    assert result.returncode == 2
    assert "There is no channel 99: 'default' has" in result.stderr


def test_an_unknown_device_is_one_sentence(microphone: Microphone) -> None:
    result = _beattrack(["--mic", "--device", "no such thing"], microphone.environment)
    assert result.returncode == 1
    assert "There is no input device 'no such thing'" in result.stderr
    assert "Traceback" not in result.stderr
