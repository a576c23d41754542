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
# # 6. How far can I trust this map?
#
# **A map is right in most places and wrong in some. Which?** Five tools, each for another question:
#
# | question | tool | what it cannot tell |
# |---|---|---|
# | how often is it right where it is this sure? | calibrated confidence | anything of ground it knows nothing of |
# | which classes may it be? | sets | of a single pixel: they hold over places |
# | has it ever seen such ground? | unfamiliar | whether it is right where it has |
# | where should a person look first? | review | what nobody looked at |
# | how many hectares are there really? | a random sample of labels | where they are |
#
# The model is that of notebook 2, over synthetic scenes; if you have not run it, it is trained here first.

# %%
import json
import os
import shutil
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads: training stays quick while something else wants a core

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyogrio
import rasterio
from IPython.display import display

from pipelines.api import (
    Launch,
    Maps,
    Page,
    areas,
    finetune,
    load_recipe,
    map_plots,
    open_for,
    plots,
    read_bundle,
    read_labels,
    read_values,
    review,
    sample,
    score,
)

RUN, SCENE, OUT = Path("runs/landuse"), "../sample_data/new_scene/new_scene_hls.tif", Path("runs/trust")
TRUTH = Path("../sample_data/truth/new_scene_landuse.tif")
finetune(load_recipe(Path("landuse.yaml")), RUN, launch=Launch(resume=True), name="landuse")
bundle = read_bundle(RUN)
classes = bundle.spec.answer.classes

# %% [markdown]
# ## What the run knows of itself
#
# Blocks of ground that the model never saw say how far its words go. A block counts as one, however many pixels it
# has: they are alike, and a thousand of them are no thousand witnesses. From fewer than ten blocks no calibration is
# learned, and `bundle.json` says so; with `--folds 5` every block is left out once.

# %%
found = json.loads((RUN / "metrics.json").read_text())["confidence"]["measures"]
rows = {way: {key: found[way][key] for key in ("ece", "half", "auroc")} for way in ("raw", "calibrated")}
table = pd.DataFrame(rows).rename(
    {"ece": "calibration error", "half": "right, of the surer half", "auroc": "tells right from wrong (AUROC)"}
)
display(table.style.format("{:.3f}"))
figure, ax = plt.subplots(figsize=(4.4, 3.6), layout="constrained")
diagonal = ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
said, seen, _ = zip(*(row for row in found["calibrated"]["bins"] if row[2] >= 100), strict=True)
line = ax.plot(said, seen, marker="o")
labels = ax.set(xlabel="how sure", ylabel="share right", title=f"{found['groups']} blocks left out")

# %% [markdown]
# A point below the line: the model is right less often than it says.
#
# ## A new scene
#
# `confidence` is the highest probability, calibrated where that could be learned. `unfamiliar` is the distance to
# training pixels in bands and indices: above 1, ground is farther from all of them than 95 % of the left-out ground.
# As a command:
#
#     earthtune score runs/landuse new_scene_hls.tif --out runs/trust --confidence --probabilities --unfamiliar

# %%
kinds = Maps(confidence=True, probabilities=True, unfamiliar=True)
(result,) = score(RUN, [SCENE], out=OUT, overwrite=True, maps=kinds)
scene = open_for(bundle, SCENE)
x, valid = scene.read(scene.window)
codes = bundle.spec.answer.codes
mapped = read_labels(Path(result["map"]), scene.geobox, scene.window, codes=codes)
truth = read_labels(TRUTH, scene.geobox, scene.window, codes=codes)
confidence = read_values(Path(result["maps"]["confidence"]), scene.geobox, scene.window)
unfamiliar = read_values(Path(result["maps"]["unfamiliar"]), scene.geobox, scene.window)
figure = plt.figure(figsize=(10, 5.4), layout="constrained")
images = {"land use": plots.class_image(mapped, classes), "where it is wrong": map_plots.error_image(truth, mapped)}
axes = map_plots.map_row(figure, images, geobox=scene.geobox, classes=classes)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
map_plots.value_map(
    left, confidence, label="probability of the class shown", title="confidence", geobox=scene.geobox, limits=(0.2, 1)
)
map_plots.value_map(
    right, unfamiliar, label="above 1: unlike all training", title="unfamiliar", geobox=scene.geobox, limits=(0, 2)
)

# %% [markdown]
# The lakes light up: the training scenes hold little water, and of other colours. That the map is right there is luck
# as far as the model can know. Here the truth is known, so we can look whether low confidence is where mistakes are.

# %%
known = (truth >= 0) & (mapped >= 0)
right = (truth == mapped)[known]
order = np.argsort(-confidence[known])
shares = [0.25, 0.5, 0.75, 1.0]
told = [right[order[: round(share * len(order))]].mean() for share in shares]
display(pd.DataFrame({"surest": [f"{share:.0%}" for share in shares], "right": told}).style.hide(axis="index"))

# %% [markdown]
# ## When something is wrong with the scene
#
# Wrong input does not make a model doubtful, it may even make it surer. Near infrared and the first short-wave band
# change places, as they do when bands are stacked in another order:

# %%
SWAPPED = OUT / "swapped_hls.tif"
shutil.copy(SCENE.replace("_hls", "_fmask"), OUT / "swapped_fmask.tif")
with rasterio.open(SCENE) as source:
    bands, names = source.read(), list(source.descriptions)
    bands[[3, 4]] = bands[[4, 3]]
    with rasterio.open(SWAPPED, "w", **source.profile) as target:
        target.write(bands)
        target.descriptions, target.scales, target.offsets = names, source.scales, source.offsets
        target.update_tags(**source.tags())
(wrong,) = score(RUN, [str(SWAPPED)], out=OUT, overwrite=True, maps=kinds, say=print)
kept, whole = ("confidence", "unfamiliar"), (scene.geobox, scene.window)
medians = [[np.nanmedian(read_values(Path(one["maps"][kind]), *whole)) for kind in kept] for one in (result, wrong)]
table = pd.DataFrame(medians, ["as it is", "swapped"], kept)
display(table.style.format("{:.2f}"))

# %% [markdown]
# Confidence falls here, but that cannot be relied on: counts in another unit or thick cloud made models surer. What is
# *unfamiliar* tells in every such case. With eleven or more training blocks `score` and `inspect --for` say so
# before the work, with what it looks like, and put a banner on the picture.
#
# ## Where a person should look first
#
# Regions that weigh most by doubt times area, each with its reason. `earthtune review runs/trust/new_scene_hls_map.tif`
# opens them as a page in the browser, over the scene; here only the list is made, as a GeoPackage for QGIS.

# %%
listed = review(Path(result["map"]), page=Page(no_page=True))
regions = pyogrio.read_dataframe(listed["file"], layer="regions")
columns = [name for name in ("id", "class", "hectares", "reason") if name in regions]
display(regions[columns].head(6).style.hide(axis="index").format(precision=2))

# %% [markdown]
# ## How many hectares are there?
#
# Counting pixels carries the map's mistakes along. A random sample of points, labelled by someone who knows the ground,
# does not. Here the truth plays that person: 500 points, drawn in proportion to the map's classes.

# %%
POINTS = OUT / "points.gpkg"
drawn = sample([Path(result["map"])], out=POINTS, n=500, overwrite=True)
points = pyogrio.read_dataframe(POINTS, layer="points")
with rasterio.open(TRUTH) as source:
    points["label"] = [
        int(values[0]) for values in source.sample(zip(points.geometry.x, points.geometry.y, strict=True))
    ]
pyogrio.write_dataframe(points[points["label"] > 0], POINTS, layer="points", driver="GPKG")
estimate = areas(POINTS, unlabelled="leave_out", figure=OUT / "areas.png", overwrite=True)
hectare = (30 * 30) / 10_000
rows = [
    {
        "class": row["class"],
        "counted in the map": row["mapped_hectares"],
        "estimated": row["hectares"],
        "from": row["low"],
        "to": row["high"],
        "truth": (truth[mapped >= 0] == index).sum() * hectare,
    }
    for index, row in enumerate(estimate["classes"])
]
display(pd.DataFrame(rows).style.hide(axis="index").format(precision=0))

# %% [markdown]
# The interval is the answer. It narrows with the square root of the number of points, and with a better map. Label them
# blind: `earthtune review points.gpkg --scene scene.tif` shows them without the map.
#
# ## What none of this tells
#
# * Sets and calibration hold for new places *like those that were left out*. Another continent is none of them.
# * *Unfamiliar* does not see a wrong pixel size, nor a class that looks like another one.
# * Labels may be wrong, too. All figures are beside the labels, not beside the ground.
