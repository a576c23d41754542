"""Areas and accuracies with intervals, from a labelled sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models import files
from models.errors import InputError
from models.runtime.hashes import sha256
from pipelines.surveys.estimates import FEW, Estimate, Sample, accuracy, class_areas, post_strata, powered_areas
from pipelines.surveys.picture import draw_areas
from pipelines.surveys.sheet import Design, Labelled, read_sheet

Estimator = Literal["auto", "counted", "powered"]
Missing = Literal["refuse", "leave_out"]
ROW = ("region", "code", "class", "points", "mapped_hectares", "hectares", "se", "low", "high")
RATES = ("users", "users_se", "producers", "producers_se")
_RARE = 5  # points; of a class labelled less often the normal interval is too short


def areas(
    sample: Path,
    *,
    estimator: Estimator = "auto",
    unlabelled: Missing = "refuse",
    out: Path | None = None,
    figure: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Estimate hectares of each class with 95 % intervals, and the map's accuracy, from a labelled sample.

    Labels count, the map only makes them count for more: by map class (Olofsson et al. 2014; of a random sample
    afterwards), by other strata (Stehman 2014), or by the map's probabilities (prediction-powered, PPI++). Accuracies
    are by class or stratum always. Intervals are of the sampling alone: they know nothing of wrong labels.

    Args:
        sample: the GeoPackage that sample wrote, with labels.
        estimator: of areas; counted by labels and strata, powered by probabilities too, auto powered where there are.
        unlabelled: refuse points without label, or leave_out what then counts as missing by chance.
        out: CSV to write, a row a class, and for strata of a file a row a class and stratum.
        figure: PNG to write, hectares as bars with their intervals.
        overwrite: replace files that exist.
        say: takes a line for the person who waits.

    Returns:
        sample, estimator, points, unlabelled, hectares, overall (accuracy, se, low, high), classes (code, class,
        points, mapped_hectares, hectares, se, low, high, users, users_se, producers, producers_se, weight), regions
        (of strata that a file gave: region, code, class, points, hectares, se, low, high), and warnings. A number that
        the sample does not tell is None.

    Raises:
        InputError: what is no probability sample, points that were moved or added, labels that are no class, a map
            that changed since, points without label, a stratum without labels, or powered without probabilities.
        RunError: the disk does not take the files.
    """
    for path, suffix in ((out, ".csv"), (figure, ".png")):
        if path:
            files.check_target(path, suffix, overwrite=overwrite)
    sheet = read_sheet(sample)
    _check_maps(sample, sheet.design, say)
    known = _known(sample, sheet, unlabelled)
    powered = _powered(sample, sheet.design, estimator)
    result: dict[str, Any] = _estimated(known, powered=powered)
    missing = len(sheet.points) - len(known.truth)
    if missing:
        told = f"{missing} of {len(sheet.points)} points have no label and were left out, as if missing by chance; "
        result["warnings"].insert(0, f"{told}if what is hard to see is of some class more often, its area is wrong")
    about = {"sample": str(sample), "estimator": known.method(powered), "points": len(known.truth)}
    if out:
        _write_table(out, result)
    if figure:
        draw_areas(figure, result["classes"], known.design.classes)
    return about | {"unlabelled": missing} | result


@dataclass(frozen=True)
class _Known:
    """A design and its labelled points: stratum, area, labelled class and mapped class of each (n,), chances (n, C)."""

    design: Design
    stratum: NDArray[np.int64]
    weight: NDArray[np.float64]
    truth: NDArray[np.int64]
    mapped: NDArray[np.int64]
    chances: NDArray[np.float64]

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels by stratum and class (H, C)."""
        return np.array(self.design.pixels, np.int64)

    @property
    def hectares(self) -> NDArray[np.float64]:
        """Their area (H, C)."""
        return np.array(self.design.hectares, np.float64)

    @property
    def strata(self) -> Sample:
        """The points by the strata that they were drawn from; those without pixels are left out."""
        held = np.flatnonzero(self.pixels.sum(axis=1))
        number = np.searchsorted(held, self.stratum)
        return Sample(number, self.weight, self.pixels.sum(axis=1)[held], self.hectares.sum(axis=1)[held])

    @property
    def counted(self) -> Sample:
        """The points by strata; those of a random sample by the classes of the map."""
        if self.design.kind != "random":
            return self.strata
        return post_strata(self.mapped, self.pixels.sum(axis=0), self.hectares.sum(axis=0), self.weight)

    def method(self, powered: bool) -> str:
        """The estimator of areas by its name."""
        kinds = {"random": "post-stratified by map class (Olofsson et al. 2014)", "classes": "Olofsson et al. 2014"}
        counted = kinds.get(self.design.kind, "Stehman 2014")
        return "prediction-powered (PPI++, Angelopoulos et al. 2023)" if powered else counted


def _check_maps(path: Path, design: Design, say: Callable[[str], None]) -> None:
    """Refuse maps that are others than when the sample was drawn; tell of those that are not there."""
    for name, digest in design.maps:
        found = next((file for file in (Path(name), path.parent / Path(name).name) if file.is_file()), None)
        if found is None:
            say(f"{Path(name).name}: is not there any more, so nobody can tell whether it changed since the sample")
        elif sha256(found) != digest:
            raise InputError(
                f"{found}: changed since {path.name} was drawn, which knows the old map's classes and areas; bring "
                "that map back, or move the new one away to estimate for the old"
            )


def _powered(path: Path, design: Design, estimator: Estimator) -> bool:
    """Whether areas are prediction-powered."""
    if estimator == "powered" and not design.chances:
        raise InputError(
            f"{path}: has no probabilities; score with --probabilities before the sample is drawn, or take counted"
        )
    return bool(design.chances) and estimator != "counted"


def _known(path: Path, sheet: Labelled, unlabelled: Missing) -> _Known:
    """The points that have a label.

    Raises:
        InputError: some have none and are not to be left out, or a stratum has no point with one.
    """
    design = sheet.design
    missing = sum(label is None for label in sheet.labels)
    if missing == len(sheet.labels):
        raise InputError(f"{path}: no point has a label; open it in QGIS and label the layer points")
    if missing and unlabelled == "refuse":
        raise InputError(
            f"{path}: {missing} of {len(sheet.labels)} points have no label; label them, or say "
            "--unlabelled leave_out, which is right only where they are missing by chance"
        )
    pairs = [(p, label) for p, label in zip(sheet.points, sheet.labels, strict=True) if label is not None]
    index = {entry.code: i for i, entry in enumerate(design.classes)}
    points = np.bincount([point.stratum for point, _ in pairs], minlength=len(design.names))
    empty = [row["stratum"] for row in design.told() if not points[design.names.index(row["stratum"])]]
    if empty:
        raise InputError(f"{path}: no point of stratum {empty[0]} has a label, so nothing tells of it; label some")
    return _Known(
        design,
        np.array([point.stratum for point, _ in pairs]),
        np.array([point.hectares for point, _ in pairs]),
        np.array([index[label] for _, label in pairs]),
        np.array([index[point.code] for point, _ in pairs]),
        np.array([point.chances for point, _ in pairs]),
    )


def _estimated(known: _Known, *, powered: bool) -> dict[str, Any]:
    """Areas, accuracies and what to beware of."""
    classes, strata, counted = known.design.classes, known.strata, known.counted
    whole = float(known.hectares.sum())
    weight: NDArray[np.float64] | None = None
    area = class_areas(counted, known.truth, len(classes))
    if powered:
        held = known.pixels.sum(axis=1) > 0
        area, weight = powered_areas(strata, known.truth, known.chances, np.array(known.design.chances)[held])
    right = accuracy(counted, known.truth, known.mapped, len(classes))
    rows = _rows(area, known, whole, known.hectares.sum(axis=0))
    for i, row in enumerate(rows):
        values = (right.users.value[i], right.users.se[i], right.producers.value[i], right.producers.se[i])
        row |= dict(zip(RATES, map(_plain, values), strict=True))
        if weight is not None:
            row["weight"] = _plain(weight[i])
    low, high = right.overall.interval(1.0)
    overall = (right.overall.value[0], right.overall.se[0], low[0], high[0])
    return {
        "hectares": whole,
        "overall": dict(zip(("accuracy", "se", "low", "high"), map(_plain, overall), strict=True)),
        "classes": rows,
        "regions": _regions(known) if known.design.kind not in ("random", "classes") else [],
        "warnings": [*_thin(known), *_rare(rows)],
    }


def _regions(known: _Known) -> list[dict[str, Any]]:
    """Areas of each class within each stratum, by labels."""
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(known.design.names):
        here = known.stratum == number
        if here.any():
            part = replace(
                known,
                stratum=known.stratum[here] * 0,
                weight=known.weight[here],
                truth=known.truth[here],
                mapped=known.mapped[here],
            )
            pixels, area = known.pixels[number], known.hectares[number]
            sample = Sample(part.stratum, part.weight, pixels.sum(keepdims=True), area.sum(keepdims=True))
            found = class_areas(sample, part.truth, len(area))
            rows += [{"region": name} | row for row in _rows(found, part, float(area.sum()), area)]
    return rows


def _rows(area: Estimate, known: _Known, whole: float, mapped: NDArray[np.float64]) -> list[dict[str, Any]]:
    """A row a class."""
    low, high = area.interval(whole)
    points = np.bincount(known.truth, minlength=len(mapped))
    return [
        {
            "code": entry.code,
            "class": entry.name,
            "points": int(points[i]),
            "mapped_hectares": float(mapped[i]),
            "hectares": max(float(area.value[i]), 0.0),
            "se": _plain(area.se[i]),
            "low": _plain(low[i]),
            "high": _plain(high[i]),
        }
        for i, entry in enumerate(known.design.classes)
    ]


def _thin(known: _Known) -> list[str]:
    """Strata whose points tell no variance."""
    told = []
    for number, name in enumerate(known.design.names):
        labels = known.truth[known.stratum == number]
        pixels = int(known.pixels[number].sum())
        if 0 < len(labels) < min(FEW, pixels):
            told.append(f"stratum {name} has {len(labels)} labelled point: its variance is taken from the whole sample")
        elif FEW <= len(labels) < pixels and len(set(labels.tolist())) == 1:
            only = known.design.classes[int(labels[0])].name
            told.append(
                f"stratum {name}: all {len(labels)} points are {only}, which adds nothing to the intervals; up to "
                f"{min(3 / len(labels), 1):.0%} of it may still be something else"
            )
    return told


def _rare(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Classes that too few points are labelled as."""
    none = [row["class"] for row in rows if row["se"] == 0]
    few = [row["class"] for row in rows if row["points"] < _RARE and row["se"]]
    told = (
        [f"no interval for {', '.join(none)}: the sample shows no variance of it, not that there is none"]
        if none
        else []
    )
    if few:
        told.append(f"fewer than {_RARE} points are {', '.join(few)}: such an interval is a rough one, and too short")
    return told


def _plain(value: Any) -> float | None:
    """A number, None where there is none."""
    return float(value) if np.isfinite(value) else None


def _write_table(path: Path, result: dict[str, Any]) -> None:
    """Write rows of classes, region `all`, then those of regions."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*ROW, *RATES), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in [*({"region": "all"} | row for row in result["classes"]), *result["regions"]]:
        writer.writerow({key: f"{value:.10g}" if isinstance(value, float) else value for key, value in row.items()})
    with files.draft(path) as file:
        file.write_text(text.getvalue(), encoding="utf-8")
