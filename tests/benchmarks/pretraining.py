"""What continued pretraining adds to tokens: linear probes on frozen tokens, before and after. Prints; asserts nothing.

Usage: ``python tests/benchmarks/pretraining.py DATA OUT EPOCHS``, DATA being the folder of labelled chips of the recipe
landuse, whose labels the pretraining does not read, OUT an empty place for it. A token's class is that of most of its
pixels; each group is asked about by probes that learned from other groups (five folds).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.backbones.catalogue import BANDS
from models.training.pretraining import MaskedAutoencoder
from pipelines.recipes.pretraining import Pretraining
from pipelines.recipes.reading import RECIPES
from pipelines.reports.comparison import RESAMPLES, of_draws
from pipelines.runs.folder import Launch
from pipelines.runs.pretrain import WEIGHTS, build, pretrain
from pipelines.samples.chips import Chips
from pipelines.samples.splits import folds_by_group
from pipelines.scenes.reading import Reading
from pipelines.tasks.task import load_recipe, task_named

FREQUENT = (10, 30, 40, 50, 80)  # codes of WorldCover; the others are one class
NAMES = ("tree cover", "grassland", "cropland", "built-up", "water", "others")
BACKBONE, SIDE, PATCH, FOLDS = "prithvi_eo_v2_tiny_tl", 128, 16, 5


def labels_of(samples: Chips) -> np.ndarray:
    """The class of most of a token's labelled pixels, -1 where fewer than half are labelled: (chips, tokens)."""
    per, found = SIDE // PATCH, []
    merged = np.array(
        [FREQUENT.index(code) if code in FREQUENT else len(FREQUENT) for code in samples.spec.answer.codes]
    )
    for chip in samples.samples:
        y = samples.truth(chip).reshape(per, PATCH, per, PATCH).swapaxes(1, 2).reshape(per * per, -1)
        y = np.where(y >= 0, merged[y], -1)
        counts = np.stack([(y == k).sum(axis=1) for k in range(len(NAMES))], axis=1)
        found.append(np.where(counts.sum(axis=1) >= PATCH**2 / 2, counts.argmax(axis=1), -1))
    return np.stack(found)


def tokens_of(network: MaskedAutoencoder, samples: Chips) -> np.ndarray:
    """The last block's tokens of each chip, (chips, tokens, features)."""
    backbone, found = network.backbone.eval(), []
    backbone.blocks = (len(backbone.vit.blocks) - 1,)
    with torch.inference_mode():
        for chip in samples.samples:
            item = {name: torch.from_numpy(value)[None] for name, value in samples.item(chip).items()}
            x = (item["imagery"] - network.mean) / network.std
            found.append(backbone(x, item.get("time"), item.get("location"))[0][0].flatten(1).T.numpy())
    return np.stack(found)


def statistics_of(samples: Chips) -> np.ndarray:
    """Mean and deviation of each band over a token's pixels, which no network is wanted for: (chips, tokens, 12)."""
    per, found = SIDE // PATCH, []
    for chip in samples.samples:
        x = samples.item(chip)["imagery"][:, 0].reshape(6, per, PATCH, per, PATCH)
        parts = [x.mean(axis=(2, 4)), x.std(axis=(2, 4))]
        found.append(np.concatenate(parts).reshape(12, -1).T)
    return np.stack(found)


def confusions(features: np.ndarray, labels: np.ndarray, groups: list[str], classes: int) -> dict[str, np.ndarray]:
    """Confusion of each group, told by a probe that never saw it."""
    folds = np.array(folds_by_group(groups, count=FOLDS, seed=0))
    found = {group: np.zeros((classes, classes)) for group in groups}
    for fold in range(FOLDS):
        known = (labels >= 0) & (folds != fold)[:, None]
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        probe.fit(features[known], labels[known])
        for i in np.flatnonzero(folds == fold):
            asked = labels[i] >= 0
            if asked.any():
                np.add.at(found[groups[i]], (labels[i][asked], probe.predict(features[i][asked])), 1)
    return found


def scores(confusion: np.ndarray) -> tuple[float, float]:
    """Accuracy and balanced accuracy of a confusion, (K, K)."""
    right, all_of = np.diag(confusion), confusion.sum(axis=1)
    present = all_of > 0
    return float(right.sum() / all_of.sum()), float((right[present] / all_of[present]).mean())


def compared(name: str, beside: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Print by how much one is better, with the interval over resampled groups."""
    a, b = (np.stack(list(one.values())) for one in (ours, theirs))
    draws = np.random.default_rng(0).integers(len(a), size=(RESAMPLES, len(a)))
    for i, score in enumerate(("accuracy", "balanced accuracy")):
        gains = np.array([scores(a[draw].sum(0))[i] - scores(b[draw].sum(0))[i] for draw in draws])
        gain = scores(a.sum(0))[i] - scores(b.sum(0))[i]
        found = of_draws(score, beside, gain, gains, len(a), "group")
        low, high = found.interval or (np.nan, np.nan)
        print(f"{name} - {beside}: {score} {gain:+.3f} ({low:+.3f} to {high:+.3f}), {len(a)} groups: {found.verdict}")


def main(data: Path, out: Path, epochs: int) -> None:
    """Pretrain, probe, print."""
    settings = Pretraining(BACKBONE, weights="random", size=SIDE, epochs=epochs, batch=8)
    start = time.perf_counter()
    launch = Launch(say=lambda line: print(line, flush=True), resume=out.exists())
    result = pretrain([f"{data}/*_hls.tif"], settings, out, reading=Reading(bands=BANDS), launch=launch)
    print(f"pretraining: {epochs} epochs, {time.perf_counter() - start:.0f} s; held out {result['held_out']}")
    recipe = load_recipe(
        RECIPES / "landuse.yaml", **{"data.root": data, "backbone": BACKBONE, "weights": "random", "data.tile": SIDE}
    )
    samples = task_named(recipe.task).prepare(recipe)
    torch.manual_seed(settings.seed)
    untrained, _, _ = build(settings, size=SIDE)
    trained, _, _ = build(Pretraining(BACKBONE, weights=str(out / WEIGHTS)), size=SIDE)
    features = {
        "band statistics": statistics_of(samples),
        "random weights": tokens_of(untrained, samples),
        "pretrained": tokens_of(trained, samples),
    }
    labels, groups = labels_of(samples), [chip.group for chip in samples.samples]
    counts = dict(zip(NAMES, np.bincount(labels[labels >= 0]).tolist(), strict=True))
    print(f"{len(labels)} chips, {len(set(groups))} groups, tokens by class {counts}")
    told = {name: confusions(x, labels, groups, len(NAMES)) for name, x in features.items()}
    for name, found in told.items():
        accuracy, balanced = scores(sum(found.values()))
        print(f"{name}: accuracy {accuracy:.3f}, balanced accuracy {balanced:.3f}")
    for beside in ("random weights", "band statistics"):
        compared("pretrained", beside, told["pretrained"], told[beside])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
