"""Lists of the docs, as the site's Markdown reads them.

It asks for a blank line before a list, and for four spaces before what stands in an item, with a blank line behind it.

With less, GitHub shows the list as meant, and on the site its items run on as one paragraph.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ITEM = re.compile(r"(?:[-*+]|\d+\.) ")


def misplaced(text: str) -> list[int]:
    """Numbers of the lines that the site reads as something else than a list item, or a part of one."""
    found = []
    in_code = in_list = is_block = False
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        is_fence, is_item = line.lstrip().startswith("```"), bool(ITEM.match(line.lstrip()))
        if not in_code and line.strip():
            begins = not before.strip() or is_fence or line.lstrip().startswith("|")
            runs_on = is_item and indent == 0 and not begins and (is_block or not in_list)
            if (begins and 0 < indent < 4) or runs_on:
                found.append(number)
            is_block = indent >= 4 and not is_item if begins else is_block
            in_list = is_item or (in_list and not (begins and indent == 0))
        if is_fence:
            in_code = not in_code
        before = line
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_the_site_reads_lists_as_lists(page: Path) -> None:
    lines = misplaced(page.read_text(encoding="utf-8"))
    assert not lines, f"{page}: lines {lines} need a blank line before them, or an indent of four spaces"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("- a\n\n    | b |\n    | --- |\n\n- c", []),
        ("- a\n\n  | b |\n  | --- |\n\n- c", [3, 4]),
        ("- a\n\n    b\n- c", [4]),
        ("- a\n\n    b\n    b\n\n- c", []),
        ("1. a\n\n   ```\n   b\n   ```\n", [3]),
        ("- a\n  b\n- c\n    - d\n- e", []),
        ("- a\n\n    - d\n      d\n- e", []),
        ("a\n- b\n- c", [2]),
        ("a\n\n- b\n- c\n\nd\n- e", [7]),
        ("# a\n- b", [2]),
        ("```\n\n  - a\n- b\n```\n", []),
    ],
)
def test_the_rule_by_hand(text: str, lines: list[int]) -> None:
    assert misplaced(text) == lines
