"""Polygon files as they may be opened: of the format that their names say, which reads no other file."""

from __future__ import annotations

import json
import mmap
import re
import sqlite3
from pathlib import Path
from typing import Any

from models.errors import InputError
from pipelines.grids.rasters import check_name

# What a file of each format begins with. GDAL would open whatever a file is, such as a list of addresses.
_BEGINS = {".geojson": b"{", ".json": b"{", ".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb"}
POLYGONS = tuple(_BEGINS)
_CRS = re.compile(rb"""["']crs["']\s*""", re.IGNORECASE)
_SPELLED = re.compile(rb"\\u00(?:[46]3|[57][23])", re.IGNORECASE)  # letters of that word, hidden
_COMPUTED = """SELECT name FROM sqlite_master WHERE type = 'view' UNION ALL
SELECT made.name FROM sqlite_master AS made, pragma_table_xinfo(made.name) AS held
WHERE made.type = 'table' AND made.sql NOT LIKE 'CREATE VIRTUAL%' AND held.hidden > 1"""
_LONGEST = 4096  # bytes of a coordinate system


def check_polygons(path: Path) -> None:
    """Refuse a file that is not what its name says.

    Raises:
        InputError: it cannot be read, begins as no file of its format does, or has a name that means another.
    """
    check_name(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check the path and its permissions") from error
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_BEGINS[path.suffix.lower()]):
        raise InputError(
            f"{path}: not a polygon file that can be read: begins as no {path.suffix} does; wanted GeoJSON, "
            "GeoPackage, shapefile or FlatGeobuf"
        )
    if _BEGINS[path.suffix.lower()] == b"{" and _links(path):
        raise InputError(f"{path}: its coordinate system is an address, which is not asked; write it as EPSG:CODE")


def read_outlines(path: Path, option: str) -> Any:
    """The polygons of a file of one layer, made valid, as a GeoSeries in their coordinate system.

    Args:
        path: the file.
        option: how a person named it, for messages.

    Raises:
        InputError: no such file, none of polygons, of several layers or without a coordinate system.
    """
    import pyogrio
    import shapely

    named = f"{option} {path}"
    if not path.is_file():
        raise InputError(f"{named}: no such file; wanted polygons, {', '.join(POLYGONS)}")
    if path.suffix.lower() not in POLYGONS:
        raise InputError(f"{named}: wanted a file of polygons, {', '.join(POLYGONS)}; came {path.suffix or 'none'}")
    check_polygons(path)
    if path.suffix.lower() == ".gpkg":
        check_tables(path)
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind]
        if len(layers) > 1:
            raise InputError(f"{named}: has {len(layers)} layers; write the one that is meant to a file of its own")
        table = pyogrio.read_dataframe(path, columns=[])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{named}: not a file of polygons that can be read ({error})") from error
    except ValueError as error:
        raise InputError(f"{named}: holds no polygons ({error})") from error
    if getattr(table, "crs", None) is None:
        raise InputError(f"{named}: holds no polygons, or says no coordinate system; write it again with one")
    valid = table.geometry.force_2d().make_valid()
    polygons = valid[shapely.area(valid.to_numpy()) > 0]
    if polygons.empty:
        raise InputError(f"{named}: holds no polygons; give some with an area")
    return polygons


def check_tables(path: Path) -> None:
    """Refuse a GeoPackage that computes what it holds, for that may take any time and memory.

    Raises:
        InputError: it has a view or a computed column, or cannot be read.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            found = connection.execute(_COMPUTED).fetchone()
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); save or fetch it again") from error
    if found:
        raise InputError(f"{path}: {found[0]} is a view or has a computed column; wanted plain tables: save it as such")


def _links(path: Path) -> bool:
    """Whether a GeoJSON file has, or may have, a coordinate system that GDAL would fetch from an address."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return bool(_SPELLED.search(text)) or not all(
            _is_plain(text[found.end() : found.end() + _LONGEST]) for found in _CRS.finditer(text)
        )


def _is_plain(rest: bytes) -> bool:
    """Whether what follows the word is no member of that name, one of text or numbers, or a system by its name."""
    value = rest[1:].lstrip()
    if rest[:1] != b":" or value[:1] != b"{":
        return rest[:1] in (b",", b"}", b"]") or (rest[:1] == b":" and value[:1] in b'"-0123456789tfn')
    try:
        said, _ = json.JSONDecoder().raw_decode(value.decode("utf-8", "replace"))
    except ValueError:
        return False
    return str(said.get("type")).lower() in ("name", "epsg")
