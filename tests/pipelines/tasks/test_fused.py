"""Imagery with the weather before it: nothing of the future, both needed, either optional, the core as it was."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr

from models.bundle import load_network, read_bundle
from models.errors import InputError
from models.networks.assembly import predict_by
from models.networks.network import Network
from models.spec import CONTEXT, IMAGERY, STATIC, WEATHER, valid_of
from pipelines.commands.score import score
from pipelines.inspection.inspect import inspect
from pipelines.recipes.fused import Before
from pipelines.runs.distil import student_of
from pipelines.runs.finetune import finetune
from pipelines.runs.training import build
from pipelines.samples.sets import inputs_of
from pipelines.scoring.beside import beside, check_static, opened
from pipelines.scoring.opening import open_for
from pipelines.scoring.passes import passes_of
from pipelines.tasks.task import prepare
from tests.fused_files import DAYS, POISON, fused_recipe, hills, make_fused_chips, rain_at, weather
from tests.runs import trained


@pytest.fixture(scope="session")
def fused_chips(made_once):
    return made_once("fused_chips", lambda root: make_fused_chips(root))


@pytest.fixture(scope="session")
def fused_run(fused_chips, made_once):
    """A fused run; not to be changed."""
    return made_once("fused_run", trained(fused_recipe(fused_chips)))


@pytest.fixture(scope="module")
def samples(fused_chips):
    return prepare(fused_recipe(fused_chips))


def mapped(run, source, out, **how):
    """The map of a scene, and what was told."""
    (told,) = score(run, [str(source)], out=out, **how)
    assert told["status"] == "done", told
    with rasterio.open(told["map"]) as file:
        return file.read(1), told


def joined_with(folder):
    """The files of weather that the only map of a folder names."""
    with rasterio.open(next(folder.glob("*_map.tif"))) as file:
        return file.tags().get("EARTHTUNE_WEATHER")


def test_a_sample_holds_the_weather_before_its_day_and_nothing_of_the_day_or_after(samples):
    """The file is poisoned from the images' day on, and its days are stamped at their start."""
    spec = samples.spec
    assert (spec.series[WEATHER].channels, spec.series[WEATHER].times) == (("pr", "noise"), DAYS)
    for chip in samples.samples:
        item, number = samples.item(chip), int(chip.name[1:3])
        assert item[valid_of(WEATHER)].all() and item[WEATHER].max() < POISON / 1e3
        mean = rain_at(9.0 + 0.1 * (number % 8))
        assert abs(item[WEATHER][:, 0].mean() - mean) < 0.45 * mean
        north, east = np.degrees(np.arcsin(item[CONTEXT][0, 4])), np.degrees(np.arctan2(*item[CONTEXT][0, 3:1:-1]))
        location = samples.reader.scene(chip).location(chip.window)
        np.testing.assert_allclose((north, east), location, atol=1e-3)
        angle = np.arctan2(*item[CONTEXT][0, :2]) % (2 * np.pi)
        assert angle == pytest.approx(2 * np.pi * 165 / 365.25, abs=1e-5)  # the 166th day, counted from 0


def test_a_sample_holds_what_its_ground_is_like(samples):
    spec, (chip, *_) = samples.spec.series[STATIC], samples.samples
    assert (spec.channels, spec.units) == (("elevation", "elevation, deviation", "slope"), ("m", "m", "degree"))
    item, (left, *_) = samples.item(chip), samples.reader.scene(chip).geobox.boundingbox
    middle = 0.1 * (left + 16 * 30 - 495000)
    spread = 0.1 * np.std(30 * np.arange(32))
    np.testing.assert_allclose(item[STATIC][0], (middle, spread, np.degrees(np.arctan(0.1))), rtol=1e-3)
    assert item[valid_of(STATIC)].all()


def test_both_inputs_are_needed_and_the_report_says_so(fused_run):
    found = json.loads((fused_run / "metrics.json").read_text())
    scores = found["inputs"]["scores"]

    assert found["model"]["accuracy"] > 0.9 > scores["imagery alone"] and scores["weather alone"] < 0.6
    assert "It adds +" in found["inputs"]["told"] and 0 < found["inputs"]["gate"] <= 1
    page = (fused_run / "report.html").read_text()
    assert "Does the weather help here?" in page and "pr of another place or day" in page
    assert "boosting on imagery, season, weather" in page and "slope of another place" in page
    assert 0 < read_bundle(fused_run).architecture.gate <= 1


def test_the_core_is_as_it_was(fused_run, samples, fused_chips):
    fresh, _, _ = build(fused_recipe(fused_chips), samples.spec)
    kept = load_network(fused_run).backbone.state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in fresh.backbone.state_dict().items())


def test_a_map_with_weather_is_what_the_model_says_of_the_sample(fused_run, samples, fused_chips, tmp_path):
    """As of torch on the training's sample; and without weather, or with none for this day, the imagery's."""
    chip = samples.samples[1]
    network = load_network(fused_run)
    said = predict_by(network)(inputs_of(samples, [chip]))[0]
    codes = np.array(network.spec.answer.codes)
    with_it, _ = mapped(fused_run, chip.images[0], tmp_path / "with", weather=[str(fused_chips / "weather.nc")])
    assert (with_it == codes[said.argmax(0)]).mean() > 0.99

    batch = {name: torch.from_numpy(a) for name, a in inputs_of(samples, [chip]).items()}
    with torch.inference_mode():
        imagery = Network.finish(network, network.members(batch))[0].argmax(0).numpy()
    plain, told = mapped(fused_run, chip.images[0], tmp_path / "without")
    assert [joined_with(tmp_path / name) for name in ("with", "without")] == ["weather.nc", None]
    assert (plain == codes[imagery]).mean() > 0.99 and "no weather is given" in told["notes"][-1]
    assert (plain != with_it).any()
    late = weather(tmp_path / "late.nc", first="2021-06-16")  # begins after the image
    again, told = mapped(fused_run, chip.images[0], tmp_path / "late", weather=[str(late)])
    np.testing.assert_array_equal(again, plain)
    assert "0% is in the files" in told["notes"][-1]


def test_weather_unlike_the_training_s_is_told_of_where_a_map_is_made(fused_run, fused_chips, tmp_path):
    """Ten times as much rain as anywhere in the training; that of the training is told to be like it."""
    flood = tmp_path / "flood.nc"
    with xr.open_dataset(fused_chips / "weather.nc") as data:
        data.assign(pr=10 * data["pr"].where(data["pr"] < POISON)).to_netcdf(flood)
    said: list[str] = []
    for name, file in (("usual", fused_chips / "weather.nc"), ("wet", flood)):
        _, told = mapped(fused_run, fused_chips / "c01_hls.tif", tmp_path / name, weather=[str(file)], say=said.append)
        with rasterio.open(told["map"]) as made:
            far = float(made.tags()["EARTHTUNE_WEATHER_UNFAMILIAR"])
        strange = [line for line in told["notes"] if "unlike all training weather" in line]
        assert (far > 3, len(strange)) == ((True, 1) if name == "wet" else (False, 0))
    assert "pr has a mean of" in strange[0] and f"c01_hls: {strange[0]}" in said
    told = json.loads((tmp_path / "wet" / "c01_hls.json").read_text())
    assert "unlike all training weather" in json.dumps(told)


def test_the_same_scene_with_other_weather_is_another_map_and_not_kept_from_before(fused_run, fused_chips, tmp_path):
    source = str(fused_chips / "c01_hls.tif")
    out, kept = tmp_path / "out", [str(fused_chips / "weather.nc")]
    assert [score(fused_run, [source], out=out, weather=kept)[0]["status"] for _ in range(2)] == ["done", "kept"]
    (told,) = score(fused_run, [source], out=out)
    assert told["status"] == "failed" and "made with other options" in told["error"]


def test_the_ground_of_another_place_is_given_or_missing(fused_run, run, fused_chips, tmp_path):
    """Other hills are another map's input; what is not there is told; without weather they say nothing."""
    bundle, (scene, kept) = read_bundle(fused_run), (fused_chips / "c01_hls.tif", fused_chips / "weather.nc")
    steep = hills(tmp_path / "steep.tif")
    with rasterio.open(steep, "r+") as file:
        file.scales = (2.0,)

    def asked(bundle, *static, weather=True):
        with open_for(bundle, str(scene)) as opened_scene:
            return beside(bundle, opened_scene, 0, opened(bundle, [str(kept)] if weather else []), static)

    usual, twice = asked(bundle), asked(bundle, f"elevation={steep}")
    np.testing.assert_allclose(twice.arrays[STATIC][..., 0], 2 * usual.arrays[STATIC][..., 0], rtol=1e-5)
    assert (usual.static, twice.static) == (("elevation=dem.tif",), ("elevation=steep.tif",))
    assert usual.identity != twice.identity and not usual.notes
    elsewhere = dataclasses.replace(bundle, data={**bundle.data, "root": str(tmp_path / "gone")})
    lacking = asked(elsewhere)
    assert not lacking.arrays[valid_of(STATIC)].any() and lacking.arrays[valid_of(CONTEXT)].all()
    assert "nothing is known of elevation here; --static NAME=FILE gives it" in lacking.notes
    assert not asked(bundle, weather=False).arrays[valid_of(STATIC)].any()
    for runs, static, files, told in (
        ([bundle], f"elevation={steep}", (), "counts beside the weather alone"),
        ([read_bundle(run)], f"elevation={steep}", ("w.nc",), "no run here takes any"),
        ([read_bundle(run), bundle], "slope=x.tif", ("w.nc",), "wanted elevation=FILE"),
        ([bundle], "elevation=/vsicurl?url=http%3A%2F%2F127.0.0.1", ("w.nc",), "no such file on this machine"),
    ):
        with pytest.raises(InputError, match=told):
            check_static(runs, [static], weather=files)
            asked(bundle, static)
    with pytest.raises(InputError, match="is given twice"):
        check_static([bundle], [f"elevation={steep}"] * 2, weather=["w.nc"])
    with rasterio.open(steep, "r+") as file:
        file.write(np.full((1, *file.shape), -9999, np.float32))
        file.scales = (1.0,)
    with pytest.raises(InputError, match="shows nothing of the ground"):
        asked(bundle, f"elevation={steep}")
    check_static([read_bundle(run), bundle], [f"elevation={steep}"], weather=["w.nc"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("slope={}", "wanted elevation=FILE"),
        ("elevation", "wanted elevation=FILE"),
        ("elevation={}.gone", "no such file"),
        ("elevation={}.nc", "came none; the file holds several arrays"),
        ("elevation={}", "shows nothing of the ground of c01_hls"),
    ],
)
def test_rasters_that_do_not_fit_are_refused_in_a_line(fused_run, fused_chips, tmp_path, given, told):
    far = hills(tmp_path / "far.tif", crs="EPSG:32660")
    xr.Dataset({name: (("y", "x"), np.zeros((4, 5))) for name in "ab"}).to_netcdf(f"{far}.nc")
    how = {"weather": [str(fused_chips / "weather.nc")], "static": [given.format(far)], "debug": True}
    with pytest.raises(InputError, match=told):
        score(fused_run, [str(fused_chips / "c01_hls.tif")], out=tmp_path / "out", **how)


def test_an_elevation_in_feet_is_refused(fused_chips, tmp_path):
    with rasterio.open(hills(tmp_path / "feet.tif"), "r+") as file:
        file.units = ("ft",)
    recipe = fused_recipe(fused_chips)
    data = dataclasses.replace(recipe.data, static={"elevation": str(tmp_path / "feet.tif")})
    with pytest.raises(InputError, match="in ft; wanted metres"):
        prepare(dataclasses.replace(recipe, data=data))


def test_a_run_of_imagery_alone_goes_along_in_one_pass(fused_run, run, fused_chips, tmp_path):
    """Each map is what the run makes alone."""
    source, kept = str(fused_chips / "c01_hls.tif"), [str(fused_chips / "weather.nc")]
    both = {path: read_bundle(path) for path in (run, fused_run)}
    elsewhere = dataclasses.replace(both[fused_run], data={**both[fused_run].data, "root": "/elsewhere"})
    assert len(passes_of({**both, run / "other": elsewhere}, None)) == 2
    ((together, _),) = passes_of(both, None)
    assert together == (run, fused_run)
    first, second = score(run, [source], out=tmp_path / "both", bundle=[fused_run], weather=kept)
    for told, alone in (
        (first, mapped(run, source, tmp_path / "plain")),
        (second, mapped(fused_run, source, tmp_path / "heard", weather=kept)),
    ):
        with rasterio.open(told["map"]) as file:
            np.testing.assert_array_equal(file.read(1), alone[0])
    with rasterio.open(first["map"]) as plain, rasterio.open(second["map"]) as heard:
        assert "EARTHTUNE_WEATHER" not in plain.tags() and heard.tags()["EARTHTUNE_STATIC"] == "elevation=dem.tif"


def test_weather_that_does_not_fit_is_refused_in_a_line(fused_run, run, chips, fused_chips, tmp_path):
    source = str(fused_chips / "c01_hls.tif")

    def refused(run, files):
        with pytest.raises(InputError) as caught:
            score(run, [source], out=tmp_path / "out", weather=[str(file) for file in files], debug=True)
        return str(caught.value)

    assert "takes imagery alone" in refused(run, [fused_chips / "weather.nc"])
    assert "pr" in refused(fused_run, [weather(tmp_path / "named.nc", name="snow")])
    assert "wanted" in refused(fused_run, [weather(tmp_path / "unit.nc", unit="K")])
    assert "neither NetCDF" in refused(fused_run, [chips / "c00_lc.tif"])


def test_inspect_says_what_is_wanted_beside_a_scene_and_whether_a_file_has_it(fused_run, fused_chips, tmp_path):
    wanted = f"beside a scene the model takes pr (mm/d), noise of the {DAYS} days before it (score --weather FILES)"
    scene = inspect(fused_chips / "c01_hls.tif", for_run=fused_run)
    file = inspect(fused_chips / "weather.nc", for_run=fused_run)
    ground = "and elevation of its ground (score --static elevation=FILE)"
    assert scene.ok and {wanted, ground} <= {*scene.notes} and file.notes == (wanted, ground)
    assert file.ok and [need.reason for need in file.needs] == ["pr (mm/d), noise"]
    (need,) = inspect(weather(tmp_path / "named.nc", name="snow"), for_run=fused_run).needs
    assert not need.ok and "pr" in need.reason
    parts = [tmp_path / "apart" / f"{name}.nc" for name in ("pr", "noise")]
    parts[0].parent.mkdir()
    with xr.open_dataset(fused_chips / "weather.nc") as data:
        for path in parts:
            data[[path.stem, "time_bnds"]].to_netcdf(path)
    alone, together = (inspect(",".join(map(str, some)), for_run=fused_run) for some in (parts[:1], parts))
    assert (alone.ok, together.ok, together.notes) == (False, True, file.notes)
    assert inspect(parts[0].parent, for_run=fused_run).ok


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mode": "full"}, "wanted one of frozen, lora"),
        ({"data": {"weather": Before()}}, "data.weather.files: wanted"),
        ({"data": {"weather": Before(("other.nc",))}}, "other.nc"),
        ({"data": {"dates": ["1999-01-01"]}}, "nothing of it lies at the chips' places"),
    ],
)
def test_recipes_that_cannot_be_joined_are_refused(fused_chips, tmp_path, changes, told):
    recipe = fused_recipe(fused_chips)
    changes = {key: dataclasses.replace(recipe.data, **v) if key == "data" else v for key, v in changes.items()}
    with pytest.raises(InputError, match=told):
        finetune(dataclasses.replace(recipe, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_chips_without_a_date_or_a_place_are_refused(fused_chips, tmp_path):
    shutil.copytree(fused_chips, tmp_path / "chips")
    path = tmp_path / "chips" / "c03_hls.tif"
    with rasterio.open(path, "r+") as file:
        file.update_tags(ACQUISITION_DATE="")
    with pytest.raises(InputError, match="c03_hls.tif: wanted a date"):
        prepare(fused_recipe(tmp_path / "chips"))


def test_a_student_hears_the_weather_too(fused_run, fused_chips, samples, tmp_path, torch_only):
    """Smaller, of other weights throughout; without weather the answer is that of its imagery, to the bit."""
    how = {"size": "small", "params": 60_000, "unlabelled": (), "epochs": None, "data_root": None, "compare": False}
    recipe = student_of(fused_run, **how)
    result = finetune(recipe, tmp_path / "student")
    network, teacher = load_network(tmp_path / "student"), load_network(fused_run)
    assert result["model"]["accuracy"] > 0.8 and network.gate > 0
    assert network.backbone.dim < teacher.backbone.dim and result["student"]["rows"][1]["name"] == "teacher"

    batch = {name: torch.from_numpy(a) for name, a in inputs_of(samples, samples.of("test")).items()}
    plain = {name: a * 0 if name.endswith("_valid") and name != valid_of(IMAGERY) else a for name, a in batch.items()}
    with torch.inference_mode():
        alone = Network.finish(network, network.members(plain))
        assert torch.equal(network.predict(plain), alone) and not torch.equal(network.predict(batch), alone)


def test_scenes_without_labels_are_refused_for_a_student_that_hears_weather(fused_run, fused_chips, tmp_path):
    how = {"size": "small", "params": 60_000, "epochs": None, "data_root": None, "compare": False}
    recipe = student_of(fused_run, unlabelled=[str(fused_chips / "c01_hls.tif")], **how)
    with pytest.raises(InputError, match="for runs over imagery alone"):
        finetune(recipe, tmp_path / "student")


def test_a_missing_image_is_answered_by_the_weather(fused_run, samples):
    inputs = inputs_of(samples, samples.samples[:4])
    inputs[valid_of(IMAGERY)][:] = 0
    said = predict_by(load_network(fused_run))(inputs)
    assert np.isfinite(said).all() and (said == said[:, :, :1, :1]).all()
    wet = np.array([rain_at(9.0 + 0.1 * i) > 3 for i in range(4)])
    trees, grass = said[:, 0, 0, 0], said[:, 1, 0, 0]
    assert ((grass > trees) == wet).all()
