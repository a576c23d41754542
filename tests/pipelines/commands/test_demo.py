"""The demo, cut short: it writes what it says."""

from __future__ import annotations

import rasterio
from PIL import Image

from pipelines.commands.demo import SAMPLES, demo


def test_demo_makes_map_picture_and_report(tmp_path):
    result = demo(out=tmp_path / "demo", epochs=1)
    assert set(result["accuracy"]) == {"model", "majority", "pixel forest"}
    with rasterio.open(result["map"]) as made, rasterio.open(SAMPLES / "new_scene" / "new_scene_hls.tif") as given:
        assert made.transform == given.transform and made.crs == given.crs
        assert set(made.read(1).ravel()) <= {0, 10, 30, 40, 50, 80}
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 50_000
    with Image.open(tmp_path / "demo" / "demo.png") as picture:  # its text is black, and so would a page behind it be
        assert picture.convert("RGBA").getextrema()[3] == (255, 255)
    assert "report.html" in result["report"]
