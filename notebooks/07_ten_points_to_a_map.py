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
# # 7. Ten points to a map
#
# **You know a place, and you have no labels yet. What do ten clicks give you?** A map in seconds, a first word on what
# it is worth, and the places where the next ten clicks tell most. Nothing is trained ahead: `points` learns a small
# head from the pixels around your points, so that this works on a laptop and without weights.
#
# The scene is synthetic (`sample_data/README.md`); with one of your own everything is the same.

# %%
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import rasterio
from IPython.display import display
from rasterio.warp import transform

from pipelines.api import (
    Reading,
    explore,
    map_plots,
    open_scene,
    picker,
    plots,
    points,
    read_categories,
    read_labels,
    read_values,
)

SCENE, OUT = "../sample_data/new_scene/new_scene_hls.tif", Path("runs/few")
OUT.mkdir(parents=True, exist_ok=True)
CLEAR = Reading(mask_clouds=True)
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
CLASSES = ("built-up", "cropland", "grassland", "tree cover", "water")
scene = open_scene(SCENE, BANDS, mask_clouds=True)
x, valid = scene.read(scene.window)
picture = plots.true_colour(x[:, 0], bands=BANDS, valid=valid)

# %% [markdown]
# ## Click
#
# Press "Points", choose a class (digit keys do, too), then click where it is. A click on a point takes it away again.
# **Give each class two points at least, far apart**: one is left out to ask about the other. On clouds and beyond the
# swath's edge nothing can be learned.
#
# What is clicked is in `view.points` at once. Here ten points are set from Python, so that this page runs by itself;
# put yours in their place. (If you see a still picture, there is no kernel, or you are on a page such as GitHub.)

# %%
view = explore(SCENE, classes=CLASSES)
view.points = [
    {"class": "tree cover", "lon": 14.4511, "lat": 50.0415},
    {"class": "tree cover", "lon": 14.34, "lat": 50.0752},
    {"class": "grassland", "lon": 14.3529, "lat": 50.0839},
    {"class": "grassland", "lon": 14.4391, "lat": 50.0633},
    {"class": "cropland", "lon": 14.3428, "lat": 50.09},
    {"class": "cropland", "lon": 14.4529, "lat": 50.069},
    {"class": "built-up", "lon": 14.4312, "lat": 50.0953},
    {"class": "built-up", "lon": 14.3581, "lat": 50.0404},
    {"class": "water", "lon": 14.382, "lat": 50.1013},
    {"class": "water", "lon": 14.4212, "lat": 50.0521},
]
display(view)

# %%
LABELS = view.save_points(OUT / "labels.csv", overwrite=True)
print(LABELS.read_text())

# %% [markdown]
# ## The map
#
# One call; clouds stay empty. As a command:
#
#     earthtune points new_scene_hls.tif labels.csv --mask_clouds true --out runs/few/first.tif

# %%
start = time.perf_counter()
first = points(SCENE, [LABELS], out=OUT / "first.tif", overwrite=True, reading=CLEAR, say=print)
print(f"{first['valid']:.1%} of the scene mapped in {time.perf_counter() - start:.1f} s, by {first['chosen']}")
for name, score in first["scores"].items():
    print(f"balanced accuracy on {first['groups']} groups left out, {name}: {score['balanced_accuracy']:.2f}")

# %%
classes = read_categories(Path(first["map"]))  # in the order of the alphabet, in the colours of the points
codes = [entry.code for entry in classes]
place = (scene.geobox, scene.window)
mapped = read_labels(Path(first["map"]), *place, codes=codes)
confidence = read_values(Path(first["confidence"]), *place)
images = {
    "a map of ten points": plots.class_image(mapped, classes),
    "confidence (bright: sure)": plots.value_image(confidence, low=0.2, high=1),
}
figure = plt.figure(figsize=(10, 5.4), layout="constrained")
axes = map_plots.map_row(figure, images, geobox=scene.geobox, classes=classes)

# %% [markdown]
# **The accuracy is a guess**: five classes of two points have five chances to be wrong. The map is no better for a high
# number nor worse for a low one until some dozens of points are labelled.
#
# ## The next ten
#
# Beside the map lies `first_next.geojson`: places where the head wavers, unlike each other. Below they are rings, over
# map, confidence and scene; switch the layers at the upper right. A click gives a ring the chosen class. Your own
# points are there, too, so that one file holds all.
#
# This map needs no kernel. "save labels.csv" saves what its box holds; where the editor keeps pages from saving, click
# into the box and copy. (If you see nothing, the notebook is not trusted yet.)

# %%
asked = [feature["geometry"]["coordinates"] for feature in json.loads(Path(first["next"]).read_text())["features"]]
mine = [(point["lon"], point["lat"], point["class"]) for point in view.points]
layers = dict(zip(("map", "confidence"), images.values(), strict=True)) | {"scene": picture}
display(picker(layers, scene.geobox, CLASSES, points=[*mine, *((lon, lat, "") for lon, lat in asked)]))

# %% [markdown]
# On a real scene you would look, or go there. Here the known truth of the synthetic scene answers, and tells afterwards
# how much of each map is right.

# %%
NAMES = {10: "tree cover", 30: "grassland", 40: "cropland", 50: "built-up", 80: "water"}
with rasterio.open("../sample_data/truth/new_scene_landuse.tif") as file:
    truth = np.select([file.read(1) == code for code in NAMES], [CLASSES.index(name) for name in NAMES.values()], -1)
    places = zip(*transform("EPSG:4326", file.crs, *zip(*asked, strict=True)), strict=True)
    answers = [NAMES[int(value[0])] for value in file.sample(places)]
lines = [f"{lon},{lat},{name}" for (lon, lat), name in zip(asked, answers, strict=True)]
MORE = OUT / "more.csv"
length = MORE.write_text("\n".join(["lon,lat,class", *lines]) + "\n")
second = points(SCENE, [LABELS, MORE], out=OUT / "second.tif", overwrite=True, reading=CLEAR, say=print)
both = {"ten points": mapped, "twenty points": read_labels(Path(second["map"]), *place, codes=codes)}
figure = plt.figure(figsize=(10, 5.4), layout="constrained")
images = {f"{name}: where it is wrong": map_plots.error_image(truth, answer) for name, answer in both.items()}
axes = map_plots.map_row(figure, images, geobox=scene.geobox)
for name, answer in both.items():
    known = (truth >= 0) & (answer >= 0)
    print(f"{name}: {(truth == answer)[known].mean():.0%} of the pixels right")

# %% [markdown]
# ## What it means
#
# * Ten points make a first map, not a finished one: it shows which classes are told apart, and which want more points.
# * Points that you choose are where you are sure. How good a map is can be told by points drawn at random alone
#   (`earthtune sample`, `areas`; [6. how far to trust](06_how_far_to_trust.ipynb)).
# * With weights at hand, `earthtune embed scene.tif` makes tokens, and `points --tokens` says whether they help.
# * When hundreds of points are there, train: [2. fine-tune land use](02_fine_tune_land_use.ipynb).
