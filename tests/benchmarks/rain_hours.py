"""Rain of hours that were left out, beside cheap methods: `python -m tests.benchmarks.rain_hours DATA SEEDS KEY=VALUE`.

DATA is a folder of MERRA-2 hours (inst1_2d_asm_Nx and tavg1_2d_flx_Nx) for the recipe rainfall_surface, whose keys may
be changed: those of ERA5 hours are data.inputs, data.variables and so on. The hours are halved, and each half is told
of by what learned from the other. Told are RMSE, correlation, what is told too much, CRPS and frequency biases; of the
network for several shares of its trees.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.baselines.fields import Forecast
from models.networks.assembly import predict_by
from pipelines.reports.weather_scores import weather_scores
from pipelines.runs.folder import Launch
from pipelines.runs.training import build, module_of, train
from pipelines.tasks.task import load_recipe, prepare, task_named
from pipelines.tasks.weather import forecast

RECIPE = Path(__file__).parents[2] / "pipelines" / "recipes" / "rainfall_surface.yaml"
BESIDE = ("zero", "persistence 1 h", "ridge", "boosting", "convolutions")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def answers(recipe: Any, samples: Any) -> Iterator[tuple[str, Forecast]]:
    """What the network says of the samples left out, by the share of its trees."""
    task = task_named(recipe.task)
    network, _, _ = build(recipe, samples.spec)
    with tempfile.TemporaryDirectory() as folder:
        module = module_of(task, recipe, network, samples, samples.of("train"), Path(folder))
        train(module, recipe, samples, samples.of("train"), Path(folder), Launch())
    for share in SHARES:
        network.share = share
        yield f"seed {recipe.seed}, trees {share:g}", forecast(predict_by(network.eval()), samples, samples.of("test"))


def told(name: str, found: Forecast, samples: Any) -> None:
    """A line of scores."""
    chosen, field = samples.of("test"), samples.spec.field
    truth, times = np.stack([samples.truth(s) for s in chosen]), np.array([samples.time(s) for s in chosen])
    asked: dict[str, Any] = {"levels": field.levels, "thresholds": field.thresholds, "times": times}
    scores = weather_scores(found, truth, samples.area, **asked)
    keys = ["rmse", "correlation", "mean_error", "crps", *(f"frequency_bias_{t:g}" for t in field.thresholds)]
    said = {key: float("nan") if scores.get(key) is None else scores[key] for key in keys}
    said["mean_error"] /= float(np.nanmean(truth))
    print(f"{name:22s}", *(f"{key} {value:.4g}" for key, value in said.items()), flush=True)


def main(root: Path, seeds: int, changes: Mapping[str, Any]) -> None:
    """Both halves."""
    recipe = load_recipe(RECIPE, **{"data.root": str(root), **changes})
    samples, task = prepare(recipe), task_named(recipe.task)
    for half in range(2):
        samples.fold(2, half, seed=0)
        samples.spec = task.fitted(samples, ("train",))
        print(f"half {half + 1}: {len(samples.of('train'))} hours learned from, {len(samples.of('test'))} told of")
        baselines = task.baselines(samples, samples.of("train"), 0)
        for name in BESIDE:
            told(name, baselines[name](samples, samples.of("test")), samples)
        for seed in range(seeds):
            for name, found in answers(dataclasses.replace(recipe, seed=seed), samples):
                told(name, found, samples)


if __name__ == "__main__":
    torch.set_num_threads(1)
    changed = dict(word.split("=", 1) for word in sys.argv[3:])
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1, changed)
