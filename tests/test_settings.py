"""The trainer's settings: defaults, then a file, then words."""

import dataclasses
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack_trainer import config as config_module
from beattrack_trainer.cli import run
from beattrack_trainer.config import (
    DERIVED,
    AugmentConfig,
    DataConfig,
    Settings,
    TrainConfig,
    changed,
    load_folds,
    load_settings,
)

ROOT = Path(__file__).parents[1]
# The words of the manual that this trainer replaces.
MANUAL = ("project_name model batch_size loss_weight_beat loss_weight_downbeat loss_weight_tempo "
          "fold sources bpfed path_base_dir path_track_dir path_bpf_feature_dir "
          "path_no_demixed_feature_dir path_metadata").split()  # fmt: skip


def test_settings_are_words_over_a_file(tmp_path):
    (tmp_path / "a.yaml").write_text("model: tcn\nsteps: 10\nsources: [drums]\n")
    settings = load_settings(["steps=20", "data=gtzan"], tmp_path / "a.yaml")
    assert (settings.model.model, settings.train.steps) == ("tcn", 20)
    assert (settings.features.sources, settings.data.data) == (("drums",), ("gtzan",))
    assert Settings.from_dict(settings.to_dict()) == settings
    assert changed(settings) == {
        "model": "tcn", "steps": 20, "sources": ["drums"], "data": ["gtzan"]}  # fmt: skip


def test_nothing_said_is_harmonix_fold_0_allinonetempo():
    settings = load_settings([])
    assert settings.data.data == ("harmonix",)
    assert (settings.train.fold, settings.model.model) == (0, "allinonetempo")
    assert changed(settings) == {}


def test_the_manuals_words_are_keys():
    assert set(MANUAL) <= load_settings([]).to_dict().keys()


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("learning_rate=1e-3", "learning_rate", 0.001),
        ("steps=2000", "steps", 2000),
        ("bpfed=True", "bpfed", True),
        ("sources=[bass, drums]", "sources", ["bass", "drums"]),
        ("sources=drums", "sources", ["drums"]),
        ("data=[a,b]", "data", ["a", "b"]),
        ("run_id=007", "run_id", "007"),
        ("run_id=1e3", "run_id", "1e3"),
        ("run_id='1e3'", "run_id", "1e3"),
        ('project_name="x-y"', "project_name", "x-y"),
        ("path_base_dir=/data/a=b", "path_base_dir", "/data/a=b"),
        ("path_track_dir=", "path_track_dir", ""),
        ("devices=2", "devices", "2"),
        ("precision=32", "precision", "32"),
    ],
)
def test_words_mean_what_they_say(word, key, value):
    assert load_settings([word]).to_dict()[key] == value


def test_a_file_may_give_numbers_for_texts(tmp_path):
    (tmp_path / "a.yaml").write_text("devices: 2\nprecision: 32\nrun_id: 12\nlearning_rate: 1e-3\n")
    train = load_settings([], tmp_path / "a.yaml").train
    assert (train.devices, train.precision, train.run_id) == ("2", "32", "12")
    assert train.learning_rate == 0.001


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bogus", "No such command 'bogus'; 'trainer --help' shows all options."),
        ("train --steps 5", "No such option: --steps; 'trainer train --help' shows all options."),
        ("check --jobs -1", "Invalid value for '--jobs': -1 is not in the range x>=1; "
         "'trainer check --help' shows all options."),
        ("synth /none/set --seed -1", "Invalid value for '--seed': -1 is not in the range x>=0; "
         "'trainer synth --help' shows all options."),
        ("train fold=abc", "fold=abc is not possible: it must be a number, a list or all."),
        ("eval --data . --model no.onnx", "There is no model file 'no.onnx'."),
        ("check data=/" + 50 * "long/", f"There is no data set folder '/{49 * 'long/'}long'; "
         "docs/datasets.md shows what belongs in it."),
    ],
)  # fmt: skip
def test_misuse_is_one_sentence_on_one_line(words, says, capsys):
    assert run(words.split()) == 2
    assert capsys.readouterr().err == f"error: {says}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["step=3"], "did you mean 'steps'"),
        (["batchsize=3"], "did you mean 'batch_size'"),
        (["source=[bass]"], "did you mean 'sources'"),
        (["deph=3"], "did you mean 'depth'"),
        (["zzz=3"], "docs/runs.md"),
        (["train.steps=3"], "did you mean 'steps'"),
        (["model"], "key=value"),
        (["=3"], "key=value"),
        (["steps=1", "steps=2"], "'steps' is given twice"),
        (["steps=many"], "steps='many' is not possible: it must be an integer"),
        (["steps='5'"], "integer"),
        (["steps=1.5"], "integer"),
        (["steps=null"], "integer"),
        (["steps=[1]"], "integer"),
        (["steps=-5"], "steps"),
        (["learning_rate=nan"], "finite"),
        (["bpfed=1"], "true or false"),
        (["sources=[bass"], "cannot be read"),
        (["sources=[1,2]"], "sources"),
        (["sources=[bass,piano]"], "sources"),
        (["bins=5"], "follows from"),
        (["run_id=../x"], "run_id"),
        (["run_id=a b"], "run_id"),
        (["project_name="], "project_name"),
        (["wandb=maybe"], "auto, online, offline, disabled"),
        (["precision=64"], "bf16-mixed"),
        (["devices=0,1"], "CUDA_VISIBLE_DEVICES"),
        (["positive_weight=0.5"], "1-1000"),
        (["loss=mse"], "shift_tolerant"),
        (["data="], "data=[] is not possible: it must be names or folders"),
        (["frames=1000000"], "200 to 180000"),
    ],
)
def test_bad_settings_are_named(words, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        load_settings(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train:\n  steps: 5\n", "side by side"),
        ("steps: 5\nsteps: 6\n", "cannot be read"),
        ("- steps\n", "key: value"),
        ("steps: [\n", "cannot be read"),
        ("steps: !!python/object/apply:os.system ['true']\n", "cannot be read"),
        ("run_id: null\n", "run_id"),
        ("stepz: 5\n", "did you mean 'steps'"),
    ],
)
def test_bad_files_are_named(tmp_path, text, says):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_settings([], tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings([], tmp_path / "none.yaml")


def test_several_folds(tmp_path):
    (tmp_path / "a.yaml").write_text("fold: [0, 3]\nrun_id: x\n")
    asked = load_folds(["steps=7"], tmp_path / "a.yaml")
    assert [(s.train.fold, s.train.run_id, s.train.steps) for s in asked] == [
        (0, "x-f0", 7), (3, "x-f3", 7)]  # fmt: skip
    assert [s.train.fold for s in load_folds(["fold=all"])] == list(range(8))
    assert [s.train.fold for s in load_folds(["fold=5"])] == [5]
    for words in (["fold=[]"], ["fold=[1,1]"], ["fold=some"], ["fold=[a]"]):
        with pytest.raises(ConfigError, match="fold"):
            load_folds(words)


def test_the_sweep_file_runs_our_command():
    sweep = OmegaConf.to_container(OmegaConf.load(ROOT / "trainer" / "sweeps" / "folds.yaml"))
    assert sweep["method"] == "grid"
    assert sweep["parameters"]["fold"]["values"] == list(range(8))
    command = sweep["command"]
    assert command[:3] == ["${env}", "trainer", "train"] and command[-1] == "${args_no_hyphens}"
    for fold in sweep["parameters"]["fold"]["values"]:  # as the agent fills in the words
        words = [*(w for w in command[3:] if "$" not in w), f"fold={fold}"]
        assert load_settings(words).train.fold == fold


def test_the_sweep_file_is_what_wandb_wants():
    schema = pytest.importorskip("wandb.sdk.launch.sweeps.utils", reason="wandb has moved it")
    if not hasattr(schema, "load_sweep_config"):
        pytest.skip("wandb has moved it")
    assert schema.load_sweep_config(str(ROOT / "trainer" / "sweeps" / "folds.yaml"))


def _documented():
    """Return key -> default of the settings table in docs/runs.md."""
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", (ROOT / "docs" / "runs.md").read_text(), re.M)
    return dict(rows)


def test_the_documented_settings_are_the_settings():
    kinds = (DataConfig, FeatureConfig, ModelConfig, AugmentConfig, TrainConfig)
    assert {type(v) for v in dataclasses.asdict(load_settings([])).values()} == {dict}
    keys = {f.name for kind in kinds for f in dataclasses.fields(kind)} - set(DERIVED)
    documented = _documented()
    assert documented.keys() <= keys
    assert {f.name for f in dataclasses.fields(TrainConfig)} <= documented.keys()
    usual = load_settings([]).to_dict()
    for key, text in documented.items():
        assert load_settings([f"{key}={text}"]).to_dict()[key] == usual[key], key
    for name, allowed in config_module.CHOICES.items():
        assert all(load_settings([f"{name}={value}"]) for value in allowed)
