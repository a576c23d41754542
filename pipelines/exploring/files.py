"""Points and corrections as the files that `points`, `review` and `finetune` take."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.files import check_target, draft
from models.runtime.hashes import sha256_now
from models.spec import ClassDef
from pipelines.review import answers, beside, package

_MOST, _SIDE = 500, 32  # regions of a review and their side, where nobody says


def write_points(path: Path, points: Sequence[Mapping[str, Any]], *, overwrite: bool) -> None:
    """Write points with their class as a table or as shapes, in degrees.

    Raises:
        InputError: no name that ends in .csv or .geojson, or the file is there and not to be replaced.
        RunError: the disk does not take it.
    """
    shapes = path.suffix.lower() == ".geojson"
    check_target(path, ".geojson" if shapes else ".csv", overwrite=overwrite)
    text = _features(points) if shapes else _rows(points)
    with draft(path) as file:
        file.write_text(text, encoding="utf-8", newline="")


def write_corrections(
    path: Path, drawn: Sequence[answers.Answer], grid: GeoBox, map_file: Path, *, classes: Sequence[ClassDef]
) -> None:
    """Write drawn ground as the GeoPackage of a review of the map that has no regions.

    Args:
        path: the GeoPackage.
        drawn: polygons in the grid's system.
        grid: of the pictures that they were drawn on.
        map_file: the map that they correct.
        classes: of it.

    Raises:
        InputError: another program has the file open.
        RunError: the disk does not take it.
    """
    polygons = tuple(polygon for answer in drawn for polygon in answer.polygons)
    header = {"format": answers.FORMAT, "kind": "regions", "map": map_file.name, "hashes": _hashes(map_file)}
    reviewed = package.Reviewed(map_file.stem, grid, classes, (), header | {"most": _MOST, "side": _SIDE})
    said = {package.ELSEWHERE: answers.Answer(polygons=polygons)}
    package.write_package(path, reviewed, said, known=False)


def _hashes(map_file: Path) -> Mapping[str, str]:
    """Of the map, and of what a review of it would read."""
    try:
        return beside.open_map(map_file).hashes
    except InputError:  # a map that nothing lies beside
        return {"map": sha256_now(map_file)}


def _rows(points: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("lon", "lat", "class"))
    table.writerows((point["lon"], point["lat"], point["class"]) for point in points)
    return out.getvalue()


def _features(points: Sequence[Mapping[str, Any]]) -> str:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [point["lon"], point["lat"]]},
            "properties": {"class": point["class"]},
        }
        for point in points
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)
