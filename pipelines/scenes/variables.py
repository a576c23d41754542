"""Files whose arrays are the bands of a scene, one date or several: NetCDF, HDF5, Zarr."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import InputError
from pipelines.grids import align
from pipelines.scenes import cubes, sensors
from pipelines.scenes.bands import Ask, Layer, Product, apart

_STEPS = {"day": 86400.0, "hour": 3600.0, "minute": 60.0, "second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6}
_STEPS |= {"nanosecond": 1e-9}
_NAMED_BY = "names of variables"
_SINCE = re.compile(
    r"(day|hour|minute|(?:milli|micro|nano)?second)s? since (\d{4}-\d{1,2}-\d{1,2})(?:[ T](\d{1,2}):(\d{2}))?"
)
_BEGIN = (
    (re.compile(r"(?:s2|sentinel-?2)(?![0-9])", re.IGNORECASE), "S2"),
    (re.compile(r"(?:hls[-_.]?)?s30(?![0-9])", re.IGNORECASE), "S30"),
    (re.compile(r"(?:hls[-_.]?)?l30(?![0-9])", re.IGNORECASE), "L30"),
    (re.compile(r"(?:l|lc|landsat)-?0?[89](?![0-9])", re.IGNORECASE), "OLI"),
)


def variable_products(path: str, subdatasets: Sequence[str], ask: Ask) -> list[Product]:
    """A product for each date of a file, its bands by the names of its variables, or by `ask` in their order.

    Raises:
        InputError: no variable is named as a band, or they hold different numbers of dates.
    """
    if subdatasets and cubes.is_misread(align.dataset(subdatasets[0]), path):
        return cube_products(path, ask)
    words = [address.rpartition(":")[2].strip('/"') for address in subdatasets]
    if ask.file_bands and len(ask.file_bands) != len(words):
        raise InputError(
            f"{path}: has the variables {', '.join(words)}, {len(ask.file_bands)} names were given; name each once"
        )
    names = sensors.name_bands(ask.file_bands) if ask.file_bands else _names(path, words)
    found = [(name, address) for name, address in zip(names, subdatasets, strict=True) if name]
    if not found:
        such = f", or pass one by its GDAL name, such as {subdatasets[0]}" if subdatasets else ""
        raise InputError(
            f"{path}: holds the variables {', '.join(words) or 'none'}, none named as a band; name them in this order "
            f"with --bands{such}"
        )
    sources = [align.dataset(address) for _, address in found]
    times = {source.count for source in sources}
    if len(times) > 1:
        raise InputError(f"{path}: its bands hold {' and '.join(map(str, sorted(times)))} dates; one number is wanted")
    products = []
    count = times.pop()
    for index in range(1, count + 1):
        layers = [Layer(n, a, index, None if n in sensors.CLOUDS else ask.units) for n, a in found]
        bands, clouds = apart(layers)
        date = _date(sources[0], index) or (sensors.find_date(Path(path).name) if count == 1 else None)
        products.append(Product(Path(path).stem, path, date, bands, clouds, _NAMED_BY))
    return products


def cube_products(path: str, ask: Ask) -> list[Product]:
    """A product for each date of a cube, its bands by the names of its arrays or of its bands, or by `ask`.

    Raises:
        InputError: it cannot be read, or nothing in it is named as a band.
    """
    cube = cubes.opened(path)
    size = cube.count // cube.dates
    words = list(cube.descriptions[:size])
    if ask.file_bands and len(ask.file_bands) != size:
        raise InputError(f"{path}: has the bands {', '.join(words)}, {len(ask.file_bands)} names were given")
    names = sensors.name_bands(ask.file_bands) if ask.file_bands else _names(path, words)
    if not any(names):
        raise InputError(f"{path}: holds {', '.join(words[:24])}, none named as a band; name them with --bands")
    products, name = [], Path(path.rstrip("/")).stem
    for first in range(0, cube.count, size):
        layers = [
            Layer(name, f"{cubes.MARK}{path}", first + i, None if name in sensors.CLOUDS else ask.units)
            for i, name in enumerate(names, 1)
            if name
        ]
        bands, clouds = apart(layers)
        products.append(Product(name, path, cube.parts[first].date, bands, clouds, _NAMED_BY))
    return products


def joined_by_date(products: Sequence[Product]) -> list[Product]:
    """Products of one day from several files of arrays, each with other bands, as one: 10 m and 20 m lie apart."""
    out = list[Product]()
    for one in products:
        mine = {layer.name for layer in one.layers}
        for at, other in enumerate(out):
            apart_ = other.source != one.source and not mine & {layer.name for layer in other.layers}
            if one.date and other.date == one.date and apart_ and one.named_by == other.named_by == _NAMED_BY:
                clouds = other.clouds or one.clouds
                out[at] = dataclasses.replace(other, layers=(*other.layers, *one.layers), clouds=clouds)
                break
        else:
            out.append(one)
    return out


def _names(path: str, words: Sequence[str]) -> list[str | None]:
    """The bands that variables are: by their names, or by codes of the sensor that a name or the file begins with.

    Raises:
        InputError: several are the same.
    """
    names = list(sensors.name_bands(words))
    for at, word in enumerate(words):
        lead, _, code = word.replace("_", "-").rpartition("-")
        if names[at] is None and (sensor := _sensor(lead) or _sensor(Path(path).name)):
            names[at] = sensors.name_bands([code], sensor)[0]
    for name in {name for name in names if name and names.count(name) > 1}:
        same = [word for word, one in zip(words, names, strict=True) if one == name]
        raise InputError(
            f"{path}: {' and '.join(same)} are both {name}; name all variables with --bands, in this order"
        )
    return names


def _sensor(text: str) -> str | None:
    """The sensor, a key of SENSORS, whose name a text begins with."""
    return next((sensor for begins, sensor in _BEGIN if begins.match(text)), None)


def _date(source: Any, index: int) -> datetime.date | None:
    """Day of a band by its place along the file's time, None where that is not told."""
    tags = source.tags(index)
    for key, text in tags.items():
        name = key.removeprefix("NETCDF_DIM_")
        since = _SINCE.match(source.tags().get(f"{name}#units", ""))
        if key == name or since is None:
            continue
        try:
            begun = datetime.datetime.fromisoformat("-".join(part.zfill(2) for part in since[2].split("-")))
            begun += datetime.timedelta(hours=int(since[3] or 0), minutes=int(since[4] or 0))
            return (begun + datetime.timedelta(seconds=float(text) * _STEPS[since[1]])).date()
        except (ValueError, OverflowError):
            return None
    return None
