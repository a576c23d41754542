"""The demo, cut short and with small baselines: it writes what it says, asks nobody and leaves nothing else."""

from __future__ import annotations

import json

import rasterio
from PIL import Image

from pipelines.commands.demo import SAMPLES


def test_demo_makes_map_picture_and_report(guarded, tmp_path):
    done, asked, left = guarded("-m", "tests.small", "demo", "--epochs", "1", "--json")
    assert (done.returncode, asked, left) == (0, "", []), done.stderr
    result = json.loads(done.stdout)
    assert set(result["accuracy"]) == {"model", "majority", "pixel forest", "boosting on neighbourhoods"}
    scene = SAMPLES / "new_scene" / "new_scene_hls.tif"
    with rasterio.open(tmp_path / result["map"]) as made, rasterio.open(scene) as given:
        assert made.transform == given.transform and made.crs == given.crs
        assert set(made.read(1).ravel()) <= {0, 10, 30, 40, 50, 80}
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 50_000
    with Image.open(tmp_path / "demo" / "demo.png") as picture:  # its text is black, and so would a page behind it be
        assert picture.convert("RGBA").getextrema()[3] == (255, 255)
    assert "report.html" in result["report"]
