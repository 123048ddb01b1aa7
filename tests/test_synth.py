"""Rendered data: exact grids, effects that stay in place, the same music for the same seed."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

mido = pytest.importorskip("mido", reason="mido is in the trainer's dependencies")
soundfile = pytest.importorskip("soundfile", reason="soundfile is in the trainer's dependencies")
pytest.importorskip("scipy", reason="scipy is in the trainer's dependencies")
pytest.importorskip("beattrack_trainer.synth", reason="the trainer is not installed")

from beattrack.config import FeatureConfig, ModelConfig  # noqa: E402
from beattrack_trainer.config import AugmentConfig, DataConfig, TrainConfig  # noqa: E402
from beattrack_trainer.data.check import check_track  # noqa: E402
from beattrack_trainer.data.folders import open_data_sets  # noqa: E402
from beattrack_trainer.data.preprocess import preprocess  # noqa: E402
from beattrack_trainer.data.store import FeatureStore  # noqa: E402
from beattrack_trainer.synth import dataset as synth_module  # noqa: E402
from beattrack_trainer.synth import effects as synth_effects  # noqa: E402
from beattrack_trainer.synth import midi as synth_midi  # noqa: E402
from beattrack_trainer.synth import mma as synth_mma  # noqa: E402
from beattrack_trainer.synth import nothing as synth_nothing  # noqa: E402
from beattrack_trainer.synth import subband_curves  # noqa: E402
from beattrack_trainer.synth import track as synth_track  # noqa: E402
from beattrack_trainer.synth.arrange import FOLDERS, check_soundfonts, fitted, rearrange  # noqa: E402
from beattrack_trainer.synth.band import COMP_CHANNEL, band, bass_part  # noqa: E402
from beattrack_trainer.synth.drums import CLOSED, KICK, PATTERNS, bar_notes, drum_part  # noqa: E402
from beattrack_trainer.synth.groove import Performance, grid_offset  # noqa: E402
from beattrack_trainer.synth.harmony import chord_grid  # noqa: E402
from beattrack_trainer.synth.heavy import heavy_score  # noqa: E402
from beattrack_trainer.synth.midi import Note, Score, SynthError  # noqa: E402
from beattrack_trainer.synth.ogg import crc as ogg_crc  # noqa: E402
from beattrack_trainer.synth.ogg import write_ogg  # noqa: E402
from beattrack_trainer.synth.own import own_score, timpani_part  # noqa: E402
from beattrack_trainer.synth.sources import Sources, track_ids  # noqa: E402
from beattrack_trainer.training.excerpts import Excerpts, Item  # noqa: E402

RATE = synth_midi.SAMPLE_RATE
HAS_RENDERER = bool(
    shutil.which("fluidsynth") and shutil.which("mma") and any(f.is_dir() for f in FOLDERS)
)
needs_renderer = pytest.mark.skipif(
    not HAS_RENDERER, reason="fluidsynth, mma or a soundfont is not installed"
)


def drum_score(bars: int = 16) -> Score:
    """Kick on every beat, closed hat between, 4/4 at 120."""
    notes = [Note(float(b), 0.1, KICK, 115, 9) for b in range(4 * bars)]
    notes += [Note(b + 0.5, 0.1, CLOSED, 60, 9) for b in range(4 * bars)]
    return Score(notes, [], [b % 4 + 1 for b in range(4 * bars)], 4, 120.0, "test", "none")


# --- grids -----------------------------------------------------------------------------------


def test_tempo_map_gives_seconds_of_ticks():
    midi = mido.MidiFile(type=1, ticks_per_beat=480)
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=500000, time=0))
    track.append(mido.MetaMessage("set_tempo", tempo=1000000, time=960))
    midi.tracks.append(track)
    seconds = synth_midi.tempo_map_seconds(midi, [0, 480, 960, 1440, 1920])
    assert seconds == pytest.approx([0.0, 0.5, 1.0, 2.0, 3.0])


def test_read_notes_counts_dotted_quarters(tmp_path: Path):
    midi = mido.MidiFile(type=0, ticks_per_beat=480)
    track = mido.MidiTrack()
    for _ in range(4):  # eighths: three of them are one labelled beat
        track.append(mido.Message("note_on", note=60, velocity=80, time=0))
        track.append(mido.Message("note_off", note=60, time=240))
    midi.tracks.append(track)
    midi.save(tmp_path / "a.mid")
    notes, _ = synth_midi.read_notes(tmp_path / "a.mid", quarters_per_beat=1.5)
    assert [n.beat for n in notes] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_unreadable_midi_is_one_sentence(tmp_path: Path):
    (tmp_path / "bad.mid").write_bytes(b"not midi")
    with pytest.raises(SynthError, match="bad.mid is not a readable MIDI file"):
        synth_midi.read_notes(tmp_path / "bad.mid")


@pytest.mark.parametrize("seed", range(12))
def test_tempo_curves_are_monotone_and_near_their_tempo(seed: int):
    rng = np.random.default_rng(seed)
    times = synth_midi.tempo_curve(120, 120.0, rng, rubato=seed % 3 == 0)
    assert np.diff(times).min() > 0.25
    assert 0.35 < np.median(np.diff(times)) < 0.75


def test_written_notes_are_where_the_labels_are(tmp_path: Path):
    rng = np.random.default_rng(0)
    times = 0.3 + synth_midi.tempo_curve(64, 97.0, rng)
    synth_midi.write_midi(tmp_path / "a.mid", drum_score(), times, rng, jitter_s=0.0)
    midi = mido.MidiFile(tmp_path / "a.mid")
    now, kicks = 0.0, []
    for message in midi:
        now += message.time
        if message.type == "note_on" and message.note == KICK:
            kicks.append(now)
    assert kicks == pytest.approx(list(times), abs=1e-3)


def test_seconds_of_extends_both_ends():
    times = np.array([1.0, 2.0, 4.0])
    assert synth_midi.seconds_of([-1, 0.5, 3], times) == pytest.approx([0.0, 1.5, 6.0])


def test_library_text_gives_meters():
    text = "Time 6\nTimesig 6 8\nDefGroove Six\nTime 3\nDefGroove Three\n"
    six, three = synth_mma.parse_library(text, "any", "casio")
    assert (six.meter, six.per_label, three.meter) == (2, 3, 3)
    (march,) = synth_mma.parse_library("Time 4\nDefGroove March\n", "march", "stdlib")
    assert (march.meter, march.per_label) == (2, 2)
    assert synth_mma.parse_library("DefGroove NoTime\n", "any", "casio") == []


def test_recording_with_shifted_bars_is_refused():
    rec = Performance(Path("x.mid"), "rock", 120.0, 4, "beat", 30.0)
    good = [Note(b - 0.03, 0.1, KICK if b % 4 == 0 else 38, 90, 9) for b in range(64)]
    assert grid_offset(good, rec, 16) == pytest.approx(-0.03)
    shifted = [Note(b + 1.0, 0.1, KICK, 90, 9) for b in range(0, 64, 4)]
    shifted += [Note(float(b), 0.1, 38, 90, 9) for b in range(64)]
    with pytest.raises(SynthError, match="off the downbeat"):
        grid_offset(shifted, rec, 16)


# --- generated music -------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_patterns_fill_their_bars(pattern):
    assert all(len(steps) % pattern.meter == 0 for steps in pattern.drums.values())
    beats = [n.beat for n in bar_notes(pattern, 2)]
    assert min(beats) >= 2 * pattern.meter and max(beats) < 3 * pattern.meter


def test_swing_keeps_whole_beats():
    rock = PATTERNS[0]
    straight = {n.beat for n in bar_notes(rock, 0)}
    swung = {n.beat for n in bar_notes(rock, 0, swing=0.1)}
    assert {b for b in straight if b % 1 == 0} <= swung
    assert any(abs(b % 1 - 0.6) < 1e-9 for b in swung)


def test_band_and_drums_repeat_for_a_seed():
    for make in (
        lambda rng: band(8, 4, False, rng)[0],
        lambda rng: drum_part(PATTERNS[0], 8, rng),
        lambda rng: own_score(30.0, rng).notes,
    ):
        assert make(np.random.default_rng(3)) == make(np.random.default_rng(3))


@pytest.mark.parametrize("seed", range(12))
def test_heavy_pieces(seed: int):
    """Riffs begin with their bars, a section's bars repeat, guitars and drums play throughout."""
    score = heavy_score(40.0, np.random.default_rng(seed))
    assert 95 <= score.bpm <= 215 and score.source.startswith("heavy ")
    bars = len(score.positions) // score.meter
    assert bars * score.meter * 60 / score.bpm >= 40
    riff: dict[int, list[tuple[float, int]]] = {}
    for note in score.notes:
        if note.channel == COMP_CHANNEL:
            bar = int(note.beat // score.meter)
            riff.setdefault(bar, []).append((note.beat - bar * score.meter, note.pitch))
    assert all(min(n.beat for n in score.notes if n.channel == c) == 0 for c in (COMP_CHANNEL, 9))
    assert {max(0, *riff) + 1 - bars} <= {0, -1}
    assert riff[0] in (riff[2], riff.get(1))  # a riff has one bar or two
    fast = [heavy_score(20.0, np.random.default_rng(i)).bpm for i in range(200)]
    assert np.mean(np.array(fast) > 150) > 0.4  # what the other sources hold little of


def test_timpani_mark_the_bars():
    notes = timpani_part(50, 3, np.random.default_rng(1))
    firsts = [n for n in notes if n.beat % 3 == 0]
    assert {n.beat % 3 for n in notes} == {0.0, 2.0}
    assert len(firsts) > 0.6 * len(notes)


def test_chords_change_on_downbeats_of_odd_meters():
    rng = np.random.default_rng(1)
    chords = chord_grid(8, 7, rng)
    assert [c.beat for c in chords] == [7.0 * b for b in range(8)]
    assert min(n.pitch for n in bass_part(chords, 7, False, 0.0, rng)) >= 28


@pytest.mark.parametrize("seed", range(8))
def test_scores_fit_their_length(seed: int):
    rng = np.random.default_rng(seed)
    score = rearrange(own_score(40.0, rng), rng)
    times, positions = fitted(score, 40.0, rng)
    assert len(times) == len(positions) and len(times) % score.meter == 0
    assert times[0] > 0 and times[-1] < 40.0
    assert positions == [i % score.meter + 1 for i in range(len(times))]


def test_too_short_a_score_is_an_error():
    with pytest.raises(SynthError, match="gives only"):
        fitted(replace(drum_score(1)), 40.0, np.random.default_rng(0))


def test_one_kind_alone(tmp_path: Path):
    for sources, said in (
        (Sources(only="heavy", nothing=True), "among random pieces"),
        (Sources(only="pop909"), "give --pop909"),
        (Sources(only="loud"), "no kind 'loud': groove, heavy"),
        (Sources(harmonix=tmp_path, freedoom=tmp_path), "go with Groove alone"),
    ):
        with pytest.raises(ValueError, match=said):
            synth_module.synthesize(tmp_path, limit=1, sources=sources)
    sources = Sources(only="heavy")
    (track,) = synth_module.synthesize(tmp_path, limit=1, seconds=12, sources=sources).tracks
    assert track.kind == "heavy" and track.source.startswith("heavy ")
    with pytest.raises(ValueError, match="only heavy, not None"):
        synth_module.synthesize(tmp_path, limit=2, seconds=12)


def test_track_seeds_and_ids():
    one, two = (synth_track.track_rng(5, i).integers(1 << 30) for i in ("a", "b"))
    assert one != two and one == synth_track.track_rng(5, "a").integers(1 << 30)
    ids = track_ids(["mma", "own", "heavy", "groove", "pop909"])
    kinds = [next(ids)[1] for _ in range(20)]
    assert [kinds.count(k) for k in ("mma", "groove", "own", "heavy", "pop909")] == [8, 4, 4, 2, 2]
    few = track_ids(["mma", "own"])
    assert {next(few)[1] for _ in range(40)} == {"mma", "own"}


# --- sounds without a beat -------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(synth_nothing.SOUNDS) - {"speech"}))
def test_sounds_without_a_beat(name: str):
    one, same, other = (
        synth_nothing.SOUNDS[name](3 * RATE, RATE, np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert one.shape == (3 * RATE,) and one.dtype == np.float32
    assert np.isfinite(one).all() and one.std() > 0
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_speech_has_syllables_and_pauses():
    said = synth_nothing.speech(8 * RATE, RATE, np.random.default_rng(3))
    level = np.sqrt(np.mean(said[: 8 * RATE // 441 * 441].reshape(-1, 441) ** 2, axis=1))
    assert (level > 0.3 * level.max()).mean() > 0.05 and (level < 0.15 * level.max()).mean() > 0.05


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_set_without_beats_says_so(tmp_path: Path):
    sources = Sources(nothing=True)
    report = synth_module.synthesize(tmp_path / "a", limit=1, seconds=12, sources=sources)
    (track,) = report.tracks
    assert track.bpm is None and not report.failures
    assert synth_track.read_metadata(tmp_path / "a" / "metadata.csv")[track.id] == track
    (data,) = open_data_sets(DataConfig(data=(str(tmp_path / "a"),)))
    found = check_track(data.tracks()[0], {}, False).findings
    assert not found
    features = FeatureConfig(kind="flux")
    assert preprocess(data, features).done == 1
    store = FeatureStore.open(data.feature_dir(features))
    assert store.beats(track.id).shape == (0, 2)
    item = Item(store, track.id)
    model = ModelConfig(bins=12, flux_bins=12, flux_mix=0.0)
    config = TrainConfig(frames=300)
    piece = Excerpts((item,), features, model, config, range(1), AugmentConfig(drum_muting=1))[0]
    assert not piece["beat"].any() and not piece["downbeat"].any() and (piece["tempo"] == -1).all()
    assert piece["valid"].all()
    sources = Sources(nothing=True, groove=tmp_path)
    with pytest.raises(ValueError, match="has no music"):
        synth_module.synthesize(tmp_path / "b", limit=1, sources=sources)


def test_few_who_clap_and_many():
    """From three to eighty: few clap some ten times a second, many fuse."""
    sounds = (synth_nothing.applause(4 * RATE, RATE, np.random.default_rng(s)) for s in range(40))
    frames = (s[: len(s) // 441 * 441].reshape(-1, 441).std(axis=1) for s in sounds)
    still = [float(np.median(f) / f.max()) for f in frames]
    assert min(still) < 0.1 and max(still) > 0.25


# --- effects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(15))
def test_effects_leave_an_impulse_in_place(seed: int):
    rng = np.random.default_rng(seed)
    audio = np.zeros(2 * RATE, np.float32)
    audio[RATE] = 0.9
    # noise is in proportion to the power, which is next to nothing for one impulse
    out = synth_effects.random_effects(audio, RATE, rng)
    assert out.shape == audio.shape and out.dtype == np.float32
    assert 0.09 < np.abs(out).max() < 0.99
    assert abs(int(np.abs(out).argmax()) - RATE) <= 0.001 * RATE


def test_reverb_keeps_the_direct_sound():
    audio = np.zeros(RATE, np.float32)
    audio[100] = 1.0
    out = synth_effects.reverb(audio, RATE, 0.5, 0.3, np.random.default_rng(0))
    assert out[:101] == pytest.approx(audio[:101], abs=1e-5)
    assert np.abs(out[150:]).max() > 1e-3


def test_shelf_gains():
    t = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * f * t).astype(np.float32) for f in (50.0, 8000.0))
    gains = [
        np.std(synth_effects.shelf_or_peak(x, RATE, "low", 300.0, 6.0)[2000:]) / np.std(x)
        for x in (low, high)
    ]
    assert gains == pytest.approx([2.0, 1.0], abs=0.06)
    with pytest.raises(ValueError, match="low, high, peak"):
        synth_effects.shelf_or_peak(low, RATE, "tilt", 300.0, 6.0)


# --- files and errors ------------------------------------------------------------------------


def test_beats_file_and_long_ogg(tmp_path: Path):
    assert synth_track.beats_text(np.array([0.5, 1.0]), [1, 2]) == "0.50000\t1\n1.00000\t2\n"
    audio = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    for name in "ab":
        write_ogg(tmp_path / f"{name}.ogg", audio, RATE, 12345)
    info = soundfile.info(tmp_path / "a.ogg")
    assert (info.frames, info.samplerate, info.channels) == (len(audio), RATE, 1)
    read = soundfile.read(tmp_path / "a.ogg")[0]
    assert np.corrcoef(read, audio)[0, 1] > 0.9
    data = (tmp_path / "a.ogg").read_bytes()
    assert data == (tmp_path / "b.ogg").read_bytes() and data[14:18] == (12345).to_bytes(
        4, "little"
    )
    assert ogg_crc(b"123456789") == 0x89A1897F  # CRC-32/CKSUM's check value, inverted


def test_metadata_round_trip(tmp_path: Path):
    track = synth_track.Track("000001_own", "own", 3, 120.5, 4, "font", 50.0, "a, b", "none")
    synth_track.write_metadata(tmp_path / "metadata.csv", [track])
    assert synth_track.read_metadata(tmp_path / "metadata.csv") == {"000001_own": track}


def test_missing_things_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SynthError, match="no file"):
        check_soundfonts([tmp_path / "none.sf2"])
    with pytest.raises(ValueError, match="hours must be above 0"):
        synth_module.synthesize(tmp_path, 0.0)
    with pytest.raises(ValueError, match="seconds is 3; give 10 to 3600"):
        synth_module.synthesize(tmp_path, 1.0, seconds=3)
    with pytest.raises(ValueError, match="whole goes with Harmonix grids"):
        synth_module.synthesize(tmp_path, 1.0, whole=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    for program in ("fluidsynth", "mma"):
        with pytest.raises(
            SynthError,
            match=f"{program} is missing .Debian: apt install fluidsynth mma timgm6mb-soundfont",
        ):
            synth_midi.find_program(program)
    with pytest.raises(SynthError, match="espeak-ng is missing .Debian: apt install espeak-ng"):
        synth_module.synthesize(tmp_path / "a", limit=1, sources=Sources(nothing=True))


def test_index_of_grooves_is_written_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    library = tmp_path / "lib"
    (library / "stdlib").mkdir(parents=True)
    monkeypatch.setattr(synth_mma, "LIBRARY", library)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "mma"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(SynthError, match="run `mma -G` once as root"):
        synth_mma.write_index()
    program.write_text(f'#!/bin/sh\necho "$@" >> {library}/stdlib/.mmaDB\n')
    synth_mma.write_index()
    synth_mma.write_index()
    assert (library / "stdlib/.mmaDB").read_text() == "-G\n"


# --- sub-band curves -------------------------------------------------------------------------


def tone(path: Path, hertz: float, rate: int = RATE) -> Path:
    t = np.arange(rate) / rate
    audio = 0.3 * np.sin(2 * np.pi * hertz * t)
    soundfile.write(path, np.concatenate([audio, np.zeros(rate)]), rate)  # half is silence
    return path


def test_curve_of_tones_peaks_at_them(tmp_path: Path):
    curve = subband_curves.derive_curve([tone(tmp_path / "a.wav", 440.0)])
    assert curve.shape == (1025,) and curve.dtype == np.float32 and curve.max() == 1.0
    assert abs(int(curve.argmax()) * RATE / 2048 - 440.0) < 60.0
    assert curve[int(4000 * 2048 / RATE)] < 0.02
    hertz, gain = subband_curves.log_points(curve, RATE)
    subband_curves.write_curve(tmp_path / "c.csv", hertz, gain, ["origin"])
    read_hertz, read_gain = subband_curves.read_curve(tmp_path / "c.csv")
    assert read_hertz == pytest.approx(hertz, abs=1e-3)
    assert read_gain == pytest.approx(gain, abs=1e-6)


def test_curve_refuses_silence_and_other_rates(tmp_path: Path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(ValueError, match="No stem"):
        subband_curves.derive_curve([tmp_path / "silent.wav"])
    with pytest.raises(ValueError, match="22050 Hz is needed"):
        subband_curves.derive_curve([tone(tmp_path / "b.wav", 100.0, 16000)])


def test_shipped_curves_are_sane():
    folder = Path(__file__).parents[1] / "shared/src/beattrack/data/subbands"
    if not folder.is_dir():
        pytest.skip("the shipped curves are not in this checkout")
    curves = {g: subband_curves.read_curve(folder / f"{g}.csv") for g in subband_curves.GROUPS}
    peaks = {g: hertz[gain.argmax()] for g, (hertz, gain) in curves.items()}
    assert all(len(h) == 128 and g.max() == pytest.approx(1.0) for h, g in curves.values())
    assert peaks["bass"] < 200 < peaks["vocals"]
    hertz, drums = curves["drums"]
    assert drums[hertz > 8000].mean() > 3 * curves["vocals"][1][hertz > 8000].mean()


# --- the renderer ----------------------------------------------------------------------------


def onset_offsets(audio: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """Seconds from each beat to the place near it where the level first rises to a fifth."""
    offsets = []
    for beat in beats:
        start = int((beat - 0.06) * RATE)
        near = np.abs(audio[start : start + int(0.14 * RATE)])
        offsets.append((start + int((near > 0.2 * near.max()).argmax())) / RATE - beat)
    return np.array(offsets)


@needs_renderer
def test_mma_works_in_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("scratch").mkdir()
    assert synth_mma.mma_score(20.0, Path("scratch"), np.random.default_rng(0)).notes


@needs_renderer
def test_rendered_drums_sound_on_their_labels(tmp_path: Path):
    rng = np.random.default_rng(0)
    times = 0.2 + synth_midi.tempo_curve(64, 110.0, rng)
    synth_midi.write_midi(tmp_path / "a.mid", drum_score(), times, rng, jitter_s=0.0)
    font = check_soundfonts(None)[-1]
    options = ["-R", "0", "-C", "0"]
    synth_midi.render_wav(tmp_path / "a.mid", tmp_path / "a.wav", font, 0.5, options)
    audio = soundfile.read(tmp_path / "a.wav")[0].mean(axis=1)
    offsets = onset_offsets(audio, times + synth_midi.FLUIDSYNTH_LATENCY_S)
    assert abs(np.median(offsets)) < 0.005
    assert np.percentile(np.abs(offsets), 90) < 0.015


@needs_renderer
def test_two_tracks_from_end_to_end(tmp_path: Path):
    fonts = [min(check_soundfonts(None), key=lambda p: p.stat().st_size)]
    report = synth_module.synthesize(tmp_path / "a", 1.0, seed=4, soundfonts=fonts, limit=2)
    assert len(report.tracks) == 2 and not report.failures
    for track in report.tracks:
        table = np.loadtxt(tmp_path / "a" / "beats" / f"{track.id}.beats")
        info = soundfile.info(tmp_path / "a" / "tracks" / f"{track.id}.ogg")
        assert info.frames / info.samplerate == pytest.approx(track.seconds, abs=0.01)
        assert np.all(np.diff(table[:, 0]) > 0) and table[-1, 0] < track.seconds
        assert set(table[:, 1]) == set(range(1, track.meter + 1))
    # a second run finds them complete; another seed in the same folder is refused
    stamp = (tmp_path / "a/tracks" / f"{report.tracks[0].id}.ogg").stat().st_mtime_ns
    again = synth_module.synthesize(tmp_path / "a", 1.0, seed=4, soundfonts=fonts, limit=2)
    assert again.tracks == report.tracks
    folds = (tmp_path / "a/folds.tsv").read_text().splitlines()
    assert folds == ["track\tfold", "000000_mma\t0", "000001_own\t1"]
    assert (tmp_path / "a/tracks" / f"{report.tracks[0].id}.ogg").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="holds tracks of seed 4, not 5"):
        synth_module.synthesize(tmp_path / "a", 1.0, seed=5, soundfonts=fonts, limit=2)


def test_a_set_is_not_gone_on_with_from_other_sources(tmp_path: Path):
    made = {"seed": 1, "kinds": ["mma", "own", "groove"]}
    synth_module.check_settings(tmp_path, made)
    synth_module.check_settings(tmp_path, made)
    with pytest.raises(ValueError, match="kinds mma, own, groove, not mma, own; .*same data sets"):
        synth_module.check_settings(tmp_path, made | {"kinds": ["mma", "own"]})
    (tmp_path / "synth.json").write_text('{"seed": 1}')  # of before the kinds were said
    synth_module.check_settings(tmp_path, made)


@needs_renderer
def test_the_same_seed_gives_the_same_labels_and_sound(tmp_path: Path):
    fonts = [min(check_soundfonts(None), key=lambda p: p.stat().st_size)]
    for name in ("a", "b"):
        synth_module.synthesize(tmp_path / name, 1.0, seed=9, soundfonts=fonts, limit=1)
    (beats,) = (tmp_path / "a/beats").iterdir()
    assert beats.read_text() == (tmp_path / "b/beats" / beats.name).read_text()
    one, two = (tmp_path / n / "tracks" / f"{beats.stem}.ogg" for n in "ab")
    assert one.read_bytes() == two.read_bytes()
