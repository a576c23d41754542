"""A trial: a recipe trained fold by fold, each asked about groups that it never saw, until it is known or hopeless."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from lightning import seed_everything

from models.errors import InputError
from models.files import draft
from models.types import convert
from pipelines.recipes.reading import dump
from pipelines.recipes.recipe import Recipe
from pipelines.records.energy import ASSESS, READ, Meter
from pipelines.records.footprint import Span
from pipelines.records.label import between, summed
from pipelines.reports.measures import rank
from pipelines.runs.crossfit import train_fold
from pipelines.runs.folder import Launch
from pipelines.runs.training import FOLDS, trained
from pipelines.runs.worth import tokens
from pipelines.samples.sets import Samples
from pipelines.tasks.task import Task

PAGE = "trial.json"
RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"
CUT_OFF = 10  # times that a fold is begun before a trial counts as failed: what kills it each time would do so for ever


@dataclass(frozen=True)
class Told:
    """What is known of a trial until now.

    Attributes:
        params: what it changes in the recipe, by dotted names.
        state: running, complete, pruned or failed.
        score: the leading score of its task.
        unit: of that.
        folds: the score of each group, fold by fold.
        begun: times that the fold under way was begun.
        spent: records of the energy, see `label.between`.
        error: why it failed.
    """

    params: Mapping[str, Any]
    state: str = RUNNING
    score: str = ""
    unit: str = ""
    folds: tuple[dict[str, float | None], ...] = ()
    begun: int = 0
    spent: tuple[dict[str, Any], ...] = ()
    error: str = ""

    @property
    def groups(self) -> dict[str, float]:
        """The score of each group that has one; of a day that two folds share, each part is one."""
        found: dict[str, float] = {}
        for n, fold in enumerate(self.folds, 1):
            named = {f"{name}, fold {n}" if name in found else name: score for name, score in fold.items()}
            found |= {name: score for name, score in named.items() if score is not None and isfinite(score)}
        return found

    @property
    def mean(self) -> float | None:
        """The mean over groups; None where nothing is known."""
        groups = self.groups.values()
        return sum(groups) / len(groups) if groups else None

    @property
    def ranks(self) -> dict[int, float]:
        """The groups' scores as numbers of which more is better, by the place of the group among all."""
        scores = enumerate(score for fold in self.folds for score in fold.values())
        found = {place: rank(self.score, score) for place, score in scores}
        return {place: value for place, value in found.items() if isfinite(value)}

    @property
    def seconds(self) -> float:
        """Seconds that it took."""
        return float(sum(record["whole"]["wall"] for record in self.spent))

    @property
    def wh(self) -> Span | None:
        """The energy that it took; None where nothing was booked."""
        wh: Span | None = summed(self.spent)["wh"] if self.spent else None
        return wh


def read_told(folder: Path) -> Told | None:
    """What a folder tells of its trial; None where it was only made.

    Raises:
        InputError: it is damaged.
    """
    path = folder / PAGE
    if not path.is_file():
        return None
    try:
        made: Told = convert(json.loads(path.read_text(encoding="utf-8")), Told, "")
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise InputError(f"{path}: damaged ({error}); delete the folder, and the trial is begun anew") from error
    return made


def write_told(folder: Path, told: Told) -> None:
    """Write down what is known of a trial."""
    with draft(folder / PAGE) as file:
        file.write_text(json.dumps(dataclasses.asdict(told), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Question:
    """What every trial is asked, so that all are asked the same.

    Attributes:
        task: of the recipe.
        recipe: as it came; its seed divides the groups, whatever a trial is trained with.
        folds: parts whose groups are told of by models that never saw them.
    """

    task: Task
    recipe: Recipe
    folds: int

    def samples(self, recipe: Recipe) -> tuple[Samples, int]:
        """The samples of a trial without those of the test split, which no trial sees; and how many those are.

        What is in no split, since it is too close to the test split, is left out with it.
        """
        seed_everything(recipe.seed, workers=True, verbose=False)
        samples = self.task.prepare(dataclasses.replace(recipe, seed=self.recipe.seed, folds=0))
        left = len(samples.of("test"))
        samples.samples = samples.of("train", "val")
        samples.fold(self.folds, None, seed=self.recipe.seed)
        return samples, left


def try_out(
    question: Question,
    recipe: Recipe,
    folder: Path,
    told: Told,
    *,
    meter: Meter,
    launch: Launch,
    hopeless: Callable[[Told], bool] = lambda told: False,
) -> Told:
    """Train a recipe on the folds that are not known yet, and write down what each says.

    Args:
        question: what is asked.
        recipe: the trial's.
        folder: that of the trial; a fold that was cut off goes on from its checkpoint there, and leaves nothing.
        told: what is known.
        meter: books what it costs.
        launch: how to carry it out.
        hopeless: whether the folds until now are reason enough to stop.

    Returns:
        What is known at the end: complete, pruned or failed.

    Raises:
        InputError: these settings cannot be trained; what is known stays.
        RunError: memory or disk run out; likewise.
    """
    if told.begun >= CUT_OFF:
        return failed(folder, f"was cut off {CUT_OFF} times in one fold")
    told = dataclasses.replace(told, begun=told.begun + 1)
    write_told(folder, told)
    with draft(folder / "recipe.yaml") as file:
        file.write_text(dump(recipe), encoding="utf-8")
    samples, _ = question.samples(recipe)
    while len(told.folds) < question.folds:
        told = _fold(question, recipe, samples, folder, told, meter, launch)
        write_told(folder, told)
        if len(told.folds) < question.folds and hopeless(told):
            return _ended(folder, told, PRUNED)
    if told.mean is None:
        return failed(folder, "nothing is known of any group left out")
    return _ended(folder, told, COMPLETE)


def failed(folder: Path, error: str) -> Told:
    """End a trial that came to nothing; what is known stays."""
    return _ended(folder, read_told(folder) or Told({}), FAILED, error)


def _ended(folder: Path, told: Told, state: str, error: str = "") -> Told:
    """Write down the end of a trial; nothing but its recipe and its scores is kept."""
    told = dataclasses.replace(told, state=state, error=error)
    write_told(folder, told)
    shutil.rmtree(folder / FOLDS, ignore_errors=True)
    return told


def _fold(
    question: Question, recipe: Recipe, samples: Samples, folder: Path, told: Told, meter: Meter, launch: Launch
) -> Told:
    """Train on all groups but a fold's, and ask about those."""
    task, fold, before = question.task, len(told.folds), meter.record()
    samples.fold(question.folds, fold, seed=question.recipe.seed)
    samples.spec = task.fitted(samples, ("train",))
    left, place = samples.of("test"), folder / FOLDS / str(fold + 1)
    launch.say(f"fold {fold + 1} of {question.folds}: {len(samples.of('train'))} samples, {len(left)} left out")
    meter.lap(READ)
    begun = (place / "checkpoints" / "last.ckpt").is_file()
    train_fold(task, recipe, samples, place, dataclasses.replace(launch, resume=begun, meter=meter))
    ask = tokens.tellers(task, trained(recipe, samples.spec, place))[tokens.AS_IS]
    found = task.judge(samples, left, {"model": ask})
    shutil.rmtree(place, ignore_errors=True)
    meter.lap(ASSESS)
    return dataclasses.replace(
        told,
        score=found.shown.said[0],
        unit=found.shown.unit,
        folds=(*told.folds, dict(found.groups["model"])),
        spent=(*told.spent, between(before, meter.record())),
        begun=0,
    )
