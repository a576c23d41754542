"""Live fuel moisture of the Presto repository (nasaharvest/presto, MIT) as a table for the recipe fuel_moisture.

The folder holds s1_s2_era5_srtm.npy (samples, months, channels), target.npy, month.npy, latlon.npy, site.npy and
is_test.npy: python sample_data/fuel_moisture.py FOLDER fuel_moisture.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from models.files import replacing

CHANNELS = (
    *("VV", "VH", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3", "NIR_BROAD", "NIR_NARROW"),
    *("WATER_VAPOR", "SWIR_1", "SWIR_2", "T2M", "TP", "ELEVATION", "SLOPE", "NDVI"),
)
STATIC = ("ELEVATION", "SLOPE")


def convert(folder: Path, out: Path) -> None:
    """Write the samples as a CSV, a row each; a channel of several months has a column for each, VV_1, VV_2, VV_3."""
    values = np.load(folder / "s1_s2_era5_srtm.npy")  # (N, 3, 18)
    others = {name: np.load(folder / f"{name}.npy") for name in ("target", "month", "latlon", "site", "is_test")}
    months = range(values.shape[1])
    columns = {"site": others["site"], "split": np.where(others["is_test"] > 0, "test", "train")}
    columns |= {"latitude": others["latlon"][:, 0], "longitude": others["latlon"][:, 1]}
    columns |= {"month": others["month"][:, -1] + 1, "fuel_moisture": others["target"]}  # months count from 0
    for i, name in enumerate(CHANNELS):
        steps = [(name, 0)] if name in STATIC else [(f"{name}_{month + 1}", month) for month in months]
        columns |= {column: values[:, month, i] for column, month in steps}
    with replacing(out) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
