"""Synthetic weather files as MERRA-2 has them, temperature that falls with height; a recipe for these."""

from __future__ import annotations

import numpy as np
import xarray as xr

from models.training.settings import Training, WeatherArchitecture
from pipelines.tasks.downscale import DownscaleData, DownscaleRecipe

SHAPE = (13, 16)  # factor 3 leaves a row and a column out
TINY = WeatherArchitecture({"embed_dim": 16, "heads": 2, "mask_unit": [8, 8]}, channels=4, detail=12)
EAST, NORTH = {"units": "degrees_east"}, {"units": "degrees_north"}


def make_fine_day(folder, *, seed=0, hours=24, day="2020-03-30"):
    """Write hourly temperature that falls with height, and the geopotential of that height; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, heights = np.random.default_rng(seed), np.random.default_rng(99).uniform(0, 1500, SHAPE)
    y, x, t = np.meshgrid(*(np.arange(n) for n in SHAPE), np.arange(hours), indexing="ij")
    wave = np.sin(0.3 * x - 0.3 * t + rng.uniform(0, 6)) * np.cos(0.2 * y)
    lat, lon = 30 + 0.5 * np.arange(SHAPE[0]), -100 + 0.625 * np.arange(SHAPE[1])
    times = np.datetime64(f"{day}T00:00", "ns") + np.arange(hours) * np.timedelta64(60, "m")
    fields = {"T2M": (290 + 5 * wave - 0.0065 * heights[..., None], "K"), "QV2M": (0.01 + 0.002 * wave, "kg kg-1")}
    data = xr.Dataset(
        {n: (("time", "lat", "lon"), np.moveaxis(v, -1, 0).astype("f4"), {"units": u}) for n, (v, u) in fields.items()},
        {"time": times, "lat": ("lat", lat, NORTH), "lon": ("lon", lon, EAST)},
    )
    data.to_netcdf(folder / "M.inst1_2d_asm_Nx.nc4", engine="h5netcdf")
    const = data.isel(time=0, drop=True).assign(PHIS=(("lat", "lon"), 9.80665 * heights, {"units": "m2 s-2"}))
    const[["PHIS"]].to_netcdf(folder / "M.const_2d_asm_Nx.nc4", engine="h5netcdf")
    return folder


def coarsened(folder, out):
    """The day's fields averaged by area over 3 x 3 cells, by xarray, in a file of their own."""
    with xr.open_dataset(folder / "M.inst1_2d_asm_Nx.nc4", engine=xr.backends.H5netcdfBackendEntrypoint) as data:
        data = data.isel(lat=slice(1, None), lon=slice(0, 15)).load()
    w = np.sin(np.radians(data.lat + 0.25)) - np.sin(np.radians(data.lat - 0.25))
    mean = (data * w).coarsen(lat=3, lon=3).sum() / (w * xr.ones_like(data.T2M[0])).coarsen(lat=3, lon=3).sum()
    for name in mean.data_vars:
        mean[name].attrs["units"] = data[name].attrs["units"]
    mean.astype("f4").transpose("time", "lat", "lon").to_netcdf(out, engine="h5netcdf")
    return out


def downscale_recipe(root, **changes):
    data = {"inputs": ["*inst1*"], "variables": ["T2M", "QV2M"], "elevation": "*const*", "gap": 1.0}
    training = Training(epochs=8, batch=8, lr=1e-2, backbone_lr=1.0, keep="last", precision="32-true")
    given = {"backbone": "prithvi_wxc_tiny", "weights": "random", "mode": "full", "position": False, "model": TINY}
    return DownscaleRecipe("downscale", DownscaleData(root, **data | changes), training=training, **given)
