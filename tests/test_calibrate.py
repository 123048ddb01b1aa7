"""Delays from clicks and from taps: known ones are found, and doubtful ones are not believed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beattrack.config import ConfigError
from beattrack_runtime.cli import run
from beattrack_runtime.live import calibrate
from beattrack_runtime.live.delays import Delay, measure_round_trip, measure_taps
from beattrack_runtime.live.spec import parse_output
from virtual_mic import sound_server

RATE = 48000
ASKED = list(np.cumsum([0.5, 0.61, 0.47, 0.7, 0.55, 0.66, 0.5, 0.73, 0.58, 0.49, 0.64, 0.52]))


def click() -> np.ndarray:
    t = np.arange(round(0.06 * RATE)) / RATE
    return (0.45 * np.sin(2 * np.pi * 1760 * t) * np.exp(-t * 60)).astype(np.float32)


def recording(
    delay_s: float, noise: float = 0.01, gain: float = 0.1, missing: int = 0, jitter_s: float = 0.0
) -> np.ndarray:
    rng = np.random.default_rng(3)
    audio = rng.normal(0, noise, round((ASKED[-1] + 2.5) * RATE))
    for number, at in enumerate(ASKED):
        if number >= missing:
            first = round((at + delay_s + rng.uniform(-1, 1) * jitter_s) * RATE)
            audio[first : first + len(click())] += gain * click()
    return audio.astype(np.float32)


@pytest.mark.parametrize("delay_s", [-0.02, 0.0, 0.0005, 0.012, 0.0431, 0.25, 0.9])
def test_a_round_trip_is_found(delay_s: float) -> None:
    found = measure_round_trip(recording(delay_s), RATE, click(), ASKED)
    assert found.delay_s == pytest.approx(delay_s, abs=2e-4)
    assert found.used == found.of == len(ASKED)


def test_noise_as_loud_as_the_clicks() -> None:
    found = measure_round_trip(recording(0.08, noise=0.02), RATE, click(), ASKED)
    assert found.delay_s == pytest.approx(0.08, abs=1e-3)


def test_clicks_that_were_not_heard_and_coughs_are_left_out() -> None:
    audio = recording(0.06, missing=4)
    audio[round(3.3 * RATE) : round(3.34 * RATE)] += np.random.default_rng(0).normal(0, 1, 1920)
    found = measure_round_trip(audio.astype(np.float32), RATE, click(), ASKED)
    assert found.delay_s == pytest.approx(0.06, abs=3e-4)
    assert 6 <= found.used <= 8


def test_the_direct_sound_counts_not_a_louder_echo() -> None:
    audio = recording(0.03)
    audio[round(0.012 * RATE) :] += 1.3 * recording(0.03, noise=0)[: -round(0.012 * RATE)]
    found = measure_round_trip(audio, RATE, click(), ASKED)
    assert found.delay_s == pytest.approx(0.03, abs=1e-3)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (recording(0.05, gain=0.0), "not heard"),
        (np.zeros(len(recording(0.05)), np.float32), "not heard"),
        (recording(0.05, missing=8), "heard|agree"),
        (recording(0.05, jitter_s=0.05), "heard|agree"),
        (recording(0.05)[: 3 * RATE], "too short"),
        (np.full(len(recording(0.05)), np.nan, np.float32), "not heard"),
    ],
)
def test_what_is_doubtful_is_not_believed(audio: np.ndarray, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        measure_round_trip(audio, RATE, click(), ASKED)


def test_taps_find_the_lamps_delay() -> None:
    rng = np.random.default_rng(1)
    beats = [10 + 0.6 * k for k in range(28)]
    taps = [beat + 0.085 + rng.normal(0, 0.02) for beat in beats]
    taps[9] += 0.25  # a slip
    taps[15] -= 0.2
    del taps[20]
    found = measure_taps(taps, beats)
    assert found.delay_s == pytest.approx(0.085, abs=0.012)
    assert found.error_s < 0.01


@pytest.mark.parametrize("delay_s", [-0.28, 0.29])
def test_taps_about_half_a_beat_away_are_not_averaged_to_nothing(delay_s: float) -> None:
    rng = np.random.default_rng(2)
    beats = [0.6 * k for k in range(30)]
    taps = [beat + delay_s + rng.normal(0, 0.015) for beat in beats]
    found = measure_taps(taps, beats).delay_s
    assert min(abs(found - delay_s), abs(abs(found - delay_s) - 0.6)) < 0.02


def test_poor_taps_are_refused() -> None:
    beats = [0.6 * k for k in range(28)]
    with pytest.raises(ConfigError, match="Only 0 taps"):
        measure_taps([], beats)
    with pytest.raises(ConfigError, match="Only 3 taps"):
        measure_taps(beats[10:13], beats)
    rng = np.random.default_rng(4)
    with pytest.raises(ConfigError, match="too uneven"):
        measure_taps(list(rng.uniform(3, 16, 40)), beats)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100), max_size=60))
def test_any_taps_give_a_delay_or_a_sentence(taps: list[float]) -> None:
    try:
        found = measure_taps(taps, [0.6 * k for k in range(28)])
    except ConfigError:
        return
    assert abs(found.delay_s) <= 0.6
    assert "ms" in str(found)


def test_clicks_through_a_sound_card(tmp_path: Path) -> None:
    with sound_server(tmp_path) as server:
        server.loop_back()
        result = subprocess.run(
            [sys.executable, "-m", "beattrack_runtime", "--calibrate"],
            env=server.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    if "no sound input" in result.stderr:
        pytest.skip(f"PortAudio does not see the sound server: {result.stderr}")
    assert result.returncode == 0, result.stderr
    found = re.match(r"click://: round trip (\S+) \+- (\S+) ms, (\d+) of 12", result.stdout)
    assert found, result.stdout
    assert abs(float(found[1])) < 30  # the card knows its buffer, and there is no air
    assert float(found[2]) < 1.5
    proposed = re.search(r"\?delay=(-?\d+)", result.stdout)
    if abs(float(found[1])) >= 1:
        assert proposed is not None and abs(int(proposed[1]) + float(found[1])) <= 0.6


def test_taps_to_a_lamp_in_another_thread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lamp is an OSC receiver that presses the key 60 ms after each flash."""
    monkeypatch.setattr(calibrate, "TAP_BEATS", 20)
    monkeypatch.setattr(calibrate, "TAP_BPM", 240.0)
    monkeypatch.setattr(calibrate, "TAP_LEAD_S", 0.3)
    master, slave = os.openpty()
    monkeypatch.setattr(sys, "stdin", os.fdopen(slave))
    lamp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lamp.bind(("127.0.0.1", 0))
    lamp.settimeout(0.2)
    ended = threading.Event()

    def watch() -> None:
        time.sleep(0.5)
        os.write(master, b"x")  # ready
        while not ended.is_set():
            try:
                packet = lamp.recv(4096)
            except TimeoutError:
                continue
            if b"/beattrack/beat\0" in packet:
                time.sleep(0.06)
                os.write(master, b" ")

    thread = threading.Thread(target=watch)
    thread.start()
    spec = parse_output(f"osc://127.0.0.1:{lamp.getsockname()[1]}")
    try:
        found = calibrate._taps(spec, "light")
    finally:
        ended.set()
        thread.join()
        lamp.close()
        os.close(master)
    assert "Press a key when you are ready for the light." in capsys.readouterr().out
    assert found.delay_s == pytest.approx(0.06, abs=0.015)


def test_what_calibrate_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    osc = "osc://127.0.0.1:9000"
    for words, sentence in (
        (["--output", osc, "--output", "osc://127.0.0.1:9001"], "at most"),
        (["--output", osc], "needs a terminal"),
        (["--mic"], "--calibrate stands alone"),
    ):
        assert run(["--calibrate", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_how_it_is_said() -> None:
    assert str(Delay(0.04312, 0.00031, 11, 12)) == "43.1 +- 0.3 ms"


def test_what_is_proposed_can_be_copied_whole(capsys: pytest.CaptureFixture[str]) -> None:
    calibrate._propose(parse_output("serial:///dev/ttyUSB0?delay=7&baud=9600"), -0.0316)
    assert "--output 'serial:///dev/ttyUSB0?delay=-32&baud=9600'" in capsys.readouterr().out
    calibrate._propose(parse_output("midi://My%20Synth?clock=no"), -0.4)
    said = capsys.readouterr().out
    assert "'midi://My%20Synth?delay=-250&clock=no'" in said and "(-400 ms would be right" in said
