"""NetCDF files whose variables are the bands of a scene."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pyproj import CRS

from models.errors import InputError
from pipelines.inspection.scene_contents import describe_scene
from pipelines.scenes.find import find_scenes
from pipelines.scenes.periods import GapError, frames_by, read_periods
from pipelines.scenes.products import find_products
from pipelines.scenes.scene import open_scene
from tests.pipelines.edge.scenes_to_map import served
from tests.pipelines.scenes.test_scene import per_band

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "worldcereal"
REAL = FOLDER / "worldcereal_preprocessed_inputs.nc"
WHOLE = (slice(0, 8), slice(0, 8))


def write_cube(path, names=("B02", "B8A", "ndvi"), dates=("2021-06-01", "2021-07-01"), **attrs):
    """Variables that hold 1000 times their place plus the number of the date, packed; the first pixel is fill."""
    times = pd.DatetimeIndex(dates)
    attrs = {"scale_factor": 1e-4, "add_offset": 0.0, "grid_mapping": "crs", "_FillValue": np.int16(-9999)} | attrs
    numbers = np.arange(len(times), dtype="int16").reshape(-1, 1, 1) + np.zeros((8, 8), "int16")
    fields = {name: (("t", "y", "x"), numbers + np.int16(1000 * i), attrs) for i, name in enumerate(names, 1)}
    cube = xr.Dataset(fields, {"t": times, "y": np.arange(8)[::-1] * 10.0 + 5, "x": np.arange(8) * 10.0 + 5})
    for variable in names:
        cube[variable].values[:, 0, 0] = -9999
    cube["crs"] = xr.DataArray(0, attrs=CRS(32633).to_cf())
    for axis in "xy":
        cube[axis].attrs = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    cube.to_netcdf(path, engine="h5netcdf", encoding={"t": {"units": "days since 2000-1-1"}})
    return path


def test_variables_are_bands_and_times_are_dates(tmp_path):
    scene = open_scene(write_cube(tmp_path / "cube.nc"), ["NIR_NARROW", "BLUE"])
    assert scene.frames == 2 and [str(day) for day in scene.dates] == ["2021-06-01", "2021-07-01"]
    assert per_band(scene, 0) == pytest.approx([2000, 1000]) and per_band(scene, 1) == pytest.approx([2001, 1001])
    assert np.argwhere(~scene.read(WHOLE)[1]).tolist() == [[0, 0]]
    assert scene.geobox.crs.epsg == 32633 and scene.geobox.affine.a == 10


def test_names_may_be_given_in_the_order_of_the_variables(tmp_path):
    path = write_cube(tmp_path / "cube.nc", ("a", "b"), ("2021-06-01",))
    assert per_band(open_scene(path, ["RED", "GREEN"], file_bands=["GREEN", "RED"])) == pytest.approx([2000, 1000])
    with pytest.raises(InputError, match="holds the variables a, b, none named as a band"):
        open_scene(path, ["RED"])
    with pytest.raises(InputError, match="has the variables a, b, 1 names were given"):
        open_scene(path, ["RED"], file_bands=["RED"])


@pytest.mark.parametrize(
    ("file", "words", "wanted"),
    [
        ("cube.nc", ("S2-L2A-B02", "S2-L2A-B05", "AGERA5-B05"), {"BLUE": 1000, "RED_EDGE_1": 2000}),
        ("S2_L2A_10m.nc", ("B02", "B08"), {"BLUE": 1000, "NIR_BROAD": 2000}),
        ("L8_SR_10m.nc", ("B04", "B05", "B10"), {"RED": 1000, "NIR_NARROW": 2000}),
        ("x.nc", ("HLS.S30_B04", "HLS.S30_B8A"), {"RED": 1000, "NIR_NARROW": 2000}),
    ],
)
def test_codes_are_those_of_the_sensor_that_a_variable_or_the_file_is_called_by(tmp_path, file, words, wanted):
    scene = open_scene(write_cube(tmp_path / file, words), [*wanted])
    assert per_band(scene, 0) == pytest.approx([*wanted.values()])


def test_two_variables_of_one_band_are_refused(tmp_path):
    path = write_cube(tmp_path / "cube.nc", ("S2-B04", "L8-B04"))
    with pytest.raises(InputError, match="S2-B04 and L8-B04 are both RED; name all variables"):
        open_scene(path, ["RED"])
    with pytest.raises(InputError, match="none named as a band"):  # of no sensor that is known
        open_scene(write_cube(tmp_path / "x.nc", ("B04", "B05")), ["RED"])


def test_a_cube_is_dates_of_their_own(tmp_path):
    scene = open_scene(write_cube(tmp_path / "cube.nc"), ["NIR_NARROW", "BLUE"])
    first, second = scene.apart()
    assert (first.name, second.name) == ("cube_2021-06-01", "cube_2021-07-01") and second.frames == 1
    assert per_band(second) == pytest.approx([2001, 1001])


def write_bands(folder, *, unsigned=False):
    """One array along time, band, y and x, as NetCDF and as Zarr, and its values."""
    values = np.random.default_rng(0).integers(1, 3000, (3, 2, 8, 8)).astype("int16")
    values[1, 0, 0, 0], values[:, :, 2, 2] = -9999, 40000 - 65536 if unsigned else 2000
    dims = ("time", "band", "y", "x")
    attrs = {"_FillValue": np.int16(-9999), "scale_factor": 1e-4, "add_offset": 0.0, "grid_mapping": "spatial_ref"}
    attrs |= {"_Unsigned": "true"} if unsigned else {}
    times = pd.DatetimeIndex(["2021-03-01", "2021-06-01", "2021-09-01"])
    middle = np.arange(8) * 10.0 + 5
    cube = xr.Dataset({"sr": (dims, values, attrs)}, {"time": times, "y": middle[::-1], "x": middle})
    cube = cube.assign_coords(band=np.array([b"BLUE", b"RED"])).assign(spatial_ref=((), 0, CRS(32633).to_cf()))
    cube["height"] = (("y", "x"), np.ones((8, 8)))
    cube.to_netcdf(folder / "bands.nc", engine="h5netcdf")
    cube.to_zarr(folder / "bands.zarr", zarr_format=2, consolidated=True)
    codes = {f"S2-{code}": (("time", "y", "x"), values[:, i], attrs) for i, code in enumerate(("B02", "B04"))}
    plain = cube.drop_vars(["sr", "band", "height"]).assign(codes)
    plain.to_zarr(folder / "variables.zarr", zarr_format=2, consolidated=True)
    return values


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("name", ["bands.nc", "bands.zarr", "variables.zarr"])
def test_a_cube_of_bands_is_dated_frames(tmp_path, name, unsigned):
    values = write_bands(tmp_path, unsigned=unsigned)
    scene = open_scene(tmp_path / name, ["RED", "BLUE"])
    assert [str(day) for day in scene.dates] == ["2021-03-01", "2021-06-01", "2021-09-01"]
    assert scene.geobox.crs.epsg == 32633 and tuple(scene.geobox.affine)[:6] == (10, 0, 0, 0, -10, 80)
    x, valid = scene.read((slice(0, 5), slice(0, 8)))
    assert np.argwhere(~valid).tolist() == [[0, 0]]
    stored = values.view("uint16") if unsigned else values
    np.testing.assert_allclose(x.transpose(1, 0, 2, 3)[:, ::-1][..., valid], stored[:, :, :5][..., valid], rtol=1e-6)
    few = frames_by(read_periods(["06", "09"]), scene)
    np.testing.assert_array_equal(few.read(WHOLE)[0][:, 1, 3], scene.read(WHOLE)[0][:, 2, 3])
    assert scene.files and all(tmp_path in path.parents for path in scene.files)
    told = describe_scene(name, find_products([str(tmp_path / name)]))
    assert (told.frames, told.dates[1], told.bands[0].dtype) == (3, "2021-06-01", f"{'u' * unsigned}int16")


def test_a_store_in_a_folder_is_a_scene_and_one_behind_an_address_is_read_alike(tmp_path):
    write_bands(tmp_path)
    names = ("bands.nc", "bands.zarr", "variables.zarr")
    assert find_scenes([str(tmp_path)]) == [str(tmp_path / name) for name in names]
    with served(tmp_path) as address:
        far = open_scene(f"{address}bands.zarr", ["BLUE", "RED"])
        near = open_scene(tmp_path / "bands.zarr", ["BLUE", "RED"])
        np.testing.assert_array_equal(far.read(WHOLE)[0], near.read(WHOLE)[0])
        assert far.dates == near.dates and far.geobox == near.geobox and far.sources[0].startswith("http")


def test_cubes_that_make_no_scene_are_refused_in_a_line(tmp_path):
    write_bands(tmp_path)
    with pytest.raises(InputError, match="has the bands BLUE, RED, 1 names were given"):
        open_scene(tmp_path / "bands.zarr", ["RED"], file_bands=["RED"])
    assert open_scene(tmp_path / "bands.zarr", ["GREEN"], file_bands=["RED", "GREEN"]).bands == ("GREEN",)
    (tmp_path / "bands.zarr" / ".zmetadata").write_text("{")
    with pytest.raises(InputError, match=r"bands\.zarr"):
        open_scene(tmp_path / "bands.zarr", ["RED"])
    uneven = xr.Dataset({"RED": (("y", "x"), np.ones((3, 3)))}, {"y": [0.0, 1.0, 3.0], "x": [0.0, 1.0, 2.0]})
    uneven.to_zarr(tmp_path / "uneven.zarr", zarr_format=2)
    with pytest.raises(InputError, match="uneven distances"):
        open_scene(tmp_path / "uneven.zarr", ["RED"])


def test_files_of_a_day_with_other_bands_are_one_frame(tmp_path):
    fine = write_cube(tmp_path / "S2_10m.nc", ("B02", "B04"))
    rest = write_cube(tmp_path / "S2_20m.nc", ("B11", "B12"))
    scene = open_scene([fine, rest], ["RED", "SWIR_1"])
    assert scene.frames == 2 and per_band(scene, 1) == pytest.approx([2001, 1001])
    assert find_scenes([str(tmp_path)]) == [str(fine), str(rest)]


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real data is not at {REAL}")
def test_the_two_real_files_of_a_place_are_one_series_on_the_ground():
    files = sorted(FOLDER.glob("S2_L2A_*.nc"))
    scene = open_scene(files, ["BLUE", "SWIR_1"], mask_clouds=True)
    assert scene.frames == 118 and scene.geobox.crs.epsg == 32631
    assert tuple(scene.geobox.affine)[:6] == (10, 0, 501360, 0, -10, 5629680)
    some = frames_by(read_periods(["2018-06"]), scene)
    with xr.open_dataset(files[0], engine=xr.backends.H5netcdfBackendEntrypoint, mask_and_scale=False) as raw:
        at = scene.dates.index(some.dates[0])
        np.testing.assert_allclose(some.read(some.window)[0][0, 0], raw["B02"].values[at], rtol=1e-6)


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real data is not at {REAL}")
def test_of_a_real_cube_frames_are_chosen_and_empty_months_are_told():
    bands = ["BLUE", "RED", "NIR_BROAD", "SWIR_1"]
    every = open_scene(REAL, bands)
    assert every.frames == 12 and every.geobox.crs.epsg == 32631 and every.shape == (100, 100)
    scene = frames_by(read_periods(["2020-11", "04", "07/08"]), every)
    assert [str(day) for day in scene.dates] == ["2020-11-01", "2021-04-01", "2021-07-01"]
    x, valid = scene.read(scene.window)
    with xr.open_dataset(REAL, engine=xr.backends.H5netcdfBackendEntrypoint, mask_and_scale=False) as raw:
        np.testing.assert_array_equal(x[1, 1][valid], raw["S2-L2A-B04"].values[5].view("uint16")[valid])
    assert valid.mean() > 0.99
    with pytest.raises(GapError, match="no data in 2020-12, at 1 date; no date in 2022"):
        frames_by(read_periods(["2020-12", "2021-04", "2022"]), every)
