"""A hub on this machine: as much of its HTTP interface as huggingface_hub asks for, over a dictionary."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

TOKEN = "hf_writer"  # noqa: S105  # opens nothing


class FakeHub:
    """repos: name → {"private": …, "commits": [{file: bytes}, …]}. asked: requests. down: the status that all get."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.down: int | None = None
        self.url = ""

    def add(self, name: str, private: bool = False, **files: bytes) -> None:
        """Put a repository there, as {file: content}; dots in names are written `__`."""
        content = {file.replace("__", "."): data for file, data in files.items()}
        self.repos[name] = {"private": private, "commits": [content]}

    def files(self, name: str) -> dict[str, bytes]:
        """The files of the main branch."""
        return dict(self.repos[name]["commits"][-1])

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        """Listen; `url` says where."""
        hub = self

        class Handler(_Handler):
            state = hub

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            yield self
            server.shutdown()
            thread.join()


def commit_of(name: str, number: int) -> str:
    return hashlib.sha1(f"{name} {number}".encode()).hexdigest()  # noqa: S324  # as git names commits


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        self.state.asked.append(f"{self.command} {path}")
        if self.state.down is not None:
            self._send(self.state.down, {"error": "down"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path.startswith("/api/models/"):
            owner, name, *rest = path.removeprefix("/api/models/").split("/")
            self._of_model(f"{owner}/{name}", rest, body)
        elif "/resolve/" in path:
            owner, name, _, revision, file = path.strip("/").split("/", 4)
            self._file(f"{owner}/{name}", revision, file)
        else:
            self._send(404, {"error": "not here"})

    def _may(self, name: str) -> bool:
        repo = self.state.repos.get(name)
        if repo is None or (repo["private"] and not self._has_token()):
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return False
        return True

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.state.repos[name]["commits"]
        for number in reversed(range(len(commits))):
            if revision in ("main", f"v{number}", commit_of(name, number)):
                return commit_of(name, number), commits[number]
        self._send(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
        return None

    def _create(self, asked: dict[str, Any]) -> None:
        if not self._has_token():
            self._send(401, {"error": "Invalid username or password."})
            return
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if name in self.state.repos:
            self._send(409, {"error": "exists", "url": f"{self.state.url}/{name}"})
            return
        if name.startswith("others/"):
            self._send(403, {"error": "You don't have the rights to create a model under the namespace"})
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        self.state.repos[name] = {"private": bool(private), "commits": [{".gitattributes": b""}]}
        self._send(200, {"url": f"{self.state.url}/{name}", "name": name})

    def _of_model(self, name: str, rest: list[str], body: bytes) -> None:
        if not self._may(name):
            return
        what, *more = rest or ["revision", "main"]
        if what == "preupload":
            files = json.loads(body)["files"]
            told = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            self._send(200, {"files": told})
        elif what == "commit":
            self._take(name, body)
        elif (found := self._commit(name, "/".join(more))) is not None:
            sha, files = found
            if what == "tree":
                oid = hashlib.sha1(sha.encode()).hexdigest()  # noqa: S324
                tree = [{"type": "file", "path": file, "size": len(data), "oid": oid} for file, data in files.items()]
                self._send(200, tree)
            else:
                siblings = [{"rfilename": file} for file in files]
                private = self.state.repos[name]["private"]
                self._send(200, {"id": name, "sha": sha, "private": private, "siblings": siblings, "tags": []})

    def _take(self, name: str, body: bytes) -> None:
        files = self.state.files(name)
        for line in body.decode().splitlines():
            message = json.loads(line)
            if message["key"] == "file":
                files[message["value"]["path"]] = base64.b64decode(message["value"]["content"])
            elif message["key"] == "deletedFile":
                del files[message["value"]["path"]]
        self.state.repos[name]["commits"].append(files)
        sha = commit_of(name, len(self.state.repos[name]["commits"]) - 1)
        self._send(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.state.url}/{name}/commit/{sha}"})

    def _file(self, name: str, revision: str, file: str) -> None:
        if not self._may(name) or (found := self._commit(name, revision)) is None:
            return
        sha, files = found
        if file not in files:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        digest = hashlib.sha256(files[file]).hexdigest()
        self._send(200, files[file], {"ETag": f'"{digest}"', "X-Repo-Commit": sha})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
