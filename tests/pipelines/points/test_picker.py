"""Points by clicks: a page that a browser shows, and the CSV that comes of it, read as `points` reads it."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform

from models.errors import InputError
from pipelines.points.picker import picker
from pipelines.points.tables import read_table
from tests.browser import needs_browser, tab

# Turned by 30 degrees; over the antimeridian, where a page's longitudes go on beyond 180.
GRIDS = {
    "turned": GeoBox((30, 40), Affine(26, 15, 452340, 15, -26, 5551920), "EPSG:32633"),
    "antimeridian": GeoBox((30, 40), Affine(300, 0, 645000, 0, -300, 7000000), "EPSG:32660"),
}
HOSTILE = 'a, "b" </script><script>parent.hit=1</script>{{ 7*7 }}<img src=x onerror=parent.hit=1>'
CLASSES = ("wood", "water", HOSTILE)
SPOTS = {(255, 0, 0): (4, 31), (0, 255, 0): (24, 6)}  # rows and columns of two squares of 3 x 3 pixels


def picture():
    image = np.full((30, 40, 4), 255, np.uint8)
    image[..., :3] = 90
    for colour, (row, column) in SPOTS.items():
        image[row - 1 : row + 2, column - 1 : column + 2, :3] = colour
    return image


# Where the window shows the middle of what has this colour in the picture.
FIND = """(() => {
  const image = frames[0].document.querySelector("img.leaflet-image-layer"), box = image.getBoundingClientRect();
  const frame = document.querySelector("iframe").getBoundingClientRect(), canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  let n = 0, x = 0, y = 0;
  for (let i = 0; i < data.length; i += 4) if ([data[i], data[i + 1], data[i + 2]].join() === "COLOUR") {
    n += 1; x += (i / 4) % canvas.width + 0.5; y += Math.floor(i / 4 / canvas.width) + 0.5;
  }
  return [frame.x + box.x + x / n * box.width / canvas.width, frame.y + box.y + y / n * box.height / canvas.height];
})()"""
MIDDLE = """(() => {
  const box = frames[0].document.WHAT.getBoundingClientRect(), frame = document.querySelector("iframe");
  const { x, y } = frame.getBoundingClientRect();
  return [x + box.x + box.width / 2, y + box.y + box.height / 2];
})()"""
BOX = "frames[0].document.querySelector('.picker textarea').value"
LINK = "frames[0].document.querySelector('.picker a')"


@pytest.fixture
def shown(tmp_path):
    """A function that opens a map in a browser as a notebook shows it, in a frame."""

    def show(page, browser):
        file = tmp_path / "notebook.html"
        file.write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><div style="width:700px">{page._repr_html_()}</div>',
            encoding="utf-8",
        )
        browser.open(file.as_uri())
        browser.wait("frames[0]?.document.querySelector('.picker a')?.href")
        browser.wait("frames[0].document.querySelector('img.leaflet-image-layer')?.complete")
        browser.file = file.as_uri()

    return show


def rows(browser):
    return list(csv.DictReader(io.StringIO(browser.run(BOX))))


def click(browser, colour, right=0):
    x, y = browser.run(FIND.replace("COLOUR", ",".join(map(str, colour))))
    browser.click(x + right, y)


@needs_browser
@pytest.mark.parametrize("name", GRIDS)
def test_clicks_become_labels_of_the_pixels_under_them(name, shown, tmp_path):
    grid = GRIDS[name]
    with tab(tmp_path) as browser:
        shown(picker({"scene": picture()}, grid, CLASSES), browser)
        assert browser.run(BOX) == "lon,lat,class\n"
        red, green = SPOTS
        click(browser, red)
        browser.press("2")  # classes are in the order of the alphabet
        click(browser, green)
        browser.wait(f"{BOX}.split('\\n').length === 4")
        found = rows(browser)
        assert [row["class"] for row in found] == [HOSTILE, "water"]
        assert all(-180 <= float(row["lon"]) <= 180 for row in found)
        assert browser.run(f"[{LINK}.download, decodeURIComponent({LINK}.href.split(',')[1])]") == [
            "labels.csv",
            browser.run(BOX),
        ]
        labels = tmp_path / "labels.csv"
        labels.write_text(browser.run(BOX))
        assert browser.run("window.hit === undefined") and browser.said == []
        assert [url for url in browser.asked if not url.startswith(("data:", "about:", browser.file))] == []
    table = read_table(labels, grid, column=None, layer=None, group=None, say=print)
    assert table.classes == [HOSTILE, "water"]
    for point, (row, column) in zip(table.shapes, SPOTS.values(), strict=True):
        found = ~grid.affine @ (point.x, point.y)  # column, row
        assert found == pytest.approx((column + 0.5, row + 0.5), abs=0.75)


@needs_browser
def test_points_are_taken_away_and_rings_are_given_a_class(shown, tmp_path):
    grid = GRIDS["antimeridian"]
    places = [grid.affine @ (column + 0.5, 8.5) for column in (34, 8, 20)]
    (ring, wood, middle), lat = transform("EPSG:32660", "EPSG:4326", *zip(*places, strict=True))
    assert min(ring, wood) < 0 < max(ring, wood) and abs(middle) > 179
    points = [(ring, lat[0], ""), (wood, lat[1], "wood")]
    with tab(tmp_path) as browser:
        shown(picker({"scene": picture()}, grid, CLASSES, points=points), browser)
        assert [(row["class"], float(row["lon"])) for row in rows(browser)] == [("wood", round(wood, 7))]
        red, green = SPOTS
        for colour in (red, green, red):  # the third takes the first away
            click(browser, colour)
        browser.press("3")
        paths = "frames[0].document.querySelectorAll('path.leaflet-interactive').length"
        assert browser.run(paths) == 3
        for n in (0, 1):  # the point of the notebook is taken away, as one of a click is
            browser.click(*browser.run(MIDDLE.replace("WHAT", f"querySelectorAll('path.leaflet-interactive')[{n}]")))
        browser.wait(f"{BOX}.split('\\n').length === 4")
        first, second = rows(browser)
        assert (first["class"], float(first["lon"])) == ("wood", round(ring, 7)) and second["class"] == HOSTILE
        left, top = browser.run("(({ x, y }) => [x, y])(document.querySelector('iframe').getBoundingClientRect())")
        browser.click(left + 3, top + 240)  # beside the picture
        browser.click(*browser.run(MIDDLE.replace("WHAT", "querySelector('.picker b')")))  # over it, on the panel
        x, y = browser.run(FIND.replace("COLOUR", "255,0,0"))
        for lines in (5, 4):  # a double click puts one point, or takes one away, and nothing moves
            for count in (1, 2):
                for kind in ("mousePressed", "mouseReleased"):
                    browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)
            browser.wait(f"{BOX}.split('\\n').length === {lines}")
            assert not browser.run("frames[0].document.querySelector('.leaflet-zoom-anim')")
        assert browser.run(FIND.replace("COLOUR", "255,0,0")) == [x, y]


def test_colours_and_order_are_those_of_the_map():
    text = picker({"scene": picture()}, GRIDS["turned"], ("30", "7")).get_root().render()
    assert re.findall(r'"said": "(\w+)", "colour": "(#\w+)"', text) == [("7", "#1b9e77"), ("30", "#d95f02")]


@pytest.mark.parametrize(
    ("classes", "points", "told"),
    [
        (("wood",), (), "wanted two names or more"),
        (("wood", "Wood"), (), "wanted two names or more"),
        (("wood", " "), (), "none of them empty"),
        ((), (), "no label has a class"),
        (("wood", "x" * 101), (), "101 letters"),
        (("wood", "water"), [(1, 2, "town")], "class 'town' is none of water, wood; add it"),
        (("wood", "water"), [(14, 95, "wood")], "degrees east and degrees north"),
        (("wood", "water"), [(float("nan"), 5, "wood")], "degrees east and degrees north"),
    ],
)
def test_what_makes_no_sense_is_refused(classes, points, told):
    with pytest.raises(InputError, match=told):
        picker({"scene": picture()}, GRIDS["turned"], classes, points=points)


def test_no_picture_is_refused():
    with pytest.raises(InputError, match="wants a picture"):
        picker({}, GRIDS["turned"], CLASSES)
