"""Write what pages say of the code: the tables of settings and of methods, the methods' places in the navigation.

And what a shell completes: `des4/cli/completion.json`.

python tools/write_docs.py [--check]

Such a part of a page stands between two comments that give its name, `<!-- begin NAME -->` and `<!-- end NAME -->`
(`# begin NAME` and `# end NAME` in mkdocs.yml); a part may be a whole table or a word in a sentence. What it says has
one owner, the code: a setting's meaning is the docstring under it, in Markdown, with links as from docs/.
--check: write nothing, name the pages that are out of date, and end with 1 if there are any.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from des4.config import KEYS, SHORTHANDS, RunConfig
from des4.datasets import DATASETS
from des4.methods import METHODS
from des4.types import Config

ROOT = Path(__file__).parents[1]
MEND = "python tools/write_docs.py"
PART = re.compile(
    r"(<!-- begin ([\w ]+) -->\n?|^ *# begin ([\w ]+)\n)(.*?)(<!-- end |^ *# end )", re.DOTALL | re.MULTILINE
)


def pages() -> list[Path]:
    """Return the files in which parts may stand."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "mkdocs.yml", *sorted(ROOT.glob("docs/**/*.md"))]


def renewed(text: str) -> str:
    """Return a page with its parts as they ought to be. Raises KeyError for a name that no part has."""

    def part(found: re.Match[str]) -> str:
        begin, name, yaml_name, _, end = found.groups()
        return begin + PARTS[name or yaml_name]() + end

    return PART.sub(part, text)


def stale() -> dict[Path, str]:
    """Return the pages that are out of date, with what they ought to be."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    found = {page: new for page, text in texts.items() if (new := renewed(text)) != text}
    for name, made in FILES.items():
        file, text = ROOT / name, made()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            found[file] = text
    return found


# ── methods ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def method_table() -> str:
    """A row for each method, in the order of the table in the code."""
    rows = [[f"`{name}`", *_outline(name), f"[{title(name)}]({name}.md)"] for name in METHODS]
    head = ["`method=`", "trains", "teacher", "reads unlabeled images", "CutMix and colour by default", "page"]
    return _block(_table(head, rows))


def _outline(name: str) -> list[str]:
    cls = METHODS[name]
    views = cls.VIEWS
    presets = ", ".join("none" if one == "none" else f"`{one}`" for one in (views.cutmix, views.photometric))
    return [cls.OUTLINE.trains, cls.OUTLINE.teacher, cls.OUTLINE.reads, presets if views.strong else "–"]


def title(name: str) -> str:
    """Return the heading of a method's page. Raises FileNotFoundError if it has none."""
    return (ROOT / f"docs/methods/{name}.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def method_navigation() -> str:
    """The methods' lines in mkdocs.yml."""
    return "".join(f"      - {title(name)}: methods/{name}.md\n" for name in METHODS)


def other_methods() -> str:
    """How many methods there are beside DeS4 and supervised training."""
    return str(len(METHODS.keys() - {"des4", "supervised"}))


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings() -> str:
    """All sections of a config with their keys."""
    return _block("\n".join(section(config) for config in sections()))


def sections() -> list[type[Config]]:
    """Return RunConfig and every config in it, in the order of the page: what several share comes before them."""
    found: dict[type[Config], None] = {RunConfig: None}
    for field in RunConfig.model_fields.values():
        for config in (part for part in _walk(field.annotation) if _is_config(part)):
            shared = [base for base in reversed(config.__mro__) if _is_config(base) and base.model_fields]
            found |= dict.fromkeys(shared)
    return list(found)


def section(config: type[Config]) -> str:
    """Return the heading of a config, what is to be said of it, and the table of its own keys."""
    name = _name(config)
    own = [key for key in config.model_fields if key in config.__annotations__ and not (key == "name" and name)]
    rows = [_row(config, key) for key in own]
    table = "\n" + _table(["key", "default", "values", "meaning"], rows) if rows else ""
    return f"## {heading(config)}\n\n{' '.join(_introduction(config))}\n{table}"


def _introduction(config: type[Config]) -> Iterator[str]:
    """Yield the sentences before a table: what the code knows, and what the docstring says beside `Settings of …`."""
    if (name := _name(config)) in METHODS:
        yield f"See [{title(str(name))}](methods/{name}.md)."
    if (users := _users(config)) == list(METHODS):
        yield "What every method takes beside its own keys."
    elif users:
        takes, their = ("takes", "its") if len(users) == 1 else ("take", "their")
        yield f"What {_listed([f'`{user}`' for user in users])} {takes} beside {their} own keys."
    said = re.sub(r"^Settings of [^.;]*[.;] ?", "", " ".join((config.__doc__ or "").split()))
    if said:
        yield said[0].upper() + said[1:]
    bases = [base for base in config.__mro__[1:] if _is_config(base) and base.model_fields]
    if not users and (others := [base for base in bases if _users(base) != list(METHODS)]):
        names = [f"`{_name(base)}`" if _name(base) else _lowered(_place(base)) for base in others]
        links = [f"[{one}](#{_slug(heading(base))})" for one, base in zip(names, others, strict=True)]
        yield f"It also takes the keys of {_listed(links)}."


def heading(config: type[Config]) -> str:
    """Return the heading of a config's section, without its number signs."""
    return f"{_place(config)} (`{config.__name__}`)"


def _place(config: type[Config]) -> str:
    if config is RunConfig:
        return "Sections"
    if name := _name(config):
        return f"{'Method' if name in METHODS else 'Data'}: {name}"
    if _is_shared(config):
        found = re.match(r"Settings of (.+?)\.", inspect.cleandoc(config.__doc__ or ""))
        if not found:
            raise ValueError(f"{config.__name__} is shared; its docstring begins: Settings of WHAT HAS THEM.")
        return found[1][0].upper() + found[1][1:]
    (key,) = (key for key, field in RunConfig.model_fields.items() if field.annotation is config)
    return key.capitalize()


def _row(config: type[Config], key: str) -> list[str]:
    field = config.model_fields[key]
    if isinstance(field.default, Config):
        default, values = "section", f"[below](#{_slug(heading(type(field.default)))})"
    else:
        default = "required" if field.is_required() else f"`{_written(field.default)}`"
        values = "below" if any(_is_config(part) for part in _walk(field.annotation)) else _values(field)
    return [f"`{key}`", default, values, _meaning(config, key)]


def _meaning(config: type[Config], key: str) -> str:
    """Return the docstring under a field, of the nearest class that has one. Raises ValueError without one."""
    for cls in config.__mro__:
        if key in (said := meanings(cls)):
            return " ".join(said[key].split()).removesuffix(".")
    raise ValueError(f"{config.__name__}.{key} has no docstring: say under it what it means")


@cache
def meanings(cls: type) -> dict[str, str]:
    """The strings that stand under the fields of a class, by field."""
    if not _is_config(cls):
        return {}
    tree: Any = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    said = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            said[field.target.id] = str(ast.literal_eval(below.value))
    return said


def keys_without_short_form() -> str:
    """Names that several sections have, so that they are written in full."""
    times = Counter(key.split(".")[-1] for key in KEYS)
    return _listed([f"`{name}`" for name in times if times[name] > 1 and name not in SHORTHANDS])


def _users(config: type[Config]) -> list[str]:
    """Names of the methods or data sets whose settings include those of a shared config."""
    if not _is_shared(config):
        return []
    return [name for table in (METHODS, DATASETS) for name, cls in table.items() if issubclass(cls.Config, config)]


def _is_shared(config: type[Config]) -> bool:
    return not _name(config) and config.__subclasses__() != []


def _name(config: type[Config]) -> str | None:
    """Return the name by which a config chooses a method or a data set; None of other configs."""
    return next((name for table in (METHODS, DATASETS) for name, cls in table.items() if cls.Config is config), None)


def _is_config(part: Any) -> TypeGuard[type[Config]]:
    return isinstance(part, type) and issubclass(part, Config) and part is not Config


def _walk(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and all that it consists of."""
    yield annotation
    for part in get_args(annotation):
        yield from _walk(part)


# ── completion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def completion() -> str:
    """What each setting may be, by its full name and by what it may be called for short: choices, or its default."""
    choices: dict[str, dict[str, None]] = {key: {} for key in KEYS}
    for key, field in _fields(RunConfig, ""):
        choices[key] |= dict.fromkeys(_choices(field))
    choices["method.name"], choices["data.name"] = dict.fromkeys(METHODS), dict.fromkeys(DATASETS)
    leaves = Counter(key.split(".")[-1] for key in KEYS)
    short = {
        name: key for key in KEYS if leaves[name := key.split(".")[-1]] == 1 and name not in RunConfig.model_fields
    }
    names = {**dict(zip(KEYS, KEYS, strict=True)), **short, **SHORTHANDS}
    known = {name: list(choices[key]) for name, key in sorted(names.items())}
    return (
        "{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in known.items()) + "\n}\n"
    )


def _fields(config: type[Config], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted keys of a config with their fields; of a union those of each that it may be."""
    for name, field in config.model_fields.items():
        inner = [part for part in _walk(field.annotation) if _is_config(part)]
        for one in inner:
            yield from _fields(one, f"{prefix}{name}.")
        if not inner:
            yield f"{prefix}{name}", field


def _choices(field: FieldInfo) -> Iterator[str]:
    parts = list(_walk(field.annotation))
    for part in parts:
        if get_origin(part) is Literal:
            yield from (_written(choice) for choice in get_args(part))
    if bool in parts:
        yield from ("true", "false")
    elif not field.is_required() and not isinstance(field.default, Config):
        yield _written(field.default).replace(" ", "")


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _values(field: FieldInfo) -> str:
    """Say what a key may be: its type, its range or its choices."""
    return _said(field.annotation, field.metadata)


def _said(annotation: Any, rules: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _said(arguments[0], [*_flat(arguments[1:]), *rules])
    if origin is Literal:
        return ", ".join(f"`{_written(choice)}`" for choice in arguments)
    if origin in (Union, UnionType):
        one, *more = [_said(part, rules if _is_number(part) else []) for part in arguments]
        return ", ".join(dict.fromkeys([one, *more]))
    if origin is tuple:
        inner = [part for part in arguments if part is not Ellipsis]
        if Ellipsis in arguments:
            return f"list of: {_said(inner[0], [])}"
        return f"[{', '.join(_said(part, []) for part in inner)}]"
    if annotation is int:  # above 0 is at least 1
        rules = [annotated_types.Ge(1) if rule == annotated_types.Gt(0) else rule for rule in rules]
    if annotation in NAMES:
        return NAMES[annotation] + (_range(rules) if _is_number(annotation) else "")
    raise ValueError(f"{annotation}: give it a name in NAMES")


NAMES: dict[Any, str] = {
    int: "integer", float: "number", bool: "`true`, `false`", str: "text", Path: "path", NoneType: "`null`"
}  # fmt: skip
"""What types are called on the page."""


def _is_number(annotation: Any) -> bool:
    return annotation in (int, float)


def _flat(rules: tuple[Any, ...]) -> Iterator[Any]:
    for rule in rules:
        yield from rule.metadata if isinstance(rule, FieldInfo) else [rule]


def _range(rules: list[Any]) -> str:
    bounds = {type(rule): _written(astuple(rule)[0]) for rule in rules if isinstance(rule, BOUNDS)}
    low = bounds.get(annotated_types.Ge, bounds.get(annotated_types.Gt))
    high = bounds.get(annotated_types.Le, bounds.get(annotated_types.Lt))
    opened = "(" if annotated_types.Gt in bounds else "["
    closed = ")" if annotated_types.Lt in bounds else "]"
    if low is not None and high is not None:
        return f" in {opened}{low}, {high}{closed}"
    if low is not None:
        return f" {'>' if opened == '(' else '≥'} {low}"
    return "" if high is None else f" {'<' if closed == ')' else '≤'} {high}"


BOUNDS = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)


def _written(value: Any) -> str:
    """Write a value as a config file has it."""
    plain = to_jsonable_python(value.value if isinstance(value, Enum) else value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _block(text: str) -> str:
    """Set a part apart from the comments around it, as Markdown wants it."""
    return f"\n{text}\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _lowered(text: str) -> str:
    return text[0].lower() + text[1:]


def _slug(text: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "keys without a short form": keys_without_short_form,
    "methods": method_table,
    "navigation of methods": method_navigation,
    "number of other methods": other_methods,
}
"""What stands between comments of these names."""

FILES: dict[str, Callable[[], str]] = {"des4/cli/completion.json": completion}
"""What is written whole."""


def main() -> None:
    """Renew the pages, or name those that are out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a page is out of date")
    check = parser.parse_args().check
    found = stale()
    for page, text in found.items():
        print(f"{'out of date' if check else 'written'}: {page.relative_to(ROOT)}")
        if not check:
            page.write_text(text, encoding="utf-8")
    if check and found:
        sys.exit(f"mend with: {MEND}")


if __name__ == "__main__":
    main()
