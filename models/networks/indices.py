"""Which indices are made of bands, and how large the neighbourhoods are whose statistics are told."""

from __future__ import annotations

from collections.abc import Mapping

# Normalised differences (a - b) / (a + b) by band names, with the index that each is known as.
INDICES: Mapping[str, tuple[str, str]] = {
    "NDVI": ("NIR_NARROW", "RED"),  # vegetation: Rouse et al. 1974
    "NDWI": ("GREEN", "NIR_NARROW"),  # open water: McFeeters 1996, doi:10.1080/01431169608948714
    "MNDWI": ("GREEN", "SWIR_1"),  # water beside built-up land: Xu 2006, doi:10.1080/01431160600589179
    "NDBI": ("SWIR_1", "NIR_NARROW"),  # built-up land: Zha et al. 2003, doi:10.1080/01431160304987
    "NBR": ("NIR_NARROW", "SWIR_2"),  # burned land: Key and Benson 2006
    "NDTI": ("SWIR_1", "SWIR_2"),  # tillage and dry matter: van Deventer et al. 1997
}


SIDES = (3, 9, 21, 41)  # pixels along the neighbourhoods; `detail` makes their means of one another
TEXTURES = (3, 9, 21)  # the same, whose spread is told of a whole tile
PERCENTILES = (5, 25, 50, 75, 95)  # of bands and indices over a whole tile
