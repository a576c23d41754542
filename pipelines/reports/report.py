"""The scores, curves and example maps of a run as one report.html that needs nothing beside it.

The page holds its pictures itself, loads nothing, runs no script and follows the reader's light or dark setting.
"""

from __future__ import annotations

import base64
import io
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError, RunError
from models.spec import Spec
from pipelines.reports import plots
from pipelines.reports.scores import class_scores, confusion_matrix, value_scores, value_sums

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INKS = {"light": "#1f2328", "dark": "#e8eaed"}  # the template's text colours
SCORES = {
    "segmentation": ("mean_iou", "accuracy", "balanced_accuracy", "macro_f1", "kappa"),
    "classification": ("accuracy", "macro_f1", "balanced_accuracy", "mean_iou", "kappa"),
    "regression": ("rmse", "r2", "mae", "bias", "pearson_r"),
}  # the first names the best baseline, the first two make the headline
NAMES = {
    "accuracy": "Accuracy",
    "mean_iou": "Mean IoU",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "kappa": "Kappa",
    "rmse": "RMSE",
    "mae": "MAE",
    "bias": "Bias",
    "r2": "R²",
    "pearson_r": "Pearson r",
}
_WITH_UNIT = ("rmse", "mae", "bias")
_ABSENT = "–"

Draw = Callable[["Figure", str], None]
View = dict[str, Any]

# What the template shows of some runs only, and the colours of its text.
PARTS: View = {"per_class": [], "confusion": None, "examples": [], "scale": None, "agreement": None, "charts": []}
PARTS["inks"] = INKS


@dataclass(frozen=True)
class Example:
    """One tile to look at: what the satellite saw, what is true, what the model says.

    Attributes:
        name: of the tile or chip.
        image: picture of the scene, (h, w, 3 or 4) uint8.
        truth: (h, w) class index (-1: no label) or value (NaN: no label); (1, 1) for a class of the whole tile.
        predicted: same shape and kind as `truth`.
        valid: True where the scene has data, (h, w).
        baseline: what the best baseline says; same shape and kind as `truth`.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[Any]
    predicted: NDArray[Any]
    valid: NDArray[np.bool_]
    baseline: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not lie on one grid."""
        maps = [self.truth, self.predicted, *([] if self.baseline is None else [self.baseline])]
        grid = self.valid.shape
        fits = self.image.ndim == 3 and self.image.shape[:2] == grid and self.image.shape[2] in (3, 4)
        if not fits or any(m.shape != self.truth.shape for m in maps) or self.truth.shape not in (grid, (1, 1)):
            came = ", ".join(str(array.shape) for array in (self.image, self.valid, *maps))
            raise InputError(f"example {self.name}: image, valid and maps are {came}; wanted (h, w, 3 or 4) and (h, w)")


def write_report(
    path: Path,
    *,
    title: str,
    spec: Spec,
    facts: Mapping[str, str],
    scores: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    confusion: NDArray[Any] | None,
    curves: Sequence[Mapping[str, float | None]],
    examples: Sequence[Example],
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a run; afterwards `path` holds the whole page or what it held before.

    Args:
        path: the file to write, such as RUN/report.html; its folder exists.
        title: of the page.
        spec: the model's Spec; its task decides which scores and examples are shown.
        facts: what was trained on what, in order of appearance.
        scores: what `class_scores` or `value_scores` gave for the model.
        baselines: the same by the name of each baseline, scored on the same split.
        confusion: the model's (K, K) confusion matrix; None for regression.
        curves: the training log, a row per epoch; columns train_* and val_* are drawn, any may be missing.
        examples: tiles to show, about six.
        notes: what limits these numbers, a sentence each.

    Raises:
        InputError: the confusion matrix or an example does not fit the Spec.
        RunError: the file cannot be written.
    """
    if confusion is not None and confusion.shape != (len(spec.classes),) * 2:
        raise InputError(f"report: confusion matrix {confusion.shape} does not fit {len(spec.classes)} classes")
    best, limits = best_baseline(spec.task, baselines), _limits(examples)
    view = PARTS | {
        "title": title,
        "spec": spec,
        "facts": facts,
        "headline": headline(spec, scores, baselines),
        "tiles": _tiles(spec, scores, best, baselines),
        "table": _score_table(spec, scores, baselines),
        "bars": _bars(spec, scores, baselines),
        "best": best,
        "per_class": _per_class(spec, scores, baselines.get(best or "", {})),
        "curves": curve_charts(curves),
        "confusion": _confusion_chart(spec, confusion),
        "examples": [_example(spec, example, limits, best or "baseline") for example in examples],
        "scale": _scale_chart(spec, examples),
        "agreement": _agreement_chart(spec, examples),
        "notes": notes,
    }
    write_page(path, render(view))


def best_baseline(task: str, baselines: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Name of the baseline with the best leading score of the task, or None where no baseline has one."""
    lead = SCORES[task][0]
    ranked = {name: _rank(lead, scores.get(lead)) for name, scores in baselines.items()}
    known = [name for name, rank in ranked.items() if rank > -math.inf]
    return max(known, key=lambda name: ranked[name]) if known else None


def headline(spec: Spec, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence: the model's leading score, the best baseline's, and which of them wins."""
    lead = SCORES[spec.task][0]
    ours = _number(lead, scores.get(lead))
    best = best_baseline(spec.task, baselines)
    said = f"{NAMES[lead]} {_with_unit(spec, lead, ours)}"
    if best is None:
        return f"{said}; no baseline was scored on the same split."
    theirs = _number(lead, baselines[best][lead])
    ahead = _rank(lead, scores.get(lead)) > _rank(lead, baselines[best][lead])
    verdict = "They are level." if ours == theirs else "The model is ahead." if ahead else "The baseline is ahead."
    return f"{said}; the {best} on the same split: {theirs}. {verdict}"


def _rank(key: str, value: float | None) -> float:
    """The score as a number of which more is better; minus infinity where there is none."""
    if value is None or not math.isfinite(value):
        return -math.inf
    return {"rmse": -value, "mae": -value, "bias": -abs(value)}.get(key, value)


def _number(key: str, value: float | None, *, sign: str = "") -> str:
    """A score as text: three decimals, or three digits that count for a score with a unit; a dash where none."""
    if value is None or not math.isfinite(value):
        return _ABSENT
    if key not in _WITH_UNIT:
        return f"{value:{sign}.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"
    size = abs(value)
    form = ",.0f" if size >= 1000 else ".1f" if size >= 10 else ".2f" if size >= 1 else ".3g"
    return f"{value:{sign}{form}}".replace("-", "−")


def _with_unit(spec: Spec, key: str, text: str) -> str:
    """The number with the target's unit where the score has one."""
    unit = spec.target.unit if spec.target and key in _WITH_UNIT and text != _ABSENT else ""
    return f"{text} {unit}".rstrip()


def _tiles(
    spec: Spec, scores: Mapping[str, Any], best: str | None, baselines: Mapping[str, Mapping[str, Any]]
) -> list[View]:
    """The two large numbers at the top of the page, each with the best baseline's beneath."""
    beside = baselines[best] if best is not None else {}
    return [
        {
            "name": NAMES[key],
            "value": _with_unit(spec, key, _number(key, scores.get(key))),
            "beside": f"{best}: {_with_unit(spec, key, _number(key, beside.get(key)))}" if best else "",
        }
        for key in SCORES[spec.task][:2]
    ]


def _score_table(spec: Spec, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> View:
    """Every score of the model and of each baseline; the best of a row is marked."""
    columns = {"model": scores, **baselines}
    rows = []
    for key in SCORES[spec.task]:
        ranks = [_rank(key, column.get(key)) for column in columns.values()]
        top = max(ranks)
        cells = [
            {"text": _number(key, column.get(key)), "best": rank == top > -math.inf}
            for column, rank in zip(columns.values(), ranks, strict=True)
        ]
        rows.append({"name": _with_unit(spec, key, NAMES[key]), "cells": cells})
    return {"columns": list(columns), "rows": rows, "n": scores.get("n")}


def _per_class(spec: Spec, scores: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[View]:
    """One row per class with the baseline's IoU beside the model's; empty for regression."""
    beside = {row["code"]: row for row in baseline.get("per_class", ())}
    rows = []
    for row in scores.get("per_class", ()) if spec.task != "regression" else ():
        ours, theirs = row["iou"], beside.get(row["code"], {}).get("iou")
        gain = None if ours is None or theirs is None else ours - theirs
        texts = {key: _number(key, row[key]) for key in ("iou", "f1", "precision", "recall")}
        rows.append({**texts, "support": row["support"], "code": row["code"], "beside": _number("iou", theirs)})
        rows[-1] |= {"gain": _number("iou", gain, sign="+"), **_class_view(spec, row["code"])}
    return rows


def _class_view(spec: Spec, code: int) -> View:
    """Name and colour of a class."""
    definition = spec.classes[spec.codes.index(code)]
    return {"name": definition.name, "colour": definition.colour}


def chart(draw: Draw, *, width: float, height: float, alt: str) -> View:
    """Draw a figure once for light and once for dark pages.

    Args:
        draw: called with an empty figure and the colour of its text.
        width: in inches; the page shows 96 pixels to the inch where there is room.
        height: in inches.
        alt: what the picture shows, for those who cannot see it.
    """
    pictures = {}
    for page, ink in INKS.items():
        figure, buffer = plots.figure(width, height), io.BytesIO()
        draw(figure, ink)
        with warnings.catch_warnings():
            # A script that the font lacks shows as boxes in a chart; the page's own text beside it spells the name.
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(buffer, format="png")
        pictures[page] = _data_uri(buffer.getvalue())
    return {**pictures, "alt": alt, "width": round(width * 96), "height": round(height * 96)}


def _data_uri(png: bytes) -> str:
    """A PNG as the text of an image's address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _png(image: NDArray[np.uint8]) -> str:
    """An image, pixel for pixel, as the text of an image's address."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(image), format="png")
    return _data_uri(buffer.getvalue())


def _bars(spec: Spec, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> View:
    """The scores that share a scale, as bars."""
    wanted = [key for key in SCORES[spec.task] if (key in ("rmse", "mae")) == (spec.task == "regression")]
    keys = {key: _with_unit(spec, key, NAMES[key]) for key in wanted}
    columns = {"model": scores, **baselines}

    def draw(figure: Figure, ink: str) -> None:
        plots.scores_bars(figure.add_subplot(), columns, keys=keys, ink=ink)

    height = 0.7 + 0.22 * len(columns) * len(keys)
    return chart(draw, width=4.6, height=height, alt="Scores of the model and the baselines as bars")


def curve_charts(table: Sequence[Mapping[str, float | None]]) -> list[View]:
    """The losses, the errors with a unit, and the scores of the log, a chart each where there are any."""
    keys = sorted({key for row in table for key in row if key.startswith(("train_", "val_"))})
    groups: dict[str, list[str]] = {"loss": [], "error": [], "score": []}
    for key in keys:
        kind = "loss" if key.endswith("loss") else "error" if key.endswith(_WITH_UNIT) else "score"
        groups[kind].append(key)
    return [_curve_chart(table, kind, columns) for kind, columns in groups.items() if columns]


def _curve_chart(table: Sequence[Mapping[str, float | None]], label: str, keys: Sequence[str]) -> View:
    """One chart of the training log."""

    def draw(figure: Figure, ink: str) -> None:
        plots.curves(figure.add_subplot(), table, keys=keys, label=label, ink=ink)

    return chart(draw, width=5.2, height=2.9, alt=f"{', '.join(keys)} by epoch")


def _confusion_chart(spec: Spec, confusion: NDArray[Any] | None) -> View | None:
    """The confusion matrix as a picture, or None where there is none."""
    if confusion is None:
        return None

    def draw(figure: Figure, ink: str) -> None:
        plots.confusion_plot(figure.add_subplot(), confusion, spec.classes, ink=ink)

    side = 2.6 + 0.42 * len(spec.classes)
    return chart(draw, width=side, height=side, alt="Confusion matrix: share of each true class by predicted class")


def _maps(example: Example) -> list[NDArray[Any]]:
    """Truth, prediction and, where there is one, the baseline."""
    return [example.truth, example.predicted, *([] if example.baseline is None else [example.baseline])]


def _limits(examples: Sequence[Example]) -> tuple[float, float]:
    """Ends of the colour scale that all examples share."""
    return plots.value_limits([values for example in examples for values in _maps(example)])


def _scale_chart(spec: Spec, examples: Sequence[Example]) -> View | None:
    """The colour scale of the example maps; None for classes."""
    if spec.target is None or not examples:
        return None
    low, high = _limits(examples)
    label = _quantity(spec)

    def draw(figure: Figure, ink: str) -> None:
        plots.colour_bar(figure.add_subplot(), low=low, high=high, label=label, ink=ink)

    return chart(draw, width=3.6, height=0.75, alt=f"Colour scale from {low:.3g} to {high:.3g}, {label}")


def _quantity(spec: Spec) -> str:
    """Name of the target with its unit in brackets."""
    target = spec.target
    return "" if target is None else f"{target.name} ({target.unit})" if target.unit else target.name


def _agreement_chart(spec: Spec, examples: Sequence[Example]) -> View | None:
    """True against predicted values of the examples; None for classes."""
    if spec.target is None or not examples:
        return None
    truth = np.concatenate([np.where(e.valid, e.truth, np.nan).ravel() for e in examples])
    predicted = np.concatenate([e.predicted.ravel() for e in examples])
    label = _quantity(spec)

    def draw(figure: Figure, ink: str) -> None:
        plots.agreement(figure.add_subplot(), truth, predicted, label=label, ink=ink)

    return chart(draw, width=4.2, height=4.0, alt="True against predicted values of the example tiles")


def _example(spec: Spec, example: Example, limits: tuple[float, float], baseline: str) -> View:
    """What the page shows of one example."""
    view: View = {"name": example.name, "image": _png(_scene(example)), "labels": [], "maps": [], "caption": ""}
    titles = ("truth", "model", baseline)
    if spec.task == "classification":
        labels = [_label(spec, values) for values in _maps(example)]
        wanted = [labels[0]] if int(example.truth[0, 0]) >= 0 else labels  # without truth nothing is wrong
        marked = [{**label, "title": t, "right": label in wanted} for t, label in zip(titles, labels, strict=False)]
        return {**view, "labels": marked}
    pictures = [_map_image(spec, example, values, limits) for values in _maps(example)]
    maps = [{"title": title, "uri": _png(picture)} for title, picture in zip(titles, pictures, strict=False)]
    return {**view, "maps": maps, "caption": _caption(spec, example)}


def _scene(example: Example) -> NDArray[np.uint8]:
    """The picture of the scene, (h, w, 4), transparent where there is no data."""
    alpha = example.image[..., 3] if example.image.shape[2] == 4 else np.full(example.valid.shape, 255)
    return np.dstack([example.image[..., :3], np.where(example.valid, alpha, 0)]).astype(np.uint8)


def _map_image(spec: Spec, example: Example, values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """A map in the colours of its classes or of the shared scale; nothing is drawn where the scene has no data."""
    if spec.task == "regression":
        return plots.value_image(np.where(example.valid, values, np.nan), low=limits[0], high=limits[1])
    return plots.class_image(np.where(example.valid, values, -1), spec.classes)


def _label(spec: Spec, index: NDArray[Any]) -> View:
    """Name and colour of the class of a whole tile, from its (1, 1) index."""
    place = int(index[0, 0])
    if not -1 <= place < len(spec.classes):
        raise InputError(f"example: class index {place}, wanted -1..{len(spec.classes) - 1}")
    return {"name": "no label", "colour": "#888888"} if place < 0 else _class_view(spec, spec.codes[place])


def _caption(spec: Spec, example: Example) -> str:
    """How well the model does on this tile, in words."""
    if spec.task == "regression":
        sums = value_sums(np.where(example.valid, example.truth, np.nan), example.predicted)
        return f"RMSE {_with_unit(spec, 'rmse', _number('rmse', value_scores(sums)['rmse']))}"
    truth = np.where(example.valid, example.truth, -1)
    confusion = confusion_matrix(truth, example.predicted, classes=len(spec.classes))
    share = class_scores(confusion, spec.classes)["accuracy"]
    return "no labelled pixels" if share is None else f"{share * 100:.0f} % of labelled pixels right"


def render(view: View) -> str:
    """The page as text; every text from outside is escaped."""
    import jinja2

    source = resources.files("pipelines.reports").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(view)


def write_page(path: Path, text: str) -> None:
    """Write beside `path`, then rename over it, so that a reader never sees half a page."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"{path}: the report cannot be written ({error}); give a folder that can be written") from error
