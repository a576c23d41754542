"""What is asked of the network: bounded, tried again, with credentials for those alone whose they are."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from rasterio.errors import NotGeoreferencedWarning
from requests.adapters import HTTPAdapter
from requests.utils import get_netrc_auth, select_proxy

from models.errors import InputError, RunError, shown

EARTHDATA = ("earthdata.nasa.gov", "earthdatacloud.nasa.gov")  # whom EARTHDATA_TOKEN is for
_LOGIN = "urs.earthdata.nasa.gov"
ATTEMPTS = 6
FIRST_WAIT = 0.5  # seconds; each is twice the one before
_LONGEST_WAIT = 60.0
_PATIENCE = (15.0, 60.0)  # seconds to connect, and between bytes
_BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))
_MOST_TEXT = 32 << 20
_THREADS = 8
_TOKEN = "get a token at https://urs.earthdata.nasa.gov/profile and set EARTHDATA_TOKEN, or put your login in ~/.netrc"
Came = TypeVar("Came")


class RefusedError(InputError):
    """A server wants other credentials than came, or the signature has run out."""


class _AgainError(Exception):
    """What may succeed when it is tried again, after a wait in seconds where the server says one."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True)
class Span:
    """A range of a file behind an address.

    Attributes:
        content: its bytes.
        total: bytes of the whole file.
        tag: what changes with the file's content; empty where the server does not tell.
    """

    content: bytes
    total: int
    tag: str


class Web:
    """What a command asks of the network; threads may share it.

    Attributes:
        received: bytes that came.
        signatures: those that were given for files, by the address that gave them.
    """

    def __init__(self, catalogue: str) -> None:
        """For a catalogue at this address, which may lead to addresses of this network only if it is there itself."""
        self.received = 0
        self.signatures: dict[str, str] = {}
        self._counting, self._stopped = threading.Lock(), threading.Event()
        self._near = _is_near(urlsplit(catalogue).hostname or "")
        self._session = _Session(self._check)

    def plain(self, address: str, *, method: str = "GET", parameters: Mapping[str, Any] | None = None) -> str:
        """Text of at most 32 MiB.

        Raises:
            InputError: there is none, or it is refused.
            RunError: the server does not answer, however often it is asked.
        """
        sent: dict[str, Any] = {"json": parameters} if method == "POST" else {"params": parameters}

        def once() -> str:
            with self._session.request(method, address, stream=True, timeout=_PATIENCE, **sent) as reply:
                _check_status(reply, address)
                content = self._content(reply, _MOST_TEXT + 1)
            if len(content) > _MOST_TEXT:
                raise InputError(
                    f"{shown(address)}: answers with more than {_MOST_TEXT >> 20} MiB of text; ask for less"
                )
            return content.decode("utf-8", "replace")

        return self._tried(address, once)

    def read_json(self, address: str, **how: Any) -> Any:
        """A JSON document; as `plain`."""
        text = self.plain(address, **how)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            begins = " ".join(text[:60].split())
            raise InputError(f"{shown(address)}: not JSON, it begins with {begins!r}; check the address") from error

    def span(self, address: str, start: int, length: int) -> Span:
        """A range of a file, cut where the file ends.

        Raises:
            InputError: there is no such file, it is refused, or the server serves whole files only.
            RunError: the range does not come whole, however often it is asked for.
        """

        def once() -> Span:
            wanted = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
            with self._session.get(address, headers=wanted, stream=True, timeout=_PATIENCE) as reply:
                _check_status(reply, address)
                told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers.get("Content-Range", ""))
                if reply.status_code != 206 or told is None:
                    kind = reply.headers.get("Content-Type", "something else")
                    raise InputError(
                        f"{shown(address)}: wanted a range of a file, {kind} came whole; the server has to serve ranges"
                    )
                first, last, total = map(int, told.groups())
                size = min(length, total - start)
                if first != start or last - first + 1 != size:
                    raise _AgainError(f"bytes {first} to {last} came instead of {start} to {start + size - 1}")
                content = self._content(reply, size)
                if len(content) != size:
                    raise _AgainError(f"{len(content)} of {size} bytes came")
                return Span(content, total, reply.headers.get("ETag", "") or reply.headers.get("Last-Modified", ""))

        return self._tried(address, once)

    def _tried(self, address: str, once: Callable[[], Came]) -> Came:
        """Try some times, with longer and longer waits."""
        why = ""
        for attempt in range(ATTEMPTS):
            wait = FIRST_WAIT * 2**attempt
            try:
                return once()
            except _AgainError as error:
                why, wait = str(error), max(wait, error.wait or 0)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                why = type(error.args[0] if error.args else error).__name__
            except (requests.RequestException, ValueError) as error:
                raise InputError(
                    f"{shown(address)}: cannot be asked ({' '.join(str(error).split())}); check the address"
                ) from error
            if attempt < ATTEMPTS - 1 and self._stopped.wait(min(wait, _LONGEST_WAIT)):
                break
        told = f"{why}, {ATTEMPTS} times in a row"
        raise RunError(f"{shown(address)}: {told}; run the same command later, it goes on from here")

    @contextmanager
    def workers(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that ask at the same time; ctrl-C does not wait for what they would try again."""
        with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
            # Filters belong to all threads, so it is set here what rasters without a place would make them say.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                yield pool
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _content(self, reply: requests.Response, most: int) -> bytes:
        """What a reply holds, and no more bytes than these of it."""
        pieces, count = [], 0
        for piece in reply.iter_content(1 << 16):
            pieces.append(piece)
            count += len(piece)
            with self._counting:
                self.received += len(piece)
            if count >= most:
                break
        return b"".join(pieces)[:most]

    def _check(self, address: str, proxies: Any) -> None:
        """Refuse what a catalogue of the world may not lead to; a proxy decides for itself."""
        host = urlsplit(address).hostname or ""
        if not self._near and not select_proxy(address, proxies) and _is_near(host):
            raise InputError(
                f"{shown(address)}: an address of this network, to which the catalogue may not lead; name another"
            )


class _Session(requests.Session):
    """Credentials go by the host that is asked, after a redirection too; .netrc is for Earthdata's login alone."""

    def __init__(self, check: Callable[[str, Any], None]) -> None:
        super().__init__()
        self.max_redirects = 10
        self.auth = _with_credentials
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(check))

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Credentials of the one host are not those of the next."""
        prepared_request.headers.pop("Authorization", None)
        _with_credentials(prepared_request)


class _Adapter(HTTPAdapter):
    """Each address is checked before it is asked, those of redirections too."""

    def __init__(self, check: Callable[[str, Any], None]) -> None:
        super().__init__(pool_maxsize=32)
        self._check = check

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """See `HTTPAdapter`."""
        self._check(request.url or "", kwargs.get("proxies"))
        return super().send(request, *args, **kwargs)


def _with_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Earthdata's token or login, for its own hosts and over a channel that nobody else reads."""
    address = urlsplit(request.url or "")
    host, token = address.hostname or "", os.environ.get("EARTHDATA_TOKEN")
    if not is_below(host, EARTHDATA) or (address.scheme != "https" and not _is_near(host)):
        return request
    if host == _LOGIN and (login := get_netrc_auth(request.url or "")):
        request.prepare_auth(login)
    elif host != _LOGIN and token:
        request.headers["Authorization"] = f"Bearer {token}"
    return request


def is_below(host: str, domains: tuple[str, ...]) -> bool:
    """Whether a host is one of some domains, or of one below them."""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


@functools.lru_cache(maxsize=1024)
def _is_near(host: str) -> bool:
    """Whether a host is this machine or in its network; one that has no address is nowhere."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(not ip_address(one).is_global for one in found)


def _check_status(reply: requests.Response, address: str) -> None:
    """Tell what may be tried again from what may not."""
    status = reply.status_code
    if status in _BUSY:
        said = reply.headers.get("Retry-After", "")
        raise _AgainError(f"the server answers {status}", float(said) if said.isdecimal() else None)
    if status in (401, 403):
        host = urlsplit(reply.url).hostname or ""
        advice = _TOKEN if is_below(host, EARTHDATA) else "it wants a login or a signature that is still valid"
        raise RefusedError(f"{shown(address)}: access refused ({status}) by {host}; {advice}")
    if status >= 400:
        raise InputError(
            f"{shown(address)}: the server answers {status} {reply.reason or ''}".rstrip() + "; check the address"
        )
