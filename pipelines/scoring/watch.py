"""How unlike a scene is to all training ground, tile by tile beside the model's answers, and before the work begins."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.bundle import Bundle, load_familiar
from models.confidence.familiar import Familiar, features_of, looks_like
from models.errors import InputError
from models.runtime.engines import Runtime
from models.spec import IMAGERY, Spec
from models.types import Array, Inputs
from pipelines.outputs.parts import open_raster
from pipelines.scenes.scene import Scene

STEP = 4  # pixels along which one is compared, and the others are interpolated
LOOKS, SIDE = 5, 48  # windows along each side of a scene that are looked at before the work, and their pixels
LARGEST = 1000  # pixels along a side of a map when its share outside is counted


def watching(runtime: Runtime, spec: Spec, familiars: Sequence[Familiar]) -> Runtime:
    """A runtime that gives a channel more for each of `familiars`, after the answers: (B, 1, H, W), or (B, 1)."""
    if not familiars:
        return runtime

    def run(inputs: Inputs) -> list[Array]:
        some = inputs[IMAGERY][..., STEP // 2 :: STEP, STEP // 2 :: STEP]
        features, shape = features_of(some, spec.imagery.channels), some.shape[-2:]
        side = inputs[IMAGERY].shape[-1]
        maps = [np.stack([familiar(rows).reshape(shape) for rows in features]) for familiar in familiars]
        if spec.answer.support == "tile":
            return [*runtime.run(inputs), *(np.median(found, axis=(1, 2))[:, None] for found in maps)]
        return [*runtime.run(inputs), *(_enlarged(found, side)[:, None] for found in maps)]

    return dataclasses.replace(runtime, run=run)


def _enlarged(maps: Array, side: int) -> Array:
    """Every `STEP`th pixel (B, h, w) to all (B, side, side), linear between them."""
    place = np.clip((np.arange(side) - STEP // 2) / STEP, 0, maps.shape[-1] - 1)
    low = np.minimum(place.astype(int), max(maps.shape[-1] - 2, 0))
    high = np.minimum(low + 1, maps.shape[-1] - 1)
    part = (place - low).astype(np.float32)
    rows = maps[:, low] + part[:, None] * (maps[:, high] - maps[:, low])
    whole: Array = rows[:, :, low] + part * (rows[:, :, high] - rows[:, :, low])
    return whole


def strange(scene: Scene, run: Path, bundle: Bundle) -> list[str]:
    """What a person should know before the work, by a sample of pixels: that a scene is unlike all training ground.

    A second at most for a local file; nothing for a run that keeps no training pixels.
    """
    familiar = load_familiar(run, bundle)
    if familiar is None:
        return []
    found = _sample(scene)
    if not found.size:
        return []
    channels = bundle.spec.imagery.channels
    share = float(np.mean(familiar(features_of(found[None], channels)[0]) > 1))
    if share <= limit(bundle):
        return []
    cause = looks_like(familiar, found, channels)
    told = unlike(share, bundle)
    return [f"{told}; {cause}: --bands, --scale and --offset say it" if cause else told]


def _sample(scene: Scene) -> Array:
    """Valid pixels of windows over the whole scene, (C, T, N, 1)."""
    starts = [np.unique(np.linspace(0, max(size - SIDE, 0), LOOKS).astype(int)) for size in scene.shape]
    parts = []
    for row, column in itertools.product(*starts):
        x, valid = scene.read(
            (slice(row, min(row + SIDE, scene.shape[0])), slice(column, min(column + SIDE, scene.shape[1])))
        )
        parts.append(x[:, :, ::STEP, ::STEP][:, :, valid[::STEP, ::STEP]])
    return np.concatenate(parts, axis=2)[..., None]


def limit(bundle: Bundle) -> float:
    """The share of a scene outside that 95 of 100 left-out groups of the training stay below."""
    return float(bundle.confidence.get("unfamiliar", {}).get("limit", 1.0))


def unlike(share: float, bundle: Bundle) -> str:
    """That a share of a scene is unlike all training ground, in words."""
    return (
        f"{share:.0%} of it is unlike all training ground (95 of 100 places left out of the training had less than "
        f"{max(limit(bundle), 0.01):.0%}): do not rely on the map there"
    )


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
        InputError: it has no sets, or kept no training pixels; says why.
    """
    if "sets" in kinds and not bundle.confidence.get("sets"):
        why = bundle.confidence.get("said") or "this run learned none"
        raise InputError(f"{run}: --sets: it has no sets of classes ({why} See its report); --confidence is there")
    if "unfamiliar" in kinds and not bundle.familiar:
        raise InputError(f"{run}: --unfamiliar: it kept no training pixels; train it again with this version")
