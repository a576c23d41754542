"""Band names and file names, against the product guides' own tables and examples."""

import datetime
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.scenes import sensors


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("Blue", "BLUE"),
        ("blue", "BLUE"),
        ("NIR narrow", "NIR_NARROW"),
        ("NIR_NARROW", "NIR_NARROW"),
        ("nir08", "NIR_NARROW"),
        ("nir", sensors.NIR),
        ("SWIR 1", "SWIR_1"),
        ("SWIR1", "SWIR_1"),
        ("swir16", "SWIR_1"),
        ("swir22", "SWIR_2"),
        ("rededge3", "RED_EDGE_3"),
        ("coastal", "COASTAL_AEROSOL"),
        ("B02 - Blue", "BLUE"),
        ("Band 4 (Red)", "RED"),
        ("Blue (490 nm)", "BLUE"),
        ("865 nm (NIR narrow)", "NIR_NARROW"),
        ("VV", "VV"),
        ("B02", None),
        ("B8A", None),
        ("ndvi", None),
        ("", None),
    ],
)
def test_plain_names(text, band):
    assert sensors.band_name(text) == band


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("B2", "B02"),
        ("b02", "B02"),
        ("Band 8A", "B8A"),
        ("B08A", "B8A"),
        ("SR_B5", "B05"),
        ("B11", "B11"),
        ("B1_1", "B01"),
        ("B1_2", "B01"),
        ("B12_3", "B12"),
        ("0_B2", "B02"),
        ("11_B8A", "B8A"),
        ("20210705T101031_20210705T101030_T33TVN_B4", "B04"),
        ("LC08_044034_20210705_SR_B4", "B04"),
        ("sr_band4", "B04"),
        ("B123", None),
        ("blue", None),
    ],
)
def test_codes(text, code):
    assert sensors.band_code(text) == code


def test_every_canonical_name_means_itself():
    assert [sensors.band_name(band) for band in sensors.BANDS] == list(sensors.BANDS)


@given(st.text(alphabet=string.printable, max_size=30))
def test_any_text_is_named_or_not_but_never_fails(text):
    assert sensors.band_name(text) in (None, sensors.NIR, *sensors.BANDS)
    assert sensors.tidy(sensors.tidy(text)) == sensors.tidy(text)


def test_a_code_means_another_band_to_each_sensor():
    assert sensors.name_bands(["B05"], "L30") == ("NIR_NARROW",)
    assert sensors.name_bands(["B05"], "S30") == ("RED_EDGE_1",)
    assert sensors.name_bands(["SR_B5"], "TM") == ("SWIR_1",)
    assert sensors.name_bands(["B02", "B05"]) == (None, None)


def test_sentinel2_shows_by_its_own_codes():
    codes = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
    assert sensors.name_bands(codes) == sensors.BANDS[:13]
    assert sensors.name_bands(["B4", "B8A", "SCL", None, "junk"]) == ("RED", "NIR_NARROW", "SCL", None, None)


def test_earth_engine_s_names_of_landsat_show_its_sensor():
    oli = [f"SR_B{i}" for i in range(1, 8)]
    assert sensors.name_bands(oli) == tuple(sensors.LANDSAT_OLI.values())
    assert sensors.name_bands([f"{t}_SR_B{i}" for t in (0, 1) for i in (5, 6)]) == ("NIR_NARROW", "SWIR_1") * 2
    assert sensors.name_bands(["SR_B1", "SR_B3", "SR_B7", "ST_B6"]) == ("BLUE", "RED", "SWIR_2", None)
    assert sensors.name_bands(["SR_B1", "SR_B3", "SR_B7", "ST_B10"]) == (None,) * 4  # not TM's: bands shift by one
    assert sensors.name_bands(["SR_B1", "SR_B3", "SR_B7"]) == (None,) * 3
    assert sensors.name_bands(["SR_B5", "SR_B6", "x", None]) == ("NIR_NARROW", "SWIR_1", None, None)
    assert sensors.name_bands(["SR_B5", "B6"]) == (None, None)
    assert sensors.name_bands(["SR_B2", "SR_B3", "SR_B4"]) == (None,) * 3  # either
    assert sensors.name_bands(["B1", "B6", "B7"]) == (None,) * 3
    assert sensors.name_bands(["B1_1", "B1_2"]) == (None, None)  # band 1 of two months, not bands 11 and 12


def test_a_band_called_nir_becomes_the_wanted_one_only_where_it_is_alone():
    assert sensors.resolve_nir(["RED", "NIR"], ["NIR_NARROW"]) == ("RED", "NIR_NARROW")
    assert sensors.resolve_nir(["RED", "NIR"], ["NIR_BROAD"]) == ("RED", "NIR_BROAD")
    assert sensors.resolve_nir(["NIR", "NIR_NARROW"], ["NIR_BROAD"]) == ("NIR", "NIR_NARROW")
    assert sensors.resolve_nir(["NIR"], ["NIR_BROAD", "NIR_NARROW"]) == ("NIR",)


@pytest.mark.parametrize(
    ("keys", "scale", "offset", "nodata", "clouds"),
    [
        (("S30", "L30"), 0.0001, 0, -9999, "FMASK"),  # HLS
        (("S2",), 0.0001, 0, 0, "SCL"),  # its offset goes by the baseline
        (("OLI", "TM"), 0.0000275, -0.2, 0, "QA_PIXEL"),  # Collection 2 Level 2
        (("OLI_C1", "TM_C1"), 0.0001, 0, -9999, ""),  # Collection 1
        (("OLI_L1", "TM_L1"), None, 0, 0, "QA_PIXEL"),  # by the MTL of each product
    ],
)
def test_units_and_fill_are_those_of_the_guides(keys, scale, offset, nodata, clouds):
    for key in keys:
        sensor = sensors.SENSORS[key]
        assert (sensor.scale, sensor.offset, sensor.nodata, sensor.clouds) == (scale, offset, nodata, clouds)


def test_what_hides_the_ground():
    fmask, scl, quality = (sensors.CLOUDS[key] for key in ("FMASK", "SCL", "QA_PIXEL"))
    assert [bit for bit in range(9) if fmask.bits >> bit & 1] == [0, 1, 3]  # cirrus, cloud, shadow
    assert [bit for bit in range(9) if quality.bits >> bit & 1] == [0, 2, 3, 4]  # fill, cirrus, cloud, shadow
    assert (fmask.adjacent, quality.adjacent, scl.bits, scl.adjacent) == (
        1 << 2,
        1 << 1,
        0,
        0,
    )  # beside clouds, dilated
    assert sensors.CLOUDS["CLM"].bits == 255 and sensors.cloud_code("clm") == "CLM"
    assert scl.classes == (0, 1, 3, 8, 9, 10) and fmask.classes == quality.classes == ()


def test_wavelengths_are_sentinel_2s():
    """Nominal centres of the bands of its instrument."""
    told = {"B01": 443, "B02": 490, "B03": 560, "B04": 665, "B05": 705, "B06": 740, "B07": 783, "B08": 842}
    told |= {"B8A": 865, "B09": 945, "B10": 1375, "B11": 1610, "B12": 2190}
    assert {sensors.SENTINEL2[code]: middle for code, middle in told.items()} == sensors.WAVELENGTHS


def test_level_1_counts_by_the_sun_of_30_degrees():
    assert sensors.level1_units(2e-5, -0.1, 30) == pytest.approx((4e-5, -0.2))


@pytest.mark.parametrize(
    ("name", "sensor", "date", "band", "metres"),
    [
        ("HLS.S30.T13RCN.2024128T173909.v2.0.B8A.tif", "S30", (2024, 5, 7), "NIR_NARROW", None),
        ("HLS.L30.T10TGS.2018285T183000.v2.0.B05.tif", "L30", (2018, 10, 12), "NIR_NARROW", None),
        ("HLS.S30.T13RCN.2024128T173909.v2.0.Fmask.tif", "S30", (2024, 5, 7), "FMASK", None),
        ("subsetted_512x512_HLS.S30.T10TGS.2018285.v1.4_merged.tif", "S30", (2018, 10, 12), None, None),
        ("T36QWD_20200701T074619_B8A_20m.jp2", "S2", (2020, 7, 1), "NIR_NARROW", 20),
        ("T36QWD_20200701T074619_SCL_20m.jp2", "S2", (2020, 7, 1), "SCL", 20),
        ("T36QWD_20200701T074619_TCI_10m.jp2", None, None, None, None),
        ("S2A_MSIL2A_20200101T100000_N0400_R098_T13RCN_20200101T120000.SAFE", "S2", (2020, 1, 1), None, None),
        ("S2B_36QWD_20200701_0_L2A", "S2", (2020, 7, 1), None, None),
        ("LC08_L2SP_042034_20200101_20200108_02_T1_SR_B5.TIF", "OLI", (2020, 1, 1), "NIR_NARROW", None),
        ("LE07_L2SP_042034_20200101_20200108_02_T1_SR_B5.TIF", "TM", (2020, 1, 1), "SWIR_1", None),
        ("LT05_L2SP_042034_20100101_20200108_02_T1_QA_PIXEL.TIF", "TM", (2010, 1, 1), "QA_PIXEL", None),
        ("LC08_L1TP_042034_20200101_20200108_02_T1_B5.TIF", "OLI_L1", (2020, 1, 1), "NIR_NARROW", None),
        ("LE07_L1TP_042034_20200101_20200108_01_T1_B5.TIF", "TM_L1", (2020, 1, 1), "SWIR_1", None),
        ("LC08_L1TP_042034_20200101_20200108_01_T1_sr_band5.tif", "OLI_C1", (2020, 1, 1), "NIR_NARROW", None),
        ("scene.tif", None, None, None, None),
    ],
)
def test_file_names(name, sensor, date, band, metres):
    found = sensors.parse_name(name)
    if sensor is None:
        assert found is None
        return
    assert (found.sensor, found.date, found.band, found.metres) == (sensor, datetime.date(*date), band, metres)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("scene_2021-07-05.tif", "2021-07-05"),
        ("scene_20210705.tif", "2021-07-05"),
        ("x_20210705T101010_y", "2021-07-05"),
        ("HLS.2021186.tif", "2021-07-05"),
        ("2021-07-05T10:00:00Z", "2021-07-05"),
        ("LC08_042034_20200101_20210108", "2020-01-01"),
        ("a_20211399_b", None),
        ("a_20211399_20210705", "2021-07-05"),
        ("19550101_20210705", "2021-07-05"),
        ("Spain_7370579", None),
        ("ssl4eos12_val_0121563_0", None),
        ("chip_1234567890", None),
    ],
)
def test_dates_in_text(text, day):
    found = sensors.find_date(text)
    assert (found.isoformat() if found else None) == day


@given(st.dates(datetime.date(1972, 1, 1), datetime.date(2099, 12, 31)))
def test_every_day_is_found_in_all_three_spellings(day):
    for spelling in ("%Y-%m-%d", "%Y%m%d", "%Y%j"):
        assert sensors.find_date(f"T10_{day.strftime(spelling)}_x.tif") == day


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("03.01", 0), ("04.00", -0.1), ("05.10", -0.1), ("0509", -0.1), ("2.09", 0), ("02.14", 0), (None, 0), ("", 0)],
)
def test_offset_of_the_processing_baseline(baseline, offset):
    assert sensors.sentinel2_offset(baseline) == offset


def test_baseline_in_the_product_name():
    assert sensors.product_baseline("S2A_MSIL2A_20220201T100000_N0400_R098_T13RCN_20220201T120000") == "04.00"
    assert sensors.product_baseline("S2B_36QWD_20200701_0_L2A") is None


def test_a_near_miss_is_suggested():
    assert sensors.suggest("NIR_NAROW", sensors.BANDS) == " (did you mean NIR_NARROW?)"
    assert sensors.suggest("XYZ", sensors.BANDS) == ""


def test_names_are_tidied():
    told = {"swir16": "SWIR_1", "NIR narrow": "NIR_NARROW", " my-index 2 ": "MY_INDEX_2"}
    assert {name: sensors.tidy(name) for name in told} == told


def test_the_product_in_a_file_name():
    landsat = "LC08_L2SP_042034_20200101_20200108_02_T1"
    assert sensors.parse_name(f"{landsat}_SR_B5.TIF").product == landsat
    assert sensors.parse_name("T36QWD_20200701T074619_B8A_20m.jp2").product == "T36QWD_20200701T074619"
