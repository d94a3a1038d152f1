"""Fetching one file over https: in pieces if need be, checked before it gets its name.

What arrives goes to `<name>.partial`, with the server's validator (ETag or Last-Modified) in `<name>.partial.json`. An
interrupted transfer goes on where it stopped, within a call and in the next one, if the server says that the file is
still the same, or if a published SHA-256 will show whether it is (RFC 9110, sections 13.1.5 and 14). The file gets its
name when it is complete and has the size and the SHA-256 that were published, if they were. ADR 0015 says why this is
not pooch, which cannot resume.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import des4
from des4.data_tools.progress import Bar, Meter, silent
from des4.types import DataError

CHUNK = 1 << 18


@dataclass(frozen=True)
class Remote:
    """A published file.

    urls: the publisher's address, then mirrors. size, sha256: as published, None where nobody has published them.
    max_size: bytes beyond which a transfer of unknown size is stopped.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None
    max_size: int = 4 << 30


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a file's content: bytes, and SHA-256 (hex)."""

    size: int
    sha256: str


class _BadOfferError(DataError):
    """A server answered with something that is not the file; another may have it."""


@dataclass(frozen=True)
class Connection:
    """How to reach servers.

    local_http: allow plain http to 127.0.0.1, for a server on this machine; anywhere else https is the only way.
    timeout: seconds without a byte. retries: how often a broken transfer is taken up again without getting any further.
    pause: seconds before the first of these, doubled each time.
    """

    local_http: bool = False
    timeout: float = 30
    retries: int = 4
    pause: float = 1
    opener: urllib.request.OpenerDirector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        opener = urllib.request.OpenerDirector()  # not build_opener, which knows file:, ftp: and data: as well
        for handler in (
            urllib.request.UnknownHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
            _SecureRedirects(self),
            urllib.request.HTTPHandler() if self.local_http else urllib.request.ProxyHandler(),
        ):
            opener.add_handler(handler)
        object.__setattr__(self, "opener", opener)

    def require_secure(self, url: str) -> None:
        """Raise DataError unless the URL is https, or the plain http that `local_http` allows."""
        parts = urlsplit(url)
        local = self.local_http and parts.scheme == "http" and parts.hostname == "127.0.0.1"
        if not local and (parts.scheme != "https" or not parts.hostname):
            raise _BadOfferError(
                f"{url}: is not https, and nothing else is trusted; look for the publisher's new address"
            )


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but only to where a request may go in the first place."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self._connection.require_secure(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    remote: Remote,
    folder: Path,
    *,
    connection: Connection | None = None,
    accept: Callable[[Path], bool] = lambda path: True,
    meter: Meter = silent,
    say: Callable[[str], None] = print,
) -> Fingerprint:
    """Bring `remote` to `folder / remote.name`, where no file may be yet, and return its fingerprint.

    accept: says of the complete file whether it is of the right kind; an error page may come under any address.
    Where a server cannot be reached or offers another file, `say` is told so and the next mirror is tried. Raises
    DataError with the reasons: no server, a redirect away from https, another size or SHA-256 than published, no room.
    """
    target = folder / remote.name
    if target.exists():
        raise DataError(f"{target}: is there already, and is not overwritten")
    transfer = _Transfer(remote, target, connection or Connection(), accept, meter)
    reasons = []
    for url in remote.urls:
        say(f"{remote.name}: from {url}")
        try:
            return transfer.run(url)
        except _BadOfferError as error:
            reasons.append(str(error))
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{urlsplit(url).hostname}: {_reason(error)}")
        say(f"{remote.name}: {reasons[-1]}")
    raise DataError(
        f"{remote.name}: could not be fetched ({'; '.join(reasons)}); run the command again to go on where it stopped, "
        f"or put the file into {folder} yourself"
    )


def fingerprint(path: Path, meter: Meter = silent) -> Fingerprint:
    """Read a file for its fingerprint."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with meter(f"checking {path.name}", size) as bar, path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.advance(len(chunk))
    return Fingerprint(size, digest.hexdigest())


def mismatch(remote: Remote, found: Fingerprint) -> str | None:
    """Say how a file differs from the one that is expected; None where it does not, as far as that is known."""
    if remote.size not in (None, found.size):
        return f"has {found.size} bytes, {remote.size} are expected"
    if remote.sha256 not in (None, found.sha256):
        return f"has SHA-256 {found.sha256}, expected {remote.sha256}"
    return None


class _Transfer:
    """The partial file of one remote file, and the requests that complete it."""

    def __init__(
        self, remote: Remote, target: Path, connection: Connection, accept: Callable[[Path], bool], meter: Meter
    ) -> None:
        self._remote, self._target, self._connection = remote, target, connection
        self._accept, self._meter = accept, meter
        self._partial = target.with_name(f"{target.name}.partial")
        self._state = target.with_name(f"{target.name}.partial.json")

    def run(self, url: str) -> Fingerprint:
        """Complete the file from this address, check it and give it its name.

        Raises OSError or HTTPException if the server cannot, DataError if it has another file.
        """
        self._connection.require_secure(url)
        with self._meter(f"fetching {self._remote.name}", self._remote.size) as bar:
            bar.advance(self._have())
            self._complete(url, bar)
        found = fingerprint(self._partial, self._meter)
        problem = mismatch(self._remote, found)
        if problem or not self._accept(self._partial):
            self._discard()
            raise _BadOfferError(f"{url}: what arrived {problem or 'is of another kind'}; it was removed")
        self._partial.rename(self._target)
        self._state.unlink(missing_ok=True)
        return found

    def _complete(self, url: str, bar: Bar) -> None:
        """Receive what is missing, over as many connections as it takes."""
        failures = 0
        while self._have() != self._remote.size:
            before = self._have()
            try:
                self._receive(url, bar)
                return
            except (OSError, http.client.HTTPException) as error:
                failures = 0 if self._have() > before else failures + 1
                if _is_final(error) or failures > self._connection.retries:
                    raise
                time.sleep(self._connection.pause * 2 ** max(0, failures - 1))

    def _receive(self, url: str, bar: Bar) -> None:
        """Make one request and write what comes."""
        headers = {"User-Agent": f"des4/{des4.__version__}", "Accept-Encoding": "identity", **self._resumption(url)}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  # https: require_secure saw to that
        try:
            response = self._connection.opener.open(request, timeout=self._connection.timeout)
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # the partial file is no part of it
                bar.advance(-self._have())
                self._discard()
            raise
        except ValueError as error:
            raise _BadOfferError(f"{url}: redirects to what is no address ({error})") from error
        with response:
            start, total = _position(response.status, response.headers)
            if start not in (0, self._have()):
                bar.advance(-self._have())
                self._discard()
                raise ConnectionError("the server sent another part than the one asked for")
            self._require_plausible(url, total, chunked=response.chunked)
            if total is not None:
                bar.expect(total)
            bar.advance(start - self._have())
            self._note(url, response.headers)
            self._write(url, response, start, bar)
        if total is not None and self._have() < total:
            raise ConnectionError(f"connection closed after {self._have()} of {total} bytes")

    def _have(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _resumption(self, url: str) -> dict[str, str]:
        """Return the headers that ask for the rest only, where it can be told from the rest of another file."""
        have, noted = self._have(), self._noted()
        validator = noted["validator"] if noted.get("url") == url else None
        too_long = self._remote.size is not None and have > self._remote.size
        if not have or too_long or not (validator or self._remote.sha256):
            return {}
        return {"Range": f"bytes={have}-", **({"If-Range": validator} if validator else {})}

    def _require_plausible(self, url: str, total: int | None, *, chunked: bool) -> None:
        remote = self._remote
        if total is None:
            if remote.sha256 is None and not chunked:
                raise _BadOfferError(
                    f"{url}: does not say how long the file is, so that nobody can tell if it is complete"
                )
            return
        if remote.size not in (None, total):
            raise _BadOfferError(f"{url}: offers {total} bytes, not {remote.size} as expected")
        if remote.size is None and total > remote.max_size:
            raise _BadOfferError(
                f"{url}: offers {total} bytes, more than the {remote.max_size} that are expected at most"
            )
        require_room(self._target.parent, total - self._have(), remote.name)

    def _write(self, url: str, response: http.client.HTTPResponse, start: int, bar: Bar) -> None:
        limit = self._remote.max_size if self._remote.size is None else self._remote.size
        with _local(self._partial):
            file = self._partial.open("ab")
        with file:
            with _local(self._partial):
                file.truncate(start)
                file.seek(start)
            while chunk := response.read(CHUNK):
                if file.tell() + len(chunk) > limit:
                    raise _BadOfferError(f"{url}: sends more than the {limit} bytes that are expected")
                with _local(self._partial):
                    file.write(chunk)
                    file.flush()
                bar.advance(len(chunk))
            with _local(self._partial):
                os.fsync(file.fileno())

    def _note(self, url: str, headers: Message) -> None:
        """Keep what tells this file from a later one at the same address. A weak ETag does not, byte for byte."""
        tag = headers.get("ETag", "")
        validator = headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        with _local(self._state):
            self._state.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def _noted(self) -> dict[str, str | None]:
        try:
            noted = json.loads(self._state.read_text(encoding="utf-8"))
            return {"url": str(noted["url"]), "validator": noted["validator"] and str(noted["validator"])}
        except (OSError, ValueError, TypeError, KeyError):  # then it starts anew, or a published SHA-256 decides
            return {}

    def _discard(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


def require_room(folder: Path, size: int, what: str) -> None:
    """Raise DataError unless the disk of `folder` has `size` bytes free, and a little more."""
    free = shutil.disk_usage(folder).free
    if size + (64 << 20) > free:
        raise DataError(f"{folder}: {what} needs {size / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free; make room")


@contextmanager
def _local(path: Path) -> Iterator[None]:
    """Tell this machine's failures from the network's: no other server helps against a full disk."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); make room, or choose another folder") from error


def _position(status: int, headers: Message) -> tuple[int | None, int | None]:
    """Return where in the file a response begins, and how long the file is; None for what the server does not say."""
    if status != http.HTTPStatus.PARTIAL_CONTENT:  # the whole: it has changed, or the server does not know Range
        length = headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    if found is None:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _is_final(error: Exception) -> bool:
    """Whether asking the same server again would give the same answer."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code not in (408, 416, 429)
    return isinstance(error, urllib.error.URLError) and isinstance(error.reason, ssl.SSLCertVerificationError)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    text = f"HTTP {error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else str(cause)
    return text.splitlines()[0] if text else type(cause).__name__
