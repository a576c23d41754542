"""earthtune finetune, as it is typed: a recipe of any kind, its run folder, and what is told at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.backbones.catalogue import BANDS
from models.spec import Classes
from pipelines.commands.outcome import Outcome
from pipelines.recipes.recipe import Recipe, SceneRecipe
from pipelines.runs.folder import Launch


def train(recipe: Recipe, *, out: Path | None = None, launch: Launch = Launch(), name: str = "run") -> dict[str, Any]:
    """Fine-tune a Prithvi backbone on labelled images, or on weather fields, and write a run folder.

    Each key of a recipe is an option, too.

    Args:
        recipe: a YAML file, or the name of a recipe that comes with earthtune
        out: the run folder (default: runs/RECIPE).
        launch: how it is carried out.
        name: what the report calls the run.
    """
    out = out or Path("runs") / name
    if isinstance(recipe, SceneRecipe):
        from pipelines.samples.chips import glance  # rasterio: not for the help

        glance(recipe.data, recipe.bands or BANDS)  # what is wrong with files is told before torch is imported: 10 s
        if recipe.data.corrections and recipe.classes:
            from pipelines.review.corrections import listed, read_corrections

            for path in listed(recipe.data.corrections):
                read_corrections(path, Classes(tuple(recipe.classes)), 0)
    from pipelines.runs.finetune import finetune  # torch, terratorch: not for the help

    result = finetune(recipe, out, launch=launch, name=name)
    return result and {"run": str(out), **result}


def told(result: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The headline, which a run that had ended before lacks, and where the run is; nothing from other processes."""
    if not result:
        return Outcome({}, "")
    out = Path(result.pop("run"))
    changed = (result.get("corrections") or {}).get("told", [])
    lines = [result.get("headline", ""), *changed, f"run: {out}", f"report: {out / 'report.html'}"]
    return Outcome(result, "\n".join(line for line in lines if line))
