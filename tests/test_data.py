"""Data sets on disk: folders, folds and annotations."""

import pytest

from beattrack.config import ConfigError, FeatureConfig
from beattrack.subbands import CURVES
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.folds import split
from beattrack_trainer.data.store import check_curves


def open_set(folder):
    return open_data_sets(DataConfig(data=(str(folder),)))[0]


def test_folders_without_tracks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no audio"):
        open_set(tmp_path).tracks()


def test_beats_with_a_third_column_are_read(tmp_path):
    (tmp_path / "a.beats").write_text("0.5 1 1\n1.0 2 1\n")
    assert read_beats(tmp_path / "a.beats").tolist() == [[0.5, 1], [1.0, 2]]


def test_folds_part_the_tracks():
    names = [f"t{i}" for i in range(80)]
    tested = [split(names, {}, fold).test for fold in range(8)]
    assert sorted(n for part in tested for n in part) == sorted(names)
    for fold in range(8):
        parts = split(names, {}, fold)
        assert set(parts.validation) == set(tested[(fold + 1) % 8])
        assert sorted(parts.training + parts.validation + parts.test) == sorted(names)
    assert split(names, {}, 8).training == tuple(sorted(names))
    assert split(names, {"t0": 5}, 5).test.count("t0") == 1


def test_other_subband_curves_are_refused(tmp_path):
    features = FeatureConfig(bpfed=True)
    for source in features.sources:
        (tmp_path / f"{source}.csv").write_bytes((CURVES / f"{source}.csv").read_bytes())
    check_curves(str(tmp_path), features)
    check_curves("nowhere", FeatureConfig())  # of no interest where nothing is filtered
    with (tmp_path / "drums.csv").open("a") as file:
        file.write("20000,0.5\n")
    with pytest.raises(ConfigError, match="not the installed one"):
        check_curves(str(tmp_path), features)
    (tmp_path / "bass.csv").unlink()
    with pytest.raises(ConfigError, match="No such file"):
        check_curves(str(tmp_path), features)
