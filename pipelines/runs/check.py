"""What can be refused of a recipe before any file is opened."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

from models.errors import InputError
from models.training.losses import check_losses
from models.training.settings import Training
from pipelines.recipes.recipe import Recipe, check_ranges
from pipelines.tasks.task import Task


def check(task: Task, recipe: Recipe) -> None:
    """Refuse a recipe that no training can follow.

    Raises:
        InputError: the setting, and what is wanted.
    """
    if recipe.mode not in task.modes and getattr(recipe, "distil", None) is None:  # all of a student is trained
        raise InputError(f"mode {recipe.mode!r}: wanted one of {', '.join(task.modes)} for task {task.name}")
    silent = type(recipe)(recipe.task, type(recipe.data)(), recipe.backbone)  # of the same kind, and says nothing
    unused = [key for key in task.unused if attrgetter(key)(recipe) != attrgetter(key)(silent)]
    if unused:
        raise InputError(f"{', '.join(unused)}: task {task.name} does not use it; leave it out of the recipe")
    check_training(recipe.training, recipe.weights, batch=task.least)
    check_losses(recipe.training.loss, task.losses)
    check_ranges({"seed": (recipe.seed, 0, 2**32 - 1), "folds": (recipe.folds, 0, 100)})
    if recipe.folds == 1:
        raise InputError("folds 1: wanted 2 or more, or 0 for a test split")
    task.check(recipe)


def check_training(training: Training, weights: str, *, batch: int) -> None:
    """Refuse settings that no training takes, before any file is opened; a batch holds `batch` samples at least.

    Raises:
        InputError: the setting, and what is wanted.
    """
    choices = {"keep": ("best", "last"), "precision": ("auto", "32-true", "bf16-mixed", "16-mixed")}
    for key, known in choices.items():
        if getattr(training, key) not in known:
            raise InputError(f"training.{key} {getattr(training, key)!r}: wanted one of {', '.join(known)}")
    least = {"epochs": 1, "batch": batch, "accumulate": 1, "workers": 0, "patience": 0}
    for key, low in least.items():
        if getattr(training, key) < low:
            raise InputError(f"training.{key} {getattr(training, key)}: wanted at least {low}")
    check_ranges(
        {
            "training.weight_decay": (training.weight_decay, 0.0, 100.0),
            "training.backbone_lr": (training.backbone_lr, 0.0, 100.0),
            "training.layer_decay": (training.layer_decay, 1e-3, 1.0),
            "training.clip": (training.clip, 0.0, 1e6),
            "training.freeze_norm": (training.freeze_norm, 0.0, 1.0),
            "training.gain": (training.gain, 0.0, 10.0),
            "training.offset": (training.offset, 0.0, 10.0),
            **{f"training.loss.{loss}": (share, 1e-9, 1e9) for loss, share in training.loss.items()},
            "training.lr": (training.lr, 1e-12, 10.0),
            "training.ema": (training.ema, 0.0, 0.999999),
            "training.warmup": (training.warmup, 0.0, 1.0),
            "training.smoothing": (training.smoothing, 0.0, 0.999),
            "training.class_weights": (training.class_weights, 0.0, 1.0),
        }
    )
    if weights not in ("hub", "random") and not Path(weights).is_file():
        raise InputError(f"weights {weights}: no such file; wanted hub, random or a weight file")
