"""Whether the best of a search is better than the recipe as it came, or luck: both trained with other seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.files import locked
from pipelines.recipes.recipe import Recipe
from pipelines.records.energy import Meter
from pipelines.reports.comparison import RESAMPLES, Comparison, of_draws
from pipelines.reports.measures import rank
from pipelines.runs.folder import Launch
from pipelines.searching.space import changed
from pipelines.searching.study import Study, best_of
from pipelines.searching.trial import FAILED, RUNNING, Question, Told, read_told, try_out

SEEDS = "seeds"
CAME = "as it came"
WORDS = {"ahead": "better", "level": "noise", "behind": "worse", "unclear": "unclear"}


@dataclass(frozen=True)
class Seeds:
    """The best and the recipe as it came, seed by seed.

    Attributes:
        best: the number of the best trial.
        pairs: the two by their seed.
        compared: how the best does beside the recipe as it came, by groups and seeds.
    """

    best: int
    pairs: Mapping[int, tuple[Told, Told]]
    compared: Comparison

    @property
    def verdict(self) -> str:
        """Better, noise, worse or unclear."""
        return WORDS[self.compared.verdict]

    @property
    def told(self) -> str:
        """The verdict as a sentence."""
        unit = next(iter(self.pairs.values()))[0].unit
        names = (f"Trial {self.best + 1}", "The recipe as it came")
        many = f"{len(self.pairs)} other seed{'s' * (len(self.pairs) > 1)}"
        level = " The difference is noise." if self.verdict == "noise" else ""
        return f"With {many}: {self.compared.told(unit, names=names)}{level}"

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        means = {str(seed): [one.mean for one in pair] for seed, pair in self.pairs.items()}
        about = {"best": self.best, "means": means, "compared": self.compared.to_json()}
        return about | {"verdict": self.verdict, "told": self.told}


def train_seeds(study: Study, question: Question, count: int, *, meter: Meter, launch: Launch) -> Seeds | None:
    """Train the best and the recipe as it came with `count` seeds that no trial had, on the same folds.

    Several processes share the work. None where there is nothing to compare, or others are still at it: whoever is
    last tells.
    """
    known = study.known()
    best = best_of(known)
    if any(told.state == RUNNING for told in known.values()):
        launch.say("seeds: trials of other processes are under way; whoever is last trains the seeds")
        return None
    params = known[best].params if best is not None else {}
    recipe = changed(question.recipe, params)
    if best is None or recipe == question.recipe:
        launch.say("seeds: nothing is better than the recipe as it came; there is nothing to compare")
        return None
    pairs = {}
    for seed in range(recipe.seed + 1, recipe.seed + 1 + count):
        two = {f"{best + 1:04d}": (recipe, params), "came": (question.recipe, {})}
        done = [_trained(study, question, *one, seed, name, meter, launch) for name, one in two.items()]
        pairs[seed] = done
    whole = {seed: (a, b) for seed, (a, b) in pairs.items() if a and b and FAILED not in (a.state, b.state)}
    if any(one is None for pair in pairs.values() for one in pair):
        launch.say("seeds: other processes are at the rest of them; whoever is last tells")
        return None
    return Seeds(best, whole, compared(list(whole.values()))) if whole else None


def _trained(
    study: Study,
    question: Question,
    recipe: Recipe,
    params: Mapping[str, Any],
    seed: int,
    name: str,
    meter: Meter,
    launch: Launch,
) -> Told | None:
    """A recipe trained with a seed, unless it was before; None where another process is at it."""
    folder = study.out / SEEDS / f"{name}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=False) as free:
        told = read_told(folder) or Told(params)
        if told.state != RUNNING:
            return told
        if not free:
            return None
        which = CAME if name == "came" else f"trial {int(name)}"
        launch.say(f"seed {seed}, {which}")
        voice = dataclasses.replace(launch, say=lambda line: launch.say(f"seed {seed}, {which}, {line}"))
        seeded = dataclasses.replace(recipe, seed=seed)
        return try_out(question, seeded, folder, told, meter=meter, launch=voice)


def compared(pairs: Sequence[tuple[Told, Told]], *, seed: int = 0) -> Comparison:
    """How the first of each pair does beside the second: the mean gain over groups and seeds.

    Its interval is that of both resampled: another seed, and other groups.

    Args:
        pairs: the two of each seed, asked about the same groups.
        seed: seeds the resampling.
    """
    score = pairs[0][0].score
    groups = [group for group in pairs[0][0].groups if all(group in one.groups for pair in pairs for one in pair)]
    scores = np.array([[[rank(score, one.groups[g]) for g in groups] for one in pair] for pair in pairs])
    gains = scores[:, 0] - scores[:, 1]  # (S, G)
    rng = np.random.default_rng(seed)
    seeds = rng.integers(len(pairs), size=(RESAMPLES, len(pairs), 1))
    places = rng.integers(max(len(groups), 1), size=(RESAMPLES, 1, len(groups)))
    draws = gains[seeds, places].mean(axis=(1, 2)) if groups else np.empty(0)
    return of_draws(score, "the recipe as it came", float(gains.mean()) if groups else 0.0, draws, len(groups), "group")
