"""Scenes of every layout, made small with known numbers, and read back by name."""

import datetime
import json
import multiprocessing
import pickle
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from models.errors import InputError, RunError
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import open_scene, open_told

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real data is not here (../shared/data)")
SIX = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
S30 = dict(zip(SIX, ("B02", "B03", "B04", "B8A", "B11", "B12"), strict=True))
L30 = dict(zip(SIX, ("B02", "B03", "B04", "B05", "B06", "B07"), strict=True))
AFFINE = Affine(10, 0, 500000, 0, -10, 5000000)


def write(path, values, *, affine=AFFINE, crs="EPSG:32633", names=(), driver="GTiff", **profile):
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    tags, scales = profile.pop("tags", {}), profile.pop("scales", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        count, height, width = values.shape
        out = rasterio.open(path, "w", driver, width, height, count, crs, affine, values.dtype, **profile)
    with out:
        out.write(values)
        out.update_tags(**tags)
        if scales:
            out.scales, out.offsets = ([number] * count for number in scales)
        for index, name in enumerate(names, 1):
            out.set_band_description(index, name)
    return path


def whole(scene):
    return slice(0, scene.shape[0]), slice(0, scene.shape[1])


def flat(number, dtype=np.int16, size=(12, 16)):
    return np.full(size, number, dtype)


def per_band(scene, t=0):
    """The one value of each channel of a scene of constant bands."""
    x, valid = scene.read(whole(scene))
    values = x[:, t][:, valid]
    assert values.shape[1] and np.ptp(values, axis=1).max() < 1e-3
    return values[:, 0].tolist()


def hls_folder(folder, sensor="S30", day="2024128", numbers=range(100, 700, 100), **profile):
    codes = S30 if sensor == "S30" else L30
    for (_, code), number in zip(codes.items(), numbers, strict=True):
        name = f"HLS.{sensor}.T33TVN.{day}T100000.v2.0.{code}.tif"
        write(folder / name, flat(number), nodata=-9999, **profile)
    return folder


def safe_folder(folder, *, offset="-1000", baseline="04.00", add=0):
    folder.mkdir(parents=True)
    xml = f"<x><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
    xml += f'<BOA_ADD_OFFSET band_id="0">{offset}</BOA_ADD_OFFSET></x>' if offset else "</x>"
    (folder / "MTD_MSIL2A.xml").write_text(xml)
    image = folder / "GRANULE" / "L2A_T33TVN_A1" / "IMG_DATA"
    stem = "T33TVN_20220705T100000"
    jp2 = partial(write, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    for code, number in (("B02", 1500), ("B03", 1600), ("B04", 1700), ("B08", 1800)):
        jp2(image / "R10m" / f"{stem}_{code}_10m.jp2", flat(number + add, np.uint16, (24, 32)))
    coarse = Affine(20, 0, 500000, 0, -20, 5000000)
    for code, number in (("B02", 9000), ("B8A", 1900), ("B11", 2000), ("B12", 2100)):
        jp2(image / "R20m" / f"{stem}_{code}_20m.jp2", flat(number + add, np.uint16), affine=coarse)
    scl = flat(4, np.uint8)
    scl[2:4, 3:6] = 9
    jp2(image / "R20m" / f"{stem}_SCL_20m.jp2", scl, affine=coarse)
    return folder


# --- layouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [SIX, SIX[::-1], ("SWIR_1", "BLUE")])
def test_bands_come_by_name_in_the_order_asked(tmp_path, order):
    names = ("SWIR2", "B02 - Blue", "nir", "Green", "Swir 1", "red")
    write(tmp_path / "a.tif", np.stack([flat(n) for n in (6, 1, 4, 2, 5, 3)]), names=names)
    scene = open_scene(tmp_path / "a.tif", order)
    assert per_band(scene) == [SIX.index(band) + 1 for band in order]
    assert scene.bands == order and scene.frames == 1 and scene.shape == (12, 16)
    assert any("called NIR is taken as NIR_NARROW" in note for note in scene.notes) == ("NIR_NARROW" in order)


@pytest.mark.parametrize(("sensor", "day"), [("S30", datetime.date(2024, 5, 7)), ("L30", datetime.date(2024, 5, 7))])
def test_a_folder_of_hls(tmp_path, sensor, day):
    scene = open_scene(hls_folder(tmp_path / "hls", sensor), SIX)
    assert per_band(scene) == [100, 200, 300, 400, 500, 600]
    assert scene.dates == (day,) and scene.name == "hls"
    np.testing.assert_array_equal(scene.time(), [[2024, 127]])


def test_a_folder_of_hls_whose_header_declares_the_scale(tmp_path):
    assert per_band(open_scene(hls_folder(tmp_path / "hls", scales=(0.0001, 0.0)), SIX)) == [
        100,
        200,
        300,
        400,
        500,
        600,
    ]


@pytest.mark.parametrize(
    ("offset", "baseline", "less"), [("-1000", "04.00", 1000), ("", "05.10", 1000), ("", "02.14", 0)]
)
def test_a_safe_folder_takes_the_finest_file_of_each_band_and_the_offset(tmp_path, offset, baseline, less):
    scene = open_scene(safe_folder(tmp_path / "x.SAFE", offset=offset, baseline=baseline), SIX)
    assert scene.shape == (24, 32) and scene.geobox.affine.a == 10
    wanted = [1500 - less, 1600 - less, 1700 - less, 1900 - less, 2000 - less, 2100 - less]
    np.testing.assert_allclose(per_band(scene), wanted, atol=0.01)
    assert scene.dates == (datetime.date(2022, 7, 5),) and scene.name == "x"


def test_broad_and_narrow_infrared_are_never_swapped(tmp_path):
    scene = open_scene(safe_folder(tmp_path / "x.SAFE"), ("NIR_BROAD", "NIR_NARROW"))
    np.testing.assert_allclose(per_band(scene), [800, 900], atol=0.01)


def test_sentinel2_of_unknown_baseline_is_refused_and_told_by_the_caller(tmp_path):
    name = "T33TVN_20220705T100000_B02_10m.tif"
    write(tmp_path / "s" / name, flat(1500, np.uint16))
    with pytest.raises(InputError, match=r"unknown processing baseline.*MTD_MSIL2A.xml"):
        open_scene(tmp_path / "s" / name, ["BLUE"])
    assert per_band(open_scene(tmp_path / "s" / name, ["BLUE"], scale=0.0001, offset=-0.1)) == [500]
    product = tmp_path / "S2A_MSIL2A_20220705T100000_N0400_R098_T33TVN_20220705T120000"
    write(product / name, flat(1500, np.uint16))
    assert per_band(open_scene(product, ["BLUE"])) == [500]


def test_a_landsat_folder(tmp_path):
    codes = ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7")
    for code, number in zip(codes, range(10000, 16000, 1000), strict=True):
        raw = flat(number, np.uint16)
        raw[0, 0] = 0
        write(tmp_path / "l" / f"LC09_L2SP_190030_20220705_20220708_02_T1_{code}.TIF", raw)
    scene = open_scene(tmp_path / "l", SIX)
    wanted = [(0.0000275 * n - 0.2) * 10000 for n in range(10000, 16000, 1000)]
    np.testing.assert_allclose(per_band(scene), wanted, atol=1e-2)
    x, valid = scene.read(whole(scene))
    assert not valid[0, 0] and np.all(x[:, :, 0, 0] == 0) and valid.sum() == valid.size - 1


def test_a_folder_of_files_called_by_band(tmp_path):
    for word, number in (("red", 1), ("nir08", 2), ("blue", 3)):
        write(tmp_path / "2021-07-05" / f"site_{word}.tif", flat(number))
    scene = open_scene(tmp_path / "2021-07-05", ["BLUE", "NIR_NARROW", "RED"])
    assert per_band(scene) == [3, 2, 1] and scene.dates == (datetime.date(2021, 7, 5),)


def stac_item(folder, *, assets, properties=None, name="item.json"):
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "S2_item", "geometry": None, "links": []}
    item |= {"properties": {"datetime": "2022-07-05T10:00:00Z", **(properties or {})}, "assets": assets}
    (folder / name).write_text(json.dumps(item))
    return folder / name


def s2_assets(folder):
    assets = {
        "visual": {"href": "./tci.tif", "type": "image/tiff", "eo:bands": [{"common_name": "red"}], "roles": ["visual"]}
    }
    assets["meta"] = {"href": "./meta.xml", "type": "application/xml"}
    keys = (("blue", "B02"), ("nir", "B08"), ("nir08", "B8A"), ("rededge1", "B05"))
    for number, (key, code) in enumerate(keys, 1):
        write(folder / "img" / f"{code}.tif", flat(1000 + number, np.uint16))
        about = {"href": f"./img/{code}.tif", "type": "image/tiff; application=geotiff"}
        assets[key] = about | {"eo:bands": [{"name": key, "common_name": key}]}
    return assets


@pytest.mark.parametrize(
    ("properties", "bands", "less"),
    [
        ({"platform": "sentinel-2a", "s2:processing_baseline": "04.00"}, None, 1000),
        ({"platform": "sentinel-2a", "s2:processing_baseline": "02.14"}, None, 0),
        ({"platform": "sentinel-2a", "earthsearch:boa_offset_applied": True}, (0.0001, -0.1), 0),
        ({"platform": "sentinel-2a", "earthsearch:boa_offset_applied": False}, (0.0001, -0.1), 1000),
        ({}, (0.0001, -0.05), 500),
    ],
)
def test_a_stac_item(tmp_path, properties, bands, less):
    assets = s2_assets(tmp_path)
    if bands:
        for asset in assets.values():
            asset["raster:bands"] = [{"scale": bands[0], "offset": bands[1], "nodata": 0}]
    scene = open_scene(stac_item(tmp_path, assets=assets, properties=properties), ["NIR_NARROW", "NIR_BROAD", "BLUE"])
    np.testing.assert_allclose(per_band(scene), [1003 - less, 1002 - less, 1001 - less], atol=0.01)
    assert scene.name == "S2_item" and scene.dates == (datetime.date(2022, 7, 5),)
    assert bool(scene.notes) == (properties.get("earthsearch:boa_offset_applied") is False)


def test_a_stac_item_by_http(tmp_path):
    item = stac_item(tmp_path, assets=s2_assets(tmp_path), properties={"s2:processing_baseline": "05.00"})

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{item.name}"
        with open_scene(address, ["BLUE"], scale=0.0001) as scene:
            assert per_band(scene) == [1001]
            assert scene.sources == (address,)
        server.shutdown()


@pytest.mark.parametrize(
    "href",
    [
        *("/vsicurl/http://x/a.tif", "<VRTDataset/>", "file:///etc/a.tif", "PG:dbname=x", "", "/./vsizip/a.zip/b.tif"),
        *(
            "//vsizip/a.zip/b.tif",
            "///vsizip/a",
            "/.//vsicurl/http://x/a.tif",
            "/x/../vsizip/a",
            "%2Fvsizip/a.zip/b.tif",
        ),
        *(
            "/%2E/vsizip/a",
            "/vsicurl?header.X=y&url=http://x",
            "vrt://a.tif",
            "zip://a.zip!b.tif",
            "http:/a.tif",
            "http:///a",
        ),
    ],
)
def test_stac_addresses_that_are_not_opened(tmp_path, href):
    item = stac_item(tmp_path, assets={"blue": {"href": href, "type": "image/tiff"}})
    with pytest.raises(InputError, match="not opened; wanted"):
        open_scene(item, ["BLUE"])


def test_a_vrt_behind_a_stac_item_is_refused_though_it_is_called_tif(tmp_path):
    write(tmp_path / "real.tif", flat(1))
    vrt = '<VRTDataset rasterXSize="16" rasterYSize="12"><VRTRasterBand dataType="Int16" band="1"><SimpleSource>'
    vrt += f"<SourceFilename>{tmp_path / 'real.tif'}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    (tmp_path / "fake.tif").write_text(vrt)
    item = stac_item(tmp_path, assets={"blue": {"href": "fake.tif", "type": "image/tiff"}})
    with pytest.raises(InputError, match="a STAC asset has to be a GeoTIFF or JPEG 2000"):
        open_scene(item, ["BLUE"])


@pytest.mark.parametrize("text", ["{}", "not json", '{"type": "Collection"}', '{"type": "Feature"}', "[1]"])
def test_json_that_is_no_item(tmp_path, text):
    (tmp_path / "i.json").write_text(text)
    with pytest.raises(InputError, match=r"i\.json: not a"):
        open_scene(tmp_path / "i.json", ["BLUE"])


# --- frames -------------------------------------------------------------------------------------------------------


def test_dated_sources_become_frames_in_the_order_of_dates(tmp_path):
    sources = [
        hls_folder(tmp_path / f"d{n}", day=day, numbers=range(n, n + 6))
        for n, day in ((50, "2024200"), (10, "2024100"))
    ]
    scene = open_scene(sources, SIX)
    assert scene.frames == 2 and scene.read(whole(scene))[0].shape == (6, 2, 12, 16)
    assert per_band(scene, 0) == [10, 11, 12, 13, 14, 15] and per_band(scene, 1) == [50, 51, 52, 53, 54, 55]
    np.testing.assert_array_equal(scene.time(), [[2024, 99], [2024, 199]])


def test_undated_sources_stay_in_the_order_given(tmp_path):
    for name, number in (("z", 1), ("a", 2)):
        write(tmp_path / f"{name}.tif", flat(number), names=["blue"])
    scene = open_scene([tmp_path / "z.tif", tmp_path / "a.tif"], ["BLUE"])
    assert per_band(scene, 0) == [1] and per_band(scene, 1) == [2]
    with pytest.raises(InputError, match=r"z\.tif: the model wants dates"):
        scene.time()


def test_a_stack_of_frames_in_one_file(tmp_path):
    write(tmp_path / "a.tif", np.stack([flat(n) for n in (11, 12, 21, 22, 31, 32)]))
    scene = open_scene(
        tmp_path / "a.tif",
        ["RED", "BLUE"],
        file_bands=["BLUE", "RED"],
        dates=["2020-03-01", "2020-01-01", "2020-02-01"],
    )
    assert [per_band(scene, t) for t in range(3)] == [[22, 21], [32, 31], [12, 11]]
    names = ["blue", "red"] * 3
    described = write(tmp_path / "b.tif", np.stack([flat(n) for n in (11, 12, 21, 22, 31, 32)]), names=names)
    assert open_scene(described, ["RED"]).frames == 3
    with pytest.raises(InputError, match=r"has 6 bands, 2 names and 2 dates"):
        open_scene(tmp_path / "a.tif", ["RED"], file_bands=["BLUE", "RED"], dates=["2020-01-01", "2020-01-02"])
    with pytest.raises(InputError, match=r"2 dates given, its bands make 3 frames"):
        open_scene(described, ["RED"], dates=["2020-01-01", "2020-01-02"])


def test_frames_of_other_grids_come_onto_the_first(tmp_path):
    ramp = np.arange(60, dtype=np.float32)[None] * np.ones((60, 1), np.float32)
    write(tmp_path / "20200101.tif", ramp, names=["red"])
    # The same ground in 20 m pixels: each holds the mean of the four below it.
    coarse = ramp.reshape(30, 2, 30, 2).mean(axis=(1, 3))
    write(tmp_path / "20200201.tif", coarse, names=["red"], affine=Affine(20, 0, 500000, 0, -20, 5000000))
    write(tmp_path / "20200301.tif", ramp[5:, 7:], names=["red"], affine=Affine(10, 0, 500070, 0, -10, 4999950))
    scene = open_scene(sorted(tmp_path.glob("*.tif")), ["RED"])
    x, valid = scene.read(whole(scene))
    assert valid[5:, 7:].all() and not valid[:5].any() and not valid[:, :7].any()
    np.testing.assert_array_equal(x[0, 2][valid], x[0, 0][valid])
    np.testing.assert_allclose(x[0, 1, 10:50, 10:50], ramp[10:50, 10:50], atol=1e-3)


def test_frames_of_other_ground_are_refused(tmp_path):
    write(tmp_path / "a.tif", flat(1), names=["red"])
    write(tmp_path / "b.tif", flat(1), names=["red"], affine=Affine(10, 0, 700000, 0, -10, 5000000))
    with pytest.raises(InputError, match=r"b\.tif: lies on other ground than .*a\.tif"):
        open_scene([tmp_path / "a.tif", tmp_path / "b.tif"], ["RED"])


# --- units and valid pixels ---------------------------------------------------------------------------------------


def test_units_by_argument_then_header_then_none(tmp_path):
    write(tmp_path / "a.tif", flat(0.25, np.float32), names=["red"])
    write(tmp_path / "b.tif", flat(2000), names=["red"], scales=(0.0002, 0.01))
    assert per_band(open_scene(tmp_path / "a.tif", ["RED"])) == [0.25]
    assert "--scale 1" in open_scene(tmp_path / "a.tif", ["RED"]).notes[0]
    assert per_band(open_scene(tmp_path / "a.tif", ["RED"], scale=1)) == [2500]
    np.testing.assert_allclose(per_band(open_scene(tmp_path / "b.tif", ["RED"])), [4100], rtol=1e-6)
    np.testing.assert_allclose(per_band(open_scene(tmp_path / "b.tif", ["RED"], scale=0.0001)), [2000], rtol=1e-6)
    with pytest.raises(InputError, match=r"offset -0\.1 given without scale"):
        open_scene(tmp_path / "a.tif", ["RED"], offset=-0.1)


@pytest.mark.parametrize("kind", ["nodata", "nan", "inf", "mask", "alpha", "sidecar"])
def test_pixels_without_data_are_invalid_and_zero(tmp_path, kind):
    values = np.full((2, 12, 16), 500, np.float32)
    names, profile = ["red", "blue"], {}
    mask = flat(255, np.uint8)
    mask[3, 5] = 0
    if kind == "alpha":
        values = np.concatenate([values, values[:1], mask[None] * 257.0]).astype(
            np.uint16
        )  # GDAL knows alpha of 8 and 16 bits
        names, profile = ["red", "blue", "green"], {"photometric": "RGB", "ALPHA": "YES"}
    elif kind in ("nodata", "nan", "inf"):
        values[1, 3, 5] = {"nodata": -9999, "nan": np.nan, "inf": -np.inf}[kind]
        profile = {"nodata": -9999} if kind == "nodata" else {}
    path = write(tmp_path / "a.tif", values, names=names, **profile)
    if kind in ("mask", "sidecar"):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "mask"), rasterio.open(path, "r+") as out:
            out.write_mask(mask)
    x, valid = open_scene(path, ["BLUE", "RED"]).read((slice(0, 12), slice(0, 16)))
    assert np.argwhere(~valid).tolist() == [[3, 5]]
    assert np.all(x[:, :, 3, 5] == 0) and np.all(x[:, :, valid] == 500)


def test_four_8bit_bands_are_four_bands_where_something_names_them(tmp_path):
    values = np.stack([flat(n, np.uint8) for n in (10, 20, 30, 0)])
    wanted = ["BLUE", "GREEN", "RED", "NIR_BROAD"]
    plain = write(tmp_path / "a.tif", values, photometric="RGB", ALPHA="YES")
    with rasterio.open(plain) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    assert per_band(open_scene(plain, wanted, file_bands=["blue", "green", "red", "nir"])) == [10, 20, 30, 0]
    named = write(tmp_path / "b.tif", values, photometric="RGB", ALPHA="YES", names=["blue", "green", "red", "nir"])
    assert per_band(open_scene(named, wanted)) == [10, 20, 30, 0]


def test_clouds_make_pixels_invalid(tmp_path):
    folder = hls_folder(tmp_path / "hls")
    fmask = flat(0b0100_0000, np.uint8)  # aerosol bits only: clear
    for col, bit in enumerate((0, 1, 2, 3, 4, 5)):  # cirrus, cloud, adjacent, shadow, snow, water
        fmask[0, col] |= 1 << bit
    fmask[1, 0] = 255
    write(folder / "HLS.S30.T33TVN.2024128T100000.v2.0.Fmask.tif", fmask, nodata=255)
    x, valid = open_scene(folder, SIX, mask_clouds=True).read((slice(0, 12), slice(0, 16)))
    assert np.argwhere(~valid).tolist() == [[0, 0], [0, 1], [0, 3], [1, 0]]
    assert np.all(x[:, :, ~valid] == 0)
    assert open_scene(folder, SIX).read((slice(0, 12), slice(0, 16)))[1].all()


def test_clouds_of_every_date_hide_pixels(tmp_path):
    for at, day in enumerate(("2024128", "2024133", "2024138")):
        folder = hls_folder(tmp_path / day, day=day)
        fmask = flat(0, np.uint8)
        fmask[at, 2 * at] = 2
        write(folder / f"HLS.S30.T33TVN.{day}T100000.v2.0.Fmask.tif", fmask, nodata=255)
    scene = open_scene(sorted(tmp_path.iterdir()), SIX, mask_clouds=True)
    x, valid = scene.read(whole(scene))
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 2], [2, 4]]
    assert not x[:, :, ~valid].any() and x[:, :, valid].all()


def test_a_coarser_scene_classification_hides_whole_blocks(tmp_path):
    scene = open_scene(safe_folder(tmp_path / "x.SAFE"), ["BLUE"], mask_clouds=True)
    _, valid = scene.read(whole(scene))
    wanted = np.ones((24, 32), bool)
    wanted[4:8, 6:12] = False
    np.testing.assert_array_equal(valid, wanted)


def test_landsat_quality_bits(tmp_path):
    stem = "LC08_L2SP_190030_20220705_20220708_02_T1"
    write(tmp_path / "l" / f"{stem}_SR_B2.TIF", flat(10000, np.uint16))
    quality = flat(1 << 6, np.uint16)  # clear
    for col in range(6):
        quality[0, col] = 1 << col  # fill, dilated, cirrus, cloud, shadow, snow
    write(tmp_path / "l" / f"{stem}_QA_PIXEL.TIF", quality)
    _, valid = open_scene(tmp_path / "l", ["BLUE"], mask_clouds=True).read((slice(0, 12), slice(0, 16)))
    assert np.argwhere(~valid).tolist() == [[0, 0], [0, 2], [0, 3], [0, 4]]


def test_clouds_beside_a_file_or_nowhere(tmp_path):
    write(tmp_path / "x_hls.tif", flat(5), names=["blue"])
    with pytest.raises(InputError, match=r"x_hls\.tif: clouds are to be masked and no Fmask"):
        open_scene(tmp_path / "x_hls.tif", ["BLUE"], mask_clouds=True)
    fmask = flat(0, np.uint8)
    fmask[7, 7] = 2
    write(tmp_path / "x_fmask.tif", fmask)
    scene = open_scene(tmp_path / "x_hls.tif", ["BLUE"], mask_clouds=True)
    assert np.argwhere(~scene.read(whole(scene))[1]).tolist() == [[7, 7]]


# --- the window property, sharing, place and date -----------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """10 m and 20 m bands in a folder, random values with holes."""
    folder, rng = tmp_path_factory.mktemp("mixed") / "HLS.S30.T33TVN.2024128T100000.v2.0", np.random.default_rng(3)
    for code, step in (("B02", 10), ("B11", 20)):
        size = (480 // step, 640 // step)
        values = rng.integers(0, 5000, size).astype(np.int16)
        values[rng.random(size) < 0.02] = -9999
        write(folder / f"{folder.name}.{code}.tif", values, affine=Affine(step, 0, 500000, 0, -step, 5000000))
    return open_scene(folder, ["SWIR_1", "BLUE"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_reading_a_window_is_cropping_the_whole(mixed, data):
    window = tuple(
        slice(*sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True))))
        for size in mixed.shape
    )
    x, valid = mixed.read(whole(mixed))
    part, part_valid = mixed.read(window)
    np.testing.assert_array_equal(part_valid, valid[window])
    np.testing.assert_array_equal(part, x[:, :, *window])


@pytest.mark.parametrize(
    "window", [(slice(0, 49), slice(0, 4)), (slice(3, 3), slice(0, 4)), (slice(-1, 3), slice(0, 4))]
)
def test_windows_beyond_the_scene_are_refused(mixed, window):
    with pytest.raises(ValueError, match="empty or reaches beyond"):
        mixed.read(window)


def _mean(scene):
    return float(scene.read(whole(scene))[0].mean())


def test_a_scene_crosses_processes(mixed):
    wanted = _mean(mixed)
    assert pickle.loads(pickle.dumps(mixed)) == mixed
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_mean, (mixed,)) == wanted
    mixed.close()
    assert _mean(mixed) == wanted


def test_opening_reads_no_pixels(tmp_path, monkeypatch):
    folder = hls_folder(tmp_path / "hls")
    monkeypatch.setattr("pipelines.grids.align.read_onto", None)
    assert open_scene(folder, SIX).shape == (12, 16)


def test_location_is_the_centre_of_the_window(tmp_path):
    affine = Affine(0.01, 0, 10, 0, -0.01, 50)
    scene = open_scene(write(tmp_path / "a.tif", flat(1), names=["red"], affine=affine, crs="EPSG:4326"), ["RED"])
    got = scene.location((slice(0, 10), slice(4, 8)))
    np.testing.assert_allclose(got, [49.95, 10.06], atol=1e-5)
    assert got.dtype == np.float32 and scene.geobox.crs.epsg == 4326


def test_location_on_a_grid_that_is_turned(tmp_path):
    affine = Affine(0.01, 0.002, 10, 0.003, -0.01, 50)
    scene = open_scene(write(tmp_path / "a.tif", flat(1), names=["red"], affine=affine, crs="EPSG:4326"), ["RED"])
    # By hand: column 6, row 5; 50 + 0.018 - 0.05 and 10 + 0.06 + 0.01.
    np.testing.assert_allclose(scene.location((slice(0, 10), slice(4, 8))), [49.968, 10.07], atol=1e-5)


def test_the_files_of_a_scene(tmp_path):
    folder = hls_folder(tmp_path / "hls")
    write(folder / "HLS.S30.T33TVN.2024128T100000.v2.0.Fmask.tif", flat(0, np.uint8))
    bands = {path.resolve() for path in folder.iterdir() if "Fmask" not in path.name}
    assert open_scene(folder, SIX).files == bands
    assert open_scene(folder, SIX, mask_clouds=True).files == {path.resolve() for path in folder.iterdir()}
    item = stac_item(tmp_path, assets=s2_assets(tmp_path), properties={"s2:processing_baseline": "04.00"})
    scene = open_scene(item, ["BLUE"])
    assert scene.files == {item.resolve(), (tmp_path / "img" / "B02.tif").resolve()}
    assert scene.window == (slice(0, 12), slice(0, 16)) == whole(scene)


def test_a_person_is_heard_before_the_training(tmp_path):
    folder = hls_folder(tmp_path / "hls", numbers=[100] * 6)
    fmask = flat(0, np.uint8)
    fmask[4, 4] = 2
    write(folder / "HLS.S30.T33TVN.2024128T100000.v2.0.Fmask.tif", fmask)

    def told(reading=None, like=None, times=1):
        return open_told([str(folder)], SIX, reading or Reading(), times=times, like=like)

    for reading, like, masked, fill in (
        (None, None, False, True),
        (None, {}, False, True),
        (None, {"mask_clouds": True, "find_fill": False}, True, False),
        (Reading(mask_clouds=False, find_fill=True), {"mask_clouds": True, "find_fill": False}, False, True),
        (Reading(mask_clouds=True, find_fill=False), None, True, False),
    ):
        scene = told(reading, like)
        assert (bool(scene.stack[0].clouds), scene.find_fill) == (masked, fill)
        assert np.argwhere(~scene.read(whole(scene))[1]).tolist() == ([[4, 4]] if masked else [])


def test_times_are_shared_out_to_the_files(tmp_path):
    four = np.stack([flat(i) for i in (1, 2, 3, 4)])
    paths = [str(write(tmp_path / f"{name}.tif", four)) for name in "ab"]
    scene = open_told(paths, ["RED"], Reading(bands=["BLUE", "RED"]), times=4, like=None)
    assert scene.frames == 4 and [per_band(scene, t) for t in range(4)] == [[2], [4], [2], [4]]
    one = open_told(paths, ["RED"], Reading(bands=["W", "BLUE", "X", "RED"]), times=1, like=None)
    assert one.frames == 2 and per_band(one) == [4]


def test_fill_of_each_of_several_dates_is_told_with_its_name(tmp_path):
    paths = []
    for at, name in enumerate("ab"):
        values = np.stack([flat(500), flat(600)])
        values[:, :, : 4 * (at + 1)] = 0
        paths.append(write(tmp_path / f"{name}.tif", values, names=["blue", "red"]))
    scene = open_scene(paths, ["BLUE", "RED"])
    assert [remark.split(" of the pixels")[0] for remark in scene.remarks[-2:]] == ["a: 25.00%", "b: 50.00%"]
    assert np.array_equal(~scene.read(whole(scene))[1], np.arange(16) < 8 * np.ones((12, 1)))
    assert scene.remarks[:-2] == scene.notes


def test_floats_are_noted_where_nothing_tells_their_scale(tmp_path):
    values = flat(0.15, np.float32)
    told = write(tmp_path / "told.tif", values, names=["red"], scales=(1.0, 0.0))
    bare = write(tmp_path / "bare.tif", 10000 * values, names=["red"])
    noted = {
        "bare": open_scene(bare, ["RED"]).notes,
        "given": open_scene(bare, ["RED"], scale=0.0001).notes,
        "whole": open_scene(write(tmp_path / "whole.tif", flat(1500), names=["red"]), ["RED"]).notes,
    }
    assert {name: any("floating point without scale" in note for note in notes) for name, notes in noted.items()} == {
        "bare": True,
        "given": False,
        "whole": False,
    }
    assert per_band(open_scene(told, ["RED"], scale=1)) == pytest.approx([1500])


def test_a_closed_scene_holds_no_file_open(tmp_path):
    from pipelines.grids import rasters

    folder = hls_folder(tmp_path / "hls")
    write(folder / "HLS.S30.T33TVN.2024128T100000.v2.0.Fmask.tif", flat(0, np.uint8))
    with open_scene(folder, SIX, mask_clouds=True) as scene:
        scene.read(whole(scene))
        sources = [rasters.dataset(layer.path) for layer in scene.stack[0].every]
        assert len(sources) == 7 and not any(source.closed for source in sources)
    assert all(source.closed for source in sources)


def test_a_picture_without_place_is_read_and_says_so(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", flat(1), names=["red"], affine=None, crs=None), ["RED"])
    assert scene.geobox.crs is None and "no coordinate system" in scene.notes[0]
    assert per_band(scene) == [1]
    with pytest.raises(InputError, match="no coordinate system"):
        scene.location(whole(scene))


@pytest.mark.parametrize(
    ("name", "tags", "day"),
    [
        ("a_20190102.tif", {"SENSING_TIME": "2020-03-04T10:00:00.5Z; 2020-03-04T10:01:00Z"}, (2020, 3, 4)),
        ("a.tif", {"ACQUISITION_DATE": "2020-03-04"}, (2020, 3, 4)),
        ("a_20190102.tif", {"TIFFTAG_DATETIME": "2023:01:01 00:00:00"}, (2019, 1, 2)),
        ("a.tif", {}, None),
    ],
)
def test_date_from_tags_then_name(tmp_path, name, tags, day):
    path = write(tmp_path / name, flat(1), names=["red"], tags=tags)
    assert open_scene(path, ["RED"]).dates == (datetime.date(*day) if day else None,)
    assert open_scene(path, ["RED"], dates=["2001-02-03"]).dates == (datetime.date(2001, 2, 3),)


# --- refusals -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_opened(tmp_path):
    plain = write(tmp_path / "plain.tif", np.stack([flat(1), flat(2)]))
    ambiguous = write(tmp_path / "codes.tif", np.stack([flat(1), flat(2)]), names=["B04", "B05"])
    twice = write(tmp_path / "twice.tif", np.stack([flat(1), flat(2), flat(3)]), names=["red", "red", "blue"])
    two = tmp_path / "two"
    hls_folder(two / "a"), hls_folder(two / "b", day="2024129")
    (tmp_path / "empty").mkdir()
    cases = [
        (plain, ["RED"], {}, r"plain\.tif: nothing names its 2 bands .*--bands"),
        (plain, ["RED"], {"file_bands": ["RED"]}, r"plain\.tif: has 2 bands, 1 names"),
        (plain, ["RED"], {"file_bands": ["BLUE", "GREEN"]}, r"band RED is wanted.*, it has BLUE, GREEN"),
        (plain, ["NIR_NARROW"], {"file_bands": ["NIR_NAROW", "RED"]}, r"did you mean NIR_NAROW\?"),
        (plain, ["B05"], {}, r"band B05: codes differ between sensors; ask by name"),
        (plain, ["RED", "red"], {}, r"band RED is wanted twice"),
        (plain, [], {}, r"no bands wanted"),
        (plain, ["RED"], {"file_bands": ["RED", "BLUE"], "dates": ["05/07/2020"]}, r"wanted YYYY-MM-DD"),
        (plain, ["RED"], {"file_bands": ["RED", "BLUE"], "dates": []}, r"0 dates for 1 sources"),
        (ambiguous, ["RED"], {}, r"codes\.tif: nothing names its 2 bands"),
        (twice, ["RED"], {}, r"twice\.tif: band RED comes 2 times"),
        (two, SIX, {}, r"two: holds 2 scenes \(HLS.S30.T33TVN.2024128.*pass one folder per scene"),
        (tmp_path / "empty", SIX, {}, r"empty: 0 rasters, none named as a band"),
        (tmp_path / "gone", SIX, {}, r"gone: no such file"),
        ([], SIX, {}, r"no scene given"),
    ]
    for source, bands, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            open_scene(source, bands, **options)
        assert "\n" not in str(caught.value)


def test_a_file_cut_short_names_file_and_window(tmp_path):
    values = np.random.default_rng(0).integers(0, 9999, (256, 256), np.int16)
    path = write(tmp_path / "cut.tif", values, names=["red"])
    path.write_bytes(path.read_bytes()[:90000])
    try:
        scene = open_scene(path, ["RED"])
    except InputError as error:
        assert "cut.tif" in str(error)
        return
    with pytest.raises(RunError, match=r"cut\.tif: rows 200-256"):
        scene.read((slice(200, 256), slice(0, 256)))


# --- real files ---------------------------------------------------------------------------------------------------


def raw(path, indexes=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return source.read(indexes)


@needs_data
def test_real_hls_chip_with_its_fmask():
    path = DATA / "hls_worldcover" / "chip_000_hls.tif"
    scene = open_scene(path, SIX, mask_clouds=True)
    x, valid = scene.read(whole(scene))
    np.testing.assert_array_equal(valid, raw(DATA / "hls_worldcover" / "chip_000_fmask.tif", 1) & 0b1011 == 0)
    np.testing.assert_allclose(x[:, 0, valid], raw(path)[:, valid], atol=0.01)


@needs_data
@pytest.mark.parametrize(
    ("path", "names", "dates"),
    [
        ("s2_scene/inference-img.tif", ("BLUE", "GREEN", "RED", "NIR"), ("2020-01-01", "2020-06-01")),
        ("rasters/L7_ETMs.tif", ("BLUE", "GREEN", "RED", "NIR", "SWIR_1", "SWIR_2"), None),
        ("hls_regression/regression_test_0_input.tif", (*(f"X{n}" for n in range(8)), "RED", "NIR"), None),
        ("s2_seasons/ssl4eos12_val_0121563_0.tif", (*(f"X{n}" for n in range(10)), "RED", "NIR"), None),
    ],
)
def test_real_files_that_name_nothing_are_read_by_given_names(path, names, dates):
    with pytest.raises(InputError, match="nothing names its"):
        open_scene(DATA / path, ["NIR_NARROW"])
    scene = open_scene(DATA / path, ["NIR_NARROW", "RED"], file_bands=names, dates=dates)
    x, valid = scene.read(whole(scene))
    at = [names.index("NIR") + 1, names.index("RED") + 1]
    for t in range(scene.frames):
        wanted = raw(DATA / path, [index + t * len(names) for index in at])
        np.testing.assert_array_equal(x[:, t, valid], wanted[:, valid].astype(np.float32))
    assert valid.mean() > 0.5


@needs_data
def test_real_sentinel1_nan_is_invalid():
    path = DATA / "sen1floods11" / "S1" / "Spain_7370579_S1Hand.tif"
    scene = open_scene(path, ["VV", "VH"])
    x, valid = scene.read(whole(scene))
    wanted = raw(path)
    np.testing.assert_array_equal(valid, np.isfinite(wanted).all(axis=0))
    np.testing.assert_array_equal(x[:, 0, valid], wanted[:, valid])
