"""Units that cannot be are refused, unlikely ones told, and what is right is never refused."""

import re

import numpy as np
import pytest

from models.errors import InputError
from pipelines.scenes.physical import doubt, unit_notes
from pipelines.scenes.scene import open_scene
from tests.pipelines.scenes.test_scene import DATA, SIX, needs_data, write

SPECTRA = {  # reflectance of the six bands
    "vegetation": (0.03, 0.06, 0.04, 0.35, 0.18, 0.09),
    "snow": (0.92, 0.90, 0.88, 0.82, 0.12, 0.09),
    "cloud": (0.80, 0.79, 0.78, 0.79, 0.56, 0.38),
    "water": (0.035, 0.03, 0.015, 0.006, 0.003, 0.0),
    "desert": (0.17, 0.25, 0.34, 0.42, 0.52, 0.48),
    "salt": (0.52, 0.58, 0.61, 0.63, 0.48, 0.35),
    "night": (0.0003, 0.0006, 0.0004, 0.0035, 0.0018, 0.0009),
}


def spectrum(name, size=(60, 70)):
    """Reflectance of a surface with noise, (6, rows, columns)."""
    noise = np.random.default_rng(1).normal(1, 0.05, (6, *size))
    return np.reshape(SPECTRA[name], (6, 1, 1)) * noise


def look(tmp_path, values, **options):
    return doubt(open_scene(write(tmp_path / "a.tif", values, names=SIX), SIX, **options))


@pytest.mark.parametrize("name", SPECTRA)
def test_no_surface_is_refused_in_the_right_unit(tmp_path, name):
    x = spectrum(name)
    told = look(tmp_path, (x * 1e4).round().astype("int16"))
    assert not told.impossible
    assert bool(told.told) == (name in ("night", "desert", "cloud", "salt")), told
    assert not look(tmp_path, x.astype("float32"), scale=1.0).impossible


@pytest.mark.parametrize(
    ("stored", "looks"),
    [
        (lambda x: x, "reflectance of 0 to 1 (--scale 1 --offset 0)"),
        (lambda x: (x + 0.2) / 2.75e-5, "Landsat Collection 2 Level-2 counts (--scale 2.75e-05 --offset -0.2)"),
        (lambda x: x * 1e4 - 1000, ""),
        (lambda x: x * 1e5, ""),
    ],
)
def test_what_no_ground_reflects_is_refused_with_what_mends_it(tmp_path, stored, looks):
    found = look(tmp_path, stored(spectrum("vegetation")).astype("float32"))
    assert found.impossible and looks in found.told
    scene = open_scene(tmp_path / "a.tif", SIX)
    with pytest.raises(InputError, match=r"a\.tif: .*--scale and --offset .*--as_is"):
        unit_notes(scene)
    assert unit_notes(scene, as_is=True) == []
    mended = re.search(r"--scale (\S+) --offset ([^\s)]+)", found.told)
    if mended:
        scale, offset = map(float, mended.groups())
        assert not look(tmp_path, stored(spectrum("vegetation")).astype("float32"), scale=scale, offset=offset).told


@pytest.mark.parametrize(
    ("stored", "looks"),
    [
        (lambda x: x * 1e4 + 1000, "baseline 04.00 and later (--scale 0.0001 --offset -0.1)"),
        (lambda x: x * 100, "reflectance in percent (--scale 0.01 --offset 0)"),
    ],
)
def test_what_is_unlikely_is_told_and_not_refused(tmp_path, stored, looks):
    found = look(tmp_path, stored(spectrum("vegetation")).astype("float32"))
    assert found.told and not found.impossible and looks in found.told
    assert unit_notes(open_scene(tmp_path / "a.tif", SIX))[0].startswith("WARNING: ")


def test_bytes_are_no_reflectance_unless_their_scale_is_told(tmp_path):
    x = (spectrum("vegetation") * 250).clip(1, 254).astype("uint8")
    assert look(tmp_path, x).impossible
    assert not look(tmp_path, x, scale=0.004).impossible


def test_other_quantities_and_scenes_without_data_are_not_judged(tmp_path):
    x = np.full((2, 40, 40), -12.5, np.float32)
    assert doubt(open_scene(write(tmp_path / "s1.tif", x, names=("VV", "VH")), ["VV", "VH"])).told == ""
    empty = np.full((6, 40, 40), -9999, np.int16)
    assert doubt(open_scene(write(tmp_path / "e.tif", empty, names=SIX, nodata=-9999), SIX)).pixels == 0


def test_a_swath_in_the_corner_of_a_large_scene_is_found(tmp_path):
    x = np.zeros((6, 1200, 1200), np.float32)
    x[:, 850:950, 850:950] = spectrum("vegetation", (100, 100))
    assert doubt(open_scene(write(tmp_path / "a.tif", x, names=SIX, nodata=0), SIX)).impossible


def test_bands_by_wavelength_are_judged_as_those_by_name(tmp_path):
    middles = [f"{m} nm" for m in (490, 560, 665, 865, 1610, 2190)]
    path = write(tmp_path / "a.tif", ((spectrum("vegetation") + 0.2) / 2.75e-5).astype("uint16"), names=middles)
    assert doubt(open_scene(path, SIX)).impossible
    assert doubt(
        open_scene(write(tmp_path / "b.tif", np.full((6, 40, 40), 7000, "int16"), names=middles), SIX)
    ).impossible


def test_each_date_is_judged(tmp_path):
    x = spectrum("vegetation")
    first = write(tmp_path / "a_20210601.tif", (x * 1e4).astype("int16"), names=SIX)
    second = write(tmp_path / "b_20210701.tif", x.astype("float32"), names=SIX)
    found = doubt(open_scene([first, second], SIX))
    assert found.impossible and found.told.startswith("b_20210701: no pixel reflects more")


@pytest.mark.parametrize(("share", "impossible"), [(0.4, True), (0.04, True), (0.004, False)])
def test_values_far_below_zero_are_no_data_that_nothing_declares(tmp_path, share, impossible):
    x = (spectrum("vegetation", (100, 100)) * 1e4).round().astype("float32")
    x[:, : round(100 * share) or 1, : 100 if share > 0.01 else 40] = -10000
    found = look(tmp_path, x)
    assert found.impossible == impossible and "--nodata" in found.told
    assert not look(tmp_path, x, nodata=-10000).told


def test_a_strip_of_data_is_found_wherever_it_lies(tmp_path):
    x = np.full((6, 900, 900), -9999, np.float32)
    x[:, 700:703, :] = spectrum("vegetation", (3, 900))
    found = doubt(open_scene(write(tmp_path / "a.tif", x, names=SIX, nodata=-9999), SIX))
    assert found.impossible and found.pixels > 1000
    x[:, 700:703, 7:] = -9999  # 21 pixels
    assert doubt(open_scene(write(tmp_path / "b.tif", x, names=SIX, nodata=-9999), SIX)).impossible


@needs_data
@pytest.mark.parametrize("pattern", ["hls_worldcover/*_hls.tif", "s2_seasons/*.tif", "terramind/S2L2A/*.tif"])
def test_no_real_file_is_refused(pattern):
    twelve = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    files = sorted(DATA.glob(pattern))[:25]
    assert files
    for path in files:
        assert not doubt(open_scene(path, SIX, file_bands=None if "hls" in pattern else twelve)).impossible, path
