"""run_edge.py, alone with its three packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from packaging.requirements import Requirement

from pipelines.edge.site import write_site
from tests.pipelines.edge.scenes_to_map import cropped, make_scene, read, scored, tempered
from tests.runs import BANDS, make_chip, write

THREE = ("onnxruntime", "numpy", "rasterio")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="no onnxruntime")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with the three packages, and what these say that they need; nothing else can be imported."""
    folder, waiting, seen = tmp_path_factory.mktemp("packages"), [*THREE], set()
    while waiting:
        name = waiting.pop()
        found = importlib.metadata.distribution(name)
        seen.add(name)
        for file in {Path(str(file)).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            link = folder / file
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(file))))
        needs = map(Requirement, found.requires or ())
        waiting += [n.name for n in needs if n.name not in seen and (not n.marker or n.marker.evaluate({"extra": ""}))]
    return folder


@pytest.fixture(scope="module")
def site(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_site(tempered(run, folder / "run"), folder / "site")
    return folder / "site"


def mapped(alone, site, *words):
    start = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(0); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-I", "-S", "-c", start, str(alone), str(site / "run_edge.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=site.parent, timeout=120)


@pytest.mark.parametrize("rows", [75, 21])
def test_the_maps_are_those_of_score(site, alone, tmp_path, rows):
    scene, out = cropped(make_scene(tmp_path / "whole.tif"), tmp_path / "scene.tif", rows), tmp_path / "out"
    out.mkdir()
    wanted = scored(site.parent / "run", scene, tmp_path / "score")
    more = ("--confidence", out / "c.tif", "--unfamiliar", out / "u.tif", "--threads", "1")
    done = mapped(alone, site, scene, out / "m.tif", *more)
    assert done.returncode == 0, done.stderr
    assert (read(out / "m.tif") == wanted["map"]).mean() >= 0.999 and len(np.unique(wanted["map"])) >= 3
    for kind, file in (("confidence", "c.tif"), ("unfamiliar", "u.tif")):
        found = read(out / file)
        assert np.array_equal(np.isnan(found), np.isnan(wanted[kind]))
        assert np.nanmax(np.abs(found - wanted[kind])) < 1e-4
    with rasterio.open(out / "m.tif") as made, rasterio.open(scene) as source:
        assert (made.crs, made.transform, made.nodata) == (source.crs, source.transform, 0)
        assert made.colormap(1)[10][:3] == (0, 0x64, 0)
    assert sorted(path.name for path in out.iterdir()) == ["c.tif", "m.tif", "u.tif"]


def test_nothing_of_ours_is_in_reach(alone, site):
    start = "import sys; sys.path.insert(0, sys.argv[1]); import models"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start, str(alone)], capture_output=True, check=False)
    assert b"No module named 'models'" in done.stderr


@pytest.mark.parametrize(
    "change, words, why",
    [
        ({"names": None}, (), "nothing names its 6 bands"),
        ({"names": (*BANDS[:5], "CIRRUS")}, (), "band SWIR_2 is wanted, it has BLUE"),
        ({"names": (*BANDS[:5], BANDS[0])}, (), "band SWIR_2 is wanted"),
        ({"tags": {}}, (), "--date gives it"),
        ({"crs": None}, (), "no coordinate system"),
        ({}, ("--scale", "1"), "its values are no reflectance"),
        ({}, ("--model", "int8"), "wanted one of f32"),
        ({}, ("--bands", "a,b"), "2 names were given"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(alone, site, tmp_path, change, words, why):
    given = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2021-06-15"}, "nodata": -9999} | change
    scene = write(tmp_path / "scene.tif", make_chip(1)[0], **given)
    done = mapped(alone, site, scene, tmp_path / "m.tif", *words)
    assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_no_map_is_written_over_and_no_file_that_was_changed_is_run(alone, site, tmp_path):
    (tmp_path / "m.tif").write_text("mine")
    scene = make_scene(tmp_path / "scene.tif")
    done = mapped(alone, site, scene, tmp_path / "m.tif")
    assert done.returncode == 2 and "exists already" in done.stderr and (tmp_path / "m.tif").read_text() == "mine"
    (tmp_path / "site").mkdir()
    for path in site.iterdir():
        (tmp_path / "site" / path.name).write_bytes(path.read_bytes())
    about = json.loads((site / "site.json").read_text()) | {"overlap": 0}
    (tmp_path / "site" / "site.json").write_text(json.dumps(about))
    done = mapped(alone, tmp_path / "site", scene, tmp_path / "n.tif")
    assert done.returncode == 2 and "copy the whole site again" in done.stderr


def test_values_are_mapped_as_score_maps_them(value_run, alone, tmp_path):
    site = tmp_path / "site"
    write_site(value_run, site)
    scene = make_scene(tmp_path / "scene.tif")
    wanted = scored(value_run, scene, tmp_path / "score", classes=False)["map"]
    done = mapped(alone, site, scene, tmp_path / "m.tif", "--threads", "1")
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "m.tif")
    assert np.array_equal(np.isnan(found), np.isnan(wanted)) and np.nanmax(np.abs(found - wanted)) < 0.05
    with rasterio.open(tmp_path / "m.tif") as made:
        assert (made.descriptions, made.units, np.isnan(made.nodata)) == (("biomass",), ("Mg/ha",), True)
    assert mapped(alone, site, scene, tmp_path / "n.tif", "--confidence", tmp_path / "c.tif").returncode == 2
