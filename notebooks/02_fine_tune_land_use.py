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
# # 2. Fine-tune land use
#
# **Can a model learn land use from two labelled scenes, and does it beat a method that needs no foundation model?** We
# write down what to learn (a *recipe*), train, and put the map beside the truth and beside the baseline.
#
# The scenes are synthetic, and the model starts from random weights, so that this runs anywhere within a minute. The
# figures say that the machinery works. They say nothing about real land, nor about what pretraining adds.

# %%
import json
import os
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads: training stays quick while something else wants a core

import matplotlib.pyplot as plt
import numpy as np

from models.bundle import read_bundle
from models.runtime.engines import load_runtime
from pipelines.commands.evaluate import baselines_of, read_curves
from pipelines.commands.finetune import finetune
from pipelines.recipes.reading import load_recipe
from pipelines.reports import map_plots, plots
from pipelines.runs.folder import Launch
from pipelines.samples.labels import read_labels
from pipelines.scenes.scene import open_scene
from pipelines.scoring.opening import open_for
from pipelines.scoring.rows import class_map

# %% [markdown]
# ## The recipe
#
# All that decides what is learnt stands in one file. It holds only what differs from the defaults; what it leaves out,
# `earthtune finetune RECIPE --print_config` shows.

# %%
recipe = load_recipe(Path("landuse.yaml"))
print(Path("landuse.yaml").read_text())

# %% [markdown]
# The line to think about longest is `block_km`. Neighbouring pixels are alike; if one went to training and the next one
# to the test, a model could score well by remembering. So whole blocks of ground go to one side. Images of different
# places may be kept apart by `groups` instead.
#
# ## The labels
#
# One of the two training scenes with its labels. Colours and names of the classes are those of the recipe; they travel
# with the model into every map it draws.

# %%
scene = open_scene("../sample_data/landuse/scene_a_hls.tif", ("BLUE", "GREEN", "RED"), mask_clouds=True)
x, valid = scene.read(scene.window)
codes = [entry.code for entry in recipe.classes]
truth = read_labels(Path("../sample_data/landuse/scene_a_landuse.tif"), scene.geobox, scene.window, codes=codes)
figure = plt.figure(figsize=(10, 5.4), layout="constrained")
pictures = {
    "scene a (white: cloud, swath edge)": plots.true_colour(x[:, 0], bands=scene.bands, valid=valid),
    "its labels": plots.class_image(truth, recipe.classes),
}
axes = map_plots.map_row(figure, pictures, geobox=scene.geobox, classes=recipe.classes)

# %% [markdown]
# ## Train
#
# One call; the command `earthtune finetune landuse.yaml --out runs/landuse` does the same. The run folder holds the
# model (`bundle.json`, `model.safetensors`, `model.onnx`), its scores and a `report.html`. `resume=True` goes on with a
# training that was cut off, and leaves one that has ended as it is.

# %%
RUN = Path("runs/landuse")
finetune(recipe, RUN, launch=Launch(resume=True, say=print), name="landuse")
curves, metrics = read_curves(RUN / "metrics.csv"), json.loads((RUN / "metrics.json").read_text())
print(metrics["headline"])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
plots.curves(left, curves, keys=["train_loss", "val_loss"], label="loss (cross-entropy)")
axes = plots.curves(right, curves, keys=["val_accuracy", "val_mean_iou"], label="score, 0 to 1")

# %% [markdown]
# Both losses fall together and flatten: the model has learnt what it can in these epochs and does not yet learn by
# heart. A validation loss that rises while the training loss falls would say that it does.
#
# ## Against the baseline
#
# A score alone means little. Two cheap methods are trained on the same blocks: *majority* says the commonest class
# everywhere, *pixel forest* is a random forest on the six numbers of each pixel alone. What a model gains over the
# forest, it gains from looking at the surroundings.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained", width_ratios=(1, 1))
scores = {"model": metrics["model"]} | metrics["baselines"]
names = {"mean_iou": "mean IoU", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "kappa": "kappa"}
plots.scores_bars(left, scores, keys=names)
left.set_title(f"scores on {metrics['samples']} blocks kept out of the training", fontsize=10)
axes = plots.confusion_plot(right, np.array(metrics["confusion"]), recipe.classes)
title = right.set_title("per cent of each true class", fontsize=10)

# %% [markdown]
# Read a row of the matrix from left to right: of all true pixels of that class, how many per cent were mapped as what?
# Grassland and cropland are the pair that is hard to part: a young field and a worn pasture have the same colours here,
# and only texture and outline tell.
#
# ## A map beside the truth
#
# The new scene took no part in anything above. Its true land use was kept apart.

# %%
bundle = read_bundle(RUN)
new = open_for(bundle, "../sample_data/new_scene/new_scene_hls.tif")
truth = read_labels(Path("../sample_data/truth/new_scene_landuse.tif"), new.geobox, new.window, codes=codes)
methods = {"model": load_runtime(RUN), "pixel forest": baselines_of(RUN)["pixel forest"]}
maps = {name: class_map(new, bundle.spec, predict, overlap=32) for name, predict in methods.items()}
agreement = {name: (indices == truth)[indices >= 0].mean() for name, indices in maps.items()}

figure = plt.figure(figsize=(13, 5.6), layout="constrained")
pictures = {"truth": plots.class_image(truth, recipe.classes)}
pictures |= {f"{name}: {agreement[name]:.0%} right": plots.class_image(m, recipe.classes) for name, m in maps.items()}
axes = map_plots.map_row(figure, pictures, geobox=new.geobox, classes=recipe.classes)

# %% [markdown]
# The forest's map is speckled, since each pixel is judged alone. The model's fields and woods are whole. Where are the
# errors that are left?

# %%
figure = plt.figure(figsize=(9.5, 4.9), layout="constrained")
pictures = {f"errors (orange) of the {name}": map_plots.error_image(truth, m) for name, m in maps.items()}
axes = map_plots.map_row(figure, pictures, geobox=new.geobox)

# %% [markdown]
# ## What it means
#
# * The model's errors lie along edges and in whole parcels that it takes for another class; the forest's are
#   everywhere. For areas and for people who read maps that is a different kind of wrong, even where the score is close.
# * The scores come from two synthetic scenes. On your own data look at the same three pictures: curves, confusion,
#   errors.
# * With network, take published weights: `earthtune finetune landuse --data.root your_chips --out runs/yours` starts
#   from Prithvi 2.0 with 300 million parameters. The report names the forest beside it, so you see what it is worth to
#   you.
#
# Next: [3. score a new scene and look at it](03_score_a_scene.ipynb).
