"""What a campaign file says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from des4.config import nearest, read_yaml
from des4.types import Config, ConfigError

QUOTES = "; write a name that is a number between quotes"


class CampaignConfig(Config):
    """What a campaign file says."""

    out: Path
    settings: dict[str, Any] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    lists: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    reference: str | None = None
    full: str | None = None
    table: int | None = Field(None, ge=1, le=5)
    """Of the paper: its figures are printed beside these runs."""
    report: Path | None = None
    """Folder of tables and pictures; None = `out`. Campaigns that share runs have an `out` in common and not this."""

    @property
    def reports(self) -> Path:
        """Folder of the tables and pictures."""
        return self.report or self.out

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.reference is not None and self.reference not in self.methods:
            raise ValueError(f"reference: `{self.reference}` is none of the methods {', '.join(self.methods)}")
        if self.full is not None and self.full not in self.lists:
            raise ValueError(f"full: `{self.full}` is none of the lists {', '.join(self.lists)}")
        if twice := [seed for seed, count in Counter(self.seeds).items() if count > 1]:
            raise ValueError(f"seeds: {', '.join(map(str, twice))} stands twice, and would be counted as two runs")
        for kind, names in (("methods", self.methods), ("lists", self.lists)):
            if wrong := [name for name in names if name in ("", ".", "..") or "/" in name or "\\" in name]:
                raise ValueError(f"{kind}: `{wrong[0]}` cannot be the name of a folder, which each of them gets")
        for name, settings in self.methods.items():
            if not isinstance(settings.get("lists", []), list):
                raise ValueError(f"methods.{name}.lists: is a list, such as [{next(iter(self.lists))}]")
            if no_text := [entry for entry in settings.get("lists", ()) if not isinstance(entry, str)]:
                raise ValueError(f"methods.{name}.lists: {no_text[0]} is no text to YAML{QUOTES}")
            if unknown := [entry for entry in settings.get("lists", ()) if entry not in self.lists]:
                raise ValueError(f"methods.{name}.lists: {', '.join(unknown)} is none of {', '.join(self.lists)}")
            if not isinstance(settings.get("config"), str | None):
                raise ValueError(f"methods.{name}.config: is the path of a config file, not {settings['config']}")
        return self


def read_campaign(path: Path) -> CampaignConfig:
    """Read a campaign file. Raises ConfigError."""
    try:
        return CampaignConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_told(error.errors(include_url=False)[0])}") from None


def _told(first: Any) -> str:
    """Word a mistake that pydantic has found."""
    where, kind = ".".join(map(str, first["loc"])), first["type"]
    if kind == "extra_forbidden":
        others = f"; there are {', '.join(CampaignConfig.model_fields)}"
        return f"{where}: there is no such key{nearest(where, CampaignConfig.model_fields) or others}"
    if where.endswith(".[key]"):
        section, name = where.removesuffix(".[key]").split(".", 1)
        return f"{section}: {name} is no text to YAML{QUOTES}"
    if where == "seeds":
        return "seeds: is a list of numbers, such as [0, 1, 2]"
    if kind == "missing":
        return f"{where}: is missing; docs/campaigns.md has a file to begin with"
    return f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
