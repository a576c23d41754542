"""Alerts as polygons in a GeoPackage, with their reasons in words."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models import files
from models.types import Array
from pipelines.changes.alerts import CLASSES_OF, Alert
from pipelines.changes.series import EPOCH
from pipelines.outputs.geopackage import write_layer

LAYER = "alerts"
NEXT = 3  # dates from the change on, whose shared part is told
LITTLE = 0.02  # of an index or of reflectance; less is not worth a word


def reason(alert: Alert, days: NDArray[np.int64], centre: Array) -> str:
    """Why an alert is one: what of it changed by how much, and what its kind of ground did at that time.

    Args:
        alert: the alert.
        days: that were watched, since 1970 (T,).
        centre: what kinds share on them (T, F, K).
    """
    own = _moved(alert.sizes)
    since = (datetime.date.fromisoformat(alert.changed) - EPOCH).days
    near = centre[days >= since][:NEXT, :, alert.kind]
    known = near[np.isfinite(near).all(axis=1)]
    if not len(known):
        return f"local: {own}"
    sizes = {name: float(size) for name, size in zip(alert.sizes, known.mean(axis=0), strict=True)}
    moved = _moved({name: size for name, size in sizes.items() if abs(size) >= LITTLE})
    return f"local: {own}, {f'beside what all of its kind did: {moved}' if moved else 'and its kind did not change'}"


def _moved(sizes: Mapping[str, float]) -> str:
    """Changes in words."""
    return " and ".join(f"{name} {'fell' if size < 0 else 'rose'} by {abs(size):.2f}" for name, size in sizes.items())


def write_alerts(path: Path, alerts: Sequence[Alert], features: Sequence[str], geobox: GeoBox) -> None:
    """Write all alerts, those that were taken back among them; replaces the file of an earlier update.

    Raises:
        RunError: the disk does not take it.
    """
    import geopandas
    import shapely

    assert geobox.crs is not None  # others are not watched
    columns = _columns(alerts, features)
    shapes = shapely.from_wkb([alert.outline for alert in alerts])
    table = geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=geobox.crs.to_wkt())
    with files.draft(path) as draft:
        write_layer(path, draft, table, LAYER, geometry_type="MultiPolygon")


def _columns(alerts: Sequence[Alert], features: Sequence[str]) -> Mapping[str, Any]:
    """Columns of the layer, of their types also where there is no alert."""
    import pandas

    text = ("name", "status", "changed", "last", "before", "confirmed", "ended", "reason", "weather", *CLASSES_OF)
    columns = {name: pandas.Series([getattr(one, name) for one in alerts], dtype="object") for name in text}
    for name in ("number", "pixels", "kind"):
        columns[name] = pandas.Series([getattr(one, name) for one in alerts], dtype="int64")
    for name in ("hectares", "probability"):
        columns[name] = pandas.Series([getattr(one, name) for one in alerts], dtype="float64")
    sizes = {f"size_{name.lower()}": [one.sizes[name] for one in alerts] for name in features}
    return columns | {name: pandas.Series(size, dtype="float64") for name, size in sizes.items()}
