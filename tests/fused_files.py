"""Chips whose classes want both the image and the rain before it, a weather file whose future is poisoned, hills."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.recipes.fused import Before, FusedData, FusedRecipe
from tests.runs import BANDS, SPECTRA, tiny_recipe, write

DAYS, DAY, COUNT = 20, "2021-06-15", 16
POISON = 1e6  # mm/d, from the images' day on
NORTH, EAST = np.arange(45.5, 44.7, -0.1), np.arange(8.8, 9.9, 0.1)


def rain_at(east: float) -> float:
    """Mean rain of the days before, mm/d, by longitude: every second cell is wet."""
    return 6.0 if round((east - EAST[0]) / 0.1) % 2 else 1.0


def make_fused_chips(root: Path) -> None:
    """Dated chips a cell apart: what is not water is tree where it was dry, grass where it was wet."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        # 0.1 degrees of longitude are 7.86 km here; the first lies in the middle of the third cell
        corner = (500000 + 7864.0 * (i % 8) - 480, 5000000 - 11110 * (i // 8))
        east = 9.0 + 0.1 * (i % 8)
        wet = rain_at(east) > 3
        index = np.full((32, 32), 0)
        index[:, int(rng.integers(10, 22)) :] = 2
        codes = np.where(index == 2, 80, 30 if wet else 10).astype(np.uint8)
        bands = (SPECTRA[index].transpose(2, 0, 1) + rng.normal(0, 60, (6, 32, 32))).astype(np.int16)
        tags = {"ACQUISITION_DATE": DAY}
        write(root / f"c{i:02d}_hls.tif", bands, corner=corner, names=BANDS, tags=tags, nodata=-9999)
        write(root / f"c{i:02d}_lc.tif", codes[None], corner=corner, nodata=0)
    weather(root / "weather.nc")
    hills(root / "dem.tif")


def hills(path: Path, *, crs: str = "EPSG:32632", **profile) -> Path:
    """A plane in metres on 90 m cells that rises by one metre in ten to the east, from 0 at the western edge."""
    plane = np.tile(9.0 * np.arange(800, dtype=np.float32) + 4.5, (200, 1))
    return write(path, plane[None], corner=(495000, 5002000), size=90.0, crs=crs, **profile)


def weather(path: Path, *, first: str = "2021-05-01", unit: str = "mm/d", name: str = "pr") -> Path:
    """Daily rain and a number that means nothing; the images' day and all after it are poisoned."""
    times = np.arange(first, "2021-06-25", dtype="datetime64[D]").astype("datetime64[ns]")
    shape = (len(times), len(NORTH), len(EAST))
    rain = np.random.default_rng(1).gamma(8.0, 0.125, shape) * np.array([rain_at(east) for east in EAST])
    rain[times >= np.datetime64(DAY)] = POISON
    noise = np.random.default_rng(2).normal(size=shape)
    bounds = np.stack((times, times + np.timedelta64(1, "D")), axis=1)
    data = xr.Dataset(
        {
            name: (("time", "lat", "lon"), rain.astype(np.float32), {"units": unit, "cell_methods": "time: mean"}),
            "noise": (("time", "lat", "lon"), noise.astype(np.float32), {"units": "1", "cell_methods": "time: mean"}),
            "time_bnds": (("time", "bnds"), bounds),
        },
        {
            "time": ("time", times, {"bounds": "time_bnds"}),
            "lat": ("lat", NORTH, {"units": "degrees_north"}),
            "lon": ("lon", EAST, {"units": "degrees_east"}),
        },
    )
    data["time"].encoding = {"units": "days since 2021-01-01"}
    data.to_netcdf(path)
    return path


def fused_recipe(root: Path, **changes) -> FusedRecipe:
    """A recipe over them that trains in seconds."""
    plain = tiny_recipe(root)
    data = FusedData(
        root,
        images="*_hls.tif",
        labels="*_lc.tif",
        fractions=(0.5, 0.25, 0.25),
        weather=Before(("weather.nc",), days_before=DAYS, join="cell"),
        static={"elevation": "dem.tif"},
    )
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    model = dataclasses.replace(plain.model, detail=0)  # a detail path exports slowly
    return FusedRecipe(**fields | {"task": "fused", "data": data, "mode": "frozen", "model": model} | changes)
