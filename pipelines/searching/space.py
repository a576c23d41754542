"""What a search tries: settings of a recipe by their dotted names, each with a range or with choices; plain data."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.networks.decoders import DECODERS
from models.training.settings import Architecture, TableArchitecture, WeatherArchitecture
from models.types import convert, only
from pipelines.recipes.reading import put, read_values, type_at
from pipelines.recipes.recipe import Recipe, SceneRecipe
from pipelines.runs.check import check
from pipelines.tasks.task import Task

NAMES, CHOICES = 50, 100  # most of each
# Trials that are asked about other samples, or other questions, cannot be told apart.
FIXED = {
    **dict.fromkeys(("task", "data", "classes", "target"), "it decides what is scored, so that no trials compare"),
    **dict.fromkeys(("folds", "refit"), "the search divides the groups itself (--folds)"),
    "seed": "the best seed is luck; --seeds trains the best and the recipe as it came with several",
    "distil": "students are made by the command distil",
}


@dataclass(frozen=True)
class Range:
    """All numbers between two.

    Attributes:
        low: the lowest.
        high: the highest.
        log: whether a tenth is as far as ten times.
    """

    low: float
    high: float
    log: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return isinstance(value, int | float) and self.low <= value <= self.high


Dimension = Range | tuple[Any, ...]
Space = Mapping[str, Dimension]


def short(value: Any) -> str:
    """A value in a few letters, as YAML has it."""
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def value_of(recipe: Recipe, name: str) -> Any:
    """What a recipe says under a dotted name, as plain data; None where it says nothing."""
    said: Any = recipe.to_json()
    for key in name.split("."):
        said = (said or {}).get(key)
    return said


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values under dotted names, as its own reader takes them.

    Raises:
        InputError: no such setting, or a value of another kind.
    """
    plain = recipe.to_json()
    for name, value in values.items():
        put(plain, name, value)
    made: Recipe = convert(plain, type(recipe), "")
    return made


def to_json(space: Space) -> dict[str, Any]:
    """A space as `read_space` takes it."""
    return {name: dataclasses.asdict(d) if isinstance(d, Range) else list(d) for name, d in space.items()}


def default_space(task: Task, recipe: Recipe) -> Space:
    """What is tried where a person names nothing: rates, widths, augmentation, and of the backbone how much is trained.

    Only what the task uses, and what the recipe leaves open: a backbone of random weights is trained whole.
    """
    training = recipe.training
    made: dict[str, Dimension] = {
        "training.lr": Range(training.lr / 10, min(training.lr * 10, 1.0), log=True),
        "training.weight_decay": Range(1e-4, 0.3, log=True),
        "training.warmup": Range(0.0, 0.3),
        **_of_model(recipe.model),
    }
    if recipe.mode != "frozen":
        made["training.backbone_lr"] = Range(0.01, 1.0, log=True)
        made["training.layer_decay"] = Range(0.6, 1.0)
    if isinstance(recipe, SceneRecipe):
        made |= {"training.gain": Range(0.0, 0.1), "training.offset": Range(0.0, 0.1)}
        made |= {} if recipe.weights == "random" else {"mode": task.modes}
    if hasattr(recipe, "augment"):
        made["augment.offset"] = Range(0.0, 0.3)
    return {name: dimension for name, dimension in made.items() if name not in task.unused}


def _of_model(model: Any) -> dict[str, Dimension]:
    """What is tried of the parts on top of the backbone."""
    dropout = {"model.dropout": Range(0.0, 0.4)}
    if isinstance(model, Architecture):
        made: dict[str, Dimension] = {"model.channels": _around(model.channels), **dropout}
        made["model.decoder"] = DECODERS if len(model.blocks) in (0, 4) else DECODERS[:2]  # the others want four
        return made | ({"model.share": Range(0.0, 1.0)} if model.statistics else {})
    if isinstance(model, WeatherArchitecture):
        widths = {f"model.{key}": _around(getattr(model, key)) for key in ("channels", "detail")}
        shares = {"model.share": Range(0.0, 1.0)} if model.rounds else {}
        return widths | dropout | {"model.token_dropout": Range(0.0, 0.6)} | shares
    if isinstance(model, TableArchitecture):
        widths = {f"model.{key}": _around(getattr(model, key)) for key in ("width", "members")}
        return widths | dropout | {"model.leaf": Range(1, 10), "model.share": Range(0.0, 1.0)}
    return {}


def _around(value: int) -> tuple[int, ...]:
    """A width, half of it and twice of it."""
    return tuple(dict.fromkeys((max(value // 2, 1), value, value * 2)))


def read_space(path: Path) -> Space:
    """The space that a YAML file tells, in place of the one built in.

    Raises:
        InputError: no file, or a name with neither `{low: 1e-5, high: 1e-3, log: true}` nor a list of choices.
    """
    values = read_values(path)
    try:
        if len(values) > NAMES:
            raise InputError(f"{len(values)} names: wanted {NAMES} at most")
        return {name: _dimension(name, told) for name, told in values.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _dimension(name: str, told: Any) -> Dimension:
    """A range, or choices."""
    if isinstance(told, list):
        if not 2 <= len(told) <= CHOICES:
            raise InputError(f"{name}: wanted 2 to {CHOICES} choices, came {len(told)}")
        if any(one in told[:i] for i, one in enumerate(told)):
            raise InputError(f"{name}: a choice comes twice; leave one out")
        return tuple(told)
    if not isinstance(told, dict) or not {"low", "high"} & set(told):
        raise InputError(f"{name}: wanted a range such as {{low: 1e-5, high: 1e-3, log: true}}, or a list of choices")
    made: Range = convert(told, Range, name)
    if not (math.isfinite(made.high - made.low) and made.low < made.high):
        raise InputError(f"{name}: wanted low below high, came {made.low:g} and {made.high:g}")
    if made.log and made.low <= 0:
        raise InputError(f"{name}: low {made.low:g} has no logarithm; wanted one above 0, or log: false")
    return made


def settled(space: Space, task: Task, recipe: Recipe) -> Space:
    """The space, whose ends and choices the recipe takes one by one; ranges of whole numbers have whole ends.

    Raises:
        InputError: a setting that is not searched, that the recipe does not have, or a value that it does not take.
    """
    made = {}
    for name, dimension in space.items():
        if why := FIXED.get(name.split(".")[0]):
            raise InputError(f"{name}: is not searched: {why}; leave it out of the space")
        whole = only(type_at(type(recipe), name)) is int
        if isinstance(dimension, Range) and whole:
            dimension = Range(math.ceil(dimension.low), math.floor(dimension.high), dimension.log)
        for value in _tried(dimension):
            _check(task, recipe, name, value)
        made[name] = dimension
    if not made:
        raise InputError("the space is empty: wanted one setting at least, such as training.lr")
    return made


def _tried(dimension: Dimension) -> Sequence[Any]:
    """The ends of a range; all choices."""
    return (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension


def _check(task: Task, recipe: Recipe, name: str, value: Any) -> None:
    """Refuse a value by what the recipe's reader and its task say of it."""
    try:
        check(task, changed(recipe, {name: value}))
    except InputError as error:
        raise InputError(f"the space, {name} {value}: {error}") from error
