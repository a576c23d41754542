"""A part of a scene as the one GeoTIFF that a page is tried with: bands by name, in the model's unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio

from models.bundle import Bundle
from models.errors import InputError
from pipelines.grids.align import crop
from pipelines.scenes.bands import AS_STORED
from pipelines.scenes.reading import Reading
from pipelines.scoring.opening import open_for, warnings_about

SIDE = 512  # pixels at most
_VOID = -32768


def write_sample(path: Path, bundle: Bundle, source: str, reading: Reading, *, say: Callable[[str], None]) -> None:
    """Write the middle of a scene, at most `SIDE` pixels a side; clouds that are left out are no data.

    Raises:
        InputError: the scene does not fit the model (see `open_for`), or nothing is valid there.
    """
    with open_for(bundle, source, reading) as scene:
        for note in warnings_about(scene, bundle.spec, as_is=reading.as_is):
            say(f"{scene.name}: {note}")
        down, across = ((max(side - SIDE, 0) // 2, min(side, SIDE)) for side in scene.shape)
        window = slice(down[0], sum(down)), slice(across[0], sum(across))
        x, valid = scene.read(window)
        if not valid.any():
            raise InputError(f"{source}: no valid pixel in its middle, {SIDE} pixels a side; name another scene")
        floating = any(band in AS_STORED for band in scene.bands)
        values, void = (x[:, 0], np.nan) if floating else (np.rint(x[:, 0]).clip(_VOID + 1, -_VOID - 1), _VOID)
        dtype, geobox = "float32" if floating else "int16", crop(scene.geobox, window)
        values = np.where(valid, values, void).astype(dtype)
        crs = None if geobox.crs is None else geobox.crs.to_wkt()
        place = {"crs": crs, "transform": geobox.affine, "height": valid.shape[0], "width": valid.shape[1]}
        how = {"count": len(scene.bands), "dtype": dtype, "nodata": void, "compress": "deflate", "tiled": True}
        with rasterio.open(path, "w", driver="GTiff", predictor=3 if floating else 2, **place, **how) as made:
            made.write(values)
            made.descriptions = scene.bands
            made.scales = [1.0 if band in AS_STORED else 1e-4 for band in scene.bands]
            if date := scene.dates[0]:
                made.update_tags(ACQUISITION_DATE=date.isoformat())
