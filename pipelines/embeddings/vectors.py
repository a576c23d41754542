"""One vector a place: the mean of the tokens of a scene, or of those that a polygon covers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.files import check_target, replacing
from models.types import Array, Say
from pipelines.embeddings.stored import read_stored
from pipelines.grids.tokens import Tokens
from pipelines.outputs.geopackage import write_layer
from pipelines.samples.labelling.polygons import read_shapes

FINER = 8  # cells along a token by which its share in a polygon is found
_OURS = re.compile("fid|geom|scene|longitude|latitude|feature_.*", re.IGNORECASE)  # columns
COLUMNS = 1900  # that a GeoPackage holds, with room for what a person has of polygons
_KINDS = (".csv", ".gpkg", ".parquet")


def check_vectors(file: Path | None, places: Path | None, *, overwrite: bool) -> None:
    """Refuse a table that could not be written at the end.

    Raises:
        InputError: the name ends in something else, the file is there, or polygons are given and no table.
    """
    if places and not file:
        raise InputError(f"{places}: polygons of vectors, and no table for them; name one: --vectors places.gpkg")
    if file and file.suffix.lower() not in _KINDS:
        told = f"{', '.join(_KINDS[:-1])} or {_KINDS[-1]}"
        raise InputError(f"{file}: wanted a name that ends in {told}; rename it")
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        check_target(file, file.suffix.lower(), overwrite=overwrite)


def write_vectors(
    file: Path, results: Sequence[Mapping[str, Any]], places: Path | None, *, overwrite: bool, say: Say
) -> None:
    """Write a row for each scene, or for each polygon on a scene: its name, where its middle is, and its vector.

    A GeoPackage and a GeoParquet hold the outline, too. A polygon weighs each token by how much of it lies inside; one
    that lies between the cells of that is told by the token under its middle. Where no token was seen there is no row.

    Args:
        file: a CSV, a GeoPackage or a GeoParquet.
        results: what `embed` tells of scenes.
        places: polygons, in any coordinate system; their columns come along.
        overwrite: replace a file that is there.
        say: is told of polygons without a vector.

    Raises:
        InputError: see `polygons.read_shapes`; more features than a GeoPackage has columns.
    """
    import geopandas
    import pandas

    frames = []
    for result in results:
        if result["status"] == "failed":
            continue
        tokens = read_stored(Path(result["file"]))
        if file.suffix.lower() == ".gpkg" and len(tokens.values) > COLUMNS:
            told = f"{len(tokens.values)} features, and a GeoPackage holds {COLUMNS} columns"
            raise InputError(f"{file}: {told}; name a .csv or .parquet")
        frames.append(_rows(Path(result["file"]), tokens, places, say))
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        raise InputError(f"{file}: no place has a vector: no token was seen in any; look at the scenes with inspect")
    table = geopandas.GeoDataFrame(pandas.concat(frames, ignore_index=True), crs=frames[0].crs)
    check_target(file, file.suffix.lower(), overwrite=overwrite)
    with replacing(file) as draft:
        if file.suffix.lower() == ".gpkg":
            write_layer(file, draft, table, "vectors")
        elif file.suffix.lower() == ".parquet":
            table.to_parquet(draft, index=False)
        else:
            table.drop(columns="geometry").to_csv(draft, index=False)


def _rows(file: Path, tokens: Tokens, places: Path | None, say: Say) -> Any:
    """The vectors of a scene as a table, in longitude and latitude where its ground has a place."""
    import geopandas
    import pandas

    scene, crs = file.stem.removesuffix("_tokens"), tokens.geobox.crs and str(tokens.geobox.crs)
    if places:
        shapes = read_shapes(places, tokens.geobox)
    else:
        shapes = geopandas.GeoDataFrame(geometry=[tokens.geobox.extent.geom], crs=crs)
    found = [*_means(tokens, shapes.geometry, whole=not places)]
    seen = [i for i, vector in enumerate(found) if vector is not None]
    if len(seen) < len(found):
        say(f"{file.name}: {len(found) - len(seen)} of {len(found)} places without a token that was seen are left out")
    kept = shapes.iloc[seen].reset_index(drop=True)
    kept = kept.rename(columns={name: f"{name}_given" for name in kept.columns if _OURS.fullmatch(name)})
    vectors = np.array([found[i] for i in seen], np.float32).reshape(len(seen), -1)
    # Of the shape that is there: the middle of a ring may lie outside of it.
    middles = kept.geometry.representative_point()
    middles = middles.to_crs("EPSG:4326") if crs else middles
    about = kept.drop(columns="geometry").assign(scene=scene, longitude=middles.x, latitude=middles.y)
    outlines = kept.geometry.to_crs("EPSG:4326") if crs else kept.geometry
    features = pandas.DataFrame(vectors, columns=[f"feature_{i}" for i in range(vectors.shape[1])])
    return geopandas.GeoDataFrame(
        pandas.concat((about, features), axis=1), geometry=outlines.values, crs="EPSG:4326" if crs else None
    )


def _means(tokens: Tokens, shapes: Any, *, whole: bool) -> Iterator[NDArray[np.float64] | None]:
    """The mean of known tokens under each shape, weighed by their shares; None where none was seen."""
    for shape in shapes:
        share = np.ones(tokens.known.shape) if whole else _shares(tokens, shape)
        share = np.where(tokens.known, share, 0)
        values: Array = tokens.values[:, share > 0]
        yield values.astype(np.float64) @ share[share > 0] / share.sum() if share.any() else None


def _shares(tokens: Tokens, shape: Any) -> NDArray[np.float64]:
    """How much of each token lies inside a shape, (h, w)."""
    from rasterio.features import rasterize

    height, width = tokens.known.shape
    shares = np.zeros((height, width))
    finer = tokens.geobox.affine * type(tokens.geobox.affine).scale(1 / FINER)
    left, bottom, right, top = shape.bounds
    corners = [~tokens.geobox.affine * (x, y) for x in (left, right) for y in (bottom, top)]
    (west, east), (first, last) = (
        np.clip(np.floor([min(side), max(side)]), 0, size - 1).astype(int)
        for side, size in zip(zip(*corners, strict=True), (width, height), strict=True)
    )
    under = (last - first + 1, east - west + 1)
    there = finer * type(finer).translation(west * FINER, first * FINER)
    burnt = rasterize([shape], out_shape=tuple(FINER * side for side in under), transform=there)
    shares[first : last + 1, west : east + 1] = burnt.reshape(under[0], FINER, under[1], FINER).mean((1, 3))
    if not shares.any():
        middle = shape.representative_point()
        column, row = (int(np.floor(value)) for value in ~tokens.geobox.affine * (middle.x, middle.y))
        if 0 <= row < height and 0 <= column < width:
            shares[row, column] = 1
    return shares
