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
# # 1. A scene and its patch tokens
#
# **What does a foundation model see in a satellite scene?** First we look at the scene as the model gets it: six bands,
# and a mask that says which pixels count. Then at what the model makes of it: a *token* for each small patch of ground,
# a list of numbers in which patches that are alike to the model lie close together.
#
# The scene is synthetic (`sample_data/README.md`). It shows no real place; everything here works the same with a scene
# of your own.

# %%
import os
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads: training stays quick while something else wants a core

import matplotlib.pyplot as plt
from IPython.display import display

from pipelines.commands.finetune import finetune
from pipelines.embeddings.embed import read_tokens
from pipelines.grids.tokens import components, similarity
from pipelines.inspection.inspect import format_text, inspect
from pipelines.recipes.reading import load_recipe
from pipelines.reports import map_plots, plots
from pipelines.reports.webmap import similarity_map
from pipelines.runs.folder import Launch
from pipelines.scenes.scene import open_scene

# %% [markdown]
# ## What is in the file?
#
# `inspect` is always the first step. It tells bands, units, dates and nodata, and it is also a command: `earthtune
# inspect scene.tif`.

# %%
SCENE = "../sample_data/new_scene/new_scene_hls.tif"
print(format_text(inspect(SCENE)))

# %% [markdown]
# Bands are found by their names, never by their position. The values are *packed*: reflectance is the stored number
# times 0.0001. When earthtune reads a scene, every sensor's numbers become reflectance × 10 000, and pixels without
# data, or under cloud if you ask for that, are marked as not valid.

# %%
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
scene = open_scene(SCENE, BANDS, mask_clouds=True)
x, valid = scene.read(scene.window)  # (bands, dates, rows, columns) and (rows, columns)
x = x[:, 0]  # one date
print(f"{scene.dates[0]}: {x.shape[0]} bands of {x.shape[1]} x {x.shape[2]} pixels, {valid.mean():.1%} of them valid")

# %%
figure = plt.figure(figsize=(13, 4.6), layout="constrained")
pictures = {
    "as the eye sees it": plots.true_colour(x, bands=BANDS, valid=valid),
    "near infrared, red, green: plants are red": plots.false_colour(
        x, bands=BANDS, shown=("NIR_NARROW", "RED", "GREEN"), valid=valid
    ),
    "not valid (orange)": map_plots.error_image(valid * 0, 1 - valid),
}
axes = map_plots.map_row(figure, pictures, geobox=scene.geobox)

# %% [markdown]
# Clouds, their shadows and the edge of the swath are cut out (white in the first two pictures, orange in the third). A
# map drawn from this scene will have no data there: **no model can see through a cloud, so the map does not pretend
# to**.
#
# ## The six bands
#
# Prithvi was pretrained on these six bands of Harmonized Landsat Sentinel-2. Each tells the surfaces apart in its own
# way: water is dark in the infrared, plants are bright in the near infrared and dark in red, dry soil is bright in the
# short-wave infrared.

# %%
figure, axes = plt.subplots(2, 3, figsize=(11, 6.8), layout="constrained")
for ax, band, values in zip(axes.flat, BANDS, x / 10_000, strict=True):
    values[~valid] = float("nan")
    map_plots.value_map(ax, values, label="reflectance", title=band, geobox=scene.geobox)

# %% [markdown]
# ## From pixels to tokens
#
# The model cuts the scene into patches and makes a token of each. Published Prithvi models have patches of 16 × 16
# pixels. Their weights come from the Hugging Face Hub: with network, `read_tokens("prithvi_eo_v2_300_tl", SCENE)` is
# all it takes.
#
# This notebook needs no network, so it uses a tiny model with patches of 8 × 8 pixels (240 m) that learns land use from
# two labelled sample scenes first, in less than half a minute. Notebook 2 explains that step. If you have run notebook
# 2, its model is used as it is.

# %%
RUN = Path("runs/landuse")
finetune(load_recipe(Path("landuse.yaml")), RUN, launch=Launch(resume=True))
tokens = read_tokens(str(RUN), SCENE, tile=64, overlap=48)
features, rows, columns = tokens.values.shape
print(f"{rows} x {columns} tokens of {features} numbers each")

# %% [markdown]
# 96 numbers are too many to look at. Their three *principal components*, the directions in which tokens differ most,
# become red, green and blue: **patches of like colour are alike to the model**. What a colour means is not fixed.

# %%
values, explained = components(tokens)
figure = plt.figure(figsize=(11, 5), layout="constrained")
left, right = figure.subplots(1, 2)
plots.draw_map(left, pictures["as the eye sees it"], title="the scene", geobox=scene.geobox)
plots.draw_map(right, map_plots.component_image(values), title="its tokens", geobox=tokens.geobox)
print("share of the tokens' variance that each component tells: " + ", ".join(f"{share:.0%}" for share in explained))

# %% [markdown]
# Woods, water, towns and open land come out in colours of their own, although nobody told this picture about classes:
# the tokens carry them.
#
# ## Which places resemble this one?
#
# Take the token at a place and ask how much every other token resembles it: the cosine of the angle between the two,
# from −1 (unlike) over 0 (nothing in common beyond the average) to +1 (alike). Here is that question for a wood and for
# a town.

# %%
PLACES = {"a wood": (14.347, 50.114), "a town": (14.391, 50.055)}  # degrees east and north
figure, (left, *others) = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
plots.draw_map(left, pictures["as the eye sees it"], title="the scene", geobox=scene.geobox)
for ax, (name, (lon, lat)) in zip(others, PLACES.items(), strict=True):
    likeness = similarity(tokens, lon, lat)
    map_plots.value_map(
        ax, likeness, label="similarity", title=f"like {name} (white dot)", geobox=tokens.geobox, limits=(-1, 1)
    )
    row, column = tokens.at(lon, lat)
    ax.plot(column, row, "o", color="white", markeredgecolor="black", markersize=9)

# %% [markdown]
# Click on the map below to ask that about any place. The map holds all it needs: no server, no network, no kernel. (If
# you see nothing, the notebook is not trusted yet, or you are on a page such as GitHub that shows pictures only; the
# picture above shows the same.)

# %%
display(similarity_map(pictures["as the eye sees it"], scene.geobox, tokens, lon=14.347, lat=50.114))

# %% [markdown]
# ## What it means
#
# * A model sees bands and a mask, not a photograph. Check both before you trust a map.
# * A token is a patch's summary. Similar tokens mean similar ground *to this model*: one that learned land use finds
#   towns by towns. A pretrained model has learnt from millions of scenes to tell far more apart; the tiny one here has
#   seen two.
# * A similarity map needs no labels. It is a quick way to see whether a backbone can tell what you are after, before
#   you label anything.
#
# Next: [2. fine-tune land use](02_finetune_land_use.ipynb).
