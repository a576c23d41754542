"""The scores, curves and example maps of a run as one report.html that needs nothing beside it.

The page holds its pictures itself, loads nothing, runs no script and follows the reader's light or dark setting.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import RunError
from models.files import replacing
from pipelines.reports import plots
from pipelines.reports.measures import WITH_UNIT, Shown, View, best_baseline, named, table, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INKS = {"light": "#1f2328", "dark": "#e8eaed"}  # the template's text colours
Draw = Callable[["Figure", str], object]

# What the template shows of some runs only, and the colours of its text.
PARTS: View = {
    "per_class": [],
    "confusion": None,
    "examples": [],
    "scale": None,
    "agreement": None,
    "charts": [],
    "tokens": None,
    "inputs": None,
    "confidence": None,
    "groups": None,
    "corrections": [],
    "student": None,
    "cost": None,
}
PARTS |= {"inks": INKS, "counted": "pixels", "legend": []}


def write_report(
    path: Path,
    *,
    title: str,
    shown: Shown,
    facts: Mapping[str, str],
    headline: str,
    scores: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    curves: Sequence[Mapping[str, float | None]],
    parts: View,
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a run; afterwards `path` holds the whole page or what it held before.

    Args:
        path: the file to write, such as RUN/report.html; its folder exists.
        title: of the page.
        shown: which scores are shown.
        facts: what was trained on what, in order of appearance.
        headline: how the model does beside the best baseline, see `measures.headline`.
        scores: the model's.
        baselines: the same by the name of each baseline, scored on the same split.
        curves: the training log, a row per epoch; columns train_* and val_* are drawn, any may be missing.
        parts: what a task shows of itself, some of `PARTS`.
        notes: what limits these numbers, a sentence each.

    Raises:
        RunError: the file cannot be written.
    """
    best = best_baseline(shown.said[0], baselines)
    view = PARTS | {
        "title": title,
        "facts": facts,
        "headline": headline,
        "tiles": tiles(shown, scores, best, baselines),
        "table": table(shown, scores, baselines),
        "bars": _bars(shown, scores, baselines),
        "best": best,
        "curves": curve_charts(curves),
        "notes": notes,
    }
    text = render(view | parts)
    try:
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: the report cannot be written ({error}); give a folder that can be written") from error


def chart(draw: Draw, *, width: float, height: float, alt: str) -> View:
    """Draw a figure once for light and once for dark pages.

    Args:
        draw: called with an empty figure and the colour of its text.
        width: in inches; the page shows 96 pixels to the inch where there is room.
        height: in inches.
        alt: what the picture shows, for those who cannot see it.
    """
    pictures = {page: _data_uri(_rendered(draw, (width, height), ink)) for page, ink in INKS.items()}
    return {**pictures, "alt": alt, "width": round(width * 96), "height": round(height * 96)}


def _rendered(draw: Draw, size: tuple[float, float], ink: str) -> bytes:
    """A figure as PNG, drawn once, where `savefig` lays it out by drawing it once more."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, buffer = plots.figure(*size), io.BytesIO()
    draw(figure, ink)
    with warnings.catch_warnings():
        # A script that the font lacks shows as boxes in a chart; the page's own text beside it spells the name.
        warnings.filterwarnings("ignore", message="Glyph")
        FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call] # matplotlib leaves it untyped
    return buffer.getvalue()


def plotted(plot: Callable[..., object], *, width: float, height: float, alt: str) -> View:
    """A chart of one plot: a function, such as those of `plots`, of axes and `ink`; see `chart`."""
    return chart(lambda figure, ink: plot(figure.add_subplot(), ink=ink), width=width, height=height, alt=alt)


def _data_uri(png: bytes) -> str:
    """A PNG as the text of an image's address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def png(image: NDArray[np.uint8]) -> str:
    """An image, pixel for pixel, as the text of an image's address."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(image), format="png")
    return _data_uri(buffer.getvalue())


def image_file(path: Path, *, alt: str = "") -> View:
    """A PNG file as `chart` gives one, the same for light and dark pages."""
    data = path.read_bytes()
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))  # of its header
    uri = _data_uri(data)
    return {"light": uri, "dark": uri, "alt": alt, "width": width, "height": height}


def _bars(shown: Shown, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> View:
    """The scores that share a scale, as bars."""
    keys = {key: named(key, shown.unit) for key in shown.bars}
    columns = {"model": scores, **baselines}
    height = 0.7 + 0.22 * len(columns) * len(keys)
    bars = partial(plots.scores_bars, scores=columns, keys=keys)
    return plotted(bars, width=4.6, height=height, alt="Scores of the model and the baselines as bars")


def curve_charts(table: Sequence[Mapping[str, float | None]]) -> list[View]:
    """The losses, the errors with a unit, and the scores of the log, a chart each where there are any."""
    keys = sorted({key for row in table for key in row if key.startswith(("train_", "val_"))})
    groups: dict[str, list[str]] = {"loss": [], "error": [], "score": []}
    for key in keys:
        kind = "loss" if key.endswith("loss") else "error" if key.endswith(WITH_UNIT) else "score"
        groups[kind].append(key)
    drawn = {kind: partial(plots.curves, table=table, keys=columns, label=kind) for kind, columns in groups.items()}
    told = {kind: f"{', '.join(columns)} by epoch" for kind, columns in groups.items() if columns}
    return [plotted(drawn[kind], width=5.2, height=2.9, alt=text) for kind, text in told.items()]


def render(view: View, template: str = "report.html.j2") -> str:
    """The page as text, by a template of this folder; every text from outside is escaped."""
    import jinja2

    pages = resources.files("pipelines.reports")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: pages.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(view)
