"""What groups of runs are called: by their method, and by as few settings as tell those of one method apart.

What else differs stands in a table of its own, in full.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

Facts = Mapping[str, Any]
"""Settings of a group by dotted key, and whatever else tells it from others, such as its lists."""

ABSENT = "–"
QUIET = frozenset(
    {"train.workers", "train.device", "train.log_every", "train.checkpoint_every", "train.log_to", "data.cache"}
)
"""Settings that hardly decide a score: a group is called by them only if nothing else tells it from the others."""
DIGITS = range(3, 17)
"""Numbers get as many digits as keep them apart."""
MOST_LETTERS = 28
"""Of a value in a name."""


@dataclass(frozen=True)
class Names:
    """names: of the groups, in their order. rows: the settings that differ, one a row, and the value of each group.

    There are none where the names say all of it.
    """

    names: list[str]
    rows: list[list[str]]


def name_groups(groups: Sequence[Facts]) -> Names:
    """Name groups of runs. groups: their facts, `method.name` among them, and `train.oracle` if a run may be one."""
    kin: dict[tuple[str, bool], list[int]] = {}
    for number, facts in enumerate(groups):
        kin.setdefault((facts["method.name"], bool(facts.get("train.oracle"))), []).append(number)
    names, told = [""] * len(groups), [frozenset[str]()] * len(groups)
    for (method, oracle), numbers in kin.items():
        own = [groups[number] for number in numbers]
        keys = _telling(own)
        words = [_words(key, own) for key in keys]
        for place, number in enumerate(numbers):
            names[number] = " · ".join([method, *(["ORACLE"] if oracle else []), *(each[place] for each in words)])
            told[number] = frozenset(keys)
    return Names(names, _rows(groups, told))


def full(value: Any) -> str:
    """Write a value as a config file has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _differing(groups: Sequence[Facts]) -> list[str]:
    """Return the keys in which groups differ, those of the method first and quiet ones last."""
    keys = dict.fromkeys(key for facts in groups for key in facts)
    found = [key for key in keys if len({_identity(facts, key) for facts in groups}) > 1]
    return sorted(found, key=lambda key: (key in QUIET, not key.startswith("method.")))


def _identity(facts: Facts, key: str) -> str:
    return full(facts[key]) if key in facts else ABSENT


def _telling(groups: Sequence[Facts]) -> list[str]:
    """Choose few keys that tell every group from every other: at each turn the one that parts most of those left."""
    keys, chosen = _differing(groups), []
    left = list(combinations(groups, 2))

    def parted(key: str) -> int:
        return sum(_identity(one, key) != _identity(other, key) for one, other in left)

    while any(map(parted, keys)):
        best = max([key for key in keys if key not in QUIET and parted(key)] or keys, key=parted)
        chosen.append(best)
        left = [(one, other) for one, other in left if _identity(one, best) == _identity(other, best)]
    return [key for key in _differing(groups) if key in chosen]


def _words(key: str, groups: Sequence[Facts]) -> list[str]:
    """Return what a key adds to the name of each group."""
    leaf = key.rpartition(".")[2]
    alone = all(other == key or other.rpartition(".")[2] != leaf for facts in groups for other in facts)
    present = [facts[key] for facts in groups if key in facts]
    short = _shortening(present)
    return [f"{leaf if alone else key}={short(facts[key]) if key in facts else ABSENT}" for facts in groups]


def _shortening(values: Sequence[Any]) -> Callable[[Any], str]:
    """Return what writes these values as briefly as keeps them apart."""
    texts = [value for value in values if isinstance(value, str)]
    paths = _path_ends({text for text in texts if "/" in text})

    def writes(digits: int) -> Callable[[Any], str]:
        return lambda value: _brief(paths.get(value, value) if isinstance(value, str) else value, digits)

    wanted = len(set(map(full, values)))
    for digits in DIGITS:
        short = writes(digits)
        if len(set(map(short, values))) == wanted:
            return short
    return full


def _brief(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list | tuple):
        return f"[{','.join(_brief(each, digits) for each in value)}]"
    text = full(value)
    half = MOST_LETTERS // 2
    return text if len(text) <= MOST_LETTERS else f"{text[: half - 1]}…{text[-half:]}"


def _path_ends(paths: Iterable[str]) -> dict[str, str]:
    """Shorten paths to the parts in which they differ: what they begin and end with alike says nothing."""
    parts = {path: path.split("/") for path in paths}
    if len(parts) < 2:
        return {path: names[-1] for path, names in parts.items()}
    shortest = min(map(len, parts.values()))
    end = 0
    while end < shortest - 1 and len({names[-1 - end] for names in parts.values()}) == 1:
        end += 1
    for count in range(1, max(map(len, parts.values())) - end + 1):
        ends = {path: "/".join(names[: len(names) - end][-count:]) for path, names in parts.items()}
        if len(set(ends.values())) == len(ends):
            return ends
    return {path: path for path in parts}


def _rows(groups: Sequence[Facts], told: Sequence[frozenset[str]]) -> list[list[str]]:
    """Return the settings that differ: a method's own among groups of that method, all others among all groups.

    Nothing if all of them are in the names.
    """
    own = {
        method: set(_differing([facts for facts in groups if facts["method.name"] == method]))
        for method in dict.fromkeys(facts["method.name"] for facts in groups)
    }

    def shown(key: str, facts: Facts) -> bool:
        return key in facts and (not key.startswith("method.") or key in own[facts["method.name"]])

    keys = [key for key in _differing(groups) if key != "method.name" and any(shown(key, facts) for facts in groups)]
    if all(key in names or not shown(key, facts) for key in keys for facts, names in zip(groups, told, strict=True)):
        return []
    return [[key, *(full(facts[key]) if shown(key, facts) else ABSENT for facts in groups)] for key in keys]
