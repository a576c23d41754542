import csv
import functools
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from models.errors import InputError, RunError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.areas import area_table, least_pixels, pixel_areas, pixel_side
from tests.runs import CLASSES, write, write_map

DATA = Path(__file__).parents[4] / "shared" / "data" / "rasters"
WORLDCOVER = DATA / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
needs_data = pytest.mark.skipif(not WORLDCOVER.exists(), reason="real data is not here (../shared/data)")
GRIDS = {
    "utm": GeoBox((10980, 10980), Affine(10, 0, 600000, 0, -10, 5200020), "EPSG:32632"),
    "utm turned, across the antimeridian": GeoBox((900, 900), Affine(80, 50, 600000, 50, -80, 5200020), "EPSG:32660"),
    "worldcover": GeoBox((36000, 36000), Affine(1 / 12000, 0, 6, 0, -1 / 12000, 63), "EPSG:4326"),
    "globe, poles included": GeoBox((720, 1440), Affine(0.25, 0, -180, 0, -0.25, 90), "EPSG:4326"),
    "web mercator, world": GeoBox((36000, 36000), Affine(1113, 0, -20037500, 0, -1113, 20037500), "EPSG:3857"),
    "polar, pole inside": GeoBox((448, 304), Affine(25000, 0, -3850000, 0, -25000, 5850000), "EPSG:3413"),
    "laea": GeoBox((5000, 5000), Affine(1000, 0, 2500000, 0, -1000, 5500000), "EPSG:3035"),
    "modis": GeoBox((2400, 2400), Affine(463.3127, 0, 0, 0, -463.3127, 5559752), "+proj=sinu +R=6371007.181 +units=m"),
    "one pixel": GeoBox((1, 1), Affine(10, 0, 600000, 0, -10, 5200020), "EPSG:32632"),
}


@functools.cache
def to_degrees(crs):
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def geodesic(box, row, column):
    """Hectares of the geodesic polygon of a pixel's corners."""
    corners = [box.affine * (column + right, row + down) for right, down in ((0, 0), (0, 1), (1, 1), (1, 0))]
    degrees = to_degrees(str(box.crs)).transform(*zip(*corners, strict=True))
    return abs(Geod(ellps="WGS84").polygon_area_perimeter(*degrees)[0]) / 1e4


def read_table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", GRIDS)
def test_pixels_have_the_area_of_their_geodesic_polygons(name):
    box = GRIDS[name]
    areas, rng = pixel_areas(box), np.random.default_rng(0)
    rows = [0, box.height - 1, box.height // 2, *rng.integers(0, box.height, 40)]
    columns = [0, box.width - 1, box.width // 2, *rng.integers(0, box.width, 40)]
    for row, column in zip(map(int, rows), map(int, columns), strict=True):
        area = areas((slice(row, row + 1), slice(column, column + 1)))
        assert area.shape == (1, 1)
        assert area[0, 0] == pytest.approx(geodesic(box, row, column), rel=1e-4)


@pytest.mark.parametrize("name", ["utm", "worldcover", "polar, pole inside", "modis"])
def test_the_side_of_a_pixel_is_that_of_its_geodesic_polygon(name):
    box = GRIDS[name]
    side = (geodesic(box, box.height // 2, box.width // 2) * 1e4) ** 0.5
    assert pixel_side(box) == pytest.approx(side, rel=5e-3)
    assert pixel_side(GeoBox(box.shape, box.affine, None)) is None


def test_a_window_holds_the_areas_of_its_pixels():
    areas = pixel_areas(GRIDS["globe, poles included"])
    whole = areas((slice(0, 720), slice(0, 1440)))
    np.testing.assert_allclose(areas((slice(100, 300), slice(7, 9))), whole[100:300, 7:9], rtol=1e-12)
    assert whole.sum() == pytest.approx(51006562172.409, rel=1e-5)  # ellipsoid's surface in ha (Karney 2013)


def test_pixels_beyond_the_edge_of_the_world_have_no_area_and_those_inside_do():
    box = GeoBox((100, 100), Affine(110000, 0, -5500000, 0, -110000, 5500000), "+proj=geos +h=35785831 +sweep=y")
    areas = pixel_areas(box)((slice(0, 100), slice(0, 100)))
    assert np.isnan(areas[0, 0])
    assert areas[50, 50] == pytest.approx(geodesic(box, 50, 50), rel=2e-4)


def test_areas_of_a_huge_grid_hold_no_grid():
    tracemalloc.start()
    pixel_areas(GRIDS["worldcover"])((slice(30000, 30512), slice(0, 512)))
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_hectares_become_pixels():
    assert least_pixels(GRIDS["utm"], 0.5) == 50
    assert least_pixels(GRIDS["utm"], 0.501) == 50  # half a percent
    assert least_pixels(GRIDS["utm"], 0.52) == 52
    assert least_pixels(GRIDS["utm"], 1e-9) == 1
    row, column = GRIDS["worldcover"].height // 2, GRIDS["worldcover"].width // 2
    area = geodesic(GRIDS["worldcover"], row, column)  # at 61.5 degrees north about half that of the equator
    assert least_pixels(GRIDS["worldcover"], 100 * area) == 100


@pytest.mark.parametrize("hectares", [0, -1, float("nan"), float("inf")])
def test_no_area_is_refused(hectares):
    with pytest.raises(InputError, match="wanted a number above 0"):
        least_pixels(GRIDS["utm"], hectares)


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["hall",UNIT["metre",1]]'])
def test_a_grid_without_a_place_is_refused(crs):
    box = GeoBox((3, 4), Affine(10, 0, 0, 0, -10, 0), crs)
    for ask in (lambda: pixel_areas(box, name="m.tif"), lambda: least_pixels(box, 1, name="m.tif")):
        with pytest.raises(InputError, match=r"m\.tif: .*place on the ground"):
            ask()


@settings(max_examples=15)
@given(seed=st.integers(0, 99), height=st.integers(1, 40), width=st.integers(1, 40), dtype=st.sampled_from("BH"))
def test_the_table_adds_up(tmp_path_factory, seed, height, width, dtype):
    folder = tmp_path_factory.mktemp("t")
    codes = np.random.default_rng(seed).choice([0, 10, 30, 80], (1, height, width)).astype(dtype)
    place = {"crs": "EPSG:4326", "corner": (6, 63), "size": 0.01}
    path = write(folder / "a_map.tif", codes, nodata=0, **place)
    rows = area_table([path], [*CLASSES, ClassDef(99, 'never, "ever"', "#000000")], folder / "t.csv")
    box = GeoBox((height, width), Affine(0.01, 0, 6, 0, -0.01, 63), "EPSG:4326")
    by_row = np.array([geodesic(box, row, 0) for row in range(height)])
    for row, code in zip(rows, (10, 30, 80, 99), strict=True):
        assert (row["scene"], row["code"], row["pixels"]) == ("a", code, (codes == code).sum())
        assert row["hectares"] == pytest.approx(((codes[0] == code).sum(axis=1) * by_row).sum(), rel=1e-4)
    assert sum(row["share"] for row in rows) == pytest.approx(float((codes > 0).any()))
    written = read_table(folder / "t.csv")
    assert list(written[0]) == ["scene", "code", "class", "pixels", "hectares", "share"]
    assert written[3]["class"] == 'never, "ever"'
    for row, text in zip(rows, written, strict=True):
        assert float(text["hectares"]) == pytest.approx(row["hectares"], rel=1e-9)
        assert text["pixels"] == str(row["pixels"])


def test_blocks_add_up_over_a_wide_map(tmp_path):
    codes = np.random.default_rng(0).choice([10, 30], (1, 1100, 2100)).astype(np.uint8)
    rows = area_table([write(tmp_path / "m.tif", codes, size=10.0)], CLASSES, tmp_path / "t.csv")
    assert [row["pixels"] for row in rows] == [(codes == 10).sum(), (codes == 30).sum(), 0]
    box = GeoBox((1100, 2100), Affine(10, 0, 500000, 0, -10, 5000000), "EPSG:32632")
    middle = geodesic(box, 550, 1050)
    assert sum(row["hectares"] for row in rows) == pytest.approx(codes.size * middle, rel=1e-5)


@needs_data
def test_a_real_map_of_36000_pixels_a_side_is_counted_in_little_memory(tmp_path):
    names = ["tree", "shrub", "grass", "crop", "built", "bare", "snow", "water", "wetland", "mangrove", "moss"]
    codes = [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    classes = [ClassDef(code, name, "#000000") for code, name in zip(codes, names, strict=True)]
    tracemalloc.start()
    rows = {row["class"]: row for row in area_table([WORLDCOVER], classes, tmp_path / "t.csv")}
    assert tracemalloc.get_traced_memory()[1] < 100 << 20  # the map has 1296 MB
    tracemalloc.stop()
    source = align.dataset(str(WORLDCOVER))
    quarter = source.read(1, out_shape=(9000, 9000))  # an overview
    assert rows["water"]["pixels"] / 16 == pytest.approx((quarter == 80).sum(), rel=1e-3)
    assert rows["tree"]["pixels"] / 16 == pytest.approx((quarter == 10).sum(), rel=0.02)
    at_equator = geodesic(align.grid(source), 35999, 0)
    assert rows["water"]["hectares"] / rows["water"]["pixels"] == pytest.approx(at_equator, rel=2e-3)


def test_a_map_that_cannot_be_measured_is_refused(tmp_path):
    codes = np.full((1, 4, 4), 10, np.uint8)
    faults = {
        "one band of uint8 or uint16.*came 1 of float32": write(tmp_path / "f.tif", codes.astype(np.float32)),
        "came 2 of uint8": write(tmp_path / "two.tif", np.repeat(codes, 2, axis=0)),
        "place on the ground": write(tmp_path / "n.tif", codes, crs=None),
        "holds code 77, classes are 10, 30, 80": write(tmp_path / "s.tif", codes + np.uint8(67)),
        "no such file": tmp_path / "missing.tif",
    }
    for said, path in faults.items():
        with pytest.raises(InputError, match=f"{path.name}: .*{said}"):
            area_table([path], CLASSES, tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_a_map_that_breaks_off_is_named(tmp_path):
    codes = np.random.default_rng(0).choice([10, 30], (1, 1500, 1500)).astype(np.uint8)
    box = GeoBox((1500, 1500), Affine(10, 0, 500000, 0, -10, 5000000), "EPSG:32632")
    path = write_map(tmp_path / "m.tif", [(0, codes)], geobox=box, dtype="uint8")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(RunError, match=r"m\.tif: cannot be read to its end"):
        area_table([path], CLASSES, tmp_path / "t.csv")


def test_pixels_of_classes_beyond_the_world_are_refused(tmp_path):
    place = {"crs": "+proj=geos +h=35785831 +sweep=y", "corner": (-5500000, 5500000), "size": 110000.0}
    path = write(tmp_path / "m.tif", np.full((1, 100, 100), 10, np.uint8), **place)
    with pytest.raises(InputError, match=r"m\.tif: pixels of classes have no place"):
        area_table([path], CLASSES, tmp_path / "t.csv")


def test_a_table_is_replaced_only_when_asked(tmp_path):
    path, table = write(tmp_path / "m.tif", np.full((1, 4, 4), 10, np.uint8)), tmp_path / "t.csv"
    table.write_text("old")
    with pytest.raises(InputError, match=r"t\.csv: exists already"):
        area_table([path], CLASSES, table)
    area_table([path], CLASSES, table, overwrite=True)
    assert len(read_table(table)) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.tif", "t.csv"]


def test_a_name_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "d.csv").mkdir()
    faults = {
        r"ends in \.csv, came \.xlsx": "t.xlsx",
        r"ends in \.csv, came none": "t",
        "no folder .*there": "there/t.csv",
        "it is a folder": "d.csv",
    }
    for said, name in faults.items():
        with pytest.raises(InputError, match=said):
            area_table([], CLASSES, tmp_path / name)


def test_a_full_disk_leaves_the_old_table(tmp_path, monkeypatch):
    path, table = write(tmp_path / "m.tif", np.full((1, 4, 4), 10, np.uint8)), tmp_path / "t.csv"
    table.write_text("old")

    def full(self, *args, **kwargs):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"t\.csv: could not be written \(No space left on device\)"):
        area_table([path], CLASSES, table, overwrite=True)
    assert table.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.tif", "t.csv"]
