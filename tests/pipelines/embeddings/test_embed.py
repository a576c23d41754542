"""Backbone features as a raster on the token grid."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyarrow.parquet
import pyogrio
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter
from shapely.geometry import Point, box

from models.bundle import load_network
from models.errors import InputError, RunError
from pipelines.commands import embed as command
from pipelines.embeddings import embed as module
from pipelines.embeddings.embed import embed
from pipelines.embeddings.encoding import read_tokens
from pipelines.embeddings.seam import seam_ratio
from pipelines.embeddings.stored import read_stored
from pipelines.grids.windows import Tiles
from pipelines.scenes.reading import Reading
from tests.runs import BANDS, make_chip, write


def test_tokens_of_a_run_are_those_of_its_backbone(run, tmp_path):
    bands, _ = make_chip(3)
    path = write(tmp_path / "a.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": "2021-06-15"})
    (result,) = embed(str(run), [str(path)], out=tmp_path / "tokens.tif", tile=32)
    network = load_network(run)
    with torch.inference_mode():
        time, place = torch.tensor([[[2021.0, 165.0]]]), torch.tensor([[45.1477, 9.0061]])
        image = torch.from_numpy(bands.astype(np.float32))[None, :, None]
        maps = network.features({"imagery": image, "time": time, "location": place})
    with rasterio.open(tmp_path / "tokens.tif") as made, rasterio.open(path) as given:
        assert result["tokens"] == [2, 2] and made.shape == (2, 2) and made.res == (480.0, 480.0)
        assert made.bounds == given.bounds
        np.testing.assert_allclose(made.read(), maps[-1][0].numpy(), atol=2e-3)


def test_edges_and_holes(run, tmp_path):
    bands = np.concatenate([make_chip(i)[0] for i in range(3)], axis=2)[:, :30, :90].copy()
    bands[:, :, :32] = -9999
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    path = write(tmp_path / "a.tif", bands, names=BANDS, tags=tags, nodata=-9999)
    embed(str(run), [str(path)], out=tmp_path / "tokens.tif", tile=32, overlap=16)
    with rasterio.open(tmp_path / "tokens.tif") as made:
        tokens = made.read()
    assert tokens.shape == (32, 2, 6)
    assert np.isnan(tokens[:, :, :2]).all() and np.isfinite(tokens[:, :, 2:]).all()


def test_a_backbone_by_name_with_random_weights(tmp_path):
    path = write(tmp_path / "a.tif", make_chip(1)[0], names=BANDS)
    (result,) = embed("prithvi_eo_tiny", [str(path)], out=tmp_path / "t.tif", weights="random", tile=32, block=0)
    assert result["features"] == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vit"}, "wanted one of"),
        ({"block": 4}, "block 4"),
        ({"overlap": 8}, "multiple of the patch"),
        ({"tile": 33}, "multiple"),
        ({"weights": "hub"}, "no weights were published"),
    ],
)
def test_what_cannot_be_embedded(tmp_path, change, message):
    path = write(tmp_path / "a.tif", make_chip(1)[0], names=BANDS)
    options = {"backbone": "prithvi_eo_tiny", "weights": "random", "tile": 32} | change
    with pytest.raises(InputError, match=message):
        embed(options.pop("backbone"), [str(path)], out=tmp_path / "t.tif", **options)
    assert not (tmp_path / "t.tif").exists()


def test_tokens_in_memory_are_those_of_the_file(run, tmp_path):
    bands = np.concatenate([make_chip(i)[0] for i in range(2)], axis=2)
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    path = write(tmp_path / "a.tif", bands, names=BANDS, tags=tags)
    embed(str(run), [str(path)], out=tmp_path / "tokens.tif", tile=32, overlap=16)
    tokens = read_tokens(str(run), str(path), tile=32, overlap=16)
    with rasterio.open(tmp_path / "tokens.tif") as made:
        np.testing.assert_array_equal(tokens.values, made.read())
        assert tokens.geobox.affine == made.transform


def test_random_weights_are_the_same_each_time_and_clouds_can_be_masked(tmp_path):
    bands, _ = make_chip(1)
    path = write(tmp_path / "a_hls.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": "2021-06-15"})
    clouds = np.zeros((1, 32, 32), np.uint8)
    clouds[:, :16, :16] = 2
    write(tmp_path / "a_fmask.tif", clouds)
    state = torch.random.get_rng_state()
    one, two = (
        read_tokens("prithvi_eo_v2_tiny_tl", str(path), weights="random", tile=32, reading=Reading(mask_clouds=m))
        for m in (None, True)
    )
    assert torch.equal(state, torch.random.get_rng_state())  # of those who drew before
    again = read_tokens("prithvi_eo_v2_tiny_tl", str(path), weights="random", tile=32)
    np.testing.assert_array_equal(one.values, again.values)
    assert one.known.all() and two.known.tolist() == [[False, True], [True, True]]


def make_scene(path, seed, *, side=128, **how):
    """Land at two scales, larger than a tile; no two scenes are alike."""
    rng = np.random.default_rng(seed)
    ground = sum(gaussian_filter(rng.normal(size=(side, side)), width) * width for width in (2, 9))
    slopes = zip(range(500, 3500, 500), (60, 90, 140, -400, 260, 240), strict=True)
    bands = np.stack([level + slope * ground for level, slope in slopes]).clip(1, 9000).astype(np.int16)
    return write(path, bands, names=BANDS, tags={"ACQUISITION_DATE": "2021-06-15"}, **how)


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Two scenes and a folder of their tokens, with what was told; not to be changed."""
    folder = tmp_path_factory.mktemp("tokens")
    corners = {"a": (500000, 5000000), "b": (509000, 5000000)}
    scenes = [str(make_scene(folder / f"{name}.tif", i, corner=at)) for i, (name, at) in enumerate(corners.items())]
    return folder, scenes, embed(str(run), scenes, out=folder / "made", tile=64, vectors=folder / "v.csv")


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def test_jumps_at_the_edges_of_tiles_by_their_definition():
    values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    values[:, 3, 2] = np.nan
    rows = [(0, values[:, :4]), (4, values[:, 4:])]
    steps = {}  # whether at an edge: tiles of 3 begin and end at 2, 3, 5 of 6 rows, and at 2, 3, 4, 5 of 7 columns
    for row, column in np.ndindex(6, 7):
        for down, right, edges in ((1, 0, (2, 3, 5)), (0, 1, (2, 3, 4, 5))):
            if row + down < 6 and column + right < 7:
                jump = np.sqrt(((values[:, row + down, column + right] - values[:, row, column]) ** 2).sum())
                at = (row + 1 if down else column + 1) in edges
                steps.setdefault(at, []).append(jump)
    wanted = np.nanmean(steps[True]) / np.nanmean(steps[False])
    tiles = Tiles((6, 7), 3, 1)
    assert (tiles.rows, tiles.cols) == ([0, 2, 3], [0, 2, 4])
    assert seam_ratio(rows, tiles) == pytest.approx(wanted, abs=1e-3)
    assert seam_ratio(rows, Tiles((6, 7), 7, 2)) is None
    assert seam_ratio([(0, np.ones((5, 6, 7), np.float32))], tiles) is None


def test_tiles_are_blended_by_half_of_them(run, made, tmp_path):
    _, scenes, told = made
    with rasterio.open(told[0]["file"]) as file:
        tags = file.tags()
    assert tags["EARTHTUNE_OVERLAP"] == "32" and float(tags["EARTHTUNE_SEAM_RATIO"]) == told[0]["seam_ratio"]
    (alone,) = embed(str(run), scenes[:1], out=tmp_path / "t.tif", tile=64, overlap=0)
    assert told[0]["seam_ratio"] < 1.2 and told[0]["seam_ratio"] < alone["seam_ratio"]
    np.testing.assert_array_equal(read(told[0]["file"]), read_tokens(str(run), scenes[0], tile=64).values)
    assert f"jump {alone['seam_ratio']:.2f} times" in command.told([alone], {}).text


def test_bytes_are_half_a_step_off_at_most_for_any_reader(run, tmp_path):
    values = read(make_scene(tmp_path / "c.tif", 0))
    values[:, :16, :16] = -9999
    write(tmp_path / "c.tif", values, names=BANDS, nodata=-9999, tags={"ACQUISITION_DATE": "2021-06-15"})
    embed(str(run), [str(tmp_path / "c.tif")], out=tmp_path / "f.tif", tile=64)
    embed(str(run), [str(tmp_path / "c.tif")], out=tmp_path / "i.tif", tile=64, dtype="int8")
    wanted, raw = read(tmp_path / "f.tif"), read(tmp_path / "i.tif")
    assert raw.dtype == np.int8 and np.isnan(wanted[:, 0, 0]).all() and (raw[:, 0, 0] == -128).all()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Scales|Offsets")  # that they differ
        with rioxarray.open_rasterio(tmp_path / "i.tif", mask_and_scale=True) as file:
            got = file.values
    step = (np.nanmax(wanted, (1, 2)) - np.nanmin(wanted, (1, 2))) / 254
    assert np.array_equal(np.isnan(got), np.isnan(wanted)) and len(np.unique(raw)) > 100
    assert np.nanmax(np.abs(got - wanted) / step[:, None, None]) <= 0.5 + 1e-3
    np.testing.assert_allclose(read_stored(tmp_path / "i.tif").values, got, rtol=1e-6, atol=1e-6)
    item = json.loads((tmp_path / "i.json").read_text())
    assert item["properties"]["emb:quantization"]["scale"] == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_store_holds_what_the_raster_holds_and_says_what_it_is(run, tmp_path, dtype):
    values = read(make_scene(tmp_path / "c.tif", 0))
    values[:, :16, :16] = -9999
    write(tmp_path / "c.tif", values, names=BANDS, nodata=-9999, tags={"ACQUISITION_DATE": "2021-06-15"})
    make_scene(tmp_path / "d.tif", 1)
    scenes, how = [str(tmp_path / "c.tif"), str(tmp_path / "d.tif")], {"tile": 64, "dtype": dtype, "zarr": True}
    told = embed(str(run), scenes, out=tmp_path / "out", **how)
    how_read = {"consolidated": False, "decode_coords": "all"}
    with rasterio.open(told[0]["file"]) as raster, xr.open_zarr(told[0]["zarr"], **how_read) as store:
        got = store.embeddings
        if dtype == "int8":
            assert store.embeddings.encoding["dtype"] == np.int8
            got = got * store["scale"] + store["offset"]
        wanted = read_stored(Path(told[0]["file"])).values
        np.testing.assert_allclose(got.transpose("band", "y", "x").values, wanted, rtol=1e-5, atol=1e-6)
        assert np.isnan(got.values[..., 0, 0]).all() and store.embeddings.rio.crs == raster.crs
        np.testing.assert_allclose(store.embeddings.rio.transform(), raster.transform)
        says = store.attrs
        assert (says["geoemb:type"], says["geoemb:dimensions"], says["geoemb:data_type"]) == ("chip", 32, dtype)
        assert says["geoemb:chip_layout"]["chip_size"] == [16, 16] and says["geoemb:gsd"] == pytest.approx(480)
        assert ("geoemb:quantization" in says) == (dtype == "int8") and says["proj:code"] == "EPSG:32632"
        assert {"geoemb:", "proj:", "spatial:"} == {one["name"] for one in says["zarr_conventions"]}
    assert [one["status"] for one in embed(str(run), scenes, out=tmp_path / "out", **how)] == ["kept", "kept"]
    shutil.rmtree(told[1]["zarr"])
    again = embed(str(run), scenes, out=tmp_path / "out", overwrite=True, **how)
    assert [one["status"] for one in again] == ["done", "done"] and Path(told[1]["zarr"], "zarr.json").is_file()


def test_what_is_done_is_kept_and_what_was_cut_off_goes_on(run, made, tmp_path, monkeypatch):
    folder, scenes, told = made
    copy = shutil.copytree(folder / "made", tmp_path / "made")
    how = {"out": copy, "tile": 64}
    assert [result["status"] for result in embed(str(run), scenes, **how)] == ["kept", "kept"]
    assert [result["status"] for result in told] == ["done", "done"]
    with pytest.raises(InputError, match=r"a_tokens.tif: exists already"):
        embed(str(run), scenes[:1], out=copy, tile=32)
    monkeypatch.setattr(module, "join", lambda *_: (_ for _ in ()).throw(RunError("disk full")))
    results = embed(str(run), [*scenes, "nothing.tif"], **{**how, "out": tmp_path / "new"})
    assert [(r["status"], r["exit_code"]) for r in results] == [("failed", 1), ("failed", 1), ("failed", 2)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".earthtune"]
    monkeypatch.undo()
    seen = []
    monkeypatch.setattr(module, "_shown", lambda progress, name: lambda tiles: seen.append(name) or tiles)
    embed(str(run), scenes, **{**how, "out": tmp_path / "new"})
    assert not seen, "rows that were encoded are encoded again"
    for name in ("a_tokens.tif", "a_tokens.json", "b_tokens.tif"):
        made_once = (folder / "made" / name).read_bytes()
        assert (tmp_path / "new" / name).read_bytes() == made_once or name.endswith("json")


def test_rows_that_are_missing_are_encoded_alone(run, tmp_path, monkeypatch):
    bands = np.random.default_rng(0).integers(100, 4000, (6, 2096, 32)).astype(np.int16)  # two parts of tokens
    scene = [str(write(tmp_path / "a.tif", bands, names=BANDS, tags={"ACQUISITION_DATE": "2021-06-15"}))]
    embed(str(run), scene, out=tmp_path / "whole", tile=64)
    monkeypatch.setattr(module, "join", lambda *_: (_ for _ in ()).throw(RunError("disk full")))
    with pytest.raises(RunError):
        embed(str(run), scene, out=tmp_path / "cut", tile=64)
    monkeypatch.undo()
    parts = sorted((tmp_path / "cut" / ".earthtune").glob("*/*.part.tif"))
    assert len(parts) == 2
    parts[1].unlink()
    embed(str(run), scene, out=tmp_path / "cut", tile=64)
    assert (tmp_path / "cut/a_tokens.tif").read_bytes() == (tmp_path / "whole/a_tokens.tif").read_bytes()


def test_tokens_beside_their_scenes_are_no_scenes(run, tmp_path):
    make_scene(tmp_path / "a.tif", 0, side=48)
    how = {"out": tmp_path, "tile": 32}
    for status in ("done", "kept"):
        told = embed(str(run), [str(tmp_path / "*.tif")], **how)
        assert [(Path(result["file"]).name, result["status"]) for result in told] == [("a_tokens.tif", status)]


def test_one_vector_a_scene_or_a_polygon(run, made, tmp_path):
    folder, scenes, told = made
    table = pandas.read_csv(folder / "v.csv")
    assert table["scene"].tolist() == ["a", "b"]
    tokens = read(told[1]["file"])
    np.testing.assert_allclose(table.filter(like="feature").to_numpy()[1], tokens.mean((1, 2)), rtol=1e-5, atol=1e-6)
    # The first token and half of the one beside it; a pond under the middle of another; one that lies elsewhere.
    left, top = 500000, 5000000
    shapes = [box(left, top - 480, left + 720, top), Point(left + 1000, top - 1000).buffer(5), box(0, 0, 9, 9)]
    frame = geopandas.GeoDataFrame({"scene": ["x", "y", "z"]}, geometry=shapes, crs="EPSG:32632").to_crs(4326)
    frame.to_file(tmp_path / "places.geojson")
    lines = []
    how = {"tile": 64, "places": tmp_path / "places.geojson", "say": lines.append}
    embed(str(run), scenes[:1], out=folder / "made", vectors=tmp_path / "v.gpkg", **how)
    found = pyogrio.read_dataframe(tmp_path / "v.gpkg")
    a = read(told[0]["file"])
    assert found["scene_given"].tolist() == ["x", "y"] and found["scene"].tolist() == ["a", "a"]
    vectors = found.filter(like="feature").to_numpy()
    np.testing.assert_allclose(vectors[0], (a[:, 0, 0] + a[:, 0, 1] / 2) / 1.5, atol=0.02)
    np.testing.assert_allclose(vectors[1], a[:, 2, 2], rtol=1e-6)
    assert [line for line in lines if "1 of 3 places" in line]
    embed(str(run), scenes[:1], out=folder / "made", vectors=tmp_path / "v.parquet", **how)
    same = geopandas.read_parquet(tmp_path / "v.parquet")
    assert same.crs == "EPSG:4326" and same["scene_given"].tolist() == ["x", "y"]
    np.testing.assert_array_equal(same.filter(like="feature").to_numpy(), vectors)
    assert same.geometry.to_wkb().tolist() == geopandas.read_file(tmp_path / "v.gpkg").geometry.to_wkb().tolist()
    held = pyarrow.parquet.read_metadata(tmp_path / "v.parquet").metadata
    assert json.loads(held[b"geo"])["primary_column"] == "geometry"


def test_items_are_those_of_the_proposal(valid, made):
    item = json.loads((made[0] / "made" / "a_tokens.json").read_text())
    valid(item)
    assert item["properties"]["emb:runtime_parameters"]["stride"] == 32 and "embeddings" in item["assets"]
    assert [link["rel"] for link in item["links"]] == ["emb:source-data"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "t.tif"}, "is one file, and 2 scenes"),
        ({"out": "a.tif"}, "is one file"),
        ({"vectors": Path("v.json")}, "wanted a name that ends in .csv, .gpkg or .parquet"),
        ({"places": Path("p.gpkg")}, "no table for them"),
    ],
)
def test_what_outputs_cannot_be(run, made, tmp_path, change, message):
    change = {"out": "made"} | change
    with pytest.raises(InputError, match=message):
        embed(str(run), made[1], tile=64, **change | {"out": tmp_path / change["out"]})
    assert not [*tmp_path.iterdir()]
