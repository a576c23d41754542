"""The downscaling network, its baselines and the elevation it reads: means that are kept, edges, turns."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from PIL import Image
from sklearn.linear_model import LinearRegression

from models.backbones.wxc_inputs import make_batch
from models.baselines.fields import fit_finer
from models.bundle import Bundle, load_network, write_bundle, write_weights
from models.errors import InputError
from models.networks.downscale import DownscaleNetwork, area_means, bicubic, repeated
from models.training.settings import Augmentation, WeatherArchitecture
from models.training.variation import varied
from pipelines.weather.elevation import find_elevation, read_elevation
from tests.specs import fine_spec

NAMES = ("T2M", "V10M")
SPEC = fine_spec(
    NAMES,
    ("K", "m s-1"),
    (285.0, 1.0),
    (8.0, 4.0),
    cells={"elevation": (300.0, 200.0, 50.0)},
    target="T2M",
    scale=0.5,
    factor=3,
)
SMALL = WeatherArchitecture({"embed_dim": 16, "heads": 2, "mask_unit": (8, 8)}, channels=4, detail=8, members=2)
LAT, LON = 44 - 0.5 * np.arange(12), -99 + 0.5 * np.arange(15)


def network(spec=SPEC, *, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = DownscaleNetwork(spec, "prithvi_wxc_tiny", SMALL)
        for member in net.members:  # a network just built says bicubic
            torch.nn.init.normal_(member.head.weight)
        return net.eval()


def batch(seed=0):
    rng = np.random.default_rng(seed)
    fields = {
        n: rng.normal(m, s, (1, 4, 5)) for n, m, s in zip(NAMES, SPEC.weather.mean, SPEC.weather.std, strict=True)
    }
    lat, lon = LAT.reshape(4, 3).mean(1), LON.reshape(5, 3).mean(1)
    time = [np.datetime64("2020-03-30T00")]
    made = make_batch(NAMES, fields, lat=lat, lon=lon, times=time, lead=0.0, static={}, static_names=())
    height = torch.from_numpy(rng.uniform(0, 900, (1, 1, 12, 15)).astype(np.float32))
    area = torch.from_numpy(np.cos(np.radians(LAT)).astype(np.float32))[None, :, None]
    x = made.pop("x")
    return made | {"weather": x, "coarse": x[:, 0, :1], "area": area, "fine": height}


def test_bicubic_is_pillows_and_keeps_a_slope():
    coarse = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    ours = bicubic(torch.from_numpy(coarse)[None, None], 3)[0, 0].numpy()
    theirs = np.asarray(Image.fromarray(coarse).resize((27, 21), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours[6:-6, 6:-6], theirs[6:-6, 6:-6], atol=1e-5)  # they end differently
    slope = bicubic(torch.arange(8.0).repeat(8, 1)[None, None], 4)[0, 0, :, 8:-8]
    torch.testing.assert_close(slope, ((torch.arange(32.0) + 0.5) / 4 - 0.5).repeat(32, 1)[:, 8:-8])


def test_area_means_weigh_rows():
    fine, area = torch.tensor([[1.0, 3.0], [5.0, 7.0]])[None, None], torch.tensor([[1.0], [3.0]])[None]
    assert area_means(fine, area, 2).item() == pytest.approx((1 + 3 + 3 * 5 + 3 * 7) / 8)
    assert repeated(torch.tensor([[[[1.0, 2.0]]]]), 2).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_the_mean_of_each_coarse_cell_is_kept():
    b = batch()
    made = network().predict(b)[:, None]
    torch.testing.assert_close(area_means(made, b["area"], 3), b["coarse"], rtol=0, atol=1e-3)
    free = network(SPEC.revised(answer={"conserve": False})).predict(b)[:, None]
    assert (area_means(free, b["area"], 3) - b["coarse"]).abs().max() > 0.01


def test_a_network_just_built_says_bicubic_and_elevation_matters_later():
    b, spec = batch(), SPEC.revised(answer={"conserve": False})
    fresh = DownscaleNetwork(spec, "prithvi_wxc_tiny", SMALL).eval()
    torch.testing.assert_close(fresh.predict(b), bicubic(b["coarse"], 3)[:, 0])
    net, flat = network(), b | {"fine": torch.zeros_like(b["fine"])}
    assert (net.predict(b) - net.predict(flat)).abs().max() > 1e-3
    assert network(SPEC.revised(answer={"positive": True})).predict(b | {"coarse": b["coarse"] - 300}).min() == 0


def test_a_bundle_gives_the_same_field_back(tmp_path):
    net, b = network(), batch()
    write_weights(tmp_path, net, whole=True)
    write_bundle(tmp_path, Bundle(SPEC, "prithvi_wxc_tiny", SMALL))
    torch.testing.assert_close(load_network(tmp_path).predict(b), net.predict(b), rtol=0, atol=0)


def test_losses_add_up():
    net, y = network(), torch.tensor([[[1.0, np.nan]]])
    answer = torch.tensor([[[2.0, 5.0]]])
    assert net.loss(answer, y, {"mse": 1.0}).item() == pytest.approx(4.0)  # in scales of 0.5
    assert net.loss(answer, y, {"mse": 1.0, "mae": 0.5}).item() == pytest.approx(5.0)


def test_a_turned_sample_is_a_sample_of_the_turned_field():
    held = {"weather": NAMES, "y": ("V10M",), "coarse": ("V10M",), "area": ("area",), "fine": ("elevation",)}
    item = {key: value[0].numpy() for key, value in batch().items()}
    item["coarse"] = item["weather"][0, 1:]
    item["y"] = bicubic(torch.from_numpy(item["coarse"])[None], 3)[0, 0].numpy()
    changed = 0
    for seed in range(16):
        new = varied(item, held, SPEC.weather.std, Augmentation(turns=True), np.random.default_rng(seed))
        np.testing.assert_array_equal(new["coarse"][0], new["weather"][0, 1])
        np.testing.assert_allclose(bicubic(torch.from_numpy(new["coarse"])[None], 3)[0, 0], new["y"], atol=1e-5)
        changed += not np.array_equal(new["fine"], item["fine"])
    assert 0 < changed < 16


def test_ridge_finds_what_elevation_adds():
    rng = np.random.default_rng(1)
    x, base = rng.normal(size=(6, 1, 4, 5)).astype(np.float32), rng.normal(size=(6, 12, 15)).astype(np.float32)
    height = rng.uniform(0, 900, (12, 15)).astype(np.float32)
    truth = base + np.float32(2) - np.float32(0.0065) * height
    ridge = fit_finer(x, base, [height], truth, factor=3)
    np.testing.assert_allclose(ridge(x[:2], base[:2], [height]), truth[:2], atol=0.02)
    noisy = truth + rng.normal(0, 1, truth.shape).astype(np.float32)
    part = (noisy - base)[:, 1::3, 2::3].ravel()
    rows = np.column_stack([np.broadcast_to(height[1::3, 2::3], (6, 4, 5)).ravel()])
    oracle = LinearRegression().fit(rows, part).predict(rows)
    made = fit_finer(np.zeros_like(x), base, [height], noisy, factor=3)(np.zeros_like(x), base, [height])
    np.testing.assert_allclose((made - base)[:, 1::3, 2::3].ravel(), oracle, atol=0.1)


def raster(path, values, *, west=-99.25, north=44.25, step=0.25, nodata=-9999.0, crs="EPSG:4326"):
    options = {"driver": "GTiff", "count": 1, "dtype": "float32", "crs": crs, "nodata": nodata}
    transform = rasterio.transform.from_origin(west, north, step, step)
    height, width = values.shape
    with rasterio.open(path, "w", height=height, width=width, transform=transform, **options) as file:
        file.write(values.astype(np.float32), 1)
    return path


@pytest.mark.parametrize("nodata", [-9999.0, np.nan])
def test_elevation_of_a_finer_raster_is_its_mean_and_sea_is_zero(tmp_path, nodata):
    values = np.random.default_rng(0).uniform(0, 900, (24, 30))
    wanted = values.reshape(12, 2, 15, 2).mean(axis=(1, 3))
    values[:2, :2], wanted[0, 0] = nodata, 0.0
    got = read_elevation(raster(tmp_path / "dem.tif", values, nodata=nodata), LAT, LON)
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    with pytest.raises(InputError, match=r"dem.tif: elevation of 97W.* is wanted and it covers 73% of the cells"):
        read_elevation(tmp_path / "dem.tif", LAT, LON + 2)
    with pytest.raises(InputError, match=r"it covers 0% of the cells"):
        read_elevation(tmp_path / "dem.tif", LAT, LON + 20)


@pytest.mark.parametrize("nodata", [-9999.0, np.nan])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_a_raster_of_coarser_or_other_pixels_covers_what_lies_under_its_extent(tmp_path, crs, nodata):
    values = np.full((60, 60), 7.0)
    values[25:30, 25:30] = nodata
    place = {"west": -108.0, "north": 50.0, "step": 1.0}
    place = place if crs == "EPSG:4326" else {"west": -12e6, "north": 6.5e6, "step": 4e4}
    dem = raster(tmp_path / "dem.tif", values, nodata=nodata, crs=crs, **place)
    assert set(np.unique(read_elevation(dem, LAT, LON))) <= {0.0, 7.0}
    with pytest.raises(InputError, match="it covers"):
        read_elevation(dem, LAT, LON + 60)


def test_geopotential_on_levels_is_no_elevation(tmp_path):
    lat, lon = np.arange(38.0, 45.01, 0.5), np.arange(-100.0, -90.9, 0.5)
    values = np.full((2, 3, len(lat), len(lon)), 9.80665 * 500)
    times = np.array(["1992-01-02", "1992-01-03"], "datetime64[ns]")
    levels = ("level", [500.0, 850.0, 1000.0], {"units": "hPa", "positive": "down"})
    data = xr.Dataset(
        {"z": (("time", "level", "lat", "lon"), values, {"units": "m2 s-2"})},
        {"time": times, "level": levels, "lat": lat, "lon": lon},
    )
    data.to_netcdf(tmp_path / "z.nc", engine="h5netcdf")
    with pytest.raises(
        InputError, match=r"z.nc: z has 3 values along level, so it is not the elevation of the surface"
    ):
        read_elevation(tmp_path / "z.nc", LAT, LON)
    data.isel(level=0, drop=True).to_netcdf(tmp_path / "surface.nc", engine="h5netcdf")
    np.testing.assert_allclose(read_elevation(tmp_path / "surface.nc", LAT, LON), 500, rtol=1e-6)


def test_coarser_elevation_of_a_weather_file_is_zero_where_it_has_none(tmp_path):
    values = np.full((8, 10), 300.0)
    values[3:5, 4:6] = np.nan
    data = xr.Dataset({"orog": (("lat", "lon"), values, {"units": "m"})})
    data = data.assign_coords(lat=np.arange(38.0, 45.1), lon=np.arange(-100.0, -90.9))
    data.to_netcdf(tmp_path / "orog.nc", engine="h5netcdf")
    got = read_elevation(tmp_path / "orog.nc", LAT, LON)
    assert got.min() == 0 and got.max() == pytest.approx(300)


@pytest.mark.parametrize("step", [0.5, 1.0])
def test_elevation_is_read_from_geopotential_on_the_same_cells_or_coarser(tmp_path, step):
    lat, lon = np.arange(38.0, 45.01, step), np.arange(-100.0, -90.9, step)
    slope = 100 + 40 * (lat[:, None] - 38) + 20 * (lon - lon[0])
    data = xr.Dataset(
        {"SGH": (("time", "lat", "lon"), slope[None]), "PHIS": (("time", "lat", "lon"), 9.80665 * slope[None])},
        {"time": np.array(["1992-01-02T03"], "datetime64[ns]"), "lat": lat, "lon": lon},
    )
    data.PHIS.attrs["units"] = "m+2 s-2"
    data.to_netcdf(tmp_path / "const.nc", engine="h5netcdf")
    got = read_elevation(tmp_path / "const.nc", LAT, LON)
    np.testing.assert_allclose(got, 100 + 40 * (LAT[:, None] - 38) + 20 * (LON + 100), rtol=1e-4)
    with pytest.raises(InputError, match=r"const.nc: "):
        read_elevation(tmp_path / "const.nc", LAT + 20, LON)
    data[["SGH"]].to_netcdf(tmp_path / "no.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="no elevation among SGH; wanted a raster in metres"):
        read_elevation(tmp_path / "no.nc", LAT, LON)


def test_elevation_is_found_by_path_or_pattern(tmp_path):
    (tmp_path / "a_const.nc").touch()
    assert find_elevation(tmp_path, "*const*") == find_elevation(tmp_path / "x", str(tmp_path / "a_const.nc"))
    assert find_elevation(tmp_path, "none") is None
    for wanted, said in (
        ("*dem*", "no such file"),
        ("", "no such file"),
        ("/no/dem.tif", "no such file"),
        ("*", "2 files match"),
    ):
        (tmp_path / "b_const.nc").touch()
        with pytest.raises(InputError, match=f"{said}.*--data.elevation FILE"):
            find_elevation(tmp_path, wanted)


def test_what_cannot_be_is_refused():
    for change, said in (
        ({"answer": {"name": "QV2M"}}, "wanted one of the fields T2M, V10M"),
        ({"answer": {"factor": 0}}, "wanted 1 to 16"),
        ({"answer": {"factor": 17}}, "wanted 1 to 16"),
        ({"elevation": (300.0,)}, "elevation .300.0.: wanted a mean and two deviations"),
        ({"elevation": (300.0, 200.0)}, "wanted a mean and two deviations"),
    ):
        with pytest.raises(InputError, match=said):
            SPEC.revised(**change)
