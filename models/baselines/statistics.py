"""What bands say of a pixel's surroundings and of a whole scene, as numbers that trees and regressions learn from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from models.networks.indices import INDICES, PERCENTILES, SIDES, TEXTURES
from models.spec import IMAGERY
from models.types import Array, Inputs, Mask

YEAR = 365.25  # days


def own(inputs: Inputs, _: Sequence[str]) -> Array:
    """Each pixel's bands of all frames, and the day of year where it is known: (B, F, H, W) of `imagery` and `time`."""
    x = inputs[IMAGERY]
    b, c, t, h, w = x.shape
    return np.concatenate((x.reshape(b, c * t, h, w), _dated(inputs, (h, w))), axis=1)


def neighbourhoods(inputs: Inputs, channels: Sequence[str]) -> Array:
    """Bands and indices of each pixel, and their mean and spread over neighbourhoods and over the tile: (B, F, H, W).

    Args:
        inputs: `imagery` (B, C, T, H, W) in reflectance x10000, and `time` (B, T, 2) where it is known.
        channels: the names of the bands.
    """
    values = with_indices(inputs[IMAGERY], channels)  # (B, F, H, W)
    mean, spread = (np.broadcast_to(a, values.shape) for a in _moments(values))
    near = [moment for side in SIDES for moment in _near(values, side)]
    maps = (values, *near, mean, spread, _dated(inputs, values.shape[2:]))
    return np.concatenate(maps, axis=1).astype(np.float32)


def surroundings(x: Array, valid: Mask, channels: Sequence[str], sides: Sequence[int] = SIDES[:3]) -> Array:
    """Bands and indices of each pixel, and their mean and spread over the valid pixels around it: (F, H, W).

    What lies beyond the array, or is not valid, counts for nothing; so a pixel is told the same whatever window it is
    read in that reaches half of the largest side around it.

    Args:
        x: (C, T, H, W) in reflectance x10000.
        valid: (H, W).
        channels: the names of the bands.
        sides: pixels along the neighbourhoods.
    """
    from scipy.ndimage import uniform_filter

    values = with_indices(np.where(valid, x, 0)[None], channels)[0] * valid  # (F, H, W)
    maps = [values]
    for side in sides:
        near = partial(uniform_filter, size=(1, side, side), mode="constant")
        share = np.maximum(near(valid[None].astype(np.float64)), 0.5 / side**2)
        mean = near(values) / share
        maps += [mean, np.sqrt((near(values**2) / share - mean**2).clip(min=0))]
    return np.concatenate(maps).astype(np.float32)


def summary(inputs: Inputs, _: Sequence[str]) -> Array:
    """Mean and standard deviation of each band and frame over the tile, and the day of year: (B, F)."""
    x = inputs[IMAGERY]
    parts = (x.mean((3, 4)).reshape(len(x), -1), x.std((3, 4)).reshape(len(x), -1), _dated(inputs, (1, 1))[..., 0, 0])
    return np.concatenate(parts, axis=1)


def scenes(inputs: Inputs, channels: Sequence[str]) -> Array:
    """Mean, spread and percentiles of bands and indices over the tile, and their spread at several scales: (B, F)."""
    values = with_indices(inputs[IMAGERY], channels)
    parts = [*_moments(values), *np.percentile(values, PERCENTILES, axis=(2, 3), keepdims=True)]
    for side in TEXTURES:
        parts += _moments(_near(values, side)[1])
    parts.append(_dated(inputs, (1, 1)))
    return np.concatenate(parts, axis=1)[:, :, 0, 0].astype(np.float32)


def with_indices(x: Array, channels: Sequence[str]) -> Array:
    """Bands as reflectance and the indices of each frame, (B, F, H, W) float64: squares of float32 lose the spread."""
    b, c, t, h, w = x.shape
    bands = x.astype(np.float64) / 1e4
    pairs = [tuple(map(channels.index, pair)) for pair in INDICES.values() if set(pair) <= set(channels)]
    dark = bands.clip(min=0)
    # The constant keeps the index of two dark bands from being noise.
    found = [(dark[:, i] - dark[:, j]) / (dark[:, i] + dark[:, j] + 0.02) for i, j in pairs]
    return np.concatenate((bands.reshape(b, c * t, h, w), *found), axis=1)


def _moments(values: Array) -> tuple[Array, Array]:
    """Mean and standard deviation over each map, (B, F, 1, 1)."""
    return values.mean((2, 3), keepdims=True), values.std((2, 3), keepdims=True)


def _near(values: Array, side: int) -> tuple[Array, Array]:
    """Mean and standard deviation over side x side pixels, the tile mirrored beyond its edge."""
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(values, (1, 1, side, side))
    return mean, np.sqrt((uniform_filter(values**2, (1, 1, side, side)) - mean**2).clip(min=0))


def _dated(inputs: Inputs, shape: tuple[int, ...]) -> Array:
    """Sine and cosine of the day of year of each frame, (B, 2 * T, H, W); nothing where dates are not known."""
    if "time" not in inputs:
        return np.zeros((len(inputs[IMAGERY]), 0, *shape), np.float32)
    angle = inputs["time"][:, :, 1] * (2 * np.pi / YEAR)  # (B, T)
    turned = np.concatenate((np.sin(angle), np.cos(angle)), axis=1).astype(np.float32)
    return np.broadcast_to(turned[:, :, None, None], (*turned.shape, *shape))
