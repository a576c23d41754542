"""Whether the values of a scene can be the reflectance that they are taken for, and what they look like otherwise.

A model does not tell: raw counts make it surer, not less sure. What no surface reflects is refused, what few surfaces
reflect is told. Snow and thick cloud reflect up to about 1.2 in the visible, but little beyond 2 micrometres (snow
under 0.2, cloud under 0.5); no scene reflects more than 0.6 there in every pixel. Dark water and shadows lie near 0,
and a correction of the atmosphere that goes too far leaves a few hundredths below it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.spec import REFLECTANCE
from pipelines.grids.windows import Window, cells
from pipelines.scenes.bands import AS_STORED, Layer
from pipelines.scenes.layers import dtype_of
from pipelines.scenes.scene import Scene
from pipelines.scenes.sensors import BANDS

_SIDE = 128  # of each of the windows that are looked at
_LEAST = 64  # pixels that say what is unlikely
_VOID = -0.5  # corrections of the atmosphere go a few hundredths below 0
# What counts may be, as reflectance = raw * scale + offset. Sources: see `sensors`; Landsat 8-9 Data Users Handbook for
# top-of-atmosphere reflectance (of a sun in the zenith).
_UNITS = {
    "reflectance x10000": (0.0001, 0.0),
    "Sentinel-2 counts of processing baseline 04.00 and later": (0.0001, -0.1),
    "Landsat Collection 2 Level-2 counts": (0.0000275, -0.2),
    "Landsat Level-1 counts": (0.00002, -0.1),
    "reflectance of 0 to 1": (1.0, 0.0),
    "reflectance in percent": (0.01, 0.0),
}


@dataclass(frozen=True)
class Doubt:
    """What is wrong with the values of a scene as reflectance.

    Attributes:
        told: what they are, and what they look like; empty where nothing is wrong.
        impossible: whether no ground can be like that.
        pixels: how many were looked at.
    """

    told: str = ""
    impossible: bool = False
    pixels: int = 0


def doubt(scene: Scene) -> Doubt:
    """Look at five parts of a scene that hold data, from its middle outwards, in all bands that hold reflectance.

    Dates are judged one by one; the worst is told.
    """
    chosen = [i for i, band in enumerate(scene.bands) if band in BANDS and band not in AS_STORED]
    if not chosen:
        return Doubt()
    read = (x[chosen][..., valid] for x, valid in map(scene.read, windows_of(scene.shape)))
    parts = [*itertools.islice((x for x in read if x.shape[-1]), 5)]
    if not parts:
        return Doubt()
    x = np.concatenate(parts, axis=-1) / np.float32(1e4)  # (bands, dates, pixels)
    infrared = "SWIR_2" in (scene.bands[i] for i in chosen)
    dates = (([f.layers[i] for i in chosen], x[:, t]) for t, f in enumerate(scene.stack) if not f.absent)
    found = [_doubt_of(date, layers, infrared=infrared) for layers, date in dates]
    worst = max(found, key=lambda one: (one.impossible, bool(one.told)))
    where = f"{scene.seen[found.index(worst)].name}: " if worst.told and scene.frames > 1 else ""
    return Doubt(f"{where}{worst.told}", worst.impossible, x.shape[-1])


def _doubt_of(x: NDArray[Any], layers: Sequence[Layer], *, infrared: bool) -> Doubt:
    """Judge one date; x is reflectance (bands, pixels), with a band beyond 2 micrometres among them or not."""
    kinds = {dtype_of(layer) for layer in layers}
    floating = any(kind.startswith("float") for kind in kinds)
    impossible = _impossible(x, floating=floating, infrared=infrared)
    if not impossible and kinds == {"uint8"} and not any(layer.told for layer in layers):
        impossible = "8-bit counts: a picture, or a product whose scale nothing tells"
    found = impossible or (_unlikely(x, infrared=infrared) if x.shape[1] >= _LEAST else "")
    return Doubt(found and f"{found}{_looks(x, layers)}", bool(impossible))


def unit_notes(scene: Scene, *, as_is: bool = False) -> list[str]:
    """A warning where the values of a scene are unlikely as reflectance.

    Raises:
        InputError: no ground can be like that, and nobody insists.
    """
    found = Doubt() if as_is else doubt(scene)
    if found.impossible:
        raise InputError(
            f"{scene.sources[0]}: its values are no {REFLECTANCE}: {found.told}; give --scale and --offset "
            "(reflectance = raw * scale + offset), or --as_is to take them as they are"
        )
    return [f"WARNING: {found.told}: is it {REFLECTANCE}?"] if found.told else []


def windows_of(shape: Sequence[int]) -> list[Window]:
    """Windows over a scene, the middle and the middles of the four quarters first; the whole of a small scene."""
    height, width = shape
    if max(shape) <= 2 * _SIDE:
        return [(slice(0, height), slice(0, width))]
    eighths = [(i / 8, j / 8) for i in range(1, 8) for j in range(1, 8)]
    first = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]

    def side(size: int, middle: float) -> slice:
        start = max(round(size * middle) - _SIDE // 2, 0)
        return slice(start, min(start + _SIDE, size))

    spread = [(side(height, down), side(width, right)) for down, right in dict.fromkeys((*first, *eighths))]
    return [*spread, *cells(height, width, 1024)]  # where those hold no data, all of it


def _impossible(x: NDArray[Any], *, floating: bool, infrared: bool) -> str:
    """What no ground is like, or an empty text; x is reflectance (bands, pixels)."""
    low, middle, high = np.percentile(x, (1, 50, 98), axis=1)
    if middle.max() > 1.6:
        return f"half of the pixels of a band reflect {middle.max():.3g} times the light that reaches them, or more"
    if np.median(high) > 2:
        return f"bright pixels reflect {np.median(high):.3g} times the light that reaches them"
    if middle.min() < -0.03:
        return f"half of the pixels of a band lie below {middle.min():.2g}, and nothing reflects less than nothing"
    void = (x < _VOID).any(axis=0)
    if void.mean() > 0.01:
        return (
            f"{void.mean():.1%} of the pixels lie below {_VOID:g}, down to {x.min():.3g}, and nothing reflects less "
            "than nothing; if they are no data, --nodata says so"
        )
    if floating and np.abs(high).max() <= 0.0002:
        return f"no pixel reflects more than {np.abs(high).max():.2g}"
    if infrared and low.min() > 0.6:
        return f"every pixel reflects more than {low.min():.2g} in every band, also beyond 2 micrometres"
    return ""


def _unlikely(x: NDArray[Any], *, infrared: bool) -> str:
    """What little ground is like, or an empty text; x is reflectance (bands, pixels)."""
    low, high = np.percentile(x, (1, 98), axis=1)
    if high.max() < 0.03:
        return f"hardly a pixel reflects more than {high.max():.2g}"
    if low.min() > (0.09 if infrared else 0.6):
        return f"hardly a pixel reflects less than {low.min():.2g} in any band"
    if (x < _VOID).any():
        return f"some pixels lie below {_VOID:g}, down to {x.min():.3g}: no data that nothing declares (--nodata)"
    return ""


def _looks(x: NDArray[Any], layers: Sequence[Layer]) -> str:
    """What the values as stored look like, with the options that say so; an empty text where nothing fits."""
    units = {layer.units for layer in layers}
    if len(units) > 1:
        return ""
    scale, offset = units.pop() or (1e-4, 0.0)
    stored = (x - offset) / scale
    fitting = []
    for name, (other, shift) in _UNITS.items():
        low, middle, high = np.percentile(stored * other + shift, (1, 50, 98), axis=1)
        usual = -0.05 < low.min() < 0.09 and middle.min() > -0.01 and 0.02 < high.max() < 1.3
        if usual and (other, shift) != (scale, offset):
            fitting.append(f"{name} (--scale {other:g} --offset {shift:g})")
    return f"; they look like {' or '.join(fitting)}" if fitting else ""
