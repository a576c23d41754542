"""Maps to pan and zoom in a notebook or a browser, without network: Leaflet and the pictures are inside the page.

The coordinate system is Web Mercator with the grid's middle as its meridian of origin, so that a map across the
antimeridian stays in one piece. Leaflet 1.9.4 lies in `leaflet/` with its licence (BSD-2-Clause).
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.spec import ClassDef
from pipelines.grids.tokens import Tokens, components
from pipelines.reports.plots import value_image

if TYPE_CHECKING:
    from folium import Map

Image = NDArray[np.uint8]

RADIUS = 6378137.0  # metres; of the sphere of Web Mercator
HEIGHT = 480  # pixels
LIMIT = math.degrees(math.atan(math.sinh(math.pi)))  # degrees north and south, 85.05: where Web Mercator ends
COMPONENTS = 32
FINE = 4  # pixels along a side of a token
NOWHERE = 65535  # the number of no token
_STYLE = (
    "position:absolute;bottom:24px;right:12px;z-index:1000;background:white;padding:8px 12px;border-radius:4px;"
    "box-shadow:0 1px 4px rgba(0,0,0,.4);font:13px/1.6 sans-serif;color:#1a1a1a"
)
_SWATCH = "display:inline-block;width:12px;height:12px;margin-right:8px;border:1px solid #888;background:"


def web_map(images: Mapping[str, Image], geobox: GeoBox, *, classes: Sequence[ClassDef] = (), title: str = "") -> Map:
    """Pictures of one grid as layers of an interactive map, the first at the bottom; a notebook shows what it returns.

    Args:
        images: (h, w, 4) uint8 by the name of the layer; transparent where there is no data.
        geobox: the grid, in any coordinate system.
        classes: for the legend.
        title: above the legend.

    Returns:
        A map; its `save` writes one HTML file that needs nothing beside it.

    Raises:
        InputError: folium is not installed, there is no picture; or as of `to_mercator`.
    """
    page = _page(images, geobox)
    rows = [f'<div><span style="{_SWATCH}{entry.colour}"></span>{_shown(entry.name)}</div>' for entry in classes]
    return _with_legend(page, title, rows) if classes else page


def similarity_map(image: Image, geobox: GeoBox, tokens: Tokens, *, lon: float, lat: float) -> Map:
    """A scene on which a click colours every token by how much it resembles the one under it.

    The page computes `tokens.similarity` itself, from the `COMPONENTS` leading components of the tokens.

    Args:
        image: picture of the scene, (h, w, 4) uint8.
        geobox: its grid.
        tokens: of the scene.
        lon: degrees east of the token that is chosen before the first click.
        lat: degrees north of it.

    Raises:
        InputError: as of `web_map`; the place is not one of a known token; or there are too many tokens.
    """
    tokens.at(lon, lat)
    page = _page({"scene": image}, geobox)
    data = similarity_data(tokens) | {"start": [lat, lon]}
    layer = f"const layer = earthtuneSimilarity({page.get_name()}, {json.dumps(data)});"
    switch = f'L.control.layers({{}}, {{"similarity": layer}}, {{collapsed: false}}).addTo({page.get_name()});'
    with_script(page, resources.files("pipelines.reports").joinpath("leaflet", "similarity.js"), f"{layer}{switch}")
    colours = ",".join(f"rgb({r},{g},{b})" for r, g, b, _ in data["ramp"][::51])
    bar = f'<div style="width:150px;height:10px;background:linear-gradient(to right,{colours})"></div>'
    return _with_legend(page, "Click: what resembles this?", [bar, "<div>unlike (−1) &rarr; alike (+1)</div>"])


def similarity_data(tokens: Tokens) -> dict[str, Any]:
    """What the page needs to tell how much tokens resemble each other, as plain JSON types; see `similarity.js`.

    Raises:
        InputError: more known tokens than the page has numbers for, or none.
    """
    known = tokens.known
    if known.sum() > NOWHERE:
        raise InputError(f"{known.sum()} tokens: a map of likeness holds up to {NOWHERE}; cut the scene")
    values, _ = components(tokens, min(COMPONENTS, len(tokens.values), int(known.sum())))
    rows = values[:, known].T  # (N, K)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    number = np.full(known.shape, NOWHERE, np.uint16)
    number[known] = np.arange(len(rows))
    # Numbers travel as two colours of a picture, on pixels fine enough that the edges of tokens keep their place.
    fine = number.repeat(FINE, axis=0).repeat(FINE, axis=1)
    picture = np.dstack([fine & 255, fine >> 8, np.zeros_like(fine), np.full_like(fine, 255)]).astype(np.uint8)
    placed, corners = to_mercator(picture, tokens.geobox.zoom_out(1 / FINE))
    numbers = np.where(placed[..., 3] > 0, placed[..., 0] + placed[..., 1].astype(np.uint16) * 256, NOWHERE)
    return {
        "numbers": _base64(numbers.astype("<u2")),
        "vectors": _base64(np.rint(unit * 127).astype(np.int8)),
        "size": rows.shape[1],
        "height": placed.shape[0],
        "width": placed.shape[1],
        "corners": corners,
        "ramp": value_image(np.linspace(-1, 1, 256)[None], low=-1, high=1)[0].tolist(),
    }


def with_script(page: Map, file: Traversable, call: str) -> None:
    """Give a map the definitions of a script, and let it run a line of code once it is there."""
    code = file.read_text(encoding="utf-8")
    root: Any = page.get_root()
    root.html.add_child(_verbatim(f'<script>{code}addEventListener("load", () => {{ {call} }});</script>'))


def _page(images: Mapping[str, Image], geobox: GeoBox) -> Map:
    """A map of pictures of one grid that fetches nothing."""
    folium = _folium()
    if not images:
        raise InputError("a map to zoom in wants a picture and there is none; give it the scene's")
    page: Map = folium.Map(tiles=None, control_scale=True, zoom_snap=0.25)
    page.default_js, page.default_css = [], []
    root: Any = page.get_root()
    root.header.add_child(_verbatim(_leaflet()), name="leaflet")
    root.height = f"{HEIGHT}px"
    for name, image in images.items():
        placed, corners = to_mercator(image, geobox)
        folium.raster_layers.ImageOverlay(placed, corners, name=_shown(name)).add_to(page)
    page.fit_bounds(corners)
    if len(images) > 1:
        folium.LayerControl(collapsed=False).add_to(page)
    return page


def _shown(text: str) -> str:
    """Text as HTML that shows it; without braces, since folium takes the names of layers for templates."""
    return html.escape(text).replace("{", "&#123;").replace("}", "&#125;")


def _verbatim(text: str) -> Any:
    """An element of a page that is this text: it is given to a template, never a part of one."""
    element = _folium().Element("{{ this.text }}")
    element.text = text
    return element


def _with_legend(page: Map, title: str, rows: Sequence[str]) -> Map:
    """The map with rows of HTML above its lower right corner."""
    head = f"<b>{_shown(title)}</b>" if title else ""
    text = f'<div class="legend" style="{_STYLE}">{head}{"".join(rows)}</div>'
    root: Any = page.get_root()
    root.html.add_child(_verbatim(text))
    return page


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def to_mercator(image: Image, geobox: GeoBox) -> tuple[Image, list[list[float]]]:
    """A picture on the grid that Leaflet draws it on: nearest pixels, so that colours stay those of the classes.

    What lies beyond `LIMIT` degrees north or south is cut off.

    Returns:
        The picture in Web Mercator, (H, W, 4), and the latitudes and longitudes of its corners, [[south, west],
        [north, east]]; beyond 180 degrees where the grid is.

    Raises:
        InputError: the grid has no coordinate system or lies wholly beyond `LIMIT`, or the picture is not on it.
    """
    from rasterio.enums import Resampling
    from rasterio.warp import reproject

    if geobox.crs is None:
        raise InputError("a map to zoom in wants a coordinate system and the grid has none; give the scene one")
    if image.shape != (*geobox.shape, 4):
        raise InputError(f"picture {image.shape}: wanted (h, w, 4) on a grid of {tuple(geobox.shape)}")
    middle = _moved(geobox, "EPSG:4326", [geobox.shape[1] / 2], [geobox.shape[0] / 2])[0][0]
    system = (
        f"+proj=merc +a={RADIUS} +b={RADIUS} +lat_ts=0 +lon_0={middle} +x_0=0 +y_0=0 +k=1 +units=m +nadgrids=@null "
        "+wktext +no_defs"
    )
    affine, (height, width) = _frame(geobox, middle)
    placed = np.zeros((4, height, width), np.uint8)
    source = {"src_transform": geobox.affine, "src_crs": geobox.crs.to_wkt()}
    target = {"dst_transform": affine, "dst_crs": system}
    reproject(np.moveaxis(image, -1, 0), placed, **source, **target, resampling=Resampling.nearest)
    corners = affine * (0, height), affine * (width, 0)
    ends = [[math.degrees(math.atan(math.sinh(y / RADIUS))), middle + math.degrees(x / RADIUS)] for x, y in corners]
    return np.moveaxis(placed, 0, -1), ends


def _frame(geobox: GeoBox, middle: float) -> tuple[Affine, tuple[int, int]]:
    """The upright grid that holds another, with pixels of about the same size on the ground; and its rows and columns.

    It ends where Web Mercator does. Sides of the other may bend, so that more of it than the corners is looked at.
    """
    height, width = (int(side) for side in geobox.shape)
    columns, rows = np.meshgrid(np.linspace(0, width, 21), np.linspace(0, height, 21))
    lon, lat = _moved(geobox, "EPSG:4326", columns.ravel(), rows.ravel())
    if lat.min() >= LIMIT or lat.max() <= -LIMIT:
        span = f"{lat.min():.2f} to {lat.max():.2f} degrees north"
        raise InputError(f"grid at {span}: a map to zoom in ends at {LIMIT:.2f}; draw it with `map_plots`")
    east = lon - middle
    east = np.where(np.abs(east) > 180 + 1e-6, (east + 180) % 360 - 180, east)  # ends of the world stay apart
    x, y = RADIUS * np.radians(east), RADIUS * np.arcsinh(np.tan(np.radians(lat.clip(-LIMIT, LIMIT))))
    one, other = 5 * 21 + 5, 15 * 21 + 15  # a quarter and three quarters of the way from corner to corner
    step = math.hypot(x[other] - x[one], y[other] - y[one]) / math.hypot(width / 2, height / 2)
    wide, high = np.ptp(x), np.ptp(y)
    shape = math.ceil(high / step), math.ceil(wide / step)
    return Affine(wide / shape[1], 0, x.min(), 0, -high / shape[0], y.max()), shape


def _moved(geobox: GeoBox, system: str, columns: Any, rows: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coordinates in another system of points given in pixels."""
    from rasterio.warp import transform

    crs: Any = geobox.crs
    points = [geobox.affine * point for point in zip(columns, rows, strict=True)]
    moved = transform(crs.to_wkt(), system, *([point[i] for point in points] for i in (0, 1)))
    return np.asarray(moved[0]), np.asarray(moved[1])


def _folium() -> Any:
    """The folium package."""
    try:
        import folium
    except ModuleNotFoundError as error:
        raise InputError("folium is not installed: pip install 'earthtune[notebooks]'") from error
    return folium


def _leaflet() -> str:
    """Leaflet's style and script as they stand in a page; its few icons, which are not used, are left out."""
    folder = resources.files("pipelines.reports").joinpath("leaflet")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("leaflet.css", "leaflet.js"))
    style = re.sub(r"url\([^)]*\)", "none", style)
    script = script.partition("//# sourceMappingURL")[0]
    return f"<style>{style}</style><script>{script}</script>"
