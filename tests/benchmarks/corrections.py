"""What corrections are worth: labels of five groups made wrong, reviewed, and learned again; asserts nothing.

Usage: ``python tests/benchmarks/corrections.py DATA [SEED ...]``, DATA being the folder of real files. Cropland and
grassland are exchanged in five training groups of `hls_worldcover`; a review of each image, written by the project's
own forms, gives the truth back. Trained by the land-use recipe with a tiny random backbone and the member of statistics
alone; printed are the scores on groups that no correction touches, without and with the corrections, and with pixels
that count four times.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from lightning import seed_everything
from rasterio.transform import from_origin

from models.networks.assembly import predict_by
from models.training import statistics
from pipelines.grids.align import grid
from pipelines.review.answers import Answer
from pipelines.runs.corrections import changed, take_up, without
from pipelines.runs.folder import Launch
from pipelines.runs.training import build, module_of, train
from pipelines.tasks.task import load_recipe, prepare, task_named
from tests.pipelines.review.scenes_to_review import write_review

RECIPE = Path(__file__).resolve().parents[2] / "pipelines/recipes/landuse.yaml"
GRASS, CROP, GROUPS, STEPS = 30, 40, 5, 600
SMALL = {
    **{"backbone": "prithvi_eo_v2_tiny_tl", "weights": "random", "training.epochs": 1, "model.share": 1.0},
    **{"data.fractions": [0.6, 0.05, 0.35]},
}


def placed(data: Path, folder: Path) -> Path:
    """The chips on places of their own, side by side: polygons want a coordinate system, which the files lack."""
    folder.mkdir()
    (folder / "chips.csv").write_bytes((data / "hls_worldcover/chips.csv").read_bytes())
    for i, path in enumerate(sorted((data / "hls_worldcover").glob("*_hls.tif"))):
        for file in (path, path.with_name(path.name.replace("_hls", "_worldcover"))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(file) as source:
                    values, profile, names = source.read(), source.profile, source.descriptions
            profile |= {"crs": "EPSG:32632", "transform": from_origin(300000 + 5000 * i, 5000000, 30, 30)}
            with rasterio.open(folder / file.name, "w", **profile) as out:
                out.write(values)
                out.descriptions = names
    return folder


def made_wrong(root: Path, reviews: Path, seed: int) -> Iterator[Path]:
    """Exchange cropland and grassland in the labels of five training groups; a review of each image with the truth."""
    recipe = load_recipe(RECIPE, seed=seed, **{"data.root": root}, **SMALL)
    train = prepare(recipe).of("train")
    both = {}
    for chip in train:
        with rasterio.open(chip.label) as source:
            both[chip.key] = int(np.isin(source.read(1), (GRASS, CROP)).sum())
    groups = sorted({chip.group for chip in train})
    rich = sorted(groups, key=lambda g: -sum(both[chip.key] for chip in train if chip.group == g))[: 3 * GROUPS]
    chosen = set(np.random.default_rng(seed).choice(rich, GROUPS, replace=False))
    reviews.mkdir()
    for chip in train:
        if chip.group not in chosen or not both[chip.key]:
            continue
        with rasterio.open(chip.label, "r+") as file:
            codes, geobox = file.read(1), grid(file)
            file.write(np.where(codes == GRASS, CROP, np.where(codes == CROP, GRASS, codes)).astype(codes.dtype), 1)
        said = [(codes == code, Answer("class", code)) for code in (GRASS, CROP) if (codes == code).any()]
        yield write_review(reviews / f"{chip.name}.gpkg", geobox, said, tuple(recipe.classes))


def told(about: Mapping[str, Any], out: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What a training with the corrections changed, by the steps of `finetune`, and its scores on all tested groups."""
    recipe: Any = load_recipe(RECIPE, **about, **SMALL)
    task = task_named(recipe.task)
    seed_everything(recipe.seed, workers=True, verbose=False)
    samples: Any = prepare(recipe)
    take_up(recipe, samples)
    network, _, _ = build(recipe, samples.spec)
    module = module_of(task, recipe, network, samples, samples.of("train"), out)
    train(module, recipe, samples, samples.of("train"), out, Launch())
    ours = task.teller(predict_by(network))
    plain = without(task, recipe, samples, out, Launch(), first=True)
    scores = task.judge(samples, samples.of("test"), {"model": ours}).scores["model"]
    return changed(task, samples, samples.of("test"), ours, plain) or {}, scores


def main(data: Path, seeds: list[int]) -> None:
    """Print the scores of each seed."""
    statistics.LEAST = STEPS
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            root = placed(data, folder / "chips")
            files = list(made_wrong(root, folder / "reviews", seed))
            about = {"seed": seed, "data.root": root, "data.corrections": files}
            found, once = told(about, folder / "run")
            print(f"seed {seed}: {GROUPS} training groups wrong, {len(files)} images reviewed", flush=True)
            for line in found["told"]:
                print(f"  {line}", flush=True)
            more = {"data.corrections_weight": 4.0, "data.corrections_compare": False}
            _, four = told(about | more, folder / "four")
            for key in ("mean_iou", "accuracy"):
                print(f"  {key}: {once[key]:.3f}, where corrected pixels count four times {four[key]:.3f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]] or [0])
