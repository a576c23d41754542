"""Maps of how far to trust a map: whether a run can draw them, and what is unfamiliar beside its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.bundle import Bundle
from models.confidence.familiar import Familiar, features_of
from models.confidence.intervals import interval_of
from models.errors import InputError
from models.runtime.engines import Runtime
from models.spec import IMAGERY, Spec
from models.types import Array, Inputs
from pipelines.outputs.parts import open_raster
from pipelines.samples.unfamiliar import STEP, enlarged
from pipelines.scoring.rows import ENDS

LARGEST = 1000  # pixels along a side of a map when its share outside is counted


def watching(runtime: Runtime, spec: Spec, familiars: Sequence[Familiar]) -> Runtime:
    """A runtime that gives a channel more for each of `familiars`, after the answers: (B, 1, H, W), or (B, 1)."""
    if not familiars:
        return runtime

    def run(inputs: Inputs) -> list[Array]:
        some = inputs[IMAGERY][..., STEP // 2 :: STEP, STEP // 2 :: STEP]
        features, shape = features_of(some, spec.imagery.channels), some.shape[-2:]
        sides = inputs[IMAGERY].shape[-2:]
        maps = [np.stack([familiar(rows).reshape(shape) for rows in features]) for familiar in familiars]
        if spec.answer.support == "tile":
            return [*runtime.run(inputs), *(np.median(found, axis=(1, 2))[:, None] for found in maps)]
        return [*runtime.run(inputs), *(enlarged(found, sides, STEP)[:, None] for found in maps)]

    return dataclasses.replace(runtime, run=run)


def share_outside(path: Path) -> float:
    """The share of the valid pixels of a map of what is unfamiliar that is outside; 0 where none is valid."""
    with open_raster(path) as dataset:
        scale = min(LARGEST / max(dataset.shape), 1)
        values = dataset.read(1, out_shape=tuple(max(round(side * scale), 1) for side in dataset.shape))
    known = np.isfinite(values)
    return float((values[known] > 1).mean()) if known.any() else 0.0


def check_confidence(run: Path, bundle: Bundle, kinds: Sequence[str]) -> None:
    """Refuse maps of confidence that a run cannot draw.

    Raises:
        InputError: it has no sets or intervals, or kept no training pixels; says why.
    """
    classes = bool(bundle.spec.answer.classes)
    why = bundle.confidence.get("said") or "this run learned none"
    if ENDS[0] in kinds and classes:
        raise InputError(f"{run}: --interval: for a run of values, and this one tells classes; --sets is theirs")
    if ENDS[0] in kinds and interval_of(bundle.confidence) is None:
        raise InputError(f"{run}: --interval: it has none ({why} See its report); more places, or --folds, make some")
    if "sets" in kinds and classes and not bundle.confidence.get("sets"):
        raise InputError(f"{run}: --sets: it has no sets of classes ({why} See its report); --confidence is there")
    if "unfamiliar" in kinds and not bundle.familiar:
        raise InputError(f"{run}: --unfamiliar: it kept no training pixels; train it again with this version")
