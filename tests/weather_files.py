"""Small weather files for the tests, in every format; values are known exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj  # noqa: F401 - before ecCodes, see pipelines.weather.formats.grib
import pytest
import xarray as xr

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"real data is not at {DATA}")


def field(
    *, lon0=0.0, step=10.0, times=4, levels=(), south_up=False, seed=0, name="t2m", units="K", start="2020-01-01"
):
    """A global dataset of one variable as files have it, decoded; longitudes begin at `lon0`."""
    lat = np.arange(90 - step / 2, -90, -step)
    lon = lon0 + np.arange(0, 360, step)
    time = np.datetime64(start, "ns") + np.arange(times) * np.timedelta64(6, "h")
    shape = (times, *([len(levels)] if levels else []), len(lat), len(lon))
    values = np.random.default_rng(seed).normal(280, 10, shape).astype(np.float32)
    dims = ("time", *(["level"] if levels else []), "latitude", "longitude")
    coords = {
        "time": ("time", time),
        "latitude": ("latitude", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    if levels:
        coords["level"] = ("level", np.array(levels, float), {"units": "hPa", "positive": "down"})
    data = xr.Dataset({name: (dims, values, {"units": units, "long_name": "a field"})}, coords)
    return data.isel(latitude=slice(None, None, -1)) if south_up else data


def save(data: xr.Dataset, path: Path, **encoding) -> Path:
    """Write as NetCDF-4 (.nc, .nc4), NetCDF-3 (.nc3) or Zarr (.zarr), by the suffix."""
    if path.suffix == ".zarr":
        data.to_zarr(path, consolidated=encoding.pop("consolidated", True), encoding=encoding, zarr_format=2)
    elif path.suffix == ".nc3":
        data.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT", encoding=encoding)
    else:
        data.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


def message(values: np.ndarray, *, edition=2, sample="regular_ll_sfc", lat0=90.0, lon0=0.0, step=10.0, **keys) -> bytes:
    """One GRIB message of a regular grid whose first row is the northernmost."""
    import eccodes

    handle = eccodes.codes_grib_new_from_samples(f"{sample}_grib{edition}")
    rows, cols = values.shape
    grid = {
        "Ni": cols,
        "Nj": rows,
        "latitudeOfFirstGridPointInDegrees": lat0,
        "longitudeOfFirstGridPointInDegrees": lon0,
        "latitudeOfLastGridPointInDegrees": lat0 - (rows - 1) * step,
        "longitudeOfLastGridPointInDegrees": (lon0 + (cols - 1) * step) % 360,
        "iDirectionIncrementInDegrees": step,
        "jDirectionIncrementInDegrees": step,
    }
    for key, value in {**grid, "dataDate": 20200101, "dataTime": 0, **keys}.items():
        eccodes.codes_set(handle, key, value)
    missing = np.isnan(values)
    if missing.any():
        eccodes.codes_set(handle, "bitmapPresent", 1)
        eccodes.codes_set(handle, "missingValue", 9999)
    eccodes.codes_set(handle, "bitsPerValue", 24)
    eccodes.codes_set_values(handle, np.where(missing, 9999, values).astype(float).ravel())
    out = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return out
