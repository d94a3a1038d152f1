"""Make a release's commit, or print its notes: python tools/release.py VERSION [--date DATE] | --notes VERSION

The version is written once, in `des4/__init__.py`; the package is built with it. A release gives what stands under
`Unreleased` in CHANGELOG.md a section of its own, and tells CITATION.cff. docs/releasing.md says what comes before
and after. Nothing is committed, tagged or sent anywhere.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNRELEASED = "## [Unreleased]\n"
VERSION = re.compile(r"\d+\.\d+\.\d+")


def notes(changelog: str, version: str) -> str:
    """Return what the changelog says of a version, or of `Unreleased`. Raises ValueError where it says nothing."""
    found = re.search(rf"^## \[{re.escape(version)}\].*?\n(.*?)(?=^## \[|\Z)", changelog, re.DOTALL | re.MULTILINE)
    text = found[1].strip() if found else ""
    if not text:
        raise ValueError(f"CHANGELOG.md has nothing under [{version}]")
    return text + "\n"


def versions(changelog: str) -> list[str]:
    """Return the released versions, the newest first."""
    return re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)


def released(changelog: str, version: str, date: str) -> str:
    """Return the changelog with what was unreleased under a version. Raises ValueError."""
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version}: a version is MAJOR.MINOR.PATCH, such as 1.2.0")
    before = versions(changelog)
    if before and _numbers(version) <= _numbers(before[0]):
        raise ValueError(f"{version} is not above {before[0]}, the newest version in CHANGELOG.md")
    notes(changelog, "Unreleased")
    return changelog.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {date}\n", 1)


def citation(text: str, version: str, date: str) -> str:
    """Return CITATION.cff for a version."""
    text = re.sub(r"^date-released: .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^version: .*$", f"version: {version}\ndate-released: {date}", text, count=1, flags=re.MULTILINE)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def main() -> None:
    """Change the three files, or print notes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", help="such as 1.2.0")
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="of the release; default: today")
    parser.add_argument("--notes", action="store_true", help="print the notes of a version, and change nothing")
    given = parser.parse_args()
    changelog, cff, package = (ROOT / name for name in ("CHANGELOG.md", "CITATION.cff", "des4/__init__.py"))
    try:
        if given.notes:
            print(notes(changelog.read_text(encoding="utf-8"), given.version), end="")
            return
        new = {
            changelog: released(changelog.read_text(encoding="utf-8"), given.version, given.date),
            cff: citation(cff.read_text(encoding="utf-8"), given.version, given.date),
            package: re.sub(
                r'^__version__ = ".*"$',
                f'__version__ = "{given.version}"',
                package.read_text(encoding="utf-8"),
                count=1,
                flags=re.MULTILINE,
            ),
        }
    except ValueError as error:
        sys.exit(f"error: {error}")
    for path, text in new.items():
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
