"""Polygons as class codes on a scene's grid."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
from odc.geo.geobox import GeoBox

from models.errors import InputError
from pipelines.grids import align
from pipelines.grids.windows import Window
from pipelines.samples.labelling.polygon_files import POLYGONS, check_polygons
from pipelines.samples.splits import some

_INDEXED = (".gpkg", ".shp", ".fgb")  # by place: what is near one is found without reading all
_BLOCK = 2048  # pixels a side that are burnt at once
_KINDS = "GeoJSON, GeoPackage, shapefile or FlatGeobuf"
# Formats that hold polygons but write files beside themselves when read, refer to others, or tell no coordinate system.
_OTHERS = (".gml", ".kml", ".kmz", ".gdb", ".zip", ".shz", ".parquet", ".geoparquet", ".dxf", ".tab", ".mif", ".csv")
_MORE = (".xlsx", ".topojson", ".geojsonl", ".wkt", ".sqlite", ".gpx")


@dataclass(frozen=True)
class Polygons:
    """How polygons say their class.

    Attributes:
        column: the column that holds the code or the name of the class; None where there is one of whole numbers only.
        layer: the layer of a file that has several.
        codes: code of each class by its name.
        background: code of what no polygon covers; None where that is not labelled.
    """

    column: str | None = None
    layer: str | None = None
    codes: Mapping[str, int] = field(default_factory=dict)
    background: int | None = None


def is_vector(path: Path) -> bool:
    """Whether a file holds polygons, by its name.

    Raises:
        InputError: it does, in a format that is not taken.
    """
    suffix = path.suffix.lower()
    if suffix in (*_OTHERS, *_MORE):
        raise InputError(f"{path}: polygons are taken as {_KINDS}; convert it: ogr2ogr labels.gpkg {path.name}")
    return suffix in POLYGONS


def other_ground(path: Path) -> InputError:
    """The error for labels that lie elsewhere."""
    return InputError(f"{path}: labels of other ground than the image; give the labels of the same place")


def read_shapes(path: Path, geobox: GeoBox, *, layer: str | None = None) -> Any:
    """The polygons and points of a file in the coordinate system of a grid, as a GeoDataFrame with all columns.

    Those without coordinates are left out, and those that have none in that system.

    Raises:
        InputError: no such file or layer, what is no polygon or point, or one of the two has no coordinate system.
    """
    if not is_vector(path):
        raise InputError(f"{path}: wanted polygons or points: {_KINDS}")
    if geobox.crs is None:
        raise _unplaced(path)
    table = _read_table(str(path), layer, None)
    table = table[~(table.geometry.isna() | table.geometry.is_empty)].to_crs(str(geobox.crs))
    return table[np.isfinite(table.geometry.bounds.to_numpy()).all(axis=1)].reset_index(drop=True)


def _unplaced(path: Path) -> InputError:
    """The error for an image without a place on the ground."""
    return InputError(
        f"{path}: polygons have a place on the ground and the image has none; give it a coordinate system"
    )


def polygon_codes(path: Path, geobox: GeoBox, window: Window, how: Polygons) -> np.ndarray:
    """Codes of the polygons on a window as float32 (rows, columns), pixel centres inside; the background elsewhere.

    The background is NaN where there is none. Where polygons overlap, the later in the file counts; FlatGeobuf keeps
    them by place, in no other order.

    Raises:
        InputError: no such file, layer or column, a class that is not known, or polygons of other ground.
    """
    names = tuple(how.codes.items())
    changed = path.stat().st_mtime_ns if path.exists() else 0
    said = (str(path), changed, geobox, how.column, how.layer, names)
    out = np.empty([side.stop - side.start for side in window], np.float32)
    rows, columns = (range(side.start // _BLOCK, -(-side.stop // _BLOCK)) for side in window)
    for block in itertools.product(rows, columns):
        burnt = _burnt(*said, block)
        inside = [
            slice(max(side.start, at * _BLOCK), min(side.stop, (at + 1) * _BLOCK))
            for side, at in zip(window, block, strict=True)
        ]
        out[_from(inside, [side.start for side in window])] = burnt[_from(inside, [at * _BLOCK for at in block])]
    return out if how.background is None else np.where(np.isnan(out), np.float32(how.background), out)


def _from(window: Sequence[slice], corner: Sequence[int]) -> tuple[slice, ...]:
    """A window counted from a corner."""
    return tuple(slice(side.start - at, side.stop - at) for side, at in zip(window, corner, strict=True))


@functools.lru_cache(maxsize=8)
def _burnt(
    path: str,
    changed: int,
    geobox: GeoBox,
    column: str | None,
    layer: str | None,
    names: tuple[tuple[str, int], ...],
    block: tuple[int, int],
) -> np.ndarray:
    """Codes of a block of a grid, float32 (rows, columns), NaN outside of all polygons; many chips share it.

    Turning shapes into coordinates takes longer than burning them.
    """
    height, width = (int(side) for side in geobox.shape)
    (top, bottom), (left, right) = (
        (at * _BLOCK, min((at + 1) * _BLOCK, size)) for at, size in zip(block, (height, width), strict=True)
    )
    grid = align.crop(geobox, (slice(top, bottom), slice(left, right)))
    table = _polygons(path, changed, geobox, column, layer, names)
    bounds = grid.extent.boundingbox
    near = table.iloc[sorted(table.sindex.intersection((bounds.left, bounds.bottom, bounds.right, bounds.top)))]
    out = np.full((bottom - top, right - left), np.nan, np.float32)
    shapes = list(zip(near.geometry, near["code"].astype(float), strict=True))
    if shapes:
        rasterio.features.rasterize(shapes, out=out, transform=grid.affine)
    return out


@functools.lru_cache(maxsize=8)
def _polygons(
    path: str, changed: int, geobox: GeoBox, column: str | None, layer: str | None, names: tuple[tuple[str, int], ...]
) -> Any:
    """Polygons on a grid's ground, in its coordinate system, with their code; a new `changed` renews the cache."""
    import geopandas

    if geobox.crs is None:
        raise _unplaced(Path(path))
    extent, crs = geobox.extent.geom, str(geobox.crs)
    # A straight edge is curved in another system: read a little more than the grid.
    around = geopandas.GeoSeries([extent.buffer(0.05 * extent.length / 4)], crs=crs)
    if Path(path).suffix.lower() in _INDEXED:
        table = _read_table(path, layer, around)
    else:
        table = _whole(path, changed, layer)
        table = table[table.intersects(around.to_crs(table.crs).iloc[0])]
    if table.empty:
        raise other_ground(Path(path))
    codes = _codes(path, table, column, dict(names))
    table = geopandas.GeoDataFrame({"code": codes}, geometry=table.geometry.to_crs(crs).values)
    table = table[table.intersects(extent)]
    if table.empty:
        raise other_ground(Path(path))
    return table


@functools.lru_cache(maxsize=2)
def _whole(path: str, changed: int, layer: str | None) -> Any:
    """All polygons of a file without an index, which is read to its end for any place."""
    return _read_table(path, layer, None)


def _read_table(path: str, layer: str | None, around: Any) -> Any:
    """Read the polygons near a place, or all."""
    import geopandas
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError
    from shapely.errors import ShapelyError

    try:
        name = _layer(Path(path), layer)
        with warnings.catch_warnings():  # of coordinates that are no numbers, which is told below
            warnings.simplefilter("ignore", RuntimeWarning)
            table = geopandas.read_file(path, bbox=around, layer=name)
    except (DataSourceError, DataLayerError) as error:
        raise InputError(f"{path}: not a polygon file that can be read; wanted {_KINDS}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: holds text that is not UTF-8; write it again as UTF-8") from error
    except ShapelyError as error:
        raise InputError(f"{path}: holds what is no polygon ({align.reason(error)}); mend or remove it") from error
    if table.crs is None:
        raise InputError(f"{path}: polygons without coordinate system; write them with one")
    kinds = sorted(
        {*table.geom_type.dropna()} - {"Polygon", "MultiPolygon", "Point", "MultiPoint", "GeometryCollection"}
    )
    if kinds:
        raise InputError(f"{path}: holds {', '.join(kinds)}; wanted polygons, or points")
    broken = int((~np.isfinite(shapely.get_coordinates(table.geometry)).all(axis=1)).sum())
    if broken:
        raise InputError(f"{path}: {broken} corners of polygons have coordinates that are no numbers; correct the file")
    return table


def _layer(path: Path, wanted: str | None) -> str:
    """The layer that holds the polygons."""
    from pyogrio import list_layers

    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); wanted polygons: {_KINDS}")
    check_polygons(path)
    layers = [str(name) for name, kind in list_layers(path) if kind is not None]
    if wanted is not None and wanted not in layers:
        raise InputError(f"{path}: no layer {wanted}; it has {some(layers) or 'none with shapes'} (data.layer)")
    if wanted is None and len(layers) != 1:
        told = f"{len(layers)} layers ({', '.join(layers)})" if layers else "no layer with shapes"
        raise InputError(f"{path}: has {told}; name the one with the labels: --data.layer")
    return wanted or layers[0]


def _codes(path: str, table: Any, column: str | None, codes: Mapping[str, int]) -> np.ndarray:
    """The class code of each polygon, float64, from a column of codes or of names of classes."""
    name = _column(path, table, column)
    try:
        found = np.asarray(table[name].to_numpy(dtype=np.float64))
    except (TypeError, ValueError):
        found = None
    if found is not None and np.isnan(found).any():
        raise InputError(f"{path}: {int(np.isnan(found).sum())} polygons have no {name}; give each one, or take it out")
    if found is not None:
        return found
    known = {text.strip().casefold(): code for text, code in codes.items()}
    texts = [str(text) for text in table[name]]
    strangers = sorted({text for text in texts if text.strip().casefold() not in known})
    if strangers:
        wanted = f"class codes, or the names of classes: {', '.join(codes)}" if codes else "class codes"
        raise InputError(f"{path}: column {name} holds {some([repr(text) for text in strangers])}; wanted {wanted}")
    return np.array([known[text.strip().casefold()] for text in texts], np.float64)


def _column(path: str, table: Any, column: str | None) -> str:
    """The column of the codes."""
    names = [name for name in table.columns if name != table.geometry.name]
    if column is not None and column not in names:
        raise InputError(f"{path}: no column {column}; it has {', '.join(names)}")
    whole = [name for name in names if table[name].dtype.kind in "iu"]
    if column is None and len(whole) != 1:
        raise InputError(
            f"{path}: which column holds the class? it has {', '.join(names) or 'none'}; name it: --data.column"
        )
    return column or str(whole[0])
