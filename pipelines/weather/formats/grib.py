"""GRIB messages as lazily read variables, one per parameter, kind of level, kind of step and grid.

The headers are read once and nothing is written beside the file. Each variable has just the times and levels that its
messages have: cubes over everything in a file (time x step x level) would be mostly empty, and large.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyproj  # noqa: F401 - before ecCodes, which loads a libproj of its own for the whole process
import xarray as xr

from models.errors import InputError, RunError
from pipelines.weather import canonical, lazy

_KEYS = (
    *("cfVarName", "shortName", "cfName", "name", "units", "typeOfLevel", "level", "stepType", "md5GridSection"),
    *("gridType", "number", "dataDate", "dataTime", "validityDate", "validityTime"),
    *("startStep", "endStep", "stepUnits", "centreDescription", "edition"),
)
_METHODS = {"instant": "point", "accum": "sum", "avg": "mean", "max": "maximum", "min": "minimum", "diff": "range"}
_SINGLE = ("surface", "meanSea", "entireAtmosphere", "atmosphere", "heightAboveGround", "nominalTop", "tropopause")
_STEP_HOURS = {0: 1 / 60, 1: 1.0, 2: 24.0, 10: 3.0, 11: 6.0, 12: 12.0, 13: 1 / 3600, 14: 0.25, 15: 0.5}
_AXES = {"latitude": "degrees_north", "longitude": "degrees_east"}
_RECTILINEAR = ("regular_ll", "regular_gg")
_CURVILINEAR = (
    *("rotated_ll", "rotated_gg", "lambert", "lambert_azimuthal_equal_area", "polar_stereographic"),
    "mercator",
)
_LEVEL_UNITS = {"isobaricInhPa": "hPa", "isobaricInPa": "Pa", "heightAboveGround": "m", "heightAboveSea": "m"}
# More empty cells than this, and a cube is no cube.
_MOST_EMPTY = 0.95
_EMPTY_BYTES = 1 << 28
_MOST_POINTS = 1 << 26  # ecCodes decodes a field whole, places and values, 8 bytes each
_ANY = 1 << 40  # slices of headers have an end, so their dimension's length does not matter

Offset = int | tuple[int, int]
_Grid = tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]  # dimensions, shape, coordinates


@dataclass(frozen=True)
class _Field:
    """One message: its headers and where it lies."""

    offset: Offset
    keys: Mapping[str, Any]

    @property
    def reference(self) -> np.datetime64:
        """Start of the forecast."""
        return _time(self.keys["dataDate"], self.keys["dataTime"])

    @property
    def valid(self) -> np.datetime64:
        """The time that it is of, the end for intervals."""
        return _time(self.keys["validityDate"], self.keys["validityTime"])

    @property
    def start(self) -> np.datetime64:
        """Start of the interval, the valid time for instants."""
        hours = int(self.keys["endStep"]) - int(self.keys["startStep"])
        seconds = round(hours * _STEP_HOURS.get(int(self.keys["stepUnits"]), 1.0) * 3600)
        return self.valid - np.timedelta64(seconds, "s")

    @property
    def group(self) -> tuple[str, ...]:
        """What fields of one variable have in common."""
        return tuple(str(self.keys[key]) for key in ("shortName", "typeOfLevel", "stepType", "md5GridSection"))


def open_grib(path: Path) -> list[xr.Dataset]:
    """The variables of a file, each as a dataset of its own, in the order found.

    Returns:
        datasets of one variable with dimensions of number, time (or reference_time and lead_time, where forecasts
        overlap), level, and those of the grid; latitude and longitude in degrees; and for intervals the coordinates
        interval_start and interval_end.

    Raises:
        InputError: cfgrib is not installed, the file is damaged, or its messages form no variable; where they form
            some, notes tell what is wrong with the others.
    """
    try:
        import cfgrib.messages  # noqa: F401 - whether it is there
    except ImportError as error:
        raise InputError(f"{path}: GRIB needs cfgrib, which is not installed; pip install 'earthtune[grib]'") from error
    _whole(path)
    groups: dict[tuple[str, ...], list[_Field]] = defaultdict(list)
    for field in _scan(path):
        groups[field.group].append(field)
    names, found, problems = _names(list(groups)), [], []
    grids: dict[str, _Grid] = {}
    for group, fields in groups.items():
        try:
            section = group[-1]
            grids[section] = grids.get(section) or _grid(path, fields[0])
            found.append(_variable(path, names[group], fields, grids[section]))
        except InputError as error:
            problems.append(str(error))
    if not found:
        raise InputError(problems[0] if problems else f"{path}: holds no GRIB message; fetch the file again")
    return [canonical.noted(found[0], [f"left out: {text}" for text in problems]), *found[1:]]


def _whole(path: Path) -> None:
    """Check that every message ends where its header says, and is filled by its sections."""
    size, at, count = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while (at := _next(file, at)) >= 0:
            file.seek(at)
            head = file.read(16)
            length = _length(head)
            if length is None:
                return  # a GRIB 1 message of more than 8 MB hides its length; ecCodes knows how to find it
            whole = 16 <= length <= size - at
            if whole:
                file.seek(at + length - 4)
                whole = file.read(4) == b"7777"
            if not whole or not _sections_fit(file, at, length, head[7]):
                raise InputError(
                    f"{path}: message {count + 1} at byte {at} of {size} is cut short or damaged, {length} bytes are "
                    "wanted; fetch the file again"
                )
            at, count = at + length, count + 1


def _next(file: Any, at: int) -> int:
    """Where the next message begins, from a position on; -1 where none does. Padding between messages is allowed."""
    while True:
        file.seek(at)
        block = file.read(1 << 16)
        found = block.find(b"GRIB")
        if found >= 0:
            return at + int(found)
        if len(block) < 1 << 16:
            return -1
        at += len(block) - 3


def _sections_fit(file: Any, at: int, length: int, edition: int) -> bool:
    """Whether the sections of a message fill it; ecCodes crashes on some that do not."""
    width, place, end = (4, at + 16, at + length - 4) if edition == 2 else (3, at + 8, at + length - 4)
    while place < end:
        file.seek(place)
        size = int.from_bytes(file.read(width), "big")
        if size < width + 1:
            return False
        place += size
    return place == end


def _length(head: bytes) -> int | None:
    """Bytes of a message by its first section; None where GRIB 1 cannot say."""
    if len(head) < 16:
        return 16
    if head[7] == 2:
        return int(struct.unpack(">Q", head[8:16])[0])
    length = int.from_bytes(head[4:7], "big")
    return None if length & 0x800000 else length


def _scan(path: Path) -> list[_Field]:
    """The headers of all messages."""
    import eccodes
    from cfgrib.messages import FileStream

    fields: list[_Field] = []
    try:
        for offset, message in FileStream(str(path), errors="raise").items():
            field = _Field(offset, {key: _key(message, key) for key in _KEYS})
            _ = field.reference, field.start  # dates that exist
            fields.append(field)
    except (eccodes.CodesInternalError, EOFError, KeyError, ValueError, TypeError) as error:
        number, why = len(fields) + 1, lazy.line(error)
        raise InputError(f"{path}: message {number} cannot be understood ({why}); fetch the file again") from error
    return fields


def _key(message: Any, key: str) -> Any:
    """A header value, None where the message lacks it."""
    native = f"{key}:int" if key in ("startStep", "endStep", "stepUnits") else key
    try:
        return message[native]
    except KeyError:
        return None


def _time(date: int, clock: int) -> np.datetime64:
    """YYYYMMDD and HHMM as a time."""
    text = f"{int(date):08d}{int(clock):04d}"
    return np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[8:10]}:{text[10:12]}:00", "s")


def _names(groups: list[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A name per group: the short name, with what tells it from others of that name."""
    names = {}
    for group in groups:
        same = [other for other in groups if other[0] == group[0]]
        tells = [at for at in (1, 2) if len({other[at] for other in same}) > 1]
        left = [other for other in same if [other[at] for at in tells] == [group[at] for at in tells]]
        number = [f"grid{left.index(group) + 1}"] if len(left) > 1 else []
        names[group] = "_".join([group[0], *(group[at] for at in tells), *number])
    return names


def _variable(path: Path, name: str, fields: list[_Field], place: _Grid) -> xr.Dataset:
    """One variable of messages of one kind, on their grid."""
    first = fields[0].keys
    plain = first["cfVarName"]
    named = plain + name[len(first["shortName"]) :] if plain and plain != "unknown" else name
    axes = _axes(path, named, fields)
    dims, shape, grid = place
    index: dict[tuple[int, ...], Offset] = {}
    for field in fields:
        index[tuple(axis.index[axis.of(field)] for axis in axes)] = field.offset
    lengths = tuple(len(axis.index) for axis in axes)
    cells = int(np.prod(lengths))
    if 1 - len(fields) / cells > _MOST_EMPTY and cells * int(np.prod(shape)) * 4 > _EMPTY_BYTES:
        sizes = ", ".join(f"{len(axis.index)} of {axis.name}" for axis in axes)
        raise InputError(f"{path}: {named} has {len(fields)} messages for {sizes}; split the file (grib_copy -w) first")
    read = partial(_read, str(path), named, index, shape)
    kept = [axis for axis in axes if axis.keep]
    full = lazy.variable([*(axis.name for axis in axes), *dims], (*lengths, *shape), np.float32, read)
    squeezed = full.isel({axis.name: 0 for axis in axes if not axis.keep})
    squeezed.attrs.update(_attributes(fields[0], name))
    coordinates: dict[str, Any] = {axis.name: (axis.name, axis.values(), axis.attributes) for axis in kept}
    coordinates |= grid | _intervals(fields, axes)
    if axes[1].name == "time" and not axes[1].keep:
        coordinates["time"] = ((), axes[1].values()[0], {"standard_name": "time"})
    attrs = {"institution": str(first["centreDescription"]), "GRIB_edition": int(first["edition"])}
    return xr.Dataset({named: squeezed}, coordinates, attrs)


def _attributes(field: _Field, name: str) -> dict[str, str]:
    """CF attributes of a variable."""
    keys = field.keys
    attrs = {"long_name": str(keys["name"]), "units": str(keys["units"]), "GRIB_shortName": name}
    if keys["cfName"] and keys["cfName"] != "unknown":
        attrs["standard_name"] = str(keys["cfName"])
    attrs["cell_methods"] = f"time: {_METHODS.get(keys['stepType'], 'point')}"
    attrs["GRIB_typeOfLevel"] = str(keys["typeOfLevel"])
    return attrs


@dataclass(frozen=True)
class _Axis:
    """One dimension of messages: its values in order, and how a message tells its own."""

    name: str
    index: dict[Any, int]
    keep: bool
    attributes: dict[str, str]

    def of(self, field: _Field) -> Any:
        """A message's value."""
        return _TELLS[self.name](field)

    def values(self) -> np.ndarray:
        """The values in order."""
        found = list(self.index)
        if self.name in ("time", "reference_time"):
            return np.array(found, "datetime64[ns]")
        if self.name == "lead_time":
            return np.array(found, "timedelta64[ns]")
        return np.array(found, np.int64 if self.name == "number" else np.float64)


_TELLS: dict[str, Any] = {
    "number": lambda field: int(field.keys["number"] or 0),
    "time": lambda field: field.valid,
    "reference_time": lambda field: field.reference,
    "lead_time": lambda field: field.valid - field.reference,
    "level": lambda field: float(field.keys["level"] or 0),
}


def _axis(name: str, fields: list[_Field], *, keep: bool, **attributes: str) -> _Axis:
    """A dimension with the values that messages have, in ascending order."""
    found = sorted({_TELLS[name](field) for field in fields})
    return _Axis(name, {value: at for at, value in enumerate(found)}, keep or len(found) > 1, attributes)


def _axes(path: Path, name: str, fields: list[_Field]) -> list[_Axis]:
    """The dimensions of a variable; by valid time where each comes once, else by start and lead time of forecasts."""
    kind = str(fields[0].keys["typeOfLevel"])
    units = {"units": _LEVEL_UNITS[kind]} if kind in _LEVEL_UNITS else {}
    number = _axis("number", fields, keep=False, standard_name="realization", units="1")
    level = _axis("level", fields, keep=kind not in _SINGLE, long_name=kind, **units)
    time = _axis("time", fields, keep=False, standard_name="time")
    axes = [number, time, level]
    if _distinct(axes, fields):
        return axes
    reference = _axis("reference_time", fields, keep=True, standard_name="forecast_reference_time")
    lead = _axis("lead_time", fields, keep=True, standard_name="forecast_period")
    axes = [number, reference, lead, level]
    if not _distinct(axes, fields):
        raise InputError(
            f"{path}: {name} comes more than once for the same time and level; keep one of each (grib_copy -w) first"
        )
    return axes


def _distinct(axes: list[_Axis], fields: list[_Field]) -> bool:
    """Whether each message has a place of its own."""
    return len({tuple(axis.of(field) for axis in axes) for field in fields}) == len(fields)


def _intervals(fields: list[_Field], axes: list[_Axis]) -> dict[str, Any]:
    """Start and end of the interval that each time stands for; nothing for instants."""
    if fields[0].keys["stepType"] == "instant" or axes[1].name != "time":
        return {}
    starts = {axes[1].of(field): field.start for field in fields}
    ends = np.array(list(axes[1].index), "datetime64[ns]")
    begins = np.array([starts[end] for end in axes[1].index], "datetime64[ns]")
    if len(ends) == 1 and not axes[1].keep:
        return {"interval_start": ((), begins[0]), "interval_end": ((), ends[0])}
    return {"interval_start": ("time", begins), "interval_end": ("time", ends)}


def _grid(path: Path, field: _Field) -> _Grid:
    """Dimensions, shape and coordinates of a grid."""
    import eccodes
    from cfgrib.messages import FileStream

    kind, name = field.keys["gridType"], field.keys["shortName"]
    if kind not in (*_RECTILINEAR, *_CURVILINEAR):
        raise InputError(
            f"{path}: {name} lies on a {kind} grid, which ecCodes does not place in rows and columns; interpolate it "
            "to latitudes and longitudes first (cdo -setgridtype,regular)"
        )
    try:
        message = FileStream(str(path), errors="raise")[field.offset]
        shape = int(message["Ny"]), int(message["Nx"])
        if shape[0] * shape[1] > _MOST_POINTS:
            size = f"{path}: {name} decodes to {shape[0]} x {shape[1]} cells"
            raise InputError(f"{size}, 64 million at most are read; cut it first (cdo sellonlatbox)")
        places = {key: np.asarray(message[f"{key}s"]) for key in _AXES}
        if kind in _CURVILINEAR:
            if message.get("iScansNegatively", 0) or message.get("jPointsAreConsecutive", 0):
                raise InputError(
                    f"{path}: {name} runs westward or by columns on a {kind} grid, where ecCodes misplaces it; "
                    "interpolate it to latitudes and longitudes first (cdo -setgridtype,regular)"
                )
            dims = ("y", "x")
            return dims, shape, {key: (dims, at.reshape(shape), {"units": _AXES[key]}) for key, at in places.items()}
        # ecCodes lists the places as the values run, but does not turn every other line.
        lat, lon = (_scanned(places[key], message, shape, turns=False) for key in _AXES)
    except (eccodes.CodesInternalError, EOFError, KeyError, ValueError) as error:
        why = lazy.line(error)
        raise InputError(f"{path}: the {kind} grid of {name} makes no sense ({why}); fetch the file again") from error
    axes = {"latitude": lat[:, 0], "longitude": lon[0]}
    return tuple(axes), shape, {key: (key, axis, {"units": _AXES[key]}) for key, axis in axes.items()}


def _scanned(values: np.ndarray, message: Any, shape: tuple[int, ...], *, turns: bool = True) -> np.ndarray:
    """Values in the order in which a message scans its grid, as rows and columns (WMO FM 92 GRIB, flag table 3.4).

    Args:
        values: all of a message's values in their order.
        message: tells whether columns follow each other in place of rows, and whether every other line runs backwards.
        shape: rows and columns.
        turns: whether lines that run backwards are to be turned.
    """
    by_columns = bool(message.get("jPointsAreConsecutive", 0))
    lines = values.reshape(shape[::-1] if by_columns else shape)
    if turns and message.get("alternativeRowScanning", 0):
        lines = lines.copy()
        lines[1::2] = lines[1::2, ::-1]
    return lines.T if by_columns else lines


def _read(
    path: str, name: str, index: Mapping[tuple[int, ...], Offset], shape: tuple[int, ...], selection: lazy.Selection
) -> np.ndarray:
    """The messages under a selection; NaN where there is none."""
    headers = len(selection) - len(shape)
    rows = [lazy.positions(item, _ANY) for item in selection[:headers]]
    grid = np.ix_(*(lazy.positions(item, size) for item, size in zip(selection[headers:], shape, strict=True)))
    sizes = tuple(len(row) for row in rows)
    out = np.full((*sizes, *(part.size for part in grid)), np.nan, np.float32)
    for place in np.ndindex(*sizes):
        offset = index.get(tuple(int(row[at]) for row, at in zip(rows, place, strict=True)))
        if offset is not None:
            out[place] = _values(path, name, offset, shape)[grid]
    return out


def _values(path: str, name: str, offset: Offset, shape: tuple[int, ...]) -> np.ndarray:
    """One field, float32 of the grid's shape."""
    import eccodes
    from cfgrib.messages import FileStream

    try:
        message = FileStream(path, errors="raise")[offset]
        raw = _scanned(np.asarray(message["values"], np.float64), message, shape)
        return np.where(raw == message["missingValue"], np.nan, raw).astype(np.float32)
    except (eccodes.CodesInternalError, EOFError, KeyError, ValueError) as error:
        told = f"{path}: the message of {name} at byte {offset} cannot be decoded"
        raise RunError(f"{told} ({lazy.line(error)}); fetch the file again") from error
