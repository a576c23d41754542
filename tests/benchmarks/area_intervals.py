"""How often 95 % intervals of areas hold the truth, over many samples of a real map: prints a table; asserts nothing.

Usage: ``python tests/benchmarks/area_intervals.py DATA [SAMPLES] [N]``, DATA being a folder of chips ``*_hls.tif`` with
``*_worldcover.tif`` and ``chips.csv``. Half of the places teach a logistic regression of the bands; the others' labels
are the truth, and its answers are the map and its probabilities. Pixels are of uneven area, 0.07 to 0.11 ha, as in
a grid in degrees that spans latitudes.
"""

from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path

import numpy as np
import rasterio
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pipelines.surveys.allocation import allocate, ranks
from pipelines.surveys.estimates import Sample, accuracy, class_areas, post_strata, powered_areas

COMMON = 0.01  # share of area from which a class counts


def chips(root: Path):
    """Group, bands (pixels, C) and codes (pixels,) of each chip."""
    for row in csv.DictReader((root / "chips.csv").open()):
        with rasterio.open(root / f"{row['chip']}_hls.tif") as bands:
            x = bands.read().reshape(bands.count, -1).T.astype(np.float64)
        with rasterio.open(root / f"{row['chip']}_worldcover.tif") as labels:
            yield row["group"], x, labels.read(1).ravel()


def population(root: Path):
    """Truth and map as indices (P,), probabilities (P, C), areas (P,) and the class codes."""
    held = list(chips(root))
    groups = sorted({group for group, _, _ in held})
    teaching = set(groups[::2])
    codes = sorted({int(code) for _, _, y in held for code in np.unique(y) if code})
    taught = [(x[::17], y[::17]) for group, x, y in held if group in teaching]
    features, labels = (np.concatenate(parts) for parts in zip(*taught, strict=True))
    scaler = StandardScaler().fit(features[labels > 0])
    model = LogisticRegression(max_iter=60).fit(scaler.transform(features[labels > 0]), labels[labels > 0])
    truth, chances, areas = [], [], []
    for number, (group, x, y) in enumerate(held):
        if group not in teaching:
            wide = np.zeros((len(y), len(codes)))
            wide[:, np.searchsorted(codes, model.classes_)] = model.predict_proba(scaler.transform(x))
            truth.append(np.searchsorted(codes, y[y > 0]))
            chances.append(wide[y > 0])
            areas.append(np.full((y > 0).sum(), 0.09 + 0.02 * np.sin(number)))
    chances = np.concatenate(chances)
    return np.concatenate(truth), chances.argmax(axis=1), chances, np.concatenate(areas), codes


def held_in(low, high, true):
    """Whether intervals hold the truth; none does where there is none."""
    return (low <= true) & (true <= high)


def simulate(truth, mapped, chances, areas, *, samples: int, n: int):
    """For each estimator: coverage by class (C,), half widths (C,), RMSE (C,), all of areas in shares of the whole."""
    size = chances.shape[1]
    whole = areas.sum()
    true = np.bincount(truth, areas, size)
    by_class = np.argsort(mapped, kind="stable")
    pixels = np.bincount(mapped, minlength=size)
    area = np.bincount(mapped, areas, size)
    starts = np.cumsum(pixels) - pixels
    there = np.flatnonzero(pixels)
    sums = np.stack([np.bincount(mapped, areas * chances[:, c], size) for c in range(size)], axis=1)
    correct = (truth == mapped) @ areas / whole
    found = {name: [] for name in ("random, post-stratified", "random, powered", "stratified", "stratified, powered")}
    overall = {"random, post-stratified": [], "stratified": []}
    points = allocate(pixels[there], n, least=5)
    for seed in range(samples):
        one = ranks(np.array([len(truth)]), np.array([n]), seed)[0]
        simple = Sample(one * 0, areas[one], np.array([len(truth)]), np.array([whole]))
        after = post_strata(mapped[one], pixels, area, areas[one])
        two = np.concatenate(
            [by_class[starts[h] + chosen] for h, chosen in zip(there, ranks(pixels[there], points, seed), strict=True)]
        )
        strata = Sample(np.searchsorted(there, mapped[two]), areas[two], pixels[there], area[there])
        estimates = {
            "random, post-stratified": class_areas(after, truth[one], size),
            "random, powered": powered_areas(simple, truth[one], chances[one], sums.sum(axis=0, keepdims=True))[0],
            "stratified": class_areas(strata, truth[two], size),
            "stratified, powered": powered_areas(strata, truth[two], chances[two], sums[there])[0],
        }
        for name, estimate in estimates.items():
            low, high = estimate.interval(whole)
            found[name].append((held_in(low, high, true), (high - low) / 2 / whole, (estimate.value - true) / whole))
        for name, sample, at in (("random, post-stratified", after, one), ("stratified", strata, two)):
            low, high = accuracy(sample, truth[at], mapped[at], size).overall.interval(1.0)
            overall[name].append(held_in(low[0], high[0], correct))
    return true / whole, found, {name: np.mean(hits) for name, hits in overall.items()}


def main(root: Path, samples: int = 1000, n: int = 500) -> None:
    truth, mapped, chances, areas, codes = population(root)
    share, found, overall = simulate(truth, mapped, chances, areas, samples=samples, n=n)
    common = np.flatnonzero(share > COMMON)
    print(f"{len(truth):,} pixels, map {np.mean(truth == mapped):.3f} right; {samples} samples of {n} points")
    print("coverage of 95 % intervals, by class code (share of the truth)")
    print(
        f"{'':<26}" + "".join(f"{codes[c]:>6} {share[c]:>5.1%}" for c in common) + "   mean  half width  RMSE, points"
    )
    for name, rows in found.items():
        hits, half, error = (np.array(part)[:, common] for part in zip(*rows, strict=True))
        cover, rmse = hits.mean(axis=0), np.sqrt((error**2).mean(axis=0))
        cells = "".join(f"{value:>12.3f}" for value in cover)
        print(f"{name:<26}{cells}  {cover.mean():.3f}  {100 * np.nanmean(half):>10.2f}  {100 * rmse.mean():>5.2f}")
    counted = np.abs(np.bincount(mapped, areas, len(codes)) / areas.sum() - share)[common]
    print(f"counting the map's pixels is off by {100 * counted.mean():.2f} points of area in the mean")
    print("overall accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in overall.items()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
