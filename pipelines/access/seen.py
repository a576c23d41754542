"""How much of a place a scene shows, and how much of that clear of clouds, by its cloud layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from rasterio.enums import Resampling
from rasterio.features import geometry_mask
from rasterio.vrt import WarpedVRT

from models.types import Mask
from pipelines.access.place import Place
from pipelines.scenes.layers import hides
from pipelines.scenes.sensors import CLOUDS

FILL = {"FMASK": 255, "SCL": 0, "QA_PIXEL": 1, "CLM": 255}  # of a cloud layer where nothing was seen


@dataclass(frozen=True)
class Seen:
    """What a scene shows of a place.

    Attributes:
        share: of the place, that it shows.
        clear: of the place, that it shows clear.
        cells: of the grid of the place, those that it shows clear; as far as an item tells.
    """

    share: float
    clear: float
    cells: Mask

    @property
    def clouds(self) -> float:
        """Percent of what it shows that clouds hide."""
        return 100 * (1 - self.clear / self.share) if self.share else 100.0


def by_layer(source: Any, name: str, index: int, place: Place) -> Seen:
    """By an open cloud layer, of which no more pixels are read than the grid of the place has cells.

    Args:
        source: the open raster.
        name: FMASK, SCL, QA_PIXEL or CLM.
        index: its band.
        place: ground.
    """
    height, width = place.grid.shape
    fill = FILL[name]
    onto = {"crs": "EPSG:4326", "transform": place.grid.transform, "height": height, "width": width}
    with WarpedVRT(source, **onto, resampling=Resampling.nearest, src_nodata=fill, nodata=fill) as warped:
        values = warped.read(index).astype(np.int64)
    shown = values != fill
    clear = shown & ~hides(values, CLOUDS[name])
    return Seen(place.share(shown), place.share(clear), clear)


def by_item(item: Mapping[str, Any], place: Place) -> Seen:
    """By what an item says of itself, where it has no cloud layer; all is clear where it does not tell."""
    shape = place.grid.shape
    try:
        outline = shapely.from_geojson(json.dumps(item.get("geometry")))
        cells = geometry_mask([outline], shape, place.grid.transform, invert=True)
    except (shapely.errors.ShapelyError, ValueError, TypeError, AttributeError):
        cells = np.ones(shape, bool)
    share, percent = place.share(cells), (item.get("properties") or {}).get("eo:cloud_cover")
    hidden = float(percent) / 100 if isinstance(percent, int | float) and 0 <= percent <= 100 else 0.0
    return Seen(share, share * (1 - hidden), cells)
