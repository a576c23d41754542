"""A cube of many dates, Zarr or NetCDF with a dimension of bands, as a raster with a band for each date and band."""

from __future__ import annotations

import datetime
import functools
import os
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError, RasterioIOError

from models.errors import InputError
from models.runtime.hdf5 import is_hdf5

MARK = "cube:"  # before the path of a layer that is read by these
_ROWS, _COLUMNS = ("y", "lat", "latitude", "northing", "row"), ("x", "lon", "longitude", "easting", "column")
_TIMES, _BANDS = ("time", "t", "date", "timestamp"), ("band", "bands", "channel", "variable", "wavelength")
_MOST = 100_000  # bands of all dates
_OPEN = 16  # cubes of a thread
_STORE = (".zmetadata", "zarr.json", ".zgroup")
_held = threading.local()  # datasets of this thread, which must not cross forks


def is_cube(source: str) -> bool:
    """Whether a name is that of a Zarr store, here or behind an address."""
    if "://" in source:
        return source.rstrip("/").lower().endswith(".zarr")
    return Path(source).is_dir() and any((Path(source) / name).is_file() for name in _STORE)


def is_misread(source: Any, path: str) -> bool:
    """Whether GDAL takes an array of a NetCDF file for another raster: bands for dates, or rows from the bottom up.

    Where coordinates bear neither standard names nor units it leaves them aside, and turns the rows round.
    """
    extra = source.tags().get("NETCDF_DIM_EXTRA", "")
    odd = bool({*extra.strip("{}").split(",")} & {*_BANDS}) or source.transform == Affine.identity()
    return source.driver == "netCDF" and odd and "://" not in path and is_hdf5(Path(path))


@dataclass(frozen=True)
class Part:
    """One band of one date: the variable, and where it lies along its other dimensions."""

    variable: Hashable
    at: tuple[tuple[Hashable, int], ...]
    name: str
    date: datetime.date | None


class Cube:
    """What rasterio says of an open file, of the arrays of a cube; values are read when they are asked for."""

    driver = "cube"
    gcps: tuple[list[Any], None] = ([], None)
    subdatasets: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        """Look at the metadata of a store or file.

        Raises:
            InputError: it cannot be read, or nothing in it lies along rows and columns.
        """
        from pipelines.weather.formats.detect import Format
        from pipelines.weather.formats.netcdf import as_stored
        from pipelines.weather.lazy import DAMAGE, line

        kind = Format.ZARR if is_cube(path) else Format.HDF5
        self.name = path
        try:
            self._data = as_stored(path if "://" in path else Path(path), kind)
        except DAMAGE as error:
            raise InputError(f"{path}: cannot be read as {kind.value} ({line(error)}); fetch it again") from error
        rows, columns = (self._called(names) for names in (_ROWS, _COLUMNS))
        if rows is None or columns is None:
            found = ", ".join(map(str, self._data.dims))
            raise InputError(f"{path}: no rows and columns (y and x) among its dimensions ({found or 'none'})")
        self._rows, self._columns = rows, columns
        self.height, self.width = self._data.sizes[self._rows], self._data.sizes[self._columns]
        self.shape = self.height, self.width
        self._times, self._bands = self._called(_TIMES), self._called(_BANDS)
        self.parts = self._parts()
        self.count, self.indexes = len(self.parts), tuple(range(1, len(self.parts) + 1))
        self.descriptions = tuple(part.name for part in self.parts)
        self.transform, self.crs = self._transform(), self._crs()

    def _called(self, names: Sequence[str]) -> Hashable | None:
        """The dimension that bears one of some names."""
        return next((dim for dim in self._data.dims if str(dim).lower() in names), None)

    def _parts(self) -> list[Part]:
        """All bands of the first date, then those of the next; arrays without dates are left out where others have."""
        known = {self._rows, self._columns, self._times, self._bands}
        arrays = [
            key
            for key, var in self._data.data_vars.items()
            if {self._rows, self._columns} <= {*var.dims} <= known and var.dtype.kind in "iuf"
        ]
        dated = [key for key in arrays if self._times in self._data[key].dims]
        number = (self._data.sizes[self._times] if dated else 1) * self._data.sizes.get(self._bands, 1)
        if number > _MOST:
            raise InputError(f"{self.name}: {number} bands of dates, at most {_MOST} are read; cut it by time first")
        dates = self._dates() if dated else [None]
        self.dates, parts = len(dates), []
        for t, date in enumerate(dates):
            for key in dated or arrays:
                at: tuple[tuple[Hashable, int], ...] = ((self._times, t),) if dated and self._times is not None else ()
                words = self._words(key) if self._bands in self._data[key].dims else []
                parts += [Part(key, (*at, (self._bands, b)), word, date) for b, word in enumerate(words) if self._bands]
                parts += [] if words else [Part(key, at, str(key), date)]
        if not parts:
            raise InputError(f"{self.name}: no array of numbers along rows and columns; a cube of bands is wanted")
        return parts

    def _dates(self) -> list[datetime.date | None]:
        """The day of each date, None where its units do not tell."""
        import xarray as xr

        times = self._data[self._times]
        try:
            days = xr.decode_cf(times.to_dataset(name="t").reset_coords(drop=True))["t"].values.astype("datetime64[D]")
        except (ValueError, TypeError, OverflowError):
            return [None] * times.size
        return [None if np.isnat(day) else day.item() for day in days]

    def _words(self, key: Hashable) -> list[str]:
        """What the bands of an array are called: by their coordinate, or by the names in its attributes."""
        array = self._data[key]
        values = np.asarray(self._data[self._bands].values) if self._bands in self._data.variables else np.zeros(0)
        if values.dtype.kind == "S" and values.ndim == 2:  # letters
            values = np.ascontiguousarray(values).view(f"S{values.shape[-1]}").ravel()
        if values.dtype.kind in "OSUT" and values.ndim == 1:
            return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
        said = array.attrs.get("band_names", array.attrs.get("long_name"))
        number = self._data.sizes[self._bands]
        named = [str(word) for word in said] if isinstance(said, list | tuple) else []
        return named if len(named) == number else [f"{key} {b}" for b in range(1, number + 1)]

    def _transform(self) -> Affine:
        """Of the middles of rows and columns, which lie at equal distances; counts pixels where there are none."""
        axes = [self._data.coords[dim] for dim in (self._columns, self._rows) if dim in self._data.coords]
        if len(axes) < 2 or min(axis.size for axis in axes) < 2:
            return Affine.identity()
        columns, rows = (axis.values.astype(np.float64) for axis in axes)
        steps = [float((axis[-1] - axis[0]) / (len(axis) - 1)) for axis in (columns, rows)]
        for axis, step in zip((columns, rows), steps, strict=True):
            if not step or not np.allclose(axis, axis[0] + step * np.arange(len(axis)), rtol=0, atol=abs(step) / 100):
                raise InputError(f"{self.name}: rows or columns at uneven distances; bring it onto a grid first")
        return Affine(steps[0], 0, columns[0] - steps[0] / 2, 0, steps[1], rows[0] - steps[1] / 2)

    def _crs(self) -> CRS | None:
        """Of its grid mapping, or as its attributes say."""
        variables = [v for v in self._data.variables.values() if {"crs_wkt", "spatial_ref", "epsg_code"} & {*v.attrs}]
        attrs = {**self._data.attrs, **(variables[0].attrs if variables else {})}
        for key in ("crs_wkt", "spatial_ref", "epsg_code", "proj:code", "proj:epsg", "epsg", "crs"):
            text = str(attrs.get(key, ""))
            try:
                if text:
                    return CRS.from_user_input(int(text) if text.isdigit() else text)
            except (CRSError, ValueError):
                continue
        return CRS.from_epsg(4326) if str(self._columns).lower() in ("lon", "longitude") else None

    def _of(self, key: str, default: float | None) -> tuple[Any, ...]:
        """An attribute of the array of each band."""
        found = [self._data.variables[part.variable].attrs.get(key) for part in self.parts]
        return tuple(default if value is None else float(np.ravel(value)[0]) for value in found)

    @functools.cached_property
    def dtypes(self) -> tuple[str, ...]:
        """Of the values as they are read."""
        return tuple(self._type(part).name for part in self.parts)

    def _type(self, part: Part) -> np.dtype[Any]:
        array = self._data.variables[part.variable]
        unsigned = array.dtype.kind == "i" and str(array.attrs.get("_Unsigned", "")).lower() == "true"
        return np.dtype(f"u{array.dtype.itemsize}") if unsigned else array.dtype

    @functools.cached_property
    def nodatavals(self) -> tuple[float | None, ...]:
        """The values that mean no data, in the type in which values are read."""
        out = list[float | None]()
        for value, kind in zip(self._of("_FillValue", None), map(self._type, self.parts), strict=True):
            some = value is not None and not np.isnan(value)
            out.append((value % 2 ** (8 * kind.itemsize) if kind.kind == "u" else value) if some else None)
        return tuple(out)

    @functools.cached_property
    def scales(self) -> tuple[float, ...]:
        """What values as stored are multiplied by."""
        return self._of("scale_factor", 1.0)

    @functools.cached_property
    def offsets(self) -> tuple[float, ...]:
        """What is added then."""
        return self._of("add_offset", 0.0)

    @functools.cached_property
    def mask_flag_enums(self) -> list[list[MaskFlags]]:
        """No band has a mask beside its nodata value."""
        return [[MaskFlags.all_valid]] * self.count

    @functools.cached_property
    def files(self) -> list[str]:
        """The file, or what describes the store."""
        if "://" in self.name:
            return []
        path = Path(self.name)
        return [str(path)] if path.is_file() else [str(path / name) for name in _STORE if (path / name).is_file()]

    def tags(self, index: int = 0, ns: str | None = None) -> dict[str, str]:
        """None: what is told is in the attributes above."""
        return {}

    def read(
        self,
        indexes: int | Sequence[int],
        *,
        window: Any = None,
        out_shape: tuple[int, int] | None = None,
        masked: bool = False,
        resampling: Any = None,
    ) -> NDArray[Any]:
        """Values as stored: (bands, rows, columns), or (rows, columns) of one; thinned to `out_shape` by the nearest.

        Raises:
            RasterioIOError: they cannot be read.
        """
        if isinstance(indexes, int):
            found: NDArray[Any] = self.read([indexes], window=window, out_shape=out_shape, masked=masked)[0]
            return found
        rows, columns = (slice(None), slice(None)) if window is None else window.toslices()
        out = np.stack([self._read(self.parts[index - 1], rows, columns) for index in indexes])
        if out_shape is not None:
            sides = zip(out_shape, out.shape[1:], strict=True)
            y, x = (((np.arange(few) + 0.5) * many / few).astype(int) for few, many in sides)
            out = out[:, y[:, None], x]
        if not masked:
            return out
        void = [self.nodatavals[index - 1] for index in indexes]
        hidden = [np.zeros(band.shape, bool) if v is None else band == v for band, v in zip(out, void, strict=True)]
        return np.ma.masked_array(out, np.stack(hidden))

    def _read(self, part: Part, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one band."""
        array = self._data[part.variable].isel({**dict(part.at), self._rows: rows, self._columns: columns})
        try:
            values = array.transpose(self._rows, self._columns).values
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            raise RasterioIOError(f"{part.variable}: {error}") from error
        return np.asarray(values).view(self._type(part))


def opened(path: str) -> Cube:
    """A cube, or the one that this thread has open; a file or store that was written again is opened anew."""
    if getattr(_held, "pid", None) != os.getpid():
        _held.pid, _held.cubes = os.getpid(), {}
    described = [Path(path), *(Path(path) / name for name in _STORE)] if "://" not in path else []
    key = (path, *((file.stat().st_size, file.stat().st_mtime_ns) for file in described if file.exists()))
    if key not in _held.cubes:
        _held.cubes = dict([*_held.cubes.items()][1 - _OPEN :]) | {key: Cube(path)}
    return _held.cubes[key]  # type: ignore[no-any-return]
