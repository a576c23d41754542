"""Maps in figures: what is drawn is where and what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from models.spec import ClassDef
from pipelines.reports import map_plots, plots
from tests.figures import drawn

CLASSES = (ClassDef(10, "tree", "#006400"), ClassDef(30, "grass", "#ffff4c"))
GRID = GeoBox((20, 30), Affine(30, 0, 500000, 0, -30, 5000000), "EPSG:32632")


def test_maps_stand_in_a_row_above_one_legend():
    figure = plots.figure(9, 4)
    image = np.full((20, 30, 4), 255, np.uint8)
    axes = map_plots.map_row(figure, {"a": image, "b": image}, geobox=GRID, classes=CLASSES)
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    assert [ax.texts[0].get_text() for ax in axes] == ["200 m", "200 m"]  # of a map of 900 m
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["tree", "grass"]
    drawn(figure)
    assert axes[0].get_position().x1 < axes[1].get_position().x0


def test_value_map_and_its_scale_have_the_same_ends():
    figure = plots.figure(5, 4)
    values = np.linspace(0, 1, 600).reshape(20, 30)
    ax = map_plots.value_map(figure.add_subplot(), values, label="reflectance", geobox=GRID, limits=(0.2, 0.6))
    bar = figure.axes[1]
    assert bar.get_ylim() == (0.2, 0.6) and bar.get_ylabel() == "reflectance"
    np.testing.assert_array_equal(ax.get_images()[0].get_array(), plots.value_image(values, low=0.2, high=0.6))
    drawn(figure)


def test_weather_map_lies_on_its_degrees():
    figure = plots.figure(5, 4)
    lat, lon = np.array([50.0, 49.5, 49.0]), np.array([-1.25, -0.625, 0.0, 0.625])
    values = np.arange(12.0).reshape(3, 4)
    ax = map_plots.weather_map(figure.add_subplot(), values, lat=lat, lon=lon, label="mm/h")
    assert ax.get_images()[0].get_extent() == pytest.approx([-1.5625, 0.9375, 48.75, 50.25])
    drawn(figure)
    labels = [text.get_text() for text in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    assert {"1°W", "0°", "49°N"} <= set(labels)


@pytest.mark.parametrize(("value", "text"), [(190, "170°W"), (-170, "170°W"), (0, "0°"), (12.5, "12.5°E")])
def test_degrees_are_written_as_on_maps(value, text):
    assert map_plots._degrees(value, "WE") == text


def test_errors_are_marked_where_both_maps_say_something():
    truth, mapped = np.array([[0, 1, -1, 1]]), np.array([[0, 0, 0, -1]])
    image = map_plots.error_image(truth, mapped)
    assert image[..., 3].tolist() == [[255, 255, 0, 0]]
    assert image[0, 1].tolist() == [213, 94, 0, 255] and image[0, 0].tolist() != image[0, 1].tolist()


def test_components_fill_red_green_and_blue():
    values = np.stack([np.tile(np.linspace(0, 9, 100), (4, 1)), np.zeros((4, 100)), np.ones((4, 100))])
    values[:, 0, 0] = np.nan
    image = map_plots.component_image(values)
    assert image[0, 0].tolist() == [0, 0, 0, 0]
    assert image[1, 99, 0] == 255 and image[1, 1, 0] == 0 and (np.diff(image[1, :, 0].astype(int)) >= 0).all()
