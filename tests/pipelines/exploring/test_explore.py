"""The map of a notebook, driven by the messages of its page: pictures, values, points and corrections."""

from __future__ import annotations

import base64
import io
import json
import os
import sys

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject, transform
from rasterio.windows import Window

from models.errors import InputError
from models.spec import Classes
from pipelines.commands.review import review
from pipelines.embeddings.stored import geobox_of, read_components
from pipelines.exploring import pixels
from pipelines.exploring.explore import explore
from pipelines.exploring.places import Places
from pipelines.grids import align
from pipelines.grids.tokens import Tokens, components
from pipelines.points.tables import read_table
from pipelines.review.corrections import read_corrections
from pipelines.review.review import Page
from tests.pipelines.review.scenes_to_review import CLASSES, PLACE, SIZE, make_map, write

GRID = GeoBox((2048, 256), PLACE["transform"], PLACE["crs"])
COLOURS = {entry.code: (*entry.rgb, 255) for entry in CLASSES} | {0: (0, 0, 0, 0)}


class Heard:
    """What a widget answers, as its page hears it."""

    def __init__(self, widget):
        self.widget, self.said = widget, []
        widget.send = lambda content, buffers=None: self.said.append((content, buffers or []))

    def ask(self, kind, **said):
        self.widget._handle_custom_msg({"kind": kind, "to": "page", **said}, [])
        return self.said.pop() if self.said else None

    def picture(self, layer, box, shape):
        content, (png,) = self.ask("picture", layer=layer, box=box, shape=shape)
        assert content["kind"] == "picture" and (content["layer"], content["box"]) == (layer, box)
        return np.asarray(Image.open(io.BytesIO(png)))

    def values(self, column, row):
        content, _ = self.ask("value", at=[column, row])
        return content["degrees"], content["values"]


@pytest.fixture
def place(tmp_path):
    """A folder with a scene, its map and its confidence."""
    make_map(tmp_path)
    return tmp_path


@pytest.fixture
def view(place):
    return explore(place / "scene.tif", place / "scene_map.tif", str(place / "scene_confidence.tif"))


def test_classes_are_the_pixels_of_the_file_in_its_colours(view, place):
    with rasterio.open(place / "scene_map.tif", "r+") as file:
        file.write(np.random.default_rng(5).choice(np.array([0, 10, 40], np.uint8), (1, SIZE, SIZE)))
    with rasterio.open(place / "scene_map.tif") as file:
        window, few = file.read(1, window=Window(30, 2, 40, 20)), file.read(1, out_shape=(24, 32))
    told = Heard(view)
    for shown, codes in (
        (told.picture(1, [2, 30, 22, 70], [20, 40]), window),
        (told.picture(1, [0, 0, SIZE, SIZE], [24, 32]), few),  # fewer
        (told.picture(1, [2, 30, 22, 70], [60, 120]), window.repeat(3, 0).repeat(3, 1)),  # more than there are
    ):
        np.testing.assert_array_equal(shown, [[COLOURS[code] for code in row] for row in codes])
    assert view.layers[1]["legend"]["classes"] == [{"name": e.name, "colour": e.colour} for e in CLASSES]


def test_a_scene_is_seen_between_the_ends_of_all_of_it(view, place):
    with rasterio.open(place / "scene.tif") as file:
        whole = file.read([3, 2, 1]).astype(float)
    low, high = np.percentile(whole, (2, 95))
    wanted = np.rint(255 * ((whole[:, 40:60, 50:90] - low) / (high - low)).clip(0, 1) ** 0.85)
    shown = Heard(view).picture(0, [40, 50, 60, 90], [20, 40])
    assert np.abs(np.moveaxis(wanted, 0, -1) - shown[..., :3]).max() <= 1 and (shown[..., 3] == 255).all()


def test_values_go_from_dark_to_bright_and_the_legend_names_the_ends(place):
    values = np.linspace(0.3, 0.9, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    view = explore(write(place / "confidence.tif", values, nodata=np.nan))
    shown = Heard(view).picture(0, [0, 0, SIZE, SIZE], [SIZE, SIZE]).astype(int).sum(axis=-1)
    assert (np.diff(shown.ravel()) >= -3).all() and shown.max() > shown.min() + 300
    ends = np.percentile(values, (2, 98))
    legend = view.layers[0]["legend"]
    assert (legend["low"], legend["high"]) == tuple(f"{end:.4g}" for end in ends) and len(legend["ramp"]) == 9


def test_what_has_no_data_is_transparent(place):
    with rasterio.open(place / "scene.tif", "r+") as file:
        file.write(np.full((4, 5, 7), -9999, np.int16), window=Window(20, 30, 7, 5))
    told = Heard(explore(place / "scene.tif", place / "scene_map.tif"))
    for layer, box in ((0, (30, 20, 35, 27)), (1, (0, 0, 4, 4))):
        clear = told.picture(layer, [0, 0, SIZE, SIZE], [SIZE, SIZE])[..., 3] == 0
        assert clear.sum() == clear[box[0] : box[2], box[1] : box[3]].sum() == (box[2] - box[0]) * (box[3] - box[1])
    assert told.values(22.5, 31.5)[1] == ["no data", "cropland" if SIZE // 2 <= 22 else "tree cover"]


def test_another_system_is_met_as_gdal_warps(place):
    there = {"crs": "EPSG:32634", "transform": from_origin(20000, 5570000, 12, 12)}
    codes = np.random.default_rng(1).choice(np.array([10, 30], np.uint8), (2000, 1000)).repeat(2, 1)
    with rasterio.open(place / "scene.tif") as file:
        far = transform(file.crs, there["crs"], [450000, 450960], [5550000, 5549040])
    there["transform"] = from_origin(far[0][0] - 12000, far[1][0] + 12000, 12, 12)
    with rasterio.open(
        place / "there.tif", "w", driver="GTiff", dtype="uint8", count=1, height=2000, width=2000, nodata=0, **there
    ) as file:
        file.write(codes, 1)
        file.write_colormap(1, {10: (200, 10, 20, 255), 30: (0, 0, 250, 255)})
    shown = Heard(explore(place / "scene.tif", place / "there.tif")).picture(1, [10, 20, 60, 80], [50, 60])
    wanted, corner = np.zeros((50, 60), np.uint8), from_origin(450000 + 200, 5550000 - 100, 10, 10)
    reproject(
        codes, wanted, src_transform=there["transform"], src_crs=there["crs"], dst_transform=corner,
        dst_crs=PLACE["crs"], src_nodata=0, resampling=Resampling.nearest, tolerance=0,
    )  # fmt: skip
    assert np.mean((shown[..., 0] == 200) == (wanted == 10)) > 0.99 and len(np.unique(wanted)) == 2


def test_a_finer_layer_is_shown_in_its_own_pixels(place):
    codes = np.random.default_rng(2).choice(np.array([10, 30], np.uint8), (SIZE, SIZE))
    coarse = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 12, "width": 12, "crs": PLACE["crs"]}
    with rasterio.open(place / "coarse.tif", "w", transform=from_origin(450000, 5550000, 80, 80), **coarse) as file:
        file.write(np.arange(144, dtype="float32").reshape(12, 12), 1)
    with rasterio.open(place / "scene_map.tif", "r+") as file:
        file.write(codes, 1)
    view = explore(place / "coarse.tif", place / "scene_map.tif")
    shown = Heard(view).picture(1, [0, 0, SIZE, SIZE], [SIZE, SIZE])
    np.testing.assert_array_equal(shown[..., 1] == 100, codes == 10)
    assert Heard(view).values(8.5, 0.5)[1][0] == "1"


def test_overviews_are_read_where_fewer_pixels_are_wanted(tmp_path):
    path = write(tmp_path / "tall.tif", np.ones((2048, 256), np.float32), nodata=np.nan)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8, 16, 32], Resampling.average)
        file.write(np.full((512, 256), np.nan, "float32"), 1, window=Window(0, 0, 256, 512))  # overviews stay
    told = Heard(explore(path))
    assert (told.picture(0, [0, 0, 2048, 256], [64, 8])[..., 3] == 255).all()
    assert (told.picture(0, [0, 0, 2048, 256], [2048, 256])[..., 3] == 255).mean() == 0.75


def test_a_large_file_without_overviews_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "COARSE", 128)
    values = np.random.default_rng(6).normal(size=(3, 2048, 256)).astype(np.float32)
    values[2, :, 250:] = 7
    path = write(tmp_path / "tall.tif", values)
    shown = [
        pixels.Band(lambda: align.dataset(str(path)), n, (1, 2, 3), nodata=(7,) if n == 3 else ()) for n in (1, 2, 3)
    ]
    before, window = pixels._coarse.cache_info(), (slice(512, 1536), slice(128, 256))
    for band, whole in zip(shown, values, strict=True):
        found = pixels.read(band, GRID, window, (64, 8), method=Resampling.average)
        means = whole[window].reshape(64, 16, 8, 16).mean(axis=(1, 3))
        np.testing.assert_allclose(found[:, :7], means[:, :7], atol=1e-5)
    (fine,) = pixels.read(shown[2], GRID, (slice(0, 1), slice(246, 256)), (1, 10), method=Resampling.average)
    np.testing.assert_array_equal(np.isnan(fine), np.arange(246, 256) >= 250)
    after = pixels._coarse.cache_info()
    assert (after.misses, after.hits) == (before.misses + 1, before.hits + 2)
    os.remove(path)
    with pytest.raises(InputError, match="no such file"):
        pixels.read(
            shown[0], GeoBox((8, 8), PLACE["transform"], PLACE["crs"]), window, (4, 4), method=Resampling.nearest
        )


@pytest.mark.parametrize("left", [170, -190, 530])
def test_degrees_go_on_over_the_antimeridian(left, tmp_path):
    place = Places(GeoBox((10, 40), from_origin(left, 5, 0.5, 0.5), "EPSG:4326"))
    assert place.degrees([(30, 4), (2, 4)]) == [(-175, 3), (171, 3)]
    np.testing.assert_allclose(place.pixels([(-175, 3), (171, 3), (531, 3)]), [(30, 4), (2, 4), (2, 4)])
    assert place.metres(20, 10) == pytest.approx(55_660, rel=1e-3)  # half a degree of the equator


def test_tokens_are_seen_by_the_components_that_the_notebooks_show(tmp_path):
    values = np.random.default_rng(3).normal(size=(8, 20, 30)).astype(np.float32)
    values[:2] *= 5
    values[:, 3:6, 4:9] = np.nan
    names = [f"frame 0 feature {n}" for n in range(8)]
    path = write(tmp_path / "tokens.tif", values, nodata=np.nan, names=names, tags={"EARTHTUNE_BACKBONE": "x"})
    (found, shares), (wanted, told) = read_components(path, 64), components(Tokens(values, geobox_of(path)))
    np.testing.assert_allclose(found.values, wanted, atol=1e-4)
    assert shares == pytest.approx(told)
    view = explore(path)
    shown = Heard(view).picture(0, [0, 0, 20, 30], [20, 30])
    np.testing.assert_array_equal(shown[..., 3] == 0, np.isnan(values[0]))
    known = ~np.isnan(values[0])
    for colour, component in zip(np.moveaxis(shown, -1, 0), wanted, strict=False):
        assert np.corrcoef(colour[known], component[known])[0, 1] > 0.97
    assert "principal components" in view.layers[0]["legend"]["note"]


def test_values_under_the_pointer_and_where_that_is(view, place):
    (lon, lat), said = Heard(view).values(60.5, 43.5)
    (wanted_lon,), (wanted_lat,) = transform(PLACE["crs"], "EPSG:4326", [450605], [5549565])
    assert (lon, lat) == (pytest.approx(wanted_lon, abs=2e-7), pytest.approx(wanted_lat, abs=2e-7))
    with rasterio.open(place / "scene.tif") as file:
        red, green, blue = (file.read(band)[43, 60] / 10000 for band in (3, 2, 1))
    assert said == [f"{red:.4g}, {green:.4g}, {blue:.4g}", "cropland", "0.97"]
    view.layers = [{**view.layers[0], "visible": False}, *view.layers[1:]]
    assert Heard(view).values(60.5, 43.5)[1][0] == "" and Heard(view).values(-3, 2)[1] == ["", "", ""]


def test_clicks_are_read_as_labels_of_the_pixels_under_them(view, place):
    told = Heard(view)
    for at, of in (([30.5, 40.5], 0), ([70.5, 3.5], 2), ([5.5, 5.5], 1)):
        assert told.ask("put", at=at, of=of) is None
    told.ask("remove", of="points", index=1)
    assert [point["class"] for point in view.points] == ["tree cover", "grassland"]
    np.testing.assert_allclose(view._marks, [(30.5, 40.5), (5.5, 5.5)], atol=0.01)
    for name in ("labels.csv", "labels.geojson"):
        table = read_table(view.save_points(place / name), view._grid, column=None, layer=None, group=None, say=print)
        assert table.classes == ["tree cover", "grassland"]
        found = [~PLACE["transform"] * (point.x, point.y) for point in table.shapes]
        np.testing.assert_allclose(found, [(30.5, 40.5), (5.5, 5.5)], atol=0.01)
    with pytest.raises(InputError, match=r"labels\.csv: exists already"):
        view.save_points(place / "labels.csv")
    view.points = []
    assert view.save_points(place / "labels.csv", overwrite=True).read_text() == "lon,lat,class\n"


def test_everything_is_undone_in_its_order_whoever_did_it(view):
    told = Heard(view)
    view.points = [{"lon": 14.3, "lat": 50.1, "class": "cropland"}]
    told.ask("draw", ring=[[1, 1], [9, 1], [9, 9]], of=1)
    told.ask("remove", of="points", index=0)
    many = []
    for _ in range(4):
        many.append((len(view.points), len(view.corrections)))
        told.ask("undo")
    assert many == [(0, 1), (1, 1), (1, 0), (0, 0)]


def test_corrections_are_what_is_learned_from(view, place):
    told = Heard(view)
    told.ask("draw", ring=[[20, 20], [40, 20], [40, 60]], of=1)
    told.ask("draw", ring=[[60, 10], [80, 10], [80, 20], [60, 20]], of=0)
    assert view.corrections[0]["ring"] == [[450200, 5549800], [450400, 5549800], [450400, 5549400]]
    path = view.save_corrections(place / "mine.gpkg")
    found = read_corrections(path, Classes(CLASSES), 0)
    assert [CLASSES[piece.label].name for piece in found.pieces] == ["grassland", "tree cover"]
    assert [piece.shape.area for piece in found.pieces] == [20 * 40 / 2 * 100, 20 * 10 * 100]
    assert found.scene == (place / "scene.tif",) and found.map == "scene_map.tif" and found.notes == ()
    said = review(place / "scene_map.tif", take=path, page=Page(no_page=True))
    assert said["answered"] == 1  # what lies outside of all its regions
    with pytest.raises(InputError, match="exists already"):
        view.save_corrections(path)
    (place / "scene_map.tif").unlink()
    with pytest.raises(InputError, match="scene_map: the map is no file on this machine"):
        view.save_corrections(place / "other.gpkg")
    view.corrections = []
    with pytest.raises(InputError, match="nothing is drawn"):
        view.save_corrections(place / "other.gpkg")


def pixels_of(view):
    return np.asarray(Image.open(io.BytesIO(view.picture())))


def test_a_notebook_keeps_a_picture_for_those_without_a_kernel(view):
    view.points = [{"lon": 14.3066, "lat": 50.0959, "class": "grassland"}]
    data, _ = view._repr_mimebundle_()
    assert data["text/plain"] == "Explorer(3 layers, 1 points, 0 corrections)"
    assert "application/vnd.jupyter.widget-view+json" in data
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))))
    assert shown.shape == (576, 576, 4)
    (x, y), times = view._marks[0], 576 / SIZE
    assert tuple(shown[int(y * times), int(x * times)]) == (255, 255, 76, 255)
    hidden, faded = view.layers[2] | {"visible": False, "name": "x"}, view.layers[0] | {"opacity": 0.2}
    view.layers = [faded | {"visible": False}, view.layers[1], hidden]
    assert [layer["name"] for layer in view.layers] == ["scene", "scene_map", "scene_confidence"]  # are the files'
    assert set(map(tuple, pixels_of(view)[60:, :200].reshape(-1, 4))) == {COLOURS[10]}
    view.layers = [faded, view.layers[1] | {"visible": False}, hidden]
    assert (pixels_of(view)[60:, :200, 3] == 51).all()


def test_names_that_are_given_have_the_map_s_colours_and_codes(view, place):
    view = explore(place / "scene.tif", place / "scene_map.tif", classes=["water", "grassland"])
    assert [one["name"] for one in view.classes] == ["grassland", "water"] and view.classes[0]["colour"] == "#ffff4c"
    ring = [[450100, 5549900], [450400, 5549900], [450400, 5549500]]
    view.corrections = [{"class": "grassland", "ring": ring}]
    with pytest.raises(InputError, match=r"class 'water' is none of the map's: grassland"):
        view.corrections = [{"class": "water", "ring": ring}]
    assert explore(place / "scene.tif").classes == []


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("points", [{"lon": 1, "lat": 2, "class": "town"}], "class 'town' is none of tree cover, grassland, cropland"),
        ("points", [{"lon": 14, "lat": 95, "class": "cropland"}], "lat in degrees north"),
        ("points", [{"lon": float("nan"), "lat": 9, "class": "cropland"}], "lon in degrees east"),
        ("points", [{"lon": "x", "lat": 9, "class": "cropland"}], "lon in degrees east"),
        ("corrections", [{"class": "cropland", "ring": [[1, 2], [3, 4]]}], "a polygon wants 3"),
        ("corrections", [{"class": "cropland", "ring": [[1, 2], [3, 4], [5, float("inf")]]}], "wanted two numbers"),
        ("corrections", [{"class": "cropland", "ring": [[0, 0], [9, 9], [9, 0], [0, 9]]}], "its sides cross"),
        ("corrections", [{"class": "cropland", "ring": [[0, 0], [1, 1], [2, 2]]}], "nothing lies in it"),
        ("corrections", [{"class": "cropland", "ring": None}], "correction of class cropland"),
        ("corrections", [{"class": ["cropland"], "ring": []}], "is none of the map's"),
        ("points", [{"lon": 10**400, "lat": 9, "class": "cropland"}], "lon in degrees east"),
        ("layers", [], "0 layers: the map has 3"),
        ("layers", [{"visible": True, "opacity": 2}] * 3, "opacity 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_changes(view, name, value, told):
    before = getattr(view, name)
    with pytest.raises(InputError, match=told):
        setattr(view, name, value)
    assert getattr(view, name) == before


def test_numbers_of_arrays_are_taken(view):
    ring = np.array([[450100, 5549900], [450400, 5549900], [450400, 5549500]], np.float32)
    view.points = [{"lon": np.float32(14.5), "lat": np.int64(50), "class": "cropland"}]
    view.corrections = [{"class": "cropland", "ring": ring}]
    assert view.points == [{"lon": 14.5, "lat": 50.0, "class": "cropland"}]
    assert view.corrections[0]["ring"] == ring.tolist() and type(view.corrections[0]["ring"][0][0]) is float


def test_what_cannot_be_shown_is_refused_by_a_line(place, tmp_path):
    with pytest.raises(InputError, match="wanted names of rasters, one after the other"):
        explore([place / "scene.tif", place / "scene_map.tif"])
    with pytest.raises(InputError, match=r"wanted a list of names, as \['water'\]"):
        explore(place / "scene.tif", classes="water")
    form = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, **PLACE}
    with rasterio.open(tmp_path / "phase.tif", "w", dtype="complex64", **form) as file:
        file.write(np.ones((1, 4, 4), np.complex64))
    with pytest.raises(InputError, match=r"phase\.tif: complex numbers are not shown"):
        explore(tmp_path / "phase.tif")
    with rasterio.open(tmp_path / "day.tif", "w", dtype="int32", **form) as file:
        file.write(np.full((1, 4, 4), 19488, np.int32))
    assert Heard(explore(tmp_path / "day.tif")).values(1, 1)[1] == ["19488"]


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "picture", "layer": 0, "box": [0, 0, 97, 96], "shape": [9, 9]},
        {"kind": "picture", "layer": 3, "box": [0, 0, 96, 96], "shape": [9, 9]},
        {"kind": "picture", "layer": -1, "box": [0, 0, 96, 96], "shape": [9, 9]},
        {"kind": "picture", "layer": 0, "box": [0, 0, 96, 96], "shape": [100_000, 100_000]},
        {"kind": "picture", "layer": 0, "box": [0, 0, 96, 96], "shape": [-2, -2]},
        {"kind": "value", "at": ["a", None]},
        {"kind": "put", "at": [1, 2], "of": 9},
        {"kind": "put", "at": [1, 2], "of": -1},
        {"kind": "remove", "of": "points", "index": 0},
        {"kind": "remove", "of": "layers", "index": 0},
        {"kind": "save_points"},
        {},
    ],
)
def test_a_page_that_talks_nonsense_is_answered_by_a_line(view, said):
    told = Heard(view)
    view._handle_custom_msg(said, [])
    assert [content["text"] for content, _ in told.said] == ["the page sent what is not understood"]
    assert view.points == [] and len(view.layers) == 3


def test_bands_without_names_are_shown_as_they_come(tmp_path):
    values = np.random.default_rng(4).integers(1, 200, (4, 30, 30)).astype(np.uint8)
    values[:, 3:5, 6:9] = 0
    view = explore(write(tmp_path / "chances.tif", values, nodata=0, names=("wood", "", "water", "")))
    assert view.layers[0]["legend"] == {"note": "wood, band 2, water"}
    shown = Heard(view).picture(0, [0, 0, 30, 30], [30, 30])
    np.testing.assert_array_equal(shown[..., 3] == 0, values[0] == 0)
    assert Heard(view).values(0.5, 1.5)[1] == [", ".join(str(v) for v in values[:3, 1, 0])]


def test_layers_that_do_not_go_together_are_refused(place):
    far = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 4, "width": 4}
    for name, about in {
        "far": {"crs": PLACE["crs"], "transform": from_origin(900000, 900000, 10, 10)},
        "nowhere": {"transform": from_origin(0, 4, 2, 2)},
    }.items():
        with rasterio.open(place / f"{name}.tif", "w", **far, **about) as file:
            file.write(np.ones((1, 4, 4), "float32"))
    (place / "text.tif").write_text("no raster")
    (place / "empty").mkdir()
    for layers, told in (
        ((), "a map wants a raster"),
        (("scene.tif", "far.tif"), "far: lies on other ground than scene"),
        (("nowhere.tif",), "nowhere: has no coordinate system"),
        (("missing.tif",), r"missing\.tif"),
        (("text.tif",), "not a raster that can be read"),
        (("empty",), "empty"),
    ):
        with pytest.raises(InputError, match=told):
            explore(*(place / name for name in layers))
    for classes in (["a", "a"], ["a", " "]):
        with pytest.raises(InputError, match="wanted names that differ"):
            explore(place / "scene.tif", classes=classes)


def test_without_anywidget_a_line_says_what_to_install(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "pipelines.exploring.explorer", raising=False)
    with pytest.raises(InputError, match=r"pip install 'earthtune\[notebooks\]'"):
        explore(place / "scene.tif")


def test_state_is_plain_json(view):
    view.points = [{"lon": np.float64(14.3), "lat": 50, "class": "grassland"}]
    assert json.loads(json.dumps(view.get_state()))["points"] == [{"class": "grassland", "lon": 14.3, "lat": 50.0}]
