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
# # 5. Bring your own data
#
# **You have a folder of scenes and some polygons. What has to be written down so that a model learns from them?** Three
# steps: look at the files with `inspect`, write a recipe, and let earthtune read the samples once before anything is
# trained. Most trouble shows up here, in one line each.
#
# So that this page runs anywhere, your data is played by the sample scenes: two pictures, and polygons of the kind
# someone would draw on a screen.

# %%
import shutil
from pathlib import Path

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rasterio
from rasterio.features import shapes

from pipelines.api import (
    InputError,
    Polygons,
    format_text,
    inspect,
    load_recipe,
    map_plots,
    open_scene,
    plots,
    prepare,
    read_labels,
)

MINE = Path("runs/mine")
shutil.rmtree(MINE, ignore_errors=True)
MINE.mkdir(parents=True)
tables = []
for path in sorted(Path("../sample_data/landuse").glob("*_hls.tif")):
    shutil.copy(path, MINE)
    shutil.copy(str(path).replace("_hls", "_fmask"), MINE)
    with rasterio.open(str(path).replace("_hls", "_landuse")) as labels:
        outlines = [(shape, code) for shape, code in shapes(labels.read(1), transform=labels.transform) if code]
        features = [{"type": "Feature", "geometry": s, "properties": {"landuse": int(c)}} for s, c in outlines]
        tables.append(gpd.GeoDataFrame.from_features(features, crs=labels.crs).to_crs("EPSG:3035"))
polygons = pd.concat(tables)
polygons = polygons.set_geometry(polygons.buffer(-25))[lambda table: table.area > 5e4].sample(120, random_state=0)
polygons.assign(drawn_by="me").to_crs("EPSG:4326").to_file(MINE / "polygons.gpkg")
print(f"{len(polygons)} polygons, {polygons.area.sum() / 1e4:,.0f} ha in all")

# %% [markdown]
# ## Step 1: what do the files hold?

# %%
print(format_text(inspect(MINE)))
print()
print(format_text(inspect(MINE / "scene_a_hls.tif")))

# %% [markdown]
# What to look for:
#
# * **Names of the bands.** "named by band descriptions" is good. If it says that nothing names them, say them yourself:
#   `data.bands: [BLUE, GREEN, RED, NIR_NARROW, SWIR_1, SWIR_2]`, in the order of the file.
# * **The unit.** "packed reflectance" and "reflectance x10000" are good. For 0..1 without a scale say `data.scale: 1`.
# * **Valid.** A share of 100 % in a scene with a slanted edge means that nodata is not declared.
# * **The date**, which the `_tl` backbones take in; and the coordinate system, which maps and polygons need.
#
# Polygons can have any coordinate system and any other columns. One column holds the class *code*, a whole number,
# or the name of the class. What lies in no polygon is not labelled: it costs nothing and teaches nothing.
#
# ## Step 2: the recipe

# %%
recipe_file = MINE / "my_recipe.yaml"
recipe_file.write_text("""\
# Land use from my scenes and polygons.
task: segmentation
classes:
  - {code: 10, name: tree cover, colour: "#006400"}
  - {code: 30, name: grassland, colour: "#ffff4c"}
  - {code: 40, name: cropland, colour: "#f096ff"}
  - {code: 50, name: built-up, colour: "#fa0000"}
  - {code: 80, name: water, colour: "#0064c8"}
data:
  root: runs/mine
  images: "*_hls.tif"
  labels: polygons.gpkg         # one file for all scenes
  column: landuse
  mask_clouds: true             # by the Fmask beside each scene
  tile: 64
  block_km: 2                   # neighbours stay together: no leak from training to test
backbone: prithvi_eo_v2_300_tl
weights: hub
mode: frozen                    # few labels: train the head only
""")
recipe = load_recipe(recipe_file)

# %% [markdown]
# ## Step 3: read the samples before training
#
# `finetune` does this first and stops where something is wrong. Called alone it takes seconds, and no weights.

# %%
samples = prepare(recipe)
spec = samples.spec
print(f"{len(samples.samples)} {samples.described}")
for split in ("train", "val", "test"):
    labels = np.concatenate([samples.truth(chip).ravel() for chip in samples.of(split)])
    counts = ", ".join(f"{entry.name} {(labels == i).sum():,}" for i, entry in enumerate(recipe.classes))
    print(f"{split:5} {len(samples.of(split)):3} samples; labelled pixels: {counts}")
for note in samples.notes:
    print("note:", note)

# %% [markdown]
# Is a class missing from a split? Then its score there is no score. Draw some more polygons of it, or change `seed`.
#
# **Look at the labels on the picture.** Polygons that are shifted, or that have the wrong codes, cannot be seen in any
# number.

# %%
scene = open_scene(MINE / "scene_a_hls.tif", spec.imagery.channels, mask_clouds=True)
x, valid = scene.read(scene.window)
drawn = read_labels(
    MINE / "polygons.gpkg", scene.geobox, scene.window, codes=spec.answer.codes, polygons=Polygons("landuse")
)
figure = plt.figure(figsize=(10, 5.4), layout="constrained")
pictures = {
    "scene a (white: cloud, swath edge)": plots.true_colour(x[:, 0], bands=scene.bands, valid=valid),
    "its polygons (white: not labelled)": plots.class_image(drawn, recipe.classes),
}
axes = map_plots.map_row(figure, pictures, geobox=scene.geobox, classes=recipe.classes)

# %% [markdown]
# Then train and map:
#
#     earthtune finetune my_recipe.yaml --out runs/mine_300M
#     earthtune score runs/mine_300M new_scenes/ --out maps
#
# ## Common errors and what they mean
#
# Errors say what was wanted, what came and what to do, in one line. Here are some on purpose.

# %%
with rasterio.open(MINE / "scene_a_hls.tif") as file:  # a copy whose bands have lost their names
    profile, bands = file.profile, file.read()
with rasterio.open(MINE / "nameless.tif", "w", **profile) as file:
    file.write(bands)
with rasterio.open(MINE / "no_infrared.tif", "w", **profile | {"count": 3}) as file:  # and one of three bands
    file.write(bands[:3])
    file.descriptions = spec.imagery.channels[:3]

drawn, place = MINE / "polygons.gpkg", (scene.geobox, scene.window)
trials = {
    "a file that does not name its bands": lambda: open_scene(MINE / "nameless.tif", spec.imagery.channels),
    "a scene that lacks bands": lambda: open_scene(MINE / "no_infrared.tif", spec.imagery.channels),
    "no column of that name": lambda: read_labels(drawn, *place, codes=spec.answer.codes, polygons=Polygons("class")),
    "a column that holds text": lambda: read_labels(
        drawn, *place, codes=spec.answer.codes, polygons=Polygons("drawn_by")
    ),
    "a class that the recipe does not name": lambda: read_labels(
        drawn, *place, codes=spec.answer.codes[:3], polygons=Polygons("landuse")
    ),
    "a pattern that matches nothing": lambda: prepare(load_recipe(recipe_file, **{"data.images": "*.jp2"})),
    "a key that does not exist": lambda: load_recipe(recipe_file, **{"training.epoch": 10}),
}
for what, trial in trials.items():
    try:
        trial()
    except InputError as error:
        print(f"{what}:\n    {error}\n")

# %% [markdown]
# | it says | it means | what to do |
# |---|---|---|
# | bands missing, none that is named | the file names no bands | `data.bands`, in the order of the file |
# | a band is missing, it has … | the sensor or the export lacks it | export it, or train without (`bands`) |
# | no column …; which column | the class code stands elsewhere | `data.column` |
# | column holds text | classes are names | add a column of whole numbers, and put the names into `classes` |
# | holds code …, classes are … | a class was forgotten, or is "unknown" | add it to `classes` or `data.ignore` |
# | no file matches | the pattern starts from `data.root` | `earthtune inspect ROOT` shows what is there |
# | exists already | nothing is overwritten | `--resume`, `--overwrite`, or another `--out` |
#
# ## What it means
#
# * A recipe is a page of text that someone else can run. Keep it with the data.
# * Labels that you have looked at, split by place, with a baseline beside the score: that decides more than the choice
#   of the backbone.
