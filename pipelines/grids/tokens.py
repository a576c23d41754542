"""Patch tokens of a scene on their grid: principal components, and how much tokens resemble each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.warp import transform

from models.errors import InputError
from models.types import Array, Mask


@dataclass(frozen=True)
class Tokens:
    """Features of a scene's patches.

    Attributes:
        values: (E, h, w) float32, NaN where a token saw no valid pixel.
        geobox: the grid of the tokens: one pixel is one patch of the scene.
    """

    values: Array
    geobox: GeoBox

    @property
    def known(self) -> Mask:
        """Which tokens saw a valid pixel, (h, w)."""
        return np.asarray(np.isfinite(self.values).all(axis=0))

    def at(self, lon: float, lat: float) -> tuple[int, int]:
        """Row and column of the token at a place.

        Raises:
            InputError: the grid has no coordinate system, the place lies outside, or no pixel was seen there.
        """
        if self.geobox.crs is None:
            raise InputError("tokens without a coordinate system have no places in degrees; give the scene one")
        place = f"{lon:g} E, {lat:g} N"
        (x,), (y,) = transform("EPSG:4326", self.geobox.crs.to_wkt(), [lon], [lat])
        column, row = (int(np.floor(value)) for value in ~self.geobox.affine * (x, y))
        height, width = self.known.shape
        if not (0 <= row < height and 0 <= column < width):
            middle = self.geobox.affine * (width / 2, height / 2)
            (east,), (north,) = transform(self.geobox.crs.to_wkt(), "EPSG:4326", *([value] for value in middle))
            raise InputError(f"{place}: outside of the scene, whose middle is {east:.4f} E, {north:.4f} N")
        if not self.known[row, column]:
            raise InputError(f"{place}: no valid pixel there (cloud, or no data); choose another place")
        return row, column


def components(tokens: Tokens, count: int = 3) -> tuple[Array, list[float]]:
    """Principal components of the tokens, the one that tells most first.

    The largest loading of each is positive, so that the same tokens have the same components.

    Returns:
        (count, h, w), NaN where a token is not known; and each one's share of the variance.

    Raises:
        InputError: fewer features or known tokens than components.
    """
    known, (axes, shares) = tokens.known, loadings(tokens, count)
    values = np.full((count, *known.shape), np.nan, np.float32)
    values[:, known] = (_rows(tokens) @ axes.T).T
    return values, shares


def loadings(tokens: Tokens, count: int) -> tuple[NDArray[np.float64], list[float]]:
    """The loadings of each principal component, (count, E), and its share of the variance; see `components`."""
    rows = _rows(tokens)
    if not 1 <= count <= min(rows.shape):
        raise InputError(f"{count} components of {rows.shape[0]} tokens of {rows.shape[1]} features: wanted no more")
    _, sizes, axes = np.linalg.svd(rows, full_matrices=False)  # (K,), (K, E)
    axes = axes[:count]
    largest = axes[np.arange(count), np.abs(axes).argmax(axis=1)]
    variance = sizes**2
    shares = variance[:count] / max(float(variance.sum()), np.finfo(float).tiny)
    return axes * np.sign(largest)[:, None], shares.tolist()


def similarity(tokens: Tokens, lon: float, lat: float) -> Array:
    """How much every token resembles the one at a place in degrees: the cosine of the angle between them.

    The mean token is taken off first: what all share would make them all alike.

    Returns:
        (h, w) from -1 to 1, which is at the place itself; NaN where a token is not known.

    Raises:
        InputError: the place is not one of a known token.
    """
    place = tokens.at(lon, lat)
    known, rows = tokens.known, _rows(tokens)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    chosen = known.ravel()[: np.ravel_multi_index(place, known.shape)].sum()  # tokens known before it
    out = np.full(known.shape, np.nan, np.float32)
    out[known] = (unit @ unit[chosen]).clip(-1, 1)
    return out


def _rows(tokens: Tokens) -> NDArray[np.float64]:
    """The known tokens less their mean, (N, E)."""
    rows = tokens.values[:, tokens.known].T.astype(np.float64)
    if not len(rows):
        raise InputError("no token saw a valid pixel; look at the scene with `earthtune inspect`")
    return np.asarray(rows - rows.mean(axis=0))
