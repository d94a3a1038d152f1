"""Compiled networks against plain ones. Compiling takes a CPU long, so most tests here are slow ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._dynamo.utils import counters

from des4.methods import Method
from des4.models import ModelConfig, Segmenter, build_segmenter
from des4.models.compilation import compile_networks, cpp_compiler
from des4.models.training.ema import follow
from des4.types import ConfigError

Make = Callable[..., Any]

needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="torch.compile needs a C++ compiler: install g++")


def test_a_missing_compiler_is_a_config_error(tiny_model: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    segmenter = build_segmenter(tiny_model, 3, "linear")
    with pytest.raises(ConfigError, match=r"^train\.compile=true: .*C\+\+ compiler") as caught:
        compile_networks(segmenter)
    assert "\n" not in str(caught.value)
    assert segmenter(torch.rand(1, 3, 33, 33)).shape == (1, 3, 9, 9)


@pytest.fixture
def fresh() -> Any:
    """No variant compiled elsewhere counts here, and none of here elsewhere."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


def step(method: Method, batch: Any, optimiser: torch.optim.Optimizer) -> dict[str, float]:
    terms = method(batch)
    torch.stack(list(terms.values())).sum().backward()
    optimiser.step()
    optimiser.zero_grad()
    method.after_step()
    return {name: term.item() for name, term in terms.items()}


def sgd(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.003, momentum=0.9)


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", ["des4", "fixmatch"])
def test_a_training_compiles_each_variant_once(name: str, make_method: Make, make_batch: Make) -> None:
    """The teacher of DeS4 and the network of FixMatch change mode and gradients within a step."""
    method, plain = make_method(name), make_method(name)
    for segmenter in method.predictors().values():
        compile_networks(segmenter, backend="eager")
    optimiser, other = sgd(method), sgd(plain)
    counts = []
    for seed in range(4):
        assert step(method, make_batch(seed), optimiser) == step(plain, make_batch(seed), other)
        counts.append(graphs())
    # encoders: teacher, student. decoders: teacher without and with gradients, student. FixMatch: weak view, training.
    assert counts == [{"des4": 5, "fixmatch": 4}[name]] * 4
    method.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for size in (33, 40, 47):
            next(iter(method.predictors().values()))(torch.rand(1, 3, size, size))
    method.train()
    step(method, make_batch(4), optimiser)
    assert graphs() == counts[0]
    for (key, mine), theirs in zip(method.state_dict().items(), plain.state_dict().values(), strict=True):
        assert mine.shape == theirs.shape, key


@pytest.mark.slow
@needs_compiler
@pytest.mark.usefixtures("fresh")
def test_compiled_networks_compute_what_plain_ones_do(tiny_model: ModelConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = build_segmenter(tiny_model, 3, "prototype").train()
    compiled = copy.deepcopy(plain)
    compile_networks(compiled)
    image = torch.rand(2, 3, 33, 33)
    _assert_equal_passes(plain, compiled, [image, image])

    save_file({name: tensor.contiguous() for name, tensor in compiled.state_dict().items()}, tmp_path / "w.safetensors")
    _assert_close_states(load_file(tmp_path / "w.safetensors"), plain.state_dict())
    twin = copy.deepcopy(compiled)  # a plain one
    assert torch.equal(twin.eval()(image), plain.load_state_dict(twin.state_dict()) and plain.eval()(image))

    follow(compiled, build_segmenter(tiny_model, 3, "prototype"), 0.5)  # what is compiled reads the moved weights
    with torch.no_grad():
        expected = copy.deepcopy(compiled).eval()(image)
        torch.testing.assert_close(compiled.eval()(image), expected, rtol=1e-4, atol=1e-4)
    assert (expected - twin(image)).abs().max() > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
def test_a_compiled_network_may_recompute_its_activations(tiny_model: ModelConfig) -> None:
    """Its running statistics move once a pass, though the compiled block is the one that computes twice."""
    torch.manual_seed(0)
    plain = build_segmenter(tiny_model, 3, "prototype").train()
    compiled = build_segmenter(tiny_model.model_copy(update={"checkpointing": True}), 3, "prototype").train()
    compiled.load_state_dict(plain.state_dict())
    compile_networks(compiled, backend="aot_eager_decomp_partition")
    for seed in range(2):
        image = torch.rand(2, 3, 33, 33, generator=torch.Generator().manual_seed(seed))
        for segmenter in (plain, compiled):
            segmenter(image).square().mean().backward()
    assert graphs() == 2
    _assert_close_states(compiled.state_dict(), plain.state_dict())
    gradients = [{name: p.grad for name, p in segmenter.named_parameters()} for segmenter in (plain, compiled)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_transformer_compiles_to_one_graph_and_its_decoder_to_another(
    tiny_model: ModelConfig, checkpointing: bool
) -> None:
    torch.manual_seed(0)
    config = tiny_model.model_copy(update={"encoder": "test_vit", "checkpointing": checkpointing})
    plain = build_segmenter(tiny_model.model_copy(update={"encoder": "test_vit"}), 3, "prototype").train()
    compiled = build_segmenter(config, 3, "prototype").train()
    compiled.load_state_dict(plain.state_dict())
    compile_networks(compiled, backend="aot_eager")
    _assert_equal_passes(plain, compiled, [torch.rand(2, 3, 65, 97) for _ in range(2)])


def _assert_equal_passes(plain: Segmenter, compiled: Segmenter, images: list[Tensor]) -> None:
    """Run both on all images: outputs, gradients and buffers are close, and two graphs suffice."""
    for image in images:
        outputs = [segmenter(image) for segmenter in (plain, compiled)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
        for output in outputs:
            output.square().mean().backward()
    assert graphs() == 2
    gradients = [{name: p.grad for name, p in segmenter.named_parameters()} for segmenter in (plain, compiled)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)
    _assert_close_states(compiled.state_dict(), plain.state_dict())


def _assert_close_states(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
