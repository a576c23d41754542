"""The page in headless Chromium, served by a plain static server: maps as `score` makes them, and what it refuses."""

from __future__ import annotations

import re
import struct
import time
import zlib

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from pipelines.edge.site import write_site
from tests.browser import needs_browser, tab
from tests.pipelines.edge.scenes_to_map import cropped, make_scene, read, scored, served, tempered
from tests.runs import BANDS, make_chip, write

pytestmark = needs_browser


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    scene = make_scene(folder / "scene.tif")
    write_site(tempered(run, folder / "run"), folder / "site", scene=str(scene))
    return folder, scene


@pytest.fixture(scope="module")
def page(made):
    """A tab with the page open, and the log of all that the browser asked of the network."""
    folder, _ = made
    with served(folder / "site") as address, tab(folder, f"--log-net-log={folder / 'net.json'}") as opened:
        opened.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        opened.open(address)
        opened.wait("document.body?.dataset.ready === 'yes'")
        yield opened
        log = (folder / "net.json").read_text(errors="replace")  # of workers, too; the browser's own have no initiator
        asked = set(re.findall(r'"initiator":"http.*?"url":"([^"]+)"', log))
        assert {f"{address}{name}" for name in ("site.json", "model.onnx", "ort.wasm")} <= asked
        assert {url for url in asked if not url.startswith((address, "blob:"))} == set()


def give(page, path):
    """Choose a file; what the page says: its error, or nothing."""
    page.run("document.querySelector('#error').hidden = document.querySelector('#result').hidden = true")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)
    page.wait("!document.querySelector('#result').hidden || !document.querySelector('#error').hidden", 60)
    return page.run("document.querySelector('#error').hidden ? '' : document.querySelector('#error').textContent")


def saved(page, folder, stem, kind):
    """A map as it is downloaded."""
    page.run(f"document.querySelector('#save-{kind}').click()")
    path = folder / f"{stem}_{kind}.tif"
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, page.said
        time.sleep(0.02)
    return path


def say(page, **values):
    """Fill in how the file is read."""
    for name, value in values.items():
        page.run(f"document.querySelector('[name={name}]').value = {value!r}")


def test_the_maps_are_those_of_score(page, made, tmp_path):
    folder, scene = made
    assert give(page, scene) == ""
    wanted = scored(folder / "run", scene, tmp_path / "score")
    with rasterio.open(saved(page, folder, "scene", "map")) as file, rasterio.open(scene) as source:
        labels = file.read(1)
        assert (file.crs, file.transform, file.nodata) == (source.crs, source.transform, 0)
        assert file.colormap(1)[30][:3] == (0xFF, 0xFF, 0x4C) and file.colormap(1)[0][3] == 0
        assert file.tags()["EARTHTUNE_INPUT"] == "scene.tif" and file.descriptions == ("class",)
    assert (labels == wanted["map"]).mean() >= 0.999 and len(np.unique(labels)) == 4
    for kind in ("confidence", "unfamiliar"):
        found = read(saved(page, folder, "scene", kind))
        assert np.array_equal(np.isnan(found), np.isnan(wanted[kind]))
        assert np.nanmax(np.abs(found - wanted[kind])) < 1e-4
    rows = page.run("[...document.querySelectorAll('#legend tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert [row[0] for row in rows] == ["tree", "grass", "water"]
    for row, code in zip(rows, (10, 30, 80), strict=True):
        assert abs(float(row[1].replace(",", "")) - (labels == code).sum() * 0.09) <= 0.5  # pixels of 30 m
    assert page.said == []


def test_a_scene_smaller_than_a_tile_is_mirrored(page, made, tmp_path):
    scene = cropped(made[1], tmp_path / "small.tif", 21)
    assert give(page, scene) == ""
    wanted = scored(made[0] / "run", scene, tmp_path / "score")["confidence"]
    assert np.nanmax(np.abs(read(saved(page, made[0], "small", "confidence")) - wanted)) < 1e-4


def test_the_sample_is_mapped_and_each_map_is_shown(page, made):
    page.run("document.querySelector('#result').hidden = true; document.querySelector('#sample').click()")
    page.wait("!document.querySelector('#result').hidden", 60)
    assert page.run("document.querySelector('#name').textContent") == "sample.tif"
    seen = set()
    for kind in ("map", "confidence", "unfamiliar", "scene"):
        page.run(f"document.querySelector('[value={kind}]').click()")
        seen.add(page.run("document.querySelector('canvas').toDataURL()"))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "change, why",
    [
        ({"names": (*BANDS[:5], "CIRRUS")}, "band SWIR_2 is wanted, it has BLUE"),
        ({"names": None}, "nothing names its 6 bands"),
        ({"tags": {}}, "nothing tells its day"),
        ({"crs": "EPSG:2154"}, "write latitude and longitude"),
        ({"counts": 100}, "its values are no reflectance x10000"),
        ({"counts": 0, "nodata": 0}, "no pixel of it holds data"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(page, tmp_path, change, why):
    given = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2021-06-15"}, "nodata": -9999} | change
    chip = (make_chip(1)[0] * given.pop("counts", 1)).astype(np.int32)
    told = give(page, write(tmp_path / "wrong.tif", chip, **given))
    assert told.startswith("wrong.tif: ") and why in told and "\n" not in told
    assert page.run("document.querySelector('#result').hidden && document.querySelector('#work').hidden")


def test_what_is_no_geotiff_is_told(page, tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 52)) + chunk(b"IEND", b"")
    (tmp_path / "photo.tif").write_bytes(png)
    assert "photo.tif: it is no GeoTIFF" in give(page, tmp_path / "photo.tif")
    whole = make_scene(tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    assert give(page, tmp_path / "cut.tif").startswith("cut.tif: ")


def test_too_many_pixels_are_refused_before_they_are_read(page, tmp_path):
    large, size = tmp_path / "large.tif", {"width": 5000, "height": 4000, "count": 6, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": from_origin(500000, 5000000, 30, 30)}
    with rasterio.open(large, "w", driver="GTiff", sparse_ok=True, **size, **place):
        pass
    assert "it has 5000 x 4000 pixels, this page takes 16 million" in give(page, large)


def test_what_a_person_says_counts(page, tmp_path):
    bands = make_chip(1)[0].astype(np.int32) * 10
    path = write(tmp_path / "bare.tif", bands, crs="EPSG:2154")
    said = {"bands": ",".join(BANDS), "scale": "0.00001", "date": "2021-06-15", "latitude": "45", "longitude": "9"}
    try:
        say(page, **said)
        assert give(page, path) == ""
        say(page, scale="many")
        assert give(page, path).startswith("scale: wanted a number")
    finally:
        say(page, **dict.fromkeys(said, ""))


def test_work_can_be_stopped(page, made):
    page.run("document.querySelector('#result').hidden = true; document.querySelector('#sample').click()")
    page.wait("!document.querySelector('#work').hidden")
    page.run("document.querySelector('#stop').click()")
    time.sleep(0.3)
    assert page.run("document.querySelector('#work').hidden && document.querySelector('#result').hidden")


def test_without_network_it_works_on(made, tmp_path):
    with tab(tmp_path) as other:
        with served(made[0] / "site") as address:
            other.open(address)
            other.wait("document.querySelector('#offline')?.textContent.includes('network off')", 60)
        other.run("document.body.dataset.ready = 'left'; location.reload()")  # a page that goes is asked, too
        other.wait("document.body?.dataset.ready === 'yes'")
        other.run("document.querySelector('#sample').click()")
        other.wait("!document.querySelector('#result').hidden || !document.querySelector('#error').hidden", 60)
        assert other.run("document.querySelector('#summary').textContent").startswith("109 x 75 pixels")


def test_the_page_fits_a_narrow_window(page, made):
    assert give(page, made[1]) == ""
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
    try:
        page.run("document.querySelector('details').open = true")
        assert page.run("document.documentElement.scrollWidth") <= 360
        wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 360.5).length"
        assert page.run(wide) == 0
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")
