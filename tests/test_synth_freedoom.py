"""Freedoom's music: exact beats under signatures and tempi, and songs whose grid is not trusted."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

mido = pytest.importorskip("mido", reason="mido is in the trainer's dependencies")
soundfile = pytest.importorskip("soundfile", reason="soundfile is in the trainer's dependencies")

from beattrack_trainer.synth import freedoom, trust  # noqa: E402
from beattrack_trainer.synth.arrange import check_soundfonts  # noqa: E402
from beattrack_trainer.synth.dataset import synthesize  # noqa: E402
from beattrack_trainer.synth.drums import CLOSED, KICK, SNARE  # noqa: E402
from beattrack_trainer.synth.midi import Note, SynthError  # noqa: E402
from beattrack_trainer.synth.sources import Sources, track_ids  # noqa: E402
from test_synth import needs_renderer  # noqa: E402

ARCHIVE = Path(__file__).parents[1].parent / "shared" / "data" / "midi" / "freedoom.tar.gz"
TPB = 480
Part = tuple[int, int, int, float]  # numerator, denominator, bars, bpm of the quarter


def bar_of(number: int, quarters: float, unit: float, backbeat: float) -> list[Note]:
    """Kick and a chord on the first beat, snares, hats between, a bass that moves; quarters."""
    root = (36, 41, 43, 38)[number % 4]
    notes = [Note(0.0, quarters, p, 90, 0) for p in (root, root + 24, root + 31)]
    notes.append(Note(0.0, 0.1, KICK, 110, 9))
    for beat in np.arange(0.0, quarters - 1e-6, unit):
        if beat + backbeat < quarters and round(beat / unit) % 2:
            notes.append(Note(beat + backbeat, 0.1, SNARE, 100, 9))
        notes += [Note(beat, 0.1, CLOSED, 70, 9), Note(beat + unit / 2, 0.1, CLOSED, 60, 9)]
        notes.append(Note(beat, 0.4 * unit, root + 12, 80, 1))
    return notes


def write_song(
    path: Path, parts: Sequence[Part], backbeat: float = 0.0, shift: float = 0.0, human: float = 0.0
) -> Path:
    """A file of some parts; ``shift`` moves its notes off its bars, ``human`` scatters (quarters).

    The snares come ``backbeat`` quarters late.
    """
    rng = np.random.default_rng(0)
    events: list[tuple[float, object]] = [(0.0, mido.Message("program_change", program=29))]
    at, number = 0.0, 0
    for numerator, denominator, bars, bpm in parts:
        signature = mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)
        events += [(at, signature), (at, mido.MetaMessage("set_tempo", tempo=round(6e7 / bpm)))]
        length = 4 * numerator / denominator
        unit = 1.5 if denominator == 8 and numerator % 3 == 0 else 1.0
        for _ in range(bars):
            for n in bar_of(number, length, unit, backbeat):
                start = max(0.0, at + n.beat + shift + rng.uniform(-human, human))
                on = mido.Message("note_on", note=n.pitch, velocity=n.velocity, channel=n.channel)
                events.append((start, on))
                off = mido.Message("note_off", note=n.pitch, channel=n.channel)
                events.append((start + 0.95 * n.length, off))
            at, number = at + length, number + 1
    midi, track, last = mido.MidiFile(type=0, ticks_per_beat=TPB), mido.MidiTrack(), 0
    for quarter, message in sorted(events, key=lambda e: e[0]):
        tick = round(quarter * TPB)
        track.append(message.copy(time=tick - last))
        last = tick
    midi.tracks.append(track)
    midi.save(path)
    return path


# --- reading ---------------------------------------------------------------------------------


def test_beats_lie_on_the_quarters(tmp_path: Path):
    song = freedoom.read_song(write_song(tmp_path / "d_a.mid", [(4, 4, 24, 120)]))
    assert song.positions[:96] == (1, 2, 3, 4) * 24
    assert song.times[:96] == pytest.approx(0.5 * np.arange(96))
    kicks = [n.beat for n in song.notes if (n.channel, n.pitch) == (9, KICK)]
    assert kicks == pytest.approx(4 * np.arange(24))


def test_beats_across_changes_of_tempo_and_signature(tmp_path: Path):
    parts = [(4, 4, 12, 120), (3, 4, 12, 90), (3, 4, 8, 150)]
    song = freedoom.read_song(write_song(tmp_path / "d_a.mid", parts))
    bars = (1, 2, 3, 4) * 12 + (1, 2, 3) * 20
    assert song.positions[: len(bars)] == bars
    periods = np.repeat([0.5, 60 / 90, 0.4], [48, 36, 24])
    starts = np.concatenate([[0], np.cumsum(periods)])[: len(bars)]
    assert song.times[: len(bars)] == pytest.approx(starts, abs=1e-4)
    kicks = {round(n.beat) for n in song.notes if (n.channel, n.pitch) == (9, KICK)}
    assert kicks == {i for i, p in enumerate(bars) if p == 1}


def test_six_eight_is_counted_in_dotted_quarters(tmp_path: Path):
    song = freedoom.read_song(write_song(tmp_path / "d_a.mid", [(6, 8, 32, 120)]))
    assert song.positions[:64] == (1, 2) * 32
    assert song.times[:64] == pytest.approx(0.75 * np.arange(64))


def test_the_longest_stretch_of_whole_beats_is_used(tmp_path: Path):
    parts = [(7, 8, 4, 120), (4, 4, 24, 120), (7, 8, 4, 120)]
    song = freedoom.read_song(write_song(tmp_path / "d_a.mid", parts))
    assert song.times[0] == pytest.approx(7.0) and len(song.positions) == 96
    assert song.controls[0].beat == -14 and song.positions[0] == 1


@pytest.mark.parametrize(
    ("parts", "options", "reason"),
    [
        ([(4, 4, 24, 120)], {"human": 0.5}, "off its beats"),
        ([(4, 4, 24, 120)], {"shift": 0.08}, "off its beats"),
        ([(4, 4, 24, 120)], {"shift": 1.0}, "unclear bars"),
        ([(4, 4, 60, 260)], {}, "tempo"),
        ([(4, 4, 24, 120), (4, 4, 12, 40)], {}, "tempo"),
        ([(4, 4, 24, 80)], {"backbeat": 0.5}, "backbeat between the beats"),
        ([(4, 4, 8, 120)], {}, "too short"),
        ([(7, 8, 40, 120)], {}, "odd signatures"),
    ],
)
def test_what_is_left_out(tmp_path: Path, parts: list[Part], options: dict, reason: str):
    path = write_song(tmp_path / "d_a.mid", parts, **options)
    with pytest.raises(trust.Untrusted) as error:
        freedoom.read_song(path)
    assert error.value.reason == reason and str(error.value).count("\n") == 0
    write_song(tmp_path / "d_b.mid", [(4, 4, 24, 120)])
    assert freedoom.survey(tmp_path).left_out == {reason: 1}


def test_wrong_bars_are_unclear(tmp_path: Path):
    """Bars of five under a signature of four, as in files that were left at their default."""
    path = write_song(tmp_path / "d_a.mid", [(5, 4, 24, 120)])
    midi = mido.MidiFile(path)
    for message in midi.tracks[0]:
        if message.type == "time_signature":
            message.numerator = 4
    midi.save(path)
    with pytest.raises(trust.Untrusted, match="downbeats of d_a do not stand out"):
        freedoom.read_song(path)


def test_a_backbeat_between_fast_beats_is_a_polka(tmp_path: Path):
    path = write_song(tmp_path / "d_a.mid", [(4, 4, 24, 120)], backbeat=0.5)
    assert freedoom.read_song(path).positions[:4] == (1, 2, 3, 4)
    notes = [Note(b + 0.5, 0.1, p, 100, 9) for b in range(40) for p in (KICK, SNARE)]
    with pytest.raises(trust.Untrusted, match="lies between its beats"):
        trust.check_level(notes, np.full(40, 0.5), 4, False, "a")


def test_damaged_files_are_counted(tmp_path: Path):
    with pytest.raises(SynthError, match=r"no music of Freedoom \(no d_\*\.mid\)"):
        freedoom.songs(tmp_path)
    whole = write_song(tmp_path / "d_good.mid", [(4, 4, 24, 120)]).read_bytes()
    (tmp_path / "d_empty.mid").write_bytes(b"")
    (tmp_path / "d_text.mid").write_bytes(b"not midi")
    (tmp_path / "d_half.mid").write_bytes(whole[: len(whole) // 2])
    freedoom.songs.cache_clear()
    found = freedoom.survey(tmp_path)
    assert found.used == ("d_good",)
    assert found.sentence() == "Freedoom: 1 of 4 songs; left out: not readable 3."
    (tmp_path / "d_good.mid").write_bytes(b"")
    freedoom.read_song.cache_clear()
    with pytest.raises(SynthError, match=r"can be used\. Freedoom: 0 of 4 songs"):
        freedoom.survey(tmp_path)


# --- excerpts --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_excerpts_begin_with_a_bar(tmp_path: Path, seed: int):
    write_song(tmp_path / "d_a.mid", [(4, 4, 40, 120), (3, 4, 30, 140)])
    score = freedoom.freedoom_score(30.0, tmp_path, np.random.default_rng(seed))
    assert score.source == "Freedoom d_a" and score.positions[0] == 1
    kicks = {round(n.beat) for n in score.notes if (n.channel, n.pitch) == (9, KICK)}
    assert kicks == {i for i, p in enumerate(score.positions) if p == 1}
    assert score.meter in (3, 4) and 60 <= score.bpm <= 215
    program = score.controls[0]
    assert (program.beat, program.message.program) == (0.0, 29)


def test_slow_and_fast_parts_stay_in_the_range(tmp_path: Path):
    write_song(tmp_path / "d_a.mid", [(4, 4, 30, 62), (4, 4, 60, 205)])
    found = [freedoom.freedoom_score(20.0, tmp_path, np.random.default_rng(s)) for s in range(40)]
    assert all(59.9 < score.bpm < 215.1 for score in found)
    assert min(s.bpm for s in found) < 70 and max(s.bpm for s in found) > 195


def test_what_was_in_force_is_sent_in_its_order():
    sent = [
        ("program_change", {"program": 1}),
        ("control_change", {"control": 0, "value": 0}),
        ("control_change", {"control": 0, "value": 8}),
        ("program_change", {"program": 30}),
    ]
    controls = tuple(
        freedoom.Control(float(i), mido.Message(kind, **what))
        for i, (kind, what) in enumerate(sent)
    )
    begun = freedoom._controls_from(controls, 4)
    assert [c.message.type for c in begun] == ["control_change", "program_change"]
    assert (begun[0].message.value, begun[1].message.program) == (8, 30)


def test_excerpts_avoid_pauses_and_weak_bars():
    positions = (1, 2, 3, 4) * 20
    notes = [Note(float(b), 1.0, 60, 90, 0) for b in range(80) if not 20 <= b < 40]
    rows = np.zeros((4, 80, 2))
    rows[0, ::4, 0] = 1.0
    rows[0, 60:, 0] = np.tile([0, 0, 1, 0], 5)
    song = freedoom.Song("a", tuple(notes), (), positions, 0.5 * np.arange(80), rows)
    starts = freedoom.excerpt_starts(song, 16)
    assert starts == [0, 4, 8, 36, 40, 44, 48, 52]


def test_share_in_the_mixture():
    kinds = ["mma", "own", "heavy", "groove", "pop909"]
    without, mixed = track_ids(kinds), track_ids([*kinds, "freedoom"])
    pairs = [(next(without), next(mixed)) for _ in range(40)]
    changed = [(a[1], b[1]) for a, b in pairs if a != b]
    assert changed == [("mma", "freedoom")] * 4
    assert {next(mixed)[1] for mixed in [track_ids(["freedoom"])] for _ in range(20)} == {
        "freedoom"
    }


# --- sets ------------------------------------------------------------------------------------


def test_freedoom_alone_needs_its_music(tmp_path: Path):
    for sources, said in (
        (Sources(only="freedoom", nothing=True), "among random pieces"),
        (Sources(nothing=True, freedoom=tmp_path), "has no music"),
    ):
        with pytest.raises(ValueError, match=said):
            synthesize(tmp_path / "out", limit=1, sources=sources)


@needs_renderer
def test_tracks_from_end_to_end(tmp_path: Path):
    fonts = [min(check_soundfonts(None), key=lambda p: p.stat().st_size)]
    with pytest.raises(ValueError, match="give --freedoom PATH"):
        synthesize(tmp_path / "b", limit=1, sources=Sources(only="freedoom"), soundfonts=fonts)
    song = write_song(tmp_path / "d_a.mid", [(4, 4, 40, 120)])
    with tarfile.open(tmp_path / "music.tar.gz", "w:gz") as tar:
        tar.add(song, "music/d_a.mid")
    sources = Sources(only="freedoom", freedoom=tmp_path / "music.tar.gz")
    for name in ("a", "c"):
        report = synthesize(
            tmp_path / name, limit=2, seconds=20, seed=3, sources=sources, soundfonts=fonts
        )
        assert not report.failures and len(report.tracks) == 2
    for track in report.tracks:
        assert (track.kind, track.source, track.meter) == ("freedoom", "Freedoom d_a", 4)
        assert track.licence.startswith("Freedoom BSD-3-Clause; ")
        beats = np.loadtxt(tmp_path / "a" / "beats" / f"{track.id}.beats")
        assert beats[:, 1].tolist() == [i % 4 + 1 for i in range(len(beats))]
        one, two = (tmp_path / n / "tracks" / f"{track.id}.ogg" for n in "ac")
        assert one.read_bytes() == two.read_bytes()
        assert beats[-1, 0] < soundfile.info(one).duration


@pytest.mark.skipif(not ARCHIVE.exists(), reason="../shared/data/midi/freedoom.tar.gz is missing")
def test_the_real_songs(tmp_path: Path):
    """The counts stand in docs/synth.md."""
    with tarfile.open(ARCHIVE) as tar:
        members = [m for m in tar.getmembers() if m.name.endswith(".mid")]
        for member in members:
            file = tar.extractfile(member)
            assert file is not None
            (tmp_path / Path(member.name).name).write_bytes(file.read())
    found = freedoom.survey(tmp_path)
    assert len(found.used) == 78 and found.left_out == {
        "backbeat between the beats": 13,
        "unclear bars": 8,
        "too short": 7,
        "tempo": 3,
        "odd signatures": 1,
        "off its beats": 1,
    }
