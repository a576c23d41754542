"""Points with classes by clicks on a map in a notebook or a browser, without network: the CSV that `points` takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from odc.geo.geobox import GeoBox

from models.errors import InputError
from pipelines.points.labels import classes_of
from pipelines.reports.webmap import Image, web_map, with_script

if TYPE_CHECKING:
    from folium import Map


def picker(
    images: Mapping[str, Image],
    geobox: GeoBox,
    classes: Sequence[str],
    *,
    points: Sequence[tuple[float, float, str]] = (),
) -> Map:
    """Pictures of one grid as layers of a map, on which a click puts a point of the class that a digit key chose.

    A click on a point takes it away. The panel shows the points as a CSV (lon, lat, class), to save or to copy; classes
    have the colours of the map that `points` draws of them, and its order.

    Args:
        images: (h, w, 4) uint8 by the name of the layer, the last on top; transparent where there is no data.
        geobox: the grid, in any coordinate system.
        classes: names or codes, two at least.
        points: degrees east, degrees north and class of points that are there from the beginning; those without a class
            ("") are rings, which a click gives the chosen one.

    Returns:
        A map; its `save` writes one HTML file that needs nothing beside it.

    Raises:
        InputError: fewer than two classes, a point of another class or at no place; or as of `web_map`.
    """
    known, index = classes_of("classes", classes)
    said = [str(classes[int(np.argmax(index == i))]).strip() for i in range(len(known))]
    if len(known) < 2 or "" in said:
        raise InputError(f"classes {', '.join(map(repr, said))}: wanted two names or more, none of them empty")
    number = {text: i for i, text in enumerate(said)} | {"": -1}
    for lon, lat, text in points:
        if text not in number:
            raise InputError(f"point at {lon}, {lat}: class {text!r} is none of {', '.join(said)}; add it")
        if not (abs(lon) <= 360 and abs(lat) <= 90):
            raise InputError(f"point at {lon}, {lat}: wanted degrees east and degrees north, in this order")
    data = {
        "classes": [{"said": said[i], "colour": entry.colour} for i, entry in enumerate(known)],
        "points": [[float(lon), float(lat), number[text]] for lon, lat, text in points],
    }
    page = web_map(images, geobox)
    text = json.dumps(data).replace("<", "\\u003c")  # no name ends the script
    script = resources.files("pipelines.points").joinpath("picker.js")
    with_script(page, script, f"earthtunePicker({page.get_name()}, {text});")
    return page
