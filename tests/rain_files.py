"""Synthetic weather files as MERRA-2 has them, hourly fields and rain that follows from them; a recipe for these."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import xarray as xr

from models.training.settings import Augmentation, Training, WeatherArchitecture
from pipelines.tasks.rain import RainData, RainRecipe

LEARNED = ["ridge", "ridge on the root", "gamma", "boosting", "convolutions", "whole field"]  # baselines of rain
VARIABLES = ("TQV", "T2M", "U10M", "V10M")
TINY = WeatherArchitecture(
    {"embed_dim": 16, "heads": 2, "mask_unit": [8, 8]}, channels=4, detail=12, members=2, rounds=5
)
UNITS = {"TQV": "kg m-2", "T2M": "K", "U10M": "m s-1", "V10M": "m s-1", "PRECTOT": "kg m-2 s-1"}


def fields(hours=24, *, seed=0, shape=(9, 11)):
    """Smooth fields (hours, H, W) by name that move to the east, and the rain (mm/h) of the hour that follows."""
    rng = np.random.default_rng(seed)
    y, x, t = np.meshgrid(*(np.arange(n) for n in shape), np.arange(hours), indexing="ij")
    phase = rng.uniform(0, 6, 3)
    wave = np.sin(0.7 * x - 0.4 * t + phase[0]) * np.cos(0.5 * y + phase[1])
    moisture = 20 + 8 * wave + rng.normal(0, 0.3, wave.shape)
    out = {
        "TQV": moisture,
        "T2M": 285 + 5 * np.cos(0.3 * y + phase[2]) + rng.normal(0, 0.3, wave.shape),
        "U10M": 3 + wave,
        "V10M": -1 + 2 * wave,
        "rain": ((moisture - 22) / 4).clip(0) ** 1.5,
    }
    return {key: np.moveaxis(value, -1, 0).astype(np.float32) for key, value in out.items()}


def dataset(arrays, times, *, shape):
    """Arrays (T, H, W) by name on a grid whose latitudes rise, as MERRA-2 has it."""
    lat, lon = 30 + 0.5 * np.arange(shape[0]), -100 + 0.625 * np.arange(shape[1])
    south_up = {name: (("time", "lat", "lon"), a[:, ::-1], {"units": UNITS[name]}) for name, a in arrays.items()}
    axes = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    return xr.Dataset(south_up, {"time": times.astype("datetime64[ns]"), **axes})


def make_day(folder: Path, *, day="2020-03-30", hours=24, seed=0, shape=(9, 11)) -> Path:
    """Write a day's inst and tavg files, the latter stamped in the middle of each hour; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = fields(hours, seed=seed, shape=shape)
    start = np.datetime64(f"{day}T00:00") + np.arange(hours) * np.timedelta64(60, "m")
    stamp = day.replace("-", "")
    inst = dataset({name: found[name] for name in VARIABLES}, start, shape=shape)
    inst.to_netcdf(folder / f"M.inst1_2d_asm_Nx.{stamp}.nc4", engine="h5netcdf")
    middle = start + np.timedelta64(30, "m")
    tavg = dataset({"PRECTOT": found["rain"] / 3600}, middle, shape=shape).assign_attrs(ShortName="M2T1NXFLX")
    tavg.to_netcdf(folder / f"M.tavg1_2d_flx_Nx.{stamp}.nc4", engine="h5netcdf")
    return folder


def rain_recipe(root: Path, **changes) -> RainRecipe:
    """A recipe over `make_day` that trains in seconds."""
    data = RainData(
        root,
        inputs=["*inst1*.nc4"],
        variables=list(VARIABLES),
        target_files=["*tavg1*.nc4"],
        split={"train": 0.6, "val": 0.15, "test": 0.25},
        gap=1.0,
    )
    recipe = RainRecipe(
        "rain",
        data,
        backbone="prithvi_wxc_tiny",
        weights="random",
        mode="full",
        position=False,
        model=TINY,
        training=Training(epochs=12, batch=8, lr=1e-2, backbone_lr=1.0, keep="last", precision="32-true"),
        augment=Augmentation(offset=0.05),
    )
    return dataclasses.replace(recipe, **changes)
