"""Make a series of synthetic scenes of one place over years, with what changed in it, the same for the same seed.

Usage: ``python sample_data/make_series.py OUT [SEED]``. Woods, grass, fields that rotate, a town and water grow and
fade with the year, each year a little otherwise; light, haze, two sensors of which one drifts, clouds, shadows, noise.
One summer is a drought. Clearings of one hectare, thinnings and a burn come at known days. No real place is shown.
"""

import datetime
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from make import BANDS, CLOUD_TOP, HAZE, MATERIALS, NODATA, NOISE, fractal, patchwork
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter, shift

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONIFER, BROADLEAF, GRASS, CROP, BUILT, WATER = range(6)
PIXEL = 20.0  # metres
HECTARE = 5  # pixels a side
LEAVES = ("conifer", "broadleaf", "grass", "crop", "roof", "water")  # what a kind is, full-grown
BARE = ("conifer", "soil_wet", "dry_grass", "soil_dry", "asphalt", "turbid_water")  # and what it is without leaves
LEAST_GREEN = (0.85, 0.30, 0.45, 0.05, 0.6, 0.8)  # share of leaves in winter
DROUGHT = (0.05, 0.10, 0.45, 0.30, 0.0, 0.1)  # of the leaves that a drought takes by its end
CHAR = (0.03, 0.035, 0.04, 0.07, 0.11, 0.12)  # reflectance of burnt ground
CLEARED = {"dry_grass": 0.35, "soil_wet": 0.4, "stubble": 0.25}
CLOUDY = 0.3  # opacity from which the cloud layer tells a cloud


@dataclass(frozen=True)
class Plan:
    """What is made.

    Attributes:
        seed: of everything.
        shape: rows and columns.
        first: first day.
        years: how many.
        step: days between dates, about.
        drought: the year with one; none when None.
        changes_from: first day of changes.
        clearings: of a hectare each.
        thinnings: of a hectare each, which take 0.35 of the trees.
        burns: of about three hectares each.
    """

    seed: int = 5
    shape: tuple[int, int] = (160, 160)
    first: datetime.date = datetime.date(2019, 1, 1)
    years: int = 5
    step: int = 8
    drought: int | None = 2022
    changes_from: datetime.date = datetime.date(2022, 1, 1)
    clearings: int = 40
    thinnings: int = 10
    burns: int = 2

    @property
    def days(self) -> Ints:
        """Days since 1970, a little off the step, as orbits are."""
        rng = np.random.default_rng((self.seed, 1))
        begin = _day(self.first)
        days = np.arange(begin, begin + int(self.years * 365.25), self.step)
        return days + rng.integers(0, 3, days.size)


@dataclass
class Place:
    """A place and what happens to it.

    Attributes:
        kind: CONIFER ... WATER of each pixel.
        parcel: number of each pixel's parcel.
        rough: lasting differences between neighbours (h, w), around 1.
        changed: day of the change, 0 where none (h, w).
        change: number of the change, 0 where none (h, w).
        what: name of each change by its number.
    """

    kind: Ints
    parcel: Ints
    rough: Floats
    changed: Ints
    change: Ints
    what: dict[int, str] = field(default_factory=dict)


def _day(date: datetime.date) -> int:
    """Days since 1970."""
    return (date - datetime.date(1970, 1, 1)).days


def place(plan: Plan) -> Place:
    """Lay out woods, fields, a town and water, and what will change."""
    rng = np.random.default_rng((plan.seed, 0))
    shape = plan.shape
    _, parcel = patchwork(rng, shape, 60.0, (9.0, 18.0))
    farmed = rng.random(parcel.max() + 1)[parcel]
    kind = np.where(farmed < 0.6, CROP, GRASS)
    woods = fractal(rng, shape, 90, 1.7) > -0.1
    needles = fractal(rng, shape, 50, 1.6) > 0
    kind = np.where(woods, np.where(needles, CONIFER, BROADLEAF), kind)
    kind[fractal(rng, shape, 40, 1.7) > 2.0] = BUILT
    kind[fractal(rng, shape, 60, 1.9) > 2.1] = WATER
    rough = np.exp(0.08 * fractal(rng, shape, 6, 0.8))
    made = Place(kind, parcel, rough, np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    begin, end = _day(plan.changes_from) + 20, _day(plan.first) + int(plan.years * 365.25) - 60
    for what, count in (("burn", plan.burns), ("clearing", plan.clearings), ("thinning", plan.thinnings)):
        for _ in range(count):
            _change(rng, made, what, int(rng.integers(begin, max(end, begin + 1))))
    return made


def _change(rng: Generator, made: Place, what: str, day: int) -> None:
    """Let something happen in a wood where nothing else does; nothing, where no room is found in 200 tries."""
    side = HECTARE if what != "burn" else 9
    woods = (made.kind == CONIFER) | (made.kind == BROADLEAF)
    for _ in range(200):
        row, col = (int(rng.integers(2, size - side - 2)) for size in made.kind.shape)
        around = np.s_[row - 2 : row + side + 2, col - 2 : col + side + 2]
        if woods[around].all() and not made.change[around].any():
            here = np.zeros_like(woods)
            here[row : row + side, col : col + side] = True
            if what == "burn":
                here &= gaussian_filter(here.astype(float), 1.5) > 0.35 + 0.1 * rng.random(here.shape)
            number = len(made.what) + 1
            made.what[number] = what
            made.changed[here], made.change[here] = day, number
            return


def leaves(plan: Plan, made: Place, day: int) -> Floats:
    """Share of each pixel's leaves that is there on a day (h, w)."""
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    of_year, green = date.timetuple().tm_yday, np.empty(made.kind.shape)
    rng = np.random.default_rng((plan.seed, 2, date.year))
    late, vigour = rng.normal(0, 6, 6), rng.normal(1, 0.03, 6)
    for kind in range(6):
        up = 1 / (1 + np.exp(-(of_year - 115 - late[kind]) / 12))
        down = 1 / (1 + np.exp((of_year - 285 - late[kind]) / 14))
        green[made.kind == kind] = LEAST_GREEN[kind] + (1 - LEAST_GREEN[kind]) * (up + down - 1) * vigour[kind]
    fields = made.kind == CROP
    green[fields] = _crops(np.random.default_rng((plan.seed, 3, date.year)), made, of_year)[fields]
    if plan.drought == date.year:
        dry = np.clip((of_year - 160) / 60, 0, 1) * np.clip((330 - of_year) / 60, 0, 1)
        green *= 1 - dry * np.take(DROUGHT, made.kind)
    return np.clip(green, 0, 1)


def _crops(rng: Generator, made: Place, of_year: int) -> Floats:
    """Share of leaves on fields: winter cereal, maize or rape by parcel, sown otherwise every year."""
    count = made.parcel.max() + 1
    sown = rng.integers(0, 3, count)
    peak = np.array([140, 205, 120])[sown] + rng.normal(0, 6, count)
    wide = np.array([38, 32, 30])[sown] * rng.uniform(0.9, 1.1, count)
    cover = 0.05 + 0.9 * np.exp(-(((of_year - peak) / wide) ** 2))
    catch = 0.35 * (rng.random(count) < 0.4) * (of_year > 260)
    return np.asarray(np.maximum(cover, catch)[made.parcel])


def ground(plan: Plan, made: Place, day: int) -> Floats:
    """Reflectance of the ground on a day, without light, air and sensor (6, h, w)."""
    green = leaves(plan, made, day)
    full, bare = (np.array([MATERIALS[name] for name in names])[made.kind] for names in (LEAVES, BARE))
    surface = (full * green[..., None] + bare * (1 - green[..., None])) * made.rough[..., None]
    cleared = sum(np.multiply(MATERIALS[name], share) for name, share in CLEARED.items())
    since = day - made.changed
    for number, what in made.what.items():
        here = (made.change == number) & (since >= 0)
        if here.any():
            after = np.array(CHAR) if what == "burn" else cleared
            share = 0.35 if what == "thinning" else 0.95
            share *= 1 - 0.15 * min(float(since[here][0]) / 730, 1)  # it grows back a little
            surface[here] = surface[here] * (1 - share) + after * share
    return np.moveaxis(surface, 2, 0)


def scene(plan: Plan, made: Place, day: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """What a sensor delivers on a day: counts of 0.0001 (6, h, w), and HLS quality bits (h, w)."""
    rng = np.random.default_rng((plan.seed, 4, day))
    shape = plan.shape
    of_year = (day / 365.25 % 1) * 2 * np.pi
    light = 1 - 0.06 * np.cos(of_year) + rng.normal(0, 0.015)
    sensor = rng.integers(0, 2)
    gain = 1.0 if sensor else 1.01 + 0.006 * (day - _day(plan.first)) / 365.25
    band = 1 + (0.01 * np.array([1, -1, 1, -1, 0.5, -0.5]) if sensor else np.zeros(6))
    haze = rng.gamma(2.0, 0.004) * (1 + 0.3 * fractal(rng, shape, 200, 2.0))
    amount = rng.uniform(-1.2, 2.2)  # from overcast to clear
    opacity = np.clip((fractal(rng, shape, 110, 1.7) - amount) * 1.4, 0, 1)
    shadow = shift(opacity, (-6, 4), order=1)
    clear = ground(plan, made, day) * light * gain * band[:, None, None] * (1 - 0.6 * shadow)
    seen = (clear + np.multiply.outer(HAZE, haze)) * (1 - opacity) + np.multiply.outer(CLOUD_TOP, opacity)
    noisy = gaussian_filter(seen, (0, 0.5, 0.5)) + rng.standard_normal(seen.shape) * np.reshape(NOISE, (-1, 1, 1))
    bits = np.where(opacity > CLOUDY, 2, 0) | np.where((shadow > CLOUDY) & (opacity <= CLOUDY), 8, 0)
    return np.rint(noisy * 10000).astype(np.int16), bits.astype(np.uint8)


def write(out: Path, plan: Plan, day: int, counts: NDArray[np.int16], bits: NDArray[np.uint8]) -> None:
    """Write a scene of a day and its Fmask."""
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    profile = {"driver": "GTiff", "height": plan.shape[0], "width": plan.shape[1], "crs": "EPSG:32632"}
    profile |= {"transform": from_origin(600000, 5600000, PIXEL, PIXEL), "compress": "deflate", "tiled": True}
    profile |= (
        {"blockxsize": 512, "blockysize": 512} if min(plan.shape) > 512 else {"blockxsize": 128, "blockysize": 128}
    )
    files = {"hls": (counts, "int16", NODATA, BANDS), "fmask": (bits[None], "uint8", 255, ("FMASK",))}
    for name, (data, dtype, nodata, names) in files.items():
        path = out / f"{date:%Y%m%d}_{name}.tif"
        with rasterio.open(path, "w", count=len(data), dtype=dtype, nodata=nodata, **profile) as file:
            file.descriptions = names
            file.update_tags(ACQUISITION_DATE=date.isoformat(), ORIGIN="synthetic: sample_data/make_series.py")
            if name == "hls":
                file.scales = (0.0001,) * len(data)
            file.write(data)


def main(out: Path, plan: Plan) -> Place:
    """Write every scene of a series under out, and the days and numbers of its changes; return the place."""
    out.mkdir(parents=True, exist_ok=True)
    made = place(plan)
    for day in plan.days:
        write(out, plan, int(day), *scene(plan, made, int(day)))
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), Plan(seed=int(sys.argv[2]) if len(sys.argv) > 2 else 5))
