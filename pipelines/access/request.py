"""What is asked of catalogues and archives. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PRITHVI = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        place: west,south,east,north or lat,lon,km (a square that reaches km each way), or a file of polygons.
        dates: FROM/TO, each YYYY-MM-DD; a month or a year counts whole.
        product: scenes of hls, s2 or landsat; weather of era5, era5_land or merra2.
        out: folder for what is fetched.
        bands: names of bands; those of Prithvi when not given.
        variables: names of weather fields, as their archive has them.
        max_cloud: percent of what a scene shows of the place that clouds may hide.
        catalogue: earth_search, planetary_computer, lpdaac, or the address of any STAC API or static catalogue; the
            product's usual one when not given. For weather the address of a Zarr store, https://, s3:// or gs://, or of
            a folder of dated NetCDF files, https://.../, in which %Y and %m are year and month.
        collection: names of collections to look in; those of the product when not given. Of MERRA-2 the one to take.
        max_gb: how much may be fetched.
        dry_run: tell what would be fetched, how much, and how much of the place is seen clear.
        overwrite: replace what was fetched to OUT for another request.
    """

    place: str
    dates: str
    product: str
    out: Path
    bands: Sequence[str] = PRITHVI
    variables: Sequence[str] = ()
    max_cloud: float = 100.0
    catalogue: str | None = None
    collection: Sequence[str] = ()
    max_gb: float = 20.0
    dry_run: bool = False
    overwrite: bool = False
