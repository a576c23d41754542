"""Damaged files are refused by an error of ours or read; nothing else is raised, nothing hangs, no file is written.

Each kind of file is made small and valid, then bytes are flipped, inserted and cut out, or the values of its JSON or
YAML are changed, and the loader of its kind opens it. The examples are always the same. EARTHTUNE_FUZZ=1000 asks for
1000 examples of each kind, drawn anew each time:

    EARTHTUNE_FUZZ=1000 python -m pytest tests/pipelines/test_loaders_fuzz.py -k netcdf
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from models.bundle import Bundle, read_bundle, write_bundle
from models.errors import EarthtuneError
from models.training.settings import Architecture
from pipelines.grids import align
from pipelines.samples.labelling.labels import read_labels
from pipelines.samples.labelling.polygons import Polygons
from pipelines.samples.names import listed, read_groups
from pipelines.scenes.scene import open_scene
from pipelines.tasks.task import load_recipe
from pipelines.weather.dataset import open_weather
from tests.weather_files import field, message, save

ASKED = os.environ.get("EARTHTUNE_FUZZ")
EXAMPLES = int(ASKED or 80)
SECONDS = 60  # for one example, on a busy machine
AFFINE = Affine(10, 0, 500000, 0, -10, 5000000)
GRID = GeoBox((12, 16), AFFINE, "EPSG:32633")
WINDOW = (slice(0, 8), slice(0, 8))
RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"
SPECIAL = (b"\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"nan", b"1e999", b"-1", b'"', b"{")


# --- valid files ---------------------------------------------------------------------------------------------------


def geotiff(path: Path, names: tuple[str, ...] = ("blue", "red"), value: int = 7) -> Path:
    shape = {"count": len(names), "height": 12, "width": 16, "dtype": "int16"}
    with rasterio.open(path, "w", "GTiff", crs="EPSG:32633", transform=AFFINE, nodata=-9999, **shape) as file:
        file.write(np.full((len(names), 12, 16), value, np.int16))
        file.descriptions = names
        file.update_tags(ACQUISITION_DATE="2021-06-15")
    return path


def stac(path: Path) -> Path:
    (path.parent / "img").mkdir()
    assets = {}
    for key, code in (("blue", "B02"), ("red", "B04")):
        geotiff(path.parent / "img" / f"{code}.tif", (key,), 1500)
        about = {"type": "image/tiff; application=geotiff", "roles": ["data"], "gsd": 10}
        assets[key] = about | {"href": f"./img/{code}.tif", "eo:bands": [{"name": key, "common_name": key}]}
        assets[key] |= {"raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}
    properties = {"datetime": "2022-07-05T10:00:00Z", "platform": "sentinel-2a", "s2:processing_baseline": "04.00"}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "S2_item", "geometry": None, "links": []}
    path.write_text(json.dumps(item | {"properties": properties, "assets": assets}))
    return path


def landsat(path: Path) -> Path:
    stac(path)
    item = json.loads(path.read_text())
    item["properties"] = {"datetime": "2022-07-05T10:00:00Z", "platform": "landsat-8", "instruments": ["oli"]}
    item["properties"] |= {"view:sun_elevation": 45.0, "landsat:correction": "L1TP", "processing:level": "L1"}
    path.write_text(json.dumps(item))
    return path


def geojson(path: Path) -> Path:
    ring = [[500010, 4999990], [500100, 4999990], [500100, 4999900], [500010, 4999990]]
    feature = {"type": "Feature", "properties": {"class": 1, "name": "a"}}
    feature |= {"geometry": {"type": "Polygon", "coordinates": [ring]}}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature, feature]}))
    return path


def netcdf(path: Path) -> Path:
    return save(field(step=60.0, times=2, levels=(500, 850)), path)


def netcdf3(path: Path) -> Path:
    return save(field(step=60.0, times=2), path.with_suffix(".nc3"))


def grib(path: Path) -> Path:
    pytest.importorskip("eccodes")
    values = np.arange(12.0).reshape(3, 4) + 280
    path.write_bytes(b"".join(message(values, edition=edition, step=60.0, dataTime=0) for edition in (1, 2)))
    return path


def bundle(path: Path, spec: Any) -> Path:
    write_bundle(path.parent, Bundle(spec, "prithvi_eo_v2_300_tl", Architecture(), data={"root": "x", "images": "*"}))
    return path


def text(lines: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_text(lines)
        return path

    return write


# --- loaders -------------------------------------------------------------------------------------------------------


def scene(path: Path) -> None:
    with open_scene(path, ["BLUE", "RED"]) as opened:
        opened.read(tuple(slice(0, min(side, 8)) for side in opened.shape))
        opened.location(WINDOW)
        opened.time()


def labels(path: Path) -> None:
    try:
        read_labels(path, GRID, WINDOW, codes=[1, 7], polygons=Polygons("class"))
    finally:
        align.forget(str(path))


def weather(path: Path) -> None:
    data = open_weather(path)
    for name in data.data_vars:
        data[name].isel({dim: slice(0, 2) for dim in data[name].dims}).load()
    data.close()


STEMS = ["a_hls", "b_hls", "c_hls"]
KINDS: dict[str, tuple[str, Callable[..., Path], Callable[[Path], object]]] = {
    "geotiff": ("x.tif", geotiff, scene),
    "label": ("x.tif", lambda path: geotiff(path, ("class",)), labels),
    "geojson": ("x.geojson", geojson, labels),
    "netcdf": ("x.nc", netcdf, weather),
    "netcdf3": ("x.nc3", netcdf3, weather),
    "grib": ("x.grib", grib, weather),
    "stac": ("x.json", stac, scene),
    "recipe": ("x.yaml", text((RECIPES / "landuse.yaml").read_text()), load_recipe),
    "list": ("x.txt", text("a_hls\nb_hls\nc_hls\n"), lambda path: listed(path, STEMS, "names")),
    "table": ("x.csv", text("id,name\n1,a_hls\n2,b\n3,c_hls.tif\n"), lambda path: listed(path, STEMS, "names")),
    "groups": ("x.csv", text("chip,group\na,1\nb,1\nc,2\n"), read_groups),
    "bundle": ("bundle.json", bundle, lambda path: read_bundle(path.parent)),
}
VALUES: dict[str, tuple[str, Callable[..., Path], Callable[[Path], object]]] = {
    **{name: KINDS[name] for name in ("geojson", "stac", "recipe", "bundle")},
    "landsat": ("x.json", landsat, scene),
    "rain": ("x.yaml", text((RECIPES / "rainfall.yaml").read_text()), load_recipe),
    "downscale": ("x.yaml", text((RECIPES / "downscale.yaml").read_text()), load_recipe),
}


# --- damage --------------------------------------------------------------------------------------------------------

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "replace", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=8)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """Bytes changed at places counted as parts of the whole."""
    out = bytearray(content)
    for how, part, some in edits:
        at = int(part * len(out))
        if how == "flip" and out:
            out[at] ^= some[0] or 1
        elif how == "insert":
            out[at:at] = some
        elif how == "delete":
            del out[at : at + len(some)]
        elif how == "replace":
            out[at : at + len(some)] = some
        elif how == "cut":
            del out[at:]
    return bytes(out)


ODD = [None, True, 0, -1, 1e308, float("nan"), float("inf"), 10**30, "", "a", "\x00", "../x", "\ud800", [], {}, [[]]]
JSON = st.recursive(
    st.one_of(st.sampled_from(ODD), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "set", "delete", "wrap", "rename"]), st.integers(0, 10**6), JSON),
    min_size=1,
    max_size=2,
)


def slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key (or index) in plain data."""
    if isinstance(value, dict | list):
        for key, inner in [*(value.items() if isinstance(value, dict) else enumerate(value))]:
            yield value, key
            yield from slots(inner)


def changed(content: Any, changes: list[tuple[str, int, Any]]) -> Any:
    """Plain data with some of its values others, gone, in a list, or called by another name."""
    content = copy.deepcopy(content)
    for how, number, value in changes:
        every = [*slots(content)]
        if not every:
            return value
        inside, key = every[number % len(every)]
        if how == "set":
            inside[key] = value
        elif how == "wrap":
            inside[key] = [inside[key]]
        else:
            kept = inside.pop(key)
            if how == "rename" and isinstance(inside, dict):
                inside[str(value)] = kept
    return content


# --- the property --------------------------------------------------------------------------------------------------


class Hangs(BaseException):
    """No library takes it for an error of its own."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def try_to_open(path: Path, content: bytes, loader: Callable[[Path], object]) -> None:
    """Let the loader open what is in no other file of this name, and look whether it leaves anything behind."""
    path.write_bytes(content)
    before = contents(path.parent)
    with warnings.catch_warnings(), within(SECONDS):
        warnings.simplefilter("ignore")
        with contextlib.suppress(EarthtuneError):
            loader(path)
    assert contents(path.parent) == before


NUMBERS = itertools.count()  # a name for each example: files that were open are remembered by name and time


def fresh(path: Path) -> Path:
    return path if path.name == "bundle.json" else path.with_name(f"{path.stem}_{next(NUMBERS)}{path.suffix}")


def made(kinds: dict[str, Any], kind: str, folder: Path, make_spec: Any) -> tuple[Path, Callable[[Path], object]]:
    name, make, loader = kinds[kind]
    path = make(folder / name, make_spec()) if kind == "bundle" else make(folder / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader(path)  # as it is, it is read
    return path, loader


fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize=ASKED is None,
    database=None,
    deadline=None,
    suppress_health_check=[*HealthCheck],
)


# GDAL's warnings quote the file, and rasterio logs them as UTF-8: what it cannot log it drops.
@pytest.mark.filterwarnings("ignore:Exception ignored in. 'rasterio:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_are_refused_or_read(kind, tmp_path, make_spec):
    path, loader = made(KINDS, kind, tmp_path, make_spec)
    content = path.read_bytes()

    @fuzzed
    @given(edits=EDITS)
    def run(edits):
        here = fresh(path)
        try:
            try_to_open(here, damaged(content, edits), loader)
        finally:
            here.unlink()

    run()


@pytest.mark.parametrize("kind", VALUES)
def test_changed_values_are_refused_or_read(kind, tmp_path, make_spec):
    path, loader = made(VALUES, kind, tmp_path, make_spec)
    plain = yaml.safe_load(path.read_text())  # JSON, too, is YAML

    @fuzzed
    @given(changes=CHANGES)
    def run(changes):
        here, value = fresh(path), changed(plain, changes)
        said = json.dumps(value) if path.suffix != ".yaml" else yaml.safe_dump(value, allow_unicode=False)
        try:
            try_to_open(here, said.encode(), loader)
        finally:
            here.unlink()

    run()
