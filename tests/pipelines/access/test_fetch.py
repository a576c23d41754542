"""Scenes of a place from a catalogue on the loopback interface: right, once, whole, and in spite of faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from pyproj import Transformer

from models.errors import InputError, RunError
from pipelines.access import catalogues, web
from pipelines.access.catalogues import Catalogue
from pipelines.access.request import Request
from pipelines.cli.main import main
from pipelines.commands.fetch import fetch
from pipelines.records.attempts import PAGE
from pipelines.scenes.find import find_scenes
from pipelines.scenes.scene import open_scene
from tests.catalogue_server import cog, publish_s2, serving_catalogue

ROOT = Path(__file__).resolve().parents[3]
PLACE = "9.0032,45.1340,9.0130,45.1400"  # within the scene's north-western kilometre and a half
BANDS = ("BLUE", "NIR_NARROW")


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "EARTHDATA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(web, "FIRST_WAIT", 0.0)
    with serving_catalogue() as one:
        yield one


def get(server, out, *, say=lambda line: None, **options):
    asked = {"place": PLACE, "dates": "2022-07", "product": "s2", "bands": BANDS, "catalogue": f"{server.url}/stac"}
    return fetch(asked=Request(out=out, **asked | options), say=say)


def tree(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*.*"))
        if ".earthtune" not in p.parts and p.name != PAGE
    }


def pixels(content, west, north, size, shape):
    """What lies in a COG under a window told in metres."""
    with rasterio.MemoryFile(content) as memory, memory.open() as source:
        row, column = round((5000000 - north) / size), round((west - 500000) / size)
        return source.read(1)[row : row + shape[0], column : column + shape[1]]


def test_the_window_alone_with_its_units_clouds_and_terms(server, tmp_path, validator):
    publish_s2(server, 1, clouded=0.5, **{"eo:cloud_cover": 50, "processing:version": "04.00"})
    name = server.items[0]["id"]
    result = get(server, tmp_path / "out")
    assert [one["status"] for one in result["scenes"]] == ["done"]
    for band, key, size in (("BLUE", "blue", 10), ("NIR_NARROW", "nir08", 20), ("SCL", "scl", 20)):
        with rasterio.open(tmp_path / "out" / name / f"{band}.tif") as made:
            values, (west, north) = made.read(1), made.transform * (0, 0)
            assert made.scales + made.offsets == ((1.0, 0.0) if band == "SCL" else (0.0001, -0.1))
            assert (west % 20, north % 20, made.bounds.right % 20, made.bounds.bottom % 20) == (0, 0, 0, 0)
            # The box is about 772 m wide and 668 m high.
            assert 740 < made.bounds.right - west < 820 and 640 < north - made.bounds.bottom < 720
        np.testing.assert_array_equal(
            values, pixels(server.files[f"/{name}/{key}.tif"], west, north, size, values.shape)
        )
    item = pystac.Item.from_file(str(tmp_path / "out" / name / f"{name}.json"))
    assert len(item.validate(validator=validator)) == 1 + len(item.stac_extensions) == 6
    assert item.properties["attribution"] == "Contains modified Copernicus Sentinel data 2022"
    assert [link.href for link in item.get_links("license")] == [catalogues.PRODUCTS["s2"].terms]
    (folder,) = find_scenes([str(tmp_path / "out")])
    with open_scene(folder, BANDS, mask_clouds=True) as scene:
        x, valid = scene.read(scene.window)
        assert scene.name == name and str(scene.dates[0]) == "2022-07-01" and valid.all()
        with rasterio.open(tmp_path / "out" / name / "BLUE.tif") as made:
            np.testing.assert_allclose(x[0, 0], made.read(1) - 1000.0, atol=0.01)


def test_what_it_cost_lies_beside_what_came(server, tmp_path):
    for day in (1, 2):
        publish_s2(server, day)
    get(server, tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    get(server, tmp_path / "out")
    (record,) = json.loads((tmp_path / "out" / PAGE).read_text())["records"]
    assert record["command"] == "fetch" and record["made"]["samples"] == 2 and record["phases"]["read"]["cpu"] > 0
    before = (tmp_path / "out" / PAGE).read_bytes()
    get(server, tmp_path / "out")  # what is kept costs too little to count
    assert (tmp_path / "out" / PAGE).read_bytes() == before


def test_no_more_bytes_than_the_blocks_of_the_window(server, tmp_path):
    publish_s2(server, 1, metres=10240, block=256)
    name = server.items[0]["id"]
    result = get(server, tmp_path / "out")
    blocks = 0
    for key, side in (("blue", 1024), ("nir08", 512), ("scl", 512)):
        with rasterio.MemoryFile(server.files[f"/{name}/{key}.tif"]) as memory, memory.open() as source:
            assert source.shape == (side, side)  # the window lies in the first block of each
            blocks += int(source.get_tag_item("BLOCK_SIZE_0_0", "TIFF", bidx=1))
    assert result["megabytes"] == pytest.approx(blocks / 1e6)
    rest = 16384 * 3  # the header of each file
    assert blocks <= sum(server.served.values()) <= blocks + rest
    assert len(server.served) == 3


def test_with_faults_the_same_files(server, tmp_path):
    for day in (1, 2, 3):
        publish_s2(server, day)
    get(server, tmp_path / "plain")
    plain = sum(server.served.values())
    server.forget()
    server.faults = {"busy", "cut", "twice", "circle"}
    result = get(server, tmp_path / "faulty")
    assert [one["status"] for one in result["scenes"]] == ["done"] * 3
    assert tree(tmp_path / "plain") == tree(tmp_path / "faulty") and len(tree(tmp_path / "plain")) == 12
    assert plain < sum(server.served.values()) < 3 * plain


def test_an_api_that_is_asked_by_post(server, tmp_path):
    for day in (1, 2, 3):
        publish_s2(server, day)
    server.faults = {"post"}
    assert [one["date"][-1] for one in get(server, tmp_path, dry_run=True)["scenes"]] == ["1", "2", "3"]
    assert [method for method, path, _ in server.asked if path == "/stac/search"] == ["POST", "POST"]


def test_what_is_there_is_verified_and_not_fetched_again(server, tmp_path):
    publish_s2(server, 1)
    publish_s2(server, 2)
    get(server, tmp_path)
    before = tree(tmp_path)
    server.forget()
    assert {one["status"] for one in get(server, tmp_path)["scenes"]} == {"kept"}
    assert not server.served
    file = tmp_path / server.items[0]["id"] / "BLUE.tif"
    left = tmp_path / ".earthtune" / next(p.stem for p in (tmp_path / ".earthtune").glob(f"{file.parent.name}*.lock"))
    (left / "BLUE").mkdir(parents=True)  # of an attempt that was killed when all was done
    get(server, tmp_path)
    assert not left.exists()
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    lines = []
    assert [one["status"] for one in get(server, tmp_path, say=lines.append)["scenes"]] == ["done", "kept"]
    assert "not as it was written" in lines[1] and tree(tmp_path) == before
    other = get(server, tmp_path, bands=["RED"])["scenes"][0]
    assert other["status"] == "failed" and "--overwrite" in other["error"] and tree(tmp_path) == before
    assert get(server, tmp_path, bands=["RED"], overwrite=True)["scenes"][0]["status"] == "done"
    assert sorted(p.name for p in file.parent.iterdir()) == ["RED.tif", f"{file.parent.name}.json", "SCL.tif"]


KILLED = """
import sys
from pathlib import Path
from pipelines.access import bring
from pipelines.access.request import Request
from pipelines.commands.fetch import fetch
place, catalogue, out = sys.argv[1:]
real, count = bring.join, []


def join(*args):
    count.append(1)
    if len(count) == 6:
        print("here", flush=True)
        sys.stdin.read()
    return real(*args)


bring.join = join
fetch(asked=Request(place, "2022-07", "s2", Path(out), ("BLUE", "NIR_NARROW"), catalogue=catalogue))
"""


def test_after_a_kill_it_goes_on(server, tmp_path):
    for day in (1, 2):
        publish_s2(server, day)
    get(server, tmp_path / "plain")
    plain = sum(server.served.values())
    server.forget()
    words = [sys.executable, "-c", KILLED, PLACE, f"{server.url}/stac", str(tmp_path / "out")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes) as process:
        assert process.stdout.readline() == "here\n"  # rows of the second scene are there, its files are not
        process.send_signal(signal.SIGKILL)
    whole = tree(tmp_path / "out")
    assert len(whole) == 4 and all(tree(tmp_path / "plain")[name] == content for name, content in whole.items())
    result = get(server, tmp_path / "out")
    assert [one["status"] for one in result["scenes"]] == ["kept", "done"]
    assert tree(tmp_path / "plain") == tree(tmp_path / "out")
    assert sum(server.served.values()) <= plain + 3 * 16384  # headers of the second scene once more
    assert not [path for path in (tmp_path / "out" / ".earthtune").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("low", "said", "offset", "note"),
    [
        (1100, {"earthsearch:boa_offset_applied": False}, -0.1, None),
        (100, {"earthsearch:boa_offset_applied": False}, 0.0, "is off already"),
        (100, {}, 0.0, "is off already"),
        (100, {"earthsearch:boa_offset_applied": True}, 0.0, None),
        (1100, {"earthsearch:boa_offset_applied": True}, 0.0, "--offset -0.1"),
        (100, {"s2:processing_baseline": "03.01", "earthsearch:boa_offset_applied": True}, 0.0, None),
    ],
)
def test_pixels_tell_when_the_flag_of_the_offset_lies(server, tmp_path, low, said, offset, note):
    publish_s2(server, 1, low=low, **said)
    lines = []
    (scene,) = get(server, tmp_path, say=lines.append)["scenes"]
    with rasterio.open(tmp_path / scene["scene"] / "BLUE.tif") as made:
        raw = made.read(1)
    with open_scene(tmp_path / scene["scene"], BANDS) as opened:
        x, _ = opened.read(opened.window)
        np.testing.assert_allclose(x[0, 0], raw + offset * 10000, atol=0.01)
    assert len(scene["notes"]) == len(lines) - 1 == (note is not None)
    assert note is None or (
        note in lines[1] and note in json.loads(Path(scene["item"]).read_text())["properties"]["description"]
    )


def test_clouds_over_the_place_are_what_counts(server, tmp_path):
    publish_s2(server, 1, clouded=1.0, **{"eo:cloud_cover": 1})
    publish_s2(server, 2, clouded=0.0, **{"eo:cloud_cover": 99})
    result = get(server, tmp_path / "out", max_cloud=30, dry_run=True)
    assert [(one["date"], one["status"], one["clear"]) for one in result["scenes"]] == [
        ("2022-07-02", "planned", pytest.approx(1))
    ]
    assert "clouds hide 100 %" in result["left_out"][0]["why"] and result["seen_clear"] == pytest.approx(1)
    assert not (tmp_path / "out").exists()
    # The upper 256 of 1024 m are cloud; the eastern half of the place is beyond the scene.
    server.items.clear()
    publish_s2(server, 3, clouded=0.1)
    degrees = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    (west, north), (east, south) = degrees.transform(500000, 5000000), degrees.transform(505120, 4998976)
    (scene,) = get(server, tmp_path / "out", place=f"{west},{south},{east},{north}", dry_run=True)["scenes"]
    assert scene["seen"] == pytest.approx(0.5, abs=0.02) and scene["clear"] == pytest.approx(0.375, abs=0.02)


def test_addresses_whose_signature_ran_out_are_looked_up_anew(server, tmp_path):
    publish_s2(server, 1, query="?sig=SIGNATURE")
    server.faults = {"signed"}
    get(server, tmp_path / "plain")
    real = server.document

    def document(path, query):
        """A search gives signatures that run out at once."""
        server.signature = "old" if path == "/stac/search" else "new"
        return real(path, query)

    server.document = document
    server.forget()
    result = get(server, tmp_path / "late")
    assert result["scenes"][0]["status"] == "done" and tree(tmp_path / "plain") == tree(tmp_path / "late")
    assert not [path for path, content in tree(tmp_path).items() if b"sig=" in content]


def test_a_catalogue_signs_for_its_own_hosts(server, tmp_path, monkeypatch):
    publish_s2(server, 1)
    server.files["/sign/sentinel-2-l2a"] = json.dumps({"token": "sig=SIGNATURE"})
    row = Catalogue(
        f"{server.url}/stac", {"s2": ("sentinel-2-l2a",)}, f"{server.url}/sign/{{collection}}", ("127.0.0.1",)
    )
    monkeypatch.setitem(catalogues.CATALOGUES, "signing", row)
    server.faults = {"signed"}
    assert get(server, tmp_path / "out", catalogue="signing")["scenes"][0]["status"] == "done"
    assert not [path for path, content in tree(tmp_path).items() if b"sig=" in content]
    monkeypatch.setitem(
        catalogues.CATALOGUES, "signing", Catalogue(row.url, row.collections, row.signs, ("other.net",))
    )
    with pytest.raises(InputError, match="access refused"):
        get(server, tmp_path / "other", catalogue="signing")


def test_the_token_goes_to_its_own_host_alone(server, tmp_path, monkeypatch):
    publish_s2(server, 1)
    monkeypatch.setattr(web, "EARTHDATA", ("127.0.0.1",))
    monkeypatch.setenv("EARTHDATA_TOKEN", "secret-token")
    server.faults = {"elsewhere"}
    assert get(server, tmp_path / "out")["scenes"][0]["status"] == "done"
    tokens = {(head["Host"].split(":")[0], head.get("Authorization")) for _, _, head in server.asked}
    assert tokens == {("127.0.0.1", "Bearer secret-token"), ("localhost", None)}
    assert not [path for path, content in tree(tmp_path).items() if b"secret" in content]
    server.faults = {"refused"}
    with pytest.raises(InputError, match="EARTHDATA_TOKEN") as refused:
        get(server, tmp_path / "other")
    assert "secret" not in str(refused.value) and not (tmp_path / "other").exists()


def test_logins_of_other_hosts_are_not_given_away(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    publish_s2(server, 1)
    server.faults = {"elsewhere"}
    get(server, tmp_path / "out")
    assert not [head for _, _, head in server.asked if "Authorization" in head]


def hostile(server, key="blue", **changes):
    """A scene whose item is changed: `href` of an asset, or the item itself."""
    item = publish_s2(server, 1)
    if "href" in changes:
        item["assets"][key]["href"] = changes.pop("href")
    item.update(changes)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"href": "file:///etc/passwd"}, "is not opened"),
        ({"href": "/vsicurl/http://127.0.0.1/a.tif"}, "404"),
        ({"href": "ROOT/none.tif"}, "404"),
        ({"href": "ROOT/page.tif"}, "not a GeoTIFF"),
        ({"href": "ROOT/vrt.tif"}, "not a GeoTIFF"),
        ({"assets": "none"}, "not a STAC item"),
        ({"properties": {"datetime": None, "platform": "sentinel-2a"}}, "no date"),
        ({"properties": {"datetime": "2022-07-01"}, "collection": "landsat", "id": "OLI scene"}, "not what"),
        ({"properties": {"datetime": "2022-07-01", "platform": "sentinel-2a"}, "id": "x"}, "shows nothing"),
    ],
)
def test_what_cannot_be_had_is_left_out_with_the_reason(server, tmp_path, change, why):
    server.files["/page.tif"] = b"<html>" * 100
    server.files["/vrt.tif"] = b'<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>'
    hostile(server, **change)
    place = "9.09,45.0,9.1,45.01" if why == "shows nothing" else PLACE
    publish_s2(server, 2)
    result = get(server, tmp_path / "out", place=place)
    assert why in result["left_out"][0]["why"] and "\n" not in result["left_out"][0]["why"]
    assert [one["status"] for one in result["scenes"]] == (["done"] if place == PLACE else [])


@pytest.mark.parametrize("api", [True, False])
def test_an_item_whose_place_is_no_place_is_told_once(server, tmp_path, api):
    for day, box in ((1, [float("nan")] * 4), (2, [8.9, 45.0, 9.2, 45.2]), (3, [8.9, float("inf"), 9.2, 45.2])):
        publish_s2(server, day)["bbox"] = box
    server.faults = {"twice"}
    catalogue = f"{server.url}/stac"
    if not api:
        links = [{"rel": "item", "href": f"ROOT/stac/items/{item['id']}"} for item in server.items]
        server.files["/static.json"] = json.dumps({"type": "Catalog", "id": "all", "links": links})
        catalogue = f"{server.url}/static.json"
    result = get(server, tmp_path, dry_run=True, catalogue=catalogue)
    assert [one["date"][-1] for one in result["scenes"]] == ["2"]
    assert [one["scene"] for one in result["left_out"]] == [server.items[at]["id"] for at in (2, 0)]
    assert all("is no place" in one["why"] for one in result["left_out"])
    other = get(server, tmp_path, dry_run=True, catalogue=catalogue, dates="2022-07-02")  # of other days is no matter
    assert len(other["scenes"]) == 1 and not other["left_out"]


def test_what_an_item_tells_of_units_has_to_make_sense_and_counts_when_it_changes(server, tmp_path):
    item = publish_s2(server, 1)
    told = item["assets"]["blue"]["raster:bands"][0]
    told["scale"] = float("inf")
    assert "no value survives" in get(server, tmp_path)["left_out"][0]["why"]
    told["scale"] = 0.0001
    assert get(server, tmp_path)["scenes"][0]["status"] == "done"
    told["scale"] = 0.0002
    assert "--overwrite" in get(server, tmp_path)["scenes"][0]["error"]
    assert get(server, tmp_path, overwrite=True)["scenes"][0]["status"] == "done"
    with rasterio.open(tmp_path / item["id"] / "BLUE.tif") as made:
        assert made.scales == (0.0002,)


def test_pixels_that_are_packed_to_nothing_count_for_the_cap(server, tmp_path):
    name = publish_s2(server, 1)["id"]
    server.files[f"/{name}/blue.tif"] = cog(np.full((4096, 4096), 1100, np.uint16), 0.5)
    result = get(server, tmp_path, bands=["BLUE"], dry_run=True)
    assert result["megabytes"] > 0.01 * 2 * (772 / 0.5) * (530 / 0.5) / 1e6  # its blocks have some kB


def test_names_stay_in_the_folder(server, tmp_path):
    hostile(server, id="../../evil\x1b[2J")
    (scene,) = get(server, tmp_path / "deep" / "out")["scenes"]
    assert scene["status"] == "done" and scene["scene"].startswith("evil_2J_")
    assert {path.name for path in tmp_path.iterdir()} == {"deep"} and len(list((tmp_path / "deep").iterdir())) == 1
    assert "\x1b" not in Path(scene["item"]).read_text()


def test_of_a_scene_that_was_processed_twice_the_newer_is_taken(server, tmp_path):
    old, new = publish_s2(server, 1), publish_s2(server, 1)
    old["id"], new["id"] = "S2A_32TMR_20220701_9_L2A", "S2A_32TMR_20220701_1_L2A"
    new["properties"]["s2:processing_baseline"] = "05.00"
    result = get(server, tmp_path)
    assert [one["scene"] for one in result["scenes"]] == [new["id"]]
    assert result["left_out"] == [{"scene": old["id"], "why": f"processed again: {new['id']}"}]


def test_a_catalogue_of_the_world_does_not_lead_into_this_network(server):
    with pytest.raises(InputError, match="an address of this network"):
        web.Web("https://example.invalid/stac").span(f"{server.url}/a.tif", 0, 10)
    assert not server.asked


@pytest.mark.parametrize(
    ("fault", "kind", "why"), [("whole", InputError, "serve ranges"), ("down", RunError, "in a row")]
)
def test_servers_that_will_not(server, monkeypatch, fault, kind, why):
    server.files["/a.tif"] = b"0123456789" * 10
    server.faults = {fault}
    if fault == "down":
        monkeypatch.setattr(web, "_check_status", lambda reply, address: (_ for _ in ()).throw(web._AgainError("busy")))
    with pytest.raises(kind, match=why):
        web.Web(server.url).span(f"{server.url}/a.tif", 0, 10)


def test_of_an_answer_without_end_only_the_beginning_is_read(server, monkeypatch):
    server.files["/long"] = " " * (1 << 24)
    monkeypatch.setattr(web, "_MOST_TEXT", 1000)
    asking = web.Web(server.url)
    with pytest.raises(InputError, match="more than"):
        asking.plain(f"{server.url}/long")
    assert asking.received < 1 << 20


def test_a_cap_on_what_is_fetched(server, tmp_path):
    publish_s2(server, 1)
    with pytest.raises(InputError, match="--max_gb is 1e-05"):
        get(server, tmp_path / "out", max_gb=0.00001)
    assert not (tmp_path / "out").exists()


def test_a_static_catalogue(server, tmp_path):
    publish_s2(server, 1)
    publish_s2(server, 2)
    for item in server.items:
        relative = json.dumps(item).replace(f"ROOT/{item['id']}/", "./")
        server.files[f"/{item['id']}/item.json"] = relative
    early = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2015-01-01", "2016-01-01"]]}}
    children = [{"rel": "child", "href": "./july/collection.json"}, {"rel": "child", "href": "./old.json"}]
    server.files["/catalog.json"] = json.dumps({"type": "Catalog", "id": "c", "links": children})
    links = [{"rel": "item", "href": f"../{item['id']}/item.json"} for item in server.items]
    links += [{"rel": "child", "href": "../catalog.json"}, {"rel": "item", "href": "gone.json"}]
    links += [{"rel": "item", "href": "http://["}, {"rel": "item", "href": "file:///etc/passwd"}, {"rel": "item"}]
    server.files["/july/collection.json"] = json.dumps({"type": "Collection", "id": "july", "links": links})
    old = {"type": "Collection", "extent": early, "links": [{"rel": "item", "href": "./asked.json"}]}
    server.files["/old.json"] = json.dumps(old)
    result = get(server, tmp_path, catalogue=f"{server.url}/catalog.json", dates="2022-07-02")
    assert [one["date"] for one in result["scenes"]] == ["2022-07-02"]
    assert "/asked.json" not in server.seen
    why = {one["scene"].rsplit("/", 1)[1]: one["why"] for one in result["left_out"]}
    assert "404" in why["gone.json"] and "cannot be asked" in why["passwd"]


def test_the_command_tells_a_table(server, tmp_path, capsys):
    publish_s2(server, 1)
    publish_s2(server, 2, clouded=1.0)
    words = f"fetch --place {PLACE} --dates 2022-07 --product s2 --bands BLUE --max_cloud 30 --out {tmp_path / 'out'}"
    assert main([*words.split(), "--catalogue", f"{server.url}/stac"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("done     2022-07-01") and lines[0].endswith("shows 100% of the place, 100% clear")
    assert lines[1].startswith("left out S2A_32TMR_20220702_0_L2A: clouds hide 100 %")
    assert lines[2].startswith("1 done, 1 left out; 0.") and lines[2].endswith(
        "100% of the place is seen clear at least once"
    )
    assert main([*words.replace("s2", "spot").split(), "--catalogue", f"{server.url}/stac"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("earthtune: --product spot: wanted one of hls, s2, landsat")
    )
