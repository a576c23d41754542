"""What a downstream task is: samples, objective, baselines, scores, parts of the report."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from models.bundle import Bundle
from models.errors import InputError
from models.types import Predict, Source
from pipelines.recipes.reading import read_recipe, read_values
from pipelines.recipes.recipe import Recipe, SceneRecipe, data_of

if TYPE_CHECKING:
    from models.spec import Spec
    from models.training.objectives import Ensemble, Labelled
    from pipelines.reports.comparison import Comparison
    from pipelines.reports.measures import Shown
    from pipelines.samples.sets import Samples

OVER_WEATHER = ("rain", "downscale")
# Modules beside this one.
TASKS = ("segmentation", "regression", "classification", "change", "fused", "table", *OVER_WEATHER)

# Samples, and some of them, to what is said of each: answers as the runtime gives them, or a forecast of all.
Teller = Callable[[Any, Sequence[Any]], Any]


@dataclass(frozen=True)
class Judgement:
    """What became of a model and its baselines.

    Attributes:
        scores: of each, by name; "model" is one of them.
        shown: which of them a report shows.
        more: what metrics.json holds beside them.
        parts: a function of the best baseline's name that gives what the report shows, see `report.PARTS`.
        compare: a function of two models' names: how the first does beside the second by the leading score.
        groups: the leading score of each model in each group: {model: {group: score}}.
    """

    scores: Mapping[str, Mapping[str, Any]]
    shown: Shown
    more: Mapping[str, Any]
    parts: Callable[[str | None], Mapping[str, Any]]
    compare: Callable[[str, str], Comparison]
    groups: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Task:
    """A downstream task.

    Attributes:
        name: what recipes and Specs call it.
        summary: what a training does, for the help.
        recipe: what a recipe of it may say.
        modes: how its networks may be trained.
        unused: settings of the recipe that it has no use for, by their dotted names.
        least: samples in a batch at least.
        losses: names of its losses, the default first.
        packages: those whose versions matter beside ours, torch and Lightning.
        check: refuses what can be refused of a recipe before any file is opened.
        prepare: reads what a recipe names: samples with their splits, a Spec that fits, statistics.
        fitted: the Spec with the statistics of some splits.
        reopen: the labelled samples of a folder for a trained model.
        unlabelled: samples of files for a trained model; None where scenes are scored tile by tile.
        objective: what a training on some samples makes small.
        teller: how a model is asked about samples.
        baselines: what is cheap, trained on some samples.
        judge: scores of models by name on samples; takes class codes of interest, too.
        facts: what a report tells of the data, by what it is called.
    """

    name: str
    summary: str
    recipe: type[Recipe]
    modes: tuple[str, ...]
    unused: tuple[str, ...]
    least: int
    losses: tuple[str, ...]
    packages: tuple[str, ...]
    check: Callable[[Any], None]
    prepare: Callable[[Any], Samples]
    fitted: Callable[[Any, Sequence[str]], Spec]
    reopen: Callable[[Spec, Any], Samples]
    unlabelled: Callable[[Spec, Sequence[Source], Any], Any] | None
    objective: Callable[[Any, Any, Any, Sequence[Any]], Labelled | Ensemble]
    teller: Callable[[Predict], Teller]
    baselines: Callable[[Any, Sequence[Any], int], Mapping[str, Teller]]
    judge: Callable[..., Judgement]
    facts: Callable[[Any], Mapping[str, str]]

    @property
    def data(self) -> type[Any]:
        """The settings of its data."""
        kind: type[Any] = get_type_hints(self.recipe)["data"]
        return kind


def task_named(name: str) -> Task:
    """A task by its name.

    Raises:
        InputError: there is none.
    """
    if name not in TASKS:
        raise InputError(f"task {name!r}: wanted one of {', '.join(TASKS)}")
    task: Task = importlib.import_module(f"pipelines.tasks.{name}").TASK
    return task


def recipe_kind(path: Path | None) -> type[Recipe]:
    """What kind of recipe a file holds, by its task; one over scenes where that is not known."""
    task = read_values(path).get("task") if path else None
    # Tasks import torch, and most recipes are over scenes.
    return task_named(task).recipe if task in (*OVER_WEATHER, "fused", "table") else SceneRecipe


def load_recipe(path: Path, **changes: Any) -> Recipe:
    """Read a recipe file; `changes` are options by their dotted names, such as {"data.root": "files"}.

    Raises:
        InputError: an unknown key or a value of the wrong kind.
    """
    recipe: Recipe = read_recipe(path, recipe_kind(path), changes)
    return recipe


def prepare(recipe: Recipe) -> Samples:
    """Read what a recipe names, and nothing else: samples with their splits, and the Spec that fits them.

    Raises:
        InputError: what `finetune` would stop at before it trains.
    """
    return task_named(recipe.task).prepare(recipe)


def data_for(
    bundle: Bundle, *, root: Path | None = None, elevation: Path | None = None, climatology: str | None = None
) -> Any:
    """The data settings of a bundle, with another folder, elevation or climatology where these are given.

    Raises:
        InputError: they are damaged, or the task or the model takes no elevation or climatology.
    """
    spec = bundle.spec
    data = data_of(bundle, task_named(spec.task).data)
    changes: dict[str, Any] = {"root": root} if root else {}
    if elevation and not hasattr(data, "elevation"):
        raise InputError(f"elevation {elevation}: a {spec.task} run takes none; leave it out")
    if elevation and not spec.weather.elevation:
        raise InputError(f"elevation {elevation}: this run was trained without (data.elevation none); leave it out")
    changes |= {"elevation": str(elevation)} if elevation else {}
    if climatology and not spec.weather.climatology:
        raise InputError(
            f"climatology {climatology}: this run was trained without (data.climatology none); leave it out"
        )
    changes |= {"climatology": climatology} if climatology else {}
    return dataclasses.replace(data, **changes)
