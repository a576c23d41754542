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
# # 3. Score a new scene and look at it
#
# **A new scene comes in. What is where, how sure is the model, and how many hectares is that?** `score` answers with
# files that open in any GIS; here we draw them, count areas, and make a map to zoom in that works without network.
#
# The model is that of notebook 2. If you have not run it, it is trained here first, in less than a minute.

# %%
import os
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads: training stays quick while something else wants a core

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from models.bundle import read_bundle
from pipelines.commands.finetune import finetune
from pipelines.commands.score import score
from pipelines.inspection.inspect import format_text, inspect
from pipelines.recipes.reading import load_recipe
from pipelines.reports import map_plots, plots
from pipelines.reports.webmap import web_map
from pipelines.runs.folder import Launch
from pipelines.samples.labels import read_labels, read_values
from pipelines.scoring.opening import open_for
from pipelines.scoring.plan import Maps

RUN, SCENE, MAPS = Path("runs/landuse"), "../sample_data/new_scene/new_scene_hls.tif", Path("runs/maps")
finetune(load_recipe(Path("landuse.yaml")), RUN, launch=Launch(resume=True), name="landuse")
bundle = read_bundle(RUN)
classes = bundle.spec.classes

# %% [markdown]
# ## Can the model read this scene?
#
# Ask before scoring: bands, dates, unit, place and clouds are checked against what the model was trained on.

# %%
print(format_text(inspect(SCENE, for_run=RUN)))

# %% [markdown]
# ## Score
#
# One call draws the map; `confidence` adds how sure the model was, `min_area` merges patches below half a hectare into
# their neighbours, and `area_table` counts hectares. The same as a command:
#
#     earthtune score runs/landuse new_scene_hls.tif --out runs/maps --confidence --min_area 0.5 \
#         --area_table runs/areas.csv

# %%
AREAS = Path("runs/areas.csv")
(result,) = score(RUN, [SCENE], out=MAPS, overwrite=True, maps=Maps(confidence=True, min_area=0.5, area_table=AREAS))
print(f"{result['status']}: {result['valid']:.1%} of the pixels are valid")
for path in sorted(MAPS.glob("new_scene*")):
    print(f"{path.name:32} {path.stat().st_size / 1000:6.0f} kB")

# %% [markdown]
# Each map is a Cloud Optimized GeoTIFF with its colours and class names inside, so it opens right in QGIS. Beside it
# lie a STAC item (`.json`) that says what was made from what, and a small picture.
#
# ## The map, and how sure it is

# %%
scene = open_for(bundle, SCENE)
x, valid = scene.read(scene.window)
indices = read_labels(Path(result["maps"]["map"]), scene.geobox, scene.window, codes=bundle.spec.codes)
confidence = read_values(Path(result["maps"]["confidence"]), scene.geobox, scene.window)
images = {
    "scene": plots.true_colour(x[:, 0], bands=scene.bands, valid=valid),
    "land use": plots.class_image(indices, classes),
}
figure = plt.figure(figsize=(10, 5.4), layout="constrained")
axes = map_plots.map_row(figure, images, geobox=scene.geobox, classes=classes)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained", width_ratios=(3, 2))
map_plots.value_map(
    left, confidence, label="probability of the class shown", title="confidence", geobox=scene.geobox, limits=(0.2, 1)
)
means = {entry.name: np.nanmean(confidence[indices == place]) for place, entry in enumerate(classes)}
axes = plots.class_bars(right, means, classes)
title = right.set_title("mean confidence where a class was mapped", fontsize=10)

# %% [markdown]
# The scale begins at 0.2, a guess among five classes. Dark lines are edges between classes, where a pixel holds both.
# Dark patches are where the model wavers: that is where a field visit, or one more label, is worth most. Confidence is
# what the model believes. Whether it is right that often has to be checked against truth; a probability of 0.8 from a
# model trained for a minute is no promise.
#
# ## How much of each class?
#
# Hectares on the ellipsoid, not pixels times 900 m²: the table holds for any coordinate system.

# %%
areas = pd.read_csv(AREAS)
display(areas.style.hide(axis="index").format({"hectares": "{:,.1f}", "share": "{:.1%}", "pixels": "{:,}"}))
figure, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
axes = plots.area_bars(ax, dict(zip(areas["class"], areas["hectares"], strict=True)), classes)
title = ax.set_title(f"land use of {areas['scene'][0]}, clouds left out", fontsize=10)

# %% [markdown]
# **Areas counted from a map carry the map's errors.** If a tenth of the cropland is mapped as grassland, the table is
# wrong by that much, however many digits it has. For statistics that stand, correct them with a sample of true labels
# (Olofsson et al. 2014, doi:10.1016/j.rse.2014.02.015); the confusion matrix of notebook 2 shows what there is to
# correct.
#
# ## A map to zoom in
#
# Switch the layers on and off at the upper right. Everything is inside the page: pictures, and Leaflet, which moves
# them. It works without network and can be sent to someone as one file. There is no background map, since that would
# have to be fetched. (On pages that show no scripts, such as GitHub, look at the pictures above.)

# %%
images["confidence"] = plots.value_image(np.where(indices >= 0, confidence, np.nan), low=0, high=1)
page = web_map(
    {name: images[name] for name in ("scene", "confidence", "land use")},
    scene.geobox,
    classes=classes,
    title="Land use",
)
page.save("runs/map.html")
display(page)

# %% [markdown]
# ## What it means
#
# * A map without data where the clouds are is honest; a map without confidence is half a map.
# * Many scenes: `earthtune score runs/landuse 'scenes/*.tif' --out maps --workers 4`. Called again after a stop, it
#   goes on where it was.
#
# Next: [4. rain from weather fields](04_rain.ipynb), or [5. bring your own data](05_your_own_data.ipynb).
