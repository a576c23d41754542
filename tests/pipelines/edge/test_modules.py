"""The page's modules, and the functions of run_edge.py that are like them, beside ours and beside libraries."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from scipy import ndimage

from pipelines.edge.site import _about, _copy_page
from pipelines.grids.areas import pixel_areas
from pipelines.grids.mosaic import weights
from pipelines.grids.positions import phase
from pipelines.scenes import physical, sensors
from tests.browser import needs_browser, tab
from tests.pipelines.edge.scenes_to_map import served

TEXTS = ["Blue", "B02 - Blue", "Band 8A", "NIR (842 nm)", "swir16", "SR_B4", "B12", "20210705T1_B2", "Fmask", "x", ""]
TEXTS += ["Band 2 (Blue)", "nir narrow", "QA_PIXEL", "Blue (490 nm)", "0_B3", "vegetation red edge 1", "b 5"]
DAYS = ["2021-07-05", "scene_20210705T101031.tif", "HLS.S30.2021186.v2", "2021-13-40", "a 20219999", "1969-01-01", "no"]
PLACES = [  # keys of the file, the system, and a point in it
    ({"GTModelTypeGeoKey": 1, "ProjectedCSTypeGeoKey": 32632}, "EPSG:32632", (512340.0, 5123450.0)),
    ({"GTModelTypeGeoKey": 1, "ProjectedCSTypeGeoKey": 32733}, "EPSG:32733", (266000.0, 6240000.0)),
    ({"GTModelTypeGeoKey": 1, "ProjectedCSTypeGeoKey": 25830}, "EPSG:25830", (700000.0, 4400000.0)),
    ({"GTModelTypeGeoKey": 1, "ProjectedCSTypeGeoKey": 26915}, "EPSG:26915", (500000.0, 4649776.0)),
    ({"GTModelTypeGeoKey": 1, "ProjectedCSTypeGeoKey": 3857}, "EPSG:3857", (-8238310.0, 4970241.0)),
    ({"GTModelTypeGeoKey": 2, "GeographicTypeGeoKey": 4326}, "EPSG:4326", (11.5, 48.1)),
    (
        {"GTModelTypeGeoKey": 1, "ProjectedCSTypeGeoKey": 32767, "ProjectionGeoKey": 16113},
        "EPSG:32713",
        (300000.0, 7500000.0),
    ),
    (
        {
            "GTModelTypeGeoKey": 1,
            "ProjectedCSTypeGeoKey": 32767,
            "ProjCoordTransGeoKey": 1,
            "ProjNatOriginLongGeoKey": -93.0,
            "ProjScaleAtNatOriginGeoKey": 0.9996,
            "ProjFalseEastingGeoKey": 500000.0,
        },
        "+proj=tmerc +lon_0=-93 +k=0.9996 +x_0=500000 +datum=WGS84",
        (420000.0, 4800000.0),
    ),
]


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A function of a module of the page, an expression of it (`m`) and of what is given (`a`)."""
    folder = tmp_path_factory.mktemp("page")
    _copy_page(folder)
    with served(folder) as address, tab(folder) as opened:
        opened.open(f"{address}licences.txt")  # no page, and of the same origin
        yield lambda name, expression, *a: opened.run(
            f"import('./{name}.js').then(m => {{ const a = {json.dumps(a)}; return {expression}; }})"
        )


@pytest.fixture(scope="module")
def edge():
    """run_edge.py; the functions that run no graph, where there is no onnxruntime."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("onnxruntime") is None:
            patch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
        yield importlib.import_module("pipelines.edge.run_edge")


@pytest.fixture(scope="module")
def about(run):
    from models.bundle import read_bundle

    return _about(run, read_bundle(run), overlap=8)


@needs_browser
@pytest.mark.parametrize("keys, system, point", PLACES)
def test_points_are_where_proj_has_them(modules, keys, system, point):
    found = modules("place", "m.degrees(m.crsOf(a[0]), ...a[1])", keys, point)
    longitude, latitude = Transformer.from_crs(system, CRS(system).geodetic_crs, always_xy=True).transform(*point)
    assert found == pytest.approx([latitude, longitude], abs=1e-7)


@needs_browser
def test_what_the_page_cannot_place_is_said_to_be_so(modules):
    lambert = {"GTModelTypeGeoKey": 1, "ProjectedCSTypeGeoKey": 2154, "ProjLinearUnitsGeoKey": 9001}
    assert modules("place", "[m.crsOf(a[0]).kind, m.degrees(m.crsOf(a[0]), 1, 1)]", lambert) == ["metres", None]
    feet = lambert | {"ProjLinearUnitsGeoKey": 9003}
    assert modules("place", "m.hectares({affine: [1,0,0,0,-1,0], crs: m.crsOf(a[0])}, 5)", feet) is None
    assert modules("place", "m.crsOf(null)") is None


@needs_browser
@pytest.mark.parametrize("system, side", [("EPSG:32632", 30.0), ("EPSG:4326", 0.0003), ("EPSG:3857", 40.0)])
def test_areas_are_those_of_our_areas(modules, system, side):
    x, y = Transformer.from_crs("EPSG:4326", system, always_xy=True).transform(8.0, 47.0)
    keys = next(keys for keys, name, _ in PLACES if name == system)
    wanted = pixel_areas(GeoBox((2000, 4), from_origin(x, y, side, side), system))((slice(0, 2000), slice(0, 4)))
    place = [side, 0, x, 0, -side, y]
    rows = "[0, 1000, 1999].map(m.hectares({affine: a[0], crs: m.crsOf(a[1])}, 4))"
    found = modules("place", rows, place, keys)
    assert found == pytest.approx([float(wanted[row].mean()) for row in (0, 1000, 1999)], rel=1e-3)


@needs_browser
def test_bands_are_named_as_ours_are(modules, edge, about):
    for texts in (TEXTS, ["NIR", "RED", "Blue"], ["B2", "B3"], ["B05", "B8A"], ["Near infrared", "NIR_BROAD"]):
        known = [*sensors.name_bands(texts)]
        wanted = [*sensors.resolve_nir(known, [band["name"] for band in about["bands"]])]
        assert modules("names", "m.namesOf('f', a[0], a[1], '')", texts, about) == wanted
        source = type("Source", (), {"descriptions": texts, "count": len(texts), "name": "f"})
        assert edge.names_of(source, about, None, [band["name"] for band in about["bands"]]) == wanted


@needs_browser
def test_days_are_found_as_ours_are(modules, edge):
    for text in DAYS:
        wanted = sensors.find_date(text)
        found = modules("names", "m.dateOf(a)?.toISOString().slice(0, 10) ?? null", text)
        assert found == (wanted and wanted.isoformat())
        assert edge.date_of(type("Source", (), {"tags": lambda: {}, "name": text})) == wanted


@needs_browser
@pytest.mark.parametrize(
    "layout", [(75, 32, 8, -5), (20, 32, 8, 3), (32, 32, 0, 0), (200, 64, 48, -16671), (1, 32, 31, 7)]
)
def test_weights_are_those_of_the_mosaic(modules, edge, layout):
    wanted = weights(*layout)
    found = modules("tiles", "m.weights(...a).map(t => [t.first, [...t.weight]])", *layout)
    for (first, weight), ours, theirs in zip(wanted, found, edge.weights(*layout), strict=True):
        assert first == ours[0] == theirs[0]
        assert np.allclose(ours[1], weight, atol=1e-6) and np.array_equal(theirs[1], weight)


@needs_browser
@pytest.mark.parametrize(
    "affine", [(30, 0, 315015, 0, -30, 4194315), (1e-4, 0, -6.00005, 0, -2e-4, 1), (1, 2, 3, 4, 5, 6)]
)
def test_tiles_begin_where_ours_begin(modules, edge, affine):
    wanted = phase(GeoBox((1, 1), Affine(*affine), None))
    assert edge.phase(Affine(*affine)) == wanted == tuple(modules("tiles", "m.phaseOf(a).map(n => n + 0)", *affine))


@needs_browser
def test_fill_is_what_is_connected_to_the_edge(modules, edge):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        kinds = rng.choice(3, rng.integers(1, 10, 2), p=[0.4, 0.4, 0.2])  # values, zeros, no data
        script = "[...m.findFill([0, 1].map(() => Int16Array.from(a[0])), Uint8Array.from(a[1]), [-1], a[2]) ?? []]"
        values, none = np.where(kinds == 0, 5, np.where(kinds == 1, 0, -1)), (kinds == 2).astype(int)
        found = modules("fill", script, values.ravel().tolist(), none.ravel().tolist(), kinds.shape[1])
        number, _ = ndimage.label(kinds > 0)
        sides = np.unique(np.concatenate((number[0], number[-1], number[:, 0], number[:, -1])))
        reached = np.isin(number, sides[sides > 0])
        assert np.array_equal(edge.from_edge(kinds > 0), reached)
        wanted = (reached & (kinds == 1)).astype(int).ravel().tolist()
        assert found == (wanted if any(wanted) else [])


@needs_browser
def test_percentiles_are_those_of_numpy(modules):
    values = np.random.default_rng(1).normal(size=101).astype(np.float32)
    for percent in (1, 50, 98):
        found = modules("units", "m.percentile(Float32Array.from(a[0]).sort(), a[1])", values.tolist(), percent)
        assert found == pytest.approx(float(np.percentile(values, percent)), abs=1e-6)


def spectra(**changes):
    """Reflectance of a plain ground, (6, 500), with changes."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.03, 0.3, (6, 500))
    x *= changes.get("times", 1)
    x += changes.get("plus", 0)
    x[0, rng.permutation(500)[: changes.get("some", 0)]] = changes.get("value", 0)
    return x.astype(np.float32)


@needs_browser
@pytest.mark.parametrize(
    "change, kind",
    [
        ({}, "int16"),
        ({"some": 300, "value": 1.7}, "int16"),
        ({"times": 7}, "int16"),
        ({"some": 300, "value": -0.05}, "int16"),
        ({"some": 20, "value": -0.8}, "int16"),
        ({"some": 1, "value": -0.8}, "int16"),
        ({"times": 1e-4}, "float32"),
        ({"times": 1e-4}, "int16"),
        ({"plus": 0.6}, "int16"),
        ({}, "uint8"),
    ],
)
def test_what_cannot_be_reflectance_is_what_ours_says(modules, edge, about, change, kind):
    x = spectra(**change)
    wanted = physical._impossible(x, floating=kind == "float32", infrared=True)
    wanted = wanted or ("8-bit" if kind == "uint8" else "")
    stub = type(
        "Stub", (), {"site": about, "height": 1, "width": 500, "indexes": [1] * 6, "units": [(1e-4, 0, False)] * 6}
    )
    stub.source = type("Source", (), {"dtypes": [kind]})
    stub.read = lambda top, left, height, width: (x[:, None, left : left + width] * 1e4, np.ones((1, width), bool))
    typed = {"int16": "Int16Array", "float32": "Float32Array", "uint8": "Uint8Array"}[kind]
    read = "(t, l, h, w) => ({ x: Float32Array.from(a[0].flatMap(b => b.slice(l, l + w))), "
    read += "valid: new Uint8Array(w).fill(1), count: w })"
    scene = f"{{ height: 1, width: 500, told: false, kinds: Array(6).fill('{typed}'), read: {read} }}"
    page = modules("units", f"m.impossible({scene}, a[1])", (x * 1e4).tolist(), about)
    first = ["below" if "lie below" in said else said.split(" ")[0] for said in (page, edge.impossible(stub), wanted)]
    assert first == [first[2]] * 3


@needs_browser
@pytest.mark.parametrize("dtype", ["float32", "uint16", "uint8"])
def test_what_the_page_writes_gdal_reads(modules, dtype):
    values = np.random.default_rng(2).integers(0, 250, (150, 7)).astype(dtype)
    classes = [] if dtype == "float32" else [{"code": 200, "name": "a", "colour": "#0a64ff"}]
    how = {"width": 7, "height": 150, "place": {"tags": []}, "classes": classes, "nodata": 0}
    how |= {"about": {"A": 'x < "y" & z'}, "band": "biomass", "unit": "Mg/ha"}
    kind = {"float32": "Float32Array", "uint16": "Uint16Array", "uint8": "Uint8Array"}[dtype]
    written = f"m.writeTiff({kind}.from(a[0]), a[1]).then(b => b.arrayBuffer()).then(b => [...new Uint8Array(b)])"
    content = bytes(modules("write", written, values.ravel().tolist(), how))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(content) as file, file.open() as made:
            assert (made.dtypes, made.nodata, made.descriptions, made.units) == ((dtype,), 0, ("biomass",), ("Mg/ha",))
            assert np.array_equal(made.read(1), values) and made.tags()["A"] == 'x < "y" & z'
            assert not classes or made.colormap(1)[200] == (0x0A, 0x64, 0xFF, 255)
