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
# # 4. Rain from weather fields
#
# **Do the fields of a weather analysis (pressure, temperature, moisture, wind) tell where it rains, how much, and how
# sure that is?** A small Prithvi WxC encoder beside a full-resolution path learns a *distribution* of rain for every
# cell, and we check it the way forecasters do: maps, reliability, and scores beside cheap answers.
#
# The weather is **made**: `sample_data/make_weather.py` lets lows travel over a grid and lets it rain where moist air
# flows together. No such day ever was. The files look like MERRA-2's, so real ones go through the same lines; the end
# of this page says how.

# %%
import os
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads: training stays quick while something else wants a core

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import display

from pipelines.api import Launch, finetune, load_recipe, map_plots, open_weather, plots, read_curves, score

# %% [markdown]
# ## Any weather file as one canonical dataset
#
# Weather files name and order things in many ways. `open_weather` gives them all in one form: names `time`, `lat`,
# `lon`, rows from north to south, longitudes rising, units told. It takes NetCDF, Zarr and GRIB, one file or many;
# nothing is read before it is needed.

# %%
WEATHER = Path("../sample_data/weather")
fields = open_weather(sorted(WEATHER.glob("*.inst1_2d_asm_Nx.*.nc4")))
rain = open_weather(sorted(WEATHER.glob("*.tavg1_2d_flx_Nx.*.nc4")))
for name, field in fields.data_vars.items():
    print(f"{name:5} {field.attrs['long_name']:32} {field.attrs['units']:8} {dict(field.sizes)}")
print(f"{fields.time.values[0]:.16} to {fields.time.values[-1]:.16}, every hour")

# %% [markdown]
# The fields are *instantaneous*: values at a full hour. Rain is a *mean over an hour*, and its file says so with a time
# in the middle of it. earthtune keeps the two apart, and pairs the fields of an hour with the rain of the hour that
# follows.

# %%
hour = 36
lat, lon = fields.lat.values, fields.lon.values
shown = {
    "sea level pressure": (fields.SLP[hour].values / 100, "hPa", plots.VALUE_COLOURS),
    "water vapour in the column": (fields.TQV[hour].values, "kg/m²", plots.VALUE_COLOURS),
    "rain of the following hour": (rain.PRECTOT[hour].values * 3600, "mm/h", map_plots.RAIN_COLOURS),
}
figure, axes = plt.subplots(1, 3, figsize=(13.5, 3.6), layout="constrained")
for ax, (title, (values, unit, colours)) in zip(axes, shown.items(), strict=True):
    map_plots.weather_map(ax, values, lat=lat, lon=lon, label=unit, title=title, colours=colours)
wind = fields[["U10M", "V10M"]].isel(time=hour).isel(lat=slice(0, None, 3), lon=slice(0, None, 3))
axes[0].quiver(wind.lon, wind.lat, wind.U10M, wind.V10M, color="white", width=0.005)
fastest = float(np.hypot(wind.U10M, wind.V10M).max())
axes[0].set_title(f"pressure at sea level; wind, longest arrow {fastest:.0f} m/s", fontsize=10)
title = figure.suptitle(f"{fields.time.dt.strftime('%d %B %Y, %H:%M').values[hour]} UTC", fontsize=11)
# %% [markdown]
# It rains where wind flows together *and* the air is moist. Neither field alone tells.
#
# ## Train
#
# Blocks of time are kept apart by a gap, since the rain of one hour is much like that of the next. Fields that are rain
# themselves would be refused by name. As a command this is `earthtune finetune rain.yaml --out runs/rain`.

# %%
RUN, RECIPE = Path("runs/rain"), Path("rain.yaml")
print(RECIPE.read_text())
recipe = load_recipe(RECIPE)
result = finetune(recipe, RUN, launch=Launch(overwrite=True), name="rain")
print(result["headline"])

# %%
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
axes = plots.curves(ax, read_curves(RUN / "metrics.csv"), keys=["train_loss", "val_loss"], label="pinball loss")

# %% [markdown]
# ## Maps of rain
#
# `score` takes weather files and writes a GeoTIFF for each hour (quantiles, mean, probabilities of more than 0.1, 1 and
# 5 mm/h) and one CF NetCDF of the series. We map the second day and look at an hour of the test block, the last fifth
# of the time, which the training never saw.

# %%
days = sorted(str(path) for path in WEATHER.glob("*.inst1_2d_asm_Nx.*.nc4"))
maps = score(RUN, days[1:], out=Path("runs/rain_maps"), overwrite=True)
print(f"{len(maps)} maps, such as {Path(maps[-1]['map']).name}")
with xr.open_dataset(next(Path("runs/rain_maps").glob("*.nc")), engine="h5netcdf") as series:
    forecast = series.load()
test = pd.read_csv(RUN / "split.csv", parse_dates=["time"]).query("split == 'test'").time
truth = rain.PRECTOT.values[24:] * 3600
wettest = max(np.flatnonzero(forecast.time.isin(test)), key=lambda at: truth[at].mean())
said = forecast.isel(time=wettest)
panels = {
    "rain that fell": (truth[wettest], "mm/h", (0, 3)),
    "mean of the forecast": (said.rain.values, "mm/h", (0, 3)),
    "probability of more than 1 mm/h": (said.rain_probability.sel(threshold=1.0).values, "probability", (0, 1)),
}
figure, axes = plt.subplots(1, 3, figsize=(13.5, 3.6), layout="constrained")
for ax, (title, (values, unit, limits)) in zip(axes, panels.items(), strict=True):
    colours = map_plots.RAIN_COLOURS if unit == "mm/h" else plots.VALUE_COLOURS
    map_plots.weather_map(ax, values, lat=lat, lon=lon, label=unit, title=title, limits=limits, colours=colours)
title = figure.suptitle(f"the hour after {said.time.dt.strftime('%d %B %Y, %H:%M').item()} UTC", fontsize=11)
# %% [markdown]
# The forecast mean is smoother than the rain that fell: where the model is not sure of the place, a mean is spread out.
# The probability says how sure it is.
#
# ## Is a probability of 30 % true in 30 % of cases?
#
# That is *reliability*. Points on the dashed line are honest; below it the model says too much, above it too little.

# %%
figure, ax = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
axes = plots.reliability_plot(ax, result["model"]["reliability"])

# %% [markdown]
# Large dots stand for many cells, small ones for few: with ten test hours the small ones are chance.
#
# ## Scores beside cheap answers
#
# *zero* says that it never rains, *climatology* is the mean of the training hours, *persistence* is the rain of one
# hour or three hours ago, *ridge* is a linear regression on the fields of the cell. For RMSE and CRPS less is better,
# for the rest more.

# %%
names = {
    "rmse": "RMSE (mm/h)",
    "crps": "CRPS (mm/h)",
    "correlation": "correlation",
    "csi_0.1": "CSI, more than 0.1 mm/h",
    "csi_1": "CSI, more than 1 mm/h",
}
scores = {"model": result["model"]} | result["baselines"]
table = pd.DataFrame({name: {text: values[key] for key, text in names.items()} for name, values in scores.items()})
display(table.astype(float).style.format("{:.3f}", na_rep="–"))
print(result["model"]["no_intervals"])

# %% [markdown]
# ## What it means
#
# * In these hours the model comes closer than a regression on the cell's own fields, because it sees where the air
#   flows together: that is a matter of neighbours. The rain of the hour before comes about as close, which the model is
#   not told: rain that is known now is hard to beat for the next hour.
# * Two made days say nothing about real rain. A model of one season and region knows no other, and the hours
#   of one day are one weather, so that no interval is given. From five days on there is one: test on other days with
#   `earthtune evaluate runs/rain --data.root other_days`.
# * Heavy rain is forecast too seldom by models of this kind. Look at CSI at the threshold that matters to you.
#
# ## With real MERRA-2 files
#
# Get `M2I1NXASM` (fields) and `M2T1NXFLX` (rain) for some days from NASA's GES DISC (a free login), put them into one
# folder, and
#
#     earthtune inspect merra2/MERRA2_400.inst1_2d_asm_Nx.20200330.nc4
#     earthtune finetune rainfall_surface --data.root merra2 --out runs/rain
#
# The rain may also be IMERG, ERA5 or CHIRPS (`data.target`). For the 2300M encoder with published weights take the
# recipe `rainfall`.
#
# Next: [5. bring your own data](05_your_own_data.ipynb).
