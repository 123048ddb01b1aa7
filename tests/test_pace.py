"""A live stream stays in step with the wall clock, whatever goes missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beattrack_runtime.live.pace import LOSS_AT_S, Pace

RATE = 48000
BLOCK = 480


class Stream:
    """A pace fed on a made-up clock; remembers where each block of audio came to lie."""

    def __init__(self, start_s: float = 100.0) -> None:
        self.pace = Pace(RATE)
        self.now = start_s
        self.length = 0  # samples of the stream
        self.dropped = 0

    def take(self, samples: int = BLOCK, now: float | None = None) -> None:
        now = self.now if now is None else now
        silence, drop = self.pace.resume(samples, now)
        self.length += silence + samples - drop
        self.dropped += drop
        self.pace.heard(samples - drop, now)
        self.length += self.pace.lost(now)

    def play(self, seconds: float, speed: float = 1.0, late_s: float = 0.0) -> None:
        for _ in range(round(seconds * RATE / BLOCK)):
            self.now += BLOCK / RATE / speed
            self.take(now=self.now + late_s)

    def pause(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            silence = self.pace.behind(self.now)
            self.pace.fill(silence)
            self.length += silence


def test_a_gap_is_carried_on_by_silence() -> None:
    stream = Stream()
    stream.play(3)
    stream.pause(5)
    assert stream.length == pytest.approx(8 * RATE, abs=0.11 * RATE)
    stream.play(2)
    assert stream.length == pytest.approx(10 * RATE, abs=2)
    assert stream.dropped == 0


def test_audio_of_a_gap_that_comes_after_all_is_dropped() -> None:
    stream = Stream()
    stream.play(3)
    stream.pause(2)
    for _ in range(200):  # the two seconds, all at once
        stream.take()
    stream.play(3)
    assert stream.length == pytest.approx(8 * RATE, abs=0.01 * RATE)
    assert stream.dropped == pytest.approx(2 * RATE, abs=0.01 * RATE)


def test_another_client_may_send_ahead() -> None:
    stream = Stream()
    stream.play(3)
    stream.pause(2)
    stream.pace.restart()
    for _ in range(100):
        stream.take()
    assert stream.dropped == 0
    assert stream.length == pytest.approx(6 * RATE, abs=0.01 * RATE)


@pytest.mark.parametrize("lost_s", [0.05, 0.4])
def test_samples_lost_without_a_word_are_noticed(lost_s: float) -> None:
    stream = Stream()
    stream.play(4)
    stream.now += lost_s
    stream.play(5)
    assert stream.length == pytest.approx((9 + lost_s) * RATE, abs=2)


def test_jitter_and_drift_are_no_loss() -> None:
    stream, rng = Stream(), np.random.default_rng(0)
    for k in range(12000):  # two minutes, 150 ppm slow, up to 60 ms late
        stream.now = 100 + (k + 1) * BLOCK / RATE * 1.00015
        stream.take(now=stream.now + min(0.06, rng.exponential(0.01)))
    assert stream.length == 12000 * BLOCK


def test_a_stream_faster_than_the_clock_is_left_alone() -> None:
    stream = Stream()
    stream.play(60, speed=30)
    stream.now += 0.5
    assert stream.pace.behind(stream.now) == 0
    stream.play(60, speed=30)
    assert stream.length == 120 * RATE


def test_a_slow_reader_is_no_gap() -> None:
    """What the machine is too slow to read at once has not gone missing."""
    stream = Stream()
    stream.play(2)
    stream.play(20, speed=0.9)
    stream.now += 1.5
    assert stream.pace.behind(stream.now) <= 1.5 * RATE + 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.integers(0, 5000)),
            st.tuples(st.just("wait"), st.floats(0, 30)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_never_more_silence_than_time(steps: list[tuple[str, float]]) -> None:
    stream = Stream()
    heard = 0
    for what, amount in steps:
        if what == "take":
            stream.take(int(amount))
            heard += int(amount)
        elif what == "restart":
            stream.pace.restart()
        else:
            stream.now += amount
            silence = stream.pace.behind(stream.now)
            assert silence >= 0
            stream.pace.fill(silence)
            stream.length += silence
    passed = (stream.now - 100.0) * RATE
    assert 0 <= stream.length - (heard - stream.dropped) <= passed + LOSS_AT_S * RATE + 60
