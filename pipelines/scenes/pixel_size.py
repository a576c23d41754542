"""The size of a scene's pixels beside that of a training's: told, and brought onto it."""

from __future__ import annotations

import dataclasses

from pipelines.grids.areas import OTHER_SIZE, pixel_side, pixel_sides
from pipelines.grids.positions import resized
from pipelines.scenes.reading import Resample
from pipelines.scenes.scene import Scene


def at_size(scene: Scene, trained: float | None, resample: Resample) -> Scene:
    """A scene on pixels of a training's size, from the same corner, and a note of it.

    It stays as it is where it is not to be resampled, its pixels are of about that size, or a size is not known. Pixels
    in degrees are as wide and high as they are in the middle of the scene.

    Args:
        scene: the scene, on the grid of its files.
        trained: side of a pixel of the training images on the ground in metres, where it is known.
        resample: see `Reading`.
    """
    side = pixel_side(scene.geobox)
    if resample == "never" or trained is None or not (differing := differing_sizes(side, trained)):
        return scene
    down, across = (trained / own for own in pixel_sides(scene.geobox))
    note = f"{differing}: resampled to {trained:g} m"
    return dataclasses.replace(scene, geobox=resized(scene.geobox, down, across), own=scene, notes=(*scene.notes, note))


def resampling_of(scene: Scene) -> str:
    """From which size of pixels to which a scene was resampled; empty where it was not."""
    if scene.own is None:
        return ""
    return f"{pixel_side(scene.own.geobox):g} m to {pixel_side(scene.geobox):g} m"


def size_notes(scene: Scene, trained: float | None) -> list[str]:
    """A warning where pixels, as they are read, are of quite another size than a training's, or sizes are not known."""
    side = pixel_side(scene.geobox)
    if side is None or trained is None:
        here, there = ("not known" if size is None else f"{size:g} m" for size in (side, trained))
        hint = " (data.pixel of a recipe says it)" if trained is None else ""
        return [f"pixel sizes were not compared: {here} here, {there} in training{hint}"]
    differing = differing_sizes(side, trained)
    advice = f"the model knows no such textures; --resample train brings the scene onto {trained:g} m"
    return [f"WARNING: {differing}: {advice}"] if differing else []


def differing_sizes(side: float | None, trained: float | None) -> str:
    """What two sizes of pixels in metres are, where they are quite different; empty where not, or one is not known."""
    if side is None or trained is None or 1 / OTHER_SIZE < side / trained < OTHER_SIZE:
        return ""
    return f"its pixels are {side:g} m, those of the training {trained:g} m"
