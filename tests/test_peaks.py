import numpy as np
import pytest

from beattrack.config import ConfigError
from beattrack.peaks import PeakPicker


def peaks(activations, picker):
    return [p for p in map(picker.step, activations) if p is not None]


def test_finds_peaks_and_tells_them_when_it_said():
    activation = np.zeros(50)
    activation[[10, 30]] = 0.9
    activation[[9, 11]] = 0.5
    picker = PeakPicker(0.3, before=3, after=2)
    told = [(t, picker.step(a)) for t, a in enumerate(activation)]
    assert [(t, p) for t, p in told if p is not None] == [(12, 10), (32, 30)]
    assert picker.latency_frames == 2


def test_without_look_ahead_the_first_rise_counts():
    picker = PeakPicker(0.3, before=2, after=0)
    assert peaks([0, 0.4, 0.9, 0, 0], picker) == [1, 2]


def test_of_a_plateau_only_the_first_frame_counts():
    assert peaks([0, 0, 0.8, 0.8, 0.8, 0, 0], PeakPicker(0.5, before=2, after=2)) == [2]


def test_matches_max_pooling_of_the_whole_array():
    rng = np.random.default_rng(0)
    activation = rng.random(500)
    before, after = 4, 3
    picker = PeakPicker(0.6, before, after)
    found = peaks(activation, picker)
    expected = [
        t for t in range(len(activation) - after)
        if activation[t] >= 0.6
        and activation[t] == activation[max(0, t - before) : t + after + 1].max()
    ]  # fmt: skip
    assert found == expected


def test_twice_the_same_and_reset():
    rng = np.random.default_rng(1)
    activation = rng.random(100)
    picker = PeakPicker(0.5)
    first = peaks(activation, picker)
    assert peaks(activation, picker) != first  # it counted on
    picker.reset()
    assert peaks(activation, picker) == first


@pytest.mark.parametrize("values", [(0, 3, 1), (1.5, 3, 1), (0.5, -1, 1), (0.5, 3, 5000)])
def test_bad_settings(values):
    with pytest.raises(ConfigError):
        PeakPicker(*values)
