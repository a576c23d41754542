"""Weather on the grid of a scene, against xarray's interpolation and GDAL; area means that are kept."""

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import xarray_regrid  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling

from models.errors import InputError
from pipelines.weather import dataset as weather
from pipelines.weather.canonical import to_canonical
from pipelines.weather.regions import Region, window
from pipelines.weather.regrid import area_mean, onto
from tests.weather_files import DATA, field, needs_data

GLOBE = to_canonical(field(lon0=0.0, step=2.0, times=2))


def chip(lon, lat, side=300e3, pixels=40):
    """A UTM grid around a place."""
    epsg = 32600 + int((lon + 180) // 6) % 60 + 1
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    return GeoBox.from_bbox((x - side, y - side, x + side, y + side), epsg, shape=(pixels, pixels))


def degrees(grid):
    """Longitudes and latitudes of the centres of pixels, by pyproj."""
    x, y = np.meshgrid(grid.x, grid.y)
    return Transformer.from_crs(grid.spatial_ref.attrs["crs_wkt"], 4326, always_xy=True).transform(x, y)


@given(st.sampled_from([0.0, 179.9, -179.9, -60.3, 13.0]), st.floats(-70, 70))
@settings(max_examples=15)
def test_equals_interpolation_by_xarray(lon, lat):
    got = onto(GLOBE.t2m, chip(lon, lat))
    lons, lats = degrees(got)
    # A globe three times over has no seam.
    wide = xr.concat([GLOBE.t2m.assign_coords(lon=GLOBE.lon + turn) for turn in (-360, 0, 360)], "lon")
    want = wide.interp(lat=xr.DataArray(lats, dims=("y", "x")), lon=xr.DataArray(lons, dims=("y", "x")))
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert got.dims == ("time", "y", "x") and got.attrs["units"] == "K" and np.isfinite(got).all()


def test_equals_gdal_as_far_as_that_is_exact():
    geobox = chip(13.0, 47.0)
    smooth = GLOBE.t2m.isel(time=0) * 0 + GLOBE.lat * 0.5 + GLOBE.lon * 0.3
    plain = window(smooth.to_dataset(name="v"), Region(0, 30, 30, 60)).v.rename(lon="x", lat="y")
    moved = plain.rio.write_crs("EPSG:4326").rio.reproject(
        str(geobox.crs), shape=geobox.shape, transform=geobox.affine, resampling=Resampling.bilinear
    )
    # GDAL interpolates positions along rows of pixels, to 1/8 of a cell.
    np.testing.assert_allclose(onto(smooth.rename("v"), geobox), moved, atol=2.0 / 8 * 0.8)


@pytest.mark.parametrize(
    ("bbox", "crs"), [((-180, -90, 180, 90), 4326), ((0, -90, 360, 90), 4326), ((-3e6, -3e6, 3e6, 3e6), 3413)]
)
def test_whole_globes_and_poles_have_no_seam(bbox, crs):
    got = onto(GLOBE.t2m, GeoBox.from_bbox(bbox, crs, shape=(45, 90)))
    assert np.isfinite(got).all()


def test_the_nearest_cell():
    grid = GeoBox.from_bbox((-180.5, -90, 179.5, 90), 4326, shape=(90, 180))
    got = onto(GLOBE.t2m, grid, resampling=Resampling.nearest)
    np.testing.assert_array_equal(got, GLOBE.t2m)


def test_uneven_latitudes():
    lat = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))[::-1]
    lon = np.arange(0, 360, 5.625)
    data = xr.Dataset({"v": (("lat", "lon"), np.broadcast_to(lat[:, None], (32, 64)).copy())}, {"lat": lat, "lon": lon})
    got = onto(to_canonical(data).v, chip(0.0, 45.0))
    np.testing.assert_allclose(got, degrees(got)[1], atol=1e-4)


def test_missing_values_stay_missing_and_do_not_spread():
    part = GLOBE.t2m.load().copy()
    part[:, 20:25, :] = np.nan
    lat = GLOBE.lat.values
    got = onto(part, GeoBox.from_bbox((-180, -90, 180, 90), 4326, shape=(90, 180)))
    gone = np.isnan(got.values).all(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(gone), np.flatnonzero(np.isin(got.y.values, lat[20:25])))


@given(st.integers(2, 5), st.sampled_from([0.0, 180.0, -100.0]))
@settings(max_examples=8)
def test_the_area_mean_is_kept(factor, west):
    rain = GLOBE.t2m - 250
    lat = -90 + factor * np.arange(0.5, 180 // factor)
    lon = west + factor * np.arange(0.5, 360 // factor)
    if 180 % factor:
        return
    got = area_mean(rain.rename("rain"), lat, lon)
    means = []
    for f, size in ((rain, 2.0), (got, float(factor))):
        bands = np.sin(np.deg2rad(f.lat + size / 2)) - np.sin(np.deg2rad(f.lat - size / 2))
        means.append(np.average(f.mean("lon").astype(float), axis=1, weights=bands))
    np.testing.assert_allclose(*means, rtol=1e-6)
    assert np.isfinite(got).all() and (np.diff(got.lat) < 0).all() and got.dims == rain.dims


def test_area_mean_of_whole_cells_is_their_mean():
    got = area_mean(GLOBE.t2m, np.arange(-88.0, 90, 4), np.arange(-177.0, 180, 4) - 2)
    # Cells begin at -181, where those of the globe begin: each takes two columns whole.
    values = GLOBE.t2m.values.astype(float).reshape(2, 45, 2, 90, 2)
    bands = np.cos(np.deg2rad(GLOBE.lat.values)).reshape(45, 2)
    want = (values * bands[None, :, :, None, None]).sum(axis=(2, 4)) / (2 * bands.sum(axis=1))[None, :, None]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_area_mean_equals_xarray_regrid():
    rain = (GLOBE.t2m - 250).where(GLOBE.t2m > 275)
    lat, lon = np.arange(60.0, -61, -5), np.arange(-150.0, 151, 7.5)
    got = area_mean(rain.rename("rain"), lat, lon)
    # It makes up rows at the poles, so these are left out.
    plain = rain.sel(lat=slice(80, -80)).rename("rain")
    want = plain.regrid.conservative(xr.Dataset(coords={"lat": lat, "lon": lon}), "lat", nan_threshold=0.5)
    assert (np.isnan(got) != np.isnan(want)).mean() < 0.002  # cells of which half has data to the last digit
    # It weighs parts of cells by degrees of latitude, not by area.
    np.testing.assert_allclose(got.where(np.isfinite(want)), want.where(np.isfinite(got)), rtol=2e-3)


def test_cells_that_cannot_be_averaged():
    with pytest.raises(InputError, match="no finer"):
        area_mean(GLOBE.t2m, np.arange(-89.5, 90), np.arange(-179.5, 180))
    with pytest.raises(InputError, match="choose inside"):
        area_mean(window(GLOBE, Region(0, 0, 40, 40)).t2m, np.arange(-20.0, 21, 10), np.arange(0.0, 31, 10))


def test_a_projected_field():
    x, y = np.arange(400000.0, 600000, 5000), np.arange(5300000.0, 5100000, -5000)
    plane = x[None, :] / 1000 + y[:, None] / 500
    data = to_canonical(xr.Dataset({"v": (("y", "x"), plane, {"crs": "EPSG:32633"})}, {"y": y, "x": x}))
    grid = GeoBox.from_bbox((14.6, 46.6, 15.4, 47.4), 4326, shape=(30, 30))
    got = onto(data.v, grid)
    lons, lats = np.meshgrid(got.x, got.y)
    easts, norths = Transformer.from_crs(4326, 32633, always_xy=True).transform(lons, lats)
    np.testing.assert_allclose(got, easts / 1000 + norths / 500, rtol=1e-5)


@pytest.mark.parametrize("east", [10.0, 180.0])
def test_a_curvilinear_field(east):
    rows, cols = np.mgrid[0:30, 0:40]
    lat, lon = 40 + 0.5 * rows + 0.1 * cols, east - 10 + 0.5 * cols - 0.1 * rows
    smooth = lat * 2 + np.where(lon < 0, lon + 360, lon)
    stored = (lon + 180) % 360 - 180
    data = xr.Dataset({"v": (("j", "i"), smooth)}, {"lat": (("j", "i"), lat), "lon": (("j", "i"), stored)})
    canonical = to_canonical(data)
    grid = GeoBox.from_bbox((east - 2, 47, east + 2, 49), 4326, shape=(20, 40))
    got = onto(canonical.v, grid)
    lons, lats = np.meshgrid(got.x, got.y)
    np.testing.assert_allclose(got, lats * 2 + lons, atol=1e-3)
    beside = onto(canonical.v, GeoBox.from_bbox((east - 25, 38, east + 2, 49), 4326, shape=(20, 60)))
    assert np.isnan(beside.values[:, :20]).all() and np.isfinite(beside.values).any()
    with pytest.raises(InputError, match="share no ground"):
        onto(canonical.v, GeoBox.from_bbox((-100, -50, -98, -48), 4326, shape=(20, 20)))


def test_what_cannot_be_regridded():
    part = window(GLOBE, Region(0, 30, 30, 60)).t2m
    with pytest.raises(InputError, match="covers 0..30E, 31N..59N and the grid lies at"):
        onto(part, chip(100.0, 10.0))
    with pytest.raises(InputError, match="no coordinate system"):
        onto(part, GeoBox((5, 5), chip(10.0, 45.0).affine, None))
    with pytest.raises(InputError, match="2 GB"):
        onto(part.isel(time=[0] * 400), GeoBox.from_bbox((0, 0, 1, 1), 4326, shape=(2000, 2000)))
    with pytest.raises(InputError, match="one row or column"):
        onto(GLOBE.t2m.isel(lat=slice(40, 41)), chip(0.0, 9.0))
    bare = xr.DataArray(np.zeros((3, 3)), dims=("y", "x"), name="v")
    with pytest.raises(InputError, match="grid_mapping"):
        onto(bare, chip(0.0, 9.0))
    with pytest.raises(ValueError, match="wanted nearest or bilinear"):
        onto(part, chip(15.0, 45.0), resampling=Resampling.cubic)


@needs_data
def test_real_fields_by_interpolation_of_xarray():
    temperature = weather.open_weather(DATA / "merra2_hourly" / "MERRA2_400.inst1_2d_asm_Nx.20200330.nc4", ["T2M"]).T2M
    got = onto(temperature.isel(time=slice(0, 2)), chip(-85.0, 38.0))
    lons, lats = degrees(got)
    raw = xr.open_dataset(DATA / "merra2_hourly" / "MERRA2_400.inst1_2d_asm_Nx.20200330.nc4", engine="h5netcdf").T2M
    want = raw.isel(time=slice(0, 2)).interp(
        lat=xr.DataArray(lats, dims=("y", "x")), lon=xr.DataArray(lons, dims=("y", "x"))
    )
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_cells_on_one_line_have_no_place_between_them():
    """Around a pole, cells of the same latitude are a line in latitudes and longitudes."""
    lon, lat = np.meshgrid(np.arange(0.0, 60, 5), [80.0, 80.0])
    coords = {"lat": (("y", "x"), lat, {"units": "degrees_north"}), "lon": (("y", "x"), lon, {"units": "degrees_east"})}
    data = to_canonical(xr.Dataset({"v": (("y", "x"), np.zeros(lat.shape))}, coords))
    with pytest.raises(InputError, match="the cells of v under the grid lie on one line"):
        onto(data.v, GeoBox.from_bbox((0, 75, 60, 85), 4326, shape=(20, 20)))
