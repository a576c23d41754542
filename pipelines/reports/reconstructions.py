"""What a masked autoencoder saw of scenes, and what it made of the rest, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.files import draft
from models.types import Array, Mask
from pipelines.reports import plots

TITLES = ("the scene", "what the model saw", "what it made of it")
SIDE = 2.3  # inches of a picture


def write_reconstructions(
    path: Path, examples: Sequence[tuple[Array, Array, Mask, Mask]], *, bands: Sequence[str]
) -> None:
    """Write a PNG with a row for each sample: the scene, what was seen of it, and that with the rest as it was told.

    The three pictures of a row have one stretch, so that brightness can be compared.

    Args:
        path: the file to write.
        examples: reflectance x10000 (C, h, w), that with what was hidden as the model tells it, (C, h, w), where it was
            hidden and valid, (h, w), and where it is valid, (h, w).
        bands: names of the C bands.

    Raises:
        RunError: the disk does not take the file.
    """
    figure = plots.figure(SIDE * len(TITLES), SIDE * len(examples) + 0.3)
    axes = figure.subplots(len(examples), len(TITLES), squeeze=False)
    for row, (x, told, hidden, valid) in zip(axes, examples, strict=True):
        beside = np.concatenate((x, x, told), axis=2)  # (C, h, 3w)
        seen = np.concatenate((valid, valid & ~hidden, valid), axis=1)
        images = np.split(plots.true_colour(beside, bands=bands, valid=seen), len(TITLES), axis=1)
        for ax, image, title in zip(row, images, TITLES, strict=True):
            plots.draw_map(ax, image, title=title if row[0] is axes[0, 0] else "")
    with draft(path) as file:
        figure.savefig(file, format="png", facecolor="white")
