"""What `changes` finds: clearings, made and injected into real series; false alarms; and a real die-back by year.

Usage: ``python tests/benchmarks/changes.py [SEED ...]``: made series of these seeds, with and without a drought; and,
where ``../shared/data`` is there, spruces in Sentinel-2 from 2015 on (change_bark_beetle_s2).
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "sample_data")]

import make_series as sample  # noqa: E402

from models.changes.history import Ground, learn  # noqa: E402
from models.changes.runs import Runs  # noqa: E402
from models.changes.watch import Watch, take  # noqa: E402
from pipelines.changes.series import features  # noqa: E402
from pipelines.changes.work import more_chances  # noqa: E402

RATE, WATCHED = 0.01, ("NDVI", "NBR")
BEETLE = ROOT.parent / "shared" / "data" / "change_bark_beetle_s2"
# Median reflectance of the spruces that were cut in 2020 over that of those that stayed green, in the order of BANDS.
CUT = np.array([957, 1418, 1621, 3893, 3038, 1999]) / np.array([232, 530, 330, 3728, 2044, 982])


def watched(x: Any) -> Any:
    """Indices (T, F, N) of bands (T, 6, h, w) in ten-thousandths."""
    return np.stack([features(date, sample.BANDS, WATCHED).reshape(len(WATCHED), -1) for date in x])


def run(y: Any, days: Any, since: int) -> tuple[Watch, list[Any], Any]:
    """Watch all pixels; what was shared on each date, and the days on which each pixel was told changed (T, N)."""
    before = days < since
    history = learn(y[before], days[before])
    kept = RATE * more_chances(y[before], days[before], [*y[~before]], days[~before])
    watch, shared, told = Watch.begin(history, y[before], kept), [], []
    for day, date in zip(days[~before], y[~before], strict=True):
        stood = watch.runs.changed > 0
        shared.append(watch.date(date, int(day)))
        told.append(~stood & (watch.runs.changed > 0))
    return watch, shared, np.array(told)


def years(days: Any) -> Any:
    """The year of days since 1970."""
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970


def by_year(told: Any, days: Any, where: Any) -> dict[int, float]:
    """Share of pixels told changed in each year."""
    each = {int(year): told[years(days) == year][:, where].any(axis=0) for year in np.unique(years(days))}
    return {year: round(float(hit.mean()), 4) for year, hit in each.items()}


def made(plan: sample.Plan) -> None:
    """Print what is found of a made series."""
    place, days = sample.place(plan), plan.days
    x = np.empty((len(days), 6, *plan.shape), np.float32)
    for t, day in enumerate(days):
        counts, bits = sample.scene(plan, place, int(day))
        clear = distance_transform_edt(bits == 0) > 3 if bits.any() else np.ones(plan.shape, bool)
        x[t] = np.where(clear, counts, np.nan)
    y, since = watched(x), (plan.changes_from - datetime.date(1970, 1, 1)).days
    _, _, told = run(y, days, since)
    later = days[days >= since]
    print(f"made, seed {plan.seed}, drought {plan.drought}: false alarms {by_year(told, later, ~near(place))}")
    for what in ("clearing", "thinning", "burn"):
        numbers = [number for number, name in place.what.items() if name == what]
        hits = [found(place, number, told, y[days >= since], later) for number in numbers]
        ever, soon = np.mean(hits, axis=0)
        print(f"  {what}: {len(hits)}, found {ever:.2f}, in three clear dates {soon:.2f}")


def near(place: sample.Place) -> Any:
    """Pixels that changed, and two around."""
    return binary_dilation(place.change > 0, iterations=2).ravel()


def found(place: sample.Place, number: int, told: Any, y: Any, days: Any) -> tuple[bool, bool]:
    """Whether half of a change's pixels were told at all, and by their third clear date."""
    here = (place.change == number).ravel()
    after = days >= place.changed.ravel()[here][0]
    hit = told[after][:, here]
    third = (np.isfinite(y[after][:, 0, here]).cumsum(axis=0) <= 3) & hit
    return bool(hit.any(axis=0).mean() >= 0.5), bool(third.any(axis=0).mean() >= 0.5)


def beetle() -> None:
    """Print what is found of spruces: injected clearings, false alarms on green ones, the die-back by year."""
    x, days, forest = spruces()
    y = watched(x)
    since = (datetime.date(2018, 1, 1) - datetime.date(1970, 1, 1)).days
    watch, shared, told = run(y, days, since)
    in_summer = {year: y[(years(days) == year) & months(days, 6, 8)][:, 0] for year in range(2016, 2021)}
    summer = {year: np.nanmedian(values, axis=0) for year, values in in_summer.items()}
    green = forest & np.all([summer[2016] - summer[year] < 0.06 for year in (2019, 2020)], axis=0)
    later, kind = days[days >= since], watch.of_kinds.changed[watch.ground.kinds]
    print(f"spruces: {forest.sum()} pixels of wood, {green.sum()} stay green, of which were told changed:")
    print(f"  {by_year(told, later, green)}")
    for year in (2018, 2019, 2020):
        fell = (summer[2016] - summer[year] > 0.15)[forest].mean()
        alone = told[years(later) <= year].any(axis=0)[forest].mean()
        with_kind = ((kind > 0) & (years(kind) <= year))[forest].mean()
        print(f"  {year}: NDVI fell by 0.15 on {fell:.3f}; told of pixels {alone:.3f}, of kinds {with_kind:.3f}")
    for side in (1, 3):
        for share in (1.0, 0.5):
            inject(x, days, since, watch, shared, green, side, share)


def spruces() -> tuple[Any, Any, Any]:
    """Bands (T, 6, h, w) of change_bark_beetle_s2, NaN where not clear; days; where the wood is (N,)."""
    import pyproj  # noqa: F401  before netCDF's own libraries
    import xarray as xr

    fine, coarse = (xr.open_dataset(BEETLE / f"s2_{size}m.nc").load() for size in (10, 20))
    doubled = {name: coarse[name].values.repeat(2, 1).repeat(2, 2) for name in ("B8A", "B11", "B12", "CLM")}
    bands = [*(fine[name].values for name in ("B2", "B3", "B4")), *(doubled[name] for name in ("B8A", "B11", "B12"))]
    x = np.stack(bands, axis=1).astype(np.float32)
    clear = (x > -9999).all(axis=1) & np.isin(doubled["CLM"], (0, 255))
    days = fine.time.values.astype("datetime64[D]").astype(np.int64)
    return np.where(clear[:, None], x, np.nan), days, fine.forest_mask.values.ravel() > 0


def months(days: Any, first: int, last: int) -> Any:
    """Days of some months."""
    month = days.astype("datetime64[D]").astype("datetime64[M]").astype(int) % 12 + 1
    return (month >= first) & (month <= last)


def inject(x: Any, days: Any, since: int, watch: Watch, shared: Any, green: Any, side: int, share: float) -> None:
    """Clear squares of green wood one at a time, and print how many are found."""
    rng, later = np.random.default_rng(1), days[days >= since]
    inner = green.reshape(x.shape[2:])
    reach = side // 2
    whole = distance_transform_edt(np.pad(inner, 1))[1:-1, 1:-1] > reach * np.sqrt(2)
    places = rng.permutation(np.argwhere(whole))[:300]
    hits = []
    for row, col in places:
        square = np.s_[row - reach : row + reach + 1, col - reach : col + reach + 1]
        here = np.zeros(inner.shape, bool)
        here[square] = True
        start = int(rng.integers(later[0], later[-1] - 180))
        part = x[days >= since][:, :, here].copy()
        part[later >= start] *= (1 + share * (CUT - 1))[:, None]
        y = np.stack([features(date[..., None], sample.BANDS, WATCHED)[..., 0] for date in part])
        flat = here.ravel()
        ground = Ground(watch.ground.season.only(flat), watch.ground.kinds[flat], watch.ground.astray[flat])
        runs = Runs.begin(len(WATCHED), int(flat.sum()))
        hit = np.zeros(int(flat.sum()), bool)
        for day, date, both in zip(later, y, shared, strict=True):
            stood = runs.changed > 0
            take(runs, ground, date, int(day), both, watch.threshold[flat])
            hit |= ~stood & (runs.changed > 0) & (day >= start)
        hits.append(hit.mean() >= 0.5)
    print(f"  injected, {side} x {side} pixels, {share:.0%} cleared: found {np.mean(hits):.3f} of {len(hits)}")


def main(seeds: list[int]) -> None:
    """Print all."""
    if BEETLE.is_dir():
        beetle()
    for seed in seeds:
        for drought in (2022, None):
            made(dataclasses.replace(sample.Plan(), seed=seed, drought=drought))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [5])
