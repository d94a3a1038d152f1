"""Links of the built site that lead to code, which the site does not hold."""

from __future__ import annotations

from pathlib import Path

import links_to_code
import pytest


@pytest.mark.parametrize(
    ("folder", "link", "said"),
    [
        (".", '<a href="../des4/ops/noise.py">noise.py</a>', '<abbr title="des4/ops/noise.py">noise.py</abbr>'),
        ("methods", '<a class="x" href="../../des4/api.py#L3">a <b>b</b></a>',
         '<abbr title="des4/api.py">a <b>b</b></abbr>'),
        ("methods", '<a href="../data.html#crops">crops</a>', None),
        (".", '<a href="methods/des4.html">DeS4</a>', None),
        (".", '<a href="#words">words</a>', None),
        (".", '<a href="https://example.org/../x">x</a>', None),
        (".", '<a id="top">x</a> <a href="/des4">y</a>', None),
    ],
)  # fmt: skip
def test_links_out_of_the_site_become_text_with_a_path(folder: str, link: str, said: str | None) -> None:
    page = f"<p>one {link} two</p>"
    assert links_to_code.without_links_out(page, folder) == page.replace(link, said or link)


def test_pages_of_a_site_are_rewritten(tmp_path: Path) -> None:
    (tmp_path / "adr").mkdir()
    page = tmp_path / "adr" / "index.html"
    page.write_text('<a href="../../des4/config.py">λ</a>', encoding="utf-8")
    links_to_code.main(tmp_path)
    assert page.read_text(encoding="utf-8") == '<abbr title="des4/config.py">λ</abbr>'
