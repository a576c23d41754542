"""The sample weather: the same on every run, small, and its rain where moist air flows together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.weather.dataset import open_weather

SAMPLES = Path(__file__).parents[2] / "sample_data"


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    out = tmp_path_factory.mktemp("weather")
    subprocess.run([sys.executable, SAMPLES / "make_weather.py", out], check=True)
    return out / "weather"


def both(folder):
    return [open_weather(sorted(folder.glob(f"*.{kind}_Nx.*.nc4"))) for kind in ("inst1_2d_asm", "tavg1_2d_flx")]


def test_committed_files_are_what_the_script_makes(remade):
    given = SAMPLES / "weather"
    assert sorted(p.name for p in remade.iterdir()) == sorted(p.name for p in given.iterdir())
    for one, two in zip(both(remade), both(given), strict=True):
        for name in one.data_vars:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
    assert sum(p.stat().st_size for p in given.iterdir()) < 800_000


def test_fields_are_within_what_weather_does_and_hourly():
    fields, rain = both(SAMPLES / "weather")
    assert (np.diff(fields.time.values) == np.timedelta64(3600, "s")).all() and fields.sizes["time"] == 48
    limits = {"SLP": (94000, 105000), "T2M": (240, 315), "TQV": (0, 70), "QV2M": (0, 0.03), "U10M": (-40, 40)}
    for name, (low, high) in limits.items():
        assert low < float(fields[name].min()) < float(fields[name].max()) < high
    amount = rain.PRECTOT.values * 3600
    assert amount.min() == 0 and 0.05 < (amount > 0.1).mean() < 0.4 and amount.max() < 60


def test_rain_falls_where_moist_air_flows_together():
    fields, rain = both(SAMPLES / "weather")
    amount = rain.PRECTOT.values * 3600
    km = 111.2e3
    inflow = -(
        np.gradient(fields.U10M.values, fields.lon.values * km * np.cos(np.radians(46)), axis=2)
        + np.gradient(fields.V10M.values, fields.lat.values * km, axis=1)
    )
    moist = fields.TQV.values > np.median(fields.TQV.values)
    inward = inflow > np.median(inflow)
    wet = amount > 0.1
    assert wet[moist & inward].mean() > 3 * wet[~moist & ~inward].mean()
    assert wet[moist & inward].mean() > wet[moist & ~inward].mean()
