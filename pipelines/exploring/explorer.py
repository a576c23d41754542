"""The map as a widget: what was put and drawn lies here, and the page asks for the pictures that it shows."""

from __future__ import annotations

import base64
import io
import math
import numbers
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import shapely
from anywidget import AnyWidget
from odc.geo.geobox import GeoBox
from traitlets import Dict, List, Unicode, observe, validate

from models.errors import EarthtuneError, InputError
from models.files import check_target
from pipelines.exploring.files import write_corrections, write_points
from pipelines.exploring.layers import Layer, draw, legend, value_at
from pipelines.exploring.places import Places
from pipelines.grids.windows import Window, thinned, whole
from pipelines.review.answers import MOST_POLYGONS, Answer, answer_of
from pipelines.review.pictures import png

MOST_POINTS = 100_000
MOST_STEPS = 1000  # that can be undone
_LARGEST = 1 << 23  # pixels of a picture
_STORED = 640  # pixels along a side of the picture that a notebook keeps
_PAGE = resources.files("pipelines.exploring")


class Explorer(AnyWidget):
    """Rasters on one map, which may be set and read from Python.

    Attributes:
        points: what was clicked: {"class", "lon", "lat"} each, in degrees.
        corrections: what was drawn: {"class", "ring"} each, corners (x, y) in the coordinate system of the first layer.
        layers: {"name", "visible", "opacity", "legend"} of each, from bottom to top.
        classes: that points and corrections may have.
    """

    _esm = (_PAGE / "explorer.js").read_text(encoding="utf-8")
    _css = (_PAGE / "explorer.css").read_text(encoding="utf-8")
    points = List(Dict()).tag(sync=True)
    corrections = List(Dict()).tag(sync=True)
    layers = List(Dict()).tag(sync=True)
    classes = List(Dict(), read_only=True).tag(sync=True)
    _size: Any = List().tag(sync=True)  # columns, rows
    _marks: Any = List().tag(sync=True)  # (column, row) of each point
    _rings: Any = List().tag(sync=True)  # [(column, row) ...] of each correction
    _map = Unicode().tag(sync=True)  # the layer that corrections are about

    def __init__(self, layers: Sequence[Layer], grid: GeoBox, classes: Sequence[Mapping[str, Any]]) -> None:
        """A map of layers on a grid; see `explore`.

        Args:
            layers: from bottom to top.
            grid: what all are shown on.
            classes: name, colour, and code in the map of classes or None.
        """
        self._shown, self._grid, self._places = tuple(layers), grid, Places(grid)
        self._past: list[tuple[str, Any]] = []
        self._codes = {one["name"]: one["code"] for one in classes}
        mapped = [layer for layer in layers if layer.classes]
        self._mapped = mapped[-1] if mapped else None
        super().__init__()
        self.set_trait("classes", [{"name": one["name"], "colour": one["colour"]} for one in classes])
        self.layers = [
            {"name": layer.name, "visible": True, "opacity": 1.0, "legend": legend(layer, grid)} for layer in layers
        ]
        self._size, self._map = [int(grid.width), int(grid.height)], self._mapped.name if self._mapped else ""
        self.on_msg(self._hear)

    def save_points(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the points as labels for `points`: a .csv of lon, lat, class, or a .geojson.

        Raises:
            InputError: another suffix, or the file is there and not to be replaced.
            RunError: the disk does not take it.
        """
        write_points(Path(path), self.points, overwrite=overwrite)
        return Path(path)

    def save_corrections(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write what was drawn as a GeoPackage (.gpkg) for `review --take` and the recipe's `data.corrections`.

        Raises:
            InputError: nothing is drawn, another suffix, or the file is there and not to be replaced.
            RunError: the disk does not take it.
        """
        check_target(Path(path), ".gpkg", overwrite=overwrite)
        if self._mapped is None or not self.corrections:
            raise InputError(f"{path}: nothing is drawn, so that nothing is corrected; draw a polygon over the map")
        if self._mapped.path is None or not self._mapped.path.is_file():
            raise InputError(f"{self._mapped.name}: the map is no file on this machine; fetch it, and explore that")
        drawn = [self._answer(one) for one in self.corrections]
        write_corrections(Path(path), drawn, self._grid, self._mapped.path, classes=self._mapped.classes)
        return Path(path)

    def undo(self) -> None:
        """Take back the last change of points or corrections, if there is one."""
        if self._past:
            name, before = self._past.pop()
            setattr(self, name, before)
            self._past.pop()

    def picture(self) -> bytes:
        """A PNG of all that is shown, for those who see the notebook without a kernel."""
        from PIL import Image, ImageDraw

        shape = thinned(self._grid.shape, _STORED)
        whole_map = Image.new("RGBA", shape[::-1])
        for layer, said in zip(self._shown, self.layers, strict=True):
            if said["visible"]:
                pixels = draw(layer, self._grid, whole(self._grid.shape), shape)
                pixels[..., 3] = (pixels[..., 3] * said["opacity"]).astype("uint8")
                whole_map.alpha_composite(Image.fromarray(pixels))
        times = max(_STORED // max(shape), 1)
        whole_map = whole_map.resize((shape[1] * times, shape[0] * times), Image.Resampling.NEAREST)
        colours, step = {one["name"]: one["colour"] for one in self.classes}, whole_map.width / self._size[0]
        pen = ImageDraw.Draw(whole_map)
        for one, ring in zip(self.corrections, self._rings, strict=True):
            pen.polygon([(x * step, y * step) for x, y in ring], outline=colours[one["class"]], width=3)
        for one, (x, y) in zip(self.points, self._marks, strict=True):
            pen.circle((x * step, y * step), 6, fill=colours[one["class"]], outline="white", width=2)
        out = io.BytesIO()
        whole_map.save(out, format="PNG")
        return out.getvalue()

    def __repr__(self) -> str:
        """How much there is of what."""
        many = f"{len(self.layers)} layers, {len(self.points)} points, {len(self.corrections)} corrections"
        return f"Explorer({many})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, "image/png": base64.b64encode(self.picture()).decode("ascii")}, metadata

    @validate("points")
    def _check_points(self, proposal: Any) -> Any:
        """Points with a class that is there, and degrees."""
        if len(proposal["value"]) > MOST_POINTS:
            raise InputError(f"{len(proposal['value'])} points: wanted {MOST_POINTS:,} at most; thin them")
        return [self._point(one) for one in proposal["value"]]

    @validate("corrections")
    def _check_corrections(self, proposal: Any) -> Any:
        """Polygons with a class of the map."""
        if len(proposal["value"]) > MOST_POLYGONS:
            raise InputError(f"{len(proposal['value'])} corrections: wanted {MOST_POLYGONS:,} at most; join some")
        plain = [(one, self._answer(one).polygons[0][1]) for one in proposal["value"]]
        return [{"class": one["class"], "ring": [list(corner) for corner in ring]} for one, ring in plain]

    @validate("layers")
    def _check_layers(self, proposal: Any) -> Any:
        """As many as there are; of each only whether and how strongly it is shown may change."""
        before, said = self.layers, proposal["value"]
        if before and len(said) != len(before):
            raise InputError(f"{len(said)} layers: the map has {len(before)}; make another with `explore`")
        for one in said:
            if not isinstance(one.get("visible"), bool) or not 0 <= _number(one.get("opacity")) <= 1:
                raise InputError(f"layer {one.get('name')}: wanted visible True or False, opacity 0 to 1")
        kept = before or said
        return [
            {**old, "visible": new["visible"], "opacity": new["opacity"]} for old, new in zip(kept, said, strict=True)
        ]

    @observe("points", "corrections")
    def _changed(self, change: Any) -> None:
        """Remember what was before, and tell the page where things are in its pixels."""
        self._past = [*self._past, (change["name"], change["old"])][-MOST_STEPS:]
        if change["name"] == "points":
            self._marks = self._places.pixels([(one["lon"], one["lat"]) for one in self.points])
        else:
            self._rings = [self._places.from_coordinates(one["ring"]) for one in self.corrections]

    def _point(self, one: Mapping[str, Any]) -> dict[str, Any]:
        lon, lat, name = (one.get(key) for key in ("lon", "lat", "class"))
        if not isinstance(name, str) or name not in self._codes:
            raise InputError(f"point at {lon}, {lat}: class {name!r} is none of {', '.join(self._codes) or 'none'}")
        if not (abs(_number(lon)) <= 360 and abs(_number(lat)) <= 90):
            raise InputError(f"point at {lon}, {lat}: wanted lon in degrees east, lat in degrees north")
        return {"class": name, "lon": _number(lon), "lat": _number(lat)}

    def _answer(self, one: Mapping[str, Any]) -> Answer:
        """A correction as a review has it."""
        name = one.get("class")
        code = self._codes.get(name) if isinstance(name, str) else None
        if code is None:
            known = ", ".join(name for name, code in self._codes.items() if code is not None)
            raise InputError(f"correction: class {name!r} is none of the map's: {known or 'it has none'}")
        try:
            ring = [[float(value) for value in corner] for corner in one.get("ring", ())]
            answer = answer_of({"answer": "", "polygons": [{"label": code, "ring": ring}]}, frozenset((code,)))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"correction of class {name}: {error}") from error
        if not (shape := shapely.Polygon(ring)).is_valid or not shape.area:
            raise InputError(f"correction of class {name}: its sides cross, or nothing lies in it; draw it again")
        return answer

    def _hear(self, _: Any, said: Mapping[str, Any], buffers: Any) -> None:
        """Answer a page, or tell it what is wrong."""
        answers = {"picture": self._send_picture, "value": self._send_value, "put": self._put, "draw": self._draw}
        answers |= {"remove": self._remove, "undo": lambda said: self.undo()}
        try:
            answers[said["kind"]](said)
        except EarthtuneError as error:
            self.send({"kind": "error", "to": said.get("to"), "of": said["kind"], "text": str(error)})
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            self.send({"kind": "error", "to": None, "of": "", "text": "the page sent what is not understood"})

    def _send_picture(self, said: Mapping[str, Any]) -> None:
        """A window of a layer as PNG, in the pixels of the screen."""
        number, window, (rows, columns) = int(said["layer"]), self._window(said["box"]), map(int, said["shape"])
        if not (0 < rows * columns <= _LARGEST and rows > 0):
            raise ValueError(rows, columns)
        pixels = draw(self._layer(number), self._grid, window, (rows, columns))
        box, (top, _) = list(said["box"]), map(int, said["box"][:2])
        middle = (box[1] + box[3]) / 2, (top + box[2]) / 2
        about = {"kind": "picture", "to": said["to"], "layer": number, "box": box, "shape": [rows, columns]}
        self.send(about | {"metres": self._places.metres(*middle)}, buffers=[png(pixels)])

    def _send_value(self, said: Mapping[str, Any]) -> None:
        """What the shown layers say under the pointer, and where that is."""
        column, row = (float(v) for v in said["at"])
        ((lon, lat),) = self._places.degrees([(column, row)])
        inside = 0 <= row < self._size[1] and 0 <= column < self._size[0]
        shown = zip(self._shown, self.layers, strict=True)
        told = [value_at(a, self._grid, int(row), int(column)) if b["visible"] and inside else "" for a, b in shown]
        place = [lon, lat] if math.isfinite(lon + lat) else None
        self.send({"kind": "value", "to": said["to"], "degrees": place, "values": told})

    def _put(self, said: Mapping[str, Any]) -> None:
        """A point by a click."""
        ((lon, lat),) = self._places.degrees([said["at"]])
        self.points = [*self.points, {"class": self._name(said["of"]), "lon": lon, "lat": lat}]

    def _draw(self, said: Mapping[str, Any]) -> None:
        """A correction by clicks on its corners."""
        ring = self._places.coordinates(said["ring"])
        self.corrections = [*self.corrections, {"class": self._name(said["of"]), "ring": ring}]

    def _remove(self, said: Mapping[str, Any]) -> None:
        """A point or a correction less."""
        name = {"points": "points", "corrections": "corrections"}[said["of"]]
        kept = list(getattr(self, name))
        del kept[_at(said["index"], len(kept))]
        setattr(self, name, kept)

    def _name(self, number: Any) -> str:
        return str(self.classes[_at(number, len(self.classes))]["name"])

    def _layer(self, number: Any) -> Layer:
        return self._shown[_at(number, len(self._shown))]

    def _window(self, box: Sequence[Any]) -> Window:
        """A window that lies on the grid, of (top, left, bottom, right)."""
        top, left, bottom, right = map(int, box)
        if not (0 <= top < bottom <= self._size[1] and 0 <= left < right <= self._size[0]):
            raise ValueError(box)
        return slice(top, bottom), slice(left, right)


def _at(number: Any, count: int) -> int:
    """A place in a list, counted from its beginning."""
    if not isinstance(number, int) or not 0 <= number < count:
        raise IndexError(number)
    return number


def _number(value: Any) -> float:
    """A number; NaN of anything else."""
    try:
        return float(value) if isinstance(value, numbers.Real) else math.nan
    except OverflowError:
        return math.nan
