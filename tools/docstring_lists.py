"""An extension of griffe, by which mkdocstrings reads our docstrings: what they say of parameters becomes a list.

Docstrings here say `name: what it is.` of parameters and attributes, one sentence behind the other. That is easy to
read in the code, and a wall of text on a page. A name counts where it is one of the object's own, at the beginning of
a line or of a sentence; all else is left as it is.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_NAMES = r"([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*): "
_BEGINNING = re.compile(rf"(?:^|(?<=[.;)] )|(?<=[.]\n)){_NAMES}", re.MULTILINE)


class DocstringLists(griffe.Extension):
    """Rewrites the docstrings of classes and functions, once a package has been read."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Make a list of a function's parameters."""
        self._rewrite(func, {parameter.name for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Make a list of a class's attributes and of its constructor's parameters."""
        names = {name for name, member in cls.members.items() if not member.is_alias and member.is_attribute}
        if (made := cls.members.get("__init__")) and isinstance(made, griffe.Function):
            names |= {parameter.name for parameter in made.parameters}
        self._rewrite(cls, names)

    def _rewrite(self, what: griffe.Object, names: set[str]) -> None:
        if what.docstring is not None:
            what.docstring.value = listed(what.docstring.value, names)


def listed(text: str, names: set[str]) -> str:
    """Return a docstring with `name: what it is.` of each of some names as an item of a Markdown list."""

    def item(found: re.Match[str]) -> str:
        said = found[1].split(", ")
        if not set(said) <= names:
            return found[0]
        return f"\n- {', '.join(f'`{name}`' for name in said)}: "

    lines = []
    for paragraph in re.split(r"\n\s*\n", text):
        made = _BEGINNING.sub(item, paragraph)
        before, *items = re.split(r"\n(?=- `)", made)
        # what follows the list's last sentence and is said of the whole begins a paragraph of its own
        if items:
            last, ends, rest = _cut(items[-1])
            items[-1] = last + ends
            body = "\n".join(" ".join(one.split()) for one in items)
            lines += [part for part in (before.strip(), body, rest) if part]
        else:
            lines.append(paragraph)
    return "\n\n".join(lines)


def _cut(item: str) -> tuple[str, str, str]:
    """Cut `Returns …`, `Raises …` and the like from the last item of a list."""
    found = re.search(r"([.;])\s+(?=(?:Returns?|Raises|Under|What|The same)\b)", item)
    return (item, "", "") if found is None else (item[: found.start()], found[1], item[found.end() :])
