"""Maps to zoom in: pictures in the right place, and pages that fetch nothing."""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform

from models.errors import InputError
from models.spec import ClassDef
from pipelines.grids.tokens import Tokens, similarity
from pipelines.reports.webmap import NOWHERE, similarity_data, similarity_map, to_mercator, web_map

CLASSES = (ClassDef(1, "wood & <water>", "#006400"), ClassDef(2, "town", "#fa0000"))
# Near Prague; over the antimeridian; turned by 30 degrees; coarse, in degrees, far north.
GRIDS = {
    "utm": GeoBox((30, 40), Affine(30, 0, 452340, 0, -30, 5551920), "EPSG:32633"),
    "antimeridian": GeoBox((30, 40), Affine(300, 0, 815000, 0, -300, 7000000), "EPSG:32660"),
    "turned": GeoBox((30, 40), Affine(26, 15, 452340, 15, -26, 5551920), "EPSG:32633"),
    "degrees": GeoBox((30, 40), Affine(0.5, 0, 5, 0, -0.5, 75), "EPSG:4326"),
}


def mercator(lat):
    """The textbook formula, in radians."""
    return math.log(math.tan(math.pi / 4 + math.radians(lat) / 2))


@pytest.mark.parametrize("name", GRIDS)
def test_a_block_lies_where_its_coordinates_say(name):
    """The middle of a marked block, by the corners Leaflet gets, is the middle that PROJ tells, to half a pixel."""
    grid, image = GRIDS[name], np.zeros((30, 40, 4), np.uint8)
    image[..., 3] = 255
    image[18:23, 29:34, 0] = 255
    placed, ((south, west), (north, east)) = to_mercator(image, grid)
    rows, columns = np.nonzero(placed[..., 0])
    across, down = (columns.mean() + 0.5) / placed.shape[1], (rows.mean() + 0.5) / placed.shape[0]
    lon = west + across * (east - west)
    y = mercator(north) + down * (mercator(south) - mercator(north))
    x_given, y_given = grid.affine @ (31.5, 20.5)
    (wanted_lon,), (wanted_lat,) = transform(grid.crs.to_wkt(), "EPSG:4326", [x_given], [y_given])
    wanted_lon += 360 * round((lon - wanted_lon) / 360)
    pixel = (east - west) / placed.shape[1]
    assert abs(lon - wanted_lon) < 0.6 * pixel
    assert abs(y - mercator(wanted_lat)) < 0.6 * math.radians(pixel)


def test_colours_are_kept_and_nothing_is_drawn_beyond_the_grid():
    rng = np.random.default_rng(0)
    image = np.dstack([rng.choice([0, 90, 255], (30, 40, 3)), np.full((30, 40), 255)]).astype(np.uint8)
    placed, _ = to_mercator(image, GRIDS["turned"])
    drawn = placed[placed[..., 3] > 0]
    assert set(map(tuple, drawn)) <= set(map(tuple, image.reshape(-1, 4)))
    assert (placed[placed[..., 3] == 0] == 0).all() and (placed[..., 3] == 0).mean() > 0.2


# Edges at the poles; centres at the poles; the same from Greenwich, and half a cell before it.
WORLDS = [
    ((180, 360), Affine(1, 0, -180, 0, -1, 90)),
    ((181, 360), Affine(1, 0, -180, 0, -1, 90.5)),
    ((181, 360), Affine(1, 0, 0, 0, -1, 90.5)),
    ((361, 576), Affine(0.625, 0, -0.3125, 0, -0.5, 90.25)),
]


@pytest.mark.parametrize(("shape", "affine"), WORLDS)
def test_the_world_is_a_square_that_ends_where_web_mercator_does(shape, affine):
    rows = np.arange(shape[0])[:, None] * np.ones(shape[1], int)
    image = np.dstack([rows % 256, rows // 256, rows * 0, rows * 0 + 255]).astype(np.uint8)
    placed, ((south, west), (north, east)) = to_mercator(image, GeoBox(shape, affine, "EPSG:4326"))
    assert (north, south) == pytest.approx((85.0511, -85.0511), abs=1e-4)
    assert (west, east) == pytest.approx((affine.c, affine.c + 360))
    height, width = placed.shape[:2]
    assert height == width and 0.9 < width / shape[1] < 1.1
    assert (placed[..., 3] == 255).all()
    y = mercator(north) * (1 - 2 * (np.arange(height) + 0.5) / height)
    lat = np.degrees(2 * np.arctan(np.exp(y)) - np.pi / 2)
    found = affine.f + affine.e * (placed[:, width // 3, 0] + 256.0 * placed[:, width // 3, 1] + 0.5)
    np.testing.assert_allclose(found, lat, atol=-0.51 * affine.e)


def test_what_lies_about_a_pole_only_is_refused():
    with pytest.raises(InputError, match=r"grid at 86.00 to 89.00 degrees north: .* ends at 85.05; draw it with"):
        to_mercator(np.zeros((3, 4, 4), np.uint8), GeoBox((3, 4), Affine(1, 0, 5, 0, -1, 89), "EPSG:4326"))


def fetched(page):
    return re.findall(r"(?:src|href)\s*=\s*\"?(https?://[^\s\"]+|images/)|url\((images/)", page)


def test_page_holds_leaflet_pictures_and_legend_and_fetches_nothing(tmp_path):
    image = np.full((30, 40, 4), 255, np.uint8)
    page = web_map({"scene": image, "land use": image}, GRIDS["utm"], classes=CLASSES, title="Land use")
    page.save(str(tmp_path / "map.html"))
    text = (tmp_path / "map.html").read_text()
    assert "<script src" not in text and "<link" not in text
    assert fetched(text) == [("https://leafletjs.com", "")]  # a link to click, at the lower right corner
    assert text.count("data:image/png;base64,") == 2
    assert "wood &amp; &lt;water&gt;" in text and "#fa0000" in text and "Leaflet 1.9.4" in text
    assert "&quot;scene&quot;" in page._repr_html_()  # escaped: the notebook shows it in a frame


TEMPLATE = "{% endraw %}{{ cycler.__init__.__globals__.os.getpid() }}{% raw %}"


@pytest.mark.parametrize("name", [TEMPLATE, TEMPLATE.replace("{% endraw %}", ""), "</script><script>alert(1)</script>"])
def test_names_are_shown_and_nothing_in_them_is_run(name):
    image, classes = np.full((30, 40, 4), 255, np.uint8), (ClassDef(1, name, "#006400"),)
    page = web_map({name: image, f"2 {name}": image}, GRIDS["utm"], classes=classes, title=name)
    text = page.get_root().render()
    shown = re.sub(r"[0-9a-f]{32}|base64,[\w+/=]+", "", text)
    assert not re.search(rf"(?<![\d.]){os.getpid()}(?![\d.])", shown)
    assert "<script>alert" not in text
    legend = html.unescape(text[text.index('<div class="legend"') :])
    assert legend.count(name) == 2  # in the title and in the row of the class
    layers = [json.loads(f'"{key}"') for key in re.findall(r'^ *"(.*)" : image_overlay_\w+,$', text, re.MULTILINE)]
    assert [html.unescape(layer) for layer in layers] == [name, f"2 {name}"]


def test_pictures_that_do_not_fit_and_grids_without_place_are_refused():
    with pytest.raises(InputError, match=r"wanted \(h, w, 4\)"):
        web_map({"a": np.zeros((3, 4, 4), np.uint8)}, GRIDS["utm"])
    with pytest.raises(InputError, match="coordinate system"):
        to_mercator(np.zeros((3, 4, 4), np.uint8), GeoBox((3, 4), Affine.identity(), None))


@pytest.fixture
def tokens():
    values = np.random.default_rng(1).normal(0, 1, (12, 6, 8)).astype(np.float32)
    values[:, 0, 0] = np.nan
    return Tokens(values, GRIDS["utm"].zoom_out(5))


def test_the_page_can_tell_the_likeness_of_all_tokens(tokens):
    data = similarity_data(tokens)
    vectors = np.frombuffer(base64.b64decode(data["vectors"]), np.int8).reshape(-1, data["size"]).astype(float)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    known = tokens.known
    places = transform("EPSG:32633", "EPSG:4326", *(tokens.geobox.affine @ (np.nonzero(known)[::-1] + np.array(0.5))))
    likeness = [similarity(tokens, *place)[known] for place in zip(*places, strict=True)]
    np.testing.assert_allclose(unit @ unit.T, likeness, atol=0.03)
    numbers = np.frombuffer(base64.b64decode(data["numbers"]), "<u2").reshape(data["height"], data["width"])
    assert set(numbers.ravel()) == {*range(47), NOWHERE}
    (lon,), (lat,) = transform("EPSG:32633", "EPSG:4326", *[[v] for v in tokens.geobox.affine @ (3.5, 2.5)])
    (south, west), (north, east) = data["corners"]
    row = int((mercator(north) - mercator(lat)) / (mercator(north) - mercator(south)) * data["height"])
    column = int((lon - west) / (east - west) * data["width"])
    assert numbers[row, column] == np.flatnonzero(known).tolist().index(2 * 8 + 3)


def test_more_tokens_than_there_are_numbers_are_refused():
    many = Tokens(np.ones((1, 256, 256), np.float32), GRIDS["utm"])
    with pytest.raises(InputError, match="65536 tokens: a map of likeness holds up to 65535; cut the scene"):
        similarity_data(many)


def test_similarity_map_starts_at_a_place_that_has_a_token(tokens):
    (lon,), (lat,) = transform("EPSG:32633", "EPSG:4326", *[[v] for v in tokens.geobox.affine @ (3.5, 2.5)])
    text = (
        similarity_map(np.full((30, 40, 4), 255, np.uint8), GRIDS["utm"], tokens, lon=lon, lat=lat).get_root().render()
    )
    assert "earthtuneSimilarity(" in text and fetched(text) == [("https://leafletjs.com", "")]
    with pytest.raises(InputError, match="outside"):
        similarity_map(np.zeros((30, 40, 4), np.uint8), GRIDS["utm"], tokens, lon=0, lat=0)
