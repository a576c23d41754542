"""Rasters as they are opened: by their content, not by their name, and none that reads more than itself.

A GeoTIFF may have overviews, a mask and statistics beside it; these have to be what their names say. Only a virtual
raster (.vrt) reads other files: rasters of this machine. What else it could ask for (addresses, archives, formulas, raw
bytes, code) has to be trusted by the person who names it. See https://gdal.org/en/stable/user/security.html.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader

from models.errors import InputError
from models.runtime.hdf5 import HDF5_DRIVERS, check_alone, is_hdf5

# Formats whose files hold their pixels themselves, some with a header or an index beside them.
ALONE = (
    *("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "PNG", "JPEG", "WEBP", "GIF", "HFA", "GRIB"),
    *("AAIGrid", "SRTMHGT", "DTED", "USGSDEM", "ENVI", "EHdr", *HDF5_DRIVERS),
)
_OPEN_FILES = 64
_MOST_IN_A_BLOCK = 1 << 29  # bytes
_MOST_COLUMNS = 1 << 24  # the Earth's equator in steps of 2.4 m
_MOST_XML = 1 << 26  # bytes
_BESIDE = (".ovr", ".OVR", ".msk", ".MSK")  # opened by GDAL, whatever they are
_PLAIN_VRT = frozenset(
    (
        *("VRTDataset", "SRS", "GeoTransform", "GCPList", "GCP", "Metadata", "MDI", "MaskBand", "VRTRasterBand"),
        *("BlockXSize", "BlockYSize", "Description", "NoDataValue", "HideNoDataValue", "Offset", "Scale", "UnitType"),
        *("CategoryNames", "Category", "ColorInterp", "ColorTable", "Entry", "OverviewList", "Histograms", "HistItem"),
        *("HistMin", "HistMax", "BucketCount", "IncludeOutOfRange", "Approximate", "HistCounts"),
        *("SimpleSource", "ComplexSource", "AveragedSource", "SourceFilename", "SourceBand", "SourceProperties"),
        *("SrcRect", "DstRect", "NODATA", "UseMaskBand", "ScaleOffset", "ScaleRatio", "LUT", "ColorTableComponent"),
        *("Exponent", "SrcMin", "SrcMax", "DstMin", "DstMax", "Clamp", "GDALRasterAttributeTable", "FieldDefn"),
        *("Name", "Type", "Usage", "Row", "F"),
    )
)
_ONLY_PLAIN = "which only --trust allows"


class _Handles(threading.local):
    """Open datasets of this thread, the last used at the end; a dataset must not cross threads or forks."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.open: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


_handles = _Handles()
_trusting = False


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Whether virtual rasters that are opened in this block, by any thread, may read whatever they ask for."""
    global _trusting
    before, _trusting = _trusting, trust
    try:
        yield
    finally:
        _trusting = before


def dataset(path: str, *, drivers: tuple[str, ...] = ()) -> Any:
    """Open a raster, or return the one this thread has open: at most 64 stay open, and a rewritten file is reopened.

    Args:
        path: a file, or any URL that rasterio opens.
        drivers: the formats that may be opened, by GDAL's names; those that read only themselves, and virtual rasters
            that are called so, when empty.

    Raises:
        InputError: the file is missing, no raster of these formats, or it would read what it may not.
    """
    if _handles.pid != os.getpid():
        _handles.pid, _handles.open = os.getpid(), OrderedDict()
    key = (path, drivers, _trusting, *_signature(path))
    if key not in _handles.open:
        _handles.open[key] = _open(path, drivers)
        if len(_handles.open) > _OPEN_FILES:
            _handles.open.popitem(last=False)
    _handles.open.move_to_end(key)
    return _handles.open[key]


def forget(path: str) -> None:
    """Close this thread's handles of a file, if it has any."""
    for key in [key for key in _handles.open if key[0] == path]:
        _handles.open.pop(key).close()


def reason(error: BaseException) -> str:
    """The message of an error, and of what caused it, on one line."""
    return " ".join(str(error.__cause__ or error).split())


def bands_of(source: Any) -> str:
    """How many bands an open raster has and of what type, in words; a file of several arrays has none of its own."""
    return f"{source.count} of {source.dtypes[0]}" if source.count else "none; the file holds several arrays"


def _signature(path: str) -> tuple[int, int]:
    """Size and time of change of the local file; zeros for a URL."""
    file = _local(path)
    if file is None:
        return 0, 0
    try:
        stat = file.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        why = "no such file; check the path" if missing else f"cannot be opened ({error.strerror}); check the path"
        raise InputError(f"{path}: {why}") from error
    if file.is_file() and stat.st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); fetch it again")
    return stat.st_size, stat.st_mtime_ns


def _local(path: str) -> Path | None:
    """The file on this machine that a name means, also by GDAL's netcdf:FILE:VARIABLE; None for addresses."""
    of_format = re.fullmatch(r'(?:netcdf|hdf5|bag):"?(.+?)"?:(?://)?[^:]*', path, re.IGNORECASE)
    path = of_format[1] if of_format else path
    return None if re.match(r"/vsi|[a-z][a-z0-9+.-]*://", path, re.IGNORECASE) else Path(path)


def _open(path: str, drivers: Sequence[str]) -> Any:
    """Open a raster for reading, with GDAL's complaints turned into ours."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: the name is not UTF-8, which GDAL wants; rename it") from error
    file = _local(path)
    virtual = not drivers and path.lower().endswith(".vrt")
    if virtual and not _trusting:
        if file is None:
            raise InputError(f"{path}: a virtual raster behind an address reads others, {_ONLY_PLAIN}; fetch it first")
        _check_vrt(file, above=())
    if file is not None and not (virtual and _trusting):
        _check_beside(file)
    # What HDF5 files name can only be told where they are at hand.
    known = ALONE if file is not None or _trusting else [name for name in ALONE if name not in HDF5_DRIVERS]
    source = _opened(path, ["VRT"] if virtual else drivers or known, file)
    try:
        check(source, path)
    except InputError:
        source.close()
        raise
    return source


def check(source: Any, name: str) -> None:
    """Refuse an open raster that would read another file, or that is not to be read: `name` is what it is called.

    Raises:
        InputError: its overviews are in another file, its blocks are huge, or names of bands are no text.
    """
    _check_overviews(source, name)
    _check_size(source, name)
    _check_text(source, name)


def _opened(path: str, drivers: Sequence[str], file: Path | None) -> Any:
    """Open by one of some drivers; others are not even asked what the file is."""
    if file is not None and is_hdf5(file):
        check_alone(file)
    # A remote folder may hold thousands of files: do not list it to look for sidecars. Here they are asked for by name.
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if file is None else "TRUE", "GDAL_VRT_ENABLE_PYTHON": "NO"}
    try:
        with warnings.catch_warnings(), rasterio.Env(**options):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return DatasetReader(path, driver=list(drivers))  # rasterio.open takes one driver only
    except RasterioIOError as error:
        if file is not None and _is_vrt(file) and "VRT" not in drivers:
            why = "is a virtual raster, which reads other files, under another name; name it .vrt if you know its maker"
            raise InputError(f"{path}: {why}") from error
        raise InputError(
            f"{path}: not a raster that can be read ({reason(error)}); check or fetch the file again"
        ) from error


def _is_vrt(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return b"<VRTDataset" in stream.read(4096)
    except OSError:
        return False


def _check_beside(file: Path) -> None:
    """Refuse overviews and masks beside a file that are no GeoTIFFs: GDAL would open a virtual raster there, too."""
    for suffix in _BESIDE:
        beside = file.with_name(file.name + suffix)
        if beside.exists():
            _check_beside(beside)
            try:
                with _opened(str(beside), ["GTiff"], beside) as source:
                    _check_overviews(source, source.name)
            except InputError as error:
                raise InputError(
                    f"{error}; it lies beside {file.name}: remove it if you do not know its maker"
                ) from error


def _check_overviews(source: Any, name: str) -> None:
    """Refuse a file whose metadata, its own or in .aux.xml, say that its overviews are in any other file."""
    elsewhere = source.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if elsewhere and not _trusting:
        raise InputError(f"{name}: says that its overviews are {elsewhere!r}; remove its .aux.xml, or copy it")


def _check_size(source: Any, name: str) -> None:
    """Refuse blocks that do not fit into memory, and columns that no strip of tiles would hold."""
    size = max(_block_bytes(source), default=0)
    if size > _MOST_IN_A_BLOCK:
        raise InputError(
            f"{name}: its pixels come in blocks of {size / 2**30:.1f} GiB, each of which is decoded whole; at "
            f"most {_MOST_IN_A_BLOCK / 2**30:.1f} GiB is read: rewrite it with `gdal_translate -co TILED=YES`"
        )
    if source.width > _MOST_COLUMNS:
        raise InputError(f"{name}: {source.width} columns, at most {_MOST_COLUMNS} are read; cut it into tiles")


def _check_text(source: Any, name: str) -> None:
    """Refuse names of bands that rasterio cannot read."""
    try:
        _ = source.descriptions, source.units
    except UnicodeDecodeError as error:
        told = "the description or unit of a band is not UTF-8; write it again, such as by gdal_edit.py"
        raise InputError(f"{name}: {told}") from error


def _block_bytes(source: Any) -> list[int]:
    """What has to be decoded to read one pixel of each band; of all bands where a block holds them together."""
    together = source.count if source.interleaving and source.interleaving.name == "pixel" else 1
    blocks = zip(source.block_shapes, source.dtypes, strict=True)
    sizes = {"complex_int16": 4}  # the only type that numpy lacks
    bytes_of = {kind: sizes.get(kind) or np.dtype(kind).itemsize for kind in source.dtypes}
    return [rows * columns * bytes_of[kind] * together for (rows, columns), kind in blocks]


def _check_vrt(file: Path, *, above: tuple[Path, ...]) -> None:
    """Refuse a virtual raster that does more than put rasters of this machine side by side.

    Raises:
        InputError: it does, or is no virtual raster, or one of its files is not what it may be.
    """
    try:
        if file.stat().st_size > _MOST_XML:
            raise InputError(f"{file}: a virtual raster of more than {_MOST_XML >> 20} MiB; make it of fewer files")
        root = ElementTree.fromstring(file.read_bytes())
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{file}: not a virtual raster that can be read ({error}); check or fetch it again") from error
    for element in root.iter():
        kind = element.get("subClass", "VRTRasterBand" if element.tag == "VRTRasterBand" else "")
        if element.tag not in _PLAIN_VRT or kind not in ("", "VRTRasterBand", "VRTSourcedRasterBand"):
            what = " ".join(part for part in (element.tag, element.get("subClass")) if part)
            raise InputError(f"{file}: asks for {what}, {_ONLY_PLAIN}; or write it as a GeoTIFF by gdal_translate")
    sources = {(e.text or "", e.get("relativeToVRT") == "1") for e in root.iter("SourceFilename")}
    for name, relative in sorted(sources):
        # The system's own reading of a path, not GDAL's, decides what it means.
        inner = Path(os.path.normpath(os.path.join(file.parent, name) if relative else name))
        if re.match(r"/+\.?/*vsi|[^/]*:|\s*<", name) or (inner.parts[1:2] and inner.parts[1].startswith("vsi")):
            raise InputError(f"{file}: reads {name[:80]!r}, {_ONLY_PLAIN}; wanted rasters of this machine")
        _check_source(inner, file, above)


def _check_source(inner: Path, file: Path, above: tuple[Path, ...]) -> None:
    """Refuse a file of a virtual raster that reads other files itself; virtual ones are looked into."""
    if not inner.is_file():
        raise InputError(f"{file}: reads {inner}, and there is no such file; copy it with its files")
    if inner.suffix.lower() == ".vrt":
        if len(above) > 8 or inner.resolve() in above:
            raise InputError(f"{file}: virtual rasters that read each other; make one of the files themselves")
        _check_beside(inner)
        _check_vrt(inner, above=(*above, file.resolve()))
        return
    _check_beside(inner)
    if _is_vrt(inner):  # GDAL will ask all drivers here, and this one first
        raise InputError(f"{inner}: is a virtual raster, which reads other files, under another name; {file} reads it")
    with _opened(str(inner), ALONE, inner) as source:
        _check_overviews(source, source.name)


def check_name(path: Path) -> None:
    """Refuse a name that pyogrio takes for another file, one in an archive or an address.

    Raises:
        InputError: it is such a name.
    """
    from pyogrio.util import vsi_path

    if vsi_path(str(path)) != str(path):
        raise InputError(f"{path}: such a path (with ! or ; or :) means another file to the reader; rename it")
