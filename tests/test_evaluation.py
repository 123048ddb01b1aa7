"""Scores of events against annotations."""

import numpy as np
import pytest

from beattrack_trainer.evaluation.scores import score


def test_scores_of_perfect_and_absent_beats():
    beats = np.column_stack([np.arange(0, 30, 0.5), np.tile([1, 2, 3, 4], 15)])
    events = np.column_stack([beats, beats[:, 0] + 0.01, np.full(60, 120)])
    good = score(beats, events)
    assert (good.beat_f, good.cmlt, good.amlt, good.downbeat_f) == (1, 1, 1, 1)
    assert good.delay_ms == pytest.approx(10)
    none = score(beats, np.empty((0, 4)))
    assert (none.beat_f, none.cmlt) == (0, 0)
    assert none.to_dict()["delay_ms"] is None


def test_late_reports_lower_the_emitted_score_alone():
    beats = np.column_stack([np.arange(0, 30, 0.5), np.tile([1, 2, 3, 4], 15)])
    late = score(beats, np.column_stack([beats, beats[:, 0] + 0.1, np.full(60, 120)]))
    assert late.beat_f == 1
    assert late.beat_f_emitted == 0
