"""Samples of weather as they might come on another day, or in the other hemisphere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import WEATHER
from models.training.settings import Augmentation

EASTWARD = r"u(\d+m?|lml|_.+)?|taux|taugwx"
PLACED = 6  # static maps of place and time, before the fields
NORTHWARD = r"v(\d+m?|lml|_.+)?|tauy|taugwy"

Item = dict[str, Any]


def signs(channels: Sequence[str], pattern: str) -> NDArray[np.float32]:
    """-1 for the channels that are components along an axis, 1 for the rest: (C, 1, 1)."""
    found = [bool(re.fullmatch(pattern, name.lower())) for name in channels]
    return np.where(found, -1.0, 1.0).astype(np.float32)[:, None, None]


def varied(
    item: Item,
    names: Mapping[str, Sequence[str]],
    std: Sequence[float],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Item:
    """A sample as it might have come on another day, or in the other hemisphere.

    Args:
        item: weather (T, C, H, W), static (6 + S, H, W) with latitude and longitude in radians first and fields from
            the seventh on, other maps (..., H, W).
        names: for the fields and each of the other maps what its last dimension but two holds, one name for maps
            without it.
        std: standard deviations of the fields.
        augmentation: what to vary.
        rng: the draw.
    """
    arrays = {key: item[key] for key in names} | {"static": item["static"].copy()}
    if augmentation.turns and rng.integers(2):  # by 180 degrees
        for key, held in names.items():
            arrays[key] = _turned(arrays[key][..., ::-1, ::-1], signs(held, EASTWARD) * signs(held, NORTHWARD))
        arrays["static"][PLACED:] = arrays["static"][PLACED:, ::-1, ::-1].copy()
    if augmentation.turns and rng.integers(2):  # to the other hemisphere
        for key, held in names.items():
            arrays[key] = _turned(arrays[key][..., ::-1, :], signs(held, NORTHWARD))
        arrays["static"][0] = -arrays["static"][0, ::-1]
        arrays["static"][PLACED:] = arrays["static"][PLACED:, ::-1].copy()
    x, shape = arrays[WEATHER], (len(names[WEATHER]), 1, 1)
    if augmentation.gain:
        middle = x.mean(axis=(0, 2, 3)).reshape(shape)
        x = middle + (x - middle) * np.exp(augmentation.gain * rng.normal(size=shape))
    if augmentation.offset:
        x = x + augmentation.offset * rng.normal(size=shape) * np.reshape(std, shape)
    arrays["static"][:2] += np.radians(augmentation.shift) * rng.uniform(-1, 1, (2, 1, 1))
    return item | {key: np.ascontiguousarray(a, dtype=np.float32) for key, a in (arrays | {WEATHER: x}).items()}


def _turned(values: NDArray[Any], sign: NDArray[np.float32]) -> NDArray[Any]:
    """Maps times the signs of what they hold."""
    return values * (sign if values.ndim > 2 else sign[0])
