"""A small picture beside each map, with a legend, for those who look before they open it.

Drawn with Pillow: matplotlib alone takes longer to import than a tile takes to score.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.files import replacing
from models.spec import ClassDef
from pipelines.outputs import seen
from pipelines.outputs.parts import open_raster
from pipelines.scenes.scene import Scene

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont
    Entry = tuple[str, tuple[int, int, int]]

Values = NDArray[Any]
Pixels = NDArray[np.uint8]  # (h, w, 4): red, green, blue, opacity

LONGEST = 1024  # pixels; of the picture with its legend
SMALL = 640  # pixels; maps are enlarged by whole factors up to here
NARROWEST = 280  # pixels; room for the legend of a narrow map
INK, PAPER, LINE = (38, 38, 38, 255), (255, 255, 255, 255), (150, 150, 150, 255)
WARNING = (255, 214, 102, 255)
TEXT, SWATCH, GAP, MARGIN = 14, 14, 6, 10  # pixels; height of letters, side of a colour, spaces
ROW = TEXT + 9
MOST_ROWS = 12

# Cividis: even steps for every kind of colour vision (Nunez, Anderton, Renslow 2018, PLOS ONE 13). Twelve of its 256
# colours by place; between them straight lines stay within 3 levels of it.
RAMP = {
    0: "#00224d",
    20: "#003070",
    23: "#003170",
    28: "#11356f",
    45: "#2e416c",
    66: "#454f6b",
    145: "#8c8878",
    202: "#c6b567",
    221: "#dac65a",
    235: "#ead34c",
    251: "#fde234",
    255: "#fde737",
}


def write_quicklook(
    path: Path, map_file: Path, *, classes: Sequence[ClassDef] = (), scene: Scene | None = None, banner: str = ""
) -> None:
    """Write a PNG of a map, at most `LONGEST` pixels on its longer side, with a legend beneath.

    The scene in its natural colours is beside it, or above it where it is wide. Classes have their own colours, never
    mixed, and the legend names those that occur in the picture. Values go from dark blue at the 2nd percentile to
    yellow at the 98th. Pixels without data are transparent. Small maps are enlarged by whole factors. Reads overviews
    where there are some, and writes the same bytes for the same map and scene.

    Args:
        path: the picture; replaced whole when it is there.
        map_file: a map of the model's, or another raster of one quantity.
        classes: the classes of a map of classes.
        scene: what the map is of; left out where it lacks red, green or blue on its own ground.
        banner: a warning above the map.

    Raises:
        InputError: `map_file` cannot be opened.
    """
    image, legend = _draw(map_file, classes, LONGEST, scene)
    while image.height + legend.height > LONGEST:  # a lower map may be narrower, and its legend higher: seldom twice
        image, legend = _draw(map_file, classes, LONGEST - legend.height, scene)
    with replacing(path) as draft:
        whole = _stacked(image, legend)
        if banner:
            whole = _stacked(_banner(banner, whole.width), whole)
        whole.save(draft, format="PNG", compress_level=3)  # half the time of 6, 5 % more bytes


def _draw(map_file: Path, classes: Sequence[ClassDef], longest: int, scene: Scene | None) -> tuple[Picture, Picture]:
    """The map and the scene, at most `longest` pixels on the longer side, and the legend, as wide or wider."""
    from PIL import Image

    beside = scene is not None and seen.has_colours(scene)
    values, nodata, label = _read(map_file, (longest - GAP) // 2 if beside else longest)
    factor = max((SMALL // 2 if beside else SMALL) // max(values.shape), 1)  # by which a small map is enlarged
    height, width = (side * factor for side in values.shape)
    above = beside and width > height
    if classes and values.dtype.kind == "u":
        pixels, entries = _class_pixels(values, classes)
        legend = functools.partial(_class_legend, entries)
    else:
        pixels, ends = _value_pixels(values.astype(np.float64), nodata)
        legend = functools.partial(_value_legend, ends, label)
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    if scene is not None and beside:
        gap = np.zeros((GAP, width, 4) if above else (height, GAP, 4), np.uint8)
        pixels = np.concatenate((seen.natural_colours(scene, (height, width)), gap, pixels), axis=0 if above else 1)
    return Image.fromarray(pixels), legend(max(pixels.shape[1], NARROWEST))


def _stacked(image: Picture, legend: Picture) -> Picture:
    """The map above its legend."""
    from PIL import Image

    whole = Image.new("RGBA", (legend.width, image.height + legend.height), (0, 0, 0, 0))
    whole.paste(image, ((legend.width - image.width) // 2, 0))
    whole.paste(legend, (0, image.height))
    return whole


def _banner(text: str, width: int) -> Picture:
    """A warning, in lines as wide as the picture."""
    from PIL import Image, ImageDraw

    letters = max(int((width - 2 * MARGIN) / (0.55 * TEXT)), 20)
    lines = textwrap.wrap(text, letters)
    picture = Image.new("RGBA", (width, len(lines) * ROW + 2 * MARGIN), WARNING)
    ImageDraw.Draw(picture).multiline_text(
        (MARGIN, MARGIN), "\n".join(lines), fill=INK, font=_font(), spacing=ROW - TEXT
    )
    return picture


def _read(path: Path, longest: int) -> tuple[Values, float | None, str]:
    """First band at `longest` pixels or fewer a side, (h, w); its nodata value; and its name and unit.

    Classes are thinned by majority, values by mean.
    """
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError

    try:
        with open_raster(path) as dataset:
            how = Resampling.average if dataset.dtypes[0].startswith("float") else Resampling.mode
            scale = min(longest / max(dataset.shape), 1)
            shape = tuple(max(round(side * scale), 1) for side in dataset.shape)
            values = dataset.read(1, out_shape=shape, resampling=how)
            unit = f" ({dataset.units[0]})" if dataset.units[0] else ""
            return values, dataset.nodata, f"{dataset.descriptions[0] or 'value'}{unit}"
    except RasterioError as error:
        raise InputError(f"{path}: no picture can be drawn of it ({error}); wanted a raster") from error


def _class_pixels(codes: Values, classes: Sequence[ClassDef]) -> tuple[Pixels, list[Entry]]:
    """Colours of the classes, transparent elsewhere; and names and colours of those that occur, in their order."""
    counts = np.bincount(codes.ravel())
    table = np.zeros((len(counts), 4), np.uint8)
    occurring = [entry for entry in classes if entry.code < len(counts) and counts[entry.code]]
    for entry in occurring:
        table[entry.code] = (*entry.rgb, 255)
    return table[codes], [(_legible(entry), entry.rgb) for entry in occurring]


def _value_pixels(values: Values, nodata: float | None) -> tuple[Pixels, tuple[float, float] | None]:
    """Colours of the ramp, transparent without data; and the values at its ends, low < high, None without data."""
    known = np.isfinite(values) & (values != nodata)
    if not known.any():
        return np.zeros((*values.shape, 4), np.uint8), None
    low, high = (float(end) for end in np.percentile(values[known], (2, 98)))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    share = np.where(known, (np.where(known, values, low) - low) / (high - low), 0).clip(0, 1)
    pixels = np.dstack((ramp(share), known * np.uint8(255)))
    pixels[~known] = 0
    return pixels, (low, high)


def ramp(share: Values) -> Pixels:
    """Colour of each share (0..1) of the way from `low` to `high`: (..., 3)."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP.values()], float)  # (12, 3)
    table = np.stack([np.interp(range(256), list(RAMP), stops[:, i]) for i in range(3)], axis=1)  # (256, 3)
    return np.asarray(table.round().astype(np.uint8)[np.rint(share * 255).astype(np.intp)])


@functools.cache
def _font() -> Font:
    """DejaVu Sans, which comes with matplotlib and has letters beyond English; else Pillow's own font."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")  # found, not imported
    file = Path(found.origin or "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if found else None
    return ImageFont.truetype(file, TEXT - 1) if file and file.is_file() else ImageFont.load_default(TEXT)


def _legible(entry: ClassDef) -> str:
    """Name of a class, or its code where the font lacks a letter of the name."""
    box = bytes(_font().getmask("\uffff"))  # what is drawn for a letter that is not there
    known = all(letter.isspace() or bytes(_font().getmask(letter)) != box for letter in entry.name)
    return entry.name if known else f"class {entry.code}"


def _canvas(width: int, height: int) -> tuple[Picture, ImageDraw]:
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", (width, height), PAPER)
    return picture, ImageDraw.Draw(picture)


def _class_legend(entries: Sequence[Entry], width: int) -> Picture:
    """Colours and names in columns of equal width; "and 5 more" where there are too many."""
    if not entries:
        return _empty_legend(width)
    room = width - 2 * MARGIN
    widest = max(_length(name) for name, _ in entries) + SWATCH + 3 * GAP
    columns = max(min(room // max(min(widest, room), 1), len(entries)), 1)
    rows = min(math.ceil(len(entries) / columns), MOST_ROWS)
    shown = entries[: rows * columns]
    hidden = len(entries) - len(shown) + 1 if len(shown) < len(entries) else 0
    picture, draw = _canvas(width, rows * ROW + 2 * MARGIN - GAP)
    step = min(widest, room // columns)
    for place, (name, colour) in enumerate(shown):
        row, column = divmod(place, columns)
        x, y = MARGIN + column * step, MARGIN + row * ROW
        if hidden and place == len(shown) - 1:
            draw.text((x, y + SWATCH // 2), f"and {hidden} more", fill=INK, font=_font(), anchor="lm")
            continue
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=(*colour, 255), outline=LINE)
        text = _shortened(name, step - SWATCH - 2 * GAP)
        draw.text((x + SWATCH + GAP, y + SWATCH // 2), text, fill=INK, font=_font(), anchor="lm")
    return picture


def _empty_legend(width: int) -> Picture:
    """Words for a picture that is transparent all over."""
    picture, draw = _canvas(width, ROW + 2 * MARGIN - GAP)
    draw.text((MARGIN, MARGIN + SWATCH // 2), "no data", fill=INK, font=_font(), anchor="lm")
    return picture


def _value_legend(ends: tuple[float, float] | None, label: str, width: int) -> Picture:
    """The ramp with the values at its ends and the quantity between them."""
    from PIL import Image

    if ends is None:
        return _empty_legend(width)

    picture, draw = _canvas(width, SWATCH + ROW + 2 * MARGIN)
    length = width - 2 * MARGIN
    colours = ramp(np.tile(np.linspace(0, 1, length), (SWATCH, 1)))  # (SWATCH, length, 3)
    picture.paste(Image.fromarray(colours), (MARGIN, MARGIN))
    y = MARGIN + SWATCH + GAP
    low, high = (f"{sign} {_readable(end, ends[1] - ends[0])}" for sign, end in zip("≤≥", ends, strict=True))
    draw.text((MARGIN, y), low, fill=INK, font=_font(), anchor="la")
    draw.text((width - MARGIN, y), high, fill=INK, font=_font(), anchor="ra")
    left = length - 2 * max(_length(low), _length(high)) - 2 * GAP
    draw.text((width // 2, y), _shortened(label, left), fill=INK, font=_font(), anchor="ma")
    return picture


def _readable(value: float, span: float) -> str:
    """A value with as many digits as tell a hundredth of the span."""
    if abs(value) >= 1e6 or span < 1e-4:
        return f"{value:.3g}"
    return f"{value:.{max(2 - math.floor(math.log10(span)), 0) if span < 100 else 0}f}"


def _length(text: str) -> int:
    """Width of a text in pixels."""
    return math.ceil(_font().getlength(text))


def _shortened(text: str, room: int) -> str:
    """A text that fits into `room` pixels, its end left out where it is longer."""
    if _length(text) <= room:
        return text
    kept = next((n for n in range(len(text) - 1, 0, -1) if _length(text[:n].rstrip() + "…") <= room), 0)
    return text[:kept].rstrip() + "…" if kept else ""
