"""The STAC item beside a map from points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.spec import ClassDef
from pipelines.outputs.item import item_of, named, undated
from pipelines.outputs.item_assets import asset
from pipelines.scenes.scene import Scene


def points_item(
    scene: Scene,
    made: Mapping[str, Path],
    classes: Sequence[ClassDef],
    told: Mapping[str, Any],
    labels: Sequence[Path],
    *,
    folder: Path,
) -> dict[str, Any]:
    """Describe a map from points.

    Args:
        scene: what was mapped.
        made: the finished files by kind, all in one folder.
        classes: its classes.
        told: what is known of the head.
        labels: what it learned from.
        folder: where the item will be.
    """
    assets = {kind: asset(kind, made[kind], made[kind].parent, classes) for kind in ("map", "confidence")}
    assets["thumbnail"] = asset("thumbnail", made["picture"], made["picture"].parent)
    score = told["scores"][told["chosen"]]["balanced_accuracy"]
    worth = "" if score is None else f" Balanced accuracy {score:.2f} over {told['groups']} groups left out."
    by, names = told["chosen"], ", ".join(path.name for path in labels)
    properties = {
        "title": f"class map of {scene.name}",
        "description": f"Drawn from a few labels by {by}.{worth}{undated(scene)}",
        "processing:level": "L4",
        "processing:lineage": f"a head on {by}, learned from {names}, applied to {named(scene)}",
        "processing:software": {"earthtune": version("earthtune")},
    }
    return item_of(scene, assets, properties, name=made["map"].stem, folder=folder, geobox=scene.geobox)
