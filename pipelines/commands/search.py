"""earthtune search: a recipe in, the best of its trials out, and whether it is better or luck."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.types import Progress, Say
from pipelines.commands.outcome import Outcome
from pipelines.recipes.recipe import Recipe
from pipelines.records.energy import Account
from pipelines.runs.folder import Launch


def search(
    recipe: Recipe,
    *,
    out: Path,
    trials: int = 20,
    space: Path | None = None,
    seeds: int = 0,
    storage: str | None = None,
    trust: bool = False,
    account: Account = Account(),
    name: str = "recipe",
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Try a recipe with other settings; write which are better, and the best as a recipe.

    Each trial is scored on groups left out (--folds, else 3), never on the test split, and stopped where it is worse by
    these. Several processes may share a folder; the same command goes on where it was stopped. Wants the extra search.

    Args:
        recipe: a YAML file, or the name of a recipe that comes with earthtune
        out: folder of the search.
        trials: how many are wanted, of all calls and processes together.
        space: YAML file of what is tried: training.lr: {low: 1e-5, high: 1e-3, log: true}, model.decoder: [fcn, unet].
        seeds: train the best and the recipe as it came with so many other seeds; is the difference noise?
        storage: address of a database in place of a file in the folder, such as sqlite:///study.db.
        trust: let virtual rasters (.vrt) read whatever they ask for.
        account: on whose account the energy goes.
        name: what the report calls the recipe.
        progress: wraps long loops.
        say: takes a line for the person who waits.
    """
    from pipelines.searching import search as searching  # torch: not for the help

    asked: dict[str, Any] = {"trials": trials, "space": space, "seeds": seeds, "storage": storage or "", "name": name}
    asked["launch"] = Launch(country=account.country, meter=account.meter, trust=trust, progress=progress, say=say)
    return searching.search(recipe, out, **asked)


def told(result: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The best trial, whether it is better, and where all is."""
    out, seeds = Path(result["search"]), [result["seeds"]["told"]] if result["seeds"] else []
    made = [f"recipe: {out / 'best.yaml'}"] if result["best"] else []
    return Outcome(result, "\n".join([result["headline"], *seeds, *made, f"report: {out / 'report.html'}"]))
