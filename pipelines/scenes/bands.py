"""Bands in files, and the products that hold them: what is found, nothing chosen yet."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from odc.geo.geobox import GeoBox

from models.errors import InputError
from pipelines.grids import align
from pipelines.scenes import cubes, sensors

RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img")
AS_STORED = ("THERMAL_INFRARED_1", "THERMAL_INFRARED_2", "VV", "VH")
_WAVELENGTH = re.compile(r"\s*([\d.]+)\s*(nm|nanometers?|um|µm|micrometers?)\s*", re.IGNORECASE)
STAC_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "PNG", "JPEG")


@dataclass(frozen=True)
class Layer:
    """One band in one file.

    Attributes:
        name: band name, cloud layer ("FMASK", "SCL", "QA_PIXEL", "CLM") or None where nothing names it.
        path: the file or URL.
        index: band in the file, from 1.
        units: (scale, offset), reflectance = raw * scale + offset, by argument or catalogue; None until settled.
        table: the same by the sensor's product guide, used where neither `units` nor the file says.
        assumed: the same as in training, used where nothing else says.
        nodata: raw values without data, used where the file declares none.
        masked: whether the file's mask band applies.
        alpha: the file's band of transparency.
        wavelength: middle of the band in nm, where the file tells it.
        told: once settled: whether anything tells its units.
        trusted: False for files that a STAC item points to: drivers that read further files are refused.
    """

    name: str | None
    path: str
    index: int = 1
    units: tuple[float, float] | None = None
    table: tuple[float, float] | None = None
    assumed: tuple[float, float] | None = None
    nodata: tuple[float, ...] = ()
    masked: bool = True
    alpha: int | None = None
    wavelength: float | None = None
    told: bool = True
    trusted: bool = True


@dataclass(frozen=True)
class Product:
    """What one dated source holds: its bands as found, nothing chosen yet.

    Attributes:
        name: name for messages and for maps made from it.
        source: the file, folder or URL.
        date: day of acquisition, None where nothing tells.
        layers: its bands, in the order found.
        clouds: its cloud layer, None where there is none.
        named_by: what named the bands.
        notes: what a person should know.
        problem: why its reflectance cannot be worked out, or an empty text.
    """

    name: str
    source: str
    date: datetime.date | None
    layers: tuple[Layer, ...]
    clouds: Layer | None = None
    named_by: str = "band descriptions"
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Ask:
    """What the caller says about the files, for they may not say it themselves."""

    file_bands: tuple[str, ...] | None
    units: tuple[float, float] | None
    frames: int | None


def open_layer(layer: Layer) -> Any:
    """Open the file of a layer; what a catalogue points to must hold its pixels itself.

    Raises:
        InputError: the file is missing, no raster, or of a format that reads further files.
    """
    if layer.path.startswith(cubes.MARK):
        return cubes.opened(layer.path.removeprefix(cubes.MARK))
    if layer.trusted:
        return align.dataset(layer.path)
    try:
        return align.dataset(layer.path, drivers=STAC_DRIVERS)  # others are not even asked what it is
    except InputError as error:
        raise InputError(f"{error}; a STAC asset has to be a GeoTIFF or JPEG 2000") from error


def wavelength(source: Any, index: int) -> float | None:
    """Middle of a band in nm, by its tags or by a description such as '418.24 Nanometers'; None if untold."""
    tags = {key.lower(): text for key, text in source.tags(index).items()}
    imagery = source.tags(index, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")
    found = _WAVELENGTH.fullmatch(source.descriptions[index - 1] or "")
    text = tags.get("wavelength") or tags.get("center_wavelength") or tags.get("central_wavelength")
    unit = (tags.get("wavelength_units") or tags.get("wavelength_unit") or "").lower()
    if imagery:
        text, unit = imagery, "um"
    elif found and not text:
        text, unit = found[1], found[2].lower()
    try:
        number = float(text or "")
    except ValueError:
        return None
    micro = unit.startswith(("u", "µ", "micro")) or (not unit and number < 100)
    nanometres = number * 1000 if micro else number
    return nanometres if 100 < nanometres < 100_000 else None


def finest_grid(layers: Sequence[Layer]) -> GeoBox:
    """The grid of the band with the smallest pixels; the first of equals."""
    grids = [align.grid(open_layer(layer)) for layer in layers]
    return min(grids, key=lambda geobox: abs(geobox.affine.determinant))


def apart(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], Layer | None]:
    """Bands, and the cloud layer if there is one."""
    clouds = next((layer for layer in layers if layer.name in sensors.CLOUDS), None)
    return tuple(layer for layer in layers if layer.name not in sensors.CLOUDS), clouds
