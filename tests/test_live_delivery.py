"""Delivery: on time, bounded, and nobody waits for anybody else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from beattrack_runtime.live import delivery as deliveries
from beattrack_runtime.live.clock.ticks import ClockState, ClockStateChange, Tick
from beattrack_runtime.live.delivery import QUEUE, STALE_S, STEADY, Delivery
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.outputs import make_output
from beattrack_runtime.live.spec import parse_output
from live_receivers import free_port
from test_web import status


class Receiver:
    """An output that remembers; ``trouble`` is called before each send."""

    beats_only = False

    def __init__(self, trouble: Callable[[], None] = lambda: None, ahead_s: float = 0.0) -> None:
        self.name, self.ahead_s = "test://", ahead_s
        self.trouble = trouble
        self.refuse = False  # whether open() fails
        self.got: list[tuple[float, Due]] = []
        self.opened = self.closed = 0

    def open(self) -> None:
        if self.refuse:
            raise ConnectionRefusedError("nobody there")
        self.opened += 1

    def send(self, due: Due) -> None:
        self.trouble()
        self.got.append((time.monotonic(), due))

    def close(self) -> None:
        self.closed += 1

    @property
    def beats(self) -> list[int]:
        return [due.what.beat for _, due in self.got if isinstance(due.what, Tick)]


def tick(beat: int, number: int = 0) -> Tick:
    return Tick(beat * 0.5, beat, number, 1, 4, 120.0, 0.9)


def change(state: ClockState = ClockState.LOCKED) -> ClockStateChange:
    return ClockStateChange(state, 0.0, 120.0, 0.9)


def wait_until(true: Callable[[], bool], seconds: float = 3.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def end(*all_of_them: Delivery) -> None:
    for delivery in all_of_them:
        delivery.stop()
    for delivery in all_of_them:
        delivery.join()


def test_everything_is_sent_at_its_moment_in_order() -> None:
    receiver = Receiver()
    delivery = Delivery(receiver)
    delivery.start()
    began = time.monotonic() + 0.05
    for beat in (3, 1, 0, 2):  # whatever the order of asking
        delivery.put(tick(beat), began + beat * 0.05)
    wait_until(lambda: len(receiver.got) == 4)
    end(delivery)
    assert receiver.beats == [0, 1, 2, 3]
    for at, due in receiver.got:
        assert -0.001 <= at - due.at <= 0.05  # the machine may be busy
    health = delivery.health()
    assert (health.sent, health.dropped, health.reconnects, health.state) == (4, 0, 0, "closed")
    assert (receiver.opened, receiver.closed) == (1, 1)


@pytest.mark.parametrize(("delay_ms", "ahead_s"), [(-100, 0.0), (150, 0.0), (0, 0.1), (-50, 0.1)])
def test_delay_and_lead_of_an_output(delay_ms: float, ahead_s: float) -> None:
    receiver = Receiver(ahead_s=ahead_s)
    delivery = Delivery(receiver, delay_ms)
    assert delivery.early_s == pytest.approx(max(0.0, ahead_s - delay_ms / 1000))
    delivery.start()
    sounds = time.monotonic() + 0.3
    delivery.put(tick(0), sounds)
    wait_until(lambda: bool(receiver.got))
    end(delivery)
    ((at, due),) = receiver.got
    assert due.at == pytest.approx(sounds + delay_ms / 1000, abs=1e-9)
    assert at == pytest.approx(due.at - ahead_s, abs=0.05)


def test_only_beats_where_only_beats_are_wanted() -> None:
    receiver = Receiver()
    receiver.beats_only = True
    delivery = Delivery(receiver)
    delivery.start()
    now = time.monotonic()
    for number in range(24):
        delivery.put(tick(0, number), now + 0.001 * number)
    delivery.put(change(), now)
    wait_until(lambda: len(receiver.got) == 2)
    end(delivery)
    assert receiver.beats == [0]


def test_a_stuck_receiver_stalls_nobody_and_its_queue_is_bounded() -> None:
    stuck, free = threading.Event(), Receiver()
    receiver = Receiver(trouble=lambda: stuck.wait(20) and None)
    one, two = Delivery(receiver), Delivery(free)
    one.start()
    two.start()
    began = time.monotonic()
    for number in range(3 * QUEUE):
        for delivery in (one, two):
            delivery.put(tick(number), time.monotonic())
        time.sleep(0.0005)
    one.put(change(), time.monotonic())
    assert time.monotonic() - began < 3  # putting never waited
    wait_until(lambda: len(free.got) >= 3 * QUEUE)
    assert free.beats == list(range(3 * QUEUE))
    assert two.health().dropped == 0
    assert one.health().dropped >= QUEUE
    assert len(one._heap) == QUEUE
    assert any(isinstance(item[2].what, ClockStateChange) for item in one._heap)
    asked = time.monotonic()
    end(one, two)  # the end of the program does not wait for it either
    assert time.monotonic() - asked < 2 * deliveries.CLOSE_S
    stuck.set()


def test_a_dead_receiver_is_opened_again_and_counted() -> None:
    dead = threading.Event()

    def trouble() -> None:
        if dead.is_set():
            raise ConnectionResetError("gone")

    receiver, other = Receiver(trouble), Receiver()
    one, two = Delivery(receiver), Delivery(other)
    one.start()
    two.start()
    began = time.monotonic() + 0.02
    for beat in range(40):
        for delivery in (one, two):
            delivery.put(tick(beat), began + beat * 0.05)
    wait_until(lambda: len(receiver.got) >= 5)
    dead.set()
    receiver.refuse = True
    wait_until(lambda: one.health().state == "broken")
    time.sleep(0.3)
    dead.clear()
    receiver.refuse = False
    wait_until(lambda: len(other.got) == 40)
    end(one, two)
    health = one.health()
    assert health.reconnects == 1 and receiver.opened == 2
    assert health.sent + health.dropped == 40  # each was sent once, or is counted as lost
    assert health.sent == len(receiver.got) >= 10
    assert health.dropped >= 5
    assert receiver.beats == sorted(set(receiver.beats))
    assert other.beats == list(range(40)) and two.health().dropped == 0


def test_a_receiver_that_comes_back_hears_the_present_state_first() -> None:
    receiver = Receiver()
    receiver.refuse = True
    delivery = Delivery(receiver)
    delivery.start()
    now = time.monotonic()
    delivery.put(change(ClockState.SEARCHING), now)
    delivery.put(change(ClockState.LOCKED), now + 0.05)
    delivery.put(tick(0), now + 0.06)
    time.sleep(0.1)
    receiver.refuse = False
    wait_until(lambda: bool(receiver.got))
    end(delivery)
    assert [due.what for _, due in receiver.got] == [change(ClockState.LOCKED)]
    assert delivery.health().dropped == 1


def test_a_stale_tick_is_dropped_but_not_a_state() -> None:
    receiver = Receiver()
    delivery = Delivery(receiver)
    past = time.monotonic() - 2 * STALE_S
    delivery.put(tick(0), past)
    delivery.put(change(), past)
    delivery.put(tick(1), time.monotonic() + 0.02)
    delivery.start()
    wait_until(lambda: len(receiver.got) == 2)
    end(delivery)
    assert receiver.beats == [1]
    health = delivery.health()
    assert (health.sent, health.dropped) == (2, 1)
    assert health.late >= 1


def test_a_fault_inside_an_output_is_its_own_affair() -> None:
    faults = iter([ZeroDivisionError("ours"), None])

    def trouble() -> None:
        fault = next(faults, None)
        if fault:
            raise fault

    receiver = Receiver(trouble)
    delivery = Delivery(receiver)
    delivery.start()
    now = time.monotonic()
    delivery.put(tick(0), now)
    for beat in range(1, STEADY + 1):
        delivery.put(tick(beat), now + 0.6 + 0.01 * beat)
    wait_until(lambda: receiver.beats == [1, 2, 3, 4, 5])
    end(delivery)
    assert delivery.health().reconnects == 1


def test_what_fails_again_and_again_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Over UDP a dead receiver can be opened, takes one message and fails at the next."""
    sends = 0

    def trouble() -> None:
        nonlocal sends
        sends += 1
        if sends < 7 and sends % 2 == 0:
            raise ConnectionRefusedError("nobody there")

    delivery = Delivery(Receiver(trouble))
    caplog.set_level("INFO", "beattrack")
    delivery.start()
    now = time.monotonic()
    for beat in range(40):
        delivery.put(tick(beat), now + 0.05 * beat)
    wait_until(lambda: "connected again" in caplog.text)
    end(delivery)
    assert caplog.text.count("it is tried again") == 1
    assert caplog.text.count("connected again") == 1
    assert delivery.health().reconnects == 1


def test_a_port_without_a_receiver_stays_broken_until_one_appears(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At a slow tempo many statuses, which OSC does not send, come between two beats."""
    port = free_port(socket.SOCK_DGRAM)
    spec = parse_output(f"osc://127.0.0.1:{port}")
    delivery = Delivery(make_output(spec, lambda command, at: None))
    caplog.set_level("INFO", "beattrack")
    delivery.start()
    now = time.monotonic()
    for number in range(60):
        delivery.put(status(now).what, now + 0.05 * number)
    for beat in range(5):
        delivery.put(tick(beat), now + 0.6 * beat)
    wait_until(lambda: delivery.health().state == "broken")
    states = set()
    while time.monotonic() < now + 3.1:
        states.add(delivery.health().state)
        time.sleep(0.002)
    assert states == {"broken"}
    assert (caplog.text.count("tried again"), caplog.text.count("connected again")) == (1, 0)
    assert delivery.health().reconnects == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", port))
        receiver.settimeout(3)
        for beat in range(5, 15):
            delivery.put(tick(beat), time.monotonic() + 0.1 * (beat - 4))
        assert receiver.recv(100).startswith(b"/beattrack/beat")
        wait_until(lambda: delivery.health().state == "open")
        end(delivery)
    assert (caplog.text.count("tried again"), caplog.text.count("connected again")) == (1, 1)
    assert delivery.health().reconnects == 1


def test_what_could_not_be_opened_and_then_can_is_back_at_once() -> None:
    """As a device that is plugged in again while no music plays."""
    receiver = Receiver()
    receiver.refuse = True
    delivery = Delivery(receiver)
    delivery.start()
    wait_until(lambda: delivery.health().state == "broken")
    assert not delivery.opened
    receiver.refuse = False
    wait_until(lambda: delivery.health().state == "open")
    end(delivery)
    assert delivery.opened and delivery.health().reconnects == 1


def test_a_state_that_could_not_be_sent_and_one_sent_before_come_first_after_a_reopening() -> None:
    failing = threading.Event()

    def trouble() -> None:
        if failing.is_set():
            failing.clear()
            raise ConnectionResetError("gone")

    receiver = Receiver(trouble)
    delivery = Delivery(receiver)
    delivery.start()
    delivery.put(change(ClockState.LOCKED), time.monotonic())
    wait_until(lambda: len(receiver.got) == 1)
    failing.set()
    delivery.put(change(ClockState.SILENT), time.monotonic())  # lost in the sending
    wait_until(lambda: len(receiver.got) == 2)
    assert receiver.opened == 2
    failing.set()
    delivery.put(tick(0), time.monotonic())
    wait_until(lambda: len(receiver.got) == 3)
    delivery.put(tick(1), time.monotonic())
    wait_until(lambda: len(receiver.got) == 4)
    end(delivery)
    assert [due.what for _, due in receiver.got] == [
        change(ClockState.LOCKED), change(ClockState.SILENT), change(ClockState.SILENT), tick(1),
    ]  # fmt: skip
    health = delivery.health()
    assert (health.sent, health.late, health.dropped) == (3, 0, 1)  # a state counts once


def test_nothing_is_said_twice_where_nothing_failed() -> None:
    receiver = Receiver()
    delivery = Delivery(receiver)
    delivery.put(change(), time.monotonic())  # has fallen due before it is opened
    delivery.start()
    wait_until(lambda: bool(receiver.got))
    delivery.put(tick(0), time.monotonic())
    wait_until(lambda: len(receiver.got) == 2)
    end(delivery)
    assert [due.what for _, due in receiver.got] == [change(), tick(0)]


def test_at_the_end_the_last_state_is_sent_whatever_the_delay() -> None:
    receiver = Receiver()
    delivery = Delivery(receiver, 800)
    delivery.start()
    now = time.monotonic()
    for number in range(40):
        delivery.put(tick(0, number), now + 0.02 * number)
    delivery.put(change(ClockState.LOCKED), now)
    delivery.put(change(ClockState.SEARCHING), now + 0.8)
    end(delivery)
    assert time.monotonic() - now < deliveries.CLOSE_S
    assert delivery.health().state == "closed"
    assert receiver.got[-1][1].what == change(ClockState.SEARCHING)
    assert receiver.got[-1][1].at < now + 0.8
    assert sum(isinstance(due.what, ClockStateChange) for _, due in receiver.got) == 1


def test_the_first_tick_has_the_changed_delay_whole_and_after_a_while_so_have_others() -> None:
    receiver = Receiver()
    delivery = Delivery(receiver)
    delivery.set_delay(-40)
    sounds = time.monotonic() + 0.2
    delivery.put(tick(0), sounds)
    delivery.set_delay(30)
    delivery.put(tick(1), sounds + 0.5)  # half a second has room for 50 ms
    delivery.put(tick(2), sounds + 1.0)
    delivery.start()
    wait_until(lambda: len(receiver.got) == 3)
    end(delivery)
    shifts = [due.at - sounds - 0.5 * k for k, (_, due) in enumerate(receiver.got)]
    assert shifts == pytest.approx([-0.04, 0.01, 0.03])
    assert delivery.health().delay_ms == 30


@pytest.mark.parametrize("delay_ms", [-40, 25, -250, 600])
def test_a_delay_that_is_changed_live_glides(delay_ms: float) -> None:
    """Ticks of 128 bpm stay in order and no interval is off by more than a tenth."""
    receiver = Receiver(ahead_s=0.02)
    delivery = Delivery(receiver)
    tick_s, began = 60 / 128 / 24, time.monotonic() + 1e6
    for number in range(24):
        delivery.put(tick(0, number), began + number * tick_s)
    delivery.set_delay(delay_ms)
    early = []
    for number in range(24, 400):
        delivery.put(tick(0, number), began + number * tick_s)
        early.append(delivery.early_s)
    got = [item[2] for item in sorted(delivery._heap)]
    assert [due.what for due in got] == [tick(0, number) for number in range(400)]
    gaps = [b.at - a.at for a, b in pairwise(got)]
    assert max(abs(gap - tick_s) for gap in gaps) <= 0.1 * tick_s + 1e-6
    assert got[-1].at - began - 399 * tick_s == pytest.approx(delay_ms / 1000, abs=1e-6)
    # What is asked for covers both delays until the new one is reached.
    assert early[0] == pytest.approx(max(0.02, 0.02 - delay_ms / 1000), abs=0.002)
    assert early[-1] == pytest.approx(max(0, 0.02 - delay_ms / 1000))
    if delay_ms < 0:
        assert min(early) == early[0]


def test_midi_clock_goes_on_while_a_delay_glides(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[float, str]] = []

    class Port:
        def send(self, message: Any) -> None:
            sent.append((time.monotonic(), message.type))

        def close(self) -> None:
            pass

    monkeypatch.setattr("beattrack_runtime.live.outputs.midi.open_port", lambda place: Port())
    monkeypatch.setattr(deliveries, "STALE_S", 1.0)  # a busy machine is not what is tried here
    delivery = Delivery(make_output(parse_output("midi://?notes=no"), lambda command, at: None))
    delivery.start()
    tick_s, began, given = 60 / 128 / 24, time.monotonic() + 0.1, 0
    while given < 100:  # ahead of time, as a show gives them
        while began + given * tick_s < time.monotonic() + 0.06 + delivery.early_s:
            beat, number = divmod(given, 24)
            what = Tick(given * tick_s, beat, number, beat % 4 + 1, 4, 128.0, 0.9, given == 0)
            delivery.put(what, began + what.time_s)
            given += 1
            if given == 30:
                delivery.set_delay(-40)
        time.sleep(0.005)
    wait_until(lambda: delivery.health().sent == given)
    kinds = [kind for _, kind in sent]
    end(delivery)
    assert kinds.count("clock") == given
    assert [kind for kind in kinds if kind != "clock"] == ["start"]
    clocks = np.array([at for at, kind in sent if kind == "clock"])
    assert clocks[-1] - clocks[0] == pytest.approx((given - 1) * tick_s - 0.04, abs=0.03)
    assert np.median(np.diff(clocks)[32:48]) == pytest.approx(0.9 * tick_s, abs=0.001)
