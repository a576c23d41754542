"""A series in two NetCDF files, as the notebook takes a real one; and an update of files that grew."""

from __future__ import annotations

import datetime

import jupytext
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from notebooks.store import HERE
from pipelines.api import Reading, changes
from pipelines.mosaics.composite import open_dated
from tests.pipelines.changes.test_changes import BANDS, CLEARED, DAYS, SHAPE, SINCE, read, scene

FEW = DAYS[::2]  # a date in 48 days
EARLY = 23  # of them, up to the day before the clearing
PARTS = {"S2_10m.nc": BANDS[:1], "S2_20m.nc": BANDS[1:]}


def write_parts(folder, count):
    """Red in a file, the rest in another; no data is -10000, and neither says so."""
    rng = np.random.default_rng(4)
    x = np.stack([scene(day, rng, clouds=False) for day in FEW[:count]])
    x[::5, :3, 0] = -10000
    axes = {"y": np.arange(SHAPE[0])[::-1] * 30.0, "x": np.arange(SHAPE[1]) * 30.0}
    for name, bands in PARTS.items():
        fields = {band: (("time", "y", "x"), x[:, BANDS.index(band)]) for band in bands}
        cube = xr.Dataset(fields, {"time": np.array(FEW[:count], "datetime64[ns]"), **axes}, {"crs": "EPSG:32633"})
        cube.to_netcdf(folder / "draft", engine="h5netcdf")
        (folder / "draft").replace(folder / name)  # the file of before is open


def test_the_notebook_takes_a_real_series_and_an_update_what_came_to_its_files(tmp_path, monkeypatch, capsys):
    series = tmp_path / "series"
    series.mkdir()
    write_parts(series, EARLY)
    monkeypatch.chdir(tmp_path)
    for key, text in (("SERIES", str(series)), ("SINCE", SINCE), ("NODATA", "-10000")):
        monkeypatch.setenv(f"EARTHTUNE_{key}", text)
    notebook = jupytext.read(HERE / "09_when_did_this_forest_die.py")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    imports, _, rest = code.partition("sys.path.insert")
    exec(imports + rest[rest.index("real = os.environ") :], {})
    plt.gcf().canvas.draw()
    plt.close("all")
    watched = EARLY - sum(day < datetime.date(2023, 1, 1) for day in FEW)
    assert f"{EARLY - watched} dates of history, {watched} watched, {{}}" in capsys.readouterr().out
    write_parts(series, len(FEW))
    said, reading = [], Reading(nodata=-10000)
    told = changes([str(series)], out=tmp_path / "runs" / "real", update=True, reading=reading, say=said.append)
    assert told["dates"]["new"] == len(FEW) - EARLY and "left out" not in "".join(said)
    assert (read(told["files"]["map"])[0][CLEARED] == 2).mean() > 0.9


def test_a_damaged_file_hides_no_series(tmp_path):
    write_parts(tmp_path, 3)
    whole = (tmp_path / "S2_10m.nc").read_bytes()
    (tmp_path / "S2_60m.nc").write_bytes(whole[: len(whole) // 2])
    said = list[str]()
    scenes = open_dated(
        [str(tmp_path)], tmp_path / "out", (BANDS[:3], None), Reading(nodata=-10000, mask_clouds=False), said.append
    )
    assert len(scenes) == 3 and len(said) == 1 and "S2_60m.nc" in said[0]
