"""Places and days, as people say them."""

from __future__ import annotations

import datetime
import math

import geopandas
import pytest
import shapely

from models.errors import InputError
from pipelines.access.place import read_place
from pipelines.recipes.days import read_days


def test_a_square_around_a_point_reaches_the_kilometres_each_way():
    west, south, east, north = read_place("60,10,5").bounds
    # A degree of latitude at 60 is 111.41 km, one of longitude 55.80 km (WGS 84).
    assert (north - 60, 60 - south) == pytest.approx((5 / 111.41, 5 / 111.41), rel=1e-3)
    assert (east - 10, 10 - west) == pytest.approx((5 / 55.80, 5 / 55.80), rel=1e-3)


def test_a_file_of_polygons_in_any_system_is_its_outline(tmp_path):
    shapes = [shapely.Point(500000, 5000000).buffer(1000), shapely.box(503000, 5000000, 504000, 5001000)]
    frame = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32632")
    frame.to_file(tmp_path / "a.gpkg")
    place = read_place(str(tmp_path / "a.gpkg"))
    back = geopandas.GeoSeries([place.outline], crs="EPSG:4326").to_crs("EPSG:32632")[0]
    assert back.area == pytest.approx(sum(one.area for one in shapes), rel=1e-4)
    half = place.grid.transform * (100, 0)
    assert place.share(place.weights > 0) == pytest.approx(1) and math.isfinite(half[0])
    assert place.weights[100:, 150:].sum() == 0  # nothing lies south-east


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("45,9", "2 numbers came"),
        ("120,45,5", "swapped"),
        ("95,200,5", "is nowhere"),
        ("45,9,0", "0.01 to 2000"),
        ("89.99,9,50", "over a pole"),
        ("0,179.99,50", "over a pole or the antimeridian"),
        ("170,10,-170,20", "given as two"),
        ("9,46,10,45", "south < north"),
        ("500000,4990000,501000,4991000", "wanted degrees"),
        ("9,45,nine,46", "no such file"),
        ("9,45,1e,46", "wanted W,S,E,N"),
        ("missing.gpkg", "no such file"),
    ],
)
def test_what_is_no_place(text, why):
    with pytest.raises(InputError, match=why):
        read_place(text)


def test_a_file_that_is_no_place(tmp_path):
    geopandas.GeoDataFrame(geometry=[shapely.Point(9, 45)], crs="EPSG:4326").to_file(tmp_path / "points.geojson")
    with pytest.raises(InputError, match="holds no polygons"):
        read_place(str(tmp_path / "points.geojson"))
    (tmp_path / "list.geojson").write_text("http://example.org/a.json")
    with pytest.raises(InputError, match="begins as no"):
        read_place(str(tmp_path / "list.geojson"))


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2021-06-01/2021-08-31", (2021, 6, 1), (2021, 8, 31)),
        ("2021-12/2024-02", (2021, 12, 1), (2024, 2, 29)),
        ("2021", (2021, 1, 1), (2021, 12, 31)),
        ("2021-06-05", (2021, 6, 5), (2021, 6, 5)),
    ],
)
def test_months_and_years_count_whole(text, first, last):
    days = read_days(text)
    assert (days.first, days.last) == (datetime.date(*first), datetime.date(*last))


@pytest.mark.parametrize(
    "text", ["2021-06-31", "2022/2021", "June", "2021-06-01/2021-06-02/2021-06-03", "2021-13", "/"]
)
def test_what_are_no_days(text):
    with pytest.raises(InputError, match="wanted FROM/TO"):
        read_days(text)
