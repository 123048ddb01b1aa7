"""The trainer's settings: defaults, then a file, then words."""

import pytest

from beattrack.config import ConfigError
from beattrack_trainer.config import Settings, load_settings


def test_settings_are_words_over_a_file(tmp_path):
    (tmp_path / "a.yaml").write_text("model: tcn\nsteps: 10\nsources: [drums]\n")
    settings = load_settings(["steps=20", "data=gtzan"], tmp_path / "a.yaml")
    assert (settings.model.model, settings.train.steps) == ("tcn", 20)
    assert (settings.features.sources, settings.data.data) == (("drums",), ("gtzan",))
    assert Settings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["step=3"], "did you mean 'steps'"),
        (["model"], "key=value"),
        (["steps=many"], "steps"),
        (["steps=-5"], "steps"),
        (["sources=[bass"], "cannot be read"),
        (["bins=5"], "follows from"),
    ],
)
def test_bad_settings_are_named(words, says):
    with pytest.raises(ConfigError, match=says):
        load_settings(words)
