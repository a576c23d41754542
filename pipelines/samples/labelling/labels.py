"""Labels on a scene's grid: class codes or values from rasters and polygons, and which label belongs to which image."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.errors import InputError
from pipelines.grids import align
from pipelines.grids.windows import Window
from pipelines.samples.labelling.polygons import Polygons, is_vector, other_ground, polygon_codes
from pipelines.samples.splits import some
from pipelines.scenes import cubes
from pipelines.scenes.bands import Layer, open_layer
from pipelines.scenes.layers import fill_of, settled


def read_labels(
    path: Path,
    geobox: GeoBox,
    window: Window,
    *,
    codes: Sequence[int],
    ignore: Sequence[int] = (),
    polygons: Polygons | None = None,
) -> np.ndarray:
    """Read class labels on the pixels of a window of a grid, by nearest pixel or by polygon.

    A code in `codes` is a class even where the file declares it as nodata. Where polygons overlap, the later counts.

    Args:
        path: a raster of codes, or polygons (GeoJSON, GeoPackage, shapefile, FlatGeobuf); where a file holds several
            variables, as NetCDF may, the layer names one.
        geobox: the grid of the scene.
        window: rows and columns of the grid.
        codes: class codes in the order of the model's classes.
        ignore: codes that mean "not labelled", besides the declared nodata.
        polygons: how polygons say their class.

    Returns:
        int32 (rows, columns): index into `codes`, -1 where not labelled.

    Raises:
        InputError: a code is neither in `codes` nor ignored, the labels are of other ground, or the column is missing.
    """
    if is_vector(path):
        values = polygon_codes(path, geobox, window, polygons or Polygons())
    else:
        values = _raster_codes(path, geobox, window, codes, polygons.layer if polygons else None)
    labelled = np.isfinite(values) & ~np.isin(values, ignore)
    out = np.full(values.shape, -1, np.int32)
    for index, code in enumerate(codes):
        out[labelled & (values == code)] = index
    strangers = [f"{value:g}" for value in np.unique(values[labelled & (out < 0)])]
    if strangers:  # they would vanish from training without a word
        shown = ", ".join(strangers[:8]) + (f" and {len(strangers) - 8} more" if len(strangers) > 8 else "")
        wanted = ", ".join(str(code) for code in codes)
        raise InputError(f"{path}: holds code {shown}, classes are {wanted}; add the code to the classes or to ignore")
    return out


def read_values(
    path: Path, geobox: GeoBox, window: Window, *, nodata: Sequence[float] = (), layer: str | None = None
) -> np.ndarray:
    """Read the values of a regression on the pixels of a window of a grid, by nearest pixel.

    Scale and offset of the file's header are applied. Besides what is declared, -9999 and the type's extremes mean
    "not measured" where they lie along the edge of the file.

    Args:
        path: a raster with the values in its first band.
        geobox: the grid of the scene.
        window: rows and columns of the grid.
        nodata: values as stored that mean "not measured", besides the declared nodata and NaN.
        layer: the variable of a file that holds several, as NetCDF may.

    Returns:
        float32 (rows, columns), NaN where not labelled.

    Raises:
        InputError: the labels are of other ground, or there is no such variable.
    """
    source, at = _raster(path, geobox, layer)
    mark = cubes.MARK if source.driver == cubes.Cube.driver else ""
    void = (*nodata, *_fill_values(f"{mark}{path}", at, path.stat().st_mtime_ns))
    (values,) = align.read_onto(source, geobox, window, indexes=[at], resampling=Resampling.nearest, nodata=void)
    scale, offset = np.float32(source.scales[at - 1]), np.float32(source.offsets[at - 1])
    return np.asarray(values * scale + offset)


@functools.lru_cache(maxsize=4096)
def _fill_values(path: str, index: int, changed: int) -> tuple[float, ...]:
    """Values of fill in a band of a label raster; a new `changed` renews the cache."""
    layer = settled(Layer(None, path, index))
    fill = fill_of((layer,), align.grid(open_layer(layer)))
    return fill.values if fill else ()


def pair(root: Path, images: str, labels: str | None, *, places: bool = False) -> list[tuple[Path, Path | None]]:
    """Pair images with labels by what the wildcards of two patterns matched.

    `S2/*_S2Hand.tif` and `Labels/*_LabelHand.tif` pair where `*` stands for the same text; patterns with different
    numbers of wildcards pair by their last one. A label pattern without wildcard is one file for all images.

    Args:
        root: the folder that the patterns start from.
        images: pattern of the images, with `*`, `?` or `**`.
        labels: pattern of the labels; None gives None for each image.
        places: images may be folders, one for each place.

    Returns:
        (image, label) in the order of the images' paths.

    Raises:
        InputError: nothing matches, the patterns share files, or labels are missing, left over or doubled.
    """
    pictures = _matches(root, images, "images", folders=places)
    if labels is None:
        return [(path, None) for path in pictures]
    if not re.search(r"[*?\[]", labels):
        return [(path, _matches(root, labels, "labels")[0]) for path in pictures]
    marks = _matches(root, labels, "labels")
    if shared := sorted(set(pictures) & set(marks)):
        both = f"both image ({images}) and label ({labels})"
        raise InputError(f"{root}: {_some(shared)} {both}; make the patterns differ")
    whole = len(_TOKEN.findall(images)) == len(_TOKEN.findall(labels))
    by_image, by_label = _keyed(root, images, pictures, whole), _keyed(root, labels, marks, whole)
    missing, spare = [k for k in by_image if k not in by_label], [k for k in by_label if k not in by_image]
    if missing or spare:
        faults = [f"no label for {_some([by_image[k] for k in missing])}"] if missing else []
        faults += [f"no image for {_some([by_label[k] for k in spare])}"] if spare else []
        raise InputError(
            f"{root}: {len(pictures)} images ({images}), {len(marks)} labels ({labels}): {'; '.join(faults)}; "
            "add the missing files or narrow the patterns"
        )
    return [(path, by_label[key]) for key, path in by_image.items()]


def folder_classes(root: Path, images: str) -> list[tuple[Path, str]]:
    """Images with the class that their folder is called by.

    Args:
        root: the folder that the pattern starts from.
        images: pattern such as `*/*.tif`.

    Raises:
        InputError: nothing matches, an image lies in no folder below the root, or there is one folder only.
    """
    pictures = _matches(root, images, "images")
    loose = [path for path in pictures if path.parent == root]
    if loose:
        raise InputError(f"{root}: {_some(loose)} in no class folder; wanted a pattern such as */*.tif, came {images}")
    pairs = [(path, path.parent.name) for path in pictures]
    names = sorted({name for _, name in pairs})
    if len(names) < 2:
        raise InputError(f"{root}: {len(names)} class folder ({names[0]}) matches {images}; at least two are wanted")
    return pairs


def _raster(path: Path, geobox: GeoBox, layer: str | None) -> tuple[Any, int]:
    """Open a label raster that shares ground with the grid; and its band, of several variables the named one."""
    source, index = align.dataset(str(path)), 1
    if source.driver == "netCDF" and (layer or source.subdatasets):
        source = cubes.opened(str(path))
        names = [*source.descriptions]
        if layer not in names:
            told = "none is named" if layer is None else f"{layer} is none of them"
            raise InputError(f"{path}: holds the variables {', '.join(names)}, {told}; data.layer names the labels'")
        index = names.index(layer) + 1
    if not align.overlaps(source, geobox):
        raise other_ground(path)
    return source, index


def _raster_codes(path: Path, geobox: GeoBox, window: Window, codes: Sequence[int], layer: str | None) -> np.ndarray:
    """Codes of a raster as float32, NaN where nothing is labelled."""
    source, at = _raster(path, geobox, layer)
    listed = source.nodatavals[at - 1] in codes
    how, said = Resampling.nearest, not listed
    (read,) = align.read_onto(source, geobox, window, indexes=[at], resampling=how, declared=said, masked=said)
    return np.asarray(read)  # (rows, columns)


def _matches(root: Path, pattern: str, what: str, *, folders: bool = False) -> list[Path]:
    """Files, or folders too, below a folder that match a pattern, sorted."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; check the path")
    if not pattern or Path(pattern).is_absolute():
        raise InputError(f"{what} {pattern!r}: wanted a pattern that starts from {root}, such as *_image.tif")
    found = sorted(path for path in root.glob(pattern) if path.is_file() or folders)
    if not found:
        raise InputError(f"{root}: no {what} match {pattern}; check folder and pattern")
    return found


_TOKEN = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])")
_TOKEN_REGEX = {"**/": r"((?:.*/)?)", "**": r"(.*)", "*": r"([^/]*)", "?": r"([^/])"}


def _keyed(root: Path, pattern: str, paths: Sequence[Path], whole: bool) -> dict[tuple[str, ...], Path]:
    """Files by what the wildcards matched (`whole`), or by what the last one matched."""
    parts = [part for part in _TOKEN.split(pattern) if part]  # wildcards and the text between
    sets = {part: f"({re.sub('^.!', '[^', part)})" for part in parts if part[0] == "["}
    quoted = ((_TOKEN_REGEX | sets).get(part, re.escape(part)) for part in parts)
    regex = re.compile("".join(quoted))
    keyed: dict[tuple[str, ...], Path] = {}
    for path in paths:
        found = regex.fullmatch(path.relative_to(root).as_posix())
        groups = found.groups() if found else (path.stem,)
        key = groups if whole else groups[-1:]
        if key in keyed:
            both = f"{keyed[key].name} and {path.name}"
            raise InputError(f"{root}: {both} match {pattern} as the same; narrow the pattern")
        keyed[key] = path
    return keyed


def _some(paths: Sequence[Path]) -> str:
    """Up to three names, and how many more."""
    return some([path.name for path in paths])
