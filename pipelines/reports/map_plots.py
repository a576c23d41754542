"""Maps in figures: side by side, with a colour scale, on degrees of latitude and longitude; and pictures to put there.

As in `plots`, functions take axes and give them back, and images are (h, w, 4) uint8, transparent without data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.spec import ClassDef
from pipelines.reports import plots
from pipelines.reports.plots import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from odc.geo.geobox import GeoBox

RAIN_COLOURS = "YlGnBu"
_RIGHT, _WRONG = (226, 226, 226), (213, 94, 0)  # Okabe and Ito (2008): told apart by every kind of colour vision


def component_image(components: NDArray[Any]) -> Image:
    """Three components of tokens as red, green and blue, each from its 2nd to its 98th percentile.

    Alike colours are alike tokens; what a colour means differs from scene to scene.

    Args:
        components: (3, h, w), NaN where no token is known.

    Returns:
        (h, w, 4) uint8, transparent where no token is known.
    """
    known = np.isfinite(components).all(axis=0)
    limits = [plots.value_limits([component]) for component in components]
    shares = [(c - low) / (high - low) for c, (low, high) in zip(components, limits, strict=True)]
    return np.dstack([*np.where(known, shares, 0).clip(0, 1) * 255, known * 255]).astype(np.uint8)


def error_image(truth: NDArray[Any], predicted: NDArray[Any]) -> Image:
    """Where a class map is wrong: vermilion where it is, pale grey where it is right.

    Args:
        truth: class index of each pixel, (h, w); -1 is no label.
        predicted: the same of the map.

    Returns:
        (h, w, 4) uint8, transparent where either is -1.
    """
    known = (truth >= 0) & (predicted >= 0)
    image = np.where((truth == predicted)[..., None], (*_RIGHT, 255), (*_WRONG, 255))
    return np.where(known[..., None], image, 0).astype(np.uint8)


def map_row(
    figure: Figure,
    images: Mapping[str, Image],
    *,
    geobox: GeoBox | None = None,
    classes: Sequence[ClassDef] = (),
    ink: str = "black",
) -> list[Axes]:
    """Fill a figure with maps of one grid side by side, and the legend of the classes beneath them.

    Args:
        figure: an empty one, about as wide as there are maps.
        images: (h, w, 3 or 4) uint8 by the title of the map.
        geobox: the grid, for the scale bars.
        classes: for the legend; none without.
        ink: colour of the text.

    Returns:
        The axes of the maps.
    """
    grid = figure.add_gridspec(2, len(images), height_ratios=(12, 1 if classes else 0.01))
    places = [figure.add_subplot(grid[0, column]) for column in range(len(images))]
    if classes:
        plots.legend(figure.add_subplot(grid[1, :]), classes, columns=3 * len(images), ink=ink)
    shown = zip(places, images.items(), strict=True)
    return [plots.draw_map(ax, image, title=title, geobox=geobox, ink=ink) for ax, (title, image) in shown]


def value_map(
    ax: Axes,
    values: NDArray[Any],
    *,
    label: str,
    title: str = "",
    geobox: GeoBox | None = None,
    limits: tuple[float, float] | None = None,
    ink: str = "black",
) -> Axes:
    """Show a map of values with its colour scale beside it.

    Args:
        ax: the axes to draw on.
        values: (h, w) float; what is not finite is no data.
        label: the quantity and its unit.
        title: text above the map.
        geobox: the grid, for the scale bar.
        limits: ends of the scale; `plots.value_limits` of the map when not given.
        ink: colour of the text.
    """
    low, high = limits or plots.value_limits([values])
    plots.draw_map(ax, plots.value_image(values, low=low, high=high), title=title, geobox=geobox, ink=ink)
    _scale_beside(ax, label, plots.VALUE_COLOURS, low, high, ink)
    return ax


def weather_map(
    ax: Axes,
    values: NDArray[Any],
    *,
    lat: NDArray[Any],
    lon: NDArray[Any],
    label: str,
    title: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = plots.VALUE_COLOURS,
    ink: str = "black",
) -> Axes:
    """Show a field on a grid of latitudes and longitudes, with degrees at its sides and its colour scale beside it.

    Args:
        ax: the axes to draw on.
        values: (H, W); what is not finite is no data.
        lat: (H,) degrees north, falling.
        lon: (W,) degrees east, rising.
        label: the quantity and its unit.
        title: text above the map.
        limits: ends of the scale; `plots.value_limits` of the field when not given.
        colours: matplotlib's name of the scale; `RAIN_COLOURS` for rain.
        ink: colour of the text.
    """
    plots.style(ax, ink=ink)
    low, high = limits or plots.value_limits([values])
    half = [abs(float(axis[1] - axis[0])) / 2 if len(axis) > 1 else 0.5 for axis in (lat, lon)]
    extent = (float(lon[0]) - half[1], float(lon[-1]) + half[1], float(lat[-1]) - half[0], float(lat[0]) + half[0])
    shape = 1 / max(math.cos(math.radians(float(np.mean(lat)))), 0.1)  # a degree east is shorter than one north
    shown = np.ma.masked_invalid(values)
    ax.imshow(shown, cmap=colours, vmin=low, vmax=high, extent=extent, aspect=shape, interpolation="nearest")
    ax.xaxis.set_major_formatter(lambda degrees, _: _degrees(degrees, "WE"))
    ax.yaxis.set_major_formatter(lambda degrees, _: _degrees(degrees, "SN"))
    ax.locator_params(nbins=5)
    ax.set_title(title, fontsize=10)
    _scale_beside(ax, label, colours, low, high, ink)
    return ax


def _degrees(value: float, sides: str) -> str:
    """10°W, 0°, 47.5°N."""
    value = (value + 180) % 360 - 180 if sides == "WE" else value
    return f"{abs(value):g}°{'' if value == 0 else sides[int(value > 0)]}"


def _scale_beside(ax: Axes, label: str, colours: str, low: float, high: float, ink: str) -> None:
    """A colour scale at the right side of a map."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure: Any = ax.get_figure()
    scale = ScalarMappable(Normalize(low, high), colours)
    bar = figure.colorbar(scale, ax=ax, shrink=0.8, pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    bar.set_label(label, color=ink, fontsize=9)
    bar.ax.tick_params(colors=ink, labelsize=8, length=0)
