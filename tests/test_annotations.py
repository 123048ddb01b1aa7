"""Annotation files: the public ones as they are, and every kind of broken one."""

import os
from pathlib import Path

import numpy as np
import pytest

from beattrack.config import ConfigError
from beattrack_trainer.data.annotations import read_annotation, read_beats, read_segments
from beattrack_trainer.data.findings import check_beats
from beattrack_trainer.data.folds import read_folds
from beattrack_trainer.data.metadata import TrackInfo, read_metadata

HARMONIX = Path(__file__).parents[1].parent / "shared" / "data" / "harmonix"
public = pytest.mark.skipif(not HARMONIX.is_dir(), reason="needs the public Harmonix files")


@pytest.mark.parametrize(
    "text",
    [
        "0.5\t1\n1.0\t2\n",
        "0.5 1.0\n1.0 2.0\n",
        "0.5\t1\t1\n1.0\t2\t1\n",
        "\ufeff0.5\t1\r\n1.0\t2\r\n",
        "# made by hand\n\n  0.5   1\n1.0 2",
        "-0.2 2\n0.5 1\n1.0 2\n",
    ],
    ids="tabs spaces third-column bom-crlf comments early".split(),
)
def test_forms_that_are_read(tmp_path, text):
    file = tmp_path / "a.beats"
    file.write_text(text, newline="")
    assert read_beats(file).tolist() == [[0.5, 1], [1.0, 2]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"# nothing\n", "nothing but"),
        (bytes(range(256)), "no UTF-8 text"),
        ("0.5\t1\n".encode("utf-16"), "no UTF-8 text"),
        (b"0.5\t1\n\0\0\n", "no UTF-8 text"),
        (b"0.5\t1\nnan\t2\n", "line 2: 'nan'"),
        (b"0.5\t1\n1.0\tinf\n", "line 2: 'inf'"),
        (b"-3\t1\n1\t2\n", "line 1: -3 s lies before"),
        (b"0.5\t1\n0.5\t2\n", "line 2: 0.5 s repeats"),
        (b"0.5\t1\n1.5\t2\n1.0\t3\n", "line 3: 1 s comes after 1.5 s"),
        (b"0.5\t0\n", "line 1: the beat in bar is 0"),
        (b"0.5\t1.5\n", "line 1: the beat in bar is 1.5"),
        (b"0.5\t1000\n", "line 1: the beat in bar is 1000"),
        (b"0.5\n1.0\n", "line 1: a time stands there without"),
        (b"0,5\t1\n", "line 1: '0,5' is no number (decimals take a point)"),
        (b"0.5,1\n", "line 1: '0.5,1' is no number."),
        (b"time\tbeat\n0.5\t1\n", "line 1: 'time' is no number"),
        (b"0.5\t1\n" * 700_000, "larger than 4 MB"),
    ],
)
def test_broken_beats_are_one_sentence(tmp_path, content, said):
    file = tmp_path / "a.beats"
    file.write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is tested
        read_beats(file)
    text = str(caught.value)
    assert said in text and str(file) in text and "\n" not in text and len(text) < 300


def test_a_file_may_say_that_there_are_no_beats(tmp_path):
    file = tmp_path / "speech.beats"
    file.write_text("# No beats\n")
    annotation = read_annotation(file)
    assert annotation.beats.shape == (0, 2) and annotation.says_none
    file.write_text("# No beats\n-0.1\t1\n")
    assert not read_annotation(file).says_none
    file.write_text("# nothing yet\n")
    with pytest.raises(ValueError, match="nothing but blank lines and comments"):
        read_annotation(file)


def test_what_is_no_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_beats(tmp_path)
    with pytest.raises(ValueError, match="is missing or no file"):
        read_beats(tmp_path / "none.beats")
    os.mkfifo(tmp_path / "pipe.beats")
    with pytest.raises(ValueError, match="is missing or no file"):
        read_beats(tmp_path / "pipe.beats")


def kinds_of(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows))
    return [f.kind for f in check_beats("a", read_annotation(path))]


def test_what_is_odd_about_readable_beats(tmp_path):
    file = tmp_path / "a.beats"
    grid = [(0.3 + 0.5 * i, i % 4 + 1) for i in range(40)]

    def rows(beats):
        return [f"{t}\t{p}" for t, p in beats]

    assert kinds_of(file, rows(grid)) == []
    assert kinds_of(file, rows(grid[:10] + grid[14:])) == ["beat_gap"]
    late = [*grid[:11], (5.55, 4), *grid[11:]]
    assert set(kinds_of(file, rows(late))) == {"beat_too_many", "bar_miscounted"}
    assert kinds_of(file, rows(grid[:10] + [(t, p + 3) for t, p in grid[10:13]])) == [
        "bar_miscounted"
    ]
    assert kinds_of(file, rows([(t, 2) for t, _ in grid[:1]])) == ["too_few_beats"]
    assert kinds_of(file, rows([(5 * t, p) for t, p in grid])) == ["tempo_implausible"]
    assert kinds_of(file, rows([(t / 5, p) for t, p in grid])) == ["tempo_implausible"]
    assert kinds_of(file, [f"{t}\t{p}\tverse" for t, p in grid]) == ["unknown_columns"]
    assert kinds_of(file, [f"{t}\t{p}\t1\t2" for t, p in grid]) == ["unknown_columns"]
    assert kinds_of(file, ["-0.2\t4", *rows(grid)]) == ["beat_before_audio"]
    # A song may slow down and end on a held bar without a word.
    slowing = np.cumsum(0.5 * 1.02 ** np.arange(40))
    assert kinds_of(file, rows((t, i % 3 + 1) for i, t in enumerate(slowing))) == []


@public
def test_public_harmonix_files_are_read_as_they_are():
    original = {f.stem: read_annotation(f) for f in (HARMONIX / "beats").glob("*.txt")}
    corrected = {f.stem: read_annotation(f) for f in (HARMONIX / "beats_corrected").glob("*.beats")}
    assert (len(original), len(corrected)) == (912, 911)
    assert sum(a.early for a in original.values()) == 0
    assert sum(a.early for a in corrected.values()) == 7
    assert sum(any(a.extra) for a in corrected.values()) == 8
    found = [f.kind for n, a in list(original.items())[::4] for f in check_beats(n, a)]
    assert not {"too_few_beats", "unknown_columns", "bar_miscounted"} & set(found)
    info = read_metadata(HARMONIX / "metadata.csv")
    assert info.keys() == original.keys()
    assert all(info[n].duration_s > a.beats[-1, 0] for n, a in original.items())
    assert read_folds(HARMONIX / "folds.tsv").keys() == corrected.keys()
    segments = [read_segments(f) for f in (HARMONIX / "segments").glob("*.txt")]
    assert len(segments) == 912 and all(label for rows in segments for _, label in rows)


def test_segments(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("0.0 intro\n8.5\tverse two\n")
    assert read_segments(file) == [(0.0, "intro"), (8.5, "verse two")]
    for text, said in (("0.0\n", "without a label"), ("5 a\n1 b\n", "comes after"), ("a b", "no")):
        file.write_text(text)
        with pytest.raises(ValueError, match=f"line \\d.*{said}"):
            read_segments(file)


def test_metadata(tmp_path):
    file = tmp_path / "metadata.csv"
    file.write_text('File,Title,Duration,BPM\n1,"a, b",12.5,100\n\n2,c,,\n')
    assert read_metadata(file) == {"1": TrackInfo(12.5, 100.0), "2": TrackInfo(None, None)}
    file.write_text("id,seconds\n1\n")
    assert read_metadata(file) == {"1": TrackInfo(None, None)}
    for text, said in (
        ("name,bpm\na,1\n", "no column named"),
        ("id,bpm\na,1\na,2\n", "line 3: 'a' stands there twice"),
        ("id,bpm\n,1\n", "line 2: the id is missing"),
        ("id,bpm\na,fast\n", "line 2: 'fast' is no positive number"),
        ("id,bpm\na,-3\n", "line 2: '-3'"),
        ("id,bpm\na," + "9" * 200_000 + "\n", "line 2: field larger"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_metadata(file)


def test_folds(tmp_path):
    file = tmp_path / "folds.tsv"
    file.write_text("\ufefftrack\tfold\r\na b\t0\r\nc\t7\r\n")
    assert read_folds(file) == {"a b": 0, "c": 7}
    file.write_text("a\t3\n")  # no header
    assert read_folds(file) == {"a": 3}
    for text, said in (
        ("track\tfold\na\t8\n", "line 2"),
        ("a\t1\na\t2\n", "line 2: 'a' stands there twice"),
        ("a 1\n", "line 1"),
        ("a\t²\n", "line 1"),
        ("", "is empty"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_folds(file)
