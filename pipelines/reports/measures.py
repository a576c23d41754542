"""Scores in words and numbers: their names, which is better, tables of model and baselines, the headline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {
    **{"accuracy": "Accuracy", "mean_iou": "Mean IoU", "balanced_accuracy": "Balanced accuracy"},
    **{"macro_f1": "Macro F1", "kappa": "Kappa", "rmse": "RMSE", "mae": "MAE", "bias": "Bias", "r2": "R²"},
    **{"pearson_r": "Pearson r", "correlation": "Correlation", "mean_error": "Mean error", "crps": "CRPS"},
    **{"pinball": "Pinball loss", "pod": "POD", "far": "FAR", "csi": "CSI", "ets": "ETS"},
    **{"frequency_bias": "Frequency bias", "fss": "FSS"},
}
LEAST = ("rmse", "mae", "bias", "mean_error", "crps", "pinball", "far")  # of these less is better
WITH_UNIT = ("rmse", "mae", "bias", "mean_error", "crps", "pinball")
ABSENT = "–"

Scores = Mapping[str, Any]
View = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """Which scores a report shows.

    Attributes:
        said: in the headline; the first names the best baseline and decides who is ahead.
        tiles: in large numbers at the top.
        rows: in the table; all that have a name when empty.
        bars: as bars, on one scale.
        unit: of the scores that have one.
    """

    said: tuple[str, ...]
    tiles: tuple[str, ...]
    rows: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()
    unit: str = ""


def kind_of(key: str) -> str:
    """The score without its threshold and window: csi of csi_0.1, fss of fss_1_5."""
    return next((name for name in NAMES if key == name or key.startswith(f"{name}_")), key)


def named(key: str, unit: str = "") -> str:
    """A score's name with its unit, or its threshold and window."""
    kind = kind_of(key)
    rest = key.removeprefix(kind).strip("_").split("_")
    threshold = f" > {rest[0]} {unit}" if rest[0] else f" ({unit})" if unit and kind in WITH_UNIT else ""
    return NAMES.get(kind, kind) + threshold.rstrip() + (f", {rest[1]} x {rest[1]} cells" if len(rest) > 1 else "")


def number(key: str, value: float | None, *, sign: str = "") -> str:
    """A score as text: three decimals, or three digits that count for a score with a unit; a dash where none."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if kind_of(key) not in WITH_UNIT:
        return f"{value:{sign}.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"
    size = abs(value)
    form = ",.0f" if size >= 1000 else ".1f" if size >= 10 else ".2f" if size >= 1 else "#.3g"
    return f"{value:{sign}{form}}".replace("-", "−")


def with_unit(key: str, text: str, unit: str) -> str:
    """The number with the unit where the score has one."""
    return f"{text} {unit if kind_of(key) in WITH_UNIT and text != ABSENT else ''}".rstrip()


def rank(key: str, value: float | None) -> float:
    """The score as a number of which more is better; minus infinity where there is none."""
    kind = kind_of(key)
    if value is None or not math.isfinite(value):
        return -math.inf
    if kind == "frequency_bias":
        return -abs(math.log(value)) if value > 0 else -math.inf
    return -abs(value) if kind in LEAST else value


def best_baseline(lead: str, baselines: Mapping[str, Scores]) -> str | None:
    """Name of the baseline that is best by a score, or None where no baseline has it."""
    ranked = {name: rank(lead, scores.get(lead)) for name, scores in baselines.items()}
    known = [name for name, place in ranked.items() if place > -math.inf]
    return max(known, key=lambda name: ranked[name]) if known else None


def headline(shown: Shown, scores: Scores, baselines: Mapping[str, Scores], verdict: str) -> str:
    """The model's leading scores, the best baseline's, and which of them wins, see `comparison.Comparison.told`."""
    lead = shown.said[0]
    told = [with_unit(key, f"{NAMES[key]} {number(key, scores.get(key))}", shown.unit) for key in shown.said]
    words = [told[0], *(text[:1].lower() + text[1:] if not text[:2].isupper() else text for text in told[1:])]
    said, best = ", ".join(words), best_baseline(lead, baselines)
    if best is None:
        return f"{said}; no baseline was scored on the same samples."
    return f"{said}; the {best} on the same samples: {number(lead, baselines[best][lead])}. {verdict}".rstrip()


def tiles(shown: Shown, scores: Scores, best: str | None, baselines: Mapping[str, Scores]) -> list[View]:
    """The large numbers at the top of the page, each with the best baseline's beneath."""

    def told(key: str, column: Scores) -> str:
        return with_unit(key, number(key, column.get(key)), shown.unit)

    beside = {key: f"{best}: {told(key, baselines[best])}" if best else "" for key in shown.tiles}
    return [{"name": NAMES[key], "value": told(key, scores), "beside": beside[key]} for key in shown.tiles]


def table(shown: Shown, scores: Scores, baselines: Mapping[str, Scores]) -> View:
    """Every score of the model, with its interval where there is one, and of each baseline; the best is marked."""
    columns, intervals = {"model": scores, **baselines}, scores.get("intervals", {})
    rows = []
    for key in shown.rows or [key for key in scores if kind_of(key) in NAMES]:
        ranks = [rank(key, column.get(key)) for column in columns.values()]
        texts = [number(key, column.get(key)) for column in columns.values()]
        if ends := intervals.get(key):
            texts[0] += f" ({number(key, ends[0])} to {number(key, ends[1])})"
        cells = [{"text": t, "best": r == max(ranks) > -math.inf} for t, r in zip(texts, ranks, strict=True)]
        rows.append({"name": named(key, shown.unit), "cells": cells})
    names: Sequence[str] = ["model (90 % interval)" if intervals else "model", *baselines]
    note = f"{scores['no_intervals'].capitalize()}." if "no_intervals" in scores else ""
    return {"columns": names, "rows": rows, "n": scores.get("n"), "note": note}
