"""What a search leaves: trials.csv, best.yaml, report.html, and what the command tells."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.files import draft
from pipelines.recipes.reading import dump
from pipelines.reports.measures import named, number, with_unit
from pipelines.searching.report import write_report
from pipelines.searching.seeds import Seeds
from pipelines.searching.space import changed
from pipelines.searching.study import ENOUGH, Study, best_of, importances
from pipelines.searching.trial import COMPLETE, FAILED, PRUNED, RUNNING, Question, Told


def write_outcome(study: Study, question: Question, *, name: str, seeded: Seeds | None, tested: int) -> dict[str, Any]:
    """Write trials.csv, best.yaml and report.html of what is known until now.

    Args:
        study: the trials.
        question: what they were asked.
        name: what the report calls the recipe.
        seeded: what other seeds told.
        tested: samples of the test split, which took no part.

    Returns:
        "search", the folder; "trials", how many there are in each state; "best": number, params, score and mean, None
        where none is complete; "seeds", see `Seeds.to_json`; "headline"; "notes", what limits the numbers.
    """
    known = study.known()
    best = best_of(known)
    _write_table(study.out / "trials.csv", known, list(study.space))
    if best is not None:
        _write_best(study.out / "best.yaml", question, known[best], tested=tested)
    ended = [told.state for told in known.values()]
    states = {state: ended.count(state) for state in (COMPLETE, PRUNED, FAILED, RUNNING)}
    said = headline(question, known, best)
    notes = limits(known, states[COMPLETE] + states[PRUNED], tested)
    worth = importances(study.study)
    write_report(
        study.out / "report.html", name=name, headline=said, known=known, best=best, space=study.space, worth=worth,
        seeded=seeded, folds=question.folds, notes=notes,
    )  # fmt: skip
    return {
        "search": str(study.out),
        "headline": said,
        "trials": states,
        "best": None if best is None else _plain(best, known[best]),
        "importances": worth,
        "seeds": seeded.to_json() if seeded else None,
        "notes": notes,
    }


def headline(question: Question, known: Mapping[int, Told], best: int | None) -> str:
    """The best trial, and the recipe as it came where that is among them."""
    if best is None:
        return "No trial is complete."
    told = known[best]
    said = f"Trial {best + 1} is the best of {len(known)}: {named(told.score)} {score_of(told)}, the mean over"
    said += f" {len(told.groups)} group{'s' * (len(told.groups) != 1)} left out"
    recipe = question.recipe
    came = next((n for n, one in known.items() if one.folds and changed(recipe, one.params) == recipe), None)
    if came == best:
        return f"{said}; it is the recipe as it came."
    if came is None or known[came].mean is None:
        return f"{said}."
    return f"{said}; the recipe as it came (trial {came + 1}): {score_of(known[came])}."


def score_of(told: Told) -> str:
    """The mean with its unit."""
    return with_unit(told.score, number(told.score, told.mean), told.unit)


def limits(known: Mapping[int, Told], judged: int, tested: int) -> list[str]:
    """What limits the numbers, a sentence each."""
    notes = [
        f"The best of {judged} was chosen by these groups, so its score flatters it; --seeds tells whether it is "
        "better than the recipe as it came."
    ]
    if tested:
        notes.append(
            f"{tested} samples of the test split took no part. With best.yaml finetune leaves them out, too, so that "
            "its score is of samples that nothing was chosen by."
        )
    else:
        notes.append("The recipe has no test split: no sample is left that nothing was chosen by.")
    notes.append("Weights that a run learns of left-out groups (model.share, model.gate) are those of the recipe here.")
    few = min((len(told.groups) for told in known.values() if told.state == COMPLETE), default=0)
    notes += [f"{few} groups are few: another division may choose another."] if 0 < few < 6 else []
    complete = sum(told.state == COMPLETE for told in known.values())
    too_few = f"{complete} complete trials are too few to say which settings mattered; {ENOUGH} are wanted."
    return [*notes, too_few] if complete < ENOUGH else notes


def _write_table(path: Path, known: Mapping[int, Told], names: list[str]) -> None:
    """A row for each trial."""
    columns = ("trial", "state", "score", "mean", "lowest", "highest", "groups", "folds", "seconds", "wh")
    with draft(path) as file, file.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow([*columns, *names, "error"])
        for n, told in known.items():
            groups = told.groups.values()
            ends = [min(groups, default=None), max(groups, default=None)]
            cost = [round(told.seconds, 2), told.wh and told.wh.mid]
            row = [n + 1, told.state, told.score, told.mean, *ends, len(groups), len(told.folds), *cost]
            table.writerow([*row, *(told.params.get(name) for name in names), told.error])


def _write_best(path: Path, question: Question, told: Told, *, tested: int) -> None:
    """The recipe of a trial; where there is a test split, one that is scored on it."""
    recipe = changed(question.recipe, told.params)
    recipe = dataclasses.replace(recipe, folds=0) if tested else recipe
    with draft(path) as file:
        said = f"# The best of a search: {named(told.score)} {score_of(told)} over groups left out.\n"
        file.write_text(said + dump(recipe), encoding="utf-8")


def _plain(n: int, told: Told) -> dict[str, Any]:
    """A trial as plain data."""
    return {"trial": n + 1, "params": dict(told.params), "score": told.score, "mean": told.mean, "groups": told.groups}
