"""The clock: what it makes of beats, gaps, flips and the user's commands."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from beattrack.events import Beat, Event, StateChange, TrackerState
from beattrack_runtime.live.clock.loop import (
    FLIP_AFTER_S,
    FLIP_YOUNG_S,
    HOLD_S,
    MAX_SLEW,
    BeatClock,
)
from beattrack_runtime.live.clock.strays import JUMP_AFTER
from beattrack_runtime.live.clock.taps import TAPS
from beattrack_runtime.live.clock.ticks import TICKS, ClockStateChange, Tick
from beattrack_runtime.live.controls import parse

LOOKAHEAD_S = 0.06
AHEAD_S = 0.01  # how long before it sounds the tracker reports a beat


def beats(
    tempo: float,
    start: float,
    end: float,
    noise_s: float = 0.0,
    first: int = 1,
    meter: int = 4,
    seed: int = 1,
    says: float | None = None,
) -> list[Event]:
    """Beats as a tracker would report them; ``says``: the tempo that it states."""
    chance = random.Random(seed)
    found: list[Event] = []
    number = 0
    while (at := start + number * 60 / tempo) < end:
        heard = at + chance.gauss(0, noise_s)
        position = (number + first - 1) % meter + 1
        found.append(Beat(heard, position, meter, says or tempo, 0.9, heard - AHEAD_S))
        number += 1
    return found


def lost(at: float) -> StateChange:
    return StateChange(TrackerState.LOST, at, 0.1)


def run(
    events: Iterable[Event],
    end: float,
    step_s: float = 0.02,
    commands: Sequence[tuple[float, str]] = (),
    silences: Sequence[tuple[float, bool]] = (),
    clock: BeatClock | None = None,
) -> list[Tick | ClockStateChange]:
    """Feed a clock as a show does, in blocks of ``step_s``, and return all that it gives."""
    clock = clock or BeatClock(LOOKAHEAD_S)
    happenings: list[tuple[float, int, object]] = [(at, 0, silent) for at, silent in silences]
    happenings += [(event.emitted_s, 1, event) for event in events]
    happenings += [(at, 2, parse(text)) for at, text in commands]
    happenings.sort(key=lambda h: h[:2])
    given: list[Tick | ClockStateChange] = []
    now = 0.0
    while now < end:
        now += step_s
        while happenings and happenings[0][0] <= now:
            at, kind, what = happenings.pop(0)
            if kind == 0:
                clock.silence(at, bool(what))
            elif kind == 1:
                clock.event(what)  # type: ignore[arg-type]
            else:
                clock.command(what, at)  # type: ignore[arg-type]
        given += clock.advance(now)
    return given


def ticks(given: Iterable[Tick | ClockStateChange]) -> list[Tick]:
    return [g for g in given if isinstance(g, Tick)]


def beat_ticks(given: Iterable[Tick | ClockStateChange]) -> list[Tick]:
    return [t for t in ticks(given) if t.tick == 0]


def states(given: Iterable[Tick | ClockStateChange]) -> list[str]:
    return [g.state.value for g in given if isinstance(g, ClockStateChange)]


def times(found: Iterable[Tick]) -> np.ndarray:
    return np.array([t.time_s for t in found])


def in_a_row(found: Sequence[Tick]) -> bool:
    numbers = [t.beat * TICKS + t.tick for t in found]
    return all(b == a + 1 for a, b in itertools.pairwise(numbers))


# Following


def test_steady_beats_give_steady_ticks_on_them() -> None:
    given = run(beats(120, 1.0, 20), 20)
    found = ticks(given)
    assert states(given) == ["locked"]
    assert found[0].tick == 0 and found[0].jump and not any(t.jump for t in found[1:])
    assert in_a_row(found)
    assert times(found)[0] == pytest.approx(1.0)
    assert np.abs(np.diff(times(found)) - 0.5 / TICKS).max() < 1e-9
    on_beats = beat_ticks(given)
    assert [t.position for t in on_beats[:5]] == [1, 2, 3, 4, 1]
    assert {t.beats_per_bar for t in on_beats} == {4}
    assert all(t.tempo_bpm == pytest.approx(120) for t in on_beats)


def test_ticks_are_given_before_they_sound() -> None:
    clock, now = BeatClock(0.3), 0.0
    events = beats(128, 1.0, 12)
    checked = 0
    while now < 12:
        now += 0.01
        while events and events[0].emitted_s <= now:
            clock.event(events.pop(0))
        for given in clock.advance(now):
            if isinstance(given, Tick) and given.time_s > 2:
                assert 0.28 < given.time_s - now <= 0.3
                checked += 1
    assert checked > 400


def test_noise_of_the_beats_is_smoothed() -> None:
    raw = beats(120, 1.0, 60, noise_s=0.012)
    given = run(raw, 60)
    at = times(beat_ticks(given))[4:]
    errors = (at - 1.0 + 0.25) % 0.5 - 0.25
    heard = np.array([e.time_s for e in raw if isinstance(e, Beat)])
    noise = (heard - 1.0 + 0.25) % 0.5 - 0.25
    assert errors.std() < 0.8 * noise.std()
    intervals = np.diff(times(ticks(given)))
    assert np.abs(intervals - 0.5 / TICKS).max() <= 0.002  # the jitter allowed of a MIDI clock


def test_the_phase_is_corrected_no_faster_than_the_stated_slew() -> None:
    # After 10 s the music is 100 ms late, all at once.
    given = run([*beats(120, 1.0, 10), *beats(120, 10.1, 20)], 20)
    found = ticks(given)
    assert in_a_row(found) and sum(t.jump for t in found) == 1
    rates = 0.5 / TICKS / np.diff(times(found))
    assert np.abs(rates - 1).max() <= MAX_SLEW + 1e-9
    assert rates.min() < 0.97  # and it does correct
    last = times(beat_ticks(given))[-4:]
    assert np.abs((last - 10.1 + 0.25) % 0.5 - 0.25).max() < 0.003


def test_a_slow_change_of_tempo_is_followed() -> None:
    at, events = 1.0, []
    for number in range(80):
        tempo = 120 * 1.002**number
        events.append(Beat(at, number % 4 + 1, 4, tempo, 0.9, at - AHEAD_S))
        at += 60 / tempo
    found = beat_ticks(run(events, at))
    truth = np.array([e.time_s for e in events])
    errors = [np.abs(truth - t).min() for t in times(found)[:-1]]
    assert max(errors) < 0.015
    assert sum(t.jump for t in found) == 1


# Pulses and levels


def test_one_stray_beat_moves_nothing() -> None:
    events = beats(120, 1.0, 12)
    stray = events[9]
    assert isinstance(stray, Beat)
    events[9] = Beat(stray.time_s + 0.2, 2, 4, 120, 0.9, stray.emitted_s + 0.2)
    found = ticks(run(events, 12))
    assert in_a_row(found) and sum(t.jump for t in found) == 1
    assert np.abs(np.diff(times(found)) - 0.5 / TICKS).max() < 1e-9


def test_another_pulse_is_jumped_to_after_three_beats_that_agree() -> None:
    given = run([*beats(120, 1.0, 10), *beats(120, 10.25, 20)], 20)
    jumps = [t for t in ticks(given) if t.jump]
    assert len(jumps) == 2
    assert jumps[1].tick == 0
    # The third of the new pulse's beats, 10.25, 10.75, 11.25; its report is 10 ms early.
    assert jumps[1].time_s == pytest.approx(11.25, abs=0.51)
    assert jumps[1].time_s >= 11.25 - AHEAD_S
    assert times(ticks(given))[-1] == pytest.approx(20.06, abs=0.05)
    numbers = [t.beat for t in beat_ticks(given)]
    assert numbers == sorted(set(numbers))


def test_strays_that_agree_with_nothing_do_not_make_it_jump() -> None:
    events = beats(120, 1.0, 10)
    for number, late in enumerate((0.14, 0.31, 0.2, 0.36, 0.17)):
        at = 10.0 + 0.5 * number + late
        events.append(Beat(at, 1, 4, 120, 0.4, at - AHEAD_S))
    found = ticks(run([*events, *beats(120, 13, 16)], 16))
    assert sum(t.jump for t in found) == 1


@pytest.mark.parametrize("level", [2.0, 0.5, 3.0, 1 / 3])
def test_a_short_flip_of_the_tracker_is_held_back(level: float) -> None:
    flip = FLIP_AFTER_S - 1
    events = [*beats(120, 1.0, 10), *beats(120 * level, 10, 10 + flip), *beats(120, 16, 24)]
    found = ticks(run(events, 24))
    assert in_a_row(found) and sum(t.jump for t in found) == 1
    assert np.abs(np.diff(times(found)) - 0.5 / TICKS).max() < 1e-6
    assert {t.beats_per_bar for t in found} == {4}


@pytest.mark.parametrize("level", [2.0, 0.5])
def test_a_flip_that_lasts_is_followed_without_a_break(level: float) -> None:
    given = run([*beats(120, 1.0, 10), *beats(120 * level, 10, 26)], 26)
    found = ticks(given)
    assert in_a_row(found) and sum(t.jump for t in found) == 1
    on_beats = beat_ticks(given)
    changed = next(t for t in on_beats if t.tempo_bpm == pytest.approx(120 * level))
    assert 10 + FLIP_AFTER_S <= changed.time_s <= 10 + FLIP_AFTER_S + 2.5
    late = times(on_beats)[times(on_beats) > changed.time_s]
    # On the tracker's own beats, not between them.
    period = 0.5 / level
    assert np.abs((late - 10 + period / 2) % period - period / 2).max() < 1e-6
    assert np.diff(late) == pytest.approx(period)


@pytest.mark.parametrize("level", [2.0, 0.5])
@pytest.mark.parametrize(("lasted_s", "held_s"), [(0.5, FLIP_YOUNG_S), (3.0, 3.0), (9.0, 6.0)])
def test_a_tempo_is_held_for_as_long_as_it_lasted(
    level: float, lasted_s: float, held_s: float
) -> None:
    turn = 1.0 + lasted_s
    tracked = [*beats(120, 1.0, turn - 0.1), *beats(120 * level, turn, 24)]
    given = ticks(run(tracked, 24))
    changed = next(t for t in given if t.tempo_bpm == pytest.approx(120 * level))
    assert turn + held_s - 0.5 <= changed.time_s <= turn + held_s + 2.5
    back = [*beats(120, 1.0, turn - 0.1), *beats(120 * level, turn, turn + held_s - 0.6)]
    given = ticks(run([*back, *beats(120, turn + held_s - 0.5, 24)], 24))
    assert all(t.tempo_bpm == pytest.approx(120) for t in given)


@pytest.mark.parametrize(("before", "after"), [(174, 87), (87, 174), (120, 80), (90, 121)])
def test_another_tempo_range_sets_the_level_with_the_next_beat(before: int, after: int) -> None:
    clock = BeatClock(LOOKAHEAD_S)
    given = run(beats(before, 1.0, 10), 10.0, clock=clock)
    clock.retune(10.0, level_chosen=True)
    back = [e for e in beats(after, 1.0, 24) if e.emitted_s > 12.0]
    given += run(back, 24, clock=clock)
    assert states(given) == ["locked", "holding", "locked"]
    first = back[0].time_s  # type: ignore[union-attr]
    late = [t for t in beat_ticks(given) if t.time_s > first + 60 / before]
    assert {round(t.tempo_bpm) for t in late} == {after}
    assert np.diff(times(late)) == pytest.approx(60 / after)
    assert np.abs((times(late) - first + 0.2) % (60 / after) - 0.2).max() < 0.01


def test_a_range_that_says_the_level_forgets_the_factor_and_another_keeps_it() -> None:
    for chosen, tempo in ((True, 60), (False, 30)):
        clock = BeatClock(LOOKAHEAD_S)
        run(beats(120, 1.0, 8), 8, commands=[(4.0, "halve")], clock=clock)
        clock.retune(8.0, level_chosen=chosen)
        given = run(beats(60, 10, 16), 16, clock=clock)
        assert clock.factor == (1.0 if chosen else 0.5)
        assert all(t.tempo_bpm == pytest.approx(tempo) for t in ticks(given) if t.time_s > 13)


def test_music_that_ends_with_the_command_leaves_silence() -> None:
    for heard, state in (([], "silent"), ([(10.1, False)], "lost")):
        clock = BeatClock(LOOKAHEAD_S)
        run(beats(120, 1.0, 10), 10, clock=clock)
        clock.retune(10.0, level_chosen=True)
        assert states(run([], 20, silences=heard, clock=clock)) == ["holding", state]


def test_the_pulse_is_held_anew_with_each_range() -> None:
    clock = BeatClock(LOOKAHEAD_S)
    given = run(beats(120, 1.0, 10), 10.0, clock=clock)
    clock.retune(10.0, level_chosen=True)
    given += run([], 12.5, clock=clock)
    clock.retune(12.5, level_chosen=True)
    given += run([e for e in beats(120, 1.0, 20) if e.emitted_s > 15.5], 20, clock=clock)
    assert states(given) == ["locked", "holding", "locked"]


def test_only_the_first_beat_after_the_range_sets_the_level_at_once() -> None:
    clock = BeatClock(LOOKAHEAD_S)
    run(beats(120, 1.0, 8), 8, clock=clock)
    clock.retune(8.0, level_chosen=True)
    given = run([*beats(120, 10, 14), *beats(60, 14, 17.4)], 17.5, clock=clock)
    assert all(t.tempo_bpm == pytest.approx(120) for t in ticks(given))


# Gaps


def test_it_holds_and_then_is_lost() -> None:
    given = run([*beats(120, 1.0, 10), lost(10.0)], 20)
    assert states(given) == ["locked", "holding", "lost"]
    found = ticks(given)
    assert times(found)[-1] == pytest.approx(10 + HOLD_S, abs=0.51 / TICKS)
    ended = next(g for g in given if isinstance(g, ClockStateChange) and g.state.value == "lost")
    assert ended.time_s == pytest.approx(10 + HOLD_S)
    assert ended.tempo_bpm == 0


def test_beats_that_come_back_in_time_are_taken_up_without_a_jump() -> None:
    given = run([*beats(120, 1.0, 10), lost(10.0), *beats(120, 13.0, 20)], 20)
    assert states(given) == ["locked", "holding", "locked"]
    assert in_a_row(ticks(given)) and sum(t.jump for t in ticks(given)) == 1


def test_a_relock_jumps_and_counts_beats_on() -> None:
    given = run([*beats(120, 1.0, 10), lost(10.0), *beats(97, 20.0, 30, first=3)], 30)
    assert states(given) == ["locked", "holding", "lost", "locked"]
    jump = [t for t in ticks(given) if t.jump][1]
    assert (jump.tick, jump.position) == (0, 3)
    assert jump.time_s == pytest.approx(20.0)
    numbers = [t.beat for t in beat_ticks(given)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_silence_stops_it_at_once_and_sound_makes_it_search() -> None:
    given = run(
        [*beats(120, 1.0, 10), lost(12.0), *beats(120, 15.0, 18)], 18,
        silences=[(0.02, True), (0.5, False), (12.0, True), (14.0, False)],
    )  # fmt: skip
    assert states(given) == ["silent", "searching", "locked", "silent", "searching", "locked"]
    found = times(ticks(given))
    assert not ((found > 12 + LOOKAHEAD_S) & (found < 15)).any()


def test_a_beat_reported_too_late_is_not_given_in_the_past() -> None:
    late = [Beat(1.0 + 0.5 * n, n % 4 + 1, 4, 120, 0.9, 1.08 + 0.5 * n) for n in range(20)]
    found = ticks(run(late, 10))
    assert found[0].time_s == pytest.approx(1.5)
    assert found[0].tick == 0 and found[0].position == 2


# The user


def test_double_and_halve_take_effect_on_a_beat_and_stay() -> None:
    given = run(beats(120, 1.0, 30), 30, commands=[(8.1, "double"), (16.2, "halve"),
                                                   (22.3, "halve")])  # fmt: skip
    found = ticks(given)
    assert in_a_row(found) and sum(t.jump for t in found) == 1
    on_beats = beat_ticks(given)
    for begin, end, period in ((2, 8, 0.5), (9, 16, 0.25), (17.5, 22, 0.5), (25, 29, 1.0)):
        at = np.array([t.time_s for t in on_beats if begin <= t.time_s < end])
        assert np.diff(at) == pytest.approx(period), (begin, end)
        assert np.abs((at - 1 + 0.125) % 0.25 - 0.125).max() < 1e-6
    # The one stays where it was: on every fourth beat of the music from 1.0 on.
    slow = [t for t in on_beats if t.time_s > 25 and t.position == 1]
    assert all((t.time_s - 1.0) % 2 == pytest.approx(0, abs=1e-6) for t in slow)


def test_a_factor_is_kept_over_a_relock_and_has_bounds() -> None:
    clock = BeatClock(LOOKAHEAD_S)
    events = [*beats(90, 1.0, 8), lost(8.0), *beats(90, 16.0, 24)]
    commands = [(4.0, "double"), (5.0, "double"), (6.0, "double"), (6.5, "double")]
    given = run(events, 24, commands=commands, clock=clock)
    assert clock.factor == 4.0
    at = [t.time_s for t in beat_ticks(given) if t.time_s > 17]
    assert np.diff(at) == pytest.approx(60 / 360)


def test_the_user_sets_the_one() -> None:
    given = run(beats(120, 1.0, 20), 20, commands=[(8.03, "one")])  # the third of a bar
    before = [t for t in beat_ticks(given) if t.time_s < 7.9 and t.position == 1]
    after = [t for t in beat_ticks(given) if t.time_s > 8.1 and t.position == 1]
    assert all((t.time_s - 1.0) % 2 == pytest.approx(0) for t in before)
    assert all((t.time_s - 8.0) % 2 == pytest.approx(0) for t in after)
    assert len(after) == 6


def test_the_user_gives_the_meter_back() -> None:
    commands = [(4.6, "meter 3"), (10.6, "meter 0")]
    ticks = beat_ticks(run(beats(120, 1.0, 20), 20, commands=commands))
    assert {t.beats_per_bar for t in ticks if 6.0 < t.time_s < 10.0} == {3}
    assert {t.beats_per_bar for t in ticks if t.time_s > 12.0} == {4}
    assert all(t.position == round((t.time_s - 1.0) / 0.5) % 4 + 1 for t in ticks if t.time_s > 12)


def test_the_user_sets_the_meter() -> None:
    given = run(beats(120, 1.0, 20), 20, commands=[(8.6, "meter 3")])
    after = [t for t in beat_ticks(given) if t.time_s > 9]
    assert {t.beats_per_bar for t in after} == {3}
    positions = [t.position for t in after]
    assert all(b == a % 3 + 1 for a, b in itertools.pairwise(positions))


def taps(start: float, period: float, count: int = 5, seed: int = 4) -> list[tuple[float, str]]:
    chance = random.Random(seed)
    return [(start + n * period + chance.gauss(0, 0.015), "tap") for n in range(count)]


def test_taps_between_the_beats_shift_the_pulse_and_it_stays() -> None:
    given = run(beats(120, 1.0, 30), 30, commands=taps(10.25, 0.5))
    found = ticks(given)
    assert sum(t.jump for t in found) == 2
    late = np.array([t.time_s for t in beat_ticks(given) if t.time_s > 14])
    assert np.abs(late % 0.5 - 0.25).max() < 0.01
    assert len(late) > 25


def test_taps_choose_the_level_and_on_the_beat_they_shift_nothing() -> None:
    clock = BeatClock(LOOKAHEAD_S)
    given = run(beats(180, 1.0, 30), 30, commands=taps(10.0, 60 / 90), clock=clock)
    assert clock.factor == 0.5
    late = [t for t in beat_ticks(given) if t.time_s > 15]
    assert all(t.tempo_bpm == pytest.approx(90, rel=0.01) for t in late)
    offsets = (times(late) - 10.0 + 1 / 3) % (60 / 90) - 1 / 3
    assert np.abs(offsets).max() < 0.02


def test_taps_alone_make_it_run_until_the_tracker_knows_better() -> None:
    given = run(beats(100, 20.0, 30), 30, commands=taps(3.0, 0.6), silences=[(0.02, True)])
    assert states(given) == ["silent", "holding", "locked"]
    alone = np.array([t.time_s for t in beat_ticks(given) if t.time_s < 19])
    assert alone[0] < 6.5
    assert np.diff(alone) == pytest.approx(0.6, abs=0.02)
    late = np.array([t.time_s for t in beat_ticks(given) if t.time_s > 24])
    assert np.abs((late - 20 + 0.3) % 0.6 - 0.3).max() < 0.01


@pytest.mark.parametrize("silences", [[(0.02, True)], [(0.02, True), (1, False), (20, True)]])
def test_taps_that_ran_out_in_silence_leave_silence(silences: list[tuple[float, bool]]) -> None:
    assert states(run([], 80, commands=taps(3.0, 0.6), silences=silences))[-1] == "silent"
    heard = [*silences, (30.0, False)]
    assert states(run([], 80, commands=taps(3.0, 0.6), silences=heard))[-1] == "lost"


def test_uneven_taps_and_few_taps_mean_nothing() -> None:
    uneven = [(3.0, "tap"), (3.4, "tap"), (4.3, "tap"), (4.5, "tap"), (5.4, "tap")]
    assert run([], 8, commands=[*uneven, (7.5, "tap")]) == []


# Always


def scenario(seed: int) -> tuple[list[Event], list[tuple[float, str]], list[tuple[float, bool]]]:
    """A stream in which everything happens."""
    chance = random.Random(seed)
    events: list[Event] = []
    at = 1.0
    while at < 90:
        tempo = chance.choice((62, 90, 120, 124, 180, 240))
        end = at + chance.uniform(1, 12)
        events += beats(tempo, at, end, noise_s=0.01, meter=chance.choice((2, 3, 4, 6)),
                        seed=chance.randrange(999))  # fmt: skip
        at = end + chance.choice((0.0, 0.1, 3.0, 9.0))
        if chance.random() < 0.5:
            events.append(lost(end))
    words = ("tap", "double", "halve", "one", "meter 3", "meter 16", "tempo 60 180", "restart")
    commands = [(chance.uniform(0, 90), chance.choice(words)) for _ in range(30)]
    commands += taps(chance.uniform(0, 80), chance.uniform(0.3, 0.9), 8)
    silences = [(chance.uniform(0, 90), chance.random() < 0.5) for _ in range(6)]
    return sorted(events, key=lambda e: e.emitted_s), commands, silences


@pytest.mark.parametrize("seed", range(12))
def test_deterministic_for_every_block_size_and_never_back_in_time(seed: int) -> None:
    events, commands, silences = scenario(seed)
    given = run(events, 92, 0.02, commands, silences)
    for step_s in (0.02, 0.005, 0.1, 0.37):
        other = run(events, 92, step_s, commands, silences)
        end = min(len(given), len(other))
        assert end > 50
        assert other[:end] == given[:end]
        assert abs(len(other) - len(given)) < 2 * TICKS  # what the last block looks ahead
    found = ticks(given)
    assert (np.diff(times(found)) > 0).all()
    for one, two in itertools.pairwise(found):
        assert two.jump or two.beat * TICKS + two.tick == one.beat * TICKS + one.tick + 1
        assert not two.jump or two.tick == 0
        assert two.beat * TICKS + two.tick > one.beat * TICKS + one.tick
    assert all(1 <= t.position <= t.beats_per_bar <= 16 for t in found)
    changes = states(given)
    assert all(a != b for a, b in itertools.pairwise(changes))


def test_restart_forgets_what_the_user_chose() -> None:
    clock = BeatClock(LOOKAHEAD_S)
    given = run(beats(120, 1.0, 6), 6, commands=[(3.0, "double"), (4.0, "meter 3")], clock=clock)
    clock.restart(6.1)
    given = clock.advance(6.2)
    assert states(given) == ["searching"]
    assert clock.factor == 1.0
    again = run([Beat(e.time_s + 6, e.position, 4, 120, 0.9, e.emitted_s + 6)
                 for e in beats(120, 1.0, 6) if isinstance(e, Beat)], 12, clock=clock)  # fmt: skip
    found = beat_ticks(again)
    assert np.diff(times(found)) == pytest.approx(0.5)
    assert {t.beats_per_bar for t in found} == {4}


def test_the_stated_constants_are_what_the_documentation_says() -> None:
    assert (MAX_SLEW, HOLD_S, FLIP_AFTER_S, FLIP_YOUNG_S) == (0.03, 4.0, 6.0, 1.5)
    assert (JUMP_AFTER, TAPS) == (3, 4)
