"""Make the sample weather: two synthetic days of hourly fields and the rain that follows from them, always the same.

Usage: ``python sample_data/make_weather.py [OUT]``. OUT is this folder if left out. No day that ever was is shown.

Lows travel over a grid; the wind blows along the isobars and somewhat into the lows; the air is moist in patches that
travel too. It rains where moist air flows together. Names, units and times are those of MERRA-2.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LAT, LON = 40 + 0.5 * np.arange(25), -10 + 0.625 * np.arange(33)  # degrees; cells of MERRA-2
KM = 111.2  # kilometres of a degree of latitude
SOUTH_NORTH = (LAT - LAT.mean()) * KM  # (25,)
WEST_EAST = (LON - LON.mean()) * KM * np.cos(np.radians(LAT.mean()))  # (33,)
START, HOURS, SEED = np.datetime64("2021-01-18T00:00"), 48, 5
DRIFT = 38.0  # km/h eastward: lows and moist patches travel alike
CORIOLIS = 2 * 7.292e-5 * np.sin(np.radians(LAT.mean()))  # 1/s
AIR = 1.2  # kg/m3
SPECKS = 0.25  # spread of the logarithm of what no field tells about the rain

# Name, unit and the step that values are rounded to, so that the files stay small.
FIELDS = {
    "SLP": ("Pa", 5.0, "sea_level_pressure"),
    "T2M": ("K", 0.05, "2-meter_air_temperature"),
    "TQV": ("kg m-2", 0.05, "total_precipitable_water_vapor"),
    "QV2M": ("kg kg-1", 2e-5, "2-meter_specific_humidity"),
    "U10M": ("m s-1", 0.05, "10-meter_eastward_wind"),
    "V10M": ("m s-1", 0.05, "10-meter_northward_wind"),
}


def waves(rng: Generator, count: int, longest: float, shortest: float) -> tuple[Floats, Floats]:
    """Wave vectors (count, 2) in radians per km, eastward and northward, and phases (count,)."""
    length = np.exp(rng.uniform(np.log(shortest), np.log(longest), count))
    angle = rng.uniform(0, 2 * np.pi, count)
    vectors = 2 * np.pi / length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return vectors, rng.uniform(0, 2 * np.pi, count)


def surface(parts: tuple[Floats, Floats], hour: float) -> Floats:
    """The sum of travelling waves at an hour, variance about one: (25, 33)."""
    vectors, phases = parts
    east, north = (WEST_EAST - DRIFT * hour)[:, None], SOUTH_NORTH[:, None, None]
    return np.asarray(np.cos(east * vectors[:, 0] + north * vectors[:, 1] + phases).sum(-1) * np.sqrt(2 / len(phases)))


def lows(rng: Generator) -> Floats:
    """Lows, one a row: place east and north at hour 0 (km), radius (km), depth (Pa), hour when it is deepest."""
    count = 11
    east = np.linspace(-DRIFT * HOURS - 600, 700, count) + rng.uniform(-120, 120, count)
    spread = (rng.uniform(-600, 600, count), rng.uniform(170, 330, count), rng.uniform(700, 1900, count))
    return np.stack([east, *spread, rng.uniform(0, HOURS, count)], axis=1)


def pressure(systems: Floats, hour: float) -> Floats:
    """Pressure at sea level in Pa, (25, 33): higher in the south, with the lows in it."""
    out = 101900 - 0.55 * SOUTH_NORTH[:, None] + np.zeros((1, len(WEST_EAST)))
    for east, north, radius, depth, deepest in systems:
        far = (WEST_EAST - east - DRIFT * hour) ** 2 + (SOUTH_NORTH[:, None] - north - 6 * hour) ** 2
        out -= depth * np.exp(-(((hour - deepest) / 24) ** 2)) * np.exp(-far / (2 * radius**2))
    return np.asarray(out)


def wind(slp: Floats) -> tuple[Floats, Floats]:
    """Wind 10 m above the ground in m/s: 60 % of the geostrophic one, turned by 25 degrees towards low pressure."""
    north, east = np.gradient(slp, SOUTH_NORTH * 1e3, WEST_EAST * 1e3)  # Pa/m
    along = 0.6 / (AIR * CORIOLIS)
    u, v = -north * along, east * along
    turn = np.radians(25)
    return u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)


def day(rng: Generator) -> tuple[dict[str, Floats], Floats]:
    """The fields at each full hour by name, (48, 25, 33), and the mean rain of the hours that follow in mm/h."""
    systems, moist, warm = lows(rng), waves(rng, 20, 1200, 180), waves(rng, 8, 2200, 700)
    fields: dict[str, list[Floats]] = {name: [] for name in FIELDS}
    rain = []
    for hour in range(HOURS):
        fields_now, _ = at(systems, moist, warm, float(hour))
        for name, values in fields_now.items():
            fields[name].append(values)
        _, falls = at(systems, moist, warm, hour + 0.5)
        rain.append(falls * np.exp(SPECKS * rng.standard_normal(falls.shape) - SPECKS**2 / 2))
    return {name: np.stack(values) for name, values in fields.items()}, np.stack(rain)


def at(
    systems: Floats, moist: tuple[Floats, Floats], warm: tuple[Floats, Floats], hour: float
) -> tuple[dict[str, Floats], Floats]:
    """The fields by name, and the rain in mm/h, at an hour: (25, 33) each."""
    slp = pressure(systems, hour)
    u, v = wind(slp)
    daily = 2.5 * np.cos(2 * np.pi * (hour - 14) / 24)
    temperature = 282 - 0.006 * SOUTH_NORTH[:, None] + daily + 1.6 * surface(warm, hour) + 0.25 * v
    humid = np.clip(0.62 + 0.16 * surface(moist, hour) + 0.012 * v, 0.15, 1.0)  # relative; southerlies are moist
    holds = 16 * np.exp(0.062 * (temperature - 282))  # kg/m2 that the column can hold, 6 % more a kelvin
    inflow = -(np.gradient(u, WEST_EAST, axis=1) + np.gradient(v, SOUTH_NORTH, axis=0)) * 1e2  # 1e-5/s
    lift = np.clip(inflow + 0.4, 0, None)
    rain = np.clip(humid - 0.6, 0, None) * lift**1.1 * holds / 16 * 2.0
    fields = {
        "SLP": slp,
        "T2M": temperature,
        "TQV": humid * holds,
        "QV2M": 0.0062 * humid * np.exp(0.062 * (temperature - 282)),
        "U10M": u,
        "V10M": v,
    }
    return fields, np.where(rain < 0.03, 0.0, rain)


def dataset(arrays: dict[str, tuple[Floats, str, str]], times: NDArray[np.datetime64], name: str) -> xr.Dataset:
    """Arrays (T, 25, 33) with unit and long name as a file of MERRA-2 has them."""
    axes = {
        "time": ("time", times.astype("datetime64[ns]")),
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
    }
    variables = {
        key: (("time", "lat", "lon"), values.astype(np.float32), {"units": unit, "long_name": words})
        for key, (values, unit, words) in arrays.items()
    }
    about = {"ShortName": name, "Title": "synthetic: sample_data/make_weather.py, no real day"}
    return xr.Dataset(variables, axes, about)


def rounded(values: Floats, step: float) -> Floats:
    """Values as whole numbers of steps."""
    return np.asarray(np.round(values / step) * step)


def main(out: Path) -> None:
    """Write a day's fields and a day's rain for each day."""
    folder = out / "weather"
    folder.mkdir(parents=True, exist_ok=True)
    fields, rain = day(np.random.default_rng(SEED))
    half = np.timedelta64(30, "m")
    for first in range(0, HOURS, 24):
        chosen = slice(first, first + 24)
        times = START + np.arange(first, first + 24) * np.timedelta64(60, "m")
        stamp = str(times[0])[:10].replace("-", "")
        inst = {name: (rounded(fields[name][chosen], step), unit, w) for name, (unit, step, w) in FIELDS.items()}
        flux = {"PRECTOT": (rounded(rain[chosen], 0.01) / 3600, "kg m-2 s-1", "total_precipitation")}
        for kind, arrays, stamps, name in (
            ("inst1_2d_asm_Nx", inst, times, "M2I1NXASM"),
            ("tavg1_2d_flx_Nx", flux, times + half, "M2T1NXFLX"),
        ):
            data = dataset(arrays, stamps, name)
            packed = {key: {"zlib": True, "complevel": 9, "shuffle": True} for key in data.data_vars}
            path = folder / f"sample.{kind}.{stamp}.nc4"
            data.to_netcdf(path, engine="h5netcdf", encoding=packed)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
