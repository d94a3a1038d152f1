"""Transfers against a server on this machine: good, broken, changed, redirected, lying."""

from __future__ import annotations

import hashlib
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from publisher import Publisher

from des4.data_tools.downloads.transfer import Connection, Remote, fetch, require_room
from des4.types import DataError

CONTENT = hashlib.shake_128(b"data").digest(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HERE = Connection(local_http=True, timeout=5, retries=2, pause=0)
ONCE = Connection(local_http=True, timeout=5, retries=0, pause=0)


def remote(*urls: str, **known: Any) -> Remote:
    return Remote("file.tar", urls, **known)


def quiet(_line: str) -> None:
    pass


def refusal(wanted: Remote, folder: Path, connection: Connection = HERE, **options: Any) -> str:
    """Return the one line by which a transfer ends; the file has no name then."""
    with pytest.raises(DataError) as error:
        fetch(wanted, folder, connection=connection, say=quiet, **options)
    assert not (folder / "file.tar").exists()
    (message,) = str(error.value).splitlines()
    return message.replace(str(folder), "")  # it names the test


def received(folder: Path) -> bytes:
    """Return what has arrived; nothing else may be left."""
    assert [path.name for path in folder.iterdir()] == ["file.tar"]
    return (folder / "file.tar").read_bytes()


# ── all goes well ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "known", [{}, {"size": len(CONTENT)}, {"sha256": SHA256}, {"size": len(CONTENT), "sha256": SHA256}]
)
@pytest.mark.parametrize("settings", [{}, {"etag": None}, {"chunked": True}])
def test_a_file_arrives(tmp_path: Path, publisher: Publisher, known: Any, settings: Any) -> None:
    url = publisher.publish("a", CONTENT, **settings)
    found = fetch(remote(url, **known), tmp_path, connection=HERE, say=quiet)
    assert (found.size, found.sha256) == (len(CONTENT), SHA256)
    assert received(tmp_path) == CONTENT
    ((_, headers),) = publisher.requests
    assert headers["Accept-Encoding"] == "identity"


def test_an_empty_file_arrives(tmp_path: Path, publisher: Publisher) -> None:
    fetch(remote(publisher.publish("a")), tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == b""


def test_what_is_there_is_not_overwritten(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "file.tar").write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        fetch(remote(publisher.publish("a", CONTENT)), tmp_path, connection=HERE, say=quiet)
    assert (tmp_path / "file.tar").read_text() == "mine"


@pytest.mark.parametrize(
    "settings",
    [
        {"cuts": [300_000, 10], "ranges": False},
        {"cuts": [300_000, 10]},
        {"cuts": [300_000], "content_range": "bytes 7-999999/1000000"},
        {"cuts": [300_000], "content_range": "none"},
    ],
)
def test_progress_adds_up(tmp_path: Path, publisher: Publisher, settings: Any) -> None:
    class Bar:
        def __init__(self, total: int | None) -> None:
            self.total, self.done = total, 0

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def expect(self, total: int) -> None:
            self.total = total

        def advance(self, count: int) -> None:
            self.done += count

    bars: dict[str, Bar] = {}
    url = publisher.publish("a", CONTENT, **settings)  # what is received twice is taken back
    fetch(
        remote(url),
        tmp_path,
        connection=HERE,
        say=quiet,
        meter=lambda task, total: bars.setdefault(task, Bar(total)),
    )
    assert {task: (bar.done, bar.total) for task, bar in bars.items()} == {
        "fetching file.tar": (len(CONTENT), len(CONTENT)),
        "checking file.tar.partial": (len(CONTENT), len(CONTENT)),
    }


# ── interruptions ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_broken_transfer_goes_on_by_itself(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, cuts=[300_000, 0, 200_000])
    fetch(remote(url), tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == CONTENT
    assert publisher.ranges() == [None, "bytes=300000-", "bytes=300000-", "bytes=500000-"]
    assert [headers.get("If-Range") for _, headers in publisher.requests] == [None, '"1"', '"1"', '"1"']
    assert publisher.sent == len(CONTENT)


def test_the_next_call_goes_on_too(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, cuts=[300_000, 0])
    assert "closed after 300000 of 1000000" in refusal(remote(url), tmp_path, ONCE)
    fetch(remote(url), tmp_path, connection=ONCE, say=quiet)
    assert received(tmp_path) == CONTENT
    assert publisher.sent == len(CONTENT)


def test_a_server_that_stays_broken_is_given_up(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, cuts=[0] * 10)
    assert "could not be fetched" in refusal(remote(url), tmp_path)
    assert len(publisher.requests) == 1 + HERE.retries


def test_a_server_that_ignores_range_starts_over(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, cuts=[300_000], ranges=False)
    fetch(remote(url), tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == CONTENT
    assert publisher.sent == 300_000 + len(CONTENT)


@pytest.mark.parametrize("settings", [{"etag": '"1"'}, {"etag": None, "modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_a_file_that_changed_meanwhile_starts_over(tmp_path: Path, publisher: Publisher, settings: Any) -> None:
    url = publisher.publish("a", CONTENT, cuts=[300_000, 0], **settings)
    refusal(remote(url), tmp_path, ONCE)
    other = CONTENT[::-1]
    publisher.publish("a", other, etag='"2"', modified="Thu, 22 Oct 2015 07:28:00 GMT")
    fetch(remote(url), tmp_path, connection=ONCE, say=quiet)
    assert publisher.ranges()[-1] == "bytes=300000-"
    assert received(tmp_path) == other


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_strong_validator_only_a_published_hash_allows_to_go_on(
    tmp_path: Path, publisher: Publisher, etag: str | None
) -> None:
    url = publisher.publish("a", CONTENT, cuts=[300_000, 0], etag=etag)
    refusal(remote(url), tmp_path, ONCE)
    fetch(remote(url), tmp_path, connection=ONCE, say=quiet)
    assert publisher.ranges() == [None, None, None]
    (tmp_path / "file.tar").unlink()
    publisher.publish("a", CONTENT, cuts=[300_000, 0], etag=etag)
    refusal(remote(url, sha256=SHA256), tmp_path, ONCE)
    fetch(remote(url, sha256=SHA256), tmp_path, connection=ONCE, say=quiet)
    assert publisher.ranges()[3:] == [None, "bytes=300000-", "bytes=300000-"]
    assert "If-Range" not in publisher.requests[-1][1]
    assert received(tmp_path) == CONTENT


def test_another_mirror_goes_on_only_under_a_published_hash(tmp_path: Path, publisher: Publisher) -> None:
    for known, expected in (({}, None), ({"sha256": SHA256}, "bytes=300000-")):
        first = publisher.publish("a", CONTENT, cuts=[300_000, 0])
        second = publisher.publish("b", CONTENT)
        fetch(remote(first, second, **known), tmp_path, connection=ONCE, say=quiet)
        assert publisher.ranges()[-1] == expected
        assert received(tmp_path) == CONTENT
        (tmp_path / "file.tar").unlink()


def test_a_partial_file_of_something_else_is_found_out(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT)
    wanted = remote(url, size=len(CONTENT), sha256=SHA256)
    for wrong in (b"x" * 1000, b"x" * len(CONTENT)):
        (tmp_path / "file.tar.partial").write_bytes(wrong)
        assert "has SHA-256" in refusal(wanted, tmp_path)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.tar.partial").write_bytes(b"x" * (len(CONTENT) + 1))
    fetch(wanted, tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == CONTENT
    assert publisher.ranges() == ["bytes=1000-", None]


def test_a_complete_partial_file_needs_no_server(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "file.tar.partial").write_bytes(CONTENT)
    url = publisher.publish("a", b"")
    fetch(remote(url, size=len(CONTENT), sha256=SHA256), tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == CONTENT
    assert publisher.requests == []


def test_a_range_that_cannot_be_satisfied_starts_over(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "file.tar.partial").write_bytes(CONTENT + b"more")
    url = publisher.publish("a", CONTENT)
    fetch(remote(url, sha256=SHA256), tmp_path, connection=HERE, say=quiet)
    assert publisher.ranges() == [f"bytes={len(CONTENT) + 4}-", None]
    assert received(tmp_path) == CONTENT


def test_another_part_than_the_one_asked_for_starts_over(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, cuts=[300_000], content_range="bytes 7-999999/1000000")
    fetch(remote(url), tmp_path, connection=HERE, say=quiet)
    assert publisher.ranges() == [None, "bytes=300000-", None]
    assert received(tmp_path) == CONTENT


@pytest.mark.parametrize("state", ["", "[]", "{", '{"url": 3}', '{"url": "URL"}', '{"url": "URL", "validator": [3]}'])
def test_a_damaged_note_means_to_start_over(tmp_path: Path, publisher: Publisher, state: str) -> None:
    url = publisher.publish("a", CONTENT)
    (tmp_path / "file.tar.partial").write_bytes(b"x" * 10)
    (tmp_path / "file.tar.partial.json").write_text(state.replace("URL", url))
    fetch(remote(url), tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == CONTENT


# ── wrong files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_hash_leaves_nothing(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT[::-1])
    assert f"expected {SHA256}" in refusal(remote(url, size=len(CONTENT), sha256=SHA256), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_not_even_received(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT)
    assert "offers 1000000 bytes, not 7" in refusal(remote(url, size=7), tmp_path)
    assert "more than the 999999" in refusal(remote(url, max_size=999_999), tmp_path)
    assert list(tmp_path.iterdir()) == []
    fetch(remote(url, size=len(CONTENT), max_size=7), tmp_path, connection=HERE, say=quiet)  # a known size is the limit


def test_an_endless_answer_is_stopped(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, chunked=True)
    assert "more than the 300000 bytes" in refusal(remote(url, max_size=300_000), tmp_path)
    assert (tmp_path / "file.tar.partial").stat().st_size <= 300_000


def test_an_answer_without_a_length_needs_a_hash(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, length=-1)
    assert "does not say how long" in refusal(remote(url), tmp_path)
    fetch(remote(url, sha256=SHA256), tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == CONTENT


def test_a_file_of_another_kind_leaves_nothing(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", b"<html>moved</html>")
    assert "another kind" in refusal(remote(url), tmp_path, accept=lambda path: not path.read_bytes().startswith(b"<"))
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_disk_holds_is_not_begun(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", b"x", length=1 << 60)
    assert "make room" in refusal(remote(url, max_size=1 << 61), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="make room"):
        require_room(tmp_path, 1 << 60, "it")


# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mirrors_are_tried_in_turn_and_said(tmp_path: Path, publisher: Publisher) -> None:
    urls = (
        publisher.publish("missing", statuses=[404]),
        publisher.publish("wrong", CONTENT[::-1]),
        publisher.publish("page", b"<html>"),
        f"http://127.0.0.1:{closed_port()}/file",
        publisher.publish("good", CONTENT),
    )
    lines: list[str] = []
    wanted = remote(*urls, size=len(CONTENT), sha256=SHA256)
    fetch(wanted, tmp_path, connection=HERE, say=lines.append)
    assert received(tmp_path) == CONTENT
    for url in urls:
        assert f"file.tar: from {url}" in lines
    said = "\n".join(lines)
    for reason in ("HTTP 404", "has SHA-256", "offers 6 bytes", "refused"):
        assert reason in said


def closed_port() -> int:
    server = Publisher()
    server.close()
    return server.port


def test_a_server_in_trouble_is_asked_again(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, statuses=[503, 429])
    fetch(remote(url), tmp_path, connection=HERE, say=quiet)
    assert received(tmp_path) == CONTENT


def test_a_plain_no_is_not_asked_again(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", CONTENT, statuses=[403] * 9)
    assert "HTTP 403" in refusal(remote(url), tmp_path)
    assert len(publisher.requests) == 1


def test_redirects_are_followed_to_other_servers(tmp_path: Path, publisher: Publisher) -> None:
    other = Publisher()
    url = publisher.publish("a", location=other.publish("b", CONTENT, cuts=[300_000]))
    fetch(remote(url), tmp_path, connection=HERE, say=quiet)
    other.close()
    assert received(tmp_path) == CONTENT
    assert other.ranges() == [None, "bytes=300000-"]


@pytest.mark.parametrize(
    "location",
    ["http://localhost:{port}/b", "http://127.0.0.2:{port}/b", "ftp://127.0.0.1/b", "file:///etc/passwd", "data:,x"],
)
def test_redirects_lead_nowhere_else(tmp_path: Path, publisher: Publisher, location: str) -> None:
    publisher.publish("b", CONTENT)
    url = publisher.publish("a", location=location.format(port=publisher.port))
    message = refusal(remote(url), tmp_path)
    assert "is not https" in message or "is not allowed" in message  # the latter is urllib's own, for other schemes
    assert [path for path, _ in publisher.requests] == ["/a"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["http://[::1", "https://" + "x" * 70 + ".org/"])
def test_redirects_to_no_address_at_all(tmp_path: Path, publisher: Publisher, location: str) -> None:
    assert "no address" in refusal(remote(publisher.publish("a", location=location)), tmp_path, ONCE)


def test_redirects_in_circles_end(tmp_path: Path, publisher: Publisher) -> None:
    url = publisher.publish("a", location="/a")
    assert "could not be fetched" in refusal(remote(url), tmp_path, ONCE)
    assert len(publisher.requests) < 20


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/a", "ftp://127.0.0.1/a", "file:///etc/passwd", "data:,x", "https:a"]
)
def test_nothing_but_https_unless_allowed(tmp_path: Path, publisher: Publisher, url: str) -> None:
    publisher.publish("a", CONTENT)
    assert "is not https" in refusal(remote(url.format(port=publisher.port)), tmp_path, Connection())
    assert publisher.requests == []


def test_https_is_spoken_and_certificates_are_checked(tmp_path: Path, publisher: Publisher) -> None:
    address = publisher.publish("a", CONTENT).replace("http:", "https:")  # a server that speaks no TLS
    assert "could not be fetched" in refusal(remote(address), tmp_path, ONCE)
    assert publisher.requests == []
    handlers = Connection().opener.handlers  # type: ignore[attr-defined]  # typeshed does not know it
    (https,) = (handler for handler in handlers if isinstance(handler, urllib.request.HTTPSHandler))
    assert https._context.verify_mode == ssl.CERT_REQUIRED
    assert https._context.check_hostname
    others = (
        urllib.request.HTTPHandler,
        urllib.request.FTPHandler,
        urllib.request.FileHandler,
        urllib.request.DataHandler,
    )
    assert not [handler for handler in handlers if isinstance(handler, others)]
