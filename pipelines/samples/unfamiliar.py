"""How unlike scenes and weather are to all that was trained on: what a person should know before the work begins."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.bundle import Bundle, load_familiar
from models.confidence.familiar import Familiar, features_of, features_of_fields, features_of_series, looks_like
from models.spec import WEATHER, valid_of
from models.types import Array, Inputs
from pipelines.scenes.scene import Scene

if TYPE_CHECKING:  # weather costs imports that scenes do without
    from pipelines.samples.fields import FieldSamples

STEP = 4  # pixels along which one is compared, and the others are interpolated
LOOKS, SIDE = 5, 48  # windows along each side of a scene that are looked at, and their pixels
CELLS = 20_000  # of weather that are compared at a time, about; the others are interpolated
UNLIKELY = 3.0  # deviations of the training, from which on a field's median is told of


def enlarged(maps: Array, shape: tuple[int, ...], step: int) -> Array:
    """Every `step`th pixel (B, h, w), the first from the middle of a step, to all (B, *shape), linear between them."""
    for axis, side in enumerate(shape, 1):
        place = np.clip((np.arange(side) - step // 2) / step, 0, maps.shape[axis] - 1)
        low = np.minimum(place.astype(int), max(maps.shape[axis] - 2, 0))
        high = np.minimum(low + 1, maps.shape[axis] - 1)
        part = np.expand_dims((place - low).astype(np.float32), [n for n in range(3) if n != axis])
        before = maps.take(low, axis)
        maps = before + part * (maps.take(high, axis) - before)
    return maps


def unfamiliar_fields(familiar: Familiar, samples: FieldSamples) -> Array:
    """How unlike the training's the weather of each sample is, (N, H, W) on the grid of what is told."""
    step = max(round(math.sqrt(samples.weather.fields[0, 0].size / CELLS)), 1)
    factor = samples.spec.field.factor
    shape, found = tuple(len(axis) for axis in samples.grid), []
    for sample in samples.samples:
        some = samples.weather.fields[sample.at][..., step // 2 :: step, step // 2 :: step]
        found.append(familiar(features_of_fields(some[None])).reshape(some.shape[-2:]))
    return enlarged(np.stack(found), shape, step * factor)


def strange_fields(samples: FieldSamples, unfamiliar: Array, bundle: Bundle) -> list[str]:
    """What a person should know before weather is told of: that it is unlike the training's, and in which field most.

    Args:
        samples: what is asked about.
        unfamiliar: see `unfamiliar_fields`.
        bundle: the run.
    """
    share = float((unfamiliar > 1).mean())
    if share <= limit(bundle):
        return []
    cells, at = bundle.spec.weather, sorted({sample.at for sample in samples.samples})
    medians = np.median([np.median(samples.weather.fields[i], axis=(1, 2)) for i in at], axis=0)
    off = (medians - np.array(cells.mean)) / np.array(cells.std)
    most = int(np.abs(off).argmax())
    told = unlike(share, bundle)
    if abs(off[most]) <= UNLIKELY:
        return [told]
    usual = f"its training had {cells.mean[most]:.4g} with a deviation of {cells.std[most]:.3g}"
    unit = f" {cells.units[most]}" if cells.units[most] else ""
    return [
        f"{told}; {cells.channels[most]} is {medians[most]:.4g}{unit} in the middle, {usual}: is its unit the same?"
    ]


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


def unfamiliar_weather(run: Path, bundle: Bundle, inputs: Inputs) -> Array:
    """How unlike the training's the weather of each of some samples is (N,): above 1 is outside; NaN where none is."""
    known = load_familiar(run, bundle, weather=True)
    if known is None:
        return np.full(len(next(iter(inputs.values()))), np.nan, np.float32)
    features = features_of_series(inputs[WEATHER], inputs[valid_of(WEATHER)], bundle.spec.series[WEATHER])
    there = inputs[valid_of(WEATHER)].any(axis=(1, 2))
    return np.where(there, known(features), np.nan).astype(np.float32)


def strange_weather(bundle: Bundle, inputs: Inputs, unfamiliar: Array) -> str:
    """That the weather of samples is unlike the training's, how far, and which variable most; empty where it is not.

    Args:
        bundle: the run.
        inputs: what was asked about.
        unfamiliar: see `unfamiliar_weather`.
    """
    if not (unfamiliar > 1).any():
        return ""
    at, series = int(np.nanargmax(unfamiliar)), bundle.spec.series[WEATHER]
    some = inputs[WEATHER][at : at + 1], inputs[valid_of(WEATHER)][at : at + 1]
    off = features_of_series(*some, series).reshape(-1, len(series.channels))  # by windows
    window, most = np.unravel_index(int(np.abs(off).argmax()), off.shape)
    steps = series.times if window == len(off) - 1 else 2**window
    unit = f" {series.units[most]}" if series.units[most] else ""
    mean = series.mean[most] + off[window, most] * series.std[most]
    return (
        f"the weather before it is unlike all training weather (up to {unfamiliar[at]:.1f} times as far from it as 95 "
        f"of 100 places left out of the training); {series.channels[most]} has a mean of {mean:.4g}{unit} in the last "
        f"{steps} of {series.times} steps, its training had {series.mean[most]:.4g}: do not rely on what it adds"
    )


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
    weather = bundle.spec.over_weather
    return (
        f"{share:.0%} of it is unlike {'all training weather' if weather else 'all training ground'} (95 of 100 "
        f"{'days' if weather else 'places'} left out of the training had less than {max(limit(bundle), 0.01):.0%}): "
        "do not rely on the map there"
    )
