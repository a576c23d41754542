"""What band is called what, by which sensor: names, file names, units, fill values and cloud layers. Tables, no files.

Band names are those that Prithvi and terratorch use (BLUE, GREEN, RED, NIR_NARROW, SWIR_1, SWIR_2, ...).
Sources: HLS Product User Guide 2.0 (bands, scale, fill and Fmask bits); Sentinel-2 Products Specification Document and
the Level-2A algorithm overview (bands, BOA_ADD_OFFSET from processing baseline 04.00 on, SCL classes); Landsat 8-9 and
Landsat 4-7 Collection 2 Level 2 Science Product Guides (bands, scale and offset, QA_PIXEL bits), those of Collection 1
and the Landsat 8-9 Data Users Handbook (Level-1: rescaling by the MTL, the sun's elevation); the STAC `eo` extension
(common names).
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

NIR = "NIR"
"""What a band called just 'NIR' is: narrow or broad, whichever is wanted, as long as a file has no other infrared."""

SENTINEL2 = {
    "B01": "COASTAL_AEROSOL",
    "B02": "BLUE",
    "B03": "GREEN",
    "B04": "RED",
    "B05": "RED_EDGE_1",
    "B06": "RED_EDGE_2",
    "B07": "RED_EDGE_3",
    "B08": "NIR_BROAD",
    "B8A": "NIR_NARROW",
    "B09": "WATER_VAPOR",
    "B10": "CIRRUS",
    "B11": "SWIR_1",
    "B12": "SWIR_2",
}
LANDSAT_OLI = {
    "B01": "COASTAL_AEROSOL",
    "B02": "BLUE",
    "B03": "GREEN",
    "B04": "RED",
    "B05": "NIR_NARROW",
    "B06": "SWIR_1",
    "B07": "SWIR_2",
}
HLS_L30 = LANDSAT_OLI | {"B09": "CIRRUS", "B10": "THERMAL_INFRARED_1", "B11": "THERMAL_INFRARED_2"}
# The near infrared of TM and ETM+ (0.77-0.90 um) is wider than OLI's; USGS gives both the common name nir08.
LANDSAT_TM = {"B01": "BLUE", "B02": "GREEN", "B03": "RED", "B04": "NIR_NARROW", "B05": "SWIR_1", "B07": "SWIR_2"}


@dataclass(frozen=True)
class Sensor:
    """A product family: its bands by code, and how its numbers turn into surface reflectance.

    Attributes:
        name: how the family is called in messages.
        bands: band code ("B02") to band name ("BLUE").
        scale: reflectance = raw * scale + offset; None where each product has its own.
        offset: see `scale`. Sentinel-2's depends on the processing baseline: see `sentinel2_offset`.
        nodata: the raw value that means "no data" where a file does not say.
        clouds: the code of its cloud layer.
    """

    name: str
    bands: dict[str, str]
    scale: float | None
    offset: float
    nodata: float
    clouds: str


SENSORS = {
    "S30": Sensor("HLS S30", SENTINEL2, 0.0001, 0.0, -9999.0, "FMASK"),
    "L30": Sensor("HLS L30", HLS_L30, 0.0001, 0.0, -9999.0, "FMASK"),
    "S2": Sensor("Sentinel-2", SENTINEL2, 0.0001, 0.0, 0.0, "SCL"),
    "OLI": Sensor("Landsat 8-9 Collection 2", LANDSAT_OLI, 0.0000275, -0.2, 0.0, "QA_PIXEL"),
    "TM": Sensor("Landsat 4-7 Collection 2", LANDSAT_TM, 0.0000275, -0.2, 0.0, "QA_PIXEL"),
    "OLI_C1": Sensor("Landsat 8 Collection 1 surface reflectance", LANDSAT_OLI, 0.0001, 0.0, -9999.0, ""),
    "TM_C1": Sensor("Landsat 4-7 Collection 1 surface reflectance", LANDSAT_TM, 0.0001, 0.0, -9999.0, ""),
    "OLI_L1": Sensor("Landsat 8-9 Level-1", LANDSAT_OLI, None, 0.0, 0.0, "QA_PIXEL"),
    "TM_L1": Sensor("Landsat 4-7 Level-1", LANDSAT_TM, None, 0.0, 0.0, "QA_PIXEL"),
}
LEVEL1 = ("OLI_L1", "TM_L1")


@dataclass(frozen=True)
class CloudCode:
    """Values of a cloud layer that hide the ground: any of `bits` set, or one of `classes`; `adjacent` are optional."""

    bits: int = 0
    classes: tuple[int, ...] = ()
    adjacent: int = 0


# Fmask: 0 cirrus, 1 cloud, 2 adjacent to cloud or shadow, 3 shadow (255, all bits, is fill).
# SCL: 0 no data, 1 saturated, 3 shadow, 8 and 9 cloud, 10 thin cirrus.
# QA_PIXEL: 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 shadow.
# CLM of MAJA (THEIA): all bits are kinds of clouds and of their shadows.
CLOUDS = {
    "FMASK": CloudCode(bits=0b0000_1011, adjacent=0b0000_0100),
    "SCL": CloudCode(classes=(0, 1, 3, 8, 9, 10)),
    "QA_PIXEL": CloudCode(bits=0b0001_1101, adjacent=0b0000_0010),
    "CLM": CloudCode(bits=0b1111_1111),
}

_ALIASES = {
    "COASTAL_AEROSOL": "coastal aerosol coastalaerosol ultrablue coastalblue",
    "BLUE": "blue",
    "GREEN": "green",
    "RED": "red",
    "RED_EDGE_1": "rededge1 rededge071 re1 vegetationrededge1",
    "RED_EDGE_2": "rededge2 rededge075 re2 vegetationrededge2",
    "RED_EDGE_3": "rededge3 rededge078 re3 vegetationrededge3",
    "NIR_BROAD": "nirbroad broadnir",
    "NIR_NARROW": "nirnarrow narrownir nir08",
    NIR: "nir nearinfrared",
    "WATER_VAPOR": "watervapor watervapour nir09",
    "CIRRUS": "cirrus",
    "SWIR_1": "swir1 swir16 shortwaveinfrared1",
    "SWIR_2": "swir2 swir22 shortwaveinfrared2",
    "THERMAL_INFRARED_1": "thermalinfrared1 lwir11 tir1 tirs1",
    "THERMAL_INFRARED_2": "thermalinfrared2 lwir12 tir2 tirs2",
    "VV": "vv",
    "VH": "vh",
}
BANDS = tuple(band for band in _ALIASES if band != NIR)
# Middle of the bands in nm: Sentinel-2 MSI, whose bands HLS shares.
WAVELENGTHS = {
    "COASTAL_AEROSOL": 443.0,
    "BLUE": 490.0,
    "GREEN": 560.0,
    "RED": 665.0,
    "RED_EDGE_1": 705.0,
    "RED_EDGE_2": 740.0,
    "RED_EDGE_3": 783.0,
    "NIR_BROAD": 842.0,
    "NIR_NARROW": 865.0,
    "WATER_VAPOR": 945.0,
    "CIRRUS": 1375.0,
    "SWIR_1": 1610.0,
    "SWIR_2": 2190.0,
}
_BY_ALIAS = {alias: band for band, names in _ALIASES.items() for alias in names.split()}
_CLOUD_ALIASES = {"fmask": "FMASK", "hlsfmask": "FMASK", "scl": "SCL", "qapixel": "QA_PIXEL", "clm": "CLM"}


def band_name(text: str) -> str | None:
    """The band that a plain name means ('Blue', 'NIR narrow', 'swir16'), or None. Codes such as 'B05' need a sensor.

    Case, spaces, underscores, hyphens and points do not matter; 'B02 - Blue', 'Band 2 (Blue)' and 'Blue (490 nm)' are
    read as 'Blue'.
    """
    text = _LENGTH.sub("", text)
    parts = re.fullmatch(r"\s*(?:b|band)[ _]?\d{1,2}a?\s*[ _\-:(]+\s*([a-z].*?)\)?\s*", text, flags=re.IGNORECASE)
    return _BY_ALIAS.get(_squeeze(text)) or (_BY_ALIAS.get(_squeeze(parts[1])) if parts else None)


_LENGTH = re.compile(r"[(\[]?\s*\d+(?:\.\d+)?\s*(?:nm|nanometers?|[uµ]m|micrometers?)\s*[)\]]?", flags=re.IGNORECASE)


def band_code(text: str) -> str | None:
    """'B2', 'b02', 'Band 8A', 'SR_B4' as a two-figure code ('B02', 'B8A', 'B04'), or None where the text is no code.

    Earth Engine's stacks put the image's number or name before a code ('0_B2', '20210705T1_B2') or a number after it
    ('B2_1').
    """
    parts = _CODE.fullmatch(text.strip())
    return None if parts is None else f"B{parts[1]}A" if parts[2] else f"B{int(parts[1]):02d}"


_CODE = re.compile(
    r"(?:\d+_|\w*\d{8}\w*_)?(?:sr[ _.-]?)?(?:b|band)[ _.-]?0?(\d{1,2})(a?)(?:_\d+)?", flags=re.IGNORECASE
)


def cloud_code(text: str) -> str | None:
    """'FMASK', 'SCL', 'QA_PIXEL' or 'CLM' where a name says one of them, else None."""
    return _CLOUD_ALIASES.get(_squeeze(text))


def aliases() -> dict[str, list[str]]:
    """What each band and cloud layer may be called, in small letters and figures alone."""
    clouds = {code: [alias for alias, of in _CLOUD_ALIASES.items() if of == code] for code in CLOUDS}
    return {band: names.split() for band, names in _ALIASES.items()} | clouds


def tidy(name: str) -> str:
    """The band name as written in a Spec: a known band's name, else the text in capitals with underscores."""
    return band_name(name) or re.sub(r"\W+", "_", name.strip()).upper()


def name_bands(texts: Sequence[str | None], sensor: str | None = None) -> tuple[str | None, ...]:
    """Name the bands of a file from their descriptions: canonical names, None where a text names no band.

    Codes are understood by way of `sensor` (a key of SENSORS). Without one, B8A or B12 among the codes shows
    Sentinel-2's numbering (HLS S30 shares it; Landsat has neither band), and SR_ before all of them Landsat's: that of
    TM with ST_B6 beside them, that of OLI with SR_B6. Other codes stay None, for B05 is near infrared to one
    sensor and red edge to another. Cloud layers keep their code (FMASK, SCL, QA_PIXEL, CLM).
    """
    codes = [band_code(text or "") for text in texts]
    table = SENSORS[sensor].bands if sensor else _numbering(texts, {code for code in codes if code})
    named = (cloud_code(text or "") or band_name(text or "") for text in texts)
    return tuple(table.get(code) if code else name for code, name in zip(codes, named, strict=True))


def _numbering(texts: Sequence[str | None], codes: set[str]) -> dict[str, str]:
    """The table of codes that can only be one sensor's; an empty one where they may be several's."""
    if codes & {"B8A", "B12"}:
        return SENTINEL2
    surface = all(re.search(r"(?:^|_)sr_?b", text, re.IGNORECASE) for text in texts if text and band_code(text))
    if not codes or not surface:
        return {}
    thermal = any(re.search(r"(?:^|_)st_?b0?6", text, re.IGNORECASE) for text in texts if text)  # TM's and ETM's
    return LANDSAT_TM if thermal else LANDSAT_OLI if "B06" in codes else {}


def resolve_nir(names: Sequence[str | None], wanted: Sequence[str]) -> tuple[str | None, ...]:
    """Give a band called just 'NIR' the name that is wanted, where it is the only near infrared of the file.

    With both NIR_NARROW and NIR_BROAD wanted, or another near infrared in the file, it stays 'NIR'.
    """
    asked = [band for band in ("NIR_NARROW", "NIR_BROAD") if band in wanted]
    alone = not {"NIR_NARROW", "NIR_BROAD"} & set(names)
    return tuple(asked[0] if name == NIR and alone and len(asked) == 1 else name for name in names)


def suggest(wanted: str, names: Sequence[str]) -> str:
    """' (did you mean X?)' for the name closest to a wanted one, or an empty text."""
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


@dataclass(frozen=True)
class FileName:
    """What a product's file name says: sensor (key of SENSORS), day, band or cloud layer, product, pixel size."""

    sensor: str
    date: datetime.date | None
    band: str | None
    product: str
    metres: int | None = None


_HLS = re.compile(
    r"(?P<product>HLS\.(?P<sensor>[LS]30)\.T\d{2}[A-Z]{3}\.(?P<day>\d{7})(?:T\d{6})?\.v\d\.\d)(?:[._](?P<band>B\d[\dA]|Fmask)(?=\.|$))?"
)
_S2_BAND = re.compile(
    r"(?P<product>T\d{2}[A-Z]{3}_(?P<day>\d{8})T\d{6})_(?P<band>B\d[\dA]|SCL)(?:_(?P<metres>\d{2})m)?(?=\.|$)"
)
_S2_PRODUCT = re.compile(r"(?P<product>S2[A-D]_(?:MSIL2A|MSIL1C|\d{2}[A-Z]{3})_(?P<day>\d{8})\w*)")
_LANDSAT = re.compile(
    r"(?P<product>(?P<sensor>L[COTE]0[4-9])_(?P<level>L\w{3})_\d{6}_(?P<day>\d{8})_\d{8}_\d{2}_(?:T1|T2|RT))"
    r"(?:_(?P<band>SR_B\d|B\d{1,2}|sr_band\d|QA_PIXEL)(?=\.|$))?"
)


def parse_name(name: str) -> FileName | None:
    """Read the name of a band file or product of HLS, Sentinel-2 or Landsat Collection 2; None for any other name."""
    for pattern in (_HLS, _S2_BAND, _S2_PRODUCT, _LANDSAT):
        found = pattern.search(name)
        if found:
            return _file_name(found.groupdict())
    return None


def _file_name(parts: dict[str, str | None]) -> FileName:
    """Turn the named groups of one of the patterns into a FileName."""
    platform, band, metres = parts.get("sensor") or "S2", parts.get("band"), parts.get("metres")
    sensor = platform if platform in SENSORS else "OLI" if platform[2:] in ("08", "09") else "TM"
    if (parts.get("level") or "L2").startswith("L1"):  # Collection 1 calls surface reflectance by its Level-1 product
        sensor += "_C1" if (band or "").startswith("sr_") else "_L1"
    layer = (cloud_code(band) or SENSORS[sensor].bands.get(band_code(band) or "")) if band else None
    return FileName(sensor, _day(parts["day"] or ""), layer, parts["product"] or "", int(metres) if metres else None)


def _day(digits: str) -> datetime.date | None:
    """YYYYMMDD or YYYYDDD as a date; None where no such day is."""
    try:
        return datetime.datetime.strptime(digits, "%Y%m%d" if len(digits) == 8 else "%Y%j").date()
    except ValueError:
        return None


_DATES = (
    r"(?<!\d)((?:19|20)\d{2})[-_](\d{2})[-_](\d{2})(?!\d)",
    r"(?<!\d)((?:19|20)\d{2})(\d{2})(\d{2})(?!\d)",
    r"(?<!\d)((?:19|20)\d{2})(\d{3})(?!\d)",
)


def find_date(text: str) -> datetime.date | None:
    """First day in a file name or a time stamp: 2021-07-05, 20210705 (also before 'T') or year and day 2021186."""
    found = [match for pattern in _DATES for match in re.finditer(pattern, text)]
    days = (_day("".join(match.groups())) for match in sorted(found, key=lambda match: match.start()))
    return next((day for day in days if day and day.year >= 1970), None)


def sentinel2_offset(baseline: str | None) -> float:
    """Offset to reflectance of a processing baseline ('04.00', '0510'): -0.1 from 04.00 (25 January 2022) on, else 0.

    Source: Sentinel-2 Products Specification Document, BOA_ADD_OFFSET and RADIO_ADD_OFFSET, -1000 in units of 0.0001.
    """
    found = re.fullmatch(r"0?(\d{1,2})(?:[.](\d{1,2})|(\d{2}))", (baseline or "").strip())
    return -0.1 if found and int(found[1]) >= 4 else 0.0


TOP_OF_ATMOSPHERE = "Level-1: top-of-atmosphere reflectance, not surface reflectance"


def level1_units(scale: float, offset: float, sun_elevation: float) -> tuple[float, float]:
    """Scale and offset to top-of-atmosphere reflectance of Landsat Level-1 counts.

    (counts * scale + offset) / sin(elevation): Landsat 8-9 Data Users Handbook, section 5.3.

    Args:
        scale: REFLECTANCE_MULT_BAND of the MTL.
        offset: REFLECTANCE_ADD_BAND of the MTL.
        sun_elevation: degrees above the horizon.
    """
    sine = math.sin(math.radians(sun_elevation))
    return scale / sine, offset / sine


def product_baseline(name: str) -> str | None:
    """The processing baseline in a Sentinel-2 product's name ('..._N0400_...' gives '04.00'), or None."""
    found = re.search(r"_N(\d{2})(\d{2})_", name)
    return f"{found[1]}.{found[2]}" if found else None


def _squeeze(text: str) -> str:
    """Lower case, letters and figures only."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
