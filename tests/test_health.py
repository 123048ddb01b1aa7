"""What is said of a source."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beattrack_runtime.live.health import CLIP_TOLD, LOWEST_DB, Health
from beattrack_runtime.live.journal import APART_S, EVERY_S, LASTS_S, Journal

RATE = 48000


class Input:
    """A source that says what it is told to."""

    name = "a microphone"
    sample_rate = RATE
    channels = 1
    duration_s: float | None = None
    overruns = 0
    note = ""

    def blocks(self):
        return iter(())

    def close(self) -> None:
        pass


def hear(health: Health, audio: np.ndarray, speed: float = 1.0) -> None:
    """Let it hear audio, [n], in blocks of 10 ms as the clock goes."""
    for k in range(0, len(audio), 480):
        health.heard(audio[k : k + 480, None].astype(np.float32), 50 + (k + 480) / RATE / speed)


def sine(seconds: float, level: float) -> np.ndarray:
    return level * np.sin(2 * np.pi * 500 * np.arange(round(seconds * RATE)) / RATE)


def test_level_is_that_of_a_sine() -> None:
    health = Health(Input())
    hear(health, sine(3, 0.5))
    assert health.level_db == pytest.approx(-9.03, abs=0.05)
    assert health.line() == "-9 dB"


def test_clipping_is_shown_for_a_while_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(Input())
    with caplog.at_level(logging.WARNING, "beattrack"):
        for _ in range(CLIP_TOLD + 5):
            hear(health, sine(0.1, 1.0))
            assert health.clipping
            assert "clipping" in health.line()
            hear(health, sine(2.1, 0.3))
            assert not health.clipping
    assert health.clipped == CLIP_TOLD + 5
    assert caplog.text.count("turn it down") == 1


def test_silence_and_zeros_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "beattrack"):
        quiet, muted = Health(Input()), Health(Input())
        hear(quiet, np.random.default_rng(0).normal(0, 1e-5, 7 * RATE))
        assert not caplog.text
        hear(muted, np.zeros(7 * RATE))
    assert quiet.line() == "silent 7 s"
    assert muted.line() == "nothing but zeros"
    assert "is it muted?" in caplog.text
    hear(muted, sine(1, 0.1))
    assert muted.line().endswith("dB")


def test_what_the_source_says_comes_first() -> None:
    source = Input()
    health = Health(source)
    source.note, source.overruns = "device gone", 2
    hear(health, sine(1, 0.1))
    assert health.line() == "device gone, -23 dB, 2 dropouts"


@pytest.mark.parametrize("ppm", [-120.0, 80.0])
def test_drift_is_measured(ppm: float) -> None:
    health = Health(Input())
    hear(health, np.tile(sine(10, 0.1), 6), speed=1 - ppm * 1e-6)
    assert health.drift_ppm == pytest.approx(ppm, abs=3)
    assert f"drift {ppm:+.0f} ppm" in health.line()


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_any_numbers_leave_it_sane(block: np.ndarray) -> None:
    health = Health(Input())
    with np.errstate(over="ignore", invalid="ignore"):
        health.heard(block, 1.0)
    health.heard(np.full((RATE, 1), 0.1, np.float32), 2.0)
    assert LOWEST_DB <= health.level_db < 1e3
    assert health.line()


def journal_of(
    changes: dict[float, dict[str, object]], seconds: float, caplog: pytest.LogCaptureFixture
) -> list[tuple[float, str]]:
    """When lines came, and what they say, of an input that changes at those seconds."""
    source = Input()
    health = Health(source)
    journal = Journal(source, health, 1000.0)
    hear(health, sine(1, 0.1))
    caplog.set_level(logging.INFO, "beattrack")
    told: list[tuple[float, str]] = []
    waiting = sorted(changes.items())
    for tenths in range(round(seconds * 10)):
        now = tenths / 10
        while waiting and waiting[0][0] <= now:
            for name, value in waiting.pop(0)[1].items():
                setattr(health if hasattr(health, name) else source, name, value)
        caplog.clear()
        journal.update(1000 + now)
        told += [(now, record.getMessage()) for record in caplog.records]
    return told


def test_the_journal_is_told_every_five_minutes(caplog: pytest.LogCaptureFixture) -> None:
    lines = [(EVERY_S * k, "a microphone: -23 dB") for k in (1, 2, 3)]
    assert journal_of({}, 1000, caplog) == lines


def test_what_begins_and_ends_is_told_at_once_but_not_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    losses = {50.0 + k: {"overruns": k + 1} for k in range(20)}
    found = journal_of(losses, 200, caplog)
    assert found == [(50.0, "a microphone: -23 dB, 1 dropout"),
                     (69 + LASTS_S, "a microphone: -23 dB, 20 dropouts")]  # fmt: skip
    gone = {20.0: {"note": "device gone"}, 22.5: {"note": ""}, 23: {"note": "device gone"}}
    assert journal_of(gone, 100, caplog) == [(20.0, "a microphone: device gone, -23 dB")]
    flaps = {20.0 + k: {"note": "device gone" * (k % 2)} for k in range(60)}
    often = [at for at, _ in journal_of(flaps, 100, caplog)]
    assert len(often) > 3 and np.diff(often).min() >= APART_S
    silent = {30.0: {"silent_s": 6.0}, 90.0: {"silent_s": 0.0}}
    assert [at for at, _ in journal_of(silent, 100, caplog)] == [30.0, 90.0]
    clipped = {30.0: {"clipped": 1}, 33.0: {"clipped": 2}}
    assert [at for at, _ in journal_of(clipped, 100, caplog)] == [30.0, 33 + LASTS_S]
