"""Zarr stores behind addresses (https://, s3://, gs://): metadata looked through once, chunks as they are read."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import obstore
from obstore import store as stores
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, WrapperStore

from models.errors import InputError, RunError, shown
from pipelines.weather.formats.stores import check_metadata

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_MOST_METADATA = 64 << 20
_METADATA = (".zmetadata", "zarr.json")
_ITS_OWN = re.compile(r"(?:^|/)(?:zarr\.json|\.z\w+)$")
_RETRY: RetryConfig = {
    "max_retries": 6,
    "backoff": {
        "init_backoff": datetime.timedelta(seconds=0.5),
        "max_backoff": datetime.timedelta(seconds=30),
        "base": 2,
    },
    "retry_timeout": datetime.timedelta(minutes=3),
}


class RemoteStore(WrapperStore[ObjectStore[Any]]):
    """A store whose metadata are those that were looked through, whatever its server says later."""

    def __init__(
        self, store: ObjectStore[Any], name: str = "", held: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        """A store that is called `name`, with its metadata by key."""
        super().__init__(store)
        self._name, self._held = name, held

    def _with_store(self, store: ObjectStore[Any]) -> RemoteStore:
        return RemoteStore(store, self._name, self._held)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a key; None where it is not there, for what was never written is not stored.

        Raises:
            OSError: the server does not give it.
        """
        if key in self._held:
            return prototype.buffer.from_bytes(self._held[key])
        if _ITS_OWN.search(key):
            return None
        try:
            return await super().get(key, prototype, byte_range)
        except BaseError as error:
            raise OSError(f"{self._name}: {key}: {_line(error)}") from error

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """As `get`, of several."""
        return [await self.get(key, prototype, span) for key, span in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether a key is there."""
        return key in self._held if _ITS_OWN.search(key) else await super().exists(key)


def open_remote(address: str) -> RemoteStore:
    """A Zarr store behind an address that was looked through.

    Buckets are asked without a signature where the environment holds no credentials for them.

    Raises:
        InputError: no such store, access refused, metadata that are not consolidated, or an array that is not read.
        RunError: the server does not answer.
    """
    name = shown(address).rstrip("/")
    try:
        store = _store(address)
    except (BaseError, ValueError) as error:
        raise InputError(f"{name}: wanted https://, s3:// or gs:// and a Zarr store ({_line(error)})") from error
    for key in _METADATA:
        try:
            held = obstore.get(store, key)
            if held.meta["size"] > _MOST_METADATA:
                raise InputError(f"{name}: {key} has more than {_MOST_METADATA >> 20} MiB; it is not read")
            content = bytes(held.bytes())
        except (NotFoundError, FileNotFoundError):
            continue
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise InputError(f"{name}: access refused; set the credentials of its store, such as AWS_...") from error
        except BaseError as error:
            raise RunError(f"{name}: does not answer ({_line(error)}); try again later") from error
        return RemoteStore(ObjectStore(store, read_only=True), name, _checked(name, key, content))
    raise InputError(f"{name}: no Zarr store with consolidated metadata (.zmetadata, zarr.json) is there; check it")


def _store(address: str) -> Any:
    """The store of an address, without credentials where there are none."""
    scheme = address.partition("://")[0].lower()
    if scheme in ("http", "https"):
        options: Any = {"allow_http": True, "timeout": "60s"}
        return stores.HTTPStore.from_url(address.rstrip("/"), client_options=options, retry_config=_RETRY)
    if scheme == "s3":
        said: dict[str, Any] = {} if os.environ.get("AWS_ACCESS_KEY_ID") else {"skip_signature": True}
        return stores.S3Store.from_url(address, retry_config=_RETRY, **said)
    if scheme == "gs":
        said = {} if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") else {"skip_signature": True}
        return stores.GCSStore.from_url(address, retry_config=_RETRY, **said)
    raise ValueError(f"came {scheme}://")


def _checked(name: str, key: str, content: bytes) -> dict[str, bytes]:
    """Metadata by key; those that are no consolidated ones, or describe what is not read, are refused."""
    try:
        metadata = json.loads(content)
        whole = "metadata" if key == ".zmetadata" else "consolidated_metadata"
        consolidated = isinstance(metadata, dict) and isinstance(metadata.get(whole), dict)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {key} is not JSON ({error}); check the address") from error
    if not consolidated:
        raise InputError(f"{name}: its metadata are not consolidated; its maker runs zarr.consolidate_metadata")
    check_metadata(f"{name}: {key}", metadata)
    parts = metadata["metadata"] if key == ".zmetadata" else {}  # the third version's are all in one
    return {key: content} | {part: json.dumps(one).encode() for part, one in parts.items()}


def _line(error: BaseException) -> str:
    """What a library says, on a line; the rest tells what it tried."""
    return " ".join(shown(str(error)).split("\n")[0].split())[:200]
