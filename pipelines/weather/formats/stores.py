"""Zarr stores as they may be opened: sizes that memory holds, codecs that only decode, chunks that lie in the store.

Specifications: https://zarr-specs.readthedocs.io/en/latest/specs.html
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from models.errors import InputError

MOST_INDEX = 1 << 28  # bytes of a coordinate, which is read whole
MOST_CHUNK = 1 << 29  # bytes of a chunk, which is decoded whole
_METADATA = ("zarr.json", ".zarray", ".zmetadata")
# Those that make bytes of bytes or arrays of arrays; pickles, for one, run code.
_CODECS = frozenset(
    (
        *("blosc", "zstd", "zlib", "gzip", "bz2", "lzma", "lz4", "shuffle", "delta", "fixedscaleoffset", "quantize"),
        *("bitround", "packbits", "astype", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3", "zfpy"),
        *("pcodec", "vlen-utf8", "vlen-bytes", "bytes", "transpose", "sharding_indexed", "cast_value", "scale_offset"),
    )
)


class OwnStore(LocalStore):
    """A store on this machine whose links lead nowhere else."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a key; None where it is not there.

        Raises:
            OSError: its file lies outside of the store.
        """
        root = os.path.realpath(self.root)
        if not os.path.realpath(self.root / key).startswith(root + os.sep):
            raise OSError(f"{key} is a link out of the store")
        return await super().get(key, prototype, byte_range)


def open_store(path: Path) -> OwnStore:
    """A store that was looked through.

    Raises:
        InputError: an array in it is too large, damaged, or coded in a way that is not read.
    """
    _look_through(path, path)
    return OwnStore(path, read_only=True)


def _look_through(folder: Path, root: Path) -> None:
    """Check all arrays in a folder of a store; what lies below one is its chunks, and left aside."""
    chunks = False
    for file in (folder / name for name in _METADATA):
        if file.is_file():
            name = f"{root}: {file.relative_to(root)}"
            try:
                content = json.loads(file.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(f"{name}: not Zarr metadata that can be read ({error}); fetch it again") from error
            check_metadata(name, content)
            chunks |= file.name == ".zarray" or (isinstance(content, dict) and content.get("node_type") == "array")
    if not chunks:
        with os.scandir(folder) as entries:
            inner = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in sorted(inner):
            _look_through(path, root)


def check_metadata(name: str, content: Any) -> None:
    """Refuse metadata of which an array cannot be read, or not without harm.

    Raises:
        InputError: an array is too large, damaged, or coded in a way that is not read.
    """
    try:
        arrays = list(_arrays(content))
    except RecursionError as error:
        raise InputError(f"{name}: not Zarr metadata that can be read ({error}); fetch it again") from error
    for array in arrays:
        _check(name, array)


def _arrays(content: Any) -> Iterator[Mapping[str, Any]]:
    """The descriptions of arrays in metadata, consolidated or not."""
    if isinstance(content, dict):
        if "shape" in content and ("chunks" in content or "chunk_grid" in content):
            yield content
        for key, value in content.items():
            if key != "attributes" and not key.endswith(".zattrs"):
                yield from _arrays(value)


def _check(name: str, array: Mapping[str, Any]) -> None:
    """Refuse an array that cannot be read, or not without harm."""
    grid = array.get("chunk_grid")
    chunks: Any = grid.get("configuration", {}).get("chunk_shape") if isinstance(grid, dict) else array.get("chunks")
    shape: Any = array["shape"]
    if not _sizes(shape, least=0) or not _sizes(chunks, least=1) or len(shape) != len(chunks):
        raise InputError(f"{name}: an array of shape {shape} in chunks of {chunks}; fetch the store again")
    for codec in _codecs(array):
        if codec.removeprefix("numcodecs.") not in _CODECS:
            raise InputError(f"{name}: coded by {codec!r}, which is not decoded; write it by zstd or blosc")
    size = _item_size(array)
    chunk = size * math.prod(chunks)
    if chunk > MOST_CHUNK:
        raise InputError(f"{name}: a chunk decodes to {chunk / 2**30:.1f} GiB, at most 0.5 GiB is read; chunk it anew")
    if len(shape) == 1 and size * shape[0] > MOST_INDEX:
        told = f"decodes to {size * shape[0] / 2**30:.1f} GiB"
        raise InputError(f"{name}: {told}, coordinates of 0.25 GiB at most are read; cut it")


def _sizes(sizes: Any, *, least: int) -> bool:
    return isinstance(sizes, list) and all(type(size) is int and least <= size < 2**48 for size in sizes)


def _item_size(array: Mapping[str, Any]) -> int:
    """Bytes of a value; 8 where they are of no fixed size."""
    try:
        return max(np.dtype(array.get("dtype") or array.get("data_type")).itemsize, 1)
    except (TypeError, ValueError):
        return 8


def _codecs(array: Mapping[str, Any]) -> Iterator[str]:
    """The names of all codecs of an array, those within others too."""
    coded = [array.get("compressor"), *(array.get("filters") or ()), *(array.get("codecs") or ())]
    coded += array.get("storage_transformers") or ()
    while coded:
        codec = coded.pop()
        if isinstance(codec, dict):
            yield str(codec.get("id") or codec.get("name"))
            within = codec.get("configuration") or {}
            coded += [*(within.get("codecs") or ()), *(within.get("index_codecs") or ())]
        elif codec is not None:
            yield str(codec)
