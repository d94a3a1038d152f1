"""A version has one source, and what else states it agrees; a release is made of the changelog."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import release
import yaml

import des4

ROOT = Path(__file__).parents[2]
LOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n- b\n\n## [0.1.0] - 2026-01-02\n\n### Added\n- a\n"


def test_version_changelog_and_citation_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "des4.__version__"}
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    # before the first release the version is the one that is to come
    assert [des4.__version__, *release.versions(text)[1:]] == (release.versions(text) or [des4.__version__])
    assert text.count(release.UNRELEASED) == 1
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == des4.__version__
    assert ("date-released" in citation) == bool(release.versions(text))


def test_a_release_gives_what_is_unreleased_a_section() -> None:
    new = release.released(LOG, "0.2.0", "2026-03-04")
    assert release.versions(new) == ["0.2.0", "0.1.0"]
    assert release.notes(new, "0.2.0") == "### Added\n- b\n" and release.notes(new, "0.1.0") == "### Added\n- a\n"
    for version, trouble in (("0.1.0", "not above"), ("0.0.9", "not above"), ("1.2", "MAJOR"), ("0.3.0", "nothing")):
        with pytest.raises(ValueError, match=trouble):
            release.released(new if version == "0.3.0" else LOG, version, "2026-03-04")
    cited = release.citation("title: x\nversion: 0.1.0\nlicense: y\n", "0.2.0", "2026-03-04")
    assert cited == release.citation(cited, "0.2.0", "2026-03-04")
    assert yaml.safe_load(cited)["version"] == "0.2.0" and "license: y" in cited


def test_the_tool_changes_three_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "des4").mkdir()
    (tmp_path / "des4" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(LOG)
    (tmp_path / "CITATION.cff").write_text("version: 0.1.0\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["release.py", "0.0.1"])
    with pytest.raises(SystemExit, match="not above"):
        release.main()
    assert (tmp_path / "CHANGELOG.md").read_text() == LOG
    monkeypatch.setattr(sys, "argv", ["release.py", "0.2.0", "--date", "2026-03-04"])
    release.main()
    assert (tmp_path / "des4" / "__init__.py").read_text() == '__version__ = "0.2.0"\n'
    assert (tmp_path / "CITATION.cff").read_text() == "version: 0.2.0\ndate-released: 2026-03-04\n"
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["release.py", "--notes", "0.2.0"])
    release.main()
    assert capsys.readouterr().out == "### Added\n- b\n"
