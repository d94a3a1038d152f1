"""A web server on this machine that publishes files as well, and as badly, as servers do."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """What an address answers.

    cuts: bytes after which the connection breaks, one number a request, then never. ranges: whether it knows Range.
    length: the Content-Length, None = the true one, -1 = none, and the end of the connection is the end.
    statuses: errors to answer first, one a request. content_range: what to say instead of the truth.
    """

    content: bytes = b""
    etag: str | None = '"1"'
    modified: str | None = None
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    chunked: bool = False
    length: int | None = None
    statuses: list[int] = field(default_factory=list)
    location: str | None = None
    content_range: str | None = None


class Publisher:
    """The server. pages: by path. requests: path and headers of all that were made."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def publish(self, name: str, content: bytes = b"", **settings: Any) -> str:
        """Publish a page and return its address."""
        self.pages[f"/{name}"] = Page(content, **settings)
        return f"http://127.0.0.1:{self.port}/{name}"

    def ranges(self) -> list[str | None]:
        """Return the Range headers of all requests."""
        return [headers.get("Range") for _, headers in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(publisher) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                publisher.requests.append((self.path, dict(self.headers)))
                page = publisher.pages.get(self.path)
                self.close_connection = True
                if page is None:
                    return self.send_error(404)
                if page.statuses:
                    return self.send_error(page.statuses.pop(0))
                return self._redirect(page.location) if page.location else self._answer(page)

            def _redirect(self, location: str) -> None:
                self.send_response(302)
                self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _answer(self, page: Page) -> None:
                start = self._start(page)
                if start is not None and start >= len(page.content):
                    return self.send_error(416)
                body = page.content[start or 0 :]
                self.send_response(200 if start is None else 206)
                if start is not None:
                    last, total = len(page.content) - 1, len(page.content)
                    self.send_header("Content-Range", page.content_range or f"bytes {start}-{last}/{total}")
                if page.etag:
                    self.send_header("ETag", page.etag)
                if page.modified:
                    self.send_header("Last-Modified", page.modified)
                if page.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                elif page.length != -1:
                    self.send_header("Content-Length", str(page.length if page.length is not None else len(body)))
                self.end_headers()
                body = body[: page.cuts.pop(0)] if page.cuts else body
                publisher.sent += len(body)
                if page.chunked:
                    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                self.wfile.write(body)
                return None

            def _start(self, page: Page) -> int | None:
                """Return where the wanted part begins; None: the whole is wanted, or all there is to have."""
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if wanted is None or not page.ranges:
                    return None
                if self.headers.get("If-Range") not in (None, page.etag, page.modified):
                    return None
                return int(wanted[1])

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
