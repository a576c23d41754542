"""From a few labels to a map: what is learned, what is told, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.warp import transform
from shapely.geometry import Point, box
from sklearn.metrics import balanced_accuracy_score

from models.baselines import heads
from models.baselines.heads import Labelled
from models.confidence.calibration import Calibration
from models.errors import InputError, RunError
from pipelines.commands import points as command
from pipelines.outputs.categories import read_categories
from pipelines.points import points as module
from pipelines.points.ground import components_of
from pipelines.points.labels import CLUSTERS, EACH, clusters, read_points
from pipelines.points.points import points
from pipelines.points.worth import compared, worth
from tests.runs import BANDS, SPECTRA, write, write_map

CORNER, SIDE = (500000, 5000000), 80
NAMES = ("forest", "grass", "water")


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(heads, "TREES", 8)


def truth():
    """A class of each pixel, in squares of 8."""
    squares = np.random.default_rng(3).integers(3, size=(SIDE // 8, SIDE // 8))
    return squares.repeat(8, axis=0).repeat(8, axis=1)


def make_scene(path, *, noise=200, **how):
    bands = SPECTRA[truth()].transpose(2, 0, 1) + np.random.default_rng(4).normal(0, noise, (6, SIDE, SIDE))
    bands[:, :8, :8] = -9999
    how = {"names": BANDS, "nodata": -9999, "tags": {"ACQUISITION_DATE": "2021-06-15"}} | how
    return write(path, bands.clip(-9999, 9000).astype(np.int16), corner=CORNER, **how)


def places(each=12, *, seed=0):
    """Rows, columns and classes of pixels that have data."""
    rng, codes = np.random.default_rng(seed), truth()
    codes[:8, :8] = -1
    at = np.concatenate([rng.permutation(np.argwhere(codes == k))[:each] for k in range(3)])
    return at[:, 0], at[:, 1], codes[at[:, 0], at[:, 1]]


def degrees(rows, columns):
    x, y = CORNER[0] + 30 * (np.array(columns) + 0.5), CORNER[1] - 30 * (np.array(rows) + 0.5)
    return transform("EPSG:32632", "EPSG:4326", x, y)


def make_csv(path, rows, columns, classes, *, head="lon,lat,class", more=()):
    lines = [f"{lon},{lat},{name}" for lon, lat, name in zip(*degrees(rows, columns), classes, strict=True)]
    path.write_text("\n".join([head, *lines, *more]) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A scene, labels and a map of it with all that lies beside; not to be changed."""
    folder = tmp_path_factory.mktemp("points")
    scene = make_scene(folder / "scene.tif")
    rows, columns, codes = places()
    labels = make_csv(folder / "labels.csv", rows, columns, [NAMES[k] for k in codes])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "TREES", 8)
        return folder, scene, labels, points(str(scene), [labels], out=folder / "map.tif", ask=6)


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def test_a_map_is_right_and_says_how_sure_it_is(made):
    _, _, _, told = made
    codes, sure = read(told["map"]), read(told["confidence"])
    assert [(one.code, one.name) for one in read_categories(Path(told["map"]))] == [*enumerate(NAMES, 1)]
    assert (codes[:8, :8] == 0).all() and np.isnan(sure[:8, :8]).all()
    known = codes > 0
    assert known.sum() == SIDE**2 - 64 and told["valid"] == pytest.approx(1 - 64 / SIDE**2, abs=1e-6)
    right = codes[known] == truth()[known] + 1
    assert right.mean() > 0.9
    assert sure[known].min() >= 1 / 3 - 1e-5 and sure[known].max() <= 1
    assert sure[known][right].mean() > sure[known][~right].mean()
    assert told["scores"]["statistics alone"]["balanced_accuracy"] > 0.85
    assert told["scores"]["majority"]["balanced_accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    text = command.told(told, {}).text
    assert "groups left out, of labels near each other" in text and "12 forest, 12 grass, 12 water" in text


def test_the_same_bytes_come_again_whatever_is_read_at_once(made, tmp_path, monkeypatch):
    _, scene, labels, told = made
    monkeypatch.setattr(module, "STRIP", 16)
    again = points(str(scene), [labels], out=tmp_path / "map.tif", ask=6)
    np.testing.assert_array_equal(read(again["map"]), read(told["map"]))
    np.testing.assert_allclose(read(again["confidence"]), read(told["confidence"]), atol=1e-5)
    monkeypatch.undo()
    monkeypatch.setattr(heads, "TREES", 8)
    twice = points(str(scene), [labels], out=tmp_path / "map.tif", ask=6, overwrite=True)
    for kind in ("map", "confidence", "picture", "next"):
        assert Path(twice[kind]).read_bytes() == Path(told[kind]).read_bytes(), kind


def test_what_is_worth_a_label_comes_with_room_for_it(made, tmp_path):
    _, _, labels, told = made
    asked = geopandas.read_file(told["next"])
    assert len(asked) == told["asked"] == 6 and asked["class"].isna().all()
    x, y = transform("EPSG:4326", "EPSG:32632", asked.geometry.x, asked.geometry.y)
    rows, columns = ((CORNER[1] - np.array(y)) // 30).astype(int), ((np.array(x) - CORNER[0]) // 30).astype(int)
    codes, sure = read(told["map"])[rows, columns], read(told["confidence"])[rows, columns]
    assert [NAMES[code - 1] for code in codes] == asked["map_says"].tolist()
    np.testing.assert_allclose(sure, asked["confidence"], atol=6e-4)
    assert sure.max() < np.nanquantile(read(told["confidence"]), 0.1)
    filled = asked.assign(**{"class": [NAMES[k] for k in truth()[rows, columns]]})
    filled.to_file(tmp_path / "more.geojson")
    known = labels_of(labels, tmp_path / "more.geojson")
    assert sum(known.counts().values()) == 36 + 6
    assert {*zip(rows, columns, strict=True)} < {*zip(known.rows, known.columns, strict=True)}


def test_the_item_is_valid(made, valid):
    item = json.loads(Path(made[3]["item"]).read_text())
    valid(item)
    assert {*item["assets"]} == {"map", "confidence", "thumbnail"}
    assert item["links"][0]["href"] == "./scene.tif" and "labels.csv" in item["properties"]["processing:lineage"]
    assert item["assets"]["map"]["href"] == "./map.tif"


def make_tokens(path, values):
    """A raster of tokens, one of 16 pixels a side."""
    geobox = GeoBox(values.shape[1:], rasterio.Affine(480, 0, CORNER[0], 0, -480, CORNER[1]), "EPSG:32632")
    names = [f"frame 0 feature {i}" for i in range(len(values))]
    layout = {"geobox": geobox, "dtype": "float32", "bands": len(values), "nodata": float("nan")}
    return write_map(
        path, [(0, values.astype(np.float32))], **layout, descriptions=names, tags={"EARTHTUNE_BACKBONE": "x"}
    )


def test_whether_tokens_help_is_told(tmp_path):
    """Classes of large squares that bands do not tell: with tokens of them, and with tokens of noise."""
    rng = np.random.default_rng(0)
    large = rng.integers(2, size=(5, 5))
    scene = write(
        tmp_path / "s.tif", rng.integers(500, 3000, (6, SIDE, SIDE)).astype(np.int16), corner=CORNER, names=BANDS
    )
    rows, columns = rng.integers(SIDE, size=(2, 60))
    labels = make_csv(tmp_path / "l.csv", rows, columns, large[rows // 16, columns // 16] * 10 + 10)
    tokens = np.stack([large + rng.normal(0, 0.05, (5, 5)), rng.normal(0, 1, (5, 5))])
    made = make_tokens(tmp_path / "t.tif", tokens)
    told = points(str(scene), [labels], out=tmp_path / "m.tif", tokens=made)
    assert told["chosen"] == "tokens and statistics" and told["tokens_help"].startswith("Tokens help.")
    assert told["labels"].keys() == {"class 10", "class 20"}
    inside = (slice(4, 12), slice(4, 12))  # away from the tokens beside, between which values are bilinear
    codes = read(told["map"]).reshape(5, 16, 5, 16).swapaxes(1, 2)[:, :, *inside]
    assert (codes == (large * 10 + 10)[:, :, None, None]).mean() > 0.95
    noise = make_tokens(tmp_path / "n.tif", rng.normal(size=(2, 5, 5)))
    told = points(str(scene), [labels], out=tmp_path / "n2.tif", tokens=noise)
    assert not told["tokens_help"].startswith("Tokens help.")
    with pytest.raises(InputError, match="t.tif: holds tokens; give the scene"):
        points(str(made), [labels], out=tmp_path / "o.tif")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(made.read_bytes()[:-300])
    with pytest.raises(RunError, match="cut.tif: cannot be read"):
        points(str(scene), [labels], out=tmp_path / "o.tif", tokens=cut)
    with pytest.raises(InputError, match="wanted tokens, as `earthtune embed` writes them"):
        points(str(scene), [labels], out=tmp_path / "o.tif", tokens=scene)


def test_tokens_change_evenly_from_one_to_the_next(tmp_path):
    ramp = np.arange(5.0)[:, None].repeat(5, axis=1)
    found = components_of(make_tokens(tmp_path / "t.tif", ramp[None]))
    window = (slice(3, 77), slice(10, 20))
    got = found.onto(grid(), window)[0]
    wanted = np.interp(np.arange(3, 77) + 0.5, np.arange(5) * 16 + 8, (np.arange(5) - 2) / np.std(np.arange(5)))
    np.testing.assert_allclose(got * np.sign(got[-1, 0]), wanted[:, None].repeat(10, axis=1), atol=1e-5)


def test_confidence_is_calibrated_and_classes_stay(made, tmp_path, monkeypatch):
    _, scene, _, _ = made
    rows, columns, codes = places(5)
    labels = make_csv(tmp_path / "l.csv", rows, columns, codes > 0)
    maps = {}
    for temperature in (1.0, 3.0):
        monkeypatch.setattr(module, "calibration", lambda *_, t=temperature: Calibration(12, t, "said"))
        maps[temperature] = points(str(scene), [labels], out=tmp_path / f"{temperature:.0f}.tif", ask=0)
    raw, sure = (read(told["confidence"]).astype(float) for told in maps.values())
    root, other = raw ** (1 / 3), (1 - raw).clip(1e-6) ** (1 / 3)
    np.testing.assert_allclose(sure, root / (root + other), atol=1e-3)
    np.testing.assert_array_equal(*(read(told["map"]) for told in maps.values()))


def test_scores_are_those_of_scikit_learn_and_groups_are_drawn_whole():
    rng = np.random.default_rng(0)
    target = rng.integers(3, size=90)
    features = (rng.normal(size=(90, 5)) + 1.2 * np.eye(5)[target]).astype(np.float32)
    one = Labelled(features, target, rng.uniform(0.2, 2, 90), rng.integers(9, size=90), 3)
    found = worth(one)
    said = found.left_out.p.argmax(1)
    assert found.score == pytest.approx(balanced_accuracy_score(target, said, sample_weight=one.weight), abs=1e-4)
    low, high = found.to_json(9)["interval"]
    assert low < found.score < high and found.to_json(5)["interval"] is None
    whole = Labelled(features, target, one.weight, one.group % 3, 3)  # three groups: few different draws
    assert len(np.unique(worth(whole).draws.round(9))) <= 10 < len(np.unique(found.draws.round(9)))
    assert compared(found, found, 9).verdict == "level" and compared(found, found, 5).verdict == "unclear"


def grid():
    return GeoBox((SIDE, SIDE), rasterio.Affine(30, 0, CORNER[0], 0, -30, CORNER[1]), "EPSG:32632")


def labels_of(*paths, say=lambda line: None, **how):
    return read_points(paths, grid(), **{"column": None, "layer": None, "group": None, "say": say} | how)


def test_polygons_weigh_as_points_do_and_lie_where_they_lie(tmp_path):
    left, top = CORNER
    shapes = [
        box(left + 60, top - 150, left + 150, top - 90),  # rows 3 and 4, columns 2 to 4
        box(left + 1201, top - 1209, left + 1209, top - 1201),  # within pixel (40, 40)
        box(left + 300, top - 1500, left + 1500, top - 300),  # many pixels
        Point(left + 45, top - 2385),
        Point(left - 45, top - 45),
    ]
    about = {"code": [7, 7, 9, 9, 9], "place": ["a", "a", "b", "c", "c"]}
    table = geopandas.GeoDataFrame(about, geometry=shapes, crs="EPSG:32632")
    lines = []
    for name, crs in (("l.gpkg", "EPSG:3857"), ("l.geojson", "EPSG:4326"), ("l.fgb", "EPSG:32632")):
        table.to_crs(crs).to_file(tmp_path / name)
        found = labels_of(tmp_path / name, say=lines.append)
        assert [one.code for one in found.classes] == [7, 9] and found.named
        assert found.counts() == {"class 7": 2, "class 9": 2}
        first = [(r, c) for r, c in zip(found.rows, found.columns, strict=True) if r < 8]
        assert sorted(first) == [(3, 2), (3, 3), (3, 4), (4, 2), (4, 3), (4, 4)]
        assert {(40, 40), (79, 1)} <= {*zip(found.rows, found.columns, strict=True)} or name != "l.fgb"
        weights = [found.weight[found.item == i].sum() for i in np.unique(found.item)]
        np.testing.assert_allclose(weights, 1)
        assert np.bincount(found.item).max() == EACH
        assert len(np.unique(found.group)) == 3
    assert sum("1 of 5 labels lie outside" in line for line in lines) == 3


def test_a_table_has_degrees_or_the_coordinates_of_the_scene(tmp_path):
    rows, columns, codes = places(4)
    first = labels_of(make_csv(tmp_path / "a.csv", rows, columns, [NAMES[k] for k in codes]))
    x, y = CORNER[0] + 30 * (columns + 0.5), CORNER[1] - 30 * (rows + 0.5)
    lines = [f"{a};{b};{NAMES[k].upper()} ; s{k}" for a, b, k in zip(x, y, codes, strict=True)]
    (tmp_path / "b.csv").write_text("\ufeffX;Y;class;site\n" + "\n".join(lines), encoding="utf-8")
    second = labels_of(tmp_path / "b.csv")
    for name in ("rows", "columns", "target"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.counts() == {"forest": 4, "grass": 4, "water": 4} and not first.named
    assert [one.name for one in second.classes] == ["FOREST", "GRASS", "WATER"]
    assert second.named and np.array_equal(second.group, second.target)
    (tmp_path / "c.csv").write_text((tmp_path / "b.csv").read_text("utf-8").replace("GRASS", "GR\x1bASS"))
    assert labels_of(tmp_path / "c.csv").classes[1].name == "GR\\x1bASS"  # XML holds no such letter
    assert second.alone() == ["FOREST", "GRASS", "WATER"] and first.alone() == []


def test_groups_are_of_what_lies_near():
    rng = np.random.default_rng(0)
    middles = rng.uniform(0, 1000, (6, 2)) * (1, 3)
    of = rng.integers(6, size=500)
    found = clusters(middles[of] + rng.normal(0, 1, (500, 2)))
    assert len(np.unique(found)) <= CLUSTERS
    assert all(len({*of[found == one]}) == 1 for one in np.unique(found))
    assert len(np.unique(clusters(np.zeros((9, 2))))) == 1


def test_what_is_left_out_is_told(made, tmp_path):
    _, scene, _, _ = made
    rows, columns, codes = places(5)
    names = [NAMES[k] for k in codes]
    rows, columns = [*rows, 2, rows[0], 5], [*columns, 2, columns[0], -300]
    labels = make_csv(tmp_path / "l.csv", rows, columns, [*names, "water", "water", "water"], more=["9,45,"])
    lines = []
    told = points(str(scene), [labels], out=tmp_path / "m.tif", ask=0, say=lines.append)
    said = " ".join(lines)
    assert told["labels"] == {"forest": 4, "grass": 5, "water": 5} and told["asked"] == 0
    for text in (
        "1 labels have no class",
        "1 of 18 labels lie outside",
        "1 pixels are given two",
        "1 labels lie where",
    ):
        assert text in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lon,lat,class\n9.0005,45.145,a\n9.001,45.144,a\n", "labels of a on the scene; wanted two classes"),
        (
            "lon,lat,class\n9.0005,45.145,a\n9.001,45.144,a\n9.01,45.14,b\n",
            "b: 1 label on the scene; give each",
        ),
        ("lon,lat,class\n1,2,a\n2,3,b\n", "none of 2 labels lies on the scene"),
        ("lon,lat,class\nnan,2,a\n2,3,b\n", "line 2: 'nan' is no coordinate"),
        ("lon,lat,class\n9\n", "line 2: None is no coordinate"),
        ("lon,lat,class\n500000,4999000,a\n", "are to be degrees"),
        ("lon,lat,kind\n9,45,a\n", "wanted a column called class or label or code; it has lon, lat, kind"),
        ("a,b\n1,2\n", "wanted columns lon and lat"),
        ("", "wanted columns lon and lat"),
        ("lon,lat,class\n9.0005,45.145,\n", "no label has a class"),
        ("lon,lat,class\n9.0005,45.145,-1\n9.001,45.144,3\n", "holds -1; wanted codes"),
        ("lon,lat,class\n" + "".join(f"9.001,45.144,{i}\n" for i in range(101)), "holds 101 values"),
        (b"lon,lat,class\n9,45,\xff\n", "not UTF-8"),
        ('lon,lat,class\n9,45,"a\n9,45,b\n', "no table .unexpected end"),
        ("lon,lat,class,Class\n9,45,a,b\n", "two columns class"),
        ("lon,lat,class\n9,45," + "x" * 200_000, "no table .field larger"),
        ("lon,lat,class\n9,45," + "x" * 101, "101 letters; wanted names"),
    ],
)
def test_labels_that_no_map_can_be_made_of(made, tmp_path, content, message):
    path = tmp_path / "l.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        points(str(made[1]), [path], out=tmp_path / "m.tif")
    assert [one.name for one in tmp_path.iterdir()] == ["l.csv"]


def test_what_else_is_refused(made, tmp_path):
    folder, scene, labels, _ = made
    (tmp_path / "l.kml").write_text("x")
    bare = make_scene(tmp_path / "bare.tif").rename(tmp_path / "b.tif")
    with rasterio.open(scene) as file:
        write(bare, file.read(), crs=None, names=BANDS)
    for given, how, message in (
        ((scene, labels), {"out": folder / "map.tif"}, "map.tif: exists already"),
        ((scene, labels), {"out": tmp_path / "m.png"}, "wanted a name that ends in .tif"),
        ((scene, labels), {"out": scene, "overwrite": True}, "is read, and would be replaced"),
        ((bare, labels), {}, "the scene has none"),
        ((scene, tmp_path / "l.kml"), {}, "polygons are taken as"),
        ((scene, tmp_path / "none.csv"), {}, "no such file"),
        ((scene, labels), {"column": "kind"}, "no column kind"),
        ((scene, labels), {"group": "kind"}, "no column kind"),
        ((scene, labels), {"ask": -1}, "wanted 0 to 1000"),
    ):
        with pytest.raises(InputError, match=message):
            points(str(given[0]), [given[1]], **{"out": tmp_path / "m.tif"} | how)
    assert not (tmp_path / "m.tif").exists()
