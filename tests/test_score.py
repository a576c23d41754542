"""Maps of new scenes, read back by other programs."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from models.bundle import read_bundle
from models.errors import InputError
from models.runtime import load_runtime
from pipelines.score import map_type, open_for, score
from tests.runs import BANDS, make_chip, write


def make_scene(path, *, height=90, width=71, hole=None, **profile):
    """A scene of several chips side by side, not a multiple of the tile."""
    blocks = [[make_chip(7 * i + j)[0] for j in range(3)] for i in range(3)]
    bands = np.block(blocks)[:, :height, :width].copy()
    if hole:
        bands[:, hole[0], hole[1]] = -9999
    options = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2022-03-04"}, "nodata": -9999}
    return write(path, bands, **options | profile)


def test_map_has_the_scenes_grid_codes_colours_and_nodata(run, tmp_path):
    hole = (slice(0, 40), slice(0, 33))  # holds a whole tile and parts of others
    scene = make_scene(tmp_path / "new.tif", hole=hole)
    (result,) = score(run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made, rasterio.open(scene) as given:
        assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
        codes = made.read(1)
        assert made.nodata == 0 and made.dtypes == ("uint8",)
        assert made.colormap(1)[80][:3] == (0, 0x64, 0xC8)
        assert made.tags()["ACQUISITION_DATE"] == "2022-03-04"
        assert made.tags()["EARTHTUNE_BASE"] == "random weights"
    assert set(np.unique(codes)) <= {0, 10, 30, 80}
    invalid = np.zeros(codes.shape, bool)
    invalid[hole] = True
    assert ((codes == 0) == invalid).all()
    assert result["valid"] == pytest.approx(1 - invalid.mean(), abs=1e-5)
    assert cog_validate(result["map"], strict=True)[0]


def test_map_is_right_where_the_training_was_easy(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    truth = np.block([[make_chip(7 * i + j)[1][0] for j in range(3)] for i in range(3)])[:90, :71]
    (result,) = score(run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made:
        assert (made.read(1) == truth).mean() > 0.9


def test_probabilities_are_blended_by_weights_that_sum_to_one(run, tmp_path):
    """Against a plain double loop over the tiles with the same weights, on the whole scene in memory."""
    from pipelines.mosaic import weights
    from pipelines.score import predict_tiles
    from pipelines.windows import tiles

    bundle, path = read_bundle(run), make_scene(tmp_path / "new.tif", height=50, width=41)
    scene, predict = open_for(bundle, str(path)), load_runtime(run)
    total = np.zeros((3, 50, 41))
    rows, cols = dict(weights(50, 32, 8)), dict(weights(41, 32, 8))
    for window, y in predict_tiles(scene, bundle.spec, predict, tiles(50, 41, 32, 8), batch=3):
        total[:, window[0], window[1]] += y[:-1] * np.outer(rows[window[0].start], cols[window[1].start])
    np.testing.assert_allclose(total.sum(0), 1, atol=1e-5)
    (result,) = score(run, [str(path)], out=tmp_path / "maps", overlap=8)
    with rasterio.open(result["map"]) as made:
        assert (made.read(1) == np.array([10, 30, 80])[total.argmax(0)]).mean() > 0.999


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (32, 32), (33, 31)])
def test_every_size_is_mapped(run, tmp_path, shape):
    scene = make_scene(tmp_path / "new.tif", height=shape[0], width=shape[1])
    (result,) = score(run, [str(scene)], out=tmp_path / "maps", batch=2)
    with rasterio.open(result["map"]) as made:
        assert made.shape == shape and (made.read(1) > 0).all()


def test_scene_without_a_valid_pixel_gives_an_empty_map(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(None), slice(None)))
    (result,) = score(run, [str(scene)], out=tmp_path / "maps")
    assert result["valid"] == 0


def test_torch_and_openvino_draw_the_same_map(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    maps = []
    for name in ("openvino", "torch"):
        (result,) = score(run, [str(scene)], out=tmp_path / name, runtime=name)
        with rasterio.open(result["map"]) as made:
            maps.append(made.read(1))
    assert (maps[0] == maps[1]).mean() > 0.999


def test_values_come_with_unit_and_nan(value_run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(0, 9), slice(0, 9)))
    (result,) = score(value_run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made:
        values = made.read(1)
        assert made.dtypes == ("float32",) and np.isnan(made.nodata)
        assert made.descriptions == ("biomass",) and made.units == ("Mg/ha",)
    assert np.isnan(values[:9, :9]).all() and np.isfinite(values).sum() == 90 * 71 - 81


def test_scene_classes_come_as_one_pixel_per_tile(scene_run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(64, 90), slice(64, 71)))
    (result,) = score(scene_run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made, rasterio.open(scene) as given:
        assert made.shape == (3, 3) and made.res == (960.0, 960.0)
        assert made.bounds.left == given.bounds.left and made.bounds.top == given.bounds.top
        assert made.read(1)[2, 2] == made.nodata and set(np.unique(made.read(1))) <= {0, 1, 2}


def test_map_types_leave_room_for_nodata(run):
    import dataclasses

    from models.spec import ClassDef

    def coded(*codes):
        classes = tuple(ClassDef(code, str(code), "#000000") for code in codes)
        return map_type(dataclasses.replace(read_bundle(run).spec, classes=classes))

    assert coded(1, 255) == ("uint8", 0)
    assert coded(0, 254) == ("uint8", 255)
    assert coded(0, 255) == ("uint16", 65535)
    assert coded(0, 65535) == ("uint16", 65534)
    assert coded(10, 300) == ("uint16", 0)


def test_what_cannot_be_scored_is_refused_before_any_map(run, tmp_path):
    good = make_scene(tmp_path / "good.tif")
    undated = make_scene(tmp_path / "undated.tif", tags={})
    nowhere = make_scene(tmp_path / "nowhere.tif", crs=None)
    few = write(tmp_path / "few.tif", make_chip(0)[0][:3], names=BANDS[:3])
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    for bad, message in (
        (undated, "date"),
        (nowhere, "coordinate system"),
        (few, "NIR_NARROW"),
        (text, "text.tif"),
        (tmp_path / "gone.tif", "gone.tif"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            score(run, [str(good), str(bad)], out=tmp_path / "maps")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "maps").exists()
    with pytest.raises(InputError, match="overlap"):
        score(run, [str(good)], out=tmp_path / "maps", overlap=32)
    with pytest.raises(InputError, match="two scenes"):
        score(run, [str(good), str(good)], out=tmp_path / "maps")


def test_dates_can_be_told(run, tmp_path):
    undated = make_scene(tmp_path / "undated.tif", tags={})
    (result,) = score(run, [str(undated)], out=tmp_path / "maps", dates=["2020-01-31"])
    with rasterio.open(result["map"]) as made:
        assert made.tags()["ACQUISITION_DATE"] == "2020-01-31"


def test_maps_are_not_overwritten_unasked(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    score(run, [str(scene)], out=tmp_path / "maps")
    with pytest.raises(InputError, match="--overwrite"):
        score(run, [str(scene)], out=tmp_path / "maps")
    score(run, [str(scene)], out=tmp_path / "maps", overwrite=True)


def test_read_error_in_the_middle_leaves_no_map(run, tmp_path):
    from models.errors import RunError

    scene = make_scene(tmp_path / "new.tif")
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((RunError, InputError), match="new.tif"):
        score(run, [str(scene)], out=tmp_path / "maps")
    assert not (tmp_path / "maps").exists() or not list((tmp_path / "maps").iterdir())


def test_an_input_is_never_replaced_by_its_map(run, tmp_path):
    scene = make_scene(tmp_path / "x.tif")
    other = make_scene(tmp_path / "x_map.tif")
    before = other.read_bytes()
    with pytest.raises(InputError, match="would replace"):
        score(run, [str(scene), str(other)], out=tmp_path, overwrite=True)
    assert other.read_bytes() == before


def test_a_wrong_unit_is_warned_of(run, tmp_path):
    scene = make_scene(tmp_path / "x.tif")
    with rasterio.open(scene) as file:
        bands = file.read().astype(np.float32) / 1e4
    unit = write(tmp_path / "unit.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": "2022-03-04"})
    said: list[str] = []
    score(run, [str(scene), str(unit)], out=tmp_path / "maps", say=said.append)
    assert [line for line in said if "wrong unit" in line] == [
        line for line in said if line.startswith("unit: WARNING")
    ]
    assert any("wrong unit" in line for line in said)
