"""How a student does beside its teacher, and beside the same network without one: scores, size and confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.networks.assembly import AnyNetwork
from models.networks.weather import WeatherNetwork
from models.spec import Spec
from models.types import Inputs
from pipelines.reports.measures import ABSENT, named, number, with_unit
from pipelines.runs import trust
from pipelines.runs.answers import Answers
from pipelines.runs.worth import costs, tokens
from pipelines.samples.sets import Samples, inputs_of
from pipelines.tasks.task import Task, Teller

STUDENT, TEACHER, ALONE = "student", "teacher", "the same without a teacher"
BATCH = 8  # samples asked about at once
Asked = Mapping[str, Teller]

_MODEL, _AT_ZERO = "model", ", " + tokens.ZEROED
_KINDS = {"": tokens.AS_IS, _AT_ZERO: tokens.ZEROED}


def compared(
    task: Task, samples: Samples, tested: Sequence[Any], ours: tuple[Asked, AnyNetwork], others: Mapping[str, Any]
) -> dict[str, Any]:
    """How a student does beside its rivals, all on samples that none of them saw.

    Args:
        task: what they do.
        samples: where the samples come from.
        tested: those that are asked about.
        ours: the student, asked as in `tokens.tellers`, and its network.
        others: the same of its rivals, by name.

    Returns:
        "score", the leading one; "of", what a sample is; "rows", for each "name", the score, that with tokens at
        zero, "parameters", "products" (multiply-adds of one sample) and its "confidence", see `sure`; "compared" with
        each; and "told", sentences.
    """
    models = {_MODEL: ours, **others}
    rest = [sample for sample in samples.of("val", "test") if sample not in tested]
    answers = {name: Answers(len(tested) + len(rest)) for name in models}
    every = {f"{name}{mark}": asked[kind] for name, (asked, _) in models.items() for mark, kind in _KINDS.items()}
    every |= {name: answers[name].kept(every[name]) for name in models}
    found = task.judge(samples, tested, every)
    for name in models:
        for first in range(0, len(rest), BATCH):
            every[name](samples, rest[first : first + BATCH])
    lead, unit = found.shown.said[0], found.shown.unit
    rows: list[dict[str, Any]] = []
    inputs, of = inputs_of(samples, tested[:1]), costs.of(samples.spec)
    for name, (_, network) in models.items():
        whole, zeroed = (found.scores[f"{name}{mark}"].get(lead) for mark in _KINDS)
        row = {"name": STUDENT if name == _MODEL else name, "score": whole, "zeroed": zeroed}
        row |= {"parameters": sum(w.numel() for w in network.parameters()), "products": products(network, inputs)}
        rows.append(row | {"confidence": sure(samples, answers[name])})
    gain = (without := found.compare(_MODEL, f"{_MODEL}{_AT_ZERO}")).gain
    beside = {name: found.compare(_MODEL, name) for name in others}
    return {
        "score": lead,
        "named": named(lead),
        "of": of,
        "rows": rows,
        "compared": {name: one.to_json() for name, one in beside.items()},
        "tokens": {"gain": with_unit(lead, number(lead, gain, sign="+"), unit), **without.to_json()},
        "told": [
            *_sizes(rows, models[_MODEL][1], of),
            *(
                f"Beside {'its ' * (name == TEACHER)}{name}: {one.told(unit, names=('The student', _called(name)))}"
                for name, one in beside.items()
            ),
            *(_no_tokens(samples.spec) if without.verdict in ("level", "behind") else []),
        ],
    }


def _no_tokens(spec: Spec) -> list[str]:
    heard = "fields" if spec.over_weather else "bands"
    return [f"The student does as well without tokens: what it knows is in the {heard} and their surroundings."]


def _sizes(rows: Sequence[Mapping[str, Any]], network: AnyNetwork, of: str) -> list[str]:
    """How much smaller the first is than the second, in a sentence, and what is not."""
    fewer, less = (rows[1][key] / rows[0][key] for key in ("parameters", "products"))
    same = "its time falls less, for what is told of surroundings costs the same"
    if isinstance(network, WeatherNetwork):
        same = "its encoder was learned anew"
        if getattr(network, "trees", None) is not None:
            same += ", and its trees, which multiply nothing and are as many, were grown on the labels alone"
    return [f"Student of {fewer:.1f} times fewer parameters and {less:.1f} times fewer products a {of}; {same}."]


def _called(name: str) -> str:
    """A rival as the subject of a sentence."""
    return "The teacher" if name == TEACHER else "The one without a teacher"


def products(network: AnyNetwork, inputs: Inputs) -> int:
    """Multiply-adds of a network over inputs; those of its convolutions and linear layers, which are nearly all."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network.eval().predict({name: torch.from_numpy(array) for name, array in inputs.items()})
    return int(counter.get_total_flops()) // 2


def sure(samples: Samples, answers: Answers) -> dict[str, Any]:
    """What answers about samples that a model never saw say of its confidence.

    Returns:
        "groups"; of classes "ece" (expected calibration error), "ece_calibrated" (each group by a temperature of the
        others; None where none was kept) and "auroc" of telling right from wrong (None where nothing is wrong); of
        quantities "coverage" and "width" of the widest interval that was learned, and its "level". "why", where
        anything is missing.
    """
    found = trust.confidence(samples, answers)
    if found is None:
        return {"groups": 0, "why": "nothing was left out"}
    told, learned = found["measures"], found["calibration"]
    if "raw" in told:
        calibrated = learned["temperature"] != 1
        return {
            "groups": told["groups"],
            "ece": told["raw"]["ece"],
            "ece_calibrated": told["calibrated"]["ece"] if calibrated else None,
            "auroc": told["raw"]["auroc"] if math.isfinite(told["raw"]["auroc"]) else None,  # nothing is wrong
        } | ({} if calibrated else {"why": learned["said"]})
    level = next(iter(told["intervals"]), None)
    if level is None:
        return {"groups": told["groups"], "why": learned["said"]}
    return {"groups": told["groups"], "level": float(level)} | {
        key: told["intervals"][level][key] for key in ("coverage", "width")
    }


def view(found: Mapping[str, Any] | None, unit: str, folder: Path) -> dict[str, Any] | None:
    """What the report shows of a comparison: sentences, and a table with a column for each model.

    Args:
        found: see `compared`, with "unfamiliar", see `trust.foreign_ground`.
        unit: of the scores.
        folder: the run, with what a tile costs, see `costs.write`.
    """
    if found is None:
        return None
    lead, rows, spent = found["score"], found["rows"], costs.read(folder)
    scores = {named(lead): "score", f"{named(lead)}, tokens at zero": "zeroed"}
    table = {name: [with_unit(lead, number(lead, row[key]), unit) for row in rows] for name, key in scores.items()}
    table["Parameters"] = [f"{row['parameters'] / 1e6:.2f} M" for row in rows]
    table[f"Products a {found['of']}"] = [f"{row['products'] / 1e9:.2f} G" for row in rows]
    names = [row["name"] for row in rows]
    table |= costs.rows(spent, [STUDENT if name == ALONE else name for name in names])
    table |= _confidence([row["confidence"] for row in rows])
    foreign = found.get("unfamiliar") or {}
    if "auroc" in foreign:
        table["AUROC of wrong input, by what is unfamiliar"] = [number("auroc", foreign["auroc"])] * len(rows)
    told = [*found["told"], *_missing(rows, foreign)]
    shown = [{"name": name, "cells": cells} for name, cells in table.items()]
    columns = [name.removeprefix("the same ") for name in names]
    return {"told": told, "columns": columns, "rows": shown, "note": costs.note(spent)}


def _confidence(sure: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The rows of what is told of confidence, by name; those that no model has are left out."""
    names = {
        "Expected calibration error": "ece",
        "Expected calibration error, calibrated": "ece_calibrated",
        "AUROC of telling right from wrong": "auroc",
        "Measured within its interval": "coverage",
    }
    found = {name: [number(key, one.get(key)) for one in sure] for name, key in names.items()}
    return {name: cells for name, cells in found.items() if set(cells) != {ABSENT}}


def _missing(rows: Sequence[Mapping[str, Any]], foreign: Mapping[str, Any]) -> list[str]:
    """Why something is not in the table, and what is told of wrong input, in words."""
    told = [f"{row['name'].capitalize()}: {row['confidence']['why']}" for row in rows if "why" in row["confidence"]]
    if "why" in foreign:
        return [*told, f"How well wrong input is told is not said: {foreign['why']}."]
    if "auroc" in foreign:
        told.append(
            f"What is unfamiliar is told by the bands alone, as well for the student as for its teacher: of "
            f"{foreign['kinds']} ways to read training imagery wrongly, each group told of by others, the worst "
            f"({foreign['kind']}) has an AUROC of {foreign['least']:.2f}."
        )
    return told
