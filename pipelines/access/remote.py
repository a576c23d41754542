"""A raster behind an address: its header, and the blocks of a window, each asked for once."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import rasterio
from rasterio.errors import RasterioError

from models.errors import EarthtuneError, InputError, RunError
from pipelines.access.web import RefusedError, Web
from pipelines.grids.rasters import check, reason
from pipelines.grids.windows import Window

Range: TypeAlias = tuple[int, int]  # first byte, and how many
_CHUNK = 1 << 14  # bytes that are read at once where GDAL asks for fewer
_MOST_AROUND = 64 << 20  # bytes besides those of blocks: headers
_MOST_AT_ONCE = 16 << 20
_MOST_BLOCKS = 100_000
_NAME = "remote"  # what GDAL knows the file by; any other is not there


class Remote:
    """A file behind an address. One thread at a time may read it.

    Attributes:
        name: its address, for messages.
    """

    def __init__(
        self,
        web: Web,
        name: str,
        address: Callable[[bool], str],
        *,
        chunk: int = _CHUNK,
        most: int = _MOST_AROUND,
    ) -> None:
        """Read by way of `address`, which gives where to ask; asked with True, it signs or looks it up anew.

        Args:
            web: what is asked.
            name: the file's address, for messages.
            address: see above.
            chunk: bytes that are read at once where fewer are asked for.
            most: bytes besides those of held blocks; more are refused.
        """
        self.name = name
        self._chunk, self._most = chunk, most
        self._web, self._address = web, address
        self._chunks: dict[int, bytes] = {}
        self._blocks: dict[Range, bytes] = {}
        self._total: int | None = None
        self._tag = ""
        self._error: EarthtuneError | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        if self._total is None:
            self.read(0, 1)
        return self._total or 0

    def read(self, start: int, length: int) -> bytes:
        """Bytes from `start`; fewer where the file ends."""
        if self._total is not None:
            length = min(length, self._total - start)
        if length <= 0:
            return b""
        for (first, count), content in self._blocks.items():
            if first <= start and start + length <= first + count:
                return content[start - first : start - first + length]
        first, last = start // self._chunk, (start + length - 1) // self._chunk
        if len(self._chunks) * self._chunk > self._most:
            raise InputError(f"{self.name}: more than {self._most >> 20} MiB of it would have to be read; ask for less")
        missing = [number for number in range(first, last + 1) if number not in self._chunks]
        if missing:
            begin = missing[0] * self._chunk
            content = self._ask(begin, (missing[-1] + 1) * self._chunk - begin)
            for number in range(missing[0], missing[-1] + 1):
                at = number * self._chunk - begin
                self._chunks[number] = content[at : at + self._chunk]
        joined = b"".join(self._chunks[number] for number in range(first, last + 1))
        return joined[start - first * self._chunk :][:length]

    def hold(self, ranges: Sequence[Range]) -> None:
        """Have these blocks at hand, and no others; neighbours come in one answer."""
        wanted = {one for one in ranges if one[1] > 0}
        self._blocks = {one: content for one, content in self._blocks.items() if one in wanted}
        for run in _runs(sorted(wanted - self._blocks.keys())):
            begin, end = run[0][0], max(first + count for first, count in run)
            content = self._ask(begin, end - begin)
            for first, count in run:
                self._blocks[first, count] = content[first - begin : first - begin + count]

    def _ask(self, start: int, length: int) -> bytes:
        """Bytes of the file from the network, with a new signature where the old one has run out."""
        try:
            span = self._web.span(self._address(False), start, length)
        except RefusedError as refused:
            fresh = self._address(True)
            if not fresh:
                raise
            try:
                span = self._web.span(fresh, start, length)
            except RefusedError:
                raise refused from None
        if self._total is not None and (span.total, span.tag) != (self._total, self._tag):
            raise RunError(f"{self.name}: changed while it was read; run the same command again")
        self._total, self._tag = span.total, span.tag
        return span.content

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The raster as rasterio has it; GeoTIFF or JPEG 2000, and nothing beside it is looked for.

        Raises:
            InputError: it is no such raster, or cannot be asked for.
            RunError: the network fails.
        """
        driver = "JP2OpenJPEG" if urlsplit(self.name).path.lower().endswith((".jp2", ".j2k")) else "GTiff"
        options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
        self._error = None
        try:
            with rasterio.Env(**options), rasterio.open(_NAME, driver=driver, opener=self._opener) as source:
                check(source, self.name)
                yield source
        except RasterioError as error:
            if self._error:  # what failed beneath GDAL, which only knows that something did
                raise self._error from error
            raise InputError(
                f"{self.name}: not a GeoTIFF or JPEG 2000 that can be read ({reason(error)}); fetch it another way"
            ) from error

    def _opener(self, path: str, mode: str = "rb", **_: Any) -> _File:
        if path != _NAME or "r" not in mode:
            raise FileNotFoundError(path)
        return _File(self)

    def fail(self, error: EarthtuneError) -> None:
        """Remember what failed beneath GDAL."""
        self._error = error


class _File(io.RawIOBase):
    """What GDAL reads a remote file by."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._at = remote, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
            self._at = max((self._remote.size if base is None else base) + offset, 0)
        except EarthtuneError as error:
            self._remote.fail(error)
        return self._at

    def read(self, size: int = -1) -> bytes:
        try:
            size = self._remote.size - self._at if size < 0 else size
            content = self._remote.read(self._at, size)
        except EarthtuneError as error:
            self._remote.fail(error)
            return b""
        self._at += len(content)
        return content


def _runs(ranges: Sequence[Range]) -> list[list[Range]]:
    """Ranges that follow each other closely, together up to a size."""
    found: list[list[Range]] = []
    for first, count in ranges:
        if found:
            begin, end = found[-1][0][0], max(start + length for start, length in found[-1])
            if first - end <= 64 and first + count - begin <= _MOST_AT_ONCE:
                found[-1].append((first, count))
                continue
        found.append([(first, count)])
    return found


def block_ranges(source: Any, window: Window, indexes: Sequence[int], name: str) -> list[Range]:
    """Where the blocks of a window lie in a GeoTIFF; empty where that is not told, as of JPEG 2000.

    Raises:
        InputError: they are too many.
    """
    together = bool(source.interleaving and source.interleaving.name == "pixel")
    ranges = []
    for index in indexes[:1] if together else indexes:
        spans = [
            range(side.start // size, math.ceil(side.stop / size))
            for side, size in zip(window, source.block_shapes[index - 1], strict=True)
        ]
        if math.prod(map(len, spans)) > _MOST_BLOCKS:
            raise InputError(f"{name}: the place takes more than {_MOST_BLOCKS} of its blocks; give a smaller one")
        for row in spans[0]:
            for column in spans[1]:
                where = source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=index)
                size = source.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=index)
                if where and size:
                    ranges.append((int(where), int(size)))
    return ranges
