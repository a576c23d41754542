"""A recipe over the backbone of another run, which stays as it is there, so that one pass serves both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from models.bundle import Bundle, bundle_id, read_bundle
from models.errors import InputError
from models.spec import Pixels
from models.training.settings import Architecture
from pipelines.recipes.recipe import READ_LIKE, Recipe, SceneRecipe


def settled(recipe: Recipe) -> Recipe:
    """The recipe with what the other run decides: backbone, bands, frames, tile; as it is where it names none.

    Raises:
        InputError: no run over scenes, another than the recipe began with, or one that a recipe cannot stand on.
    """
    if not isinstance(recipe, SceneRecipe) or recipe.onto is None:
        return recipe
    bundle, identity = _bundle(recipe.onto), bundle_id(recipe.onto)
    if recipe.onto_bundle not in ("", identity):
        raise InputError(f"{recipe.onto}: another run than this one began with; --overwrite starts anew")
    theirs = bundle.architecture
    if not isinstance(theirs, Architecture) or not isinstance(recipe.model, Architecture):
        raise InputError(f"onto {recipe.onto}: its network is terratorch's own; take a run of `earthtune finetune`")
    if recipe.distil is not None:
        raise InputError("onto, distil: a student has a backbone of its own; leave one of them out")
    pixels = bundle.spec.imagery
    return dataclasses.replace(
        recipe,
        onto=recipe.onto.resolve(),
        onto_bundle=identity,
        backbone=bundle.backbone,
        weights="hub",
        revision=None,
        mode="frozen",
        bands=list(pixels.channels),
        pretrained_bands=[],
        data=dataclasses.replace(recipe.data, tile=pixels.tile),
        model=dataclasses.replace(recipe.model, overrides=theirs.overrides, blocks=theirs.blocks, drop_path=0.0),
    )


def pixels_of(recipe: SceneRecipe) -> Pixels | None:
    """What the other run's backbone eats; None where there is none.

    Raises:
        InputError: no run over scenes.
    """
    return _bundle(recipe.onto).spec.imagery if recipe.onto else None


def told(recipe: SceneRecipe) -> list[str]:
    """What a person should know of the backbone that this one stands on."""
    if recipe.onto is None:
        return []
    bundle = _bundle(recipe.onto)
    whose = f"{recipe.onto.name} ({bundle.backbone}, {bundle.base})"
    said = f"backbone, its weights, bands and tile are those of {whose}, and stay (frozen)"
    other = [key for key in READ_LIKE if getattr(recipe.data, key) != bundle.data.get(key)]
    apart = (
        f"scenes are read otherwise than there ({', '.join(f'data.{key}' for key in other)}): score reads them twice"
    )
    twice = [apart] if other else []
    learned = bundle.base.file if bundle.base.source == "run" else recipe.onto.name
    if bundle.mode == "frozen" and bundle.base.source != "run":
        return [said, *twice]
    return [
        f"{said}; it learned from the samples of {learned}: where held-out ones lie among them, scores are too good",
        *twice,
    ]


def _bundle(run: Path) -> Bundle:
    """A run over scenes."""
    bundle = read_bundle(run)
    if bundle.spec.over_weather or bundle.spec.over_tables:
        raise InputError(f"onto {run}: a {bundle.spec.task} run; wanted one over scenes, whose backbone reads tiles")
    return bundle
