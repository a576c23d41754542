"""Make chips of imagery, labels and values, and the weather before them: half of the truth is in each, always the same.

Usage: ``python sample_data/make_fused.py [OUT]``. OUT is this folder if left out. No real place is shown.

Grassland suffers where it rained little 30 to 60 days before the picture was taken. What is grassland only the picture
tells, how much it rained only the weather; a picture looks the same before and after, and dry spells come at any time.
"""

import csv
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from make import BANDS, MATERIALS, NODATA, NOISE, PIXEL, Floats, Ints, fractal
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

SEED, PLACES, SIZE, EPSG = 15, 40, 64, 32633
LAT, LON = 49.75 - 0.5 * np.arange(6), 13.25 + 0.5 * np.arange(8)  # centres of cells of weather, degrees
START, DAYS = np.datetime64("2019-01-01"), 1096
FIRST, LAST = 60, 30  # days before the picture between which rain counts
DRY, WET = 25.0, 50.0  # mm in these days: less than the one, or more than the other
SEASON = (120, 275)  # days of the year of the pictures
NEAR = 10  # days of the year between the two pictures of a place and the one drawn for it, where there is such a day
OTHER, FRESH, STRESSED = 1, 2, 3
STEP = 50  # counts; coarser than HLS's own 1 so that the files stay small
UNITS = {"rain": ("mm", "time: sum"), "temperature": ("K", "time: mean"), "wind": ("m s-1", "time: mean")}


@dataclass(frozen=True)
class Chip:
    """A picture of a place at a day; `day` counts from START, `rain` fell in the days that count, mm."""

    place: int
    day: int
    rain: float

    @property
    def date(self) -> np.datetime64:
        """When it was taken, at the start of the day."""
        return START + np.timedelta64(self.day, "D")

    @property
    def name(self) -> str:
        """Place and date."""
        return f"p{self.place:02d}_{str(self.date).replace('-', '')}"

    @property
    def dry(self) -> bool:
        """Whether grassland suffers."""
        return self.rain < DRY


def weather(rng: Generator) -> dict[str, Floats]:
    """Daily rain in mm, temperature in K and wind in m/s, (1096, 6, 8); dry spells begin at any time in any cell."""
    shape = (DAYS, len(LAT), len(LON))
    rain = np.where(rng.random(shape) < 0.45, rng.gamma(1.2, 5.0, shape), 0.0)
    for row, col in np.ndindex(shape[1:]):
        day = -int(rng.integers(0, 100))
        while day < DAYS:
            dry, wet = (int(rng.integers(low, high)) for low, high in ((30, 50), (35, 80)))
            rain[max(day, 0) : max(day + dry, 0), row, col] *= 0.1
            day += dry + wet
    season = 283 - 10 * np.cos(2 * np.pi * (np.arange(DAYS) - 20) / 365.25)
    temperature = season[:, None, None] + 2.5 * rng.standard_normal(shape) - 0.6 * (LAT[:, None] - LAT.mean())
    fields = {"rain": rain, "temperature": temperature, "wind": rng.gamma(4.0, 1.0, shape)}
    steps = {"rain": 0.2, "temperature": 0.2, "wind": 0.2}
    return {name: np.round(values / steps[name]) * steps[name] for name, values in fields.items()}


def chips(rng: Generator, rain: Floats, cells: Ints) -> list[Chip]:
    """A picture of each place after a dry month and one after a wet month, at about the same time of any two years."""
    days = np.arange(90, DAYS)
    days = days[[SEASON[0] <= of_year(day) <= SEASON[1] for day in days]]
    seasons = np.array([of_year(day) for day in days])
    found = []
    for place, cell in enumerate(cells):
        series = rain.reshape(DAYS, -1)[:, cell]
        fell = np.array([series[day - FIRST : day - LAST].sum() for day in days])
        off = np.abs(seasons - rng.integers(*SEASON))
        for fits in (fell < DRY, fell > WET):
            nearest = off[fits].min()
            at = int(rng.choice(np.flatnonzero(fits & (off <= max(nearest, NEAR)))))
            found.append(Chip(place, int(days[at]), float(fell[at])))
    return sorted(found, key=lambda chip: chip.name)


def of_year(day: int) -> int:
    """Day of the year of a day since START."""
    date = START + np.timedelta64(int(day), "D")
    return int((date - date.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)) + 1


def land(rng: Generator) -> tuple[NDArray[np.bool_], Ints]:
    """Where the grassland of a place is, and which of soil, conifers, broadleaf and water is elsewhere: (64, 64)."""
    shape = (SIZE, SIZE)
    grass = fractal(rng, shape, 30, 1.7)
    kinds = np.stack([fractal(rng, shape, 24, 1.7) + lift for lift in (0.3, 0.2, 0.2, -0.9)])
    return grass > np.quantile(grass, rng.uniform(0.25, 0.75)), kinds.argmax(axis=0)


def picture(rng: Generator, grass: NDArray[np.bool_], kinds: Ints, day: int) -> NDArray[np.int16]:
    """Counts of 0.0001 of reflectance (6, 64, 64); season and chance change the colours, rain does not."""
    green = 0.75 + 0.2 * np.sin(np.pi * (of_year(day) - SEASON[0]) / (SEASON[1] - SEASON[0])) + rng.normal(0, 0.08)
    green = np.clip(green + 0.06 * fractal(rng, grass.shape, 9, 1.4), 0.3, 1.0)
    others = [MATERIALS[name] for name in ("soil_dry", "conifer", "broadleaf", "water")]
    blades, straw = (np.array(MATERIALS[name])[:, None, None] for name in ("grass", "dry_grass"))
    surface = np.where(grass, blades * green + straw * (1 - green), np.moveaxis(np.array(others)[kinds], -1, 0))
    light = rng.normal(1, 0.04) * (1 + 0.03 * fractal(rng, grass.shape, 20, 1.5))
    noisy = surface * light + rng.standard_normal(surface.shape) * np.reshape(NOISE, (-1, 1, 1))
    return np.asarray((np.round(noisy * 10000 / STEP) * STEP).clip(STEP, None), np.int16)


def labels(grass: NDArray[np.bool_], dry: bool) -> NDArray[np.uint8]:
    """Codes of a chip (64, 64)."""
    return np.where(grass, STRESSED if dry else FRESH, OTHER).astype(np.uint8)


def write(path: Path, data: NDArray[np.generic], grid: Affine, chip: Chip) -> None:
    """Write bands (B, 64, 64) as a GeoTIFF; one band is a label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(data), "dtype": data.dtype, "height": SIZE, "width": SIZE}
    profile |= {"nodata": 0 if len(data) == 1 else NODATA, "crs": f"EPSG:{EPSG}", "transform": grid}
    with rasterio.open(path, "w", compress="deflate", zlevel=9, interleave="band", **profile) as out:
        out.descriptions = BANDS if len(data) > 1 else ("STRESS",)
        out.update_tags(ACQUISITION_DATE=str(chip.date), ORIGIN="synthetic: sample_data/make_fused.py, no real place")
        if len(data) > 1:
            out.scales = (0.0001,) * len(data)
        out.write(data)


def write_weather(path: Path, fields: dict[str, Floats]) -> None:
    """Write days, stamped at their start and with their bounds, as NetCDF."""
    days = np.arange(DAYS)
    since = {"units": f"days since {START}", "calendar": "standard"}
    axes = {
        "time": ("time", days, {**since, "standard_name": "time", "bounds": "time_bnds"}),
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
    }
    variables = {
        name: (("time", "lat", "lon"), fields[name], {"units": unit, "cell_methods": methods})
        for name, (unit, methods) in UNITS.items()
    }
    about = {"title": "synthetic: sample_data/make_fused.py, no real day"}
    data = xr.Dataset({**variables, "time_bnds": (("time", "nv"), np.stack([days, days + 1], axis=-1))}, axes, about)
    packed = {"zlib": True, "complevel": 9, "shuffle": True, "dtype": "int16", "scale_factor": 0.2}
    data.to_netcdf(path, engine="h5netcdf", encoding={name: {**packed, "_FillValue": -32768} for name in UNITS})


def mean_iou(shares: Floats) -> float:
    """The mean over classes of intersection by union, of a confusion matrix (truth, told)."""
    both = np.diag(shares)
    return float(np.mean(both / (shares.sum(axis=0) + shares.sum(axis=1) - both)))


def best(grass: Floats, dry: NDArray[np.bool_], parts: tuple[Floats, Floats]) -> dict[str, dict[str, float]]:
    """The best scores that there can be with imagery alone, weather alone and both, over all chips.

    With imagery a share of the grassland is told to be stressed, none of it, half or all; with weather a chip is of one
    class throughout, one if it is dry and one if it is wet. What is above the best of these is chance, on 80 chips.

    Args:
        grass: share of grassland of each chip (N,).
        dry: whether it suffers (N,).
        parts: what the imagery and what the weather adds to each chip's value, (N,) each.
    """
    other, fresh, stressed = 1 - grass.mean(), (grass * ~dry).mean(), (grass * dry).mean()
    truth = np.array([other, fresh, stressed])
    from_imagery = [
        np.array([[other, 0, 0], [0, fresh * (1 - told), fresh * told], [0, stressed * (1 - told), stressed * told]])
        for told in (0.0, 0.5, 1.0)
    ]
    ground = np.array([((1 - grass) * ~dry).mean(), ((1 - grass) * dry).mean()])
    from_weather = []
    for wet, parched in itertools.product(range(3), repeat=2):
        shares = np.zeros((3, 3))
        shares[0, wet] += ground[0]
        shares[0, parched] += ground[1]
        shares[1, wet] += fresh
        shares[2, parched] += stressed
        from_weather.append(shares)
    variance = (parts[0] + parts[1]).var()
    scores = {
        name: {
            "pixel_accuracy": max(float(np.trace(shares)) for shares in several),
            "mean_iou": max(map(mean_iou, several)),
            "value_r2": r2,
        }
        for name, several, r2 in (
            ("imagery", from_imagery, float(1 - parts[1].var() / variance)),
            ("weather", from_weather, float(1 - parts[0].var() / variance)),
            ("both", [np.diag(truth)], 1.0),
        )
    }
    return {name: {key: round(value, 4) for key, value in of.items()} for name, of in scores.items()}


def scaled(values: Floats) -> Floats:
    """Values with mean 0 and variance 1/2."""
    return np.asarray((values - values.mean()) / values.std() * np.sqrt(0.5))


def write_table(path: Path, names: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([names, *rows])


def main(out: Path) -> None:
    """Write the chips, their labels and values, the weather and the best scores."""
    folder = out / "fused"
    rng = np.random.default_rng(SEED)
    fields = weather(rng)
    cells = rng.permutation(len(LAT) * len(LON))[:PLACES]  # each place has a cell of its own
    taken = chips(rng, fields["rain"], cells)
    lands = [land(rng) for _ in range(PLACES)]
    off = rng.uniform(-0.05, 0.05, (PLACES, 2))  # degrees from the centre of the cell
    rows = []
    for chip in taken:
        row, col = divmod(int(cells[chip.place]), len(LON))
        east, north = transform(
            "EPSG:4326", f"EPSG:{EPSG}", [LON[col] + off[chip.place, 1]], [LAT[row] + off[chip.place, 0]]
        )
        corner = [np.round(at[0] / PIXEL) * PIXEL for at in (east, north)]
        half = SIZE * PIXEL / 2
        grid = from_origin(corner[0] - half, corner[1] + half, PIXEL, PIXEL)
        lon, lat = transform(f"EPSG:{EPSG}", "EPSG:4326", [corner[0]], [corner[1]])
        grass, kinds = lands[chip.place]
        write(folder / f"{chip.name}_hls.tif", picture(rng, grass, kinds, chip.day), grid, chip)
        write(folder / f"{chip.name}_stress.tif", labels(grass, chip.dry)[None], grid, chip)
        rows.append((chip.name, f"p{chip.place:02d}", str(chip.date), round(lat[0], 5), round(lon[0], 5)))
    write_weather(folder / "weather.nc", fields)
    write_table(folder / "chips.csv", ("chip", "group", "date", "latitude", "longitude"), rows)
    grass = np.array([lands[chip.place][0].mean() for chip in taken])
    parts = scaled(grass), scaled(np.array([min(chip.rain, WET) for chip in taken]))  # more does no good
    values = [(chip.name, round(float(5 + value), 3)) for chip, value in zip(taken, sum(parts), strict=True)]
    write_table(folder / "values.csv", ("chip", "value"), values)
    scores = best(grass, np.array([chip.dry for chip in taken]), parts)
    (folder / "best_scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
