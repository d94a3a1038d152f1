"""Weights files, and where they are: in a run, or on the hub.

A weights file is a safetensors file whose header says how to build the network around its tensors, so it loads alone.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from des4 import hub
from des4.engine import Checkpoints, EvalConfig
from des4.engine.checkpoint import is_checkpoint, read_checkpoint, read_meta, state_file
from des4.models import HeadName, ModelConfig, Segmenter, build_segmenter
from des4.runlog import replacing
from des4.types import Bands, Config, ConfigError, RunError, WeightsError


class WeightsInfo(Config):
    """What a weights file says of itself, enough to build the network and to name its output.

    image_size: (height, width) of the image of middle size among those it was trained on, as far as is known.
    image_pixels: of the smallest and of the largest of them.
    head: the classifier in use. tail: names of the rare classes of the list it was trained on. eval: how its images
    were segmented when it was scored. method: that trained it. oracle: with the true labels of unlabeled images.
    bands: what an image is made of; None: 8-bit RGB.
    """

    version: Literal[1] = 1
    model: ModelConfig
    head: HeadName
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    tail: tuple[str, ...]
    eval: EvalConfig
    method: str
    image_size: tuple[int, int] | None = None
    image_pixels: tuple[int, int] | None = None
    oracle: bool = False
    bands: Bands | None = None


def save_weights(path: Path, state: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Write a weights file as a whole: a crash leaves the old one or the new one. Raises RunError.

    state: of the segmenter, as its `state_dict` returns it.
    """
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    with replacing(path) as partial:  # not `save_file`, which leaves a file of its own behind when it is killed
        partial.write_bytes(save(tensors, {"des4": info.model_dump_json()}))


def weights_info(path: Path) -> WeightsInfo:
    """Read what a weights file, or a checkpoint of a run, says of its network, and no tensor of it.

    Raises WeightsError, or RunError for a damaged checkpoint.
    """
    if path.is_dir():
        return _parsed(path, json.dumps(_network(path)["info"]))
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("des4")
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as a weights file ({error})") from None
    if header is None:
        raise WeightsError(f"{path}: was not written by des4; an encoder's weights go into model.weights=PATH")
    return _parsed(path, header)


def _parsed(path: Path, header: str) -> WeightsInfo:
    try:
        return WeightsInfo.model_validate_json(header)
    except ValidationError as error:
        raise WeightsError(f"{path}: its header does not fit this version of des4 ({_first(error)})") from None


def _network(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint says of the headline's network: where its tensors are, and how it is built."""
    network = read_meta(checkpoint).get("network")
    if not network:
        raise WeightsError(
            f"{checkpoint}: was saved by a des4 that did not note the network in it; continue the run with "
            "des4 train --resume, and its next checkpoint will"
        )
    return dict(network)


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """Read a network's tensors from a weights file, or from the state of a whole training in a checkpoint."""
    if path.is_dir():
        start = f"method/{_network(path)['prefix']}."
        state = read_checkpoint(path).tensors
        return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as a weights file ({error})") from None


def weights_hash(path: Path) -> str:
    """Return the SHA-256 of a weights file, or of the state of a training in a run's checkpoint."""
    return hashlib.sha256((state_file(path) if path.is_dir() else path).read_bytes()).hexdigest()


def load_weights(path: Path) -> tuple[Segmenter, WeightsInfo]:
    """Build the network of a weights file, or of a run's checkpoint, in eval mode on the CPU.

    Raises WeightsError, or RunError for a damaged checkpoint.
    """
    info = weights_info(path)
    tensors = _tensors_of(path)
    try:
        segmenter = build_segmenter(info.model, len(info.classes), info.head, info.bands, pretrained=False)
        segmenter.load_state_dict(tensors)
    except (ConfigError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path}: its tensors do not fit its header ({reason})") from None
    return segmenter.eval(), info


@dataclass(frozen=True)
class Beginning:
    """A trained network as which others begin. path: it was read from."""

    path: Path
    info: WeightsInfo
    tensors: Mapping[str, Tensor]

    def put_into(self, segmenter: Segmenter, classes: tuple[str, ...], encoder_alone: bool = False) -> None:
        """Load encoder and decoder, and the classifier too if it is of the same kind and for the same classes.

        encoder_alone: load no more than that. Raises WeightsError for a network of another build.
        """
        own, taken = segmenter.state_dict(), {}
        same_classes = self.info.classes == classes
        fits = same_classes and _of_classifier(own) == _of_classifier(self.tensors)
        for name in own:
            if name.startswith("encoder.") or not (encoder_alone or (name.startswith(_CLASSIFIER) and not fits)):
                taken[name] = self.tensors.get(name)
        for name, tensor in taken.items():
            if tensor is None or tensor.shape != own[name].shape:
                ours = {key: value for key, value in self.info.model.model_dump().items() if key in _BUILD}
                raise WeightsError(
                    f"train.start_from={self.path}: holds another network ({name} differs); it was built with "
                    f"{' '.join(f'model.{key}={value}' for key, value in ours.items())}"
                )
        segmenter.load_state_dict(taken, strict=False)


_CLASSIFIER = ("head.", "decoder.embed.")
"""How names of the tensors begin that belong to a kind of classifier."""


def _of_classifier(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith(_CLASSIFIER)}


_BUILD = frozenset({"encoder", "output_stride", "channels", "low_channels", "embedding_dim"})
"""What shapes an encoder and a decoder."""


def beginning(source: str | Path) -> Beginning:
    """Read a network as which others are to begin, from a run or a weights file. Raises WeightsError or RunError."""
    path = weights_file(source)
    return Beginning(Path(source), weights_info(path), _tensors_of(path))


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def weights_file(source: str | Path) -> Path:
    """Return where a network's weights are: a weights file or a checkpoint as it is; of a run folder the newest; of an
    address on the hub, `hf://OWNER/NAME`, the copy of its file in the cache.

    Those are `weights/last.safetensors` of a finished run. One that was stopped, or is still being trained, has them in
    its newest checkpoint; which one that is, is told by a warning. Raises WeightsError, RunError or ConfigError.
    """
    if hub.is_address(source):
        return hub.fetch(source)
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"{path}: no such run folder or weights file")
    newest = path if is_checkpoint(path) else Checkpoints(path / "checkpoints").newest()
    last = path / "weights" / "last.safetensors"
    if newest is None or (path / "results.json").is_file():
        if not last.is_file():
            raise RunError(f"{path}: has no weights/last.safetensors and no checkpoint; is it a run folder, and has "
                           "the run come to its first checkpoint?")  # fmt: skip
        return last
    _say_where_it_stands(newest)
    return newest


def run_of(weights: Path) -> Path | None:
    """Return the run folder that weights lie in, as a weights file or a checkpoint; None if they lie in none."""
    place = weights.parent if weights.parent.name else weights.parent.absolute()  # named from inside that folder
    folder = place.parent
    inside = place.name in ("weights", "checkpoints")
    return folder if inside and (folder / "config.yaml").is_file() else None


def _say_where_it_stands(checkpoint: Path) -> None:
    meta, run = read_meta(checkpoint), run_of(checkpoint)
    step, steps = meta["step"], meta.get("steps")
    unfinished = run is not None and not (run / "results.json").is_file()
    text = f"{run or checkpoint}: the weights are those of step {step}" + (f" of {steps}" if steps else "")
    if unfinished:
        text += f", for the run has not finished; it goes on with: des4 train --resume {run}"
    warnings.warn(text, stacklevel=1)
