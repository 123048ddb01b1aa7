import numpy as np
import pytest

from beattrack.config import FeatureConfig
from beattrack.features import FeatureStream, compute, feature_bins, flux_bins, spectrum_bands
from beattrack.filterbank import fft_frequencies, log_filterbank

CONFIGS = {
    "logspec": FeatureConfig(kind="logspec"),
    "flux": FeatureConfig(kind="flux"),
    "both": FeatureConfig(),
    "bpfed": FeatureConfig(bpfed=True, sources=("bass", "drums", "vocals", "others")),
    "44k": FeatureConfig(sample_rate=44100, hop=882, window=2048, fmax=17000.0),
}


@pytest.fixture(params=CONFIGS, name="config")
def _config(request):
    return CONFIGS[request.param]


@pytest.fixture(name="audio")
def _audio():
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(60000) * np.repeat(rng.random(60), 1000)
    return (0.3 * noise).astype(np.float32)


def stream(config, audio, block):
    features = FeatureStream(config)
    parts = [features.push(audio[i : i + block]) for i in range(0, len(audio), block)]
    return np.concatenate(parts)


def test_shape_and_type(config, audio):
    frames = compute(audio, config)
    assert frames.dtype == np.float32
    assert frames.shape == (len(audio) // config.hop, config.channels, feature_bins(config))
    assert np.isfinite(frames).all()
    assert frames.min() >= 0


@pytest.mark.parametrize("block", [160, 441, 1000, 48000])
def test_streaming_equals_whole(config, audio, block):
    np.testing.assert_allclose(stream(config, audio, block), compute(audio, config), atol=1e-6)


def test_streaming_sample_by_sample_equals_whole(config, audio):
    audio = audio[:5000]
    np.testing.assert_allclose(stream(config, audio, 1), compute(audio, config), atol=1e-6)


def test_twice_is_the_same_and_reset_resets(config, audio):
    features = FeatureStream(config)
    first = features.push(audio)
    again = features.push(audio)
    assert not np.array_equal(first, again)  # it remembered
    features.reset()
    assert np.array_equal(features.push(audio), first)


def test_frames_do_not_look_ahead(config, audio):
    frame = 40
    end = (frame + 1) * config.hop
    changed = audio.copy()
    changed[end:] = np.nan
    assert np.array_equal(compute(changed[: end + 5000], config)[: frame + 1],
                          compute(audio, config)[: frame + 1])  # fmt: skip
    # and it does use the sample just before its end, if only with a small window weight
    changed = audio.copy()
    changed[end - 20 : end] += 1000
    assert not np.array_equal(compute(changed, config)[frame], compute(audio, config)[frame])


def test_silence_and_empty_input(config):
    assert not compute(np.zeros(20000, np.float32), config).any()
    assert compute(np.zeros(0, np.float32), config).shape[0] == 0
    assert compute(np.zeros(3, np.float32), config).shape[0] == 0


def test_a_full_scale_sine_has_magnitude_one():
    config = FeatureConfig(kind="logspec")
    frequency = fft_frequencies(config.window, config.sample_rate)[200]
    sine = np.sin(2 * np.pi * frequency * np.arange(22050) / 22050).astype(np.float32)
    spectrum = (10 ** compute(sine, config)[-1, 0] - 1) / config.log_mul
    bank = log_filterbank(2048, 22050, 12, 30, 10000)
    leak = bank[200] + 0.5 * (bank[199] + bank[201])  # the Hann window's main lobe
    np.testing.assert_allclose(spectrum, leak, atol=2e-3)


def test_flux_peaks_two_frames_after_an_onset():
    config = FeatureConfig(kind="flux")
    rng = np.random.default_rng(0)
    audio = (0.05 * rng.standard_normal(22050 * 4)).astype(np.float32)
    onset_frame = 150
    at = onset_frame * config.hop + config.hop // 2
    audio[at : at + 4000] += 0.3 * rng.standard_normal(4000).astype(np.float32)
    mean = compute(audio, config).mean(axis=(1, 2))
    assert mean[20:].argmax() + 20 - onset_frame == 2


def test_flux_hardly_depends_on_level(audio):
    config = FeatureConfig(kind="flux")
    loud, soft = compute(audio, config), compute(audio * 0.3, config)
    assert np.corrcoef(loud.ravel(), soft.ravel())[0, 1] > 0.98
    assert 0.8 < soft[20:].mean() / loud[20:].mean() < 1.2


def test_bpfed_channels_follow_their_instruments():
    config = FeatureConfig(kind="logspec", bpfed=True, sources=("bass", "drums"))
    t = np.arange(22050) / 22050
    low = compute((0.5 * np.sin(2 * np.pi * 60 * t)).astype(np.float32), config)[-1]
    high = compute((0.5 * np.sin(2 * np.pi * 6000 * t)).astype(np.float32), config)[-1]
    bass, drums = 0, 1
    assert low[bass].sum() / low[drums].sum() > 2 * high[bass].sum() / high[drums].sum()
    assert high[drums].sum() > high[bass].sum()


def test_bins_add_up():
    config = FeatureConfig()
    assert feature_bins(config) == spectrum_bands(config) + flux_bins(config)
    assert 81 <= spectrum_bands(config) <= 83
    assert flux_bins(FeatureConfig(kind="logspec")) == 0


def test_more_flux_bands_than_bands_is_refused():
    with pytest.raises(ValueError, match="flux_bands=64"):
        FeatureStream(FeatureConfig(flux_bands=64, bands_per_octave=3, fmin=200, fmax=2000))


@pytest.mark.parametrize(
    ("window", "rate", "bands", "fmin", "fmax"),
    [(2048, 22050, 12, 30, 10000), (2048, 44100, 12, 30, 17000), (1024, 44100, 6, 27.5, 16000)],
)
def test_filterbank_agrees_with_madmom(window, rate, bands, fmin, fmax):
    filters = pytest.importorskip("madmom.audio.filters", reason="madmom is not installed")
    oracle = filters.LogarithmicFilterbank(
        fft_frequencies(window, rate), num_bands=bands, fmin=fmin, fmax=fmax, norm_filters=True
    )
    ours = log_filterbank(window, rate, bands, fmin, fmax)
    assert ours.shape == oracle.shape
    np.testing.assert_allclose(ours, np.asarray(oracle), atol=1e-6)


def test_log_spectrogram_agrees_with_madmom(audio):
    spectrogram = pytest.importorskip("madmom.audio.spectrogram", reason="madmom is missing")
    signal = pytest.importorskip("madmom.audio.signal")
    config = FeatureConfig(kind="logspec")
    # madmom's frame with origin "future" starts at its hop; ours ends one hop after it.
    pad = config.window - config.hop
    frames = signal.FramedSignal(
        signal.Signal(np.concatenate([np.zeros(pad, np.float32), audio]), sample_rate=22050),
        frame_size=config.window, hop_size=config.hop, origin="future",
    )  # fmt: skip
    window = np.hanning(config.window + 1)[:-1]
    oracle = spectrogram.LogarithmicFilteredSpectrogram(
        frames, num_bands=12, fmin=30, fmax=10000, norm_filters=True, window=window,
        mul=config.log_mul * 2 / window.sum(), add=1,
    )  # fmt: skip
    ours = compute(audio, config)[:, 0]
    count = min(len(ours), len(oracle)) - 1
    np.testing.assert_allclose(ours[:count], np.asarray(oracle)[:count], atol=2e-4)
