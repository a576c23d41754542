"""Whether a NetCDF-3 file is whole: its header says how long it must be.

The classic format: https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from models.errors import InputError

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8}  # byte, char, short, int, float, double
_MOST_HEADER = 1 << 26


def check_whole(path: Path) -> None:
    """Check that a NetCDF-3 file reaches as far as its header says.

    Raises:
        InputError: the file is cut short, or its header is damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            needed = _Header(file).needed()
    except (struct.error, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: its NetCDF-3 header is cut short or damaged; fetch the file again") from error
    if size < needed:
        raise InputError(f"{path}: is cut short, {size} of {needed} bytes are there; fetch the file again")


class _Header:
    """Reads the header of a file field by field."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.wide = file.read(4)[3] == 2  # offsets of 64 bits

    def needed(self) -> int:
        """Bytes that the file must have."""
        records = self._number()
        self._tag()
        lengths = [self._dimension() for _ in range(self._number())]
        self._attributes()
        self._tag()
        fixed, begins, record = [0], [], 0
        shapes = [self._variable() for _ in range(self._number())]
        for dims, size, begin in shapes:
            cells = 1
            for dim in dims:
                cells *= lengths[dim] or 1
            if dims and lengths[dims[0]] == 0:
                record += (cells * size + 3) // 4 * 4 if len(shapes) > 1 else cells * size
                begins.append(begin)
            else:
                fixed.append(begin + cells * size)
        streamed = 0xFFFFFFFF  # the number of records was not written
        last = min(begins) + records * record if begins and records and records != streamed else 0
        # The padding after the last record may be missing.
        return max(*fixed, last - 3 if last else 0)

    def _number(self) -> int:
        return int(struct.unpack(">I", self.file.read(4))[0])

    def _tag(self) -> None:
        self.file.read(4)

    def _text(self) -> None:
        self._skip(self._number())

    def _skip(self, count: int) -> None:
        """Pass over bytes and their padding."""
        if count > _MOST_HEADER:
            raise OverflowError
        self.file.seek((count + 3) // 4 * 4, 1)

    def _dimension(self) -> int:
        self._text()
        return self._number()

    def _attributes(self) -> None:
        self._tag()
        for _ in range(self._number()):
            self._text()
            size = _SIZES[self._number()]
            self._skip(self._number() * size)

    def _variable(self) -> tuple[list[int], int, int]:
        """Dimensions, bytes of a value and position."""
        self._text()
        dims = [self._number() for _ in range(min(self._number(), 1024))]
        self._attributes()
        size = _SIZES[self._number()]
        self._number()
        begin = struct.unpack(">Q" if self.wide else ">I", self.file.read(8 if self.wide else 4))[0]
        return dims, size, int(begin)
