"""Rain from recipe to map: a run folder, its scores beside the baselines, and maps that open where they belong."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
import xarray as xr
from safetensors.torch import load_file

from models.bundle import load_network, read_bundle
from models.errors import InputError
from models.runtime import agreement
from models.runtime.engines import load_runtime
from models.training.settings import Training
from pipelines.cli.main import main
from pipelines.commands.evaluate import evaluate
from pipelines.commands.score import score
from pipelines.recipes.reading import read_recipe
from pipelines.runs import finetune as module
from pipelines.runs.finetune import finetune
from pipelines.runs.folder import Launch
from pipelines.samples.weather import read_weather
from pipelines.scoring.fields import UNFAMILIAR, band_names
from pipelines.scoring.jobs import Engine
from pipelines.tasks.rain import TASK, RainRecipe, RainSamples, read_rain
from pipelines.tasks.task import data_for
from pipelines.tasks.weather import forecast
from pipelines.weather.products import PRODUCTS
from tests.rain_files import LEARNED, VARIABLES, make_day, rain_recipe

SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not at {SHARED}")
RECIPES = Path(__file__).parents[3] / "pipelines" / "recipes"
pytestmark = pytest.mark.usefixtures("unrendered")  # but for the run of all, which is made whole


@pytest.fixture(scope="module")
def day(rain_day):
    return rain_day


@pytest.fixture(scope="module")
def run(rain_run):
    return rain_run


@pytest.fixture(scope="module")
def other_day(tmp_path_factory):
    return make_day(tmp_path_factory.mktemp("other"), day="2020-04-02", seed=7)


@pytest.fixture(scope="module")
def maps(run, other_day, tmp_path_factory):
    out = tmp_path_factory.mktemp("maps") / "maps"
    return out, score(run, [str(next(other_day.glob("*inst1*")))], out=out)


def test_a_run_holds_what_it_promises(run):
    held = {path.name for path in run.iterdir()}
    files = {"bundle.json", "model.safetensors", "recipe.yaml", "split.csv", "metrics.csv", "metrics.json"}
    assert files | {"report.html", "checkpoints", "model.onnx"} <= held
    bundle, metrics = read_bundle(run), json.loads((run / "metrics.json").read_text())
    assert metrics["model"] == dict(bundle.scores) and metrics["baselines"] == dict(bundle.baselines)
    assert list(metrics["baselines"]) == [
        "zero",
        "climatology",
        "persistence 1 h",
        "persistence 3 h",
        *LEARNED,
    ]
    assert bundle.spec.weather.units == ("kg m-2", "K", "m s-1", "m s-1")
    page = (run / "report.html").read_text()
    assert "Reliability" in page and "CSI &gt; 1 mm/h" in page and "FSS &gt; 1 mm/h, 5 x 5 cells" in page


def test_another_day_is_scored_beside_the_baselines_of_the_first(run, other_day, tmp_path):
    result = evaluate(run, data_root=other_day, out=tmp_path)
    model, baselines = result["model"], result["baselines"]
    assert result["samples"] == 24
    assert model["rmse"] < min(baselines[name]["rmse"] for name in ("zero", "climatology", "persistence 3 h"))
    assert model["correlation"] > 0.8
    assert model["intervals"] == {} and model["no_intervals"] == "one day: no interval can be given"
    assert result["headline"].endswith(". 1 day is too few to say which is ahead.")
    assert baselines["persistence 1 h"]["rmse"] != baselines["persistence 3 h"]["rmse"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("One day: no interval can be given.") == 1 and "90 % interval" not in page
    assert not (run / "bundle.json").samefile(tmp_path / "metrics.json")


@pytest.fixture
def finer_day(other_day, tmp_path):
    """The other day on cells of half the height and width."""
    for path in other_day.glob("*.nc4"):
        data = xr.load_dataset(path, engine="h5netcdf")
        data = data.assign_coords(lat=("lat", 30 + (data.lat.values - 30) / 2, data.lat.attrs))
        data = data.assign_coords(lon=("lon", -100 + (data.lon.values + 100) / 2, data.lon.attrs))
        data.to_netcdf(tmp_path / path.name, engine="h5netcdf")
    return tmp_path


def test_cells_of_quite_another_size_are_told_of(run, other_day, finer_day, tmp_path, capsys):
    said, fine, same = [], str(next(finer_day.glob("*inst1*"))), str(next(other_day.glob("*inst1*")))
    assert read_bundle(run).spec.weather.size == pytest.approx((0.5, 0.625))
    warning = "its cells are 0.25 x 0.3125 deg, those of the training 0.5 x 0.625 deg: .*regrid the files"
    score(run, [fine], out=tmp_path / "maps", say=said.append)
    assert re.match(f"WARNING: M.inst1_2d_asm_Nx.20200402.nc4: {warning}", said[0])
    assert main(["evaluate", str(run), "--data.root", str(finer_day), "--out", str(tmp_path / "fine")]) == 0
    assert re.search(f"\n.*{warning}", capsys.readouterr().out)
    assert "those of the training 0.5 x 0.625 deg" in (tmp_path / "fine" / "report.html").read_text()
    assert main(["inspect", fine, "--for", str(run)]) == 0
    out = capsys.readouterr().out
    assert (
        re.search(f"note: .*{warning}", out) and "yes  fields: TQV, T2M, U10M, V10M" in out and "24 to tell of" in out
    )
    assert main(["inspect", same, "--for", str(run)]) == 0
    assert "WARNING" not in capsys.readouterr().out
    assert main(["inspect", str(next(other_day.glob("*tavg1*"))), "--for", str(run)]) == 2
    assert "NO   fields: M.tavg1_2d_flx_Nx.20200402.nc4: variable TQV is wanted" in capsys.readouterr().out


def test_the_own_test_block_is_found_again(run, tmp_path):
    before = json.loads((run / "metrics.json").read_text())
    assert evaluate(run, out=tmp_path / "again")["model"]["rmse"] == pytest.approx(before["model"]["rmse"], rel=1e-5)


def test_shuffling_the_times_of_the_inputs_lowers_the_skill(run, other_day):
    files = [sorted(other_day.glob(pattern)) for pattern in ("*inst1*", "*tavg1*")]
    weather, spec = read_weather(files[0], VARIABLES), read_bundle(run).spec
    rain = read_rain(files[1], PRODUCTS["merra2"], weather)
    order = np.random.default_rng(0).permutation(len(weather.times))
    skill = []
    for fields in (weather.fields, weather.fields[order]):
        samples = RainSamples(spec, dataclasses.replace(weather, fields=fields), rain)
        made = forecast(load_runtime(run), samples, samples.samples)
        truth = np.stack([samples.truth(s) for s in samples.samples])
        skill.append(np.corrcoef(made.mean.ravel(), truth.ravel())[0, 1])
    assert skill[1] < skill[0] - 0.3


def test_maps_lie_where_the_cells_are(maps, run, other_day):
    out, results = maps
    assert len(results) == 24 and all(r["status"] == "done" and r["valid"] == 1 for r in results)
    path = out / "rain_20200402T0500.tif"
    assert str(path) in [r["map"] for r in results]
    weather = read_weather([next(other_day.glob("*inst1*"))], VARIABLES)
    samples = RainSamples(read_bundle(run).spec, weather, None)
    made = forecast(load_runtime(run), samples, samples.samples[5:6])
    with rasterio.open(path) as file:
        assert file.crs == "EPSG:4326" and np.isnan(file.nodata)
        assert file.bounds == pytest.approx((-100.3125, 29.75, -93.4375, 34.25))
        names, units = band_names(read_bundle(run))
        assert list(file.descriptions) == names and list(file.units) == units
        tags, bands = file.tags(), file.read()
    assert (tags["valid_time"], tags["lead_time"]) == ("2020-04-02T05:00:00Z", "0 h")
    assert tags["interval"] == "2020-04-02T05:00:00Z/2020-04-02T06:00:00Z"
    np.testing.assert_allclose(bands[:13], made.quantiles[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bands[13], made.mean[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bands[14:17], made.exceedance[0], rtol=1e-3, atol=1e-4)
    assert names[17:] == [UNFAMILIAR] and (bands[17] >= 0).all()  # a day has no intervals


def test_the_series_is_cf_and_the_same_as_the_maps(maps):
    out, _ = maps
    with xr.open_dataset(out / "rain_20200402T0000.nc", engine=xr.backends.H5netcdfBackendEntrypoint) as series:
        assert series.attrs["Conventions"] == "CF-1.8" and series.sizes["time"] == 24
        assert series["rain"].attrs["units"] == "mm h-1" and series["rain"].attrs["grid_mapping"] == "crs"
        one = series.sel(time="2020-04-02T05:00")
        bounds = one["time_bnds"].values.astype("datetime64[h]")
        assert list(bounds) == [np.datetime64("2020-04-02T05"), np.datetime64("2020-04-02T06")]
        with rasterio.open(out / "rain_20200402T0500.tif") as file:
            np.testing.assert_array_equal(one["rain"].values, file.read(14))
            np.testing.assert_array_equal(one["rain_quantile"].values, file.read(list(range(1, 14))))


def test_the_same_weights_give_the_same_maps_and_none_is_overwritten(maps, run, other_day, tmp_path):
    out, _ = maps
    source = [str(next(other_day.glob("*inst1*")))]
    score(run, source, out=tmp_path / "again")
    for name in ("rain_20200402T0000.tif", "rain_20200402T2300.tif"):
        with rasterio.open(out / name) as one, rasterio.open(tmp_path / "again" / name) as two:
            np.testing.assert_array_equal(one.read(), two.read())
    with pytest.raises(InputError, match="exists already"):
        score(run, source, out=out)
    score(run, source, out=out, overwrite=True)


def test_openvino_maps_as_torch_does(maps, run, other_day, tmp_path):
    results = score(run, [str(next(other_day.glob("*inst1*")))], out=tmp_path, engine=Engine("openvino"))
    assert len(results) == 24
    for name in ("rain_20200402T0000.tif", "rain_20200402T2300.tif"):
        with rasterio.open(maps[0] / name) as one, rasterio.open(tmp_path / name) as two:
            np.testing.assert_allclose(two.read(), one.read(), rtol=1e-3, atol=1e-4)
    told = evaluate(run, out=tmp_path / "scores", runtime="openvino")
    assert told["model"]["rmse"] == pytest.approx(read_bundle(run).scores["rmse"], rel=1e-4)


def test_the_graph_has_the_grid_of_the_training_and_the_names_of_the_inputs(run):
    graph = onnx.load(run / "model.onnx").graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}  # 0: any number
    assert shapes == {"weather": [0, 1, 4, 9, 11], "static": [0, 6, 9, 11], "input_time": [0], "lead_time": [0]}
    assert [v.name for v in graph.output] == ["rain"]


def test_what_openvino_does_not_take_is_refused_before_a_folder_is_made(run, tmp_path):
    region = make_day(tmp_path / "region", day="2020-04-02", shape=(8, 11))
    source, out = [str(next(region.glob("*inst1*")))], tmp_path / "maps"
    for engine, said in (
        (Engine("openvino"), "model.onnx: wanted 9 x 11 cells as in training, came 8 x 11; --runtime torch takes any"),
        (Engine("openvino", "bf16"), "precision bf16: OpenVINO runs this in f32 only"),
        (Engine("torch", "i8"), "precision i8: OpenVINO only"),
    ):
        with pytest.raises(InputError, match=said):
            score(run, source, out=out, engine=engine)
        assert not out.exists()
    with pytest.raises(InputError, match="wanted 9 x 11 cells"):
        evaluate(run, data_root=region, out=out, runtime="openvino")
    assert len(score(run, source, out=out, engine=Engine("torch", "bf16"))) == 24


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("AGREEMENT", -1.0, "differs from the trained model by"), ("LARGEST", 1000, r"0\.0 GB of weights are more")],
)
def test_a_graph_that_answers_otherwise_or_is_too_large_is_not_kept(run, tmp_path, monkeypatch, name, value, reason):
    bundle, network, said = read_bundle(run), load_network(run), []
    monkeypatch.setattr(agreement if name == "AGREEMENT" else module, name, value)
    monkeypatch.setattr(agreement, "export_onnx", lambda _, path, __: shutil.copy(run / "model.onnx", path))
    samples = TASK.reopen(bundle.spec, data_for(bundle))
    kept, _ = module.save(tmp_path, bundle, network, samples, Launch(say=said.append), last=True)
    note = kept.training["notes"][-1]
    assert re.fullmatch(f"No model.onnx: .*{reason}.*[^d]; the run is scored with torch.", note)
    assert said[-1] == note and read_bundle(tmp_path).training["notes"][-1] == note
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.usefixtures("torch_only")
def test_a_run_cut_off_ends_as_one_that_was_not(day, tmp_path, monkeypatch):
    import lightning

    training = Training(epochs=2, batch=8, lr=1e-2, keep="last", precision="32-true")
    recipe = rain_recipe(day, training=training)
    finetune(recipe, tmp_path / "whole")

    class Cut(lightning.Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise InputError("cut off")

    start = lightning.Trainer.fit
    monkeypatch.setattr(
        lightning.Trainer, "fit", lambda self, *a, **k: (self.callbacks.append(Cut()), start(self, *a, **k))
    )
    with pytest.raises(InputError, match="cut off"):
        finetune(recipe, tmp_path / "cut")
    monkeypatch.setattr(lightning.Trainer, "fit", start)
    finetune(recipe, tmp_path / "cut", launch=Launch(resume=True))
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all((whole[key] == cut[key]).all() for key in whole)


def test_what_cannot_be_a_run_is_refused(day, tmp_path):
    data = rain_recipe(day).data
    for change, said in (
        ({"mode": "lora"}, "wanted one of frozen, full"),
        ({"mode": "frozen"}, "random weights learns nothing"),
        ({"training": Training(loss={"dice": 1.0})}, "wanted weights of pinball, mse"),
        ({"training": Training(gain=0.1)}, "training.gain: task rain does not use it"),
        ({"weights": "none.pt"}, "no such file"),
        ({"weights": "hub"}, "no weights were published"),
        ({"thresholds": (-1.0,)}, "0 mm/h or more"),
        ({"data": dataclasses.replace(data, variables=["TQV", "PRECTOT"])}, "variable PRECTOT: is the target"),
        ({"data": dataclasses.replace(data, gap=24.0)}, "too few"),
        ({"data": dataclasses.replace(data, target="chirps")}, "variable precip is wanted"),
    ):
        with pytest.raises(InputError, match=said):
            finetune(rain_recipe(day, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("unexportable")
def test_the_command_knows_rain_by_its_recipe(day, other_day, tmp_path, capsys):
    tiny = ["--model.overrides", '{"embed_dim": 16, "heads": 2, "mask_unit": [8, 8]}', "--model.detail", "8"]
    tiny += ["--model.members", "1", "--training.epochs", "1"]
    words = ["finetune", "rainfall_surface", "--data.root", str(day), "--data.variables", "[TQV, U10M, V10M]", *tiny]
    run = tmp_path / "run"
    assert main([*words, "--out", str(run), "--quiet"]) == 0
    assert "RMSE" in capsys.readouterr().out
    anew, missing = read_bundle(run).training["notes"][-2:]
    assert "trained anew on all samples" in anew and not (run / "model.onnx").exists()
    assert missing == "No model.onnx: no translation of aten::unheard_of; the run is scored with torch."
    assert main(["evaluate", str(run), "--data.root", str(other_day), "--out", str(tmp_path / "e"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 24
    weather = str(next(other_day.glob("*inst1*")))
    assert main(["score", str(run), weather, "--out", str(tmp_path / "maps"), "--quiet"]) == 0
    assert "24 done" in capsys.readouterr().out
    assert main(["score", str(run), str(next(other_day.glob("*tavg1*"))), "--out", str(tmp_path / "m"), "--quiet"]) == 2
    assert "TQV is wanted" in capsys.readouterr().err


@needs_data
@pytest.mark.usefixtures("torch_only")
def test_daily_rain_runs(tmp_path):
    """A few days of the recipe rainfall_daily, whose scores are in mm a day and whose map says so."""
    changes = {"data.root": SHARED / "rain_iberia_daily", "data.inputs": ["ncep_iberia_1981_1985.nc"], "folds": 0}
    changes |= {"model.members": 1, "model.detail": 8, "training.epochs": 1, "data.variables": ["SLP", "Q850"]}
    changes |= {"refit": "false"}
    recipe = read_recipe(RECIPES / "rainfall_daily.yaml", RainRecipe, changes)
    result = finetune(recipe, tmp_path / "run")
    assert {"csi_1", "csi_10", "csi_25"} <= set(result["model"]) and "mm/day" in result["headline"]
    assert 0 < result["baselines"]["ridge"]["rmse"] < result["baselines"]["zero"]["rmse"] < 10
    files = [str(SHARED / "rain_iberia_daily" / "ncep_iberia_1986_1990.nc")]
    samples = TASK.unlabelled(read_bundle(tmp_path / "run").spec, [Path(f) for f in files], None)
    assert len(samples.samples) == 1826
    assert TASK.name == "rain" and read_bundle(tmp_path / "run").spec.field.unit == "mm/day"


@needs_data
@pytest.mark.usefixtures("torch_only")
def test_the_160_channels_run(tmp_path):
    """One epoch of a tiny encoder over eight times, which is enough to see that they run and for no more."""
    changes = {"data.root": SHARED / "merra2_wxc", "backbone": "prithvi_wxc_tiny", "weights": "random", "mode": "full"}
    changes |= {"training.epochs": 1, "model.members": 1, "model.detail": 8, "refit": "false"}
    recipe = read_recipe(RECIPES / "rainfall.yaml", RainRecipe, changes)
    result = finetune(recipe, tmp_path / "run")
    assert np.isfinite(result["model"]["rmse"])
    assert {"ridge", "gamma", "boosting"} < set(result["baselines"])
    assert all(np.isfinite(scores["rmse"]) for scores in result["baselines"].values())
    assert len(read_bundle(tmp_path / "run").spec.weather.channels) == 160
