"""Targets and augmentation: what the network is shown and what it should say."""

import numpy as np
import pytest

from beattrack.config import ConfigError, FeatureConfig
from beattrack.features import compute, flux_settle, spectrum_bands
from beattrack_trainer.config import AugmentConfig
from beattrack_trainer.training import augment
from beattrack_trainer.training.augment import Augmenter, stretch
from beattrack_trainer.training.flux import flux_of
from beattrack_trainer.training.room import clip, microphone_response, reverberate
from beattrack_trainer.training.sounds import add_voice, mute_drums
from beattrack_trainer.training.targets import pulse_targets, tempo_targets
from flux_model import drum_loop

PLAIN = FeatureConfig()
TWO = FeatureConfig(bpfed=True, sources=("bass", "drums"))
BANDS = spectrum_bands(PLAIN)
CHANCES = [k for k in AugmentConfig().to_dict() if k not in ("augment", "time_stretch")]
NO_BARS = np.empty(0)


def only(**chances):
    """Settings under which nothing else than these happens, beside level and equaliser."""
    return AugmentConfig.from_dict(dict.fromkeys(CHANCES, 0.0) | chances)


@pytest.fixture(scope="module", name="loop")
def _loop():
    """Features of a drum loop over a chord, and the frames of its beats."""
    audio, beats = drum_loop(16, 117)
    t = np.arange(len(audio)) / 22050
    chord = sum(0.05 * np.sin(2 * np.pi * f * t) for f in (220, 277, 330))
    return compute((0.5 * audio + chord).astype(np.float32), PLAIN), beats * PLAIN.fps


def test_pulse_targets_stand_where_the_network_should_answer():
    target = pulse_targets(np.array([1.0]), 100, 50.0, delay=2)
    # 1.0 s is the boundary of frames 49 and 50; two frames later both are equally near
    assert target[[51, 52]] == pytest.approx([2 / 3, 2 / 3], abs=1e-6)
    assert target[[50, 53]] == pytest.approx([0, 0], abs=1e-6)
    assert target.sum() == pytest.approx(4 / 3, abs=1e-5)


def test_pulse_targets_outside_are_ignored():
    assert pulse_targets(np.array([-1.0, 99.0]), 50, 50.0, 2).sum() == 0


def test_tempo_targets():
    target = tempo_targets(np.arange(1, 9, 0.5), 600, 50.0, 300)
    assert (target[:75] == -1).all()  # before two beats are known
    assert (target[80:420] == 119).all()  # class k is k + 1 beats a minute
    assert (target[-50:] == -1).all()


def test_tempo_follows_the_last_eight_beats_and_a_change_of_meter_does_not_matter():
    # eight bars of four at 120, then of three at 90: positions play no part, intervals do
    times = np.concatenate([np.arange(0, 16, 0.5), 16 + np.arange(24) * 2 / 3])
    target = tempo_targets(times, 1600, 50.0, 300)
    assert (target[50:800] == 119).all()
    assert (target[16 * 50 + 250 :] == 89).all()  # four of eight intervals are the new ones
    assert set(target[800:1050]) <= {119, 102, 89}  # the median of four and four lies between
    # the same far into the track: what came before the excerpt counts
    assert np.array_equal(tempo_targets(times - 8.2, 500, 50.0, 300), target[410:910])


def test_tempo_beyond_the_classes_is_none():
    assert (tempo_targets(np.arange(0, 10, 0.1), 400, 50.0, 300) == -1).all()  # 600 a minute
    assert (tempo_targets(np.array([]), 50, 50.0, 300) == -1).all()
    assert (tempo_targets(np.array([90.0, 91.0]), 50, 50.0, 300) == -1).all()


def test_stretch_moves_time():
    frames = np.arange(100, dtype=np.float32)[:, None, None]
    fast = stretch(frames, 1.5, 60, delay=2)
    # frame 10 speaks of time 8.5; 1.5 times as fast that is 12.75, of which frame 14.25 spoke
    assert fast[10, 0, 0] == pytest.approx(14.25)
    assert stretch(frames, 1.0, 60, delay=2).shape == (60, 1, 1)


@pytest.mark.parametrize("config", [PLAIN, TWO])
def test_flux_of_a_log_spectrum_is_the_streams_own(config):
    audio = drum_loop(20, 140)[0] + 0.01 * np.random.default_rng(0).standard_normal(441000)
    frames = compute(audio.astype(np.float32), config)
    again = flux_of(frames[..., :BANDS], config, flux_settle(config))
    np.testing.assert_allclose(again, frames[..., BANDS:], atol=1e-5)
    assert frames[..., BANDS:].max() > 0.5


@pytest.mark.parametrize("features", [PLAIN, TWO, FeatureConfig(kind="flux"),
                                      FeatureConfig(kind="logspec", bpfed=True)])  # fmt: skip
def test_augmented_frames_keep_shape_and_range(features):
    audio = drum_loop(6, 100)[0]
    frames = compute(audio, features)
    before = frames.copy()
    augmenter = Augmenter(features, AugmentConfig.from_dict(dict.fromkeys(CHANCES, 0.7)))
    for seed in range(12):
        out = augmenter(frames, np.array([-20.0, 90, 200, 900]), np.random.default_rng(seed))
        assert out.shape == frames.shape and out.dtype == np.float32
        assert np.isfinite(out).all()
        assert out.min() >= 0
        again = augmenter(frames, np.array([-20.0, 90, 200, 900]), np.random.default_rng(seed))
        assert np.array_equal(out, again)
    assert np.array_equal(frames, before)


@pytest.mark.parametrize("key", CHANCES)
def test_each_chance_changes_something_of_its_own(loop, key):
    frames, _ = loop
    quiet, loud = Augmenter(PLAIN, only()), Augmenter(PLAIN, only(**{key: 1.0}))
    changed = 0
    for seed in range(4):
        # What follows is drawn anew, so compare how spectra differ between frames, not levels.
        plain, other = (a(frames, NO_BARS, np.random.default_rng(seed)) for a in (quiet, loud))
        changed += not np.array_equal(plain, other)
    assert changed == 4


def test_chances_are_checked():
    with pytest.raises(ConfigError, match="room=1.5"):
        AugmentConfig(room=1.5)


@pytest.mark.parametrize("key", ["room", "microphone", "clipping", "voices"])
def test_onsets_stay_where_they_are(loop, key):
    frames, beats = loop
    augmenter = Augmenter(PLAIN, only(**{key: 1.0}))
    near = (beats[4:-1].astype(int)[:, None] + np.arange(-4, 8)).T
    usual = frames[..., BANDS:].mean(axis=(1, 2))[near].mean(axis=1).argmax()
    for seed in range(6):
        out = augmenter(frames, NO_BARS, np.random.default_rng(seed))
        flux = out[..., BANDS:].mean(axis=(1, 2))[near].mean(axis=1)
        assert abs(int(flux.argmax()) - int(usual)) <= 1


def test_flux_is_that_of_the_changed_spectrum(loop, monkeypatch):
    frames, _ = loop
    monkeypatch.setattr(augment, "reverberate", lambda linear, fps, rng: np.sqrt(linear) / 9)
    out = Augmenter(PLAIN, only(room=1.0))(frames, NO_BARS, np.random.default_rng(0))
    linear = (10 ** frames[..., :BANDS] - 1) / 1000
    expected = flux_of(np.log10(1 + 1000 * np.sqrt(linear.clip(0)) / 9), PLAIN, PLAIN.flux_lag)
    ratio = out[..., BANDS:][expected > 0.2] / expected[expected > 0.2]
    assert 0.59 < ratio.min() < ratio.max() < 1.51  # each band is weighed by one factor
    for band in range(12):
        there = expected[:, 0, band] > 0.05
        weight = out[there, 0, BANDS + band] / expected[there, 0, band]
        np.testing.assert_allclose(weight, np.median(weight), rtol=3e-2)


def test_a_room_leaves_a_tail_that_decays_faster_in_the_treble():
    linear = np.zeros((200, 1, 82), np.float32)
    linear[50] = 1
    for seed in range(10):
        out = reverberate(linear, 50.0, np.random.default_rng(seed))[:, 0]
        assert not out[:50].any() and (out[50] == 1).all()  # nothing early, the direct sound whole
        assert (np.diff(out[51:], axis=0) <= 0).all() and out[51].min() > 0
        ratio_db = -10 * np.log10((out[51:] ** 2).sum(axis=0))
        assert (ratio_db >= -6.1).all() and (ratio_db <= 12).all()  # a tail may outlast the end
        assert (out[80] / out[51])[-1] <= (out[80] / out[51])[0] + 1e-6


def test_a_microphone_cuts_both_ends():
    centres = np.geomspace(35, 9500, 82)
    for seed in range(20):
        decibels = 20 * np.log10(microphone_response(centres, np.random.default_rng(seed)))
        assert np.isfinite(decibels).all() and decibels.max() < 40
        middle = np.median(decibels[20:60])
        assert decibels[0] < middle and decibels[-1] < middle + 12


def test_clipping_limits_the_loud_and_adds_harmonics():
    linear = np.full((100, 1, 82), 1e-4, np.float32)
    linear[50, 0, 30] = 1.0  # one loud tone
    linear[:, 0, 10] = 0.2
    out = clip(linear, 12, np.random.default_rng(0))
    assert (out <= linear * 1.0001)[:50, 0, 10].all()
    assert out[50, 0, 30] < 0.5
    assert out[50, 0, 49] > 20 * linear[50, 0, 49]  # three times the frequency: 19 bands up


def test_muted_drums_leave_held_notes_and_other_bars():
    linear = np.full((400, 2, 82), 1e-3, np.float32)
    linear[100:300, :, 20] = 0.5  # a note of four seconds
    hits = np.arange(25, 400, 50)
    for frame in hits:
        linear[frame : frame + 6, :, 40:] = 1.0
    bars = np.array([-30.0, 100.0, 200.0, 300.0, 430.0])
    muted, silent = 0, 0
    for seed in range(12):
        out = mute_drums(linear, bars, 1, np.random.default_rng(seed))
        quiet = out[hits + 2, 0, 60] < 0.21
        outside = ~np.repeat(quiet, 50)[:400]
        assert quiet.any() and np.array_equal(out[outside], linear[outside])
        # whole bars: from one downbeat to a later one
        assert set(np.flatnonzero(np.diff(quiet.astype(int))) + 1) <= {2, 4, 6}
        assert np.array_equal(out[100:300, 0, 20], linear[100:300, 0, 20])
        muted += int(quiet.sum())
        silent += not out[hits[quiet][0], 1].any()
    assert muted > 24 and 0 < silent < 12


def test_a_voice_only_adds_and_is_no_louder_than_it_may_be():
    linear = np.full((600, 2, 82), 0.01, np.float32)
    gains = np.stack([np.ones(82), np.linspace(0, 1, 82)]).astype(np.float32)
    centres = np.geomspace(35, 9500, 82)
    for seed in range(5):
        out = add_voice(linear, centres, gains, 50.0, np.random.default_rng(seed))
        assert (out >= linear * 0.9999).all() and out.dtype == np.float32
        added = np.sqrt((out[:, 0] ** 2 - linear[:, 0] ** 2).clip(0))
        level_db = 20 * np.log10(np.sqrt((added**2).mean()) / 0.01)
        assert -16 < level_db < 4
        assert added[:, :20].sum() < 0.2 * added.sum()  # hardly anything below 130 Hz
        assert np.isclose(out[:, 1, 0], 0.01).all()  # where the channel hears nothing
