"""Samples of weather as they might come on another day, or in the other hemisphere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rain_spec import Augmentation

EASTWARD = r"u(\d+m?|lml|_.+)?|taux|taugwx"
NORTHWARD = r"v(\d+m?|lml|_.+)?|tauy|taugwy"

Item = dict[str, Any]


def signs(channels: Sequence[str], pattern: str) -> NDArray[np.float32]:
    """-1 for the channels that are components along an axis, 1 for the rest: (C, 1, 1)."""
    found = [bool(re.fullmatch(pattern, name.lower())) for name in channels]
    return np.where(found, -1.0, 1.0).astype(np.float32)[:, None, None]


def varied(
    item: Item, channels: Sequence[str], std: Sequence[float], augmentation: Augmentation, rng: np.random.Generator
) -> Item:
    """A sample as it might have come on another day, or in the other hemisphere.

    Args:
        item: x (T, C, H, W), static (6, H, W) with latitude and longitude in radians first, y (H, W).
        channels: names of the channels.
        std: their standard deviations.
        augmentation: what to vary.
        rng: the draw.
    """
    x, static, y = item["x"], item["static"].copy(), item["y"]
    if augmentation.turns and rng.integers(2):  # by 180 degrees
        x = x[..., ::-1, ::-1] * signs(channels, EASTWARD) * signs(channels, NORTHWARD)
        y = y[::-1, ::-1]
    if augmentation.turns and rng.integers(2):  # to the other hemisphere
        x, y = x[..., ::-1, :] * signs(channels, NORTHWARD), y[::-1]
        static[0] = -static[0, ::-1]
    shape = (len(channels), 1, 1)
    if augmentation.gain:
        middle = x.mean(axis=(0, 2, 3)).reshape(shape)
        x = middle + (x - middle) * np.exp(augmentation.gain * rng.normal(size=shape))
    if augmentation.offset:
        x = x + augmentation.offset * rng.normal(size=shape) * np.reshape(std, shape)
    static[:2] += np.radians(augmentation.shift) * rng.uniform(-1, 1, (2, 1, 1))
    arrays = {"x": x, "static": static, "y": y}
    return item | {key: np.ascontiguousarray(a, dtype=np.float32) for key, a in arrays.items()}
