"""RunConfig: the settings of all components put together, read from YAML and `key=value`.

A config is data: YAML is read with `yaml.safe_load`, names are looked up in the registries, and nothing is imported.
Relative paths inside a config are relative to the current working directory, as on a command line.

Keys are dotted (`train.steps`). A name that only one section knows may stand alone (`steps`), in a file's top level as
on the command line; these shorthands exist too:

- `method=des4` is `method.name=des4`;
- `data=scenes` is `data.name=scenes`, and `data=PATH` is `data.root=PATH` with the name of the format that this folder
  is laid out in, unless `data.name` is given as well;
- `model=resnet101` is `model.encoder=resnet101`;
- `seed=1` is `train.seed=1`, though data sets have seeds of their own.

A `data.root` without a name is recognised by its layout too.

Another `method.name` or `data.name` starts that section afresh: the settings of one method mean nothing to the next.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from des4.data import BalanceConfig, ViewsConfig
from des4.datasets import DATASETS, FORMATS, DataConfig, recognise
from des4.engine import EvalConfig, GuardConfig, OptimConfig, TrainConfig
from des4.methods import METHODS, SupervisionConfig
from des4.models import ModelConfig
from des4.types import Config, ConfigError

if TYPE_CHECKING:
    from des4.methods.base import MethodConfig as CommonConfig

    class MethodConfig(CommonConfig):
        """What every method's Config has."""

        name: str

else:
    MethodConfig = Annotated[Union[tuple(cls.Config for cls in METHODS.values())], Field(discriminator="name")]  # noqa: UP007

Tree = dict[str, Any]
Overrides = Mapping[str, Any] | Sequence[str]

DEFAULT_BATCH = 16
"""Labeled images of a step for `train.batch_size: auto`, where no `optim.reference_batch` says another number."""
MAX_BYTES = 1 << 18
MAX_DEPTH = 16


class RunConfig(Config):
    """Everything a run depends on."""

    method: MethodConfig
    """One of the *Method* sections, chosen by `name`."""
    data: DataConfig
    """One of the *Data* sections, chosen by `name`."""
    views: ViewsConfig = ViewsConfig()
    """How training crops are made."""
    model: ModelConfig = ModelConfig()
    """The network."""
    supervision: SupervisionConfig = SupervisionConfig()
    """What cross-entropies do about rare classes and easy pixels."""
    balance: BalanceConfig = BalanceConfig()
    """How much more often labeled images show rare classes."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and schedule."""
    train: TrainConfig = TrainConfig()
    """Length, batch, device."""
    guard: GuardConfig = GuardConfig()
    """What is watched of unlabeled images."""
    eval: EvalConfig = EvalConfig()
    """How images are segmented for evaluation and prediction."""
    out: Path | None = None
    """The run folder; `null`: the next free `runs/<method>-<n>` of the current directory."""

    @model_validator(mode="before")
    @classmethod
    def _auto_batch(cls, tree: Any) -> Any:
        """Put numbers in the place of `train.batch_size: auto`, whatever memory there is: the recipe stays one."""
        train = tree.get("train") if isinstance(tree, dict) else None
        if not isinstance(train, dict) or train.get("batch_size") != "auto":
            return tree
        optim = tree.get("optim")
        batch = (optim.get("reference_batch") if isinstance(optim, dict) else None) or DEFAULT_BATCH
        return {**tree, "train": {"accumulate": "auto", **train, "batch_size": batch}}


Source = str | Path | Mapping[str, Any] | RunConfig
"""Where settings come from."""


def load_config(source: Source | Sequence[Source], overrides: Overrides = ()) -> RunConfig:
    """Read a config and apply overrides to it.

    source: a YAML file's path, a mapping of the same shape, or a config; or several of these, each of which overrides
        those before it.
    overrides: `{"train.steps": 100}`, or `["train.steps=100"]` with the values written as YAML.
    Raises ConfigError, which lists every mistake with its dotted key.
    """
    errors: list[str] = []
    sources = [source] if isinstance(source, str | Path | Mapping | RunConfig) else source
    tree = _gather(sources, overrides, errors)
    if isinstance(data := tree.get("data"), dict):
        data.setdefault("name", recognise(Path(str(data.get("root")))))
    config = None
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        known = {line.partition(":")[0] for line in errors}  # what is empty is not missing as well
        errors += [m for m in _messages(error.errors(include_url=False), tree) if m.partition(":")[0] not in known]
    if errors or config is None:
        raise ConfigError("\n".join(errors))
    return config


def given_settings(source: str | Path | Mapping[str, Any] | RunConfig, overrides: Overrides = ()) -> dict[str, Any]:
    """Return what a file and overrides say, by dotted key: nothing is filled in, and no value is checked.

    Raises ConfigError for keys that there are not, and for what is no YAML.
    """
    errors: list[str] = []
    tree = _gather([source], overrides, errors)
    if errors:
        raise ConfigError("\n".join(errors))
    if isinstance(data := tree.get("data"), dict) and data.get("root") is not None:
        data.setdefault("name", recognise(Path(str(data["root"]))))
    return dict(_leaves(tree))


def dump(config: RunConfig) -> Tree:
    """Return the effective config, defaults included, as plain YAML data; `load_config(dump(c)) == c`."""
    return config.model_dump(mode="json")


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Write settings of plain data as `key=value`, which `load_config` reads back as they are."""

    def written(key: str, value: Any) -> str:
        plain = isinstance(value, str) and _parse([f"{key}={value}"], []) == [(key, value)]
        return value if plain else json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    return [f"{key}={written(key, value)}" for key, value in settings.items()]


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """List the settings that differ, as `train.steps: 100 -> 200`."""
    return changes(dump(old), dump(new))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List what differs between two trees of plain data, as `differences` does."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    keys = sorted(before.keys() | after.keys())
    return [f"{k}: {before.get(k)} -> {after.get(k)}" for k in keys if before.get(k) != after.get(k)]


def newer_settings(saved: Mapping[str, Any], config: RunConfig) -> list[str]:
    """List the settings of a config that an older one, as it was saved, does not know."""
    known = dict(_leaves(saved))
    return [key for key, _ in _leaves(dump(config)) if key not in known]


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _gather(sources: Iterable[Source], overrides: Overrides, errors: list[str]) -> Tree:
    """Put together what sources and then overrides say, each over those before it."""
    tree: Tree = {}
    for source in sources:
        _apply(tree, _read(source).items(), errors)
    _apply(tree, overrides.items() if isinstance(overrides, Mapping) else _parse(overrides, errors), errors)
    for section in ("method", "data"):
        given = tree.get(section)
        if isinstance(given, dict) and "name" in given and not given["name"] and given.get("root") is None:
            errors.append(f"{section}: is empty; {_needed(section)}")  # as where a shell's variable is not set
            del tree[section]
    return tree


def _read(source: Source) -> Mapping[str, Any]:
    if isinstance(source, RunConfig):
        return dump(source)
    return source if isinstance(source, Mapping) else read_yaml(Path(source))


def read_yaml(path: Path) -> Tree:
    """Read a YAML file that holds a mapping, as data. Raises ConfigError."""
    if path.is_dir():
        given = shlex.quote(f"data={path}")
        raise ConfigError(f"{path}: cannot read this config file: it is a folder; a data folder is given as {given}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: a config file holds at most {MAX_BYTES // 1024} KiB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot read this config file: {reason}") from None
    tree = _yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of sections such as `method:` and `data:`")
    return tree


def _parse(overrides: Iterable[str], errors: list[str]) -> list[tuple[str, Any]]:
    """Split `key=value` arguments; the values are YAML."""
    pairs = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            errors.append(f"{text}: not of the form key=value")
            continue
        try:
            key, given = key.strip(), _yaml(value, key)
            if _names_place(key, given):
                given = value.strip()
            if key in PATH_KEYS and isinstance(given, str) and given.startswith("~/"):
                given = str(Path(given).expanduser())  # shells leave it in the middle of an argument
            pairs.append((key, given))
        except ConfigError as error:
            errors.append(str(error))
    return pairs


def _names_place(key: str, value: Any) -> bool:
    """Whether a path has been read as something else, as YAML reads the folders 2024, 2024-11-05, 1e3 and yes."""
    return key in PATH_KEYS and value is not None and not isinstance(value, str | list | dict)


def _yaml(text: str, where: str) -> Any:
    """Load YAML without tags, anchors or deep nesting, which no config needs and which cost time or memory."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
                raise ConfigError(f"{where}: YAML aliases and tags are not accepted")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ConfigError(f"{where}: nested deeper than {MAX_DEPTH} levels")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where}: {line}not YAML: {getattr(error, 'problem', None) or 'unreadable text'}") from None
    except ValueError as error:  # a date or number that YAML recognises but Python cannot hold
        raise ConfigError(f"{where}: not YAML: {error}") from None


# ── key names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _apply(tree: Tree, pairs: Iterable[tuple[Any, Any]], errors: list[str]) -> None:
    """Write each pair into `tree`, names of methods and data sets first, so that the order of arguments is free.

    `data=PATH` comes before them: the format seen in a folder gives way to a `data.name`.
    """
    resolved = []
    for key, value in sorted(pairs, key=lambda pair: pair[0] != "data"):
        try:
            resolved += _resolve(key, value)
        except ConfigError as error:
            errors.append(str(error))
    for key, value in sorted(resolved, key=lambda pair: pair[0] not in ("method.name", "data.name")):
        section, *rest = key.split(".")
        if rest == ["name"] and isinstance(tree.get(section), dict) and tree[section].get("name", value) != value:
            tree[section] = {}
        node = tree
        for part in key.split(".")[:-1]:
            child = node.get(part)
            node[part] = node = child if isinstance(child, dict) else {}
        digits = isinstance(value, int | date) and not isinstance(value, bool) and _names_place(key, value)
        node[key.split(".")[-1]] = str(value) if digits else value  # a year or a date, as it stands in a file


def _resolve(key: Any, value: Any) -> list[tuple[str, Any]]:
    """Turn one given pair into pairs of full dotted keys and values that are no mappings."""
    if not isinstance(key, str):
        raise ConfigError(f"{key!r}: a key is a word")
    if isinstance(value, Mapping) and value and key.split(".")[0] in SECTIONS:
        return [(f"{key}.{name}", leaf) for name, leaf in _leaves(value)]
    if isinstance(value, Config):
        return [(f"{key}.{name}", leaf) for name, leaf in _leaves(value.model_dump())]
    if key == "data" and isinstance(value, int | date) and not isinstance(value, bool):
        value = str(value)  # a year or a date, as it stands in a file
    if key == "data" and isinstance(value, str | Path) and value != "":
        if value in DATASETS and not (value in FORMATS and Path(value).is_dir()):  # a folder may be called voc
            return [("data.name", value)]
        return [("data.name", recognise(Path(value))), ("data.root", value)]
    if key in SHORTHANDS and not isinstance(value, Mapping):
        return [(SHORTHANDS[key], value)]
    if "." in key or key in RunConfig.model_fields:
        return [(key, value)]
    full = [name for name in KEYS if name.split(".")[-1] == key]
    if len(full) > 1:
        raise ConfigError(f"{key}: several sections have this key; write {' or '.join(full)}")
    if not full:
        raise ConfigError(_unknown(key, [*RunConfig.model_fields, *(name.split(".")[-1] for name in KEYS)]))
    return [(full[0], value)]


def _fields(annotation: Any, prefix: str, field: FieldInfo) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the settings below a field of this type by their dotted keys; for a union, those of every variant."""
    variants = [t for t in (annotation, *_flat(annotation)) if isinstance(t, type) and issubclass(t, Config)]
    if not variants:
        yield prefix, field
    for variant in variants:
        for name, inner in variant.model_fields.items():
            yield from _fields(inner.annotation, f"{prefix}.{name}", inner)


def _flat(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _flat(part)


def _form(annotation: Any, several: bool = False) -> str:
    """Say what a setting of this type is, such as `a list of 2 numbers`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _form(parts[0], several)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_form(part, several) for part in parts if part is not type(None)))
    if origin is not tuple:
        noun = {int: "whole number", float: "number", Path: "path"}.get(annotation, "name")
        return f"{noun}s" if several else f"a {noun}"
    if parts[-1] is not ...:
        return f"a list of {len(parts)} {_form(parts[0], several=True)}"
    if get_origin(parts[0]) is tuple:
        return f"{_form(parts[0])} or several such lists"
    return f"a list of {_form(parts[0], several=True)}"


def _written(field: FieldInfo) -> str:
    """Say how a setting that may be a list is written, with its default as an example."""
    example = field.default
    return _form(field.annotation) + (f", such as {json.dumps(example, separators=(',', ':'))}" if example else "")


FIELDS = [found for name, field in RunConfig.model_fields.items() for found in _fields(field.annotation, name, field)]
KEYS = tuple(dict.fromkeys(key for key, _ in FIELDS))
PATH_KEYS = frozenset({"data", "out"}).union(
    *({key, key.split(".")[-1]} for key, field in FIELDS if Path in (field.annotation, *_flat(field.annotation)))
)
"""Keys whose value is a path, dotted and short."""
LISTS = {
    key: _written(field)
    for key, field in FIELDS
    if any(get_origin(part) is tuple for part in (field.annotation, *_flat(field.annotation)))
}
"""Keys whose value may be a list → how it is written."""
SECTIONS = frozenset(key.split(".")[0] for key in KEYS if "." in key)
SHORTHANDS = {"method": "method.name", "data": "data.name", "model": "model.encoder", "seed": "train.seed"}


OTHERS_NAMES = {
    name: ours
    for ours, names in {
        "crop_size": ("imgsz", "img_size", "image_size", "input_size"),
        "batch_size": ("batch", "bs", "train_batch_size"),
        "lr": ("learning_rate", "lr0", "base_lr"),
        "weight_decay": ("wd",),
        "epochs": ("num_epochs", "max_epochs", "n_epochs"),
        "steps": ("iters", "iterations", "max_iters", "max_steps", "num_steps", "total_steps"),
        "minutes": ("time", "budget", "max_time"),
        "workers": ("num_workers", "n_workers"),
        "encoder": ("backbone", "arch", "architecture", "encoder_name", "model_name"),
        "model.weights": ("pretrained", "encoder_weights"),
        "optim.name": ("optimizer", "optimiser"),
        "precision": ("amp", "fp16", "bf16", "half"),
        "device": ("gpu", "gpus", "devices", "cuda"),
        "seed": ("random_seed",),
        "out": ("output", "output_dir", "save_dir", "work_dir", "project", "run_dir"),
        "data": ("dataset", "data_dir", "data_path", "dataset_path", "source"),
        "num_classes": ("nc", "n_classes"),
        "data.ignore": ("ignore_index", "ignore_label"),
        "eval_every": ("val_interval", "eval_interval", "eval_freq", "check_val_every"),
        "checkpoint_every": ("save_interval", "save_every", "save_period"),
    }.items()
    for name in names
}
"""What other tools call a setting → what it is called here."""


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


_ILL_FORMED = ("_type", "_parsing", "_from_float", "too_long", "too_short", "missing")
"""Ends of what pydantic calls values of another form than is due."""


def _messages(errors: list[ErrorDetails], tree: Tree) -> list[str]:
    """Word each validation error; the complaints of a union's variants about one key share a line.

    tree: what was given. Of a list, the form is told, unless one variant has the form and another fault.
    """
    lines: dict[str, list[str]] = {}
    keyed = [(_key(error["loc"], error["type"]), error) for error in errors]
    well_formed = {key for key, error in keyed if not error["type"].endswith(_ILL_FORMED)}
    for key, error in keyed:
        match error["type"]:
            case kind if key in LISTS and kind.endswith(_ILL_FORMED):
                if key not in well_formed:
                    value: Any = reduce(lambda node, name: node[name], key.split("."), tree)
                    lines.setdefault(key, []).append(f"must be {LISTS[key]}, not {_short(value)}")
            case "extra_forbidden" if key in KEYS:
                lines.setdefault(key, []).append(f"not a setting of {error['loc'][1]}")
            case "extra_forbidden":
                lines.setdefault(_unknown(key, (*KEYS, *RunConfig.model_fields)), [])
            case "missing":
                lines.setdefault(key, []).append(f"missing; {_needed(key)}")
            case "union_tag_not_found":
                lines.setdefault(key, []).append(f"missing; {_needed(key)}")
            case "union_tag_invalid":
                known = DATASETS if key == "data" else METHODS
                name = str(error["ctx"]["tag"])
                said = f"{_short(name)} is none of {', '.join(known)}{nearest(name, known)}"
                lines.setdefault(f"{key}.name", []).append(said)
            case _:
                said = error["msg"].removeprefix("Value error, ").partition(", unable to")[0]
                given = "" if isinstance(error["input"], dict) else f", not {_short(error['input'])}"
                lines.setdefault(key, []).append(said.replace("Input should", "must") + given)
    return [f"{key}: {'; or '.join(dict.fromkeys(said))}" if said else key for key, said in lines.items()]


def _key(loc: tuple[int | str, ...], kind: str) -> str:
    """Return the dotted key of an error's location, without the union tags that pydantic puts in."""
    names = [str(part) for part in loc]
    words = {word for key in KEYS for word in key.split(".")}
    last = len(names) - 1
    tags = {"method": set(METHODS), "data": set(DATASETS)}.get(names[0], set()) if names else set()
    kept = [
        name
        for i, name in enumerate(names)
        if i == 0 or (i == last and kind == "extra_forbidden") or (name in words and not (i == 1 and name in tags))
    ]
    return ".".join(kept)


def _needed(key: str) -> str:
    match key:
        case "method":
            return f"say method=NAME, NAME being one of {', '.join(METHODS)}"
        case "data":
            return "say data=FOLDER, the folder that holds images and masks, or data=scenes for the built-in images"
        case _:
            return f"say {key}=…"


def _unknown(key: str, known: Iterable[str]) -> str:
    if (ours := OTHERS_NAMES.get(key.rpartition(".")[2].lower().replace("-", "_"))) and key not in known:
        return f"{_short(key)[1:-1]}: unknown key; here it is called {ours}"
    return f"{_short(key)[1:-1]}: unknown key{nearest(key, known)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word may be meant; empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _short(value: Any) -> str:
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= 60 else f"{text[:40]}…{text[-15:]}"
