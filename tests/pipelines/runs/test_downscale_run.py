"""Downscaling from recipe to map: pairs of coarse and fine, a run beside bicubic and ridge, maps that keep means."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
import rasterio
import xarray as xr

from models.bundle import read_bundle
from models.errors import InputError
from models.spec import WEATHER
from models.training.settings import Training
from pipelines.cli.main import main
from pipelines.commands.evaluate import evaluate
from pipelines.commands.score import score
from pipelines.runs.finetune import finetune
from pipelines.scenes.reading import Reading
from pipelines.scoring.fields import UNFAMILIAR
from pipelines.scoring.jobs import Engine
from pipelines.scoring.plan import Maps, Share
from pipelines.tasks.downscale import load, prepare
from tests.catalogue_server import serving_catalogue
from tests.downscale_files import SHAPE, coarsened, downscale_recipe, make_fine_day

pytestmark = pytest.mark.usefixtures("unrendered")  # but for the run of all, which is made whole


@pytest.fixture(scope="module")
def day(fine_day):
    return fine_day


@pytest.fixture(scope="module")
def run(fine_run):
    return fine_run


@pytest.fixture(scope="module")
def maps(run, day, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    coarse = coarsened(day, folder / "coarse.nc")
    return coarse, folder / "maps", score(run, [str(coarse)], out=folder / "maps")


def test_pairs_are_area_means_and_what_they_were_made_of(day, tmp_path):
    weather, fine, notes = load(downscale_recipe(day).data, ("T2M", "QV2M"))
    with xr.open_dataset(coarsened(day, tmp_path / "c.nc"), engine=xr.backends.H5netcdfBackendEntrypoint) as wanted:
        np.testing.assert_allclose(weather.fields[:, 0], wanted.T2M.values[:, ::-1], atol=1e-3)
        np.testing.assert_allclose(weather.lat, wanted.lat.values[::-1])
    assert fine.shape == (24, 12, 15)
    assert notes == ["Factor 3 leaves 1 rows in the south and 1 columns in the east out."]
    samples = prepare(downscale_recipe(day))
    np.testing.assert_allclose(samples.grid[0], 36 - 0.5 * np.arange(12))
    wanted = np.random.default_rng(99).uniform(0, 1500, SHAPE)[:0:-1, :15]
    np.testing.assert_allclose(samples.height, wanted, rtol=1e-4)


def test_a_run_is_ahead_of_bicubic_and_says_what_it_did(run):
    metrics, bundle = json.loads((run / "metrics.json").read_text()), read_bundle(run)
    model, baselines = metrics["model"], metrics["baselines"]
    assert list(baselines) == ["bicubic", "bicubic with the means", "ridge"] and bundle.scores == model
    assert model["rmse"] < 0.8 * baselines["bicubic"]["rmse"] and abs(model["mean_error"]) < 1e-3
    assert baselines["ridge"]["rmse"] < 0.5 * baselines["bicubic"]["rmse"]  # the detail is linear in height
    assert baselines["bicubic with the means"]["rmse"] < baselines["bicubic"]["rmse"]  # the truth has them, too
    assert model["no_intervals"] == "one day: no interval can be given"
    assert bundle.spec.field.factor == 3 and bundle.spec.field.unit == "K" and bundle.spec.field.positive
    page = (run / "report.html").read_text()
    assert "RMSE (K)" in page and "from 1.5 x 1.875 deg" in page and "Reliability" not in page
    assert "elevation of M.const_2d_asm_Nx.nc4" in page and "leaves 1 rows in the south" in page


def test_bicubic_with_the_means_has_those_of_the_coarse_cells(day):
    samples = prepare(downscale_recipe(day))
    chosen = samples.samples[:2]
    edges = np.sin(np.radians(36.25 - 0.5 * np.arange(13)))  # rows of 0.5 degrees from 36.25 north
    w = np.broadcast_to((edges[:-1] - edges[1:])[:, None], (12, 15))
    sums = [(a * w).reshape(-1, 4, 3, 5, 3).sum(axis=(2, 4)) for a in (samples.kept(chosen), np.ones((2, 12, 15)))]
    np.testing.assert_allclose(sums[0] / sums[1], samples.coarse(chosen)[:, 0], atol=2e-3)
    plain = (samples.smooth(chosen) * w).reshape(-1, 4, 3, 5, 3).sum(axis=(2, 4)) / sums[1]
    assert np.abs(plain - samples.coarse(chosen)[:, 0]).max() > 0.02


def test_the_own_test_block_is_found_again_and_another_day_is_scored(run, tmp_path):
    before = json.loads((run / "metrics.json").read_text())
    assert evaluate(run, out=tmp_path / "own")["model"]["rmse"] == pytest.approx(before["model"]["rmse"], rel=1e-5)
    other = make_fine_day(tmp_path / "other", seed=5, day="2020-04-02")
    (other / "M.const_2d_asm_Nx.nc4").unlink()  # the run knows where its own lies
    result = evaluate(run, data_root=other, out=tmp_path / "other_scores")
    assert result["samples"] == 24 and result["model"]["rmse"] < result["baselines"]["bicubic"]["rmse"]


def test_maps_lie_where_the_cells_are_and_keep_the_means(maps):
    coarse, out, results = maps
    assert len(results) == 24 and all(r["valid"] == 1 for r in results)
    with rasterio.open(out / "T2M_20200330T0500.tif") as file:
        assert file.crs == "EPSG:4326" and file.shape == (12, 15)
        assert file.bounds == pytest.approx((-100.3125, 30.25, -90.9375, 36.25))
        assert file.descriptions == ("T2M", UNFAMILIAR) and file.units == ("K", "1")
        assert file.tags()["valid_time"] == "2020-03-30T05:00:00Z" and "interval" not in file.tags()
        band = file.read(1)
    edges = np.sin(np.radians(36.25 - 0.5 * np.arange(13)))
    w = np.broadcast_to((edges[:-1] - edges[1:])[:, None], band.shape)
    blocks = [(a * 1.0).reshape(4, 3, 5, 3).sum(axis=(1, 3)) for a in (band * w, w)]
    with xr.open_dataset(coarse, engine=xr.backends.H5netcdfBackendEntrypoint) as given:
        np.testing.assert_allclose(blocks[0] / blocks[1], given.T2M.values[5, ::-1], atol=2e-3)
    with xr.open_dataset(out / "T2M_20200330T0000.nc", engine=xr.backends.H5netcdfBackendEntrypoint) as series:
        assert series.attrs["Conventions"] == "CF-1.8" and series.T2M.attrs["units"] == "K"
        np.testing.assert_array_equal(series.T2M.sel(time="2020-03-30T05:00").values, band)


def test_a_store_behind_an_address_is_mapped_as_its_file_is(run, maps, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    coarse, out, _ = maps
    with xr.open_dataset(coarse, engine=xr.backends.H5netcdfBackendEntrypoint) as data:
        data.isel(time=[5]).drop_encoding().to_zarr(tmp_path / "coarse.zarr", zarr_format=2, consolidated=True)
    with serving_catalogue() as server:
        paths = [path for path in tmp_path.rglob("*") if path.is_file()]
        server.files = {f"/{path.relative_to(tmp_path)}": path.read_bytes() for path in paths}
        (result,) = score(run, [f"{server.url}/coarse.zarr"], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as far, rasterio.open(out / "T2M_20200330T0500.tif") as near:
        np.testing.assert_allclose(far.read(), near.read(), rtol=1e-6)  # of one time, and of 24 at once
        assert far.tags()["EARTHTUNE_INPUT"] == "coarse.zarr"


def test_openvino_maps_as_torch_does(run, maps, tmp_path):
    coarse, out, _ = maps
    assert len(score(run, [str(coarse)], out=tmp_path, engine=Engine("openvino", "f32"))) == 24
    with rasterio.open(out / "T2M_20200330T0500.tif") as one, rasterio.open(tmp_path / "T2M_20200330T0500.tif") as two:
        np.testing.assert_allclose(two.read(), one.read(), atol=1e-3)
    graph = onnx.load(run / "model.onnx").graph
    weather = ["weather", "static", "input_time", "lead_time"]
    assert [v.name for v in graph.input] == [*weather, "coarse", "area", "fine"]
    assert [v.name for v in graph.output] == ["T2M"]


def test_files_that_a_run_cannot_eat_are_refused(run, day, maps, tmp_path):
    fine = str(day / "M.inst1_2d_asm_Nx.nc4")
    with pytest.raises(InputError, match=r"cells of 0.5 x 0.625 deg; .* coarse cells of 1.5 x 1.875 deg"):
        score(run, [fine], out=tmp_path / "maps")
    far = xr.open_dataset(maps[0], engine=xr.backends.H5netcdfBackendEntrypoint).load()
    far.assign_coords(lat=far.lat + 20).to_netcdf(tmp_path / "far.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="const_2d_asm"):
        score(run, [str(tmp_path / "far.nc")], out=tmp_path / "maps")
    with pytest.raises(InputError, match="none.tif.*no such file"):
        score(run, [str(maps[0])], out=tmp_path / "maps", elevation=tmp_path / "none.tif")
    assert not (tmp_path / "maps").exists()


def test_options_that_would_not_be_used_are_refused_by_name(run, exported, day, maps, tmp_path):
    coarse, out = str(maps[0]), tmp_path / "maps"
    for given, said in (
        ({"maps": Maps(polygons=tmp_path / "p.gpkg")}, "--polygons: for scenes; a run over weather .*; leave it out"),
        (
            {"bundle": [run], "maps": Maps(probabilities=True), "share": Share(workers=2)},
            "--bundle, --probabilities, --workers: .* leave them",
        ),
        (
            {"overlap": 0, "reading": Reading(scale=1.0), "engine": Engine("torch", "bf16", batch=2)},
            "^--scale, --overlap, --batch: for scenes",
        ),
    ):
        with pytest.raises(InputError, match=said):
            score(run, [coarse], out=out, **given)
    with pytest.raises(InputError, match="--codes: for classes"):
        evaluate(run, out=out, codes=[1])
    scenes, dem = exported["segmentation"][1], day / "M.const_2d_asm_Nx.nc4"
    with pytest.raises(InputError, match="--elevation: for runs that downscale weather; this one maps scenes"):
        score(scenes, ["a.tif"], out=out, elevation=dem)
    bundle = json.loads((run / "bundle.json").read_text())
    bundle["spec"]["inputs"]["weather"]["elevation"] = []
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "bundle.json").write_text(json.dumps(bundle))
    with pytest.raises(InputError, match="this run was trained without .data.elevation none.; leave it out"):
        score(tmp_path / "flat", [coarse], out=out, elevation=dem)
    assert not out.exists()


def test_what_is_told_says_where_means_are_not_kept(day):
    samples = prepare(downscale_recipe(day))
    assert "kept; no elevation" in samples.told()
    samples.spec = samples.spec.revised(answer={"positive": True})
    assert "kept but where values below 0 are cut off; no elevation" in samples.told()


def test_coarse_files_of_their_own_are_paired_by_time_and_place(day, tmp_path):
    for name in ("M.inst1_2d_asm_Nx.nc4", "M.const_2d_asm_Nx.nc4"):
        (tmp_path / name).symlink_to(day / name)
    coarsened(day, tmp_path / "coarse.nc")
    paired = prepare(downscale_recipe(tmp_path, coarse=["coarse.nc"]))
    made = prepare(downscale_recipe(day))
    assert not paired.spec.field.conserve and made.spec.field.conserve
    for sample in (paired.samples[0], paired.samples[7]):
        np.testing.assert_allclose(paired.truth(sample), made.truth(sample), atol=1e-4)
        np.testing.assert_allclose(paired.item(sample)[WEATHER], made.item(sample)[WEATHER], atol=1e-3)


def test_what_cannot_be_a_run_is_refused(day, tmp_path):
    for change, said in (
        ({"target": "T3M"}, "T3M is wanted .did you mean T2M"),
        ({"factor": 17}, "data.factor 17: wanted 2 to 16"),
        ({"factor": 8}, "make 1 x 2 coarse ones at factor 8"),
        ({"elevation": "*dem*"}, "--data.elevation FILE"),
        ({"gap": 24.0}, "too few"),
    ):
        with pytest.raises(InputError, match=said):
            finetune(downscale_recipe(day, **change), tmp_path / "run")
    dice = dataclasses.replace(downscale_recipe(day), training=Training(loss={"dice": 1.0}))
    with pytest.raises(InputError, match="wanted weights of mse, mae, huber"):
        finetune(dice, tmp_path / "run")
    uneven = xr.open_dataset(day / "M.inst1_2d_asm_Nx.nc4", engine=xr.backends.H5netcdfBackendEntrypoint).load()
    uneven.isel(lat=[0, 1, 2, 5, 6, 9, 12]).to_netcdf(tmp_path / "uneven_inst1.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="lat has 7 values.*even distances"):
        finetune(downscale_recipe(tmp_path, elevation="none"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("torch_only")
def test_the_command_knows_downscaling_by_its_recipe(day, tmp_path, capsys):
    run, tiny = tmp_path / "run", ["--model.overrides", '{"embed_dim": 16, "heads": 2, "mask_unit": [8, 8]}']
    tiny += ["--model.detail", "8", "--model.members", "1", "--training.epochs", "1"]
    words = ["finetune", "downscale", "--data.root", str(day), "--data.variables", "[T2M, QV2M]", *tiny]
    assert main([*words, "--out", str(run), "--quiet"]) == 0
    assert "RMSE" in capsys.readouterr().out
    coarse = str(coarsened(day, tmp_path / "coarse.nc"))
    command = ["score", str(run), coarse, "--out", str(tmp_path / "maps"), "--quiet"]
    assert main([*command, "--elevation", str(day / "M.const_2d_asm_Nx.nc4")]) == 0
    assert "24 done" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--data.root", str(day), "--out", str(tmp_path / "e"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] > 0
