"""Links of the built site that lead out of it, to files of the project, become their text with the path beside it.

Pages name code by links such as `../des4/ops/noise.py`, which lead there in a checkout. The site holds no code and
knows no address where it lies, so these links would lead nowhere. What is left of one is its text; the path appears
when it is pointed at.

python tools/links_to_code.py SITE
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from pathlib import Path

_LINK = re.compile(r'<a\b[^>]*\bhref="(?![a-z]+:|[/#])([^"#]+)[^"]*"[^>]*>(.*?)</a>', re.DOTALL | re.IGNORECASE)


def without_links_out(page: str, folder: str) -> str:
    """Return the HTML of a page without the links that leave the site. folder: of the page, as seen from the site."""

    def told(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, html.unescape(link[1])))
        if not target.startswith("../"):
            return link[0]
        return f'<abbr title="{html.escape(target.removeprefix("../"))}">{link[2]}</abbr>'

    return _LINK.sub(told, page)


def main(site: Path) -> None:
    """Rewrite the pages of a site that have such links."""
    for path in sorted(site.rglob("*.html")):
        before = path.read_text(encoding="utf-8")
        after = without_links_out(before, path.parent.relative_to(site).as_posix())
        if after != before:
            path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
