"""The network: one function for whole sequences and streams, causal, whatever the blocks."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from beattrack.config import ModelConfig
from beattrack.model import BeatNetwork, allinone, attention, build_model
from beattrack.model.heads import FLUX_PEAK_FRAMES, flux_logit
from beattrack.model.streaming import causal_mean
from helpers_model import tiny_config, tiny_model

FRAMES = 150  # more than the tempo head's window, the longest look-back of a tiny network
NETWORKS = [
    pytest.param(tiny_config("tcn"), id="tcn"),
    pytest.param(tiny_config("tcn", 2), id="tcn-2"),
    pytest.param(tiny_config("allinonetempo"), id="allinonetempo"),
    pytest.param(tiny_config("allinonetempo", 2), id="allinonetempo-2"),
    pytest.param(tiny_config("tcn", bins=4), id="only-flux"),
    pytest.param(tiny_config("tcn", bins=5, flux_bins=0, flux_mix=0.0), id="only-spectrogram"),
    pytest.param(tiny_config("tcn", label_delay=0), id="no-delay"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> BeatNetwork:
    torch.manual_seed(2)
    return build_model(request.param).eval()


def frames(network: BeatNetwork, batch: int = 2, count: int = FRAMES) -> Tensor:
    """Random input in the range of real features, always the same."""
    config, generator = network.config, torch.Generator().manual_seed(3)
    return 2 * torch.rand(batch, config.channels, config.bins, count, generator=generator)


@torch.no_grad()
def stream(network: BeatNetwork, x: Tensor, size: int) -> dict[str, Tensor]:
    """Outputs of a fresh stream fed in blocks of ``size`` frames."""
    state = network.init_state(len(x))
    shapes = {k: (v.shape, v.dtype) for k, v in state.items()}
    parts = []
    for block in torch.split(x, size, dim=-1):
        outputs, state = network.step(block, state)
        assert {k: (v.shape, v.dtype) for k, v in state.items()} == shapes
        parts.append(outputs)
    return {k: torch.cat([p[k] for p in parts], dim=1) for k in parts[0]}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=tolerance)


@torch.no_grad()
def test_outputs_have_the_declared_shapes(network: BeatNetwork) -> None:
    outputs = network(frames(network))
    shapes = {key: tuple(value.shape) for key, value in outputs.items()}
    assert shapes == {
        "beat": (2, FRAMES),
        "downbeat": (2, FRAMES),
        "tempo": (2, FRAMES, network.config.tempo_bins),
    }
    assert all(value.dtype == torch.float32 for value in outputs.values())
    assert network.latency_frames == network.config.label_delay


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 7, 50, FRAMES])
def test_stream_equals_whole_sequence(network: BeatNetwork, size: int) -> None:
    x = frames(network)
    assert_same(stream(network, x, size), network(x))


@torch.no_grad()
def test_uneven_blocks_equal_whole_sequence(network: BeatNetwork) -> None:
    x = frames(network)
    state, parts = network.init_state(2), []
    for block in torch.split(x, [1, 2, 40, 1, 3, 100, 3], dim=-1):
        outputs, state = network.step(block, state)
        parts.append(outputs)
    assert_same({k: torch.cat([p[k] for p in parts], dim=1) for k in parts[0]}, network(x))


@torch.no_grad()
def test_same_twice_and_different_with_history(network: BeatNetwork) -> None:
    x = frames(network)
    assert_same(stream(network, x, 50), stream(network, x, 50), tolerance=0)
    state = network.init_state(2)
    fresh, state = network.step(x[..., :20], state)
    later, _ = network.step(x[..., :20], state)
    assert (fresh["downbeat"] - later["downbeat"]).abs().max() > 1e-4
    again, _ = network.step(x[..., :20], network.init_state(2))
    assert_same(fresh, again, tolerance=0)


@torch.no_grad()
def test_step_leaves_the_state_that_it_was_given(network: BeatNetwork) -> None:
    x = frames(network)
    _, state = network.step(x[..., :30], network.init_state(2))
    before = {key: value.clone() for key, value in state.items()}
    network.step(x[..., 30:60], state)
    assert all(torch.equal(before[key], state[key]) for key in before)


@torch.no_grad()
@pytest.mark.parametrize("now", [1, 40, FRAMES - 1])
def test_the_future_does_not_leak(network: BeatNetwork, now: int) -> None:
    x = frames(network)
    expected = network(x)
    x[..., now:] = math.nan
    outputs = network(x)
    assert_same(
        {k: v[:, :now] for k, v in outputs.items()}, {k: v[:, :now] for k, v in expected.items()}
    )


@torch.no_grad()
def test_streams_of_a_batch_do_not_mix(network: BeatNetwork) -> None:
    x = frames(network, batch=3)
    together = network(x)
    for i in range(3):
        assert_same({k: v[i : i + 1] for k, v in together.items()}, network(x[i : i + 1]))


def test_training_reaches_every_parameter(network: BeatNetwork) -> None:
    network.train()
    network(frames(network))["tempo"].square().mean().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None}
    assert idle == {"heads.beats.weight", "heads.beats.bias"}


def test_dropout_differs_in_training_and_streams_refuse_it(network: BeatNetwork) -> None:
    network.train()
    x = frames(network)
    assert not torch.equal(network(x)["tempo"], network(x)["tempo"])
    with pytest.raises(RuntimeError, match="eval"):
        network.step(x, network.init_state(2))


@pytest.mark.parametrize("shape", [(1, 2, 29), (1, 1, 3, 5), (1, 1, 29, 0), (1, 3, 29, 5)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        tiny_model("tcn")(torch.zeros(shape))


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch=0"):
        tiny_model("tcn").init_state(0)


def test_frame_counter_saturates() -> None:
    network = tiny_model("allinonetempo")
    state = network.init_state(1)
    for _ in range(4):
        _, state = network.step(frames(network, 1, 3), state)
    assert state["frames"].tolist() == [network.history] == [4]


def test_default_networks_are_of_the_size_that_was_measured() -> None:
    for model, least, most in (("tcn", 80_000, 100_000), ("allinonetempo", 90_000, 130_000)):
        count = sum(p.numel() for p in build_model(ModelConfig(model=model)).parameters())
        assert least < count < most


# Attention


def naive_attention(q: Tensor, k: Tensor, v: Tensor, kernel: int, dilation: int) -> Tensor:
    """The definition, one pair of frames at a time: float [dim, T] of one stream, no history."""
    half = attention.HALF
    out = torch.zeros_like(v)
    for head in range(0, len(q), attention.HEAD_DIM):
        rows = slice(head, head + attention.HEAD_DIM)
        for t in range(q.shape[1]):
            keys = [t - j * dilation for j in range(kernel) if t - j * dilation >= 0]
            logits = []
            for j, s in enumerate(keys):
                a, b = k[rows, s][:half], k[rows, s][half:]
                angle = -j * attention.ROTARY_BASE ** (-torch.arange(half) / half)
                turned = torch.cat((a * angle.cos() - b * angle.sin(),
                                    a * angle.sin() + b * angle.cos()))  # fmt: skip
                logits.append((q[rows, t] @ turned) / math.sqrt(attention.HEAD_DIM))
            weights = torch.softmax(torch.stack(logits), dim=0)
            out[rows, t] = sum(w * v[rows, s] for w, s in zip(weights, keys, strict=True))
    return out


def random_qkv(frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    q = torch.randn(2, 32, frames, generator=generator)
    return q, torch.randn(2, 64, frames, generator=generator)


def attend_whole(q: Tensor, kv: Tensor, kernel: int, dilation: int) -> Tensor:
    past = torch.zeros(*kv.shape[:2], (kernel - 1) * dilation)
    age = torch.arange(q.shape[-1])
    out: Tensor = attention.Slices(kernel, dilation)(q, torch.cat((past, kv), dim=-1), age)
    return out


@pytest.mark.parametrize(("kernel", "dilation"), [(5, 1), (5, 4), (2, 3), (3, 16)])
def test_slices_equal_the_definition(kernel: int, dilation: int) -> None:
    q, kv = random_qkv(24)
    out = attend_whole(q, kv, kernel, dilation)
    for i in range(2):
        expected = naive_attention(q[i], kv[i, :32], kv[i, 32:], kernel, dilation)
        torch.testing.assert_close(out[i], expected, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("frames", "dilation"), [(40, 1), (37, 4), (20, 8)])
def test_natten_equals_slices(frames: int, dilation: int) -> None:
    pytest.importorskip("natten")
    q, kv = random_qkv(frames)
    k, v = kv.chunk(2, dim=1)
    out = attention.attend_natten(q, k, v, 5, dilation)
    torch.testing.assert_close(out, attend_whole(q, kv, 5, dilation), rtol=0, atol=5e-6)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_network_through_natten_equals_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("natten")
    network = tiny_model("allinonetempo", 2)
    x = frames(network, 1, 40)
    expected = network(x)
    monkeypatch.setattr(allinone, "attention_backend", lambda device: "natten")
    assert_same(network(x), expected)


def test_natten_is_chosen_on_cuda_where_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert attention.attention_backend(cpu) == "slices"
    monkeypatch.setattr(attention, "_natten", lambda: math)
    assert attention.attention_backend(cuda) == "natten"
    monkeypatch.setattr(attention, "_natten", lambda: None)
    assert attention.attention_backend(cuda) == "slices"


# Parts


def test_causal_mean_is_the_mean_of_the_window() -> None:
    x = torch.randn(1, 2, 20)
    mean, cache = causal_mean(x, torch.zeros(1, 2, 7))
    padded = torch.cat((torch.zeros(1, 2, 7), x), dim=-1)
    torch.testing.assert_close(mean, padded.unfold(-1, 8, 1).mean(dim=-1))
    assert torch.equal(cache, x[..., -7:])


@torch.no_grad()
@pytest.mark.parametrize("label_delay", [0, 1, 2, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_flux_mix_adds_the_delayed_flux(label_delay: int, channels: int) -> None:
    alone = tiny_model("tcn", channels, flux_mix=0.0, label_delay=label_delay)
    mixed = build_model(dataclasses.replace(alone.config, flux_mix=0.25)).eval()
    mixed.load_state_dict(alone.state_dict())
    x = frames(alone)
    flux = x[:, :, -alone.config.flux_bins :].mean(dim=(1, 2))
    delay = max(0, label_delay - FLUX_PEAK_FRAMES)
    late = torch.cat((torch.zeros(2, delay), flux), dim=1)[:, :FRAMES]
    expected = alone(x)
    expected["beat"] = 0.75 * expected["beat"] + 0.25 * flux_logit(late)
    assert_same(mixed(x), expected)


@torch.no_grad()
def test_flux_peak_falls_on_the_label() -> None:
    network = tiny_model("tcn", flux_mix=1.0, label_delay=2)
    x = torch.zeros(1, 1, network.config.bins, 30)
    beat_frame = 10
    x[..., -network.config.flux_bins :, beat_frame + FLUX_PEAK_FRAMES] = 1
    assert int(network(x)["beat"].argmax()) == beat_frame + network.latency_frames
