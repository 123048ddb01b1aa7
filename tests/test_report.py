"""``trainer eval`` from its words to its files, on a few short loops."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from beattrack.config import ConfigError, FeatureConfig
from beattrack_runtime.onnx_model import OnnxModel
from beattrack_trainer.cli import app
from beattrack_trainer.config import DataConfig
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.preprocess import preprocess
from beattrack_trainer.evaluation import evaluate as evaluating
from beattrack_trainer.evaluation import start as starting
from beattrack_trainer.evaluation import thresholds as thresholding
from beattrack_trainer.evaluation import tracks as tracking
from beattrack_trainer.evaluation.evaluate import evaluate, score_items
from beattrack_trainer.evaluation.report import terminal_comparison, terminal_table
from beattrack_trainer.evaluation.subjects import Subject, model_subject, select
from beattrack_trainer.evaluation.thresholds import DEFAULT, choose
from browser import browser
from flux_model import drum_loop
from helpers_run import RUN_ID, exported, make_run

DOCS = Path(__file__).parents[1] / "docs" / "evaluation.md"
EVIL = "<img src=x onerror=alert(1)>"


def subject(run=None, name=None):
    model = exported()[1][0]
    return Subject(name or RUN_ID, model, run, OnnxModel(model))


def write_loops(folder: Path, names: list[str], seconds: float = 11.0) -> Path:
    """Write a data set of drum loops at 120 bpm, every other one without downbeats."""
    (folder / "tracks").mkdir(parents=True)
    (folder / "beats").mkdir()
    for i, name in enumerate(names):
        audio, beats = drum_loop(seconds, 100 + 10 * i)
        soundfile.write(folder / "tracks" / f"{name}.flac", audio, 22050)
        # The annotation runs on after the audio, as annotations do.
        rows = [f"{t:.4f}\t{n % 4 + 1 if i % 2 == 0 else 2}" for n, t in enumerate(beats)]
        (folder / "beats" / f"{name}.beats").write_text("\n".join([*rows, "99.5\t1"]) + "\n")
    return folder


def open_set(folder):
    return open_data_sets(DataConfig(data=(str(folder),)))[0]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A set with a damaged, a short and an evilly named track; two models scored on it."""
    base = tmp_path_factory.mktemp("report")
    data = write_loops(base / "some<b>set", ["one", EVIL, "broken", "short"])
    (data / "tracks" / "broken.flac").write_bytes(b"fLaC no audio")
    (data / "beats" / "short.beats").write_text("1.0\t1\n1.5\t2\n")
    (data / "metadata.csv").write_text("File,Genre\none,<script>alert(2)</script>\n")
    shutil.copyfile(exported()[1][0], base / "other.onnx")
    words = ["eval", "--data", str(data), "--save-dir", str(base / "out"), "--runs-dir",
             str(base / "runs"), "--model", str(exported()[1][0]), "--model",
             str(base / "other.onnx")]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return base, done.output, done.stdout


def result(stage, name=RUN_ID):
    folder = stage[0] / "out" / f"{name}-some_b_set"
    return folder, json.loads((folder / "scores.json").read_text())


def test_the_files(stage):
    folder, _ = result(stage)
    names = ["report.html", "scores.json", "thresholds.json", "tracks.csv"]
    assert sorted(f.name for f in folder.iterdir()) == names
    assert sorted(f.name for f in folder.parent.iterdir()) == [
        "comparison-some<b>set.html", "other-some_b_set", f"{RUN_ID}-some_b_set"
    ]  # fmt: skip


def test_what_the_terminal_says(stage):
    output = stage[1]
    assert "some<b>set was not trained on: all of it is scored" in output
    assert "skipped broken:" in output
    assert "skipped short: fewer than two beats are annotated" in output
    assert RUN_ID in output and "other" in output
    shown = stage[2]  # the tables alone can be sent to a file
    assert "95 % interval" in shown and "Live path on" in shown
    assert "skipped" not in shown and "wrote" not in shown


def flatten(values: dict, prefix: str = "") -> set[str]:
    """Return the dotted keys; below those that stand whole in the docs, nothing."""
    whole = documented()
    keys: set[str] = set()
    for key, value in values.items():
        name = prefix + key
        keys |= (
            flatten(value, name + ".") if isinstance(value, dict) and name not in whole else {name}
        )
    return keys


def documented() -> set[str]:
    part = DOCS.read_text().split("## scores.json")[1].split("## tracks.csv")[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row)}


def test_scores_json_is_as_documented(stage):
    for name in (RUN_ID, "other"):
        _, scores = result(stage, name)
        assert flatten(scores) == documented()
    _, scores = result(stage)
    assert scores["data"]["tracks"] == 2 and sorted(scores["data"]["skipped"]) == [
        "broken",
        "short",
    ]
    assert scores["data"]["seconds"] == 22.0
    assert scores["live"]["beat_f"] > 0.8
    assert scores["genres"]["<script>alert(2)</script>"]["tracks"] == 1
    assert scores["model"]["provenance"]["run"] == RUN_ID
    assert scores["peak_picking"]["thresholds"]["tracks"] == 0  # a bare file: the default
    assert (scores["peak_picking"]["thresholds"]["beat"],) == DEFAULT[:1]
    assert scores["not_live"]["dbn_offline"]["beat_f"] > 0.5


def test_a_row_for_each_track(stage):
    folder, scores = result(stage)
    with (folder / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["track"] for r in rows] == [EVIL, "one", "broken", "short"]
    scored = rows[:2]
    mean = np.mean([float(r["beat_f"]) for r in scored])
    assert mean == pytest.approx(scores["live"]["beat_f"], abs=1e-4)
    assert scored[0]["downbeat_f"] == "" and float(scored[1]["downbeat_f"]) >= 0  # not annotated
    assert {"level", "lock_s", "dbn_cmlt", "picked_beat_f"} <= set(rows[0])
    assert rows[2]["skipped"] and not rows[2]["beat_f"] and not rows[0]["skipped"]


def test_every_pair_of_thresholds(stage):
    folder, scores = result(stage)
    grid = json.loads((folder / "thresholds.json").read_text())
    assert len(grid["pairs"]) == len(grid["thresholds"]) ** 2 == 361
    assert grid["chosen"] == scores["peak_picking"]["thresholds"]
    used = [p for p in grid["pairs"] if (p["beat"], p["downbeat"]) == DEFAULT]
    assert used[0]["beat_f"] == scores["peak_picking"]["beat_f"]
    assert used[0]["downbeat_f"] == scores["peak_picking"]["downbeat_f"]


class _Page(HTMLParser):
    """Collects the tags and where they point."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [v for k, v in attrs if k in ("src", "href", "action", "data")]
        assert not [k for k, _ in attrs if k.startswith("on")]

    def handle_data(self, data):
        self.text += data


def test_the_report_stands_alone_and_escapes_names(stage):
    folder, _ = result(stage)
    page = _Page((folder / "report.html").read_text())
    assert all(t.startswith("data:image/png;base64,") for t in page.targets)
    assert page.tags.count("img") == len(page.targets) == 4 + 2  # two tracks are shown
    assert "script" not in page.tags and "b" not in page.tags
    assert EVIL in page.text and "<script>alert(2)</script>" in page.text
    assert "NOT LIVE" in page.text and "skipped" in page.text
    assert 'name="viewport"' in (folder / "report.html").read_text()


def test_the_scores_need_no_scrolling_on_a_laptop(stage, tmp_path):
    page = tmp_path / "report.html"  # its folder's name is no plain address
    shutil.copyfile(result(stage)[0] / "report.html", page)
    widths = "[...document.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth)"
    with browser(tmp_path / "profile") as tab:
        tab.open(page.as_uri(), width=1280)
        assert set(tab.evaluate(widths)) == {0}


def test_the_comparison_links_to_the_reports(stage):
    page = _Page((stage[0] / "out" / "comparison-some<b>set.html").read_text())
    assert page.targets == [f"{n}-some_b_set/report.html" for n in (RUN_ID, "other")]
    assert all((stage[0] / "out" / t).is_file() for t in page.targets)
    assert "b" not in page.tags


def test_terminal_names_are_no_markup(stage):
    _, scores = result(stage)
    scores["model"]["name"] = "[red]no[/red]"
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(scores), terminal_comparison([scores, scores]))
    text = console.export_text()
    assert "[red]no[/red]" in text
    assert "0.9" in text and "…" not in text  # nothing is cut at 80 columns


def test_the_light_way_gives_the_same_scores(stage):
    data = open_set(stage[0] / "some<b>set")
    scored = score_items(exported()[1][0], data.tracks())
    _, scores = result(stage)
    assert {k: scores["live"][k] for k in scored.mean()} == scored.mean()
    assert scored.skipped == scores["data"]["skipped"]


def test_a_stopped_evaluation_goes_on(tmp_path, monkeypatch):
    data = open_set(write_loops(tmp_path / "more", ["a", "b", "c"], 8))
    chosen = select(subject(), data, None, None)
    heard = []
    plain = tracking.listen

    def counting(model, audio):
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.append(audio.stem)
        return plain(model, audio)

    monkeypatch.setattr(tracking, "listen", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate(subject(), data, chosen, tmp_path / "out", False, 1)
    assert heard == ["a", "b"]
    heard.clear()
    damaged = next((tmp_path / "out").glob("*/*/a.npz"))
    damaged.write_bytes(damaged.read_bytes()[:500])
    (tmp_path / "more" / "tracks" / "b.flac").touch()  # changed since
    monkeypatch.setattr(tracking, "listen", lambda m, a: (heard.append(a.stem), plain(m, a))[1])
    found = evaluate(subject(), data, chosen, tmp_path / "out", False, 1)
    assert heard == ["a", "b", "c"]
    heard.clear()
    again = evaluate(subject(), data, chosen, tmp_path / "out", False, 1)
    assert heard == []
    assert [s.to_dict() for s in again.live()] == [s.to_dict() for s in found.live()]
    starting.write(again, tmp_path / "out")
    assert not (tmp_path / "out" / evaluating.CACHE).exists()


def test_a_set_that_was_trained_on_gives_its_test_fold_alone(tmp_path):
    names = [f"t{i}" for i in range(8)]
    data = open_set(write_loops(tmp_path / "learned", names, 1))
    rows = "".join(f"{n}\t{i}\n" for i, n in enumerate(names))
    (tmp_path / "learned" / "folds.tsv").write_text("track\tfold\n" + rows)
    ours = subject()  # trained on a set of that name, with fold 0
    test = select(ours, data, None, None)
    assert [t.name for t in test.tracks] == ["t0"]
    assert test.held_out and not test.seen and "only the test part of fold 0" in test.remark
    validation = select(ours, data, "validation", None)
    assert [t.name for t in validation.tracks] == ["t1"] and not validation.held_out
    everything = select(ours, data, "all", None)
    assert len(everything.tracks) == 8 and everything.seen and "TRAINED ON" in everything.remark
    shutil.copytree(tmp_path / "learned", tmp_path / "unseen")
    unseen = open_set(tmp_path / "unseen")
    assert len(select(ours, unseen, None, None).tracks) == 8
    assert [t.name for t in select(ours, unseen, None, 3).tracks] == ["t0", "t2", "t5"]
    with pytest.raises(ConfigError, match="was not trained on unseen"):
        select(ours, unseen, "test", None)
    with pytest.raises(ConfigError, match="part='half'"):
        select(ours, unseen, "half", None)


def test_thresholds_follow_the_validation_tracks_and_never_the_evaluated_ones(
    tmp_path, monkeypatch
):
    names = [f"t{i}" for i in range(8)]
    folder = write_loops(tmp_path / "learned", names, 9)
    rows = "".join(f"{n}\t{i}\n" for i, n in enumerate(names))
    (folder / "folds.tsv").write_text("track\tfold\n" + rows)
    data = open_set(folder)
    assert choose(exported()[1][0], make_run(tmp_path, f"data={folder}"), 1).tracks == 0  # no store
    preprocess(data, FeatureConfig())
    run = make_run(tmp_path / "runs", f"data={folder}")

    def thresholds():
        return evaluating._thresholds(subject(run), select(subject(run), data, None, None), 1)

    def move(name):
        """Annotate everything half a beat later, so that no beat is right."""
        file = folder / "beats" / f"{name}.beats"
        beats = np.loadtxt(file)[:-1]
        shift = np.median(np.diff(beats[:, 0])) / 2
        file.write_text("".join(f"{t + shift:.4f}\t{p:.0f}\n" for t, p in beats))
        preprocess(data, FeatureConfig())

    times = np.arange(0.0, 9.0, 60 / 110 / 2)  # of t1: strong peaks on beats, weak ones between
    strong = np.column_stack([times, np.tile([0.8, 0.3], len(times))[: len(times)], times])
    monkeypatch.setattr(thresholding, "peaks", lambda curves: (strong, strong))
    first = thresholds()
    assert first.beat == 0.35  # above the weak ones
    assert first.tracks == 1 and "validation fold" in first.origin
    move("t0")  # the test fold
    assert thresholds() == first
    move("t1")  # the validation fold
    assert thresholds().beat == 0.05  # the weak ones are right now
    validation = select(subject(run), data, "validation", None)
    assert evaluating._thresholds(subject(run), validation, 1).tracks == 0


def test_a_run_is_scored_as_the_file_that_export_makes(tmp_path, monkeypatch):
    run, files = exported()
    data = write_loops(tmp_path / "new", ["x"], 8)
    made = []

    def write(run, path, settings, audio):
        made.append(settings.flux_mix)
        shutil.copyfile(files[0], path)

    monkeypatch.setattr(starting, "write_onnx", write)
    words = ["eval", "--data", str(data), "--save-dir", str(tmp_path / "out"), "--runs-dir",
             str(run.path.parent), "--no-dbn", "--flux-mix", "0.9"]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert made == [0.9]
    scores = json.loads((tmp_path / "out" / f"{RUN_ID}-new" / "scores.json").read_text())
    assert scores["model"]["run"] == RUN_ID
    assert scores["not_live"]["dbn_offline"] is None
    assert "not at hand" in scores["peak_picking"]["thresholds"]["origin"]


def test_sentences_for_what_is_not_there(tmp_path):
    data = write_loops(tmp_path / "new", ["x"], 3)
    words = ["eval", "--data", str(data), "--save-dir", str(tmp_path / "out"), "--runs-dir",
             str(tmp_path / "none")]  # fmt: skip
    assert "finished run" in str(CliRunner().invoke(app, words).exception)
    gone = [*words, "--model", str(tmp_path / "gone.onnx")]
    missing = CliRunner().invoke(app, gone).exception
    assert isinstance(missing, ConfigError) and "gone.onnx" in str(missing)
    short = CliRunner().invoke(app, [*words, "--model", "starter", "--no-dbn"])
    assert "Not one of 1 tracks could be scored" in str(short.exception)
    assert model_subject("starter").name == "starter"
