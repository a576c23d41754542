"""What of wrong or foreign input counts as unfamiliar, told of by the pixels of other groups.

    python -W ignore tests/benchmarks/unfamiliar.py DATA

DATA holds hls_worldcover, eurosat and rain_iberia_daily. Each kind is made of the left-out chips of a fold; the AUROC
by pixels is against all left-out pixels of that fold, averaged over scenes; "outside" is the share above 1, averaged
likewise.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import rasterio
from scipy.ndimage import gaussian_filter

from models.backbones.catalogue import BANDS
from models.confidence.calibration import FOLDS, auroc
from models.confidence.familiar import features_of, features_of_fields, fit, flagged
from pipelines.samples.weather import read_weather

STEP = 8  # pixels
L1C = [1, 2, 3, 8, 11, 12]  # the six bands among the 13 of EuroSAT


def kinds(x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Wrong and foreign input made of a chip (6, H, W) in reflectance x10000."""
    swapped, dark = x[[0, 1, 2, 4, 3, 5]], x.copy()
    dark[3] = 0
    cloud = np.array([6500, 6400, 6300, 6600, 4800, 3700])[:, None, None]
    haze = np.array([1800, 1500, 1200, 800, 300, 150])[:, None, None]
    heights = np.cumsum(np.cumsum(rng.normal(size=x.shape[1:]), 0), 1)
    dem = (heights - heights.min()) / np.ptp(heights) * 1500
    field = gaussian_filter(rng.normal(size=x.shape[1:]), 20)
    return {
        "unit: counts": (x / 1e4 + 0.2) / 2.75e-5,
        "unit: 0 to 1": x / 1e4,
        "offset +1000": x + 1000,
        "offset -1000": x - 1000,
        "reversed bands": x[::-1],
        "NIR and SWIR swapped": swapped,
        "zero band": dark,
        "cloud": 0.15 * x + cloud * (1 + 0.1 * gaussian_filter(rng.normal(size=x.shape[1:]), 8)),
        "haze": 0.7 * x + haze,
        "noise": x + rng.normal(0, 1000, x.shape),
        "DEM": np.repeat(dem[None], 6, 0),
        "weather field": 280 + 8 * np.repeat(field[None] / field.std(), 6, 0) + np.arange(6)[:, None, None],
    }


def rows(x: np.ndarray) -> np.ndarray:
    """Features of some pixels that have data."""
    found = features_of(x[None, :, None, ::STEP, ::STEP].astype(np.float32), BANDS)[0]
    return found[np.isfinite(found).all(1)]


FIELDS = ["T2M", "SLP", "T500", "T850", "T1000", "Q500", "Q850", "Q1000", "Z500", "Z850", "Z1000"]


def days(x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Wrong and foreign weather made of days (N, C, H, W) in K, Pa, kg/kg and m2/s2."""

    def scaled(names: str, by: float, plus: float = 0.0) -> np.ndarray:
        here = np.array([name.startswith(names) for name in FIELDS])[None, :, None, None]
        return np.where(here, x * by + plus, x)

    order = [*range(len(FIELDS))]
    order[2], order[3] = order[3], order[2]
    return {
        "T2M in degrees C": scaled("T2M", 1, -273.15),
        "SLP in hPa": scaled("SLP", 0.01),
        "Q in g/kg": scaled("Q", 1000),
        "Z in m": scaled("Z", 1 / 9.80665),
        "reversed fields": x[:, ::-1],
        "T500 and T850 swapped": x[:, order],
        "zero Q": scaled("Q", 0),
        "each field of another day": np.stack([x[rng.permutation(len(x)), i] for i in range(len(FIELDS))], 1),
        "noise of a deviation": x + rng.normal(size=x.shape) * x.std((0, 2, 3), keepdims=True),
        "4 K warmer at all heights": scaled("T", 1, 4),
    }


def weather(folder: Path) -> None:
    """Weather: each fold is a block of years, told of by the days of the others; AUROC by cells."""
    found = read_weather(sorted(folder.glob("ncep_iberia_*.nc")), FIELDS)
    chosen = np.arange(0, len(found.times), 5)
    x, year = found.fields[chosen], found.times[chosen].astype("datetime64[Y]").astype(int)
    told: dict[str, list[tuple[float, float]]] = {}
    for fold in range(FOLDS):
        out = (year - year.min()) * FOLDS // (np.ptp(year) + 1) == fold
        learned = np.concatenate([features_of_fields(day[None]) for day in x[~out]])
        familiar = fit(learned, np.repeat(np.arange((~out).sum()), len(learned) // (~out).sum()))
        own = familiar(np.concatenate([features_of_fields(day[None]) for day in x[out]]))
        made = days(x[out].astype(np.float64), np.random.default_rng(fold))
        for name, other in {"as it is": x[out], **made}.items():
            far = familiar(np.concatenate([features_of_fields(day[None]) for day in other]))
            wrong = np.arange(len(own) + len(far)) >= len(own)
            told.setdefault(name, []).append((auroc(np.concatenate((own, far)), wrong), float(np.mean(far > 1))))
    for name, scores in told.items():
        score, outside = np.mean(scores, axis=0)
        print(f"{name:<26} AUROC {score:.3f}   outside {outside:.2f}   ({len(chosen)} days)")


def main(data: Path) -> None:
    with (data / "hls_worldcover" / "chips.csv").open() as file:
        places = {row["chip"]: row["group"] for row in csv.DictReader(file)}
    chips, groups = [], []
    for path in sorted((data / "hls_worldcover").glob("*_hls.tif")):
        with rasterio.open(path) as source:
            bands = source.read().astype(np.float32)
        chips.append(np.where(bands > -9000, bands, np.nan))
        name = path.stem.removesuffix("_hls")
        groups.append(places.get(name) or places[path.stem])
    number = np.unique(groups, return_inverse=True)[1]
    foreign = []
    for path in sorted((data / "eurosat").rglob("*.tif"))[::3]:
        with rasterio.open(path) as source:
            foreign.append(rows(source.read().astype(np.float32)[L1C]))
    features = [rows(chip) for chip in chips]
    of_each = np.repeat(number, [len(found) for found in features])
    shares = flagged(np.concatenate(features), of_each)
    print(f"left-out groups flagged: {shares.mean():.3f} in the mean, 95 % below {np.quantile(shares, 0.95):.3f}")
    fold_of = np.random.default_rng(1).permutation(number.max() + 1) % FOLDS
    told: dict[str, list[tuple[float, float]]] = {}
    for fold in range(FOLDS):
        out = np.flatnonzero(fold_of[number] == fold)
        kept = np.isin(np.arange(len(chips)), out, invert=True)
        learned = np.concatenate([found for found, is_kept in zip(features, kept, strict=True) if is_kept])
        sizes = [len(features[i]) for i in np.flatnonzero(kept)]
        familiar = fit(learned, np.unique(np.repeat(number[kept], sizes), return_inverse=True)[1])
        own = familiar(np.concatenate([features[i] for i in out]))
        made = [(name, rows(x)) for i in out for name, x in kinds(chips[i], np.random.default_rng(int(i))).items()] + [
            ("L1C of EuroSAT", found) for found in foreign[fold::FOLDS]
        ]
        for name, found in made:
            far = familiar(found)
            wrong = np.arange(len(own) + len(far)) >= len(own)
            told.setdefault(name, []).append((auroc(np.concatenate((own, far)), wrong), float(np.mean(far > 1))))
    for name, found in told.items():
        score, outside = np.mean(found, axis=0)
        print(f"{name:<22} AUROC {score:.3f}   outside {outside:.2f}   ({len(found)} scenes)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    weather(Path(sys.argv[1]) / "rain_iberia_daily")
