"""The page's server: on this machine alone, under an address that nobody can guess, with a fixed list of what it gives.

No path of a request touches the file system: routes are names in a table, and whole numbers.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from models.errors import EarthtuneError, explained
from pipelines.review.answers import Answer, Answers, answer_of
from pipelines.review.pictures import Pictures

MOST_BYTES = 1 << 18  # of what a request may bring
_WAIT = 30  # seconds; a connection that says nothing is closed
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_OWN, _LEAFLET = "pipelines.review", "pipelines.reports"
_STATIC = {
    "": (_OWN, "page.html", "text/html; charset=utf-8"),
    "page.js": (_OWN, "page.js", "text/javascript; charset=utf-8"),
    "page.css": (_OWN, "page.css", "text/css; charset=utf-8"),
    "leaflet.js": (_LEAFLET, "leaflet/leaflet.js", "text/javascript; charset=utf-8"),
    "leaflet.css": (_LEAFLET, "leaflet/leaflet.css", "text/css; charset=utf-8"),
}
_PAD = 48  # pixels around a region, in its picture


@dataclass
class Desk:
    """What a person works on.

    Attributes:
        about: what the page is told once: title, kind, classes, unit, items (id, bounds, rings or point, reason ...).
        bounds: of each item by its id: first row, first column, last row + 1, last column + 1.
        pictures: the layers.
        answers: what was said.
        token: part of the address.
        lock: of who changes the answers.
        pen: of who draws a picture.
        done: set when the page is ended.
    """

    about: Mapping[str, Any]
    bounds: Mapping[int, tuple[int, int, int, int]]
    pictures: Pictures
    answers: Answers
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    lock: threading.Lock = field(default_factory=threading.Lock)
    pen: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)

    def state(self) -> dict[str, Any]:
        """All that the page starts from; places are in pixels, (column, row)."""
        height, width = (int(side) for side in self.pictures.geobox.shape)
        said = {str(key): self._plain(answer) for key, answer in self.answers.said.items() if not answer.empty}
        layers = [*self.pictures.draw]
        size = {"width": width, "height": height, "scale": self.pictures.scale, "pad": _PAD}
        return {**self.about, **size, "layers": layers, "answers": said, "last": self.last()}

    def last(self) -> int | None:
        """What was answered last, where there is something to undo."""
        return self.answers.past[-1][0] if self.answers.past else None

    def take(self, said: Any) -> dict[str, Any]:
        """Keep an answer, whose polygons come in pixels; it is on the disk when this returns.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(said, dict) or type(said.get("id")) is not int or said["id"] not in self.answers.ids:
            raise ValueError("wanted the id of a region or a point")
        answer = _moved(answer_of(said, self.answers.codes), self.pictures.geobox.affine)
        with self.lock:
            self.answers.take(said["id"], answer)
        return {"id": said["id"], "answer": self._plain(answer)}

    def undo(self) -> dict[str, Any]:
        """Take the last answer back."""
        with self.lock:
            number = self.answers.undo()
        answer = self.answers.said.get(number, Answer()) if number is not None else Answer()
        return {"id": number, "answer": self._plain(answer)}

    def draw(self) -> None:
        """Draw all layers, so that none is waited for; what fails here is told where it is asked for."""
        for name in self.pictures.draw:
            with self.pen, suppress(EarthtuneError):
                self.pictures.whole(name)

    def part(self, name: str, number: int) -> tuple[bytes, tuple[int, int, int, int]]:
        """A picture of an item and what is around it, and its bounds."""
        top, left, bottom, right = self.bounds[number]
        height, width = (int(side) for side in self.pictures.geobox.shape)
        box = max(top - _PAD, 0), max(left - _PAD, 0), min(bottom + _PAD, height), min(right + _PAD, width)
        return self.pictures.part(name, (slice(box[0], box[2]), slice(box[1], box[3]))), box

    def _plain(self, answer: Answer) -> dict[str, Any]:
        return _moved(answer, ~self.pictures.geobox.affine).plain()


def _moved(answer: Answer, affine: Any) -> Answer:
    """An answer with its polygons in other coordinates."""
    placed = ((label, tuple(affine * point for point in ring)) for label, ring in answer.polygons)
    return Answer(answer.word, answer.label, tuple(placed))


@functools.cache
def _static(name: str) -> tuple[bytes, str]:
    """A file of the page, and its type."""
    package, path, kind = _STATIC[name]
    data = resources.files(package).joinpath(path).read_bytes()
    return (data.partition(b"//# sourceMappingURL")[0] if path.endswith("leaflet.js") else data), kind


class Server(ThreadingHTTPServer):
    """Serves one desk on the loopback interface; a thread each for connections, none of which it waits for."""

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, desk: Desk, port: int = 0) -> None:
        """Take a port of 127.0.0.1; a free one when 0."""
        self.desk = desk
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break; all else is an error of ours and is told."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.server_port}/{self.desk.token}/"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "earthtune", ""
    timeout = _WAIT

    def do_GET(self) -> None:
        """Give the page, its state, or a picture."""
        self._answered(self._get)

    def do_POST(self) -> None:
        """Take an answer, undo one, or end."""
        self._answered(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the address is a secret."""

    def _answered(self, work: Any) -> None:
        """Let a request in, or refuse it; errors that are meant for a person become their words."""
        route = self._route()
        if route is None:
            self._send(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
            return
        try:
            work(route)
        except ConnectionError:
            self.close_connection = True  # the browser went on without waiting
        except ValueError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except (EarthtuneError, OSError) as error:
            self._json({"error": explained(error)[0]}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _route(self) -> str | None:
        """What is asked for after the token; None where Host or token are wrong. Other sites can guess neither."""
        port = self.server.server_port
        if self.headers.get_all("Host") not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]):
            return None
        origin = self.headers.get("Origin")
        if origin is not None and origin not in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
            return None
        found = re.fullmatch(r"/([\w-]{1,64})/([\w ./%-]{0,80})", self.path)
        if not found or not secrets.compare_digest(found[1].encode(), self.server.desk.token.encode()):
            return None
        return found[2].replace("%20", " ")

    def _get(self, route: str) -> None:
        desk = self.server.desk
        if route in _STATIC:
            self._send(HTTPStatus.OK, *_static(route))
        elif route == "state":
            self._json(desk.state())
        elif (whole := re.fullmatch(r"layer/([a-z ]+)", route)) and whole[1] in desk.pictures.draw:
            with desk.pen:
                data = desk.pictures.whole(whole[1])
            self._send(HTTPStatus.OK, data, "image/png")
        elif (part := re.fullmatch(r"part/([a-z ]+)/(\d{1,9})", route)) and part[1] in desk.pictures.draw:
            if int(part[2]) not in desk.bounds:
                self._send(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
                return
            with desk.pen:
                data, box = desk.part(part[1], int(part[2]))
            self._send(HTTPStatus.OK, data, "image/png", {"X-Bounds": ",".join(map(str, box))})
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found", "text/plain")

    def _post(self, route: str) -> None:
        desk = self.server.desk
        if route not in ("answer", "undo", "end"):
            self._send(HTTPStatus.NOT_FOUND, b"not found", "text/plain")
            return
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length) or self.headers.get("Transfer-Encoding"):
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
            return
        if int(length) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        if route == "answer":
            try:
                said = json.loads(body)
            except RecursionError as error:
                raise ValueError("too deep") from error
            self._json(desk.take(said))
        elif route == "undo":
            self._json(desk.undo())
        else:
            self._json({"ended": True})
            desk.done.set()

    def _refuse(self, status: HTTPStatus) -> None:
        """Refuse what is not read: the connection ends, for what follows would be taken for a request."""
        self.close_connection = True
        self._send(status, status.phrase.encode(), "text/plain", {"Connection": "close"})

    def _json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
        self._send(status, data, "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
