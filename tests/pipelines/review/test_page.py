"""The page's server by a plain client: who gets in, what is given, what is taken; killed, and gone on with."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from PIL import Image

from models.errors import InputError
from pipelines.commands.review import review
from pipelines.outputs.forms import classes_form
from pipelines.review import beside, pictures
from pipelines.review import review as flow
from pipelines.review.answers import Answer, open_answers
from pipelines.review.page import MOST_BYTES, Desk, Server
from pipelines.review.review import Page
from tests.browser import needs_browser, tab
from tests.pipelines.review.scenes_to_review import CLASSES, SIZE, make_map

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server(tmp_path):
    mapped = beside.open_map(make_map(tmp_path))
    regions, _ = flow.regions_of(mapped, most=500, side=32)
    layers = pictures.scene_pictures(str(tmp_path / "scene.tif"), mapped.geobox)
    codes, ids = frozenset(entry.code for entry in CLASSES), frozenset(region.id for region in regions)
    answers = open_answers(tmp_path / "r.ndjson", {"format": 1}, codes, ids)
    bounds = {region.id: region.bounds for region in regions}
    desk = Desk(flow._about_map(mapped, regions), bounds, flow.layers_of(mapped, layers), answers)
    made = Server(desk)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def ask(server, route, body=None, *, token=None, headers=(), method=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    path = f"/{token or server.desk.token}/{route}"
    connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers))
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply.status, data, reply.headers


def test_only_with_token_and_host(server):
    assert ask(server, "state")[0] == 200
    assert ask(server, "state", token="x" * 32)[0] == 404
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", "127.0.0.1:1"):
        assert ask(server, "state", headers={"Host": host})[0] == 404
    assert ask(server, "undo", "{}", headers={"Origin": "http://evil.example"})[0] == 404
    assert server.server_address[0] == "127.0.0.1" and len(server.desk.token) >= 32


@pytest.mark.parametrize(
    "route",
    [
        "../../etc/passwd",
        "%2e%2e/x",
        "page.html",
        "review.py",
        "layer/../x",
        "layer/nothing",
        "part/map/99",
        "part/map/-1",
        "x",
    ],
)
def test_unknown_routes_are_not_there(server, route):
    assert ask(server, route)[0] == 404
    assert ask(server, route, "{}")[0] == 404


def test_every_reply_is_under_a_strict_policy(server):
    for route in ("", "page.js", "page.css", "leaflet.js", "leaflet.css", "state", "layer/true%20colour", "nothing"):
        headers = ask(server, route)[2]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    text = b"".join(ask(server, route)[1] for route in ("", "page.js", "page.css"))
    assert not re.search(rb"https?://|style=|onclick|innerHTML|eval\(", text)


def test_pictures_are_of_the_scene_and_the_map(server):
    state = json.loads(ask(server, "state")[1])
    assert state["layers"] == ["true colour", "false colour", "map", "confidence"] and state["scale"] == 1
    for name in state["layers"]:
        image = Image.open(BytesIO(ask(server, "layer/" + name.replace(" ", "%20"))[1]))
        assert image.size == (SIZE, SIZE)
    colours = np.asarray(Image.open(BytesIO(ask(server, "layer/map")[1])))
    assert colours[50, 10].tolist() == [0, 0x64, 0, 255] and colours[0, 0, 3] == 0
    top, left, bottom, right = state["items"][0]["bounds"]
    part = np.asarray(Image.open(BytesIO(ask(server, "part/map/1")[1])))
    row, column = max(top - 48, 0), max(left - 48, 0)
    assert np.array_equal(part, colours[row : bottom + 48, column : right + 48])


def test_answers_are_kept_and_taken_back(server, tmp_path):
    ring = [[1, 2], [3, 2], [3, 5]]
    said = {"id": 2, "answer": "class", "label": 30, "polygons": [{"label": 40, "ring": ring}]}
    status, data, _ = ask(server, "answer", json.dumps(said))
    assert status == 200 and json.loads(data)["answer"]["polygons"][0]["ring"] == ring
    record = json.loads((tmp_path / "r.ndjson").read_text().splitlines()[-1])
    assert record["polygons"][0]["ring"] == [[450010, 5549980], [450030, 5549980], [450030, 5549950]]  # on the ground
    assert json.loads(ask(server, "undo", "{}")[1]) == {"id": 2, "answer": Answer().plain()}
    assert json.loads(ask(server, "undo", "{}")[1])["id"] is None


@pytest.mark.parametrize(
    "body", ["", "[", "[" * 100_000, '"x"', '{"id": 99, "answer": "agree"}', '{"id": true, "answer": "agree"}', "\xff"]
)
def test_bad_bodies_are_told(server, tmp_path, body):
    before = (tmp_path / "r.ndjson").read_bytes()
    status, data, _ = ask(server, "answer", body.encode("latin-1"))
    assert status == 400 and json.loads(data)["error"]
    assert (tmp_path / "r.ndjson").read_bytes() == before


def test_bodies_without_length_or_too_long_are_refused_unread(server):
    assert ask(server, "answer", None, method="POST", headers={"Transfer-Encoding": "chunked"})[0] == 411
    assert ask(server, "answer", None, method="POST", headers={"Content-Length": str(MOST_BYTES + 1)})[0] == 413
    assert ask(server, "answer", None, method="POST", headers={"Content-Length": "-1"})[0] == 411
    assert ask(server, "answer", None, method="PUT")[0] == 501


def test_a_large_grid_is_thinned_and_parts_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "LONGEST", 64)
    mapped = beside.open_map(make_map(tmp_path))
    made = pictures.Pictures(mapped.geobox, pictures.map_pictures(mapped))
    assert Image.open(BytesIO(made.whole("map"))).size == (64, 64)
    assert Image.open(BytesIO(made.part("map", (slice(5, 25), slice(7, 37))))).size == (30, 20)


def start(*words):
    """The command in a process of its own, and the address that it tells."""
    command = [sys.executable, "-m", "pipelines.cli", "review", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    return process, re.search(r"http://\S+/", process.stdout.readline())[0]


def points(path, *, labels=None, form=True, xs=(450105.0, 450505.0, 450905.0)):
    """A sample of three points, with a form as that of `earthtune sample`."""
    places = [shapely.Point(x, 5549505) for x in xs]
    columns = {"id": [7, 8, 9], "label": labels or [None, None, None], "more": ["a", "b", "c"]}
    table = geopandas.GeoDataFrame(columns, geometry=places, crs=32633)
    pyogrio.write_dataframe(table.astype({"label": "Int32"}) if not labels else table, path, layer="sample")
    if form:
        style = {"f_table_name": ["sample"], "styleQML": [classes_form(CLASSES, "label")]}
        import pandas

        pyogrio.write_dataframe(pandas.DataFrame(style), path, layer="layer_styles")
    return path


def work(answers, **about):
    """What `serve` does without a page: answers are given, and the state is what the page would see."""

    def serve(desk, port, say):
        about["state"] = desk.state()
        for said in answers:
            desk.take(said)

    return serve, about


def test_a_sample_is_labelled_blind(tmp_path, monkeypatch):
    make_map(tmp_path)
    sample = points(tmp_path / "points.gpkg")
    serve, about = work([{"id": 7, "answer": "class", "label": 10}, {"id": 8, "answer": "unsure"}])
    monkeypatch.setattr(flow, "serve", serve)
    assert review(sample, scene=str(tmp_path / "scene.tif"))["labelled"] == 1
    state = about["state"]
    assert state["layers"] == ["true colour", "false colour"] and state["kind"] == "sample"
    assert all(set(item) == {"id", "bounds", "point"} for item in state["items"])
    assert state["items"][0]["point"] == (10.5, 49.5)
    table = pyogrio.read_dataframe(sample, layer="sample")
    assert table["label"].fillna(0).tolist() == [10, 0, 0] and table["more"].tolist() == ["a", "b", "c"]
    monkeypatch.setattr(flow, "serve", work([])[0])
    assert review(sample, scene=str(tmp_path / "scene.tif"))["labelled"] == 1


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({"xs": (1.0, 450505.0, 450905.0)}, {}, "1 of 3 points, such as 7, lie outside"),
        ({"labels": [10, 77, 40]}, {}, "point 8 is labelled '77', wanted one of tree cover"),
        ({"form": False}, {}, "--legend MAP"),
        ({}, {"scene": None}, "--scene FILE"),
        ({}, {"page": Page(no_page=True)}, "--no_page: for maps"),
    ],
)
def test_samples_that_cannot_be_labelled(tmp_path, changes, options, told):
    make_map(tmp_path)
    sample = points(tmp_path / "points.gpkg", **changes)
    with pytest.raises(InputError, match=told):
        review(sample, **({"scene": str(tmp_path / "scene.tif")} | options))


@needs_browser
def test_in_a_browser_by_keys_and_by_drawing_with_a_kill_between(tmp_path):
    path = make_map(tmp_path)
    which = "document.getElementById('which').textContent"
    ready = "document.body && document.body.dataset.ready == 'yes'"
    with tab(tmp_path) as page:
        process, address = start(path)
        page.open(address)
        page.wait(ready)
        for number, key in ((2, " "), (3, "2")):
            page.press(key)
            page.wait(f"{which}.startsWith('Region {number} ')")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        page.press("u")
        page.wait("document.getElementById('trouble').textContent.includes('not kept')")
        process, again = start(path)
        page.open(again)
        page.wait(f"{ready} && location.href == '{again}'")
        assert page.run(which) == "Region 3 of 3"
        page.press("d")
        for place in ((300, 300), (500, 320), (450, 500)):
            page.click(*place)
        page.press("Enter")
        page.press("3")
        page.wait("document.getElementById('said').textContent == 'You: 1 polygon drawn'")
        page.press("q")
        assert process.wait(20) == 0
        process.communicate()
        assert {url for url in page.asked if not url.startswith((address, again))} <= {
            f"{one.rsplit('/', 2)[0]}/favicon.ico" for one in (address, again)
        }
        assert not [line for line in page.said if "Content Security" in line or "exception" in line]
    table = pyogrio.read_dataframe(tmp_path / "scene_review.gpkg", layer="regions")
    assert table["answer"].tolist() == ["agree", "class", ""]
    drawn = pyogrio.read_dataframe(tmp_path / "scene_review.gpkg", layer="drawn")
    assert drawn["label"].tolist() == [40] and drawn["region"].tolist() == [3]
    assert drawn.geometry[0].intersects(table.geometry[2])
