"""Music along annotated grids: exact beats, real bars, gaps and sections, sets that go on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

mido = pytest.importorskip("mido", reason="mido is in the trainer's dependencies")
soundfile = pytest.importorskip("soundfile", reason="soundfile is in the trainer's dependencies")

from beattrack_trainer.synth import harmonix, midi, sections, work  # noqa: E402
from beattrack_trainer.synth.along import (  # noqa: E402
    bars_of,
    beat_plan,
    choose_window,
    grid_score,
    interval_ratios,
    spliced,
)
from beattrack_trainer.synth.arrange import check_soundfonts  # noqa: E402
from beattrack_trainer.synth.dataset import synthesize  # noqa: E402
from beattrack_trainer.synth.midi import Control, Note, Score, SynthError  # noqa: E402
from beattrack_trainer.synth.sources import Sources  # noqa: E402
from test_synth import needs_renderer, onset_offsets  # noqa: E402

HARMONIX = Path(__file__).parents[1].parent / "shared" / "data" / "harmonix"
RATE = midi.SAMPLE_RATE


def positions(*bars: int) -> tuple[int, ...]:
    return tuple(p for n in bars for p in range(1, n + 1))


def tagged(meter: int, bars: int) -> Score:
    """A note on each beat whose pitch tells its place in the bar: 31 is the downbeat."""
    notes = [Note(float(b), 0.2, 31 + b % meter, 100, 9) for b in range(meter * bars)]
    return Score(notes, [], [b % meter + 1 for b in range(meter * bars)], meter, 100.0, "", "")


def places(grid: tuple[int, ...]) -> list[int]:
    """Which place of the music's bar each beat of a grid takes its notes from."""
    bar, length = bars_of(grid)
    plan = beat_plan(bar, length, grid)
    scores = {m: tagged(m, int(bar[-1]) + 1) for m, _ in plan}
    notes, _ = spliced(scores, plan, np.ones(len(grid)))
    assert sorted(n.beat for n in notes) == list(range(len(grid)))
    return [n.pitch - 30 for n in sorted(notes, key=lambda n: n.beat)]


def write_set(folder: Path, songs: int = 3, bars: int = 24) -> Path:
    """A Harmonix folder: 4/4, 3/4 and 6/8 with drift; sections are 1 s earlier, as published."""
    for name in ("beats", "beats_corrected", "segments"):
        (folder / name).mkdir(parents=True)
    rows, folds = [], ["track\tfold"]
    for n in range(songs):
        meter = (4, 3, 6)[n % 3]
        rng = np.random.default_rng(n)
        period = (0.5, 0.47, 0.3)[n % 3]
        times = 1.3 + np.cumsum(period + 0.01 * np.sin(np.arange(meter * bars) / 9))
        times += rng.normal(0, 0.004, len(times))
        grid = positions(*[meter] * bars)
        name = f"{n:04d}_song"
        lines = [f"{t:.9f}\t{p}\n" for t, p in zip(times, grid, strict=True)]
        (folder / "beats_corrected" / f"{name}.beats").write_text("".join(lines))
        lines = [f"{t - 1:.6f}\t{p}\t1\n" for t, p in zip(times, grid, strict=True)]
        (folder / "beats" / f"{name}x.txt").write_text("".join(lines))
        parts = ((0.0, "intro"), (times[4 * meter] - 1, "verse"), (times[12 * meter] - 1, "chorus"))
        (folder / "segments" / f"{name}x.txt").write_text("".join(f"{t} {s}\n" for t, s in parts))
        signature = ("4|4", "3|4", "6|8")[n % 3]
        rows.append({"File": f"{name}x", "BPM": "120", "Time Signature": signature, "Genre": "Pop"})
        folds.append(f"{name}\t{n}")
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "folds.tsv").write_text("\n".join([*folds, "9999_other\t3"]) + "\n")
    return folder


# --- reading ---------------------------------------------------------------------------------


def test_corrected_beats_are_preferred_and_sections_carried_over(tmp_path: Path):
    folder = write_set(tmp_path)
    files = harmonix.grid_files(folder)
    assert sorted(files) == ["0000_song", "0001_song", "0002_song"]
    grid = harmonix.read_grid(folder, files["0001_song"])
    assert (grid.genre, grid.time_signature, grid.bpm) == ("Pop", "3/4", "120")
    assert grid.positions[:4] == (1, 2, 3, 1)
    starts = [t for t, _ in grid.sections]
    assert [label for _, label in grid.sections] == ["intro", "verse", "chorus"]
    assert starts[1:] == pytest.approx([grid.times[12], grid.times[36]], abs=0.02)


def test_sections_are_carried_between_copies_of_other_speed_and_length():
    source = 0.5 * np.arange(100)
    moments = np.array([-1.0, 10.0, 49.5, 52.0])
    faster = 2 + 0.4 * np.arange(100)
    assert harmonix.carried(moments, source, faster) == pytest.approx([1.0, 10.0, 41.6, 44.1])
    assert harmonix.carried(moments, source, source[7:] + 3) == pytest.approx(moments + 3)
    assert harmonix.carried(moments, source, 0.37 * np.arange(90)) is None


def test_beats_before_the_recording_are_left_out(tmp_path: Path):
    folder = write_set(tmp_path, 1)
    path = folder / "beats_corrected" / "0000_song.beats"
    path.write_text("-0.2\t1\n" + "".join(f"{0.4 * k}\t{k % 4 + 1}\n" for k in range(1, 20)))
    grid = harmonix.read_grid(folder, path)
    assert grid.times[0] == 0.4 and grid.positions[0] == 2
    assert grid.sections == ()  # too few beats meet those of the published file


@pytest.mark.parametrize("text", ["", "one two\n", "0.1 1\n0.2 2\n", "2 1\n1 2\n" * 8, "9999 1\n"])
def test_bad_grids_are_one_sentence(tmp_path: Path, text: str):
    path = tmp_path / "0001_bad.beats"
    path.write_text(text)
    with pytest.raises(SynthError, match=r"0001_bad\.beats"):
        harmonix.read_grid(tmp_path, path)


def test_folders_that_are_none_are_refused(tmp_path: Path):
    with pytest.raises(SynthError, match="holds neither"):
        harmonix.grid_files(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        synthesize(tmp_path / "out", sources=Sources(harmonix=tmp_path / "none"))


# --- bars ------------------------------------------------------------------------------------


def test_regular_bars_take_regular_music():
    for meter in (2, 3, 4, 5, 6, 7, 8):
        assert places(positions(*[meter] * 8)) == list(positions(*[meter] * 8))


def test_pick_ups_short_and_long_bars():
    assert places((3, 4, *positions(*[4] * 9)))[:4] == [3, 4, 1, 2]
    four = [4] * 10
    assert places(positions(*four, 2, *four))[40:44] == [1, 2, 1, 2]
    assert places(positions(*four, 6, *four))[40:47] == [1, 2, 3, 4, 3, 4, 1]
    assert places(positions(*four, 7, *four))[40:48] == [1, 2, 3, 4, 2, 3, 4, 1]
    # the first and last bar may be cut
    assert places((*positions(*[3] * 8), 1, 2))[-3:] == [3, 1, 2]


def test_a_common_second_meter_gets_music_of_its_own():
    grid = positions(*[4] * 8, *[3] * 8, *[4] * 8)
    assert places(grid) == list(grid)
    bar, length = bars_of(grid)
    assert {m for m, _ in beat_plan(bar, length, grid)} == {3, 4}


def test_a_missing_beat_leaves_the_others_in_their_places():
    whole = list(positions(*[4] * 8))
    grid = tuple(whole[:9] + whole[10:])
    assert places(grid) == list(grid)


def test_controls_follow_the_music_across_a_change_of_meter():
    def program(number: int, beat: float) -> Control:
        return Control(beat, mido.Message("program_change", channel=1, program=number))

    grid = positions(*[4] * 8, *[3] * 8, *[4] * 8)
    bar, length = bars_of(grid)
    scores = {4: tagged(4, 24), 3: tagged(3, 24)}
    scores[4].controls[:] = [program(10, 0), program(11, 40)]
    scores[3].controls[:] = [program(20, 0), program(21, 30), program(21, 31)]
    plan = beat_plan(bar, length, grid)
    _, controls = spliced(scores, plan, np.ones(len(grid)))
    got = [(c.beat, c.message.program) for c in controls]
    # bar 8 is beat 24 of the music in three; bar 16 is beat 64 of that in four
    assert got == [(0, 10), (32, 20), (38, 21), (56, 11)]


def test_music_pauses_in_a_gap_and_is_cut_by_an_early_beat():
    times = np.array([0, 0.5, 1.0, 1.5, 4.0, 4.5, 4.75, 5.25, 5.75, 6.25])
    grid = (*positions(4, 4), 1, 2)
    ratios = interval_ratios(times)
    assert ratios[3] == pytest.approx(5.0) and ratios[5] == pytest.approx(0.5)
    notes = [Note(b / 4, 2.0, 60, 90, 0) for b in range(40)]
    score = Score(notes, [], list(grid), 4, 120.0, "", "")
    made, _ = spliced({4: score}, [(4, k) for k in range(10)], ratios)
    onsets = midi.seconds_of([n.beat for n in made], times)
    offs = midi.seconds_of([n.beat + n.length for n in made], times)
    in_gap = onsets[(onsets >= 1.5 - 1e-9) & (onsets < 4.0 - 1e-9)]
    assert in_gap == pytest.approx([1.5, 1.625, 1.75, 1.875])
    assert not ((offs > 2.4) & (offs < 4.0)).any()
    short = onsets[(onsets >= 4.5 - 1e-9) & (onsets < 4.75 - 1e-9)]
    assert short == pytest.approx([4.5, 4.625])


# --- windows and sections --------------------------------------------------------------------


def test_windows_are_long_enough_and_begin_on_bars(tmp_path: Path):
    folder = write_set(tmp_path, 1, bars=100)
    grid = harmonix.read_grid(folder, folder / "beats_corrected" / "0000_song.beats")
    drawn = [choose_window(grid, 50.0, np.random.default_rng(s)) for s in range(60)]
    assert 10 < sum(w.start == 0 for w in drawn) < 32
    for window in drawn:
        inside = grid.times[window.first : window.stop] - window.start
        assert inside[0] >= 0 and 46 < inside[-1] < 50
        assert window.start == 0 or grid.positions[window.first] == 1
    whole = choose_window(grid, None, np.random.default_rng(0))
    assert (whole.start, whole.first, whole.stop) == (0.0, 0, 400)


def test_sections_change_who_plays():
    grid = positions(*[4] * 32)
    bar, _ = bars_of(grid)
    times = 0.5 * np.arange(128)
    band = [
        Note(float(b), 0.5, p, 90, c) for b in range(128) for p, c in ((36, 9), (40, 0), (60, 1))
    ]
    bass = [Control(0.0, mido.Message("program_change", channel=0, program=33))]
    named = [(0.0, "intro"), (16.0, "chorus1"), (32.0, "break"), (48.0, "chorus2")]
    shares = np.zeros(4)
    crashes = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = sections.arranged(band, bass, named, times, bar, rng)
        for part in range(4):
            inside = [n for n in made if 32 * part <= n.beat < 32 * part + 32]
            assert len({n.beat for n in inside}) == 32  # every beat is marked by someone
            shares[part] += any(n.channel == 9 and n.pitch == 36 for n in inside) / 40
        crashes += sum(n.pitch == 49 and n.beat in (32, 96) for n in made)
    assert shares[2] < 0.5 < 0.75 < shares[1] and shares[0] < shares[1] == shares[3]
    assert crashes > 30


def test_a_section_whose_beats_would_be_silent_keeps_all():
    grid = positions(*[4] * 8)
    bar, _ = bars_of(grid)
    drums = [Note(float(b), 0.1, 36, 90, 9) for b in range(32)]
    made = sections.arranged(
        drums, [], [(0.0, "break")], 0.5 * np.arange(32), bar, np.random.default_rng(1)
    )
    assert len(made) == 32


# --- seconds ---------------------------------------------------------------------------------


def test_every_real_grid_is_marked_on_its_beats_and_downbeats():
    if not HARMONIX.is_dir():
        pytest.skip("the Harmonix annotations are not beside this checkout")
    files = list(harmonix.grid_files(HARMONIX).items())
    odd = ("0055_constantmotion", "0293_tomsawyer2", "0315_whygo", "0069_digginmedown")
    for name, path in files[:4] + [f for f in files if f[0] in odd]:
        grid = harmonix.read_grid(HARMONIX, path)
        places_of = places(grid.positions)
        _, length = bars_of(grid.positions)
        for place, position, beats in zip(places_of, grid.positions, length, strict=True):
            # a bar of twice the usual length passes the music's downbeat again
            assert (place == 1) == (position == 1) or (place == 1 and beats > 7), name


@needs_renderer
def test_rendered_drums_sound_on_a_drifting_grid(tmp_path: Path):
    folder = write_set(tmp_path / "in")
    grid = harmonix.read_grid(folder, folder / "beats_corrected" / "0000_song.beats")
    bar, length = bars_of(grid.positions)
    score = tagged(4, 25)
    score.notes = [Note(n.beat, n.length, 37, 115, 9) for n in score.notes]
    notes, _ = spliced(
        {4: score}, beat_plan(bar, length, grid.positions), interval_ratios(grid.times)
    )
    made = Score(notes, [], list(grid.positions), 4, 120.0, "", "")
    rng = np.random.default_rng(0)
    played = grid.times - midi.FLUIDSYNTH_LATENCY_S
    midi.write_midi(tmp_path / "a.mid", made, played, rng, jitter_s=0.0)
    now, onsets = 0.0, []
    for message in mido.MidiFile(tmp_path / "a.mid"):
        now += message.time
        if message.type == "note_on" and message.velocity:
            onsets.append(now)
    assert np.abs(np.array(onsets) - played).max() < 1e-3
    font = check_soundfonts(None)[-1]
    midi.render_wav(tmp_path / "a.mid", tmp_path / "a.wav", font, 0.5, ["-R", "0", "-C", "0"])
    audio = soundfile.read(tmp_path / "a.wav")[0].mean(axis=1)
    offsets = onset_offsets(audio, grid.times)
    assert abs(np.median(offsets)) < 0.005
    assert np.percentile(np.abs(offsets), 95) < 0.01


@needs_renderer
def test_scores_hold_the_grid(tmp_path: Path):
    folder = write_set(tmp_path / "in")
    for name, meter in (("0001_song", 3), ("0002_song", 6)):
        grid = harmonix.read_grid(folder, folder / "beats_corrected" / f"{name}.beats")
        window = choose_window(grid, None, np.random.default_rng(0))
        rng = np.random.default_rng(3)
        score, times = grid_score(grid, window, None, tmp_path, rng)
        assert score.meter == meter and tuple(score.positions) == grid.positions
        assert times == pytest.approx(grid.times, abs=1e-9)
        marked = {round(n.beat) for n in score.notes if abs(n.beat - round(n.beat)) < 0.1}
        assert len(marked & set(range(len(times)))) > 0.5 * len(times)


# --- sets ------------------------------------------------------------------------------------


@needs_renderer
def test_a_set_along_grids_from_end_to_end(tmp_path: Path):
    source, out = write_set(tmp_path / "in"), tmp_path / "out"
    fonts = [min(check_soundfonts(None), key=lambda p: p.stat().st_size)]
    sources = Sources(harmonix=source)
    (source / "beats_corrected" / "0009_bad.beats").write_text("no beats\n")
    report = synthesize(out, seed=2, sources=sources, seconds=12, soundfonts=fonts)
    assert [f[0] for f in report.failures] == ["0009_bad"]
    assert sorted(t.id for t in report.tracks) == ["0000_song", "0001_song", "0002_song"]
    for track in report.tracks:
        real = np.loadtxt(source / "beats_corrected" / f"{track.id}.beats")
        made = np.loadtxt(out / "beats" / f"{track.id}.beats")
        start = float(track.start)
        first = int(np.argmin(np.abs(real[:, 0] - start - made[0, 0])))
        part = real[first : first + len(made)]
        assert np.array_equal(part[:, 1], made[:, 1])
        assert np.abs(part[:, 0] - start - made[:, 0]).max() < 1e-8
        assert (track.genre, track.annotated_bpm) == ("Pop", "120")
        assert track.meter == int(track.time_signature[0]) and "Harmonix Set MIT" in track.licence
        lines = (out / "segments" / f"{track.id}.txt").read_text().splitlines()
        assert all(0 <= float(line.split()[0]) < made[-1, 0] for line in lines)
    folds = (out / "folds.tsv").read_text().splitlines()
    assert folds == ["track\tfold", "0000_song\t0", "0001_song\t1", "0002_song\t2"]
    assert not (out / ".scratch").exists()
    # the same again: nothing is rendered anew; one lost track comes back the same, byte for byte
    lost = out / "tracks" / "0001_song.ogg"
    before = {p.name: p.read_bytes() for p in (out / "tracks").iterdir()}
    kept = (out / "tracks" / "0000_song.ogg").stat().st_mtime_ns
    table = (out / "metadata.csv").read_text()
    lost.unlink()
    (out / "tracks" / "0002_song.part").write_bytes(b"half")
    synthesize(out, seed=2, sources=sources, seconds=12, soundfonts=fonts)
    assert {p.name: p.read_bytes() for p in (out / "tracks").iterdir()} == before
    assert (out / "tracks" / "0000_song.ogg").stat().st_mtime_ns == kept
    assert (out / "metadata.csv").read_text() == table
    with pytest.raises(ValueError, match="seconds 12, 12, not 20, 20"):
        synthesize(out, seed=2, sources=sources, seconds=20, soundfonts=fonts)
    with pytest.raises(ValueError, match="grids harmonix, not random"):
        synthesize(out, 1.0, seed=2, seconds=12, soundfonts=fonts, limit=1)


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(work, "PATIENCE_S", 0.1)
    with (
        work.claimed(tmp_path) as scratch,
        pytest.raises(ValueError, match="Another run is rendering"),
        work.claimed(tmp_path),
    ):
        pass
    assert not scratch.exists()
