import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beattrack.config import ConfigError, DecoderConfig, FeatureConfig, ModelConfig

CONFIGS = (FeatureConfig, ModelConfig, DecoderConfig)


@pytest.mark.parametrize("kind", CONFIGS)
def test_json_round_trip(kind):
    config = kind()
    assert kind.from_json(config.to_json()) == config
    assert kind.from_json(config.to_json()).to_json() == config.to_json()


def test_changed_values_survive_the_round_trip():
    config = FeatureConfig(bpfed=True, sources=("vocals", "others"), kind="flux", hop=512)
    assert FeatureConfig.from_json(config.to_json()) == config


def test_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="bpfd.*did you mean 'bpfed'"):
        FeatureConfig.from_dict({"bpfd": True})


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (FeatureConfig, {"hop": "441"}, "hop.*integer"),
        (FeatureConfig, {"hop": True}, "hop.*integer"),
        (FeatureConfig, {"hop": 0}, "hop"),
        (FeatureConfig, {"fmax": 12000}, "fmax.*11025"),
        (FeatureConfig, {"sources": ["bass", "bass"]}, "sources.*different"),
        (FeatureConfig, {"sources": ["kazoo"]}, "sources.*drums"),
        (FeatureConfig, {"sources": "bass"}, "sources.*list"),
        (FeatureConfig, {"log_mul": float("nan")}, "log_mul.*finite"),
        (ModelConfig, {"model": "rnn"}, "model.*allinonetempo"),
        (ModelConfig, {"dim": 20}, "dim.*16"),
        (ModelConfig, {"flux_bins": 0, "flux_mix": 0.5}, "flux_mix"),
        (DecoderConfig, {"min_bpm": 200, "max_bpm": 100}, "min_bpm"),
        (DecoderConfig, {"min_bpm": 100, "max_bpm": 101}, "max_bpm"),
        (DecoderConfig, {"min_bpm": 20, "max_bpm": 400, "beats_per_bar": [7, 12]}, "real time"),
        (DecoderConfig, {"beats_per_bar": []}, "beats_per_bar"),
        (DecoderConfig, {"beats_per_bar": [4.0]}, "beats_per_bar.*int"),
    ],
)
def test_bad_values_are_named(kind, values, says):
    with pytest.raises(ConfigError, match=says):
        kind.from_dict(values)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"x"', "[" * 100000])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(ConfigError):
        FeatureConfig.from_json(text)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(CONFIGS), st.data())
def test_any_json_gives_a_config_or_one_sentence(kind, data):
    keys = [*kind().to_dict(), "other"]
    values = data.draw(st.dictionaries(st.sampled_from(keys), _json, max_size=3))
    try:
        config = kind.from_dict(values)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert kind.from_json(config.to_json()) == config
