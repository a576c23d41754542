"""An outlook as files: chances as a map, everything as NetCDF, the likeliest tercile as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from models.baselines.seasons import METHODS, TERCILES, Hindcasts, Outlook
from models.files import draft_folder
from models.spec import ClassDef
from models.types import Array
from pipelines.forecasts.seasonal_skill import table, verdict
from pipelines.forecasts.seasonal_years import Case
from pipelines.outputs.geotiff import write_rows
from pipelines.outputs.layout import Layout
from pipelines.outputs.netcdf import grid_axes, write_netcdf
from pipelines.weather.regions import geobox
from pipelines.weather.units import quantities

CLEAR = 0.4  # chance from which the picture names a tercile: a third is what nothing known gives
RAINY = ("rain rate", "rain amount")

# Okabe, Ito (2008), Color universal design: blue and orange are told apart by every kind of colour vision.
BLUE, ORANGE, GREY, PALE = "#0072b2", "#e69f00", "#7f7f7f", "#ececec"


def write_outlook(
    out: Path, case: Case, outlook: Outlook, hindcasts: Hindcasts | None, result: Mapping[str, Any]
) -> None:
    """Write all files, or none."""
    chances = case.spread(outlook.chances(result["method"]))  # (3, H, W)
    tags = {
        "variable": case.target,
        "season": f"{result['season']} {case.year}",
        "known": result["known_month"],
        "method": result["method"],
        "skill": table(result),
    }
    layout = Layout.of_fields(geobox(case.grid), TERCILES, ["1"] * 3, tags=tags)
    with draft_folder(out, replaces="probabilities.tif") as folder:
        write_rows(folder / "probabilities.tif", [(0, chances)], layout)
        write_netcdf(folder / "outlook.nc", as_dataset(case, outlook, hindcasts, result))
        _picture(folder / "most_likely.png", case, chances, result)
        (folder / "skill.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def as_dataset(case: Case, outlook: Outlook, hindcasts: Hindcasts | None, result: Mapping[str, Any]) -> xr.Dataset:
    """The outlook by every method, the boundaries between terciles, and the RPSS of each cell where skill is told."""
    grid = ("lat", "lon")
    chances = np.stack([case.spread(outlook.chances(method)) for method in METHODS])
    bounds = case.spread(outlook.trend + outlook.terciles)
    coords = {
        "model": list(METHODS),  # not "method", which is an argument of xarray's sel
        "tercile": list(TERCILES),
        "boundary": ["lower", "upper"],
        **grid_axes(case.grid["lat"].values, case.grid["lon"].values),
    }
    unit = {"units": case.unit}
    fields: dict[str, Any] = {
        "probability": (("model", "tercile", *grid), chances, {"units": "1", "long_name": "chance of a tercile"}),
        "boundaries": (("boundary", *grid), bounds, {**unit, "long_name": f"{case.target} between terciles"}),
        "normal": (grid, case.spread(outlook.trend), {**unit, "long_name": f"{case.target} on its smooth trend"}),
    }
    if hindcasts:
        cells = np.stack([case.spread(hindcasts.by_cell(method)) for method in METHODS])
        fields["rpss"] = (
            ("model", *grid),
            cells,
            {"units": "1", "long_name": "RPSS over climatology and slow changes, past years"},
        )
    title = f"Outlook for {case.target}, {result['season']} {case.year}, from {result['known_month']}"
    return xr.Dataset(fields, coords, {"Conventions": "CF-1.11", "title": title, "comment": result["headline"]})


def _picture(path: Path, case: Case, chances: Array, result: Mapping[str, Any]) -> None:
    """A map of the most likely tercile, where its chance is 40 % or more, with a legend."""
    from pipelines.reports import plots

    wetter = any(quantity in RAINY for quantity in quantities(case.unit))  # more of it is, which is drawn in blue
    low, high = (ORANGE, BLUE) if wetter else (BLUE, ORANGE)
    names = zip((*TERCILES, f"none reaches {CLEAR:.0%}"), (low, GREY, high, PALE), strict=True)
    classes = [ClassDef(code, name, colour) for code, (name, colour) in enumerate(names)]
    filled = np.where(case.valid, chances, 0)
    likely = np.where(filled.max(axis=0) >= CLEAR, filled.argmax(axis=0), 3)
    image = plots.class_image(np.where(case.valid, likely, -1), classes)
    box = geobox(case.grid).boundingbox
    wide = min(max((box.right - box.left) / (box.top - box.bottom), 0.5), 2.5)
    figure = plots.figure(max(4.2 * wide, 5.0), 5.0)
    ax, below = figure.subplots(2, 1, height_ratios=(9, 1))
    plots.style(ax, ink="black")
    ax.imshow(image, interpolation="nearest", extent=(box.left, box.right, box.bottom, box.top))
    ax.set_xlabel("longitude (°E)")
    ax.set_ylabel("latitude (°N)")
    skill = table(result).split(": ", 1)[1] if not all(result["skill"].values()) else verdict(result)
    ax.set_title(f"{case.target}, {result['season']} {case.year}: most likely tercile\n{skill}", fontsize=10)
    plots.legend(below, classes)
    figure.savefig(path, facecolor="white", metadata={"Software": None})
