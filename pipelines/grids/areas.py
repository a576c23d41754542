"""Areas on the ground: of the pixels of a grid, and of the classes of maps."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError

from models import files
from models.errors import InputError, RunError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.windows import Window, cells

Floats = NDArray[np.float64]
HECTARE = 1e4  # square metres
HEADER = ("scene", "code", "class", "pixels", "hectares", "share")
_NODES = (5, 9, 17, 33, 65, 129, 257)  # a side of the lattice of areas; each halves the steps of the one before
_ACCURACY = 1e-5
_ROUNDING = 0.005  # a pixel of 10 m in UTM has 0.9992 to 1.002 times 100 m2
BLOCK = 1024  # pixels; side of the blocks that maps are read in
OTHER_SIZE = 1.4  # times; 20 m is another size than 30 m
_CACHE = 64 << 20  # bytes; GDAL's default, 5 % of the machine's memory, would fill up as maps are read


def pixel_areas(geobox: GeoBox, *, name: str = "the grid") -> Callable[[Window], Floats]:
    """Areas of the pixels of a grid on the WGS84 ellipsoid.

    A pixel's area is that of the quadrilateral between its corners on the ellipsoid, right to 1e-4 for pixels up to
    25 km. Areas change smoothly over a grid, so they are computed on a lattice of pixels, made finer until it foretells
    itself to 1e-5, with cubic splines in between. Where no lattice does that (an edge of the world runs through the
    grid) each pixel is computed, about a thousand times slower.

    Args:
        geobox: the grid, in any coordinate system.
        name: what the grid belongs to, for messages.

    Returns:
        A function of a window that gives the areas of its pixels in hectares (rows, columns), NaN where a pixel has no
        place on the ground. It holds the lattice, never the grid.

    Raises:
        InputError: the grid has no place on the ground.
    """
    quads = _quads(geobox, name)
    sides = np.array(geobox.shape) - 1
    foretell = None
    for nodes in _NODES:
        at = np.linspace(0, 1, nodes)
        lattice = quads(*np.outer(sides, at))  # (nodes, nodes)
        if not np.isfinite(lattice).all():
            break
        exact = foretell is not None and np.allclose(foretell(at, at), lattice, rtol=_ACCURACY, atol=0)
        foretell = _surface(at, lattice)
        if exact:
            return _stretched(foretell, sides)
    return lambda window: quads(*_pixels(window))


def least_pixels(geobox: GeoBox, hectares: float, *, name: str = "the grid") -> int:
    """Pixels that a patch needs to have an area, at least 1.

    The pixel in the middle of the grid stands for all; it may be half a percent off, so that 0.5 ha are 50 pixels of
    10 m anywhere in a UTM zone. Over a grid in degrees or Web Mercator that spans latitudes, patches of one area have
    more pixels at one end than at the other.

    Args:
        geobox: the grid, in any coordinate system.
        hectares: the area, above 0.
        name: what the grid belongs to, for messages.

    Raises:
        InputError: the grid has no place on the ground, or the area is not above 0.
    """
    if not 0 < hectares < math.inf:
        raise InputError(f"least area {hectares} ha: wanted a number above 0")
    area = _middle(geobox, name)
    if not area > 0:
        raise InputError(f"{name}: the pixel in its middle has no place on the ground; cut the map to the ground shown")
    return max(math.ceil(hectares / area * (1 - _ROUNDING)), 1)


def pixel_side(geobox: GeoBox) -> float | None:
    """Side on the ground of the pixel in the middle of a grid, in metres to three digits; None without such a place.

    A pixel that is not square has the side of a square of its area.
    """
    try:
        area = _middle(geobox, "the grid")
    except InputError:
        return None
    return float(f"{math.sqrt(area * HECTARE):.3g}") if area > 0 else None


def pixel_sides(geobox: GeoBox) -> tuple[float, float]:
    """Height and width on the ground of the pixel in the middle of a grid, in metres to three digits.

    Raises:
        InputError: the grid has no place on the ground.
    """
    row, column = (np.array([side // 2]) for side in geobox.shape)
    (left, right), (below, _) = _corners(geobox, "the grid")(row, column)
    down, across = (float(f"{np.linalg.norm(end - left):.3g}") for end in (below, right))
    return down, across


def _middle(geobox: GeoBox, name: str) -> float:
    """Area of the pixel in the middle of a grid in hectares, NaN where it has no place on the ground."""
    row, column = (side // 2 for side in geobox.shape)
    return float(_quads(geobox, name)(np.array([row]), np.array([column]))[0, 0])


def area_table(
    maps: Sequence[Path], classes: Sequence[ClassDef], path: Path, *, overwrite: bool = False
) -> list[dict[str, Any]]:
    """Write the area of each class in each map as CSV: scene, code, class, pixels, hectares, share.

    Every class has a row, also where it has no pixel. Hectares are on the WGS84 ellipsoid, to ten digits; the share is
    that of the hectares of all classes in the map, 0 where the map is empty. Maps are read block by block.

    Args:
        maps: maps of class codes; the scene is the name of the file less `_map.tif`.
        classes: the classes of the maps.
        path: the file to write, a .csv; it appears whole, or not at all.
        overwrite: replace a file that is there.

    Returns:
        The rows.

    Raises:
        InputError: a map is not one of classes, holds a code that is no class or has no place on the ground; or the
            file cannot have this name.
        RunError: a map cannot be read to its end, or the disk does not take the file.
    """
    files.check_target(path, ".csv", overwrite=overwrite)
    for source in maps:
        open_classes(source)  # all are checked before the first is read; a country's maps are too many to stay open
    rows = [row for source in maps for row in _rows(open_classes(source), classes)]
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"hectares": f"{row['hectares']:.10g}", "share": f"{row['share']:.6g}"} for row in rows)
    with files.draft(path) as file:
        file.write_text(text.getvalue(), encoding="utf-8")
    return rows


def ground_system(geobox: GeoBox, name: str) -> Any:
    """The coordinate system of a grid, as pyproj has it.

    Raises:
        InputError: there is none, or none of the Earth.
    """
    if geobox.crs is None:
        raise InputError(f"{name}: areas need a place on the ground and there is none; give it a coordinate system")
    try:
        Transformer.from_crs(geobox.crs.proj, "EPSG:4326")
    except ProjError as error:
        raise InputError(f"{name}: its coordinate system has no place on the ground ({error}); give another") from error
    return geobox.crs.proj


def scene_name(path: Path) -> str:
    """The scene that a map is of: the file's name less `_map.tif`."""
    return path.stem.removesuffix("_map")


def open_classes(path: Path) -> Any:
    """Open a map of classes.

    Raises:
        InputError: the file is missing or no raster, not one band of uint8 or uint16, or without place on the ground.
    """
    source = align.dataset(str(path))
    if source.count != 1 or source.dtypes[0] not in ("uint8", "uint16"):
        raise InputError(
            f"{path}: wanted a map of classes (one band of uint8 or uint16), came {align.bands_of(source)}"
        )
    ground_system(align.grid(source), str(path))
    return source


def read_codes(source: Any, classes: Sequence[ClassDef]) -> Iterator[tuple[Window, NDArray[Any], NDArray[np.int64]]]:
    """Read a map of classes block by block.

    Yields:
        The window, its codes (rows, columns), and the number of pixels of each code from 0 on, 0 for nodata.

    Raises:
        InputError: a code is neither a class nor nodata.
        RunError: the map cannot be read.
    """
    known = {entry.code for entry in classes}
    nodata = source.nodatavals[0]
    for window in cells(source.height, source.width, BLOCK):
        codes = read(source, window)
        counts = np.bincount(codes.ravel(), minlength=max(known, default=0) + 1)
        if nodata is not None and 0 <= nodata < len(counts):
            counts[int(nodata)] = 0
        strangers = sorted(set(np.flatnonzero(counts).tolist()) - known)
        if strangers:
            wanted = ", ".join(str(code) for code in sorted(known))
            raise InputError(f"{source.name}: holds code {strangers[0]}, classes are {wanted}; give the map's classes")
        yield window, codes, counts


def read(source: Any, window: Window) -> NDArray[Any]:
    """Read a window of the first band (rows, columns).

    Raises:
        RunError: the file cannot be read.
    """
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE):
            values: NDArray[Any] = source.read(1, window=tuple((side.start, side.stop) for side in window))
    except RasterioError as error:
        why = align.reason(error)
        raise RunError(f"{source.name}: cannot be read to its end ({why}); write or fetch it again") from error
    return values


def _rows(source: Any, classes: Sequence[ClassDef]) -> list[dict[str, Any]]:
    """Rows of the table that are about one map."""
    areas = pixel_areas(align.grid(source), name=source.name)
    size = max((entry.code for entry in classes), default=0) + 1
    pixels, hectares = np.zeros(size, np.int64), np.zeros(size)
    for window, codes, counts in read_codes(source, classes):
        held = np.flatnonzero(counts)
        if held.size:
            pixels += counts[:size]
            hectares[held] += np.bincount(codes.ravel(), areas(window).ravel(), minlength=size)[held]
    if not np.isfinite(hectares).all():
        raise InputError(f"{source.name}: pixels of classes have no place on the ground; set them to nodata")
    scene, whole = scene_name(Path(source.name)), float(hectares.sum()) or 1.0
    counted = [(entry, int(pixels[entry.code]), float(hectares[entry.code])) for entry in classes]
    return [
        dict(zip(HEADER, (scene, entry.code, entry.name, count, area, area / whole), strict=True))
        for entry, count, area in counted
    ]


def _quads(geobox: GeoBox, name: str) -> Callable[[Floats, Floats], Floats]:
    """A function of rows and columns that gives the areas of the pixels where they cross, in hectares.

    Half the cross product of the diagonals is the area between the corners.
    """
    corners_of = _corners(geobox, name)

    def areas(rows: Floats, columns: Floats) -> Floats:
        corners = corners_of(rows, columns)
        down, up = corners[1::2, 1::2] - corners[::2, ::2], corners[::2, 1::2] - corners[1::2, ::2]
        return np.asarray(np.linalg.norm(np.cross(down, up), axis=-1) / 2 / HECTARE)

    return areas


def _corners(geobox: GeoBox, name: str) -> Callable[[Floats, Floats], Floats]:
    """A function of rows and columns that gives the corners of their pixels: (2 rows, 2 columns, 3) in metres.

    They are taken to the ellipsoid in space, where neither poles nor the antimeridian are special.
    """
    to_degrees = Transformer.from_crs(ground_system(geobox, name), "EPSG:4326", always_xy=True)
    to_space = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)

    affine: Any = geobox.affine

    def corners(rows: Floats, columns: Floats) -> Floats:
        edges = (np.add.outer(at, (0, 1)).ravel() for at in (columns, rows))
        x, y = affine * np.meshgrid(*edges)  # (2 rows, 2 columns)
        longitude, latitude = to_degrees.transform(x, y)
        points = np.stack(to_space.transform(longitude, latitude, np.zeros_like(x)), axis=-1)
        points[~np.isfinite(points)] = np.nan
        return points

    return corners


def _surface(at: Floats, lattice: Floats) -> Callable[[Floats, Floats], Floats]:
    """Cubic splines through a lattice, as a function of rows and columns that gives values where they cross."""
    from scipy.interpolate import make_interp_spline

    weights = make_interp_spline(at, np.eye(len(at)))  # of each node

    def values(rows: Floats, columns: Floats) -> Floats:
        return np.asarray(weights(rows) @ lattice @ weights(columns).T)

    return values


def _stretched(surface: Callable[[Floats, Floats], Floats], sides: NDArray[np.int64]) -> Callable[[Window], Floats]:
    """A function of a window, from one of rows and columns that run from 0 to 1."""

    def areas(window: Window) -> Floats:
        rows, columns = _pixels(window)
        height, width = np.maximum(sides, 1)
        return surface(rows / height, columns / width)

    return areas


def _pixels(window: Window) -> tuple[Floats, Floats]:
    """Rows and columns of a window."""
    rows, columns = (np.arange(side.start, side.stop, dtype=np.float64) for side in window)
    return rows, columns
