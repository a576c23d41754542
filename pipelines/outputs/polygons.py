"""Patches of class maps as polygons in a GeoPackage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio.features
from numpy.typing import NDArray
from rasterio.warp import transform_geom

from models import files
from models.errors import InputError, RunError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.areas import BLOCK, ground_system, open_classes, pixel_areas, read, read_codes, scene_name
from pipelines.grids.windows import cells
from pipelines.outputs.geopackage import ADVICE, write_layer, write_styles
from pipelines.outputs.sieve import patches

LAYER = "polygons"
DEGREES = "EPSG:4326"
COLUMNS = {"scene": "object", "code": "int32", "class": "object", "hectares": "float64", "confidence": "float64"}
_BATCH = 20_000  # polygons that are written at once
_STRAIGHT = 16  # pixels; a longer edge, of 25 km pixels, would bend by more than a sixth of one in another system


class _Patches(NamedTuple):
    """The patches of a map: the number of each pixel's patch (rows, columns), and what each is; entry 0 is nodata."""

    labels: NDArray[np.int32]
    codes: NDArray[np.int64]
    hectares: NDArray[np.float64]
    confidence: NDArray[np.float64]


def write_polygons(
    maps: Sequence[tuple[Path, Path]], classes: Sequence[ClassDef], path: Path, *, overwrite: bool = False
) -> int:
    """Write the patches of class maps as polygons: a GeoPackage with one layer, `polygons`, coloured by class in QGIS.

    A patch, a 4-connected set of pixels of one class, is one polygon with the columns scene, code, class, hectares (on
    the WGS84 ellipsoid, the sum of its pixels as in the table of areas) and confidence (mean over its pixels that have
    one, else null). Polygons are in the maps' coordinate system where all share one, else in EPSG:4326: there long
    edges get more points, so that neighbours meet within a sixth of a pixel, and the antimeridian cuts polygons in
    parts.

    Holds one scene at a time: 12 bytes a pixel of uint8 and the outlines of its patches, which makes 28 in all where
    there is a patch for every 260 pixels.

    Args:
        maps: map of class codes and map of confidence (0..1) of each scene, on one grid; the scene is the name of the
            first file less `_map.tif`.
        classes: the classes of the maps.
        path: the file to write, a .gpkg; it appears whole, or not at all.
        overwrite: replace a file that is there.

    Returns:
        The number of polygons.

    Raises:
        InputError: a map is not one of classes, holds a code that is no class, has no place on the ground or another
            grid than its confidence; or the file cannot have this name.
        RunError: a map cannot be read to its end, or the disk does not take the file.
    """
    files.check_target(path, ".gpkg", overwrite=overwrite)
    # All are checked before the first is read; a country's maps are too many to stay open.
    systems = [ground_system(align.grid(_open(*pair)[0]), str(pair[0])) for pair in maps]
    shared = bool(systems) and all(crs == systems[0] for crs in systems)
    with files.draft(path) as file:
        layer = _Layer(path, file, systems[0].to_wkt() if shared else DEGREES, "Polygon" if shared else "MultiPolygon")
        layer.append([[]] * len(COLUMNS), [])
        count = sum(_write_scene(layer, *_open(*pair), classes) for pair in maps)
        layer.finish(_style(classes), count)
    return count


@dataclass(frozen=True)
class _Layer:
    """The layer of a draft of `path`, in a coordinate system, whose geometries are Polygon or MultiPolygon."""

    path: Path
    file: Path
    crs: str
    kind: str

    def append(self, columns: Sequence[Any], outlines: Any) -> None:
        """Add patches; the first call makes the layer."""
        import geopandas

        named = dict(zip(COLUMNS, columns, strict=True))
        table = geopandas.GeoDataFrame(named, geometry=outlines, crs=self.crs).astype(COLUMNS)
        how: dict[str, Any] = {"append": self.file.exists(), "promote_to_multi": self.kind != "Polygon"}
        write_layer(self.path, self.file, table, LAYER, geometry_type=self.kind, **how)

    def finish(self, style: str, count: int) -> None:
        """Add a style that QGIS takes for the layer, and see that all patches are there."""
        import pyogrio

        write_styles(self.path, self.file, {LAYER: style}, "classes")
        held = pyogrio.read_info(self.file, layer=LAYER)["features"]
        if held != count:
            raise RunError(f"{self.path}: {count} polygons were written and {held} read back; {ADVICE}")


def _write_scene(layer: _Layer, source: Any, confidence: Any, classes: Sequence[ClassDef]) -> int:
    """Add the patches of a map to the layer; return how many."""
    found, grid, name = _patches(source, confidence, classes), align.grid(source), scene_name(Path(source.name))
    names = {entry.code: entry.name for entry in classes}
    shapes = rasterio.features.shapes(found.labels, found.labels > 0, connectivity=4, transform=grid.affine)
    while batch := list(islice(shapes, _BATCH)):
        labels = [int(label) for _, label in batch]
        codes = found.codes[labels]
        columns = [name, codes, [names[code] for code in codes], found.hectares[labels], found.confidence[labels]]
        layer.append(columns, _outlines([shape for shape, _ in batch], grid, layer.crs))
    return len(found.codes) - 1


def _open(codes: Path, confidence: Path) -> tuple[Any, Any]:
    """Open a map and its confidence, which lie on one grid."""
    source, other = open_classes(codes), align.dataset(str(confidence))
    if other.count != 1 or not np.issubdtype(other.dtypes[0], np.floating):
        raise InputError(
            f"{confidence}: wanted a map of confidence (one band of floats), came {other.count} of {other.dtypes[0]}"
        )
    if align.grid(source) != align.grid(other):
        sides = [f"{side.height} x {side.width}" for side in (source, other)]
        raise InputError(
            f"{confidence}: {sides[1]} pixels on another grid than {codes.name}, {sides[0]} pixels; "
            "give the confidence of the same scene"
        )
    return source, other


def _patches(source: Any, confidence: Any, classes: Sequence[ClassDef]) -> _Patches:
    """Number the patches of a map; sum up areas and confidence of their pixels, block by block."""
    codes, valid = np.empty(source.shape, source.dtypes[0]), np.ones(source.shape, bool)
    for window, block, _ in read_codes(source, classes):
        codes[window] = block
        if source.nodata is not None:
            valid[window] = block != source.nodata
    labels, kinds = patches(codes, valid)
    del codes, valid
    areas = pixel_areas(align.grid(source), name=source.name)
    hectares, sums, counts = np.zeros((3, len(kinds)))
    for window in cells(source.height, source.width, BLOCK):
        here = labels[window].ravel()
        if here.any():
            values = read(confidence, window).ravel()
            has = np.isfinite(values) & (values != confidence.nodata)
            hectares += np.bincount(here, areas(window).ravel(), len(kinds))
            sums += np.bincount(here[has], values[has], len(kinds))
            counts += np.bincount(here[has], minlength=len(kinds))
    if not np.isfinite(hectares[1:]).all():
        raise InputError(f"{source.name}: pixels of classes have no place on the ground; set them to nodata")
    mean = np.divide(sums, counts, out=np.full(len(kinds), np.nan), where=counts > 0)
    return _Patches(labels, kinds, hectares, mean)


def _outlines(shapes: Sequence[dict[str, Any]], grid: Any, crs: str) -> Any:
    """Outlines of patches of a grid in a coordinate system."""
    import geopandas
    import shapely

    outlines = geopandas.GeoSeries([shapely.geometry.shape(shape) for shape in shapes], crs=grid.crs.to_wkt())
    if outlines.crs.equals(crs):
        return outlines
    step = _STRAIGHT * abs(grid.affine.determinant) ** 0.5
    dense = outlines.segmentize(step)
    moved = dense.to_crs(crs)
    wide = np.flatnonzero(moved.bounds.maxx - moved.bounds.minx > 180)
    if wide.size:
        cut = transform_geom(grid.crs.to_wkt(), crs, [shapely.geometry.mapping(dense.iloc[i]) for i in wide])
        moved.iloc[wide] = [shapely.geometry.shape(shape) for shape in cut]
    broken = np.flatnonzero(~moved.is_valid)
    moved.iloc[broken] = shapely.make_valid(moved.iloc[broken].to_numpy(), method="structure", keep_collapsed=False)
    return moved


def _style(classes: Sequence[ClassDef]) -> str:
    """A style of QGIS (QML) that fills polygons with the colour of their code's class."""
    root = ElementTree.Element("qgis", version="3.28.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="code", symbollevels="0")
    categories, symbols = (ElementTree.SubElement(renderer, name) for name in ("categories", "symbols"))
    for index, entry in enumerate(classes):
        shown = {"value": str(entry.code), "type": "long", "label": entry.name, "symbol": str(index), "render": "true"}
        ElementTree.SubElement(categories, "category", shown)
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(index), alpha="1")
        fill = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
        options = ElementTree.SubElement(fill, "Option", type="Map")
        colour = ",".join(str(part) for part in (*entry.rgb, 255))
        for name, value in (("color", colour), ("style", "solid"), ("outline_style", "no")):
            ElementTree.SubElement(options, "Option", name=name, value=value, type="QString")
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ElementTree.tostring(root, "unicode")
