"""Pictures of scenes, maps and scores: arrays to pixels, and pixels to matplotlib axes.

Images are (h, w, 4) uint8, red, green, blue and alpha; a pixel without data is fully transparent. Functions that draw
take the axes to draw on, give them back, and never touch pyplot, so they work without a display and from any thread.
`ink` is the colour of text and lines: black on a light page, white on a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.spec import ClassDef

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from odc.geo.geobox import GeoBox

Image = NDArray[np.uint8]

VALUE_COLOURS = "cividis"  # Nunez, Anderton, Renslow (2018), PLOS ONE 13: even steps for every kind of colour vision
SERIES = ("#3d85c6", "#e08a1e", "#6aa84f", "#a679c9", "#8a8a8a")  # readable on white and on near-black
_OTHERS = ("#8b929c", "#b9bfc7", "#6d747e", "#a39a86")  # greys for all bars but ours
_PRIMARIES = {"red": ("red", "b04", "b4"), "green": ("green", "b03", "b3"), "blue": ("blue", "b02", "b2")}
_WEB_MERCATOR = 3857


def figure(width: float, height: float) -> Figure:
    """An empty transparent figure, width x height in inches, outside pyplot; save it with `savefig`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=144, layout="constrained", facecolor="none")


def style(ax: Axes, *, ink: str) -> None:
    """Make the axes plain: no background, no box, text and lines in `ink`."""
    ax.set_facecolor("none")
    ax.tick_params(colors=ink, which="both", length=0, labelsize=9)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)
        spine.set_alpha(0.4)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set_color(ink)


def true_colour(x: NDArray[Any], *, bands: Sequence[str], valid: NDArray[np.bool_]) -> Image:
    """A picture of a scene as the eye would see it.

    One stretch, from the 2nd to the 98th percentile of the valid pixels' red, green and blue together, keeps the hues
    of the ground. Without red, green and blue among the bands the first band is shown in grey.

    Args:
        x: reflectance x10000 (any unit will do), (C, h, w).
        bands: the names of the C bands; RED, GREEN, BLUE or B04, B03, B02 in any case.
        valid: True where there is data, (h, w); a pixel that is not finite is left out as well.

    Returns:
        (h, w, 4) uint8, transparent where not valid.

    Raises:
        InputError: the shapes do not fit each other.
    """
    if x.ndim != 3 or x.shape[0] != len(bands) or x.shape[1:] != valid.shape:
        raise InputError(f"picture: x {x.shape} and valid {valid.shape}, wanted ({len(bands)}, h, w) and (h, w)")
    return _stretched(x[_primary_bands(bands)], valid)


def false_colour(x: NDArray[Any], *, bands: Sequence[str], shown: Sequence[str], valid: NDArray[np.bool_]) -> Image:
    """A picture of a scene with three of its bands as red, green and blue; stretched as `true_colour` is.

    Args:
        x: reflectance x10000, (C, h, w).
        bands: the names of the C bands.
        shown: three of them, such as NIR_NARROW, RED, GREEN, in which plants are red.
        valid: True where there is data, (h, w).

    Raises:
        InputError: a band is not there.
    """
    absent = [band for band in shown if band not in bands]
    if absent or len(shown) != 3:
        raise InputError(f"picture of {', '.join(shown)}: wanted three of {', '.join(bands)}")
    return _stretched(x[[bands.index(band) for band in shown]], valid)


def _stretched(shown: NDArray[Any], valid: NDArray[np.bool_]) -> Image:
    """Three bands (3, h, w) as a picture, from their 2nd to their 98th percentile together."""
    shown = shown.astype(np.float32)
    seen = valid & np.isfinite(shown).all(axis=0)  # (h, w)
    low, high = np.percentile(shown[:, seen], (2, 98)) if seen.any() else (0.0, 1.0)
    share = np.where(seen, (shown - low) / max(high - low, 1e-6), 0).clip(0, 1)
    return np.dstack([*np.rint(share * 255), seen * 255]).astype(np.uint8)


def _primary_bands(bands: Sequence[str]) -> list[int]:
    """Places of red, green and blue among the bands, or three times the first band."""
    names = [band.lower() for band in bands]
    found = [next((names.index(n) for n in wanted if n in names), None) for wanted in _PRIMARIES.values()]
    known = [place for place in found if place is not None]
    return known if len(known) == 3 else [0, 0, 0]


def class_image(indices: NDArray[Any], classes: Sequence[ClassDef]) -> Image:
    """Colour a map of class indices with the classes' own colours.

    Args:
        indices: class index of each pixel, (h, w) integer; -1 is no data.
        classes: the classes in the order of the indices.

    Returns:
        (h, w, 4) uint8, transparent where -1.

    Raises:
        InputError: an index has no class.
    """
    if indices.size and not -1 <= indices.min() <= indices.max() < len(classes):
        raise InputError(f"map: class indices {indices.min()}..{indices.max()}, wanted -1..{len(classes) - 1}")
    colours = [(*definition.rgb, 255) for definition in classes]
    table: Image = np.array([*colours, (0, 0, 0, 0)], dtype=np.uint8)  # (K + 1, 4); the last row answers -1
    return np.asarray(table[indices.astype(np.intp)], dtype=np.uint8)


def value_limits(values: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """The 2nd and 98th percentile of all finite values: the ends of a colour scale that the maps share.

    Returns:
        low < high; (0, 1) where nothing is finite.
    """
    known = np.concatenate([v[np.isfinite(v)].astype(np.float64) for v in values] or [np.empty(0)])
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, (2, 98))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def value_image(values: NDArray[Any], *, low: float, high: float) -> Image:
    """Colour a map of values from dark blue (`low` and below) to yellow (`high` and above).

    Args:
        values: (h, w) float; what is not finite is no data.
        low: value at the dark end of the scale.
        high: value at the bright end, above `low`.

    Returns:
        (h, w, 4) uint8, transparent where there is no data.
    """
    import matplotlib

    known = np.isfinite(values)
    share = np.where(known, (np.where(known, values, low) - low) / (high - low), 0).clip(0, 1)
    image = matplotlib.colormaps[VALUE_COLOURS](share, bytes=True)  # (h, w, 4)
    image[~known] = 0
    return np.asarray(image, dtype=np.uint8)


def colour_bar(ax: Axes, *, low: float, high: float, label: str, ink: str = "black") -> Axes:
    """Fill the axes with the colour scale of `value_image`, from `low` to `high`, with its label beneath."""
    style(ax, ink=ink)
    ramp = value_image(np.linspace(low, high, 256)[None], low=low, high=high)
    ax.imshow(ramp, extent=(low, high, 0, 1), aspect="auto")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label)
    return ax


def draw_map(ax: Axes, image: Image, *, title: str = "", geobox: GeoBox | None = None, ink: str = "black") -> Axes:
    """Show an image as a map, pixel for pixel, with a scale bar where the grid is measured in metres.

    Args:
        ax: the axes to draw on.
        image: (h, w, 3 or 4) uint8.
        title: text above the map.
        geobox: the grid of the image; without it, or in a CRS without true metres, no bar is drawn.
        ink: colour of the text.
    """
    style(ax, ink=ink)
    ax.imshow(image, interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    metres = metres_per_pixel(geobox) if geobox is not None else None
    if metres is not None:
        _scale_bar(ax, width=image.shape[1], metres=metres, ink=ink)
    return ax


def metres_per_pixel(geobox: GeoBox) -> float | None:
    """Width of a pixel in metres on the ground, or None where the CRS does not give it.

    Degrees and feet do not, nor does Web Mercator, whose metres are true at the equator only.
    """
    crs = geobox.crs
    if crs is None or not crs.projected or crs.epsg == _WEB_MERCATOR or crs.units[0] not in ("metre", "meter", "m"):
        return None
    affine = geobox.affine
    return math.hypot(affine.a, affine.d)


def scale_length(width: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is at most a third of `width` (> 0)."""
    third = width / 3
    power = 10.0 ** math.floor(math.log10(third))
    # A half of the power is 5 times the one below, and there where rounding leaves a third just short of the power.
    return max(step * power for step in (0.5, 1, 2, 5) if step * power <= third)


def _scale_bar(ax: Axes, *, width: int, metres: float, ink: str) -> None:
    """Draw the bar and its length under the lower left corner of a map `width` pixels wide."""
    length = scale_length(width * metres)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    share = length / (width * metres)
    ax.plot([0, share], [-0.03, -0.03], transform=ax.transAxes, color=ink, lw=3, clip_on=False, solid_capstyle="butt")
    ax.text(share + 0.02, -0.03, text, transform=ax.transAxes, color=ink, fontsize=8, va="center")


def legend(
    ax: Axes, classes: Sequence[ClassDef], *, codes: Sequence[int] | None = None, columns: int = 4, ink: str = "black"
) -> Axes:
    """Fill the axes with the colours and names of the classes, or of those with the given codes."""
    from matplotlib.patches import Patch

    shown = [c for c in classes if codes is None or c.code in codes]
    ax.set_axis_off()
    patches = [Patch(facecolor=c.colour, edgecolor="#888888", linewidth=0.6, label=_plain(c.name)) for c in shown]
    columns = min(len(shown), columns) or 1
    ax.legend(handles=patches, loc="center", ncols=columns, frameon=False, labelcolor=ink, fontsize=9)
    return ax


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar sign would start a formula, a leading underscore hides a label."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def confusion_plot(ax: Axes, confusion: NDArray[Any], classes: Sequence[ClassDef], *, ink: str = "black") -> Axes:
    """Draw the confusion matrix as shares of each true class, in per cent; rows are truth, columns predicted.

    A class without truth has an empty row. Shares below half a per cent are left blank, which is not the same as none.

    Args:
        ax: the axes to draw on, about square.
        confusion: (K, K) counts.
        classes: the K classes.
        ink: colour of the text outside the cells.
    """
    support = confusion.sum(axis=1, keepdims=True)  # (K, 1)
    shares = np.where(support > 0, confusion / np.maximum(support, 1), np.nan)  # (K, K)
    style(ax, ink=ink)
    cells = _shaded(shares, ink)
    ax.imshow(cells, aspect="equal")
    names = [_plain(_short(definition.name)) for definition in classes]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("truth")
    ax.spines[:].set_visible(False)
    for row, column in np.argwhere(np.nan_to_num(shares) >= 0.005):
        colour = "black" if cells[row, column, :3] @ (0.299, 0.587, 0.114) > 0.43 else "white"
        ax.text(column, row, f"{shares[row, column] * 100:.0f}", ha="center", va="center", color=colour, fontsize=9)
    return ax


def _shaded(shares: NDArray[Any], ink: str) -> NDArray[Any]:
    """Shares as shades from the page's own colour, which no ramp that begins with white has on a dark page.

    Returns:
        (K, K, 4) from 0 to 1; transparent where there is no share.
    """
    from matplotlib.colors import to_rgb

    page = np.full(3, 0.1 if sum(to_rgb(ink)) > 1.5 else 1.0)
    depth = 0.06 + 0.94 * np.nan_to_num(shares)[..., None]  # (K, K, 1)
    colours = page * (1 - depth) + np.array(to_rgb(SERIES[0])) * depth
    return np.concatenate([colours, np.isfinite(shares)[..., None]], axis=2)


def _short(name: str, limit: int = 24) -> str:
    """A name that fits beside an axis: `limit` letters, or half as many of the wide East Asian ones."""
    ends = np.cumsum([2 if east_asian_width(letter) in "WF" else 1 for letter in name])
    return name if not name or ends[-1] <= limit else name[: int((ends < limit).sum())] + "…"


def curves(
    ax: Axes, table: Sequence[Mapping[str, float | None]], *, keys: Sequence[str], label: str = "", ink: str = "black"
) -> Axes:
    """Draw one line per key against the epoch, from 1; epochs where a key is missing, None or not finite are skipped.

    Args:
        ax: the axes to draw on.
        table: one row per epoch; "epoch" counts from 0, and where it is missing the row's place is taken.
        keys: the columns to draw, such as train_loss and val_loss.
        label: text of the vertical axis.
        ink: colour of the text.
    """
    from matplotlib.ticker import MaxNLocator

    style(ax, ink=ink)
    for key, colour in zip(keys, SERIES * len(keys), strict=False):
        points = [(row.get("epoch", place), row.get(key)) for place, row in enumerate(table)]
        known = [(x + 1, y) for x, y in points if x is not None and y is not None and math.isfinite(y)]
        if known:
            epochs, values = zip(*known, strict=True)
            ax.plot(epochs, values, color=colour, lw=1.8, marker="o", ms=3, label=_plain(key.replace("_", " ")))
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(axis="y", color=ink, alpha=0.15)
    if ax.get_lines():
        ax.legend(frameon=False, labelcolor=ink, fontsize=9)
    return ax


def scores_bars(
    ax: Axes, scores: Mapping[str, Mapping[str, Any]], *, keys: Mapping[str, str], ink: str = "black"
) -> Axes:
    """Draw scores side by side: a group of bars per score, a bar per model; a score that is None has no bar.

    Args:
        ax: the axes to draw on.
        scores: what `class_scores` or `value_scores` gave, by the name of the model; the first is ours.
        keys: the scores to draw, with the text for each.
        ink: colour of the text.
    """
    style(ax, ink=ink)
    thickness = 0.8 / max(len(scores), 1)
    for place, (name, values) in enumerate(scores.items()):
        rows = [(row, values.get(key)) for row, key in enumerate(keys)]
        known = [(row, value) for row, value in rows if value is not None]
        middles = [row - 0.4 + thickness * (place + 0.5) for row, _ in known]
        colour = _OTHERS[(place - 1) % len(_OTHERS)] if place else SERIES[0]
        bars = ax.barh(middles, [v for _, v in known], thickness * 0.9, color=colour, label=_plain(name))
        texts = [f"{value:.2f}" if abs(value) < 1 else f"{value:.3g}" for _, value in known]
        ax.bar_label(bars, texts, padding=3, color=ink, fontsize=8)
    ax.set_yticks(range(len(keys)), [_plain(text) for text in keys.values()])
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    columns = max(min(3, 52 // (max(map(len, scores), default=0) + 6)), 1)  # letters that fit beneath the bars
    ax.legend(frameon=False, labelcolor=ink, fontsize=9, loc="upper left", bbox_to_anchor=(0, 0), ncols=columns)
    return ax


def agreement(ax: Axes, truth: NDArray[Any], predicted: NDArray[Any], *, label: str = "", ink: str = "black") -> Axes:
    """Draw true against predicted values as a 2-D histogram with the line of equality; counts on a log scale.

    Args:
        ax: the axes to draw on, about square.
        truth: true values, any shape; pairs that are not finite are left out.
        predicted: predicted values, same shape.
        label: the quantity and its unit.
        ink: colour of the text.
    """
    from matplotlib.colors import LogNorm

    style(ax, ink=ink)
    known = np.isfinite(truth) & np.isfinite(predicted)
    ends = [*truth[known], *predicted[known]] or [0.0]
    low, high = float(min(ends)), max(float(max(ends)), float(min(ends)) + 1e-6)
    counts, _, _ = np.histogram2d(predicted[known], truth[known], bins=50, range=[[low, high], [low, high]])
    shown = np.ma.masked_equal(counts, 0)
    scale = LogNorm(1, max(float(counts.max()), 2))
    ax.imshow(shown, cmap=VALUE_COLOURS, norm=scale, origin="lower", extent=(low, high, low, high))
    ax.plot([low, high], [low, high], color=ink, lw=1, ls="--")
    ax.set_xlabel(f"truth, {label}")
    ax.set_ylabel(f"predicted, {label}")
    return ax


def class_bars(
    ax: Axes, values: Mapping[str, float], classes: Sequence[ClassDef], *, texts: Sequence[str] = (), ink: str = "black"
) -> Axes:
    """Draw a value of each class as a bar in its colour, with a text at its end.

    Args:
        ax: the axes to draw on.
        values: by the name of the class; a class that is not there, or not finite, has no bar.
        classes: the classes, in order from the top.
        texts: one for each class; the value with two digits when not given.
        ink: colour of the text.
    """
    style(ax, ink=ink)
    known = [values.get(entry.name, math.nan) for entry in classes]
    lengths = [value if math.isfinite(value) else 0.0 for value in known]
    bars = ax.barh(range(len(classes)), lengths, 0.7, color=[c.colour for c in classes], edgecolor="#888888", lw=0.5)
    labels = list(texts) or [f"{value:.2f}" if math.isfinite(value) else "" for value in known]
    ax.bar_label(bars, labels, padding=4, color=ink, fontsize=9)
    ax.set_yticks(range(len(classes)), [_plain(_short(entry.name)) for entry in classes])
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    return ax


def area_bars(ax: Axes, areas: Mapping[str, float], classes: Sequence[ClassDef], *, ink: str = "black") -> Axes:
    """Draw the hectares of each class, by its name, as bars; each one's share of all stands beside it."""
    hectares = [areas.get(entry.name, 0.0) for entry in classes]
    total = sum(hectares) or 1.0
    texts = [f"{value:,.0f} ha ({value / total:.0%})" for value in hectares]
    return class_bars(ax, areas, classes, texts=texts, ink=ink)


def reliability_plot(ax: Axes, rows: Sequence[Mapping[str, float]], *, unit: str = "mm/h", ink: str = "black") -> Axes:
    """Draw the observed share over the forecast probability, a line for each threshold; on the diagonal they agree.

    A dot's area tells how many of a threshold's forecasts it stands for.

    Args:
        ax: the axes to draw on, about square.
        rows: what `weather_scores.reliability` gave: threshold, forecast, observed, share.
        unit: of the thresholds.
        ink: colour of the text.
    """
    style(ax, ink=ink)
    ax.plot([0, 1], [0, 1], "--", color=ink, lw=0.8)
    for threshold, colour in zip(dict.fromkeys(row["threshold"] for row in rows), SERIES * len(rows), strict=False):
        mine = [row for row in rows if row["threshold"] == threshold]
        x, y, size = ([row[key] for row in mine] for key in ("forecast", "observed", "share"))
        ax.plot(x, y, color=colour, lw=1.5, label=f"> {threshold:g} {unit}")
        ax.scatter(x, y, [12 + 200 * share for share in size], color=colour)
    limits = (-0.03, 1.03)
    ax.set(xlim=limits, ylim=limits, xlabel="forecast probability", ylabel="observed share", aspect="equal")
    ax.legend(frameon=False, labelcolor=ink, fontsize=9)
    return ax
