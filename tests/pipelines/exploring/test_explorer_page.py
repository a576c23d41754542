"""The page of the map in a browser: moved and zoomed, clicked and drawn on, by pointer and by keys."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipelines.exploring.explore import explore
from pipelines.outputs.categories import sidecar
from tests.browser import needs_browser, tab
from tests.pipelines.exploring.served import served
from tests.pipelines.review.scenes_to_review import SIZE, make_map, write

HOSTILE = "<img src=x onerror=hit=1>"
BOX = "(b => [b.x, b.y, b.width, b.height])(document.querySelector('canvas').getBoundingClientRect())"
IDLE = "!!window.ready && asking === 0 && !document.querySelector('.busy') && !document.querySelector('.bar').hidden"
BUTTON = "[...document.querySelectorAll('button')].find(b => b.title.startsWith('{}')).click()"
CHANGE = "(e => {{ e.{} = {}; e.dispatchEvent(new Event('{}')) }})(document.querySelectorAll('{}')[{}])"
NAMED = "[...document.querySelectorAll('button, input, select, canvas')].every(e => e.ariaLabel || e.labels?.length)"
LISTED = "[...document.querySelectorAll('.made li .name')].map(e => e.textContent)"


class Shown:
    """A map in a tab, whose places are known where all of it is seen."""

    def __init__(self, browser, url):
        self.tab = browser
        browser.asked.clear(), browser.said.clear()
        browser.open(url)
        browser.wait(IDLE)
        self.left, self.top, self.width, self.height = browser.run(BOX)
        self.scale = min(self.width, self.height) / SIZE

    def at(self, column, row):
        middle = self.left + self.width / 2, self.top + self.height / 2
        return middle[0] + (column - SIZE / 2) * self.scale, middle[1] + (row - SIZE / 2) * self.scale

    def click(self, column, row):
        self.tab.click(*self.at(column, row))

    def mouse(self, kind, at, **more):
        self.tab.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **more)

    def push(self, title):
        self.tab.run(BUTTON.format(title))

    def asked(self, kind):
        self.tab.wait(IDLE)
        return self.tab.run(f"sent.filter(s => s.kind === '{kind}')")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One for all tests of this file."""
    with tab(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def view(tmp_path):
    beside = sidecar(make_map(tmp_path))
    beside.write_text(beside.read_text().replace("grassland", HOSTILE.replace("<", "&lt;")))
    return explore(tmp_path / "scene.tif", tmp_path / "scene_map.tif", tmp_path / "scene_confidence.tif")


@needs_browser
def test_points_and_corrections_by_the_pointer(view, browser):
    with served(view) as url:
        page = Shown(browser, url)
        page.click(30.5, 40.5)  # looks only
        assert view.points == []
        page.push("Points")
        browser.run(CHANGE.format("selectedIndex", 1, "change", "select", 0))
        for place in ((30.5, 40.5), (60.5, 20.5), (90.5, 90.5), (-3, 20)):  # the last lies beside the map
            page.click(*place)
        browser.wait(f"{LISTED}.length === 3")
        np.testing.assert_allclose(view._marks, [(30.5, 40.5), (60.5, 20.5), (90.5, 90.5)], atol=0.6)
        assert {point["class"] for point in view.points} == {HOSTILE} and browser.run("window.hit === undefined")
        page.click(60.5, 20.5)  # takes it away
        browser.wait(f"{LISTED}.length === 2")
        assert browser.run(LISTED)[0].startswith(HOSTILE)
        page.push("undo")
        browser.wait(f"{LISTED}.length === 3")
        page.push("remove")
        browser.wait(f"{LISTED}.length === 2")
        np.testing.assert_allclose(view._marks, [(60.5, 20.5), (90.5, 90.5)], atol=0.6)

        page.push("Correct")
        corners = [(10, 10), (40, 10), (40, 50)]
        for corner in corners:
            page.click(*corner)
        page.click(10, 10)  # the first corner again
        browser.wait(f"{LISTED}.length === 3")
        np.testing.assert_allclose(view._rings[0], corners, atol=0.6)
        assert view.corrections[0]["class"] == HOSTILE
        for corner in [(60, 60), (80, 60)]:
            page.click(*corner)
        for count in (1, 2):
            for kind in ("mousePressed", "mouseReleased"):
                page.mouse(kind, page.at(80, 80), button="left", clickCount=count)
        browser.wait(f"{LISTED}.length === 4")
        np.testing.assert_allclose(view._rings[1], [(60, 60), (80, 60), (80, 80)], atol=0.6)
        view.points = []
        browser.run("ask({})")  # as the kernel tells
        browser.wait(f"{LISTED}.length === 2")
        assert browser.said == [] and all(one.startswith(url) for one in browser.asked)


@needs_browser
def test_moved_and_zoomed_by_wheel_drag_and_keys(view, browser):
    with served(view) as url:
        page = Shown(browser, url)
        assert [s["box"] for s in page.asked("picture")] == [[0, 0, SIZE, SIZE]] * 3
        for _ in range(3):  # eight times as near, around a place that stays
            page.mouse("mouseWheel", page.at(24, 24), deltaX=0, deltaY=-200)
        page.push("Points")
        page.click(24, 24)
        assert len(page.asked("picture")) == 3  # there is nothing finer
        start = page.at(48, 48)
        page.mouse("mousePressed", start, button="left", clickCount=1)
        for step in (10, 80):
            page.mouse("mouseMoved", (start[0] + step, start[1]), button="left", buttons=1)
        page.mouse("mouseReleased", (start[0] + 80, start[1]), button="left", clickCount=1)
        page.click(24, 24)
        browser.wait(f"{LISTED}.length === 2")
        first, second = view._marks
        np.testing.assert_allclose(first, (24, 24), atol=0.2)
        np.testing.assert_allclose(second, (24 - 80 / page.scale / 8, 24), atol=0.2)
        browser.press("3")
        browser.press(" ")  # in the middle of the window
        browser.press("0")
        browser.press("ArrowRight")
        browser.press(" ")
        browser.wait(f"{LISTED}.length === 4")
        assert [point["class"] for point in view.points[2:]] == ["cropland", "cropland"]
        np.testing.assert_allclose(view._marks[3], (SIZE / 2 + 64 / page.scale, SIZE / 2), atol=0.2)
        browser.press("u")
        browser.wait(f"{LISTED}.length === 3")
        page.push("Correct")
        browser.run("document.querySelector('canvas').focus()")
        for key in (" ", "+", "ArrowDown", " ", "ArrowRight", " ", "u", " ", "Enter"):
            browser.press(key)
        browser.wait(f"{LISTED}.length === 4")
        assert len(view.corrections[0]["ring"]) == 3
        for key in (" ", "Escape", "Enter"):
            browser.press(key)
        assert len(view.corrections) == 1


@needs_browser
def test_layers_are_switched_and_faded_and_told(view, tmp_path):
    colour = "[...document.querySelector('canvas').getContext('2d').getImageData({}, {}, 1, 1).data]"
    with served(view) as url, tab(tmp_path) as browser:
        page = Shown(browser, url)
        spot = [round(v - edge) for v, edge in zip(page.at(24, 60), (page.left, page.top), strict=True)]
        seen = colour.format(*spot)
        page.mouse("mouseMoved", page.at(24.5, 60.5))
        browser.wait("document.querySelectorAll('.value')[1].textContent !== ''")
        texts = "[...document.querySelectorAll('.value')].map(e => e.textContent)"
        assert browser.run(texts)[:2] == ["0.97", "tree cover"]
        assert re.fullmatch(r"50\.\d{5}° N, 14\.\d{5}° E", browser.run("document.querySelector('.where').textContent"))
        browser.run("document.querySelector('input[type=checkbox]').click()")  # the topmost layer
        browser.wait(f"{seen}.join() === '0,100,0,255'")
        browser.wait(IDLE)
        assert view.layers[2]["visible"] is False
        browser.run(CHANGE.format("value", 50, "input", "[type=range]", 1))
        browser.wait(f"{seen}.join() !== '0,100,0,255'")
        browser.wait(IDLE)
        assert view.layers[1]["opacity"] == 0.5
        assert browser.run(NAMED)
        browser.run("end()")
        assert [line for line in browser.said if "readback" not in line] == []


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_fits_narrow_and_wide_and_asks_for_what_the_screen_shows(width, browser, tmp_path):
    values = np.linspace(0, 1, 3000 * 2000, dtype=np.float32).reshape(3000, 2000)
    view = explore(write(tmp_path / "large.tif", values, nodata=np.nan))
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=2, mobile=False)
    with served(view) as url:
        page = Shown(browser, url)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert (browser.run("document.querySelector('.side').offsetTop") > 300) == (width == 400)
        (whole,) = page.asked("picture")
        sharp = 2 * page.height / 3000  # pixels of the picture to one of the raster: two to one of the window
        assert whole["box"] == [0, 0, 3000, 2000]
        np.testing.assert_allclose(whole["shape"], [3000 * sharp, 2000 * sharp], atol=1)
        for _ in range(2):
            page.push("zoom in")
        browser.wait("sent.length === 2")
        _, part = page.asked("picture")
        (top, left, bottom, right), (rows, columns) = part["box"], part["shape"]
        assert 375 < 1500 - top == bottom - 1500 < 700 and left >= 0 and right <= 2000  # the window and some more
        finer = min(sharp * 4, 1)
        np.testing.assert_allclose([rows, columns], [(bottom - top) * finer, (right - left) * finer], atol=1)
        page.push("show all")
        browser.wait("sent.length === 3")
    browser.call("Emulation.clearDeviceMetricsOverride")
