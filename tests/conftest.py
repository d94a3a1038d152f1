"""What all tests share: one thread, a tiny network, and a tiny batch that can be learnt."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from des4.methods import METHODS, Method, Setting, SupervisionConfig
from des4.models import HeadName, ModelConfig, Segmenter, build_segmenter
from des4.ops.mixing import draw_mix, join
from des4.types import IGNORE, Batch, CutMixPreset, Labeled, StrongView, Unlabeled

NUM_CLASSES = 4
PIXEL_COUNTS = torch.tensor([8000, 4000, 2000, 500])

MakeMethod = Callable[..., Method]
MakeSetting = Callable[..., Setting]
MakeBatch = Callable[..., Batch]
LoadScript = Callable[[str], ModuleType]

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="write the golden curves anew")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Float sums depend on the number of threads, and denormal floats of fresh networks make a CPU crawl."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def load_script(monkeypatch: pytest.MonkeyPatch) -> LoadScript:
    """Load a script that is in no package, as a module: `load_script("benchmarks/kills.py")`."""

    def load(place: str) -> ModuleType:
        path = ROOT / place
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)  # dataclasses look their module up
        monkeypatch.syspath_prepend(path.parent)  # as when the script runs: it may import what lies beside it
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def tiny_model() -> ModelConfig:
    """A network of 0.1 million parameters with maps at strides 4 and 16."""
    return ModelConfig(encoder="test_efficientnet", weights="none", channels=16, low_channels=8, embedding_dim=12)


@pytest.fixture
def make_setting(tiny_model: ModelConfig) -> MakeSetting:
    """Factory of what a method is built for: `make_setting(seed=1, model={"head": "prototype"})`."""

    def make(*, model: dict[str, object] | None = None, **changes: object) -> Setting:
        config = ModelConfig.model_validate({**tiny_model.model_dump(), **(model or {})})

        def make_segmenter(head: HeadName) -> Segmenter:
            return build_segmenter(config, NUM_CLASSES, head)

        setting = Setting(
            classes=("ground", "wall", "tree", "lamp"),
            pixel_counts=PIXEL_COUNTS,
            total_steps=20,
            num_labeled=4,
            num_unlabeled=16,
            seed=0,
            make_segmenter=make_segmenter,
            crop=(3, 33, 33),
        )
        return replace(setting, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_method(make_setting: MakeSetting) -> MakeMethod:
    """Factory of methods: `make_method("des4", model={"head": "prototype"}, decoupled=False)`."""

    def make(
        name: str,
        *,
        seed: int = 0,
        model: dict[str, object] | None = None,
        supervision: dict[str, object] | None = None,
        **settings: object,
    ) -> Method:
        torch.manual_seed(seed)
        cls = METHODS[name]
        config = SupervisionConfig.model_validate(supervision or {})
        return cls(cls.Config(**settings), make_setting(model=model, seed=seed, supervision=config)).train()

    return make


@pytest.fixture
def make_batch(request: pytest.FixtureRequest) -> MakeBatch:
    """Factory of batches whose classes are colours: blocks of 4 classes, an ignored corner, padding.

    There are as many strong views as the test's own method, its parameter `name`, asks for, and at least one.
    """
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    method = METHODS.get(parameters.get("name"))
    asked = max(1, method.VIEWS.strong if method else 1)
    palette = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.2, 0.3, 0.9], [0.8, 0.8, 0.2]])

    def make(
        seed: int = 0,
        *,
        size: int = 33,
        images: int = 2,
        cutmix: CutMixPreset = "french",
        group: int | None = None,
        views: int = asked,
    ) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def scene() -> tuple[Tensor, Tensor]:
            blocks = torch.randint(NUM_CLASSES, (images, 3, 3), generator=generator)
            label = blocks.repeat_interleave(size // 3 + 1, 1).repeat_interleave(size // 3 + 1, 2)[:, :size, :size]
            image = palette[label].movedim(-1, 1)
            return (image + 0.05 * torch.randn(image.shape, generator=generator)).clamp(0, 1), label

        image, label = scene()
        label = label.clone()
        label[:, : size // 4, : size // 4] = IGNORE
        weak, _ = scene()
        valid = torch.ones(images, size, size, dtype=torch.bool)
        valid[0, :, -size // 6 :] = False
        valid[1:, -size // 5 :] = False
        group, rng, strong = group or images, random.Random(seed), []
        for _ in range(views):
            view = (weak + 0.1 * torch.randn(weak.shape, generator=generator)).clamp(0, 1)
            boxes = join([draw_mix(cutmix, group, size, size, rng) for _ in range(images // group)])
            strong.append(StrongView(view, boxes))
        keys = torch.randint(2**62, (2, images), generator=generator)
        presets = method.VIEWS.recoloured if method else ()
        recoloured = tuple((image * (0.9 - 0.1 * n)).clamp(0, 1) for n in range(len(presets)))
        donor = None
        if method and method.VIEWS.donor_scale:
            donor = Labeled(*scene(), keys[0])
            donor.label[:, -size // 4 :, : size // 4] = IGNORE
        return Batch(
            Labeled(image, label, keys[0], recoloured=recoloured, donor=donor),
            Unlabeled(weak, tuple(strong), valid, keys[1]),
        )

    return make
