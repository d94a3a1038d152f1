"""From a run to files for other programs. `FORMATS` says which there are and what each needs.

Every file is compared with the network it came from, on pictures of two further sizes, before it takes its name; what
was found is written into it.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import des4
from des4.engine import EvalConfig, segment_batch
from des4.export.folder import write_folder
from des4.export.network import TRACED, Deployed
from des4.models import Segmenter
from des4.ops.pixels import scaled, unit
from des4.types import Bands, ConfigError, RunError, UserError
from des4.weights import WeightsInfo, load_weights, weights_hash

Images = NDArray[Any]
"""(N, H, W, 3) uint8 RGB, or stored values of bands, uint8 or float32, as `Deployed` takes them."""
Run = Callable[[Images], tuple[NDArray[Any], NDArray[np.float32]]]
"""Images to labels (N, H, W) and probabilities (N, C, H, W)."""

CHECKED_SIZES = ((1, 97, 160), (3, 144, 75))
"""Images, height and width, different from the example that was followed."""
LARGEST_DIFFERENCE = 0.01
"""Of probabilities; a file that differs by more is not kept. Other sums in another order make about 1e-5."""
CALIBRATION_IMAGES = 16
"""Labeled images that say in which range the values of each layer lie, for int8."""


@dataclass(frozen=True)
class Model:
    """A trained network on its way out. path: of its weights or checkpoint. images: of its training data, for int8."""

    segmenter: Segmenter
    info: WeightsInfo
    path: Path
    images: Callable[[], Iterator[Images]]

    def deployed(self) -> Deployed:
        """The network as other programs get it."""
        return Deployed(self.segmenter, self.num_classes, self.info.bands)

    def example(self) -> torch.Tensor:
        """Images of no particular content, for exporters to follow."""
        bands = self.info.bands
        dtype = torch.uint8 if bands is None or bands.are_bytes else torch.float32
        return torch.zeros(*TRACED, len(bands.numbers) if bands else 3, dtype=dtype)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.info.classes)

    def about(self) -> dict[str, Any]:
        """What every exported file says of itself, in plain values."""
        return {
            "des4": des4.__version__,
            "method": self.info.method,
            "encoder": self.info.model.encoder,
            "classes": list(self.info.classes),
            "palette": [list(colour) for colour in self.info.palette],
            "eval": self.info.eval.model_dump(mode="json"),
            "image_size": list(self.info.image_size) if self.info.image_size else None,
            "input": _input(self.info.bands),
            **({"bands": self.info.bands.model_dump(mode="json")} if self.info.bands else {}),
            "output": "labels: (N, H, W) class indices; probs: (N, C, H, W)",
            "mean": self.segmenter.mean.tolist(),
            "std": self.segmenter.std.tolist(),
            "weights_sha256": weights_hash(self.path),
        }


@dataclass(frozen=True)
class Format:
    """A kind of file. name: of the file, or folder. needs: modules, and the extra that brings them.

    after: the format that it is made from. holds: the names of the files, of a folder.
    """

    name: str
    write: Callable[[Model, Path], None]
    needs: tuple[str, ...] = ()
    extra: str = ""
    after: str = ""
    holds: tuple[str, ...] = ()


def export_model(
    weights: Path,
    out: Path,
    formats: Sequence[str] = ("onnx",),
    *,
    overwrite: bool = False,
    images: Callable[[], Iterator[Images]] | None = None,
) -> list[Path]:
    """Write a network in several formats into a folder, and return the paths.

    formats: names in FORMATS; what one is made from is written too. images: (H, W, 3) of the training data, which int8
    needs. Raises ConfigError for an unknown format or a missing extra, RunError for files that are there already or
    cannot be written, WeightsError.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ConfigError(f"{', '.join(unknown)}: no such format; there are {', '.join(FORMATS)}")
    for name in formats:  # before a look at what is there, for which some of it is needed
        require(name)
    wanted = _with_their_sources(formats, lambda name: _is_of(out / FORMATS[name].name, weights))
    for name in wanted:
        require(name)
        if (path := out / FORMATS[name].name).exists() and not overwrite:
            raise RunError(f"{path} exists; replace it with --overwrite, or choose another folder with --out")
        if path.is_dir() and not {file.name for file in path.iterdir()} <= set(FORMATS[name].holds):
            raise RunError(f"{path} holds other files than an export writes, so --overwrite leaves it alone; choose "
                           "another folder with --out")  # fmt: skip
    if "int8" in wanted and images is None:
        raise ConfigError("int8 needs images of the training data; export a run folder, or say where with data=FOLDER")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; choose a folder with --out")
    segmenter, info = load_weights(weights)
    model = Model(segmenter, info, weights, images or (lambda: iter(())))
    paths = []
    for name in wanted:
        path = out / FORMATS[name].name
        partial = out / f".partial-{FORMATS[name].name}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            _remove(partial)
            with _quiet():
                FORMATS[name].write(model, partial)
            _remove(path)
            partial.replace(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None
        except UserError:
            raise
        except Exception as error:  # exporters raise whatever they come upon
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise RunError(f"{path}: this network cannot be written so ({reason}); try another format, or an encoder "
                           "that docs/export.md names") from error  # fmt: skip
        finally:
            _remove(partial)
        paths.append(path)
    return paths


def _input(bands: Bands | None) -> str:
    if bands is None:
        return "image: (N, H, W, 3) uint8 RGB, any N, H and W; the normalisation is part of the network"
    dtype = "uint8" if bands.are_bytes else "float32"
    return (
        f"image: (N, H, W, {len(bands.numbers)}) {dtype}, the values of bands {', '.join(map(str, bands.numbers))} as "
        "files hold them, any N, H and W; scale and normalisation are part of the network"
    )


def _with_their_sources(formats: Sequence[str], is_there: Callable[[str], bool]) -> list[str]:
    """List formats in the order in which they are made, with those that they are made from and that are not there."""
    sources = {FORMATS[name].after for name in formats} - {""}
    needed = {*formats, *(name for name in sources if not is_there(name))}
    return [name for name in FORMATS if name in needed]


def require(name: str) -> None:
    """Raise ConfigError if a module is missing that a format needs."""
    form = FORMATS[name]
    for module in form.needs:
        try:
            import_module(module)
        except ImportError:
            raise ConfigError(f'{name}: needs {module}; pip install "des4[{form.extra}]"') from None


def _is_of(path: Path, weights: Path) -> bool:
    """Whether an ONNX file is there and was made from these weights."""
    return path.is_file() and made_from(path) == weights_hash(weights)


def made_from(path: Path) -> str | None:
    """Return the SHA-256 of the weights that an ONNX file, or a folder of OpenVINO, was made from.

    None: it does not say, or is damaged.
    """
    import onnx

    try:
        if path.is_dir():
            told = json.loads((path / "model.json").read_text(encoding="utf-8"))
        else:
            told = {prop.key: prop.value for prop in onnx.load(str(path)).metadata_props}
        return str(told["weights_sha256"])
    except Exception:  # of protobuf too, which raises its own
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, exporters keep their advice to their own developers to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "root")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# ── parity ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def parity(segmenter: Segmenter, run: Run, bands: Bands | None = None, *, strict: bool = True) -> list[dict[str, Any]]:
    """Compare what an exported file says with what the network says, on random pictures of two further sizes.

    Returns for each size the largest difference of probabilities and the share of equal labels. strict: raise RunError
    where they differ by more than rounding.
    """
    torch.manual_seed(0)
    found = []
    for size in CHECKED_SIZES:
        coarse = torch.rand(size[0], len(bands.numbers) if bands else 3, 5, 7)  # smooth, as pictures are
        smooth = torch.nn.functional.interpolate(coarse, size[1:], mode="bilinear").movedim(1, -1)
        if bands is None or bands.are_bytes:
            given = (smooth * 255).byte()
            seen = unit(given)
        else:
            low, high = torch.tensor(bands.ranges).unbind(1)
            given = low + smooth * (high - low)
            seen = scaled(given, bands.ranges)
        seen, image = seen.movedim(-1, 1), given.numpy()
        probs = segment_batch(segmenter, seen, EvalConfig()).numpy()
        labels = probs.argmax(1)
        their_labels, their_probs = run(image)
        difference = float(np.abs(probs - their_probs).max())
        if strict and not difference <= LARGEST_DIFFERENCE:
            raise RunError(
                f"the exported network differs from the trained one by {difference:.3g} in a probability "
                f"at {size[2]}×{size[1]} pixels, and was not kept; try another version of torch"
            )
        equal = float((labels == their_labels).mean())
        found.append({"size": list(size), "largest_difference": difference, "equal_labels": equal})
    return found


# ── ONNX ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def onnx_session(path: Path, threads: int = 0) -> Run:
    """Return what runs an ONNX file on the CPU. threads: 0 = as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Images) -> tuple[NDArray[Any], NDArray[np.float32]]:
        labels, probs = session.run(["labels", "probs"], {"image": images})
        return labels, probs

    return run


def _write_onnx(model: Model, path: Path) -> None:
    program = torch.onnx.export(
        model.deployed(),
        (model.example(),),
        dynamo=True,
        input_names=["image"],
        output_names=["labels", "probs"],
        dynamic_shapes={"image": {0: "batch", 1: "height", 2: "width"}},
        verbose=False,
    )
    assert program is not None  # noqa: S101  # as with dynamo=True
    program.save(str(path), external_data=False)
    _describe_onnx(path, {**model.about(), "parity": parity(model.segmenter, onnx_session(path), model.info.bands)})


def _write_int8(model: Model, path: Path) -> None:
    """Quantise convolutions to 8 bits, by the ranges that values have on training images (static, one scale a channel).

    The first one stays as it is: with the image itself in few steps, what follows goes wrong (docs/export.md), and it
    takes little time. onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = model.images()

        def get_next(self) -> dict[str, Images] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image[None]}

    source = str(path.with_name(FORMATS["onnx"].name))
    first = next((node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"), None)
    quantization.quantize_static(
        source,
        str(path),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[first] if first else [],
        per_channel=True,
    )
    found = parity(model.segmenter, onnx_session(path), model.info.bands, strict=False)
    _describe_onnx(
        path, {**model.about(), "parity": found, "quantised": "int8, convolutions but the first, one scale a channel"}
    )


def _describe_onnx(path: Path, about: Mapping[str, Any]) -> None:
    """Write into the file's metadata; values other than text as JSON."""
    import onnx

    file = onnx.load(str(path))
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
    onnx.helper.set_model_props(file, plain)
    onnx.save(file, str(path))


# ── the others ───────────────────────────────────────────────────────────────────────────────────────────────────────


def exported_program(model: Model) -> torch.export.ExportedProgram:
    """Return a network as torch.export follows it."""
    dynamic = torch.export.Dim.DYNAMIC
    with _quiet():
        return torch.export.export(
            model.deployed(),
            (model.example(),),
            dynamic_shapes={"image": {0: dynamic, 1: dynamic, 2: dynamic}},
        )


def program_run(program: torch.export.ExportedProgram) -> Run:
    """Return what runs an exported program on the CPU."""
    network = program.module()

    def run(images: Images) -> tuple[NDArray[Any], NDArray[np.float32]]:
        with torch.no_grad():
            labels, probs = network(torch.from_numpy(images))
        return labels.numpy(), probs.numpy()

    return run


def _write_torch(model: Model, path: Path) -> None:
    program = exported_program(model)
    about = {**model.about(), "parity": parity(model.segmenter, program_run(program), model.info.bands)}
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"des4.json": json.dumps(about)})


def openvino_session(path: Path, threads: int = 0) -> Run:
    """Return what runs an OpenVINO model on the CPU. threads: 0 = as many as OpenVINO thinks best."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    compiled = core.compile_model(str(path), "CPU", options)

    def run(images: Images) -> tuple[NDArray[Any], NDArray[np.float32]]:
        results = compiled({"image": images})
        return results["labels"], results["probs"]

    return run


def _write_openvino(model: Model, path: Path) -> None:
    import openvino

    path.mkdir()
    network = openvino.convert_model(str(path.with_name(FORMATS["onnx"].name)))
    file = path / "model.xml"
    openvino.save_model(network, str(file), compress_to_fp16=False)
    found = parity(model.segmenter, openvino_session(file), model.info.bands)
    about = {**model.about(), "parity": found}
    (path / "model.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_safetensors(model: Model, path: Path) -> None:
    path.mkdir()
    write_folder(path, model.path, model.segmenter, model.info)


FORMATS: dict[str, Format] = {
    "onnx": Format("model.onnx", _write_onnx, ("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "int8": Format("model.int8.onnx", _write_int8, ("onnx", "onnxruntime"), "onnx", after="onnx"),
    "openvino": Format(
        "openvino",
        _write_openvino,
        ("onnx", "openvino"),
        "onnx,openvino",
        "onnx",
        ("model.xml", "model.bin", "model.json"),
    ),
    "torch": Format("model.pt2", _write_torch),
    "safetensors": Format(
        "safetensors", _write_safetensors, holds=("model.safetensors", "config.json", "classes.txt", "README.md")
    ),
}
"""Name → kind of file, in the order in which they are made."""
