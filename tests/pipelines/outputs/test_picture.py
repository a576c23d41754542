"""Pictures of maps: sizes, colours, and what is not to be seen in them."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from models.errors import InputError
from models.spec import ClassDef, Target
from pipelines.outputs import picture as quicklook
from pipelines.outputs.picture import LONGEST, write_quicklook
from pipelines.scenes.scene import open_scene
from tests.runs import write
from tests.runs import write_map as write_layout

LEGEND = quicklook._class_legend
WORLD_COVER = {
    "Tree cover": "#006400",
    "Shrubland": "#ffbb22",
    "Grassland": "#ffff4c",
    "Cropland": "#f096ff",
    "Built-up": "#fa0000",
    "Bare / sparse vegetation": "#b4b4b4",
    "Snow and ice": "#f0f0f0",
    "Permanent water bodies": "#0064c8",
    "Herbaceous wetland": "#0096a0",
    "Mangroves": "#00cf75",
    "Moss and lichen": "#fae6a0",
}


def many_classes(count=11, name="{0}"):
    pairs = list(WORLD_COVER.items())
    return tuple(ClassDef(10 * (i + 1), name.format(pairs[i % 11][0]), pairs[i % 11][1]) for i in range(count))


def write_map(path, values, **options):
    options = {"dtype": str(values.dtype), "nodata": 0} | options
    geobox = GeoBox(values.shape, Affine(30, 0, 500000, 0, -30, 5000000), options.pop("crs", "EPSG:32632"))
    return write_layout(path, [(0, values[None])], geobox=geobox, **options)


def picture(map_file, spec) -> np.ndarray:
    """(h, w, 4) uint8."""
    path = map_file.with_suffix(".png")
    write_quicklook(path, map_file, classes=spec.answer.classes)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGBA"
        return np.asarray(image)


def colours(pixels) -> set[tuple[int, ...]]:
    return {tuple(int(v) for v in row) for row in np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)}


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (70, 5), (32, 45)])
def test_small_maps_are_enlarged_by_whole_factors(make_spec, tmp_path, shape):
    spec = make_spec()
    codes = np.random.default_rng(0).choice(np.array([0, *spec.answer.codes], np.uint8), shape)
    made = picture(write_map(tmp_path / "m.tif", codes, classes=spec.answer.classes), spec)
    factor = 640 // max(shape)
    left = (made.shape[1] - shape[1] * factor) // 2
    shown = made[: shape[0] * factor, left : left + shape[1] * factor]
    table = {0: (0, 0, 0, 0)} | {entry.code: (*entry.rgb, 255) for entry in spec.answer.classes}
    expected = np.array([[table[int(code)] for code in row] for row in codes], np.uint8)
    np.testing.assert_array_equal(shown, np.kron(expected, np.ones((factor, factor, 1), np.uint8)))
    assert max(made.shape) <= LONGEST


@pytest.mark.parametrize("shape", [(1500, 1500), (3000, 200), (200, 3000), (2000, 1900)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_large_maps_are_thinned_without_new_colours(make_spec, tmp_path, shape, dtype):
    spec = make_spec(classes=many_classes())
    blocks = np.random.default_rng(1).choice(
        np.array([0, *spec.answer.codes], dtype), [-(-side // 100) for side in shape]
    )
    codes = np.kron(blocks, np.ones((100, 100), dtype))[: shape[0], : shape[1]]
    path = write_map(tmp_path / "m.tif", codes, classes=spec.answer.classes)
    assert 0.9 * LONGEST < max(picture(path, spec).shape) <= LONGEST
    image, _ = quicklook._draw(path, spec.answer.classes, 700, None)
    assert max(image.size) == 700
    assert colours(np.asarray(image)) <= {(*entry.rgb, 255) for entry in spec.answer.classes} | {(0, 0, 0, 0)}


def test_overviews_are_read_not_the_map(make_spec, tmp_path):
    """Where a picture is made of the overview alone, the pixels of the map may be lost."""
    spec = make_spec()
    path = write_map(tmp_path / "m.tif", np.full((4096, 4096), 3, np.uint8), classes=spec.answer.classes)
    with rasterio.open(path) as made:
        assert made.overviews(1)
        blocks = [made.get_tag_item(f"BLOCK_OFFSET_{x}_0", "TIFF", bidx=1) for x in range(8)]
    data = bytearray(path.read_bytes())
    for offset in filter(None, blocks):
        data[int(offset) : int(offset) + 8] = b"\xff" * 8
    assert any(blocks)
    path.write_bytes(data)
    with rasterio.open(path) as broken, pytest.raises(rasterio.errors.RasterioIOError):
        broken.read(1)
    assert (3 in spec.answer.codes) and tuple(picture(path, spec)[10, 10]) == (*spec.answer.classes[0].rgb, 255)


def test_nodata_is_transparent_and_only_classes_that_occur_are_named(make_spec, tmp_path, monkeypatch):
    spec = make_spec(classes=many_classes())
    named = []

    def noted(entries, width):
        named.extend(name for name, _ in entries)
        return LEGEND(entries, width)

    monkeypatch.setattr(quicklook, "_class_legend", noted)
    codes = np.full((64, 64), 20, np.uint8)
    codes[:32] = 0
    codes[40:, :8] = 80
    made = picture(write_map(tmp_path / "m.tif", codes, classes=spec.answer.classes), spec)
    assert (made[:320, :, 3] == 0).all() and (made[320:640, :, 3] == 255).all()
    assert named == ["Shrubland", "Permanent water bodies"]


@pytest.mark.parametrize("width", [280, 640, 1024])
@pytest.mark.parametrize("count", [2, 11, 100])
def test_legends_fit(make_spec, width, count):
    for name in ("{0}", "{0}, " * 12):
        entries = [(entry.name, entry.rgb) for entry in many_classes(count, name)]
        made = np.asarray(LEGEND(entries, width))
        assert made.shape[1] == width and made.shape[0] <= 300
        assert (made[:, -4:] == 255).all() and (made[:, :8] == 255).all() and (made[-4:] == 255).all()
        assert (made != 255).any()


def test_a_name_that_the_font_lacks_is_told_by_its_code():
    assert quicklook._legible(ClassDef(7, "水", "#000000")) == "class 7"
    assert quicklook._legible(ClassDef(7, "forêt, łąka, лес", "#000000")) == "forêt, łąka, лес"


def test_values_run_from_the_second_to_the_98th_percentile(make_spec, tmp_path):
    spec = make_spec("regression", target=Target("biomass", "Mg/ha"))
    values = np.random.default_rng(2).normal(100, 30, (640, 640)).astype(np.float32)
    values[0, :100], values[1, 0] = np.nan, 1e6
    made = picture(write_map(tmp_path / "m.tif", values, nodata=np.nan, units=["Mg/ha"]), spec)[:640]
    assert ((made[..., 3] == 0) == np.isnan(values)).all()
    low, high = np.percentile(values[np.isfinite(values)], (2, 98))
    expected = matplotlib.colormaps["cividis"]((values - low) / (high - low), bytes=True)[..., :3].astype(int)
    seen = np.isfinite(values)
    assert np.abs(made[..., :3].astype(int) - expected)[seen].max() <= 4  # and one colour of 256 by rounding
    assert tuple(made[1, 0, :3]) == (0xFD, 0xE7, 0x37)


@pytest.mark.parametrize("values", [np.full((20, 20), np.nan), np.full((20, 20), 3.0)])
def test_maps_of_one_value_or_of_none_are_drawn(make_spec, tmp_path, values):
    spec = make_spec("regression")
    made = picture(write_map(tmp_path / "m.tif", values.astype(np.float32), nodata=np.nan), spec)
    assert (made[:640, :, 3] == (0 if np.isnan(values).all() else 255)).all()
    empty = write_map(tmp_path / "e.tif", np.zeros((20, 20), np.uint8), classes=make_spec().answer.classes)
    assert (picture(empty, make_spec())[:640, :, 3] == 0).all()


@pytest.mark.parametrize(
    ("value", "span", "text"),
    [
        (33.4, 240, "33"),
        (0.0059, 0.0217, "0.0059"),
        (1000.12, 0.5, "1000.120"),
        (-2.5, 10, "-2.5"),
        (2.5e7, 1e7, "2.5e+07"),
    ],
)
def test_ends_of_the_scale_tell_a_hundredth_of_it(value, span, text):
    assert quicklook._readable(value, span) == text


def test_confidence_of_a_class_model_is_drawn_as_values(make_spec, tmp_path):
    shares = np.linspace(0, 1, 640 * 640, dtype=np.float32).reshape(640, 640)
    made = picture(write_map(tmp_path / "c.tif", shares, nodata=np.nan, descriptions=["confidence"]), make_spec())
    assert tuple(made[0, 0, :3]) == (0, 0x22, 0x4D) and tuple(made[639, 639, :3]) == (0xFD, 0xE7, 0x37)


def test_the_same_map_gives_the_same_bytes_and_no_draft_is_left(make_spec, tmp_path):
    spec = make_spec()
    path = write_map(tmp_path / "m.tif", np.full((20, 30), 3, np.uint8), classes=spec.answer.classes, crs=None)
    for name in ("a.png", "b.png"):
        write_quicklook(tmp_path / name, path, classes=spec.answer.classes)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    write_quicklook(tmp_path / "a.png", path, classes=spec.answer.classes)
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_raster_is_refused(make_spec, tmp_path):
    (tmp_path / "text.tif").write_text("not a raster")
    for name in ("text.tif", "gone.tif"):
        with pytest.raises(InputError, match=name):
            write_quicklook(tmp_path / "a.png", tmp_path / name, classes=make_spec().answer.classes)
    assert not (tmp_path / "a.png").exists()


def test_matplotlib_is_not_imported(make_spec, tmp_path):
    spec = make_spec()
    path = write_map(tmp_path / "m.tif", np.full((20, 30), 3, np.uint8), classes=spec.answer.classes)
    code = (
        "import sys; from pathlib import Path; from models.spec import Spec; from pipelines.outputs.picture import *;"
        f"spec = Spec.from_json({spec.to_json()!r}); write_quicklook(Path({str(tmp_path / 'a.png')!r}),"
        f"Path({str(path)!r}), classes=spec.answer.classes); print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("shape", [(60, 40), (40, 90)])
def test_the_scene_is_beside_the_map_or_above_a_wide_one(tmp_path, make_spec, shape):
    spec = make_spec()
    codes = np.full(shape, spec.answer.classes[0].code, np.uint8)
    codes[:5] = 0
    x = np.random.default_rng(0).integers(300, 3000, (3, *shape)).astype("int16")
    x[:, :5] = -9999
    place = {"crs": "EPSG:32632", "corner": (500000, 5000000)}
    write(tmp_path / "s.tif", x, names=("BLUE", "GREEN", "RED"), nodata=-9999, **place)
    scene = open_scene(tmp_path / "s.tif", ["BLUE", "GREEN", "RED"])
    map_file = write_map(tmp_path / "m.tif", codes)
    for name in ("a.png", "b.png"):
        write_quicklook(tmp_path / name, map_file, classes=spec.answer.classes, scene=scene)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    factor = 320 // max(shape)
    high, wide = (n * factor for n in shape)
    first = pixels[:high, (pixels.shape[1] - (2 * wide + 6 if high >= wide else wide)) // 2 :][:, :wide]
    assert not first[: 5 * factor, :, 3].any() and first[5 * factor :, :, 3].all()  # the scene, void where it is
    assert len(colours(first)) > 50  # many colours, where a map of one class has one
    write_quicklook(tmp_path / "c.png", map_file, classes=spec.answer.classes)
    assert len(colours(np.asarray(Image.open(tmp_path / "c.png"))[:high])) <= 3
