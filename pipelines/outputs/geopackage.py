"""GeoPackages: layers written with errors of the disk told in one line, and the styles that QGIS takes for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import RunError
from pipelines.grids.rasters import check_name

_MADE = "2000-01-01T00:00:00.000Z"  # whenever it is made: the same content is the same bytes
ADVICE = "see that the disk has space, and run again"


def write_layer(path: Path, draft: Path, table: Any, layer: str, *, advice: str = ADVICE, **options: Any) -> None:
    """Write a table to a layer.

    Args:
        path: the file as a person knows it.
        draft: the file that is written.
        table: a data frame, with a geometry or without.
        layer: the layer's name.
        advice: what to do where the disk does not take it.
        options: see `pyogrio.write_dataframe`.

    Raises:
        InputError: the file's name means another.
        RunError: the disk does not take it.
    """
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

    check_name(path)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _MADE})
    try:
        pyogrio.write_dataframe(table, draft, layer=layer, driver="GPKG", **options)
    except (DataLayerError, DataSourceError, FeatureError, GeometryError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path}: {layer} could not be written ({reason}); {advice}") from error
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def write_styles(path: Path, draft: Path, forms: Mapping[str, str], name: str, *, advice: str = ADVICE) -> None:
    """Write the table in which QGIS looks for styles and forms (QML) of layers, by their names; raises as the above."""
    import pandas

    blank = dict.fromkeys(("f_table_catalog", "f_table_schema", "styleSLD", "description", "owner", "ui"), "")
    rows = [
        {"f_table_name": layer, "f_geometry_column": "geom", "styleName": name, "styleQML": form}
        | blank
        | {"useAsDefault": True, "update_time": pandas.Timestamp(_MADE)}
        for layer, form in forms.items()
    ]
    write_layer(path, draft, pandas.DataFrame(rows), "layer_styles", advice=advice, layer_options={"FID": "id"})
