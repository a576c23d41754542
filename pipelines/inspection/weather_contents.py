"""What a weather file holds, for a person and for a program: the part of `inspect` that is about weather."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pyproj import CRS

from models.errors import EarthtuneError
from pipelines.weather import canonical, dataset, intervals, regions
from pipelines.weather.formats.detect import Format, format_of

_LOOK = 1 << 21
_MOST_CHUNK = 1 << 29
_TIMES = 3
_LONG = 48


@dataclass(frozen=True)
class Field:
    """One variable; the share of missing values and the range come from at most about two million values.

    Attributes:
        name: its name.
        units: as the file has them, an empty text where it has none.
        dims: dimensions, in canonical order.
        dtype: type of the decoded values.
        long_name: what it is called in words.
        missing: share of values without data; None where it was not looked at.
        minimum: least value seen.
        median: median of the values seen.
        maximum: greatest value seen.
        problem: why it was not looked at.
    """

    name: str
    units: str
    dims: tuple[str, ...]
    dtype: str
    long_name: str
    missing: float | None = None
    minimum: float | None = None
    median: float | None = None
    maximum: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Part:
    """Variables that share a grid, times and levels.

    Attributes:
        fields: the variables.
        sizes: length by dimension.
        first: first time, None where there is none.
        last: last time.
        step_hours: step of the times in hours, None where it is not even or there is one time only.
        step_months: step of the times in months, where they are of the same day of each.
        gaps: steps longer than the shortest.
        interval_hours: length of the intervals that values stand for, None where they are of instants or it varies.
        levels: labels of the levels.
        level_units: their unit.
        grid: "latitudes and longitudes", "projected" or "curvilinear".
        crs: coordinate system, None where there is none.
        region: west, south, east, north of the outermost centres, in degrees (or units of the coordinate system).
        resolution: distance of rows and of columns, in degrees (or units of the coordinate system).
        notes: what a person should know.
    """

    fields: tuple[Field, ...]
    sizes: dict[str, int]
    first: str | None = None
    last: str | None = None
    step_hours: float | None = None
    step_months: int | None = None
    gaps: int = 0
    interval_hours: float | None = None
    levels: tuple[float, ...] = ()
    level_units: str = ""
    grid: str = "latitudes and longitudes"
    crs: str | None = None
    region: tuple[float, float, float, float] | None = None
    resolution: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeatherContents:
    """What a weather file holds: its format and its parts."""

    format: str
    parts: tuple[Part, ...]

    @property
    def summary(self) -> str:
        """One line."""
        return f"{self.format}, " + "; ".join(_sentence(part) for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the summary."""
        return {"summary": self.summary, **dataclasses.asdict(self)}

    def lines(self) -> list[str]:
        """The summary and a table of the variables."""
        out = [self.summary]
        for part in self.parts:
            out += _table(part)
            out += [f"note: {note}" for note in part.notes]
        return out


def describe_weather(path: Path | str, *, group: str | None = None) -> WeatherContents:
    """Look at a weather file: headers, and up to two million values of each variable.

    Raises:
        InputError: the file is missing, damaged, or holds no fields on a grid.
    """
    kind = Format.ZARR if isinstance(path, str) else format_of(path)
    return WeatherContents(kind.value, tuple(_part(part) for part in dataset.open_parts(path, group=group)))


def _part(data: xr.Dataset) -> Part:
    """Describe variables of one grid."""
    data = intervals.with_intervals(data)
    return Part(
        tuple(_field(data[key]) for key in data.data_vars),
        {str(dim): int(size) for dim, size in data.sizes.items()},
        **_times(data),
        **_levels(data),
        **_place(data),
        notes=tuple(canonical.notes_of(data)),
    )


def _times(data: xr.Dataset) -> dict[str, Any]:
    """What is to tell of times."""
    if "time" not in data.dims:
        return {}
    times = data["time"].values
    out: dict[str, Any] = {key: str(np.datetime_as_string(times[i], "m")) for key, i in (("first", 0), ("last", -1))}
    steps = np.diff(times) / np.timedelta64(1, "h")
    if len(steps):
        wide = int((steps > steps.min()).sum())
        months = np.diff(times.astype("datetime64[M]").astype(int))
        within = times - times.astype("datetime64[M]")
        if np.ptp(months) == 0 and months[0] > 0 and (within == within[0]).all():
            out["step_months"] = int(months[0])
        else:
            out |= {"step_hours": float(steps.min()) if 2 * wide < len(steps) else None, "gaps": wide}
    if "interval_start" in data.coords:
        lengths = (data["interval_end"].values - data["interval_start"].values) / np.timedelta64(1, "h")
        out["interval_hours"] = float(lengths[0]) if np.ptp(lengths) == 0 else None
    return out


def _levels(data: xr.Dataset) -> dict[str, Any]:
    """What is to tell of levels."""
    if "level" not in data.coords or "level" not in data.dims:
        return {}
    labels = tuple(float(label) for label in data["level"].values)
    return {"levels": labels, "level_units": str(data["level"].attrs.get("units", ""))}


def _place(data: xr.Dataset) -> dict[str, Any]:
    """What is to tell of the grid."""
    if "lon" in data.dims:
        box = regions.extent(data)
        steps = regions.step(data["lat"].values), regions.step(data["lon"].values)
        return {"region": (box.west, box.south, box.east, box.north), "resolution": steps}
    if "spatial_ref" in data.coords:
        x, y = data["x"].values, data["y"].values
        region = float(x.min()), float(y.min()), float(x.max()), float(y.max())
        crs = _crs_name(str(data["spatial_ref"].attrs["crs_wkt"]))
        return {"grid": "projected", "crs": crs, "region": region, "resolution": (regions.step(y), regions.step(x))}
    if "lat" in data.coords:
        lat, lon = data["lat"].values, data["lon"].values
        limits = [float(f(v)) for f, v in ((np.nanmin, lon), (np.nanmin, lat), (np.nanmax, lon), (np.nanmax, lat))]
        return {"grid": "curvilinear", "region": tuple(limits)}
    return {"grid": "rows and columns without coordinate system"}


def _crs_name(wkt: str) -> str:
    """EPSG code, or the system's own name."""
    crs = CRS.from_wkt(wkt)
    code = crs.to_epsg()
    method = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    return f"EPSG:{code}" if code else method if crs.name.lower() in ("unknown", "undefined") else str(crs.name)


def _field(field: xr.DataArray) -> Field:
    """Describe one variable."""
    dims = tuple(str(dim) for dim in field.dims)
    told = str(field.attrs.get("long_name") or field.attrs.get("standard_name") or "")
    told = "" if told == field.name else told.replace("_", " ")
    plain = (str(field.name), str(field.attrs.get("units", "")), dims, str(field.dtype), told)
    chunk = field.encoding.get("chunksizes") or field.encoding.get("chunks")
    size = int(np.prod(chunk)) * field.dtype.itemsize if chunk else 0
    if size > _MOST_CHUNK:
        return Field(*plain, problem=f"not looked at: one chunk of it decodes to {size / 2**30:.1f} GB")
    try:
        values = np.asarray(_look(field), np.float64)
    except (EarthtuneError, OSError, ValueError, KeyError, RuntimeError) as error:
        return Field(*plain, problem=f"cannot be read: {' '.join(str(error).split())}")
    good = values[np.isfinite(values)]
    missing = 1 - good.size / max(values.size, 1)
    if not good.size:
        where = "" if values.size == field.size else " in what was looked at"
        return Field(*plain, missing, problem=f"no data{where}")
    marks = (float(good.min()), float(np.median(good)), float(good.max()))
    empty = _empty_times(values, dims) if values.size == field.size else 0
    problem = f"no data at {empty} of {values.shape[dims.index('time')]} times" if empty else ""
    return Field(*plain, missing, *marks, problem=problem)


def _look(field: xr.DataArray) -> np.ndarray:
    """All values where these are few, else those of some times and levels, and every so many rows and columns."""
    if field.size > _LOOK:
        some = {dim: np.unique(np.linspace(0, field.sizes[dim] - 1, _TIMES).astype(int)) for dim in field.dims[:-2]}
        part = field.isel(some)
        every = int(np.ceil(np.sqrt(part.size / _LOOK)))
        field = part.isel({dim: slice(None, None, every) for dim in field.dims[-2:]})
    return np.asarray(field.values)


def _empty_times(values: np.ndarray, dims: tuple[str, ...]) -> int:
    """Times without any data."""
    if "time" not in dims or values.shape[dims.index("time")] < 2:
        return 0
    others = tuple(axis for axis, dim in enumerate(dims) if dim != "time")
    return int((~np.isfinite(values)).all(axis=others).sum())


def _sentence(part: Part) -> str:
    """Variables, times, levels, grid, place and missing share on one line."""
    names = [field.name for field in part.fields]
    named = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    words = [f"{len(names)} variable{'s' if len(names) > 1 else ''} ({named})", *_time_words(part)]
    others = {dim: size for dim, size in part.sizes.items() if dim not in (*canonical.ORDER, "y", "x")}
    words += [f"{size} members" if dim == "number" else f"{dim} of {size}" for dim, size in others.items()]
    if part.levels:
        several, first = len(part.levels) > 1, f"{part.levels[0]:g}"
        span = f"{first}..{part.levels[-1]:g}" if several else first
        words.append(f"{len(part.levels)} level{'s' * several} {span} {part.level_units}".rstrip())
    words += _place_words(part)
    seen = [field.missing for field in part.fields if field.missing is not None]
    words += [f"{np.mean(seen):.1%} missing"] if seen else []
    return ", ".join(words)


def _time_words(part: Part) -> list[str]:
    """Times in words."""
    if part.first is None:
        return ["no time axis"]
    count = part.sizes["time"]
    if count == 1:
        return [f"1 time {part.first}"]
    step, hours = "at uneven steps", part.step_hours
    if hours is not None:
        unit = f"{hours * 60:g} min" if hours < 1 else f"{hours:g} h" if hours % 24 else f"{hours / 24:g} d"
        step = f"every {unit}"
    if part.step_months is not None:
        step = "every month" if part.step_months == 1 else f"every {part.step_months} months"
    gaps = f" with {part.gaps} gaps" if part.gaps and part.step_hours is not None else ""
    return [f"{count} times {part.first} to {part.last} {step}{gaps}"]


def _place_words(part: Part) -> list[str]:
    """Grid and place in words."""
    rows, cols = (part.sizes.get("lat", part.sizes.get("y", 0)), part.sizes.get("lon", part.sizes.get("x", 0)))
    words = f"{rows} x {cols} cells"
    if part.region is None:
        return [words, part.grid]
    down, across = part.resolution or (0.0, 0.0)
    even = down and across
    if part.grid == "projected":
        size = f" of {down:.6g} x {across:.6g}" if even else ""
        west, south, east, north = part.region
        return [f"{words}{size}", f"{part.crs}, x {west:.7g}..{east:.7g}, y {south:.7g}..{north:.7g}"]
    size = f" of {down:.4g} x {across:.4g} deg" if even else f", {part.grid}"
    return [words + size, str(regions.Region(*part.region))]


def _table(part: Part) -> list[str]:
    """The variables as lines of columns."""
    rows = [("variable", "units", "dimensions", "missing", "min", "median", "max", "")]
    for field in part.fields:
        marks = ["" if value is None else f"{value:.5g}" for value in (field.minimum, field.median, field.maximum)]
        share = "" if field.missing is None else f"{field.missing:.1%}"
        told = field.long_name if len(field.long_name) <= _LONG else field.long_name[: _LONG - 3] + "..."
        words = "; ".join(text for text in (told, field.problem) if text)
        named = (field.name, field.units or "-", " ".join(field.dims), share)
        rows.append((*named, *marks, words))  # type: ignore[arg-type] # eight in all
    widths = [max(len(row[at]) for row in rows) for at in range(7)]
    lines = []
    for row in rows:
        cells = [row[at].ljust(width) if at < 3 else row[at].rjust(width) for at, width in enumerate(widths)]
        lines.append("  ".join([*cells, row[7]]).rstrip())
    return lines
