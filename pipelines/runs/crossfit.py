"""Cross-fitting: every group is told of by a model, and by baselines, that never saw it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from models.baselines.fields import Forecast
from models.bundle import FILES, stored_whole, write_weights
from models.spec import Spec
from pipelines.recipes.recipe import Recipe
from pipelines.runs.answers import Answers
from pipelines.runs.folder import Launch
from pipelines.runs.shares import LEARNED, SAMPLES, losses_of, set_weights, shares_of
from pipelines.runs.training import FOLDS, build, module_of, train, trained
from pipelines.runs.worth import inputs, tokens
from pipelines.samples.sets import Samples, key_of
from pipelines.tasks.task import Task, Teller

KEPT = -1  # the fold of the model that learns from all


@dataclass(frozen=True)
class LeftOut:
    """What is told of samples by those that never saw them.

    Attributes:
        chosen: all samples, fold by fold.
        models: the model and the baselines, each asked fold by fold.
        asked: the model with other tokens and inputs, see `tokens.tellers` and `inputs.tellers`.
        answers: what was kept of the model's answers.
        weights: of the parts of the network by name, as the left-out groups say; see `shares.LEARNED`.
    """

    chosen: list[Any]
    models: Mapping[str, Teller]
    asked: Mapping[str, Teller]
    answers: Answers
    weights: Mapping[str, float]


def crossfit(
    task: Task, recipe: Recipe, samples: Samples, out: Path, launch: Launch, *, first: bool, alone: bool = False
) -> LeftOut:
    """Train a model for each fold on all the others; afterwards no sample is left out.

    The folds' weights lie in out/folds; a fold whose weights are there is not trained again. Baselines are fitted by
    the first process, and not where the model is wanted `alone`.

    Raises:
        InputError: fewer groups than folds, see `Samples.fold`, and whatever a training raises.
    """
    count = recipe.folds
    chosen: list[Any] = []
    fold_of: dict[tuple[str, ...], int] = {}
    specs: list[Spec] = []
    baselines: list[Mapping[str, Teller]] = []
    for fold in range(count):
        samples.fold(count, fold, seed=recipe.seed)
        samples.spec = task.fitted(samples, ("train",))
        left = samples.of("test")
        launch.say(f"fold {fold + 1} of {count}: {len(samples.of('train'))} samples, {len(left)} left out")
        train_fold(task, recipe, samples, out / FOLDS / str(fold + 1), launch)
        if first and not alone:
            baselines.append(task.baselines(samples, samples.of("train"), recipe.seed))
        specs.append(samples.spec)
        fold_of |= {key_of(samples, sample): fold for sample in left}
        chosen += left
    samples.fold(count, None, seed=recipe.seed)
    samples.spec = task.fitted(samples, ("train",))

    weights = dict[int, dict[str, float]]()
    if first:
        weights = _weights(recipe, samples, specs, out, chosen, fold_of)
    for name, weight in weights.get(KEPT, {}).items():
        launch.say(f"{LEARNED[name][2]}, by left-out groups: {weight:g}")

    @lru_cache(maxsize=1)  # the samples come fold by fold
    def asked(fold: int) -> Mapping[str, Teller]:
        network = trained(recipe, specs[fold], out / FOLDS / str(fold + 1))
        set_weights(network, weights[fold])
        return {**tokens.tellers(task, network), **inputs.tellers(task, network)}

    def by_fold(tellers: Callable[[int], Teller]) -> Teller:
        def tell(samples: Samples, some: Sequence[Any]) -> Any:
            parts = groupby(some, lambda sample: fold_of[key_of(samples, sample)])
            return _joined([tellers(fold)(samples, list(part)) for fold, part in parts])

        return tell

    answers = Answers(len(chosen), fold_of)
    model = answers.kept(by_fold(partial(_named, asked, tokens.AS_IS)))
    names = dict.fromkeys(name for found in baselines for name in found)
    told = {name: by_fold(partial(_named, baselines.__getitem__, name)) for name in names}
    changed = {
        name: by_fold(partial(_named, asked, name))
        for name in (*tokens.names(samples.spec), *inputs.names(samples.spec))
    }
    return LeftOut(chosen, {"model": model, **told}, changed, answers, weights.get(KEPT, {}))


def _weights(
    recipe: Recipe,
    samples: Samples,
    specs: Sequence[Spec],
    out: Path,
    chosen: Sequence[Any],
    fold_of: Mapping[tuple[str, ...], int],
) -> dict[int, dict[str, float]]:
    """The weights of a network's parts: of all groups (`KEPT`), and for each fold of those of the others."""
    weights: dict[int, dict[str, float]] = {fold: {} for fold in (KEPT, *range(len(specs)))}
    for name, (ends, sparing, _) in LEARNED.items():
        losses = {}
        for fold, spec in enumerate(specs):
            left = [sample for sample in chosen if fold_of[key_of(samples, sample)] == fold]
            network = trained(recipe, spec, out / FOLDS / str(fold + 1))
            set_weights(network, weights[fold])
            losses[fold] = losses_of(network, samples, left, ends, most=-(-SAMPLES // len(specs)))
            if not losses[fold]:
                break
        else:
            best, each = shares_of(losses, sparing=sparing)
            for fold, share in ((KEPT, best), *each.items()):
                weights[fold] |= {} if share is None else {name: share}
    return weights


def _named(tellers: Callable[[int], Mapping[str, Teller]], name: str, fold: int) -> Teller:
    """A teller of a fold by its name."""
    return tellers(fold)[name]


def train_fold(task: Task, recipe: Recipe, samples: Samples, folder: Path, launch: Launch) -> None:
    """Train on all samples but those left out, and write the weights, unless they are there."""
    if (folder / FILES["sha256"]).is_file():
        return
    network, base, _ = build(recipe, samples.spec)
    folder.mkdir(parents=True, exist_ok=True)
    module = module_of(task, recipe, network, samples, samples.of("train"), folder)
    train(module, recipe, samples, samples.of("train"), folder, launch)
    if module.trainer.is_global_zero:
        write_weights(folder, network, whole=stored_whole(base, recipe.mode))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _joined(answers: Sequence[Any]) -> Any:
    """Answers one after the other: arrays, or forecasts."""
    return Forecast.joined(answers) if isinstance(answers[0], Forecast) else np.concatenate(answers)
