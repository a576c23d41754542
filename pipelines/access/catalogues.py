"""Where scenes are looked for: catalogues by name, products and their collections, and on what terms they come.

Catalogues: https://earth-search.aws.element84.com/v1, https://planetarycomputer.microsoft.com/docs (signing:
reference/sas), https://cmr.earthdata.nasa.gov/stac/docs. Terms: Sentinel Data Legal Notice; USGS "Landsat data policy";
NASA Earth Science Data and Information Policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.errors import InputError
from models.types import nearest


@dataclass(frozen=True)
class Catalogue:
    """A STAC API, or a static catalogue.

    Attributes:
        url: its root.
        collections: names of a product's collections in it, by product.
        signs: address that gives a signature for a collection's files; empty where none is wanted.
        signed: hosts that are given the signature, with all below them.
    """

    url: str
    collections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    signs: str = ""
    signed: tuple[str, ...] = ()


CATALOGUES: Mapping[str, Catalogue] = {
    "earth_search": Catalogue("https://earth-search.aws.element84.com/v1", {"s2": ("sentinel-2-l2a",)}),
    "planetary_computer": Catalogue(
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        {"s2": ("sentinel-2-l2a",), "landsat": ("landsat-c2-l2",), "hls": ("hls2-s30", "hls2-l30")},
        signs="https://planetarycomputer.microsoft.com/api/sas/v1/token/{collection}",
        signed=("blob.core.windows.net",),
    ),
    "lpdaac": Catalogue("https://cmr.earthdata.nasa.gov/stac/LPCLOUD", {"hls": ("HLSS30_2.0", "HLSL30_2.0")}),
}


@dataclass(frozen=True)
class Offered:
    """A product as it is asked for.

    Attributes:
        catalogue: where it is looked for when nobody says.
        sensors: keys of `sensors.SENSORS` that it is.
        licence: SPDX's name of its licence, or other.
        terms: where its terms are.
        attribution: what has to be said of it; {year} is that of the scene.
    """

    catalogue: str
    sensors: tuple[str, ...]
    licence: str
    terms: str
    attribution: str


PRODUCTS: Mapping[str, Offered] = {
    "hls": Offered(
        "lpdaac",
        ("S30", "L30"),
        "CC0-1.0",
        "https://www.earthdata.nasa.gov/engage/open-data-services-software-policies/data-use-guidance",
        "Harmonized Landsat and Sentinel-2 (HLS) v2.0, NASA LP DAAC, doi:10.5067/HLS/HLSS30.002, "
        "doi:10.5067/HLS/HLSL30.002",
    ),
    "s2": Offered(
        "earth_search",
        ("S2",),
        "other",
        "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice",
        "Contains modified Copernicus Sentinel data {year}",
    ),
    "landsat": Offered(
        "planetary_computer",
        ("OLI", "TM"),
        "other",
        "https://www.usgs.gov/centers/eros/data-citation",
        "Landsat Collection 2 Level-2 courtesy of the U.S. Geological Survey",
    ),
}


@dataclass(frozen=True)
class Archive:
    """Weather as one Zarr store, or as dated files of a folder.

    Attributes:
        url: its address; empty where no open one is known. {collection} is the one that is asked for, %Y and %m are
            year and month.
        advice: what to give where there is no address.
        licence: SPDX's name of its licence, or other.
        attribution: what has to be said of it; {year} is that of the times.
    """

    url: str
    licence: str
    attribution: str
    advice: str = ""


# ERA5: https://github.com/google-research/arco-era5 (a chunk is an hour of the globe). MERRA-2: GES DISC,
# https://disc.gsfc.nasa.gov/datasets?project=MERRA-2.
ARCHIVES: Mapping[str, Archive] = {
    "era5": Archive(
        "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3",
        "CC-BY-4.0",
        "Contains modified Copernicus Climate Change Service information {year}",
    ),
    "era5_land": Archive(
        "",
        "CC-BY-4.0",
        "Contains modified Copernicus Climate Change Service information {year}",
        "no copy is known here that is open without an account; --catalogue ADDRESS names a Zarr store (https://, "
        "s3://, gs://) or a folder of NetCDF files (https://.../); or pass files of the Climate Data Store",
    ),
    "merra2": Archive(
        "https://data.gesdisc.earthdata.nasa.gov/data/MERRA2/{collection}/%Y/%m/",
        "CC0-1.0",
        "MERRA-2, NASA Global Modeling and Assimilation Office (GMAO), GES DISC",
        "--collection names one, such as M2T1NXSLV.5.12.4 (T2M, hourly) or M2T1NXFLX.5.12.4 (rain); "
        "or --catalogue ADDRESS a Zarr store or a folder of NetCDF files (https://.../)",
    ),
}


def catalogue_of(product: str, said: str | None) -> Catalogue:
    """The catalogue of a product, by name or address; its usual one where nobody says.

    Raises:
        InputError: no such catalogue, or one that does not have the product.
    """
    name = said or PRODUCTS[product].catalogue
    if re.match(r"https?://[^/]", name):
        return Catalogue(name)
    if name not in CATALOGUES:
        raise InputError(f"--catalogue {name}: {nearest(name, CATALOGUES)}, or the address of any, https://...")
    if product not in CATALOGUES[name].collections:
        having = ", ".join(key for key, one in CATALOGUES.items() if product in one.collections)
        raise InputError(f"--catalogue {name}: has no {product}; it is at {having}")
    return CATALOGUES[name]


def product_of(name: str) -> Offered:
    """A product by its name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in PRODUCTS:
        raise InputError(f"--product {name}: {nearest(name, (*PRODUCTS, *ARCHIVES))}")
    return PRODUCTS[name]
