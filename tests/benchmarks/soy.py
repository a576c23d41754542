"""Soybean yield of counties from weekly indices and weather: `python -m tests.benchmarks.soy DATA [SEED ...]`.

DATA is a folder with samples.csv: a row a county and year, columns NDVI1..26, EVI1..26 (HLS), SM, PR, CR, GDD, SR, VP
(soil moisture and the weather's sums by week), Yield. Told is R2 of the yield's departure from its year's mean, with
counties left out (five folds), with each year left out, and with the last year alone left out, whose gate counties
choose; beside forests with the same inputs.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean

from models.spec import Target
from pipelines.recipes.tables import TableData, TableRecipe
from pipelines.runs.finetune import finetune

IMAGERY, WEATHER = ["NDVI*", "EVI*"], ["SM*", "CR*", "GDD*", "SR*", "VP*"]  # PR is near the answer late in the year
WEEK = 168.0  # hours


def departures(source: Path, out: Path) -> None:
    """The table with the departure from the year's mean, and a split that leaves the last year out."""
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    years = sorted({row["Year"] for row in rows})
    means = {year: fmean(float(row["Yield"]) for row in rows if row["Year"] == year) for year in years}
    with (out / "soy.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "departure", "split"])
        writer.writeheader()
        for row in rows:
            split = "test" if row["Year"] == years[-1] else "train"
            writer.writerow(row | {"departure": float(row["Yield"]) - means[row["Year"]], "split": split})


def recipe(root: Path, *, group: str, folds: int, seed: int) -> TableRecipe:
    """By groups with folds, by the last year without."""
    data = TableData(
        root,
        "soy.csv",
        imagery=IMAGERY,
        weather=WEATHER,
        step=WEEK,
        answer="departure",
        group=group,
        split=None if folds else "split",
    )
    return TableRecipe("table", data, target=Target("departure", "bushel/acre"), folds=folds, seed=seed)


def main(data: Path, seeds: list[int]) -> None:
    """Train and tell."""
    for seed in seeds:
        ways = (("counties left out", "County", 5), ("years left out", "Year", 4), ("last year left out", "County", 0))
        for name, group, folds in ways:
            with tempfile.TemporaryDirectory() as place:
                departures(data / "samples.csv", Path(place))
                finetune(recipe(Path(place), group=group, folds=folds, seed=seed), Path(place) / "run")
                found = json.loads((Path(place) / "run" / "metrics.json").read_text())
            scores = {"model": found["model"]["r2"]} | {n: b["r2"] for n, b in found["baselines"].items()}
            scores |= {f"model, {n}": score for n, score in found["inputs"]["scores"].items() if "another" not in n}
            print(f"seed {seed}, {name}: " + "; ".join(f"{n} {score:.3f}" for n, score in scores.items()))
            print("  " + found["inputs"]["told"], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0])
