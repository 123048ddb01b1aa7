"""Excerpts of a feature store: the same whoever makes them, with beats where they belong."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from beattrack.config import FeatureConfig, ModelConfig
from beattrack.features import compute
from beattrack_trainer.config import AugmentConfig, TrainConfig
from beattrack_trainer.data.store import FeatureStore
from beattrack_trainer.training.excerpts import Excerpts, Item
from flux_model import drum_loop

FEATURES = FeatureConfig()
TRAIN = TrainConfig(frames=500, seed=3)
BPMS = (96, 118, 140)


@pytest.fixture(scope="module", name="items")
def _items(tmp_path_factory):
    store = FeatureStore.create(tmp_path_factory.mktemp("store"), FEATURES)
    for bpm in BPMS:
        audio, beats = drum_loop(30 if bpm != 96 else 8, bpm)
        note = {
            "audio": [1, 1], "annotation": [1, 1], "seconds": len(audio) / 22050,
            "beats": [[float(t), float(i % 4 + 1)] for i, t in enumerate(beats)],
        }  # fmt: skip
        store.add(f"{bpm}", compute(audio, FEATURES).astype(np.float16), note)
    return tuple(Item(store, name) for name in store.names())


def excerpts(items, augment=None, indices=range(24)):
    return Excerpts(items, FEATURES, ModelConfig(), TRAIN, indices, augment)


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_an_excerpt_depends_on_its_index_alone(items):
    whole = excerpts(items, AugmentConfig())
    late = excerpts(items, AugmentConfig(), range(20, 24))
    assert same(whole[21], late[1])
    assert same(whole[5], pickle.loads(pickle.dumps(whole))[5])
    assert not same(whole[5], whole[6])
    other = Excerpts(items, FEATURES, ModelConfig(), TrainConfig(frames=500), range(24), None)
    assert sum(same(excerpts(items)[i], other[i]) for i in range(24)) < 12  # the seed


def test_any_number_of_workers_makes_the_same(items):
    data = excerpts(items, AugmentConfig())
    here, there = (list(DataLoader(data, batch_size=6, num_workers=n)) for n in (0, 2))
    assert len(here) == 4
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_augment_false_is_none(items):
    assert same(excerpts(items, AugmentConfig(augment=False))[0], excerpts(items)[0])
    assert not same(excerpts(items, AugmentConfig())[0], excerpts(items)[0])


def test_beats_are_read_once(items, monkeypatch):
    asked = []
    plain = FeatureStore.beats
    monkeypatch.setattr(
        FeatureStore, "beats", lambda self, name: asked.append(name) or plain(self, name)
    )
    data = excerpts(items)
    for index in range(24):
        data[index]
    assert sorted(asked) == sorted(str(b) for b in BPMS)


def test_stretched_excerpts_have_beats_and_tempo_where_they_sound(items):
    config = AugmentConfig.from_dict(
        {k: 0.0 for k in AugmentConfig().to_dict() if k != "augment"} | {"time_stretch": 1.0}
    )
    ratios = set()
    for i in range(24):
        item = excerpts(items, config)[i]
        flux = item["frames"][0, -FEATURES.flux_bands :].mean(dim=0)
        beats = item["beat"] > 0.6
        sounding = item["valid"] > 0
        assert flux[beats & sounding].mean() > 4 * flux[(item["beat"] == 0) & sounding].mean()
        # distance of beats against the class of tempo
        peaks = torch.nonzero(beats & ~torch.roll(beats, 1)).ravel().numpy()
        tempo = item["tempo"][item["tempo"] >= 0].unique().numpy() + 1
        assert len(tempo) == 1
        assert 3000 * (len(peaks) - 1) / (peaks[-1] - peaks[0]) == pytest.approx(tempo[0], rel=0.02)
        ratios.add(int(tempo[0]))
    assert len(ratios) > 10 and min(ratios) >= 80 and max(ratios) <= 167


def test_a_short_track_says_where_it_ends(items):
    short = tuple(i for i in items if i.name == "96")
    item = excerpts(short)[0]
    assert item["frames"].shape == (1, 94, 500) and item["frames"].dtype == torch.float32
    assert item["valid"].sum() == 400
    assert not item["frames"][..., 400:].any()
    assert not item["beat"][405:].any()
