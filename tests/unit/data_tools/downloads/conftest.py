"""Fixtures of the data tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from publisher import Publisher


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A web server on 127.0.0.1, for as long as a test lasts."""
    server = Publisher()
    yield server
    server.close()
