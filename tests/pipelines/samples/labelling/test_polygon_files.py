"""Polygon files that are not what their names say."""

import json
from pathlib import Path

import geopandas
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import box

from models.errors import InputError
from pipelines.samples.labelling.labels import read_labels
from pipelines.samples.labelling.polygon_files import check_polygons

GRID = GeoBox((8, 8), Affine(10, 0, 500000, 0, -10, 5000000), "EPSG:32632")
WHOLE = (slice(0, 8), slice(0, 8))


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.gpkg"
    geopandas.GeoDataFrame({"code": [3]}, geometry=[box(500000, 4999920, 500080, 5000000)], crs="EPSG:32632").to_file(
        path
    )
    return path


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".json", ".shp", ".fgb"])
def test_other_formats_under_these_names_are_refused(tmp_path, secret, suffix):
    layer = f'<OGRVRTLayer name="secret"><SrcDataSource>{secret}</SrcDataSource></OGRVRTLayer>'
    (tmp_path / f"a{suffix}").write_text(f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>")
    with pytest.raises(
        InputError, match=rf"a\{suffix}: not a polygon file that can be read: begins as no \{suffix} does"
    ):
        read_labels(tmp_path / f"a{suffix}", GRID, WHOLE, codes=[3])


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".json", ".shp", ".fgb"])
def test_polygons_of_every_format_are_read(tmp_path, secret, suffix):
    driver = {"driver": "GeoJSON"} if suffix == ".json" else {}
    geopandas.read_file(secret).to_file(tmp_path / f"a{suffix}", **driver)
    assert (read_labels(tmp_path / f"a{suffix}", GRID, WHOLE, codes=[3]) == 0).all()


def test_what_is_no_polygon_is_one_line(tmp_path):
    shape = {"type": "Polygon", "coordinates": [[[500000, 4999920]]]}
    feature = {"type": "Feature", "properties": {"code": 3}, "geometry": shape}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(InputError, match=r"a\.geojson: holds what is no polygon") as refused:
        read_labels(tmp_path / "a.geojson", GRID, WHOLE, codes=[3])
    assert "\n" not in str(refused.value)


LINK = {"type": "link", "properties": {"href": "http://127.0.0.1:9/crs"}}
FAR = json.dumps(LINK)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (f'"crs": {FAR}', True),
        (f'"CRS"  :  {FAR}', True),
        (f"'crs': {FAR}", True),
        (f'"c\\u0072s": {FAR}', True),
        (f'"crs"/**/: {FAR}', True),
        (f'"crs":/**/{FAR}', True),
        ('"crs": {"type": "URL", "properties": {"url": "http://127.0.0.1:9/"}}', True),
        ('"crs": {"type": "li\\u006ek"}', True),
        ('"crs": {"a": "' + "x" * 5000 + '"}', True),
        ('"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}', False),
        ('"crs": null, "name": "crs", "x": ["crs"]', False),
        ('"properties": {"crs": "EPSG:4326", "type": "link", "caf\\u00e9": "\\u003c"}', False),
    ],
)
def test_a_coordinate_system_that_is_an_address_is_not_asked(tmp_path, text, refused):
    from pipelines.samples.labelling.polygon_files import check_polygons

    (tmp_path / "a.geojson").write_text(f'{{"type": "FeatureCollection", {text}, "features": []}}')
    if not refused:
        return check_polygons(tmp_path / "a.geojson")
    with pytest.raises(InputError, match=r"a\.geojson: its coordinate system is an address"):
        check_polygons(tmp_path / "a.geojson")


@pytest.mark.parametrize("name", ["a!b.gpkg", "a;b.gpkg", "http:/host/b.gpkg"])
def test_a_name_that_would_be_read_as_another_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(b"SQLite format 3\0")
    with pytest.raises(InputError, match="means another file to the reader; rename it"):
        check_polygons(Path(name))
