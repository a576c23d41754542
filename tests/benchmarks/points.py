"""What heads are worth on a few labels, at places that they never saw: `python -m tests.benchmarks.points DATA`.

DATA is a folder of real chips NAME_hls.tif with NAME_worldcover.tif and a list chips.csv (chip, place, group). Of
each draw 113 chips of whole groups are kept apart, and so many points a class are drawn from the others: tree, grass,
crop, built and water. Told is the balanced accuracy over the chips kept apart, its mean and its spread over draws; all
models of a draw see the same points.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import rasterio
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.backbones.catalogue import BANDS
from models.baselines.heads import Labelled, fit, left_out
from models.baselines.statistics import surroundings
from pipelines.points.ground import SIDES

CODES = (10, 30, 40, 50, 80)
APART, EACH = 113, 250  # chips kept apart; pixels of a chip that are looked at
ASKED = 8000  # of the pixels kept apart
SIZES, DRAWS = (5, 20, 50, 200), 6


def table(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, F), class, chip and group of some labelled pixels of all chips."""
    rows, rng, parts = list(csv.DictReader((folder / "chips.csv").open())), np.random.default_rng(0), []
    groups = {name: i for i, name in enumerate(sorted({row["group"] for row in rows}))}
    for number, row in enumerate(rows):
        stem = row["chip"].removesuffix("_hls.tif").removesuffix("_hls")
        with (
            rasterio.open(folder / f"{stem}_hls.tif") as image,
            rasterio.open(folder / f"{stem}_worldcover.tif") as map_,
        ):
            x, codes = image.read().astype(np.float32)[:, None], map_.read(1)
        found = surroundings(x, np.ones(codes.shape, bool), BANDS, SIDES)
        known = np.isin(codes, CODES) & np.isfinite(found).all(axis=0)
        at = rng.permutation(np.flatnonzero(known))[:EACH]
        target = np.searchsorted(CODES, codes.ravel()[at])
        parts.append((found.reshape(len(found), -1)[:, at].T, target, np.full(len(at), number), groups[row["group"]]))
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        np.concatenate([np.full(len(part[1]), part[3]) for part in parts]),
    )


def told_by(x: np.ndarray, y: np.ndarray, group: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """What each model says of the pixels asked about."""
    models = {
        "kNN": make_pipeline(StandardScaler(), KNeighborsClassifier(min(5, len(y)))),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "discriminant": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        "forest": RandomForestClassifier(100, random_state=0),
        "extra trees": ExtraTreesClassifier(100, random_state=0),
    }
    found = {name: model.fit(x, y).predict_proba(asked) for name, model in models.items()}
    mine = Labelled(x, y, np.ones(len(y)), group, len(CODES))
    chosen = left_out(mine)
    found["ours"] = fit(mine, chosen.strength if chosen else 0.1)(asked)
    return found


def main(folder: Path) -> None:
    """Print a table of models by points a class."""
    x, y, chip, group = table(folder)
    print(f"{len(y):,} pixels of {chip.max() + 1} chips, {x.shape[1]} statistics")
    scores: dict[str, dict[int, list[float]]] = {}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        apart = np.zeros(len(y), bool)
        for one in rng.permutation(group.max() + 1):
            if len(np.unique(chip[apart])) < APART:
                apart |= group == one
        asked = rng.permutation(np.flatnonzero(apart))[:ASKED]
        for size in SIZES:
            pools = [np.flatnonzero(~apart & (y == k)) for k in range(len(CODES))]
            points = np.concatenate([rng.choice(pool, size, replace=False) for pool in pools])
            for name, p in told_by(x[points], y[points], group[points], x[asked]).items():
                score = balanced_accuracy_score(y[asked], p.argmax(1))
                scores.setdefault(name, {}).setdefault(size, []).append(score)
        show(scores)


def show(scores: dict[str, dict[int, list[float]]]) -> None:
    """Print the means over the draws so far, and their spread."""
    print(f"{len(scores['ours'][SIZES[0]])} draws".ljust(16) + "".join(f"{size:>16}" for size in SIZES))
    for name, by_size in scores.items():
        print(f"{name:<16}" + "".join(f"{np.mean(s):>10.3f} ±{np.std(s):.3f}" for s in by_size.values()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
