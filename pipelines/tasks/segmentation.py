"""Segmentation: a class for each pixel of a scene."""

from models.spec import Classes
from models.training.losses import CLASS_LOSSES
from pipelines.tasks.imagery import imagery_task

TASK = imagery_task(
    "segmentation",
    "Fine-tune a Prithvi backbone on labelled images, a class for each pixel, and write a run folder.",
    losses=CLASS_LOSSES,
    unused=("target", "data.label_nodata"),
    answer=lambda recipe: Classes(tuple(recipe.classes)),
)
