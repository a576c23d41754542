"""From a recipe to the best of its trials: the order of events."""

from __future__ import annotations

import dataclasses
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from models.errors import InputError
from models.files import locked, replacing
from pipelines.grids.rasters import trusting
from pipelines.recipes.reading import read_values
from pipelines.recipes.recipe import Recipe, check_ranges
from pipelines.records.attempts import PAGE
from pipelines.records.energy import READ, WRITE, Meter
from pipelines.reports.measures import named, number, with_unit
from pipelines.runs.check import check
from pipelines.runs.folder import Launch
from pipelines.searching import space as spaces
from pipelines.searching.outcome import write_outcome
from pipelines.searching.seeds import Seeds, train_seeds
from pipelines.searching.space import Range, Space, changed, default_space, read_space, settled, short, value_of
from pipelines.searching.study import Study, imported
from pipelines.searching.trial import COMPLETE, FAILED, PRUNED, Question, Told, failed, read_told, try_out
from pipelines.tasks.task import task_named

FOLDS = 3  # where the recipe names none
ABOUT = "search.yaml"


def search(
    recipe: Recipe,
    out: Path,
    *,
    trials: int,
    seeds: int = 0,
    space: Path | None = None,
    storage: str = "",
    name: str = "recipe",
    launch: Launch,
) -> dict[str, Any]:
    """Try a recipe with other settings, and write which are better.

    The folder holds search.yaml (what is searched), study.log, trials/, trials.csv, best.yaml, report.html and
    energy.json. Any number of processes may search in one folder; each call goes on where others stopped.

    Args:
        recipe: what it begins with.
        out: the folder.
        trials: how many are wanted, of all calls and processes together.
        seeds: seeds that the best and the recipe as it came are trained with at the end.
        space: a YAML file of what is tried; see `space.default_space`.
        storage: address of a database for Optuna, in place of the journal in the folder.
        name: what the report calls the recipe.
        launch: how to carry it out.

    Returns:
        See `outcome.write_outcome`.

    Raises:
        InputError: a recipe, space, storage or folder that cannot be used; too few groups to leave any out.
        RunError: memory or disk run out.
    """
    imported()  # a word of it before any work
    task = task_named(recipe.task)
    check(task, recipe)
    recipe = changed(recipe, {})  # with its folder in full, as it is written down
    check_ranges({"--trials": (trials, 1, 10_000), "--seeds": (seeds, 0, 100)})
    unused = [key for key in ("data.corrections", "distil", "onto") if value_of(recipe, key)]
    if unused:
        raise InputError(f"{unused[0]}: search without it, and give it to finetune with the best recipe")
    tried = read_space(space) if space else default_space(task, recipe)
    tried = settled(tried, task, recipe)
    question = Question(task, recipe, recipe.folds or FOLDS)
    with trusting(launch.trust), launch.booked("search", launch.say) as meter:
        samples, left = question.samples(recipe)
        held = f"{left} samples of the test split take no part" if left else "the recipe has no test split"
        launch.say(f"{samples.described}: {len(samples.of('train'))} samples in {question.folds} folds; {held}")
        about = _begun(out, question, tried, storage)
        meter.bind(out / PAGE, parts=True)
        meter.lap(READ)
        first = {key: value for key, d in tried.items() if _holds(d, value := value_of(recipe, key))}
        study = Study(out, tried, name=about["study"], storage=storage, seed=recipe.seed, first=first)
        while _one(study, question, trials, meter, launch):
            pass
        seeded = train_seeds(study, question, seeds, meter=meter, launch=launch) if seeds else None
        meter.lap(WRITE)
        meter.keep()
        return _written(study, question, name, seeded, left)


def _holds(dimension: spaces.Dimension, value: Any) -> bool:
    """Whether a dimension holds a value."""
    return dimension.holds(value) if isinstance(dimension, Range) else value in dimension


def _begun(out: Path, question: Question, space: Space, storage: str) -> dict[str, Any]:
    """What is searched in a folder, written down by the first process.

    Raises:
        InputError: the folder holds something else, or was begun with another recipe, space or storage.
    """
    about = {
        "recipe": question.recipe.to_json(),
        "folds": question.folds,
        "space": spaces.to_json(space),
        "storage": storage.partition(":")[0] or "journal",  # without what the rest may tell of names and passwords
    }
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder for the search")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, wait=True):
        path = out / ABOUT
        if path.is_file():
            before = read_values(path)
            differing = [key for key in about if before.get(key) != about[key]]
            if differing or not isinstance(before.get("study"), str):
                other = ", ".join(differing) or "program"
                raise InputError(f"{out}: was begun with another {other}; search with the same, or in another --out")
            return before
        if any(not one.name.startswith(".") for one in out.iterdir()):
            raise InputError(f"{out}: holds no {ABOUT}, so it is no search; --out names another")
        about["study"] = f"earthtune {uuid.uuid4().hex}"
        with replacing(path) as draft:
            draft.write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
    return about


def _one(study: Study, question: Question, total: int, meter: Meter, launch: Launch) -> bool:
    """Do a trial; whether there was one to do."""
    with study.claim(total) as trial:
        if trial is None:
            return False
        params, folder = study.suggested(trial), study.folder(trial.number)
        told = read_told(folder) or Told(params)
        what = ", ".join(f"{name} {short(value)}" for name, value in params.items())
        launch.say(f"trial {trial.number + 1} of {total}: {what}")
        voice = dataclasses.replace(launch, say=lambda line: launch.say(f"trial {trial.number + 1}, {line}"))
        if told.state not in (COMPLETE, PRUNED, FAILED):  # else it was cut off when all but Optuna knew
            how: dict[str, Any] = {"meter": meter, "launch": voice, "hopeless": partial(study.hopeless, trial)}
            try:
                told = try_out(question, changed(question.recipe, params), folder, told, **how)
            except InputError as error:
                if trial.number == 0:  # the recipe's own mistake
                    raise
                told = failed(folder, str(error))
        study.tell(trial, told)
        launch.say(f"trial {trial.number + 1}: {_ended(told, question.folds)}")
    return True


def _ended(told: Told, folds: int) -> str:
    """How a trial ended, in words."""
    if told.state == FAILED:
        return f"failed: {told.error}"
    score = with_unit(told.score, number(told.score, told.mean), told.unit)
    stopped = f"stopped after fold {len(told.folds)} of {folds}, worse than the best: " if told.state == PRUNED else ""
    return f"{stopped}{named(told.score)} {score} over {len(told.groups)} groups"


def _written(study: Study, question: Question, name: str, seeded: Seeds | None, left: int) -> dict[str, Any]:
    """Write what is known: trials.csv, best.yaml, report.html; one process at a time."""
    with locked(study.out, wait=True):
        return write_outcome(study, question, name=name, seeded=seeded, tested=left)
