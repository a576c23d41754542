"""Class change between two seasons of MODIS pixels (change_mato_grosso_modis): what tells it, on ground left out.

Usage: ``python tests/benchmarks/change_pairs.py DATA``, DATA being the folder of real files. Pairs of seasons of one
pixel, 182 with 53 changes, by the forests of the task `table`; folds leave out whole pixels, or blocks of 6 x 6. All
changes are between 2010 and 2011 and each crop came after one other alone, so that one season tells the answer: the
scores by one season, and by the years, are printed beside. Asserts nothing.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from models.baselines.tables import fit_forests
from models.spec import IMAGERY, ClassDef, Classes, valid_of

STEPS = 23  # of 16 days in a season
BANDS = ("ndvi", "evi", "nir", "mir")
BLOCK, FOLDS, SEEDS = 6, 5, (0, 1)
ANSWER = Classes((ClassDef(0, "same", "#cccccc"), ClassDef(1, "changed", "#d73027")), "sample")


def pairs(data: Path) -> dict[str, NDArray[Any]]:
    """Curves before and after (N, bands, steps), whether the class changed, the year, and where the pixels are."""
    days = np.array((data / "timeline.txt").read_text().split(), "datetime64[D]")
    cubes = [rasterio.open(data / f"{band}.tif").read() for band in BANDS]
    of_pixel = defaultdict(list)
    with (data / "samples.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            of_pixel[int(row["row"]), int(row["col"])].append((row["from"], row["class"]))
    found = defaultdict(list)
    for (row, col), seasons in of_pixel.items():
        for (start, before), (end, after) in pairwise(sorted(seasons)):
            for name, since in (("before", start), ("after", end)):
                at = int(np.searchsorted(days, np.datetime64(since)))
                found[name].append([cube[at : at + STEPS, row, col] for cube in cubes])
            found["changed"].append(before != after)
            found["forest"].append(before == after == "Forest")
            found["year"].append(int(start[:4]))
            found["row"].append(row)
            found["col"].append(col)
    return {name: np.array(values) for name, values in found.items()}


def forest(x: NDArray[Any], y: NDArray[Any], groups: NDArray[Any], seed: int) -> NDArray[Any]:
    """Chance of a change by the forest of tables, each group told by forests that never saw it (N,)."""
    out = np.empty(len(y))
    for learned, left in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(x, y, groups):
        batches = [{IMAGERY: x[at, None], valid_of(IMAGERY): np.ones_like(x[at, None])} for at in (learned, left)]
        models = fit_forests(ANSWER, batches[0], y[learned].astype(np.int64), seed=seed)
        out[left] = models["forest on all inputs"](batches[1])[:, 1]
    return out


def main(data: Path) -> None:
    """Print all."""
    known = pairs(data / "change_mato_grosso_modis")
    before, after, y, size = known["before"], known["after"], known["changed"], len(known["changed"])
    inputs = {
        "curves of both seasons": np.concatenate((before, after), axis=1).reshape(size, -1),
        "NDVI of two dates (January)": np.stack((before[:, 0, 8], after[:, 0, 8]), axis=1),
        "the season before alone": before.reshape(size, -1),
        "the season after alone": after.reshape(size, -1),
        "the years alone": known["year"][:, None].astype(float),
    }
    places = {"pixels": (known["row"], known["col"]), "blocks": (known["row"] // BLOCK, known["col"] // BLOCK)}
    fields = (known["year"] == 2010) & ~known["forest"]
    print(f"{size} pairs, {y.sum()} changes; {fields.sum()} of fields in 2010 and 2011")
    away = np.abs(after - before)[:, 0].mean(axis=1)
    print(
        f"distance of NDVI curves: {roc_auc_score(y, away):.3f}; of fields {roc_auc_score(y[fields], away[fields]):.3f}"
    )
    for place, (row, col) in places.items():
        for name, x in inputs.items():
            said = [forest(x.astype(np.float32), y, row * 1000 + col, seed) for seed in SEEDS]
            whole, own = np.mean([[roc_auc_score(y[at], s[at]) for at in (slice(None), fields)] for s in said], axis=0)
            print(f"{place} left out, {name}: AUC {whole:.3f}; of fields {own:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
