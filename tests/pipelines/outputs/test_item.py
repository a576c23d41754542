"""STAC items against the schemas, pystac, and what is known of the grids."""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension

from models.bundle import Base, Bundle
from models.errors import InputError
from models.spec import ClassDef, Target
from models.training.settings import Architecture
from pipelines.outputs.footprint import footprint
from pipelines.outputs.item import stac_item, write_stac_item
from pipelines.outputs.picture import write_quicklook
from pipelines.scenes.scene import Frame, Scene
from tests.runs import write_map

DAY = datetime.date(2022, 3, 4)


def grid(crs="EPSG:32632", *, origin=(500000, 5000000), step=30.0, shape=(40, 30)):
    return GeoBox(shape, Affine(step, 0, origin[0], 0, -step, origin[1]), crs)


def make_scene(geobox=None, *sources, dates=(DAY,)):
    sources = sources or ("scene.tif",)
    frames = tuple(
        Frame(Path(source).stem, source, date, (), None, ()) for source, date in zip(sources, dates, strict=True)
    )
    return Scene(frames[0].name, geobox or grid(), ("BLUE", "RED", "NIR_NARROW"), frames)


def make_bundle(spec, **changes):
    return Bundle(spec, "prithvi_eo_v2_300_tl", Architecture(), **changes)


def write_products(folder: Path, spec, geobox, *, name="a") -> dict[str, Path]:
    """A map, its probabilities, its confidence and its picture."""
    height, width = geobox.shape
    if spec.answer.classes:
        codes = np.resize(np.array([0, *spec.answer.codes], np.uint8), (1, height, width))
        options = {"dtype": "uint8", "nodata": 0, "classes": spec.answer.classes, "descriptions": ["class"]}
    else:
        codes = np.resize(np.array([np.nan, 3, 4.5], np.float32), (1, height, width))
        options = {"dtype": "float32", "nodata": np.nan, "descriptions": ["biomass"], "units": [spec.answer.unit]}
    layers = len(spec.answer.classes) or 1
    shares = np.full((layers, height, width), 1 / layers, np.float32)
    names = [entry.name for entry in spec.answer.classes] or ["biomass"]
    floats = {"geobox": geobox, "dtype": "float32", "nodata": np.nan}
    products = {
        "map": write_map(folder / f"{name}_map.tif", [(0, codes)], geobox=geobox, **options),
        "probabilities": write_map(
            folder / f"{name}_probabilities.tif", [(0, shares)], bands=layers, descriptions=names, **floats
        ),
        "confidence": write_map(
            folder / f"{name}_confidence.tif", [(0, shares[:1])], descriptions=["confidence"], **floats
        ),
        "thumbnail": folder / f"{name}.png",
    }
    write_quicklook(products["thumbnail"], products["map"], classes=spec.answer.classes)
    return products


@pytest.fixture
def products(make_spec, tmp_path):
    return write_products(tmp_path / "maps", make_spec(), grid())


@pytest.fixture
def model(tmp_path):
    """A stand-in for a run's model."""
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "model.onnx"
    path.write_bytes(b"weights")
    return path


def test_item_is_valid_and_pystac_reads_every_extension(make_spec, products, model, valid):
    base = Base("hub", repo="ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL", revision="0123abc", file="x.pt")
    bundle = make_bundle(make_spec(uses_time=True, uses_location=True), base=base, mode="frozen")
    item = valid(stac_item(bundle, make_scene(), products | {"model": model}, name="a"))
    assert item.id == "a" and item.datetime == datetime.datetime(2022, 3, 4, tzinfo=datetime.UTC)
    assert item.properties["processing:level"] == "L4"
    projection = ProjectionExtension.ext(item.assets["map"])
    with rasterio.open(products["map"]) as made:
        assert (projection.epsg, projection.shape) == (32632, list(made.shape))
        assert projection.transform == list(made.transform)[:6]
    classes = ClassificationExtension.ext(item.assets["map"]).classes
    assert [(c.value, c.name, c.color_hint) for c in classes[:3]] == [
        (3, "water", "0000FF"),
        (7, "crops", "00FF00"),
        (9, "forest", "004400"),
    ]
    assert classes[3].value == 0 and classes[3].name == "nodata"
    described = MLMExtension.ext(item)
    assert described.pretrained_source == "ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL@0123abc"
    assert described.input[0].bands == ["BLUE", "RED", "NIR_NARROW"]
    assert [entry.name for entry in described.input] == ["imagery", "time", "location"]
    assert described.output[0].result.shape == [-1, 3, 32, 32]
    assert item.assets["model"].href == "../run/model.onnx"
    for asset in item.assets.values():
        item.set_self_href(str(products["map"].parent / "a.json"))
        data = Path(asset.get_absolute_href()).read_bytes()
        assert FileExtension.ext(asset).size == len(data)
        assert FileExtension.ext(asset).checksum == "1220" + hashlib.sha256(data).hexdigest()


def test_assets_say_type_nodata_bands_and_resolution(make_spec, products, valid):
    item = stac_item(make_bundle(make_spec()), make_scene(), products, name="a")
    valid(item)
    found = item["assets"]
    assert found["map"]["href"] == "./a_map.tif" and found["map"]["type"].endswith("profile=cloud-optimized")
    assert (found["map"]["data_type"], found["map"]["nodata"]) == ("uint8", 0)
    assert found["map"]["raster:spatial_resolution"] == 30
    assert [band["name"] for band in found["probabilities"]["bands"]] == ["water", "crops", "forest"]
    assert (found["confidence"]["data_type"], found["confidence"]["nodata"]) == ("float32", "nan")
    assert found["thumbnail"]["roles"] == ["thumbnail"] and found["thumbnail"]["type"] == "image/png"
    assert not any(key.startswith("mlm:") for key in item["properties"])


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("task", ["regression", "classification", "segmentation"])
def test_every_task_is_valid(make_spec, tmp_path, model, valid, task, with_model):
    spec = make_spec(task, **({"target": Target("biomass", "Mg/ha")} if task == "regression" else {}))
    assets = write_products(tmp_path / "maps", spec, grid()) | ({"model": model} if with_model else {})
    item = stac_item(make_bundle(spec), make_scene(), assets, name="b")
    valid(item)
    assert item["assets"]["map"].get("unit") == ("Mg/ha" if task == "regression" else None)
    assert ("classification:classes" in item["assets"]["map"]) == (task != "regression")
    if with_model:
        assert item["properties"]["mlm:pretrained_source"] is None


def test_the_schemas_of_the_tests_refuse(make_spec, products, model, valid):
    """Else they would prove nothing."""
    good = json.dumps(stac_item(make_bundle(make_spec()), make_scene(), products | {"model": model}, name="a"))
    for old, new in (
        ('"value": 3', '"value": "3"'),
        ('"proj:shape": [40, 30]', '"proj:shape": [40.5, 30]'),
        ('"proj:code"', '"proj:kode"'),
        ('"raster:sampling": "area"', '"raster:sampling": "pixel"'),
        ('"file:checksum": "1220', '"file:checksum": "XX'),
        ('"processing:level": "L4"', '"processing:level": 4'),
        ('"mlm:model"', '"data"'),
        ('"common_name": "nir08"', '"common_name": "nir narrow"'),
        ('"name": "water"', '"name": "the water"'),
    ):
        assert old in good
        with pytest.raises(pystac.STACValidationError):
            valid(json.loads(good.replace(old, new)))


def test_names_of_classes_become_words_that_differ(make_spec, tmp_path, valid):
    names = ("forêt (dense)", "forêt dense", "水", "Built-up", "")
    classes = tuple(ClassDef(code, name, "#a0b0c0") for code, name in enumerate(names, 1))
    spec = make_spec(classes=classes)
    item = stac_item(make_bundle(spec), make_scene(), write_products(tmp_path, spec, grid()), name="a")
    valid(item)
    found = item["assets"]["map"]["classification:classes"]
    assert [entry["name"] for entry in found] == [
        "foret-dense-1",
        "foret-dense-2",
        "class-3",
        "Built-up",
        "class-5",
        "nodata",
    ]
    assert [entry["title"] for entry in found[:5]] == list(names)


@pytest.mark.parametrize(
    ("dates", "when"),
    [
        ((DAY,), ("2022-03-04T00:00:00Z", "2022-03-04T00:00:00Z", "2022-03-04T23:59:59Z")),
        ((DAY, datetime.date(2021, 12, 31)), (None, "2021-12-31T00:00:00Z", "2022-03-04T23:59:59Z")),
        ((None,), (None, "1970-01-01T00:00:00Z", "2099-12-31T23:59:59Z")),
        ((None, DAY), ("2022-03-04T00:00:00Z", "2022-03-04T00:00:00Z", "2022-03-04T23:59:59Z")),
    ],
)
def test_time_is_what_the_dates_tell(make_spec, products, valid, dates, when):
    scene = make_scene(grid(), *(f"{i}.tif" for i in range(len(dates))), dates=dates)
    item = stac_item(make_bundle(make_spec()), scene, products, name="a")
    valid(item)
    told = item["properties"]
    assert (told["datetime"], told["start_datetime"], told["end_datetime"]) == when
    assert ("unknown" in told["description"]) == (None in dates)


def test_a_scene_without_a_place_has_no_geometry(make_spec, tmp_path, valid):
    geobox = GeoBox((40, 30), Affine.scale(2), None)
    assets = write_products(tmp_path, make_spec(), geobox)
    item = stac_item(make_bundle(make_spec()), make_scene(geobox), assets, name="a")
    valid(item)
    assert item["geometry"] is None and "bbox" not in item and item["properties"]["proj:code"] is None
    assert "proj:transform" not in item["assets"]["map"]


def test_a_system_that_no_authority_lists_is_told_in_full(make_spec, tmp_path, valid):
    own = "+proj=laea +lat_0=12.5 +lon_0=3.25 +x_0=1000 +y_0=0 +datum=WGS84 +units=m"
    geobox = grid(own, origin=(0, 0))
    item = stac_item(
        make_bundle(make_spec()), make_scene(geobox), write_products(tmp_path, make_spec(), geobox), name="a"
    )
    valid(item)
    assert item["properties"]["proj:code"] is None and item["properties"]["proj:wkt2"].startswith("PROJCRS[")


def test_footprint_is_that_of_rasterio():
    from rasterio.warp import transform_geom

    geobox = grid("EPSG:3035", origin=(4e6, 3e6), step=1000, shape=(600, 900))
    left, bottom, right, top = 4e6, 2.4e6, 4.9e6, 3e6
    sides = shapely.segmentize(shapely.box(left, bottom, right, top), 1000)
    expected = shapely.geometry.shape(transform_geom("EPSG:3035", "EPSG:4326", shapely.geometry.mapping(sides)))
    geometry, bbox = footprint(geobox)
    made = shapely.geometry.shape(geometry)
    assert made.symmetric_difference(expected).area < 1e-3 * expected.area
    np.testing.assert_allclose(bbox, made.bounds)
    assert made.exterior.is_ccw


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:32660"])
def test_footprint_across_the_antimeridian_is_two_halves(crs):
    zone = grid(crs, origin=(80000 if crs == "EPSG:32601" else 700000, 1e6), step=1000, shape=(200, 200))
    geometry, (west, _, east, _) = footprint(zone)
    made = shapely.geometry.shape(geometry)
    assert made.geom_type == "MultiPolygon" and len(made.geoms) == 2 and made.is_valid
    assert west > 170 and east < -170
    assert made.area == pytest.approx(200 * 200 / 111**2, rel=0.05)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_footprint_over_a_pole_holds_it(crs, pole):
    geometry, bbox = footprint(grid(crs, origin=(-1e6, 1e6), step=1e4, shape=(200, 200)))
    made = shapely.geometry.shape(geometry)
    assert made.is_valid and pole in (bbox[1], bbox[3]) and (bbox[0], bbox[2]) == (-180, 180)
    assert made.intersects(shapely.Point(77, pole * 0.99)) and not made.intersects(shapely.Point(77, 0))


def test_footprint_of_all_the_earth_and_of_south_up_grids():
    world = grid("EPSG:4326", origin=(-180, 90), step=1, shape=(180, 360))
    assert footprint(world)[1] == [-180, -90, 180, 90]
    flipped = GeoBox((10, 20), Affine(1, 0, 5, 0, 1, 40), "EPSG:4326")
    geometry, bbox = footprint(flipped)
    assert bbox == [5, 40, 25, 50] and shapely.geometry.shape(geometry).exterior.is_ccw
    east = grid("EPSG:4326", origin=(350, 10), step=1, shape=(10, 8))  # longitudes that run to 360
    assert footprint(east)[1] == [-10, 0, -2, 10]


def test_links_tell_no_secret_and_no_folder_of_the_machine(make_spec, products, tmp_path, valid):
    near, far = tmp_path / "scenes" / "my scene#1.tif", tmp_path.parent / "elsewhere.tif"
    for path in (near, far):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    folder = tmp_path / "scenes" / "HLS.S30.T32TPS"
    folder.mkdir()
    sources = (
        str(near),
        str(far),
        str(folder),
        "https://user:secret@example.com/a/item.json?sig=key",
        "s3://bucket/b.tif",
        "/vsicurl/https://example.com/c.tif",
        str(tmp_path / "gone.tif"),
        str(near),
    )
    item = stac_item(
        make_bundle(make_spec()), make_scene(grid(), *sources, dates=[DAY] * len(sources)), products, name="a"
    )
    valid(item)
    assert [link["href"] for link in item["links"]] == [
        "../scenes/my%20scene%231.tif",
        "../scenes/HLS.S30.T32TPS/",
        "https://example.com/a/item.json",
        "s3://bucket/b.tif",
    ]
    assert {link["rel"] for link in item["links"]} == {"derived_from"}
    text = json.dumps(item)
    assert str(tmp_path.parent) not in text and "secret" not in text and "sig=" not in text
    assert "elsewhere.tif" in item["properties"]["processing:lineage"]


def test_a_model_elsewhere_is_named_by_its_content(make_spec, products, tmp_path_factory, valid):
    far = tmp_path_factory.mktemp("registry") / "model.onnx"
    far.write_bytes(b"Hello World!")
    item = stac_item(make_bundle(make_spec()), make_scene(), products | {"model": far}, name="a")
    valid(item)
    # The example of RFC 6920, section 8.1.
    assert item["assets"]["model"]["href"] == "ni:///sha-256;f4OxZX_x_FO5LcGBSKHWXfwtSx-j1ncoSt3SABJtkGk"


def test_the_same_input_gives_the_same_bytes(make_spec, products, tmp_path):
    written = []
    for place in ("one.json", "two.json"):
        item = stac_item(make_bundle(make_spec()), make_scene(), dict(products), name="a")
        write_stac_item(tmp_path / place, item)
        written.append((tmp_path / place).read_bytes())
    assert written[0] == written[1] and json.loads(written[0]) == item
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "one.json", "two.json"]


def test_a_changed_file_is_hashed_anew(make_spec, products):
    bundle, scene = make_bundle(make_spec()), make_scene()
    before = stac_item(bundle, scene, products, name="a")["assets"]["thumbnail"]
    products["thumbnail"].write_bytes(b"another picture")
    after = stac_item(bundle, scene, products, name="a")["assets"]["thumbnail"]
    assert before["file:checksum"] != after["file:checksum"] and after["file:size"] == 15


def test_files_that_cannot_be_described_are_refused(make_spec, products, tmp_path):
    bundle, scene = make_bundle(make_spec()), make_scene()
    for assets, message in (
        ({}, "one folder"),
        (products | {"confidence": tmp_path / "c.tif"}, "one folder"),
        (products | {"confidence": products["map"].with_name("gone.tif")}, "gone.tif"),
    ):
        with pytest.raises(InputError, match=message):
            stac_item(bundle, scene, assets, name="a")


def test_recipe_and_calibration_are_told(make_spec, products, model, valid):
    spec = make_spec()
    training = {"recipe": "flood.yaml", "sha256": "ab" * 32}
    item = stac_item(make_bundle(spec, training=training), make_scene(), products | {"model": model}, name="a")
    valid(item)
    assert "flood.yaml" in item["properties"]["processing:lineage"]
    assert item["properties"]["mlm:hyperparameters"] == {"mode": "full", "recipe_sha256": "ab" * 32}


def test_importing_is_cheap():
    code = "import sys, pipelines.outputs.item; print(sys.modules.keys() & {'numpy', 'rasterio', 'shapely'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("west", [-180, 0])
def test_a_grid_around_the_world_has_the_box_of_the_world(west):
    _, box = footprint(GeoBox((180, 360), Affine(1, 0, west, 0, -1, 90), "EPSG:4326"))
    assert box == [-180, -90, 180, 90]
