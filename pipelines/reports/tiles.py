"""What a report shows of tiles of scenes: pictures, truth and answers, classes, confusion, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.spec import Answer, Classes
from models.types import Mask
from pipelines.reports import plots
from pipelines.reports.measures import Shown, View, number, with_unit
from pipelines.reports.report import plotted, png
from pipelines.reports.scores import class_scores, confusion_matrix, value_scores, value_sums

_CLASSES = ("mean_iou", "accuracy", "balanced_accuracy", "macro_f1", "kappa")
_TILES = ("accuracy", "macro_f1", "balanced_accuracy", "mean_iou", "kappa")
_VALUES = ("rmse", "r2", "mae", "bias", "pearson_r")


def shown_of(answer: Answer) -> Shown:
    """Which scores are shown of an answer."""
    rows = (_TILES if answer.support == "tile" else _CLASSES) if isinstance(answer, Classes) else _VALUES
    bars = rows if isinstance(answer, Classes) else ("rmse", "mae")
    return Shown(rows[:1], rows[:2], rows, bars, answer.unit)


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
    valid: Mask
    baseline: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not lie on one grid."""
        maps, grid = self.maps, self.valid.shape
        fits = self.image.ndim == 3 and self.image.shape[:2] == grid and self.image.shape[2] in (3, 4)
        if not fits or any(m.shape != self.truth.shape for m in maps) or self.truth.shape not in (grid, (1, 1)):
            came = ", ".join(str(array.shape) for array in (self.image, self.valid, *maps))
            raise InputError(f"example {self.name}: image, valid and maps are {came}; wanted (h, w, 3 or 4) and (h, w)")

    @property
    def maps(self) -> list[NDArray[Any]]:
        """Truth, prediction and, where there is one, the baseline."""
        return [self.truth, self.predicted, *([] if self.baseline is None else [self.baseline])]


def tile_parts(
    answer: Answer,
    scores: Mapping[str, Any],
    best: tuple[str, Mapping[str, Any]] | None,
    confusion: NDArray[Any] | None,
    examples: Sequence[Example],
) -> View:
    """What a report shows of a run over scenes.

    Args:
        answer: what the model says.
        scores: what `class_scores` or `value_scores` gave for the model.
        best: name and scores of the best baseline.
        confusion: the model's (K, K) confusion matrix; None for values.
        examples: tiles to show, about six.

    Raises:
        InputError: the confusion matrix or an example does not fit the answer.
    """
    if confusion is not None and confusion.shape != (len(answer.classes),) * 2:
        raise InputError(f"report: confusion matrix {confusion.shape} does not fit {len(answer.classes)} classes")
    limits, (name, beside) = _limits(examples), best or ("baseline", {})
    return {
        "counted": f"{answer.support}s",
        "legend": answer.classes if answer.support == "pixel" else (),
        "per_class": _per_class(answer, scores, beside),
        "confusion": _confusion_chart(answer, confusion),
        "examples": [_example(answer, example, limits, name) for example in examples],
        "scale": _scale_chart(answer, examples),
        "agreement": _agreement_chart(answer, examples),
    }


def _per_class(answer: Answer, scores: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[View]:
    """One row per class with the baseline's IoU beside the model's; empty for regression."""
    beside = {row["code"]: row for row in baseline.get("per_class", ())}
    rows = []
    for row in scores.get("per_class", ()):
        ours, theirs = row["iou"], beside.get(row["code"], {}).get("iou")
        gain = None if ours is None or theirs is None else ours - theirs
        texts = {key: number(key, row[key]) for key in ("iou", "f1", "precision", "recall")}
        rows.append({**texts, "support": row["support"], "code": row["code"], "beside": number("iou", theirs)})
        rows[-1] |= {"gain": number("iou", gain, sign="+"), **_class_view(answer, row["code"])}
    return rows


def _class_view(answer: Answer, code: int) -> View:
    """Name and colour of a class."""
    definition = answer.classes[answer.codes.index(code)]
    return {"name": definition.name, "colour": definition.colour}


def _confusion_chart(answer: Answer, confusion: NDArray[Any] | None) -> View | None:
    """The confusion matrix as a picture, or None where there is none."""
    if confusion is None:
        return None
    side = 2.6 + 0.42 * len(answer.classes)
    plot = partial(plots.confusion_plot, confusion=confusion, classes=answer.classes)
    return plotted(plot, width=side, height=side, alt="Confusion matrix: share of each true class by predicted class")


def _limits(examples: Sequence[Example]) -> tuple[float, float]:
    """Ends of the colour scale that all examples share."""
    return plots.value_limits([values for example in examples for values in example.maps])


def _scale_chart(answer: Answer, examples: Sequence[Example]) -> View | None:
    """The colour scale of the example maps; None for classes."""
    if isinstance(answer, Classes) or not examples:
        return None
    low, high = _limits(examples)
    label = _quantity(answer)
    bar = partial(plots.colour_bar, low=low, high=high, label=label)
    return plotted(bar, width=3.6, height=0.75, alt=f"Colour scale from {low:.3g} to {high:.3g}, {label}")


def _quantity(answer: Answer) -> str:
    """Name of the target with its unit in brackets."""
    return f"{answer.name} ({answer.unit})" if answer.unit else answer.name


def _agreement_chart(answer: Answer, examples: Sequence[Example]) -> View | None:
    """True against predicted values of the examples; None for classes."""
    if isinstance(answer, Classes) or not examples:
        return None
    truth = np.concatenate([np.where(e.valid, e.truth, np.nan).ravel() for e in examples])
    predicted = np.concatenate([e.predicted.ravel() for e in examples])
    plot = partial(plots.agreement, truth=truth, predicted=predicted, label=_quantity(answer))
    return plotted(plot, width=4.2, height=4.0, alt="True against predicted values of the example tiles")


def _example(answer: Answer, example: Example, limits: tuple[float, float], baseline: str) -> View:
    """What the page shows of one example."""
    view: View = {"name": example.name, "image": png(_scene(example)), "labels": [], "maps": [], "caption": ""}
    titles = ("truth", "model", baseline)
    if answer.support == "tile":
        labels = [_label(answer, values) for values in example.maps]
        wanted = [labels[0]] if int(example.truth[0, 0]) >= 0 else labels  # without truth nothing is wrong
        marked = [{**label, "title": t, "right": label in wanted} for t, label in zip(titles, labels, strict=False)]
        return {**view, "labels": marked}
    # Nothing is drawn where the scene has no data.
    if isinstance(answer, Classes):
        shown = [np.where(example.valid, values, -1) for values in example.maps]
        pictures = [plots.class_image(values, answer.classes) for values in shown]
    else:
        shown = [np.where(example.valid, values, np.nan) for values in example.maps]
        pictures = [plots.value_image(values, low=limits[0], high=limits[1]) for values in shown]
    maps = [{"title": title, "uri": png(picture)} for title, picture in zip(titles, pictures, strict=False)]
    return {**view, "maps": maps, "caption": _caption(answer, example)}


def _scene(example: Example) -> NDArray[np.uint8]:
    """The picture of the scene, (h, w, 4), transparent where there is no data."""
    alpha = example.image[..., 3] if example.image.shape[2] == 4 else np.full(example.valid.shape, 255)
    return np.dstack([example.image[..., :3], np.where(example.valid, alpha, 0)]).astype(np.uint8)


def _label(answer: Answer, index: NDArray[Any]) -> View:
    """Name and colour of the class of a whole tile, from its (1, 1) index."""
    place = int(index[0, 0])
    if not -1 <= place < len(answer.classes):
        raise InputError(f"example: class index {place}, wanted -1..{len(answer.classes) - 1}")
    return {"name": "no label", "colour": "#888888"} if place < 0 else _class_view(answer, answer.codes[place])


def _caption(answer: Answer, example: Example) -> str:
    """How well the model does on this tile, in words."""
    if not isinstance(answer, Classes):
        sums = value_sums(np.where(example.valid, example.truth, np.nan), example.predicted)
        return f"RMSE {with_unit('rmse', number('rmse', value_scores(sums)['rmse']), answer.unit)}"
    truth = np.where(example.valid, example.truth, -1)
    confusion = confusion_matrix(truth, example.predicted, classes=len(answer.classes))
    share = class_scores(confusion, answer.classes)["accuracy"]
    return "no labelled pixels" if share is None else f"{share * 100:.0f} % of labelled pixels right"
