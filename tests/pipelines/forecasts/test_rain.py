"""From analyses to rain by lead time: what reaches the encoder, and a run asked about a forecast's steps."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
import xarray as xr

from models.backbones.wxc_climatology import climatology_names, read_climatology
from models.backbones.wxc_files import WxCConfig
from models.backbones.wxc_inputs import STATIC
from models.bundle import Bundle, read_bundle, write_bundle, write_weights
from models.errors import InputError
from models.networks.rain import RainNetwork
from models.networks.weather import inputs_told
from models.spec import WEATHER
from models.training.settings import Augmentation, WeatherArchitecture
from pipelines.cli.main import main
from pipelines.commands.score import score
from pipelines.forecasts.forecast import forecast
from pipelines.samples.fields import FieldSamples
from pipelines.samples.sets import inputs_of
from pipelines.samples.weather import read_weather
from pipelines.tasks.rain import TASK, RainSamples
from pipelines.weather.merra2 import UNITS, open_merra2, split_channel
from tests.pipelines.forecasts.test_forecast import hours, write_analyses
from tests.rain_files import rain_recipe
from tests.specs import rain_spec
from tests.wxc_repo import climatology

TINY = "prithvi_wxc_tiny"
CHANNELS = WxCConfig().channels
FEW = ("PS", "T2M", "TQV", "QV_72", "U_51", "V_51")  # what a run of the tests eats
SMALL = WeatherArchitecture({"embed_dim": 16, "heads": 2, "mask_unit": (8, 8)}, channels=4, detail=8)
START = {"start": "2020-03-30T06:00", "weights": "random"}


@pytest.fixture(scope="module")
def analyses(tmp_path_factory):
    return write_analyses(tmp_path_factory.mktemp("merra"), hours(0, 6, 12, 18))


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    """A climatology of two days, every three hours."""
    root = tmp_path_factory.mktemp("normals")
    (root / "climatology").mkdir()
    for hour in range(0, 48, 6):
        time = datetime(2020, 3, 30) + timedelta(hours=hour)
        for name, content in climatology(time, np.arange(35, 50, 0.5), np.arange(-110, -90, 0.625)).items():
            (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def samples(analyses, normals):
    """Those of a run that eats all, with the statistics of the analyses."""
    weather = read_weather(analyses, CHANNELS, static=STATIC)
    zero, units = (0.0,) * len(CHANNELS), [UNITS[split_channel(name)[0]] for name in CHANNELS]
    cells = {"times": 2, "step": 6.0, "size": (0.5, 0.625), "static": STATIC, "climatology": True}
    cells |= {"static_mean": (0.0,) * 4, "static_std": (1.0,) * 4}
    spec = rain_spec(CHANNELS, units, zero, (1.0,) * len(CHANNELS), cells=cells, window=(-1.0, 1.0), scale=0.5)
    made = RainSamples(spec, weather, None, climatology=str(normals))
    made.spec = FieldSamples.measured(made, "")
    return made


@pytest.fixture(scope="module")
def spec(samples):
    """One that eats a few of the channels."""
    given = samples.spec.weather
    at = [CHANNELS.index(name) for name in FEW]
    few = {key: tuple(getattr(given, key)[i] for i in at) for key in ("channels", "units", "mean", "std")}
    return samples.spec.revised(**few)


def network_of(spec):
    torch.manual_seed(0)
    net = RainNetwork(spec, TINY, SMALL).eval()
    for member in net.members:
        torch.nn.init.normal_(member.head.weight, std=0.3)
    return net


def write_run(folder, spec, normals):
    folder.mkdir()
    write_weights(folder, network_of(spec), whole=True)
    data = {"climatology": str(normals)} if spec.weather.climatology else {}
    write_bundle(folder, Bundle(spec, TINY, SMALL, data=data))
    return folder


@pytest.fixture(scope="module")
def run(spec, normals, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run", spec, normals)


@pytest.fixture(scope="module")
def made(run, analyses, tmp_path_factory):
    """A forecast of three steps with its rain."""
    out = tmp_path_factory.mktemp("made") / "fc"
    return out, forecast(TINY, analyses, out=out, steps=3, variables=list(FEW), rain=run, **START)


# ---------------------------------------------------------------- what reaches the encoder


def test_a_sample_is_the_batch_of_the_published_layout(samples, analyses, normals):
    """Both times, all channels, static fields and the climatology at the valid time, as a forecast is given them."""
    sample = samples.samples[-1]
    times = [samples.time(sample) - np.timedelta64(6, "h"), samples.time(sample)]
    merra = open_merra2(analyses, CHANNELS, static=STATIC)
    names = [normals / name for name in climatology_names(times[1])]
    climate = read_climatology(*names, lat=merra.lat, lon=merra.lon)
    wanted = merra.batch([t.astype("datetime64[ns]") for t in times], lead=0, climate=climate)
    item = samples.item(sample)
    for key, name in (("x", WEATHER), ("static", "static"), ("climate", "climate")):
        np.testing.assert_array_equal(item[name], wanted[key][0].numpy())
    assert item["input_time"] == 6 and item["weather"].shape[:2] == (2, 160) and item["static"].shape[0] == 10


def test_every_channel_of_every_time_reaches_the_encoder(samples):
    """The tokens that enter the encoder depend on each of them."""
    net, entered = network_of(samples.spec).backbone, []
    given = {key: torch.from_numpy(a) for key, a in inputs_of(samples, samples.samples[:1]).items()}
    leaves = {key: given[key].requires_grad_() for key in (WEATHER, "static", "climate")}
    embed = net.embed
    net.embed = lambda batch, canvas: entered.append(embed(batch, canvas)) or entered[-1]
    whole = network_of(samples.spec)
    whole.backbone = net
    whole.encoded(given)
    noise = torch.randn(entered[0].shape, generator=torch.Generator().manual_seed(0))
    (entered[0] * noise).sum().backward()
    reached = {key: (leaf.grad.abs().sum(dim=(-2, -1)) > 0) for key, leaf in leaves.items()}
    assert {key: int(there.sum()) for key, there in reached.items()} == {WEATHER: 320, "static": 10, "climate": 160}
    told = inputs_told(samples.spec.weather, TINY, SMALL)  # static: place, four of time, four fields
    assert "320 of 320 dynamic channels (160 at 2 of 2 times) and 168 of 168 static ones" in told


def test_what_does_not_arrive_is_told(samples):
    given = dataclasses.replace(samples.spec.weather, times=1, climatology=False, position=False)
    given = dataclasses.replace(given, static=STATIC[:1], static_mean=(0.0,), static_std=(1.0,))
    assert inputs_told(given, TINY, SMALL) == (
        "Prithvi WxC's encoder is given 160 of 320 dynamic channels (160 at 1 of 2 times) and 1 of 168 static ones "
        "(time 0 of 4, fields 1 of 4, climatology 0 of 160, place left out)."
    )
    other = rain_spec(("T2M", "DISPH"), ("K", "m"), (0.0, 0.0), (1.0, 1.0)).weather
    assert "1 of 320 dynamic channels (1 at 1 of 2 times)" in inputs_told(other, TINY, SMALL)
    assert inputs_told(other, TINY, SMALL).endswith("and 1 that it was not made for.")


def test_static_fields_and_climatology_turn_with_the_weather(samples):
    """Of all draws each is one of four symmetries, the same for all maps."""
    item = samples.item(samples.samples[0]) | {"y": np.zeros((9, 8), np.float32)}
    samples.augmentation, seen = Augmentation(turns=True), set()
    at = CHANNELS.index("T2M")
    for seed in range(12):
        out = samples.varied(item, np.random.default_rng(seed))
        flips = [(), (-2, -1), (-2,), (-1,)]
        (kind,) = [k for k in flips if np.array_equal(out[WEATHER][0, at], np.flip(item[WEATHER][0, at], k))]
        np.testing.assert_array_equal(out["static"][6:], np.flip(item["static"][6:], kind))
        np.testing.assert_array_equal(out["climate"][at], np.flip(item["climate"][at], kind))
        seen.add(kind)
    samples.augmentation = Augmentation()
    assert len(seen) == 4


def test_inputs_may_be_shared_between_blocks_where_a_gap_below_0_says_so(tmp_path):
    recipe = rain_recipe(tmp_path)
    data = dataclasses.replace(recipe.data, times=2, step=6.0, window=(-1.0, 1.0), gap=-5.0)
    TASK.check(dataclasses.replace(recipe, data=data))
    with pytest.raises(InputError, match=r"data\.gap"):  # hours of rain would be shared
        TASK.check(dataclasses.replace(recipe, data=dataclasses.replace(data, gap=-5.5)))
    with pytest.raises(InputError, match=r"data\.gap"):
        TASK.check(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, gap=-1.0)))


# ---------------------------------------------------------------- rain of a forecast


def test_rain_of_a_forecast_is_what_score_says_of_its_file(made, run, tmp_path):
    out, result = made
    with xr.open_dataset(out / "rain.nc", engine="h5netcdf", decode_timedelta=False) as rain:
        rain = rain.load()
    assert rain.lead_time.values.tolist() == [6, 12, 18] and list(rain.time.values) == [
        *hours(12, 18),
        *hours(0, day="2020-03-31"),
    ]
    assert rain.forecast_reference_time.values == hours(6)[0] and rain.rain.units == "mm h-1"
    assert float(rain.rain.std()) > 0
    for name, leads in (("forecast.nc", slice(1, None)), ("rain_fields.nc", slice(None))):
        score(run, [str(out / name)], out=tmp_path / name)
        with xr.open_dataset(next((tmp_path / name).glob("*.nc")), engine="h5netcdf") as told:
            for key in ("rain", "rain_quantile", "rain_probability"):
                here = told[key].sel(time=rain.time[leads])
                np.testing.assert_array_equal(here.values, rain[key][leads].values)
    assert json.loads((out / "forecast.json").read_text()) == result
    assert result["rain"] == [str(out / "rain.nc")] and "12 of 320" in result["rain_inputs"]


def test_rain_is_that_of_the_network_on_the_analyses_and_the_first_step(made, spec, analyses, normals):
    out, _ = made
    with xr.open_dataset(out / "forecast.nc", engine="h5netcdf", decode_timedelta=False) as data:
        step = np.stack([data[name].values[0] for name in FEW])
    merra = open_merra2(analyses, FEW, static=STATIC)
    names = [normals / name for name in climatology_names(hours(12)[0])]
    climate = read_climatology(*names, lat=merra.lat, lon=merra.lon)[[CHANNELS.index(name) for name in FEW]]
    batch = merra.batch(hours(6, 12), lead=0, climate=climate)  # static terms of 12 UTC
    fields = np.stack([merra.stack(hours(6)[0]), step])[None]
    told = network_of(spec).predict({**batch, WEATHER: torch.from_numpy(fields)})[0].numpy()
    with xr.open_dataset(out / "rain.nc", engine="h5netcdf", decode_timedelta=False) as rain:
        np.testing.assert_allclose(rain.rain_quantile.values[0], told, rtol=1e-3, atol=1e-3)


def test_the_command_tells_of_rain_and_a_later_forecast_without_takes_it_away(run, analyses, tmp_path, capsys):
    out = tmp_path / "fc"
    words = ["forecast", TINY, *map(str, analyses), "--out", str(out), "--steps", "1", "--weights", "random"]
    words += ["--variables", "T2M", "--overwrite"]
    assert main([*words, "--rain", str(run)]) == 0
    assert "rain.nc" in (told := capsys.readouterr().out) and "12 of 320 dynamic" in told
    assert {path.name for path in out.iterdir()} >= {"rain.nc", "rain_fields.nc", "forecast.nc"}
    with xr.open_dataset(out / "forecast.nc", engine="h5netcdf", decode_timedelta=False) as data:
        assert "U_51" not in data and "T2M" in data
    assert main(words) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("energy.json", "forecast.json", "forecast.nc", "forecast_006h.tif")
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": ("DISPH", *FEW[1:])}, "it reads DISPH, which a forecast of Prithvi WxC does not have"),
        ({"step": 3.0}, "it reads 2 times 3 h apart; the forecast has 3 6 h apart: wanted a run of 2 times"),
        ({"size": (0.25, 0.25)}, r"cells of 0\.25 x 0\.25 deg, those of the forecast are 0\.5 x 0\.625 deg"),
        ({"static": ("FRLAKE", *STATIC[1:])}, "it reads FRLAKE"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_before_any_work(change, words, spec, normals, analyses, tmp_path):
    other = write_run(tmp_path / "run", spec.revised(**change), normals)
    with pytest.raises(InputError, match=words):
        forecast(TINY, analyses, out=tmp_path / "fc", steps=1, rain=other, **START)
    assert not (tmp_path / "fc").exists()


def test_what_is_no_run_of_rain_and_a_climatology_that_is_not_there_are_refused(run, analyses, tmp_path):
    with pytest.raises(InputError, match=r"climate_surface_doy090_hour12\.nc: no such file"):
        forecast(TINY, analyses, out=tmp_path / "a", steps=1, rain=run, climatology=str(tmp_path), **START)
    with pytest.raises(InputError):
        forecast(TINY, analyses, out=tmp_path / "a", steps=1, rain=tmp_path, **START)
    with pytest.raises(InputError, match=r"climate_surface_doy090_hour06\.nc: no such file"):
        score(run, [str(path) for path in analyses], out=tmp_path / "a", climatology=str(tmp_path))
    assert read_bundle(run).spec.weather.climatology and not (tmp_path / "a").exists()
