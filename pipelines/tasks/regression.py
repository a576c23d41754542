"""Regression: a value for each pixel of a scene."""

from __future__ import annotations

from models.spec import Target, Values
from models.training.losses import VALUE_LOSSES
from pipelines.recipes.recipe import SceneRecipe
from pipelines.tasks.imagery import imagery_task


def _answer(recipe: SceneRecipe) -> Values:
    target = recipe.target or Target()
    return Values(target.name, target.unit)


TASK = imagery_task(
    "regression",
    "Fine-tune a Prithvi backbone on images with measured values, and write a run folder.",
    losses=VALUE_LOSSES,
    unused=(
        "classes",
        "data.ignore",
        "data.column",
        "data.layer",
        "data.background",
        "data.corrections",
        "training.smoothing",
        "training.class_weights",
    ),
    answer=_answer,
)
