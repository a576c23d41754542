"""A STAC API, a static catalogue and files by range on the loopback interface, with faults that can be switched on."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import rasterio
from rasterio.transform import from_origin

BANDS = {"blue": 10, "green": 10, "red": 10, "nir08": 20, "swir16": 20, "swir22": 20}  # keys of assets, metres
CORNER = (500000, 5000000)  # EPSG:32632, of the north-western pixel
METRES = 2560  # a side of a scene


def cog(values: np.ndarray, size: float, *, nodata: float = 0, block: int = 128) -> bytes:
    """A COG of values (rows, columns) with pixels of a size in metres."""
    grid = {"crs": "EPSG:32632", "transform": from_origin(*CORNER, size, size), "nodata": nodata}
    profile = {"driver": "COG", "count": 1, "dtype": values.dtype, "compress": "deflate", "blocksize": block}
    with rasterio.MemoryFile() as memory:
        with memory.open(height=values.shape[0], width=values.shape[1], **grid, **profile) as dataset:
            dataset.write(values[None])
        return memory.read()


def publish_s2(
    server: CatalogueServer,
    day: int,
    *,
    low: int = 1100,
    metres: int = METRES,
    clouded: float = 0.0,
    query: str = "",
    block: int = 128,
    **properties: object,
) -> dict:
    """Publish a Sentinel-2 scene of a day in July 2022 with random values from `low` on; returns its item."""
    name, rng, assets = f"S2A_32TMR_202207{day:02d}_0_L2A", np.random.default_rng(day), {}
    for key, size in BANDS.items():
        values = rng.integers(low, low + 2000, (metres // size,) * 2).astype(np.uint16)
        server.files[f"/{name}/{key}.tif"] = cog(values, size, block=block)
        about = {"type": "image/tiff; application=geotiff", "eo:bands": [{"name": key, "common_name": key}]}
        about["raster:bands"] = [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]
        assets[key] = about | {"href": f"ROOT/{name}/{key}.tif{query}"}
    classes = np.full((metres // 20,) * 2, 4, np.uint8)
    classes[: round(len(classes) * clouded)] = 9
    server.files[f"/{name}/scl.tif"] = cog(classes, 20, block=block)
    assets["scl"] = {"href": f"ROOT/{name}/scl.tif{query}", "type": "image/tiff; application=geotiff"}
    told = {"datetime": f"2022-07-{day:02d}T10:00:00Z", "platform": "sentinel-2a", "s2:processing_baseline": "04.00"}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a", "geometry": None}
    item |= {"bbox": [8.9, 45.0, 9.2, 45.2], "properties": told | properties, "assets": assets}
    item["links"] = [{"rel": "self", "href": f"ROOT/stac/items/{name}"}]
    server.items.append(item)
    return item


class CatalogueServer:
    """Files and items, and what was asked.

    Attributes:
        files: content by path, /NAME; a str is JSON in which ROOT stands for the server's address.
        items: of the API at /stac, in order.
        served: bytes of files that were sent, by path.
        asked: method, path with query and headers of each request.
        faults: what goes wrong; see `_answer`.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes | str] = {}
        self.items: list[dict] = []
        self.served: Counter[str] = Counter()
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.faults: set[str] = set()
        self.page = 2
        self.signature = "one"
        self.seen: Counter[str] = Counter()
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forget(self) -> None:
        """Forget what was asked and served."""
        self.served.clear(), self.asked.clear(), self.seen.clear()

    def asked_in(self, path: str, query: str, headers: Message) -> tuple[int, bytes, dict[str, str]] | None:
        """As Earthdata has it: a file leads to the login on another host, this back, with a cookie in the end."""
        port = self._server.server_port
        if "session=" in headers.get("Cookie", ""):
            return None
        if query == "code=7":
            return 302, b"", {"Location": path, "Set-Cookie": "session=1; Path=/"}
        if headers.get("Host", "").startswith("127.0.0.1"):
            return 302, b"", {"Location": f"http://localhost:{port}{path}"}
        if headers.get("Authorization") != "Basic " + base64.b64encode(b"me:hidden").decode():
            return 401, b"who are you", {}
        return 302, b"", {"Location": f"http://127.0.0.1:{port}{path}?code=7"}

    def document(self, path: str, query: dict[str, list[str]]) -> str | None:
        """An answer of the API."""
        if path == "/stac":
            method = "POST" if "post" in self.faults else "GET"
            search = {"rel": "search", "href": "/stac/search", "method": method}
            return json.dumps({"type": "Catalog", "id": "api", "links": [search]})
        if path.startswith("/stac/items/"):
            return json.dumps(next(item for item in self.items if item["id"] == path.rsplit("/", 1)[1]))
        if path != "/stac/search":
            return None
        first = int(query.get("token", ["0"])[0])
        features = self.items[first : first + self.page]
        if "twice" in self.faults and first:
            features = [self.items[first - 1], *features]
        links = []
        if first + self.page < len(self.items):
            links = [{"rel": "next", "href": f"ROOT/stac/search?token={first + self.page}"}]
            if "post" in self.faults:
                body = {"token": [str(first + self.page)]}
                links = [{"rel": "next", "href": "ROOT/stac/search", "method": "POST", "body": body, "merge": True}]
        if "circle" in self.faults and not links:
            links = [{"rel": "next", "href": "ROOT/stac/search?token=0"}]
        return json.dumps({"type": "FeatureCollection", "features": features, "links": links})


class _Quiet(ThreadingHTTPServer):
    """Clients may be killed."""

    def handle_error(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serving_catalogue() -> Iterator[CatalogueServer]:
    """A server for the length of a block."""
    server = CatalogueServer()
    try:
        yield server
    finally:
        server.stop()


def _handler(home: CatalogueServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            home.asked.append((self.command, self.path, dict(self.headers)))
            home.seen[url.path] += 1
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            document = home.document(url.path, parse_qs(url.query) | body)
            content = home.files.get(url.path) if document is None else document
            if "busy" in home.faults and home.seen[url.path] <= 2:
                return self._send(503, b"later", {"Retry-After": "0"})
            if isinstance(content, str):
                signed = content.replace("ROOT", home.url).replace("SIGNATURE", home.signature)
                return self._send(200, signed.encode(), {"Content-Type": "application/json"})
            if content is None:
                return self._send(404, b"nothing here")
            return self._file(url.path, url.query, content)

        do_POST = do_GET

        def _file(self, path: str, query: str, content: bytes) -> None:
            if "login" in home.faults and (answer := home.asked_in(path, query, self.headers)):
                return self._send(*answer)
            if "refused" in home.faults:
                return self._send(401, b"who are you")
            if "signed" in home.faults and query != f"sig={home.signature}":
                return self._send(403, b"signature has expired")
            if "elsewhere" in home.faults and not query:
                return self._send(302, b"", {"Location": f"http://localhost:{home._server.server_port}{path}?moved"})
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            cut = "cut" in home.faults and home.seen[path] % 3 == 1
            if wanted is None or "whole" in home.faults:
                home.served[path] += len(content)
                return self._send(200, content, cut=len(content) // 2 if cut else None)
            first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
            piece = content[first : last + 1]
            about = {"Content-Range": f"bytes {first}-{last}/{len(content)}", "ETag": '"1"'}
            home.served[path] += len(piece)
            self._send(206, piece, about, cut=len(piece) // 2 if cut else None)

        def _send(
            self, status: int, content: bytes, about: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (about or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content[:cut])
            self.close_connection = cut is not None

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler
