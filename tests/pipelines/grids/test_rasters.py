"""What a raster from a stranger may read: itself, and what lies beside it for it."""

import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio

from models.errors import InputError
from pipelines.grids import rasters
from pipelines.grids.rasters import dataset, trusting
from tests.runs import write

SECRET = 77


@pytest.fixture
def asked(monkeypatch):
    """A server that has nothing and writes down what it is asked for: its address, and the list."""
    paths = []
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "2")  # it may hold the interpreter that is to answer

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


@pytest.fixture
def secret(tmp_path):
    """A raster that somebody else's files have no business to read."""
    return write(tmp_path / "elsewhere" / "secret.tif", np.full((1, 8, 8), SECRET, np.uint8))


def vrt(source, *, size=8, kind="SimpleSource", root="", band="", more="", relative=0):
    inner = f'<{kind}><SourceFilename relativeToVRT="{relative}">{escape(str(source))}</SourceFilename>'
    inner += f"<SourceBand>1</SourceBand></{kind}>"
    return (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="8" {root}>{more}'
        f'<VRTRasterBand dataType="Byte" band="1" {band}>{inner}</VRTRasterBand></VRTDataset>'
    )


def everything(path):
    """All that is done with a file: its pixels, small and large, its mask, and the files that it names."""
    source = dataset(str(path))
    pixels = source.read(1)
    small = source.read(1, out_shape=(2, 2))
    return np.concatenate([pixels.ravel(), small.ravel(), source.read_masks(1).ravel()]), source.files


# ---------------------------------------------------------------- what a file is, its content says


@pytest.mark.parametrize("name", ["a.tif", "a.jp2", "a.img", "a.png", "a", "a.nc"])
def test_a_virtual_raster_under_another_name_is_refused(tmp_path, secret, name):
    (tmp_path / name).write_text(vrt(secret))
    for trust in (False, True):
        with trusting(trust), pytest.raises(InputError, match=rf"{name}: is a virtual raster, .*under another name"):
            dataset(str(tmp_path / name))


def test_files_are_what_their_content_says(tmp_path):
    path = write(tmp_path / "a.tif", np.full((1, 8, 8), 5, np.uint8))
    shutil.copy(path, tmp_path / "a.dat")
    assert everything(tmp_path / "a.dat")[0][0] == 5
    with pytest.raises(InputError, match=r"a\.vrt: not a virtual raster"):
        dataset(str(shutil.copy(path, tmp_path / "a.vrt")))


# ---------------------------------------------------------------- what lies beside a file


@pytest.mark.parametrize("suffix", [".ovr", ".OVR", ".msk", ".MSK", ".msk.ovr", ".ovr.msk"])
def test_what_lies_beside_a_file_is_a_geotiff(tmp_path, secret, asked, suffix):
    path = write(tmp_path / "a.tif", np.full((1, 8, 8), 5, np.uint8))
    if suffix.count(".") == 2:
        shutil.copy(path, str(path) + suffix[:4])
    for source in (secret, f"/vsicurl/{asked[0]}/x.tif"):
        (tmp_path / f"a.tif{suffix}").write_text(vrt(source, size=4))
        with pytest.raises(InputError, match=rf"a\.tif{suffix}: is a virtual raster.*lies beside a.tif"):
            everything(path)
    assert asked[1] == []


def test_overviews_and_masks_beside_a_file_are_used(tmp_path):
    path = write(tmp_path / "a.tif", np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as source:
        source.build_overviews([2], rasterio.enums.Resampling.nearest)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as source:
        source.write_mask(np.eye(8, dtype=np.uint8) * 255)
    assert {f.name for f in tmp_path.iterdir()} == {"a.tif", "a.tif.ovr", "a.tif.msk"}
    source = dataset(str(path))
    assert source.overviews(1) == [2]
    np.testing.assert_array_equal(source.read_masks(1) > 0, np.eye(8, dtype=bool))


@pytest.mark.parametrize("inside", [False, True])
def test_overviews_elsewhere_are_refused(tmp_path, secret, asked, inside):
    path = write(tmp_path / "a.tif", np.full((1, 8, 8), 5, np.uint8))
    for other in (str(secret), f"/vsicurl/{asked[0]}/x.tif", f"{asked[0]}/x.tif"):
        if inside:
            with rasterio.open(path, "r+") as source:
                source.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=other)
        else:
            said = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{other}</MDI></Metadata>'
            (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{said}</PAMDataset>")
        with pytest.raises(InputError, match="says that its overviews are"):
            everything(path)
        rasters.forget(str(path))
    assert asked[1] == []


def test_statistics_beside_a_file_do_no_harm(tmp_path):
    path = write(tmp_path / "a.tif", np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
    band = (
        '<PAMRasterBand band="1"><Description>RED</Description><Metadata><MDI key="STATISTICS_MEAN">3</MDI></Metadata>'
    )
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMRasterBand></PAMDataset>")
    assert dataset(str(path)).descriptions == ("RED",)
    assert everything(path)[0][:64].tolist() == list(range(64))


# ---------------------------------------------------------------- virtual rasters that are called so


@pytest.mark.parametrize("relative", [0, 1])
def test_a_virtual_raster_reads_rasters_of_this_machine(tmp_path, secret, relative):
    text = vrt("../elsewhere/secret.tif" if relative else secret, relative=relative)
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.vrt").write_text(text)
    (tmp_path / "v" / "b.vrt").write_text(vrt("a.vrt", relative=1))
    for name in ("a.vrt", "b.vrt"):
        assert everything(tmp_path / "v" / name)[0][0] == SECRET


def test_what_gdalbuildvrt_and_gdal_translate_write_is_plain(tmp_path):
    bands = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    path = write(tmp_path / "a.tif", bands, names=("RED", "NIR", "X"), nodata=255, tags=tags)
    with rasterio.open(path, "r+") as source:
        source.scales, source.units = (0.1, 0.1, 0.1), ("m", "m", "m")
    rasterio.shutil.copy(path, tmp_path / "a.vrt", driver="VRT")
    np.testing.assert_array_equal(dataset(str(tmp_path / "a.vrt")).read(), bands)


ODD = {
    "address": lambda s, a: vrt(f"{a}/x.tif"),
    "vsicurl": lambda s, a: vrt(f"/vsicurl/{a}/x.tif"),
    "options": lambda s, a: vrt(f"/vsicurl?url={a}/x.tif"),
    "slashes": lambda s, a: vrt(f"//vsicurl/{a}/x.tif"),
    "dots": lambda s, a: vrt(f"/./vsizip/{s}"),
    "up": lambda s, a: vrt(f"{'../' * 30}vsizip/{s}", relative=1),
    "zip": lambda s, a: vrt(f"/vsizip/{s}"),
    "inline": lambda s, a: vrt(vrt(s)),
    "prefix": lambda s, a: vrt(f"vrt://{s}"),
    "netcdf": lambda s, a: vrt(f"NETCDF:{s}:x"),
    "formula": lambda s, a: vrt(s, band='subClass="VRTDerivedRasterBand"'),
    "warped": lambda s, a: vrt(s, root='subClass="VRTWarpedDataset"'),
    "raw": lambda s, a: vrt(s, band='subClass="VRTRawRasterBand"'),
    "python": lambda s, a: vrt(s, more="<PixelFunctionCode>1</PixelFunctionCode>"),
    "kernel": lambda s, a: vrt(s, kind="KernelFilteredSource"),
    "array": lambda s, a: vrt(s, kind="ArraySource"),
    "overview": lambda s, a: vrt(s, more=f"<Overview><SourceFilename>{a}/x.tif</SourceFilename></Overview>"),
    "options_of_opening": lambda s, a: vrt(s, more="<OpenOptions><OOI key='x'>1</OOI></OpenOptions>"),
    "groups": lambda s, a: vrt(s, more="<Group name='/'/>"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_else_a_virtual_raster_asks_for_is_to_be_trusted(tmp_path, secret, asked, case):
    address, paths = asked
    (tmp_path / "a.vrt").write_text(ODD[case](secret, address))
    with pytest.raises(InputError, match=r"a\.vrt: (asks for|reads) .*which only --trust allows") as refused:
        everything(tmp_path / "a.vrt")
    assert paths == [] and "\n" not in str(refused.value)


def test_a_person_may_trust(tmp_path, secret, asked):
    (tmp_path / "a.vrt").write_text(vrt(f"/vsicurl/{asked[0]}/x.tif"))
    with trusting(True), pytest.raises((InputError, rasterio.errors.RasterioIOError)):
        dataset(str(tmp_path / "a.vrt")).read(1)
    assert asked[1]
    (tmp_path / "b.vrt").write_text(vrt(secret, kind="KernelFilteredSource", more=""))
    with trusting(True):
        dataset(str(tmp_path / "b.vrt"))
    with pytest.raises(InputError, match="KernelFilteredSource"):  # what was trusted is not kept open for the next
        dataset(str(tmp_path / "b.vrt"))


def test_files_of_a_virtual_raster_are_looked_at_too(tmp_path, secret):
    (tmp_path / "fake.tif").write_text(vrt(secret))
    (tmp_path / "a.vrt").write_text(vrt(tmp_path / "fake.tif"))
    with pytest.raises(InputError, match=r"fake\.tif: is a virtual raster"):
        dataset(str(tmp_path / "a.vrt"))
    (tmp_path / "a.vrt").write_text(vrt("a.vrt", relative=1))
    with pytest.raises(InputError, match="read each other"):
        dataset(str(tmp_path / "a.vrt"))
    (tmp_path / "a.vrt").write_text(vrt("none.tif", relative=1))
    with pytest.raises(InputError, match=r"a\.vrt: reads .*none\.tif, and there is no such file"):
        dataset(str(tmp_path / "a.vrt"))
    (tmp_path / "a.vrt").write_text(vrt(secret))
    shutil.copy(tmp_path / "fake.tif", str(secret) + ".ovr")
    with pytest.raises(InputError, match=r"secret\.tif\.ovr: is a virtual raster"):
        dataset(str(tmp_path / "a.vrt"))


def test_a_virtual_raster_behind_an_address_is_to_be_trusted(asked):
    with pytest.raises(InputError, match="behind an address reads others"):
        dataset(f"{asked[0]}/a.vrt")
    assert asked[1] == []


def test_a_bomb_of_entities_is_no_virtual_raster(tmp_path):
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "x" * 100}">' for i in range(12))
    (tmp_path / "a.vrt").write_text(f"<!DOCTYPE x [{entities}]><VRTDataset>&a11;</VRTDataset>")
    begun = time.monotonic()
    with pytest.raises(InputError, match="not a virtual raster"):
        dataset(str(tmp_path / "a.vrt"))
    assert time.monotonic() - begun < 30


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("columns", [2**31 - 1, 2**24 + 1])
def test_columns_that_no_strip_would_hold_are_refused_at_once(tmp_path, secret, columns):
    (tmp_path / "a.vrt").write_text(vrt(secret, size=columns))
    with pytest.raises(InputError, match=rf"a\.vrt: {columns} columns, at most"):
        dataset(str(tmp_path / "a.vrt"))


@pytest.mark.parametrize("name", ["caf\udce9.tif", "a\udc80"])
def test_names_that_are_not_utf_8_are_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="the name is not UTF-8"):
        dataset(str(tmp_path / name))


def test_text_of_bands_that_is_not_utf_8_is_told(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint8), names=("MARK",))
    path.write_bytes(path.read_bytes().replace(b"MARK", b"caf\xe9"))
    with pytest.raises(InputError, match=r"a\.tif: the description or unit of a band is not UTF-8"):
        dataset(str(path))


def test_a_name_that_is_too_long_is_a_mistake_of_the_person(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        dataset(str(tmp_path / ("a" * 300 + ".tif")))
