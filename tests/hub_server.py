"""A Hugging Face hub on the loopback interface for the real client: files by repository and revision, nothing else."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class HubServer:
    """Repositories and the requests that were made for them.

    Attributes:
        requests: method and path of each request, in order.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.failing: int | None = None  # a status that answers every request, such as 503
        self.breaking = False  # close the connection in the middle of a file
        self._repos: dict[str, dict[str, dict[str, bytes]]] = {}  # repository -> revision -> file -> content
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, repo: str, files: Mapping[str, bytes]) -> str:
        """Make a commit, which `main` then names; returns its hash."""
        digest = hashlib.sha1(repo.encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + b"\0" + content)
        revisions = self._repos.setdefault(repo, {})
        revisions[digest.hexdigest()] = revisions["main"] = dict(files)
        return digest.hexdigest()

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit that a revision names."""
        revisions = self._repos[repo]
        wanted = revisions.get(revision)
        return next((name for name, files in revisions.items() if name != "main" and files is wanted), None)

    def find(self, repo: str, revision: str, file: str) -> tuple[int, str, bytes]:
        """Status, the hub's error code if any, and the content."""
        if repo not in self._repos:
            return 401, "RepoNotFound", b""  # as the real hub says to a stranger
        if revision not in self._repos[repo]:
            return 404, "RevisionNotFound", b""
        if file not in self._repos[repo][revision]:
            return 404, "EntryNotFound", b""
        return 200, "", self._repos[repo][revision][file]

    def stop(self) -> None:
        """Close the port; may be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving() -> Iterator[HubServer]:
    """A hub for the length of a block."""
    server = HubServer()
    try:
        yield server
    finally:
        server.stop()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            hub.requests.append((self.command, self.path))
            parts = unquote(urlsplit(self.path).path).lstrip("/").split("/", 4)  # owner/name/resolve/revision/file
            repo, revision, file = "/".join(parts[:2]), *(parts[3:] if len(parts) == 5 else ("", ""))
            status, code, content = (hub.failing, "", b"") if hub.failing else hub.find(repo, revision, file)
            self.send_response(status)
            if status == 200 or code == "EntryNotFound":
                self.send_header("X-Repo-Commit", hub.commit(repo, revision) or "")
            if status == 200:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if code:
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", f"{code} at {self.path}")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) // 2] if hub.breaking else content)
            self.close_connection = hub.breaking

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler
