"""A Hugging Face hub on the loopback interface for the real client: files by repository and revision, and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

WEIGHTS = (".safetensors", ".onnx")  # what goes by LFS


class HubServer:
    """Repositories and the requests that were made for them.

    Attributes:
        requests: method and path of each request, in order.
        token: what has to be sent along to change anything; anybody may when None.
        gated: repositories that are shown to nobody.
        private: repositories that were made so.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.failing: int | None = None  # a status that answers every request, such as 503
        self.breaking = False  # close the connection in the middle of a file
        self.token: str | None = None
        self.gated: set[str] = set()
        self.private: set[str] = set()
        self._repos: dict[str, dict[str, dict[str, bytes]]] = {}  # repository -> revision -> file -> content
        self._stored: dict[str, bytes] = {}  # LFS files by their hash
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, repo: str, files: Mapping[str, bytes], *, branch: str = "main") -> str:
        """Make a commit, which the branch then names; returns its hash."""
        digest = hashlib.sha1(repo.encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + b"\0" + content)
        revisions = self._repos.setdefault(repo, {})
        revisions[digest.hexdigest()] = revisions[branch] = dict(files)
        return digest.hexdigest()

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit that a revision names."""
        revisions = self._repos[repo]
        wanted = revisions.get(revision)
        return next((name for name, files in revisions.items() if len(name) == 40 and files is wanted), None)

    def find(self, repo: str, revision: str, file: str) -> tuple[int, str, bytes]:
        """Status, the hub's error code if any, and the content."""
        if repo not in self._repos:
            return 401, "RepoNotFound", b""  # as the real hub says to a stranger
        if repo in self.gated:
            return 403, "GatedRepo", b""
        if revision not in self._repos[repo]:
            return 404, "RevisionNotFound", b""
        if file not in self._repos[repo][revision]:
            return 404, "EntryNotFound", b""
        return 200, "", self._repos[repo][revision][file]

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds."""
        return dict(self._repos[repo][revision])

    def told(self, repo: str, revision: str) -> tuple[int, str, object]:
        """What the API says of a repository: status, the hub's error code if any, and the answer."""
        status, code, _ = self.find(repo, revision, "")
        if code != "EntryNotFound":
            return status, code, {"error": code}
        siblings = [{"rfilename": n, "size": len(c), "blobId": _oid(c)} for n, c in self._repos[repo][revision].items()]
        told = {"id": repo, "modelId": repo, "sha": self.commit(repo, revision), "siblings": siblings, "tags": []}
        return 200, "", told | {"private": repo in self.private, "downloads": 0, "likes": 0}

    def change(self, path: str, body: bytes) -> tuple[int, object]:
        """What the API does when something is sent: status and answer."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path):
            repo, what, revision = found.groups()
            return getattr(self, f"_{what}")(repo, revision, body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return 200, {"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]}
        if path.startswith("/lfs/"):
            self._stored[path.rpartition("/")[2]] = body
            return 200, {}
        return 404, {"error": f"no {path}"}

    def _create(self, asked: dict[str, str]) -> tuple[int, object]:
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self._repos:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{repo}"}
        self.private |= {repo} if asked.get("visibility") == "private" else set()
        self.publish(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return 200, {"url": f"{self.url}/{repo}"}

    def _branch(self, repo: str, branch: str, body: bytes) -> tuple[int, object]:
        if branch in self._repos[repo]:
            return 409, {"error": "Reference already exists"}
        self._repos[repo][branch] = self._repos[repo]["main"]
        return 200, {}

    def _preupload(self, repo: str, revision: str, body: bytes) -> tuple[int, object]:
        names = [one["path"] for one in json.loads(body)["files"]]
        modes = {name: "lfs" if name.endswith(WEIGHTS) else "regular" for name in names}
        return 200, {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]}

    def _place(self, asked: dict[str, object]) -> dict[str, object]:
        held = (
            {} if asked["oid"] in self._stored else {"actions": {"upload": {"href": f"{self.url}/lfs/{asked['oid']}"}}}
        )
        return {"oid": asked["oid"], "size": asked["size"], **held}

    def _commit(self, repo: str, revision: str, body: bytes) -> tuple[int, object]:
        files = dict(self._repos[repo][revision])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self._stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.publish(repo, files, branch=revision)
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit, "success": True}

    def stop(self) -> None:
        """Close the port; may be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _oid(content: bytes) -> str:
    """The hash by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


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

        def do_POST(self) -> None:
            hub.requests.append((self.command, self.path))
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            wanted = f"Bearer {hub.token}" if hub.token else None
            open_to_all = self.path.startswith("/lfs/") or self.path == "/api/validate-yaml"
            if hub.failing:
                status, told = hub.failing, {"error": "failing"}
            elif wanted and not open_to_all and self.headers.get("Authorization") != wanted:
                status, told = 401, {"error": "Invalid credentials"}
            else:
                status, told = hub.change(unquote(urlsplit(self.path).path), sent)
            self._tell(status, told)

        do_PUT = do_POST

        def _tell(self, status: int, told: object, code: str = "") -> None:
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if code:
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", f"{code} at {self.path}")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _api(self) -> bool:
            """Answer what is asked of the API; whether that was it."""
            path = unquote(urlsplit(self.path).path)
            asked = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
            if not asked or hub.failing:
                return False
            status, code, told = hub.told(asked[1], asked[2] or "main")
            self._tell(status, told, code)
            return True

        def _answer(self, *, body: bool) -> None:
            hub.requests.append((self.command, self.path))
            if self._api():
                return
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
