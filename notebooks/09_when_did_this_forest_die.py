# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9. When did this forest die?
#
# A wood looks other in May than in March, other in a dry summer than in a wet one, and other through haze. `changes`
# holds each pixel against its own earlier years, takes off what all ground of its kind does on a date, and waits for
# three clear dates that agree. It needs no labels, no training and no run.
#
# The series is **made** (`sample_data/make_series.py`): woods, grass, fields, clouds, haze, two sensors, and in 2022 a
# drought. In it trees were felled and burnt on days that we know. So we know what should come out.

# %%
import datetime
import os
import sys
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rasterio
from IPython.display import HTML
from scipy.ndimage import binary_dilation

from pipelines.api import Reading, changes

sys.path.insert(0, "../sample_data")
import make_series

SERIES, OUT = Path("runs/series"), Path("runs/watched")
plan = make_series.Plan(
    seed=5, shape=(72, 72), first=datetime.date(2020, 1, 1), years=4, step=16, clearings=5, thinnings=1, burns=1
)
place = make_series.main(SERIES, plan)
scenes = sorted(SERIES.glob("*_hls.tif"))
print(f"{len(scenes)} scenes from {scenes[0].name[:8]} to {scenes[-1].name[:8]}, {len(place.what)} changes")

# %% [markdown]
# ## What a pixel of wood tells
#
# The greenness (NDVI) of two pixels of wood, on the dates when no cloud was over them: one stayed, one was felled. Each
# scene comes with its cloud mask. One date tells little: the felled one is hardly lower than the other was in winter.

# %%
clearings = [number for number, what in place.what.items() if what == "clearing"]
felled = min(clearings, key=lambda number: place.changed[place.change == number][0])
row, col = np.argwhere(place.change == felled)[12]
stay = np.argwhere((place.kind == place.kind[row, col]) & (place.change == 0))[0]
curves = {"felled": (row, col), "stayed": tuple(stay)}
seen = {name: [] for name in curves}
for path in scenes:
    with rasterio.open(path) as bands, rasterio.open(str(path).replace("hls", "fmask")) as mask:
        red, nir, clear = bands.read(3), bands.read(4), mask.read(1) == 0
    for name, at in curves.items():
        ndvi = (nir[at] - red[at]) / (nir[at] + red[at]) if clear[at] else np.nan
        seen[name].append((pd.Timestamp(path.name[:8]), ndvi))
figure, ax = plt.subplots(figsize=(11, 3), layout="constrained")
for (name, values), colour in zip(seen.items(), ("#c01828", "#2b7a3d"), strict=True):
    table = pd.DataFrame(values, columns=["date", "ndvi"]).dropna()
    ax.plot(table["date"], table["ndvi"], "o-", color=colour, label=name, markersize=4, linewidth=1)
day = pd.Timestamp("1970-01-01") + pd.Timedelta(days=int(place.changed[row, col]))
ax.axvline(day, color="#888888", linestyle="--", linewidth=1)
ax.set_ylabel("NDVI")
legend = ax.legend(frameon=False)

# %% [markdown]
# ## Watch the place
#
# The years before 2022 are its history (two at least; under two the command refuses, and says why), and all since is
# watched. `rate` is the share of unchanged pixels that may be falsely alarmed in a year.

# %%
told = changes([str(SERIES)], out=OUT, since="2022-01-01", rate=0.01, overwrite=True)
print(f"{told['dates']['history']} dates of history, {told['dates']['watched']} watched")
alerts = geopandas.read_file(OUT / "changes.gpkg")
columns = ["name", "changed", "confirmed", "hectares", "size_ndvi", "reason"]
HTML(alerts[columns].sort_values("hectares", ascending=False).to_html(index=False))

# %% [markdown]
# An alert has the first day of the change, the day that confirmed it (here the last, for all dates came at once), its
# hectares, and the reason in words: what the place did, and what its kind of ground did meanwhile. A drought is in the
# second part. What rose is not wood that died: NDVI says which way.

# %%
with rasterio.open(OUT / "changes.tif") as file:
    found = file.read(1)
with rasterio.open(OUT / "changes_map.tif") as file:
    codes = file.read(1)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", sharey=True)
for ax, days, title in zip(axes, (place.changed, found * (codes == 2)), ("truth", "found"), strict=True):
    days = np.where(np.nan_to_num(days) > 0, np.nan_to_num(days), np.nan)
    shown = ax.imshow(days, cmap="viridis", vmin=make_series._day(plan.changes_from), vmax=float(plan.days[-1]))
    ax.set_title(f"day of the change: {title}")
    ax.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
bar = figure.colorbar(shown, ax=axes, shrink=0.8)
ticks = pd.to_datetime(["2022-01-01", "2022-07-01", "2023-01-01", "2023-07-01"])
bar.set_ticks((ticks - pd.Timestamp("1970-01-01")).days, labels=[f"{tick:%b %Y}" for tick in ticks])

# %% [markdown]
# ## Was it found, and how soon?
#
# Days from the true day to the day that is told: a change is told by the first date that shows it, which a cloud may
# put off. Around a change lie pixels of which it took a part; they are left out of the false alarms.

# %%
rows = []
for number, what in place.what.items():
    here = place.change == number
    hit = here & (codes == 2)
    late = np.median(found[hit] - place.changed[hit]) if hit.any() else np.nan
    rows.append({"what": what, "share found": hit.sum() / here.sum(), "days late": late})
quiet = ~binary_dilation(place.change > 0, iterations=2) & (codes > 0)
print(f"falsely alarmed in two years: {(codes == 2)[quiet].mean():.1%} of the unchanged pixels")
pd.DataFrame(rows).round(2)

# %% [markdown]
# ## A real one
#
# `EARTHTUNE_SERIES` names a folder of real scenes, or of NetCDF files with a date for each scene; `EARTHTUNE_SINCE` the
# first day to watch. Of files that do not say what has no data, `EARTHTUNE_NODATA` does. What all ground of a kind
# does, in a drought or where all of a wood dies, is told of the kind, beside what pixels did by themselves.

# %%
real = os.environ.get("EARTHTUNE_SERIES")
if real:
    since, nodata = os.environ.get("EARTHTUNE_SINCE", "2018-01-01"), os.environ.get("EARTHTUNE_NODATA")
    reading = Reading(nodata=float(nodata) if nodata else None)
    told = changes([real], out=Path("runs/real"), since=since, reading=reading, overwrite=True)
    print(f"{told['dates']['history']} dates of history, {told['dates']['watched']} watched, {told['alerts']}")
    for kind in told["kinds"]:
        sizes = ", ".join(f"{name} {size:+.2f}" for name, size in kind["sizes"].items())
        print(f"{kind['share']:.0%} of the ground changed as a whole since {kind['since']}: {sizes}")
    with rasterio.open(told["files"]["changes"]) as file, rasterio.open(told["files"]["map"]) as codes:
        day, code = file.read(1), codes.read(1)
    figure, axes = plt.subplots(1, 2, figsize=(9, 6), layout="constrained", sharey=True)
    ends = {"vmin": np.nanmin(day), "vmax": np.nanmax(day)} if np.isfinite(day).any() else {}
    for ax, what, title in zip(axes, (2, 3), ("pixels by themselves", "with all of their kind"), strict=True):
        shown = ax.imshow(np.where(code == what, day, np.nan), cmap="viridis", **ends)
        ax.set_title(f"day of the change: {title}")
        ax.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
    format_day = lambda day, _: f"{datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day)):%b %Y}"  # noqa: E731
    figure.colorbar(shown, ax=axes, shrink=0.7, format=format_day)
else:
    print("no real series here: EARTHTUNE_SERIES names none")

# %% [markdown]
# ## Yours
#
# Any dated scenes will do, of several sensors and systems too, with their cloud masks; the longer the history, the
# better. Every week, `--update` takes in the new dates without reading an old one: alerts keep their names, and are
# taken back when values are usual again. Where labels of pairs are there, task `change` learns what it was (recipe
# `deforestation`). What a real die-back of spruces looks like is in `tests/benchmarks/changes.py`: injected clearings
# are found, while a slow die-back of all the wood is told as a change of its kind, not of its pixels.
#
#     earthtune changes series --since 2022-01-01 --out watched
#     earthtune changes series --update --out watched
