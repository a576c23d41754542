"""Rasters on one map in a notebook; the widget's library is imported when a map is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import InputError
from pipelines.exploring.layers import Layer, grid_of, open_layer
from pipelines.points.labels import classes_of

if TYPE_CHECKING:
    from pipelines.exploring.explorer import Explorer


def explore(*layers: str | Path, classes: Sequence[str] = ()) -> Explorer:
    """A map in a notebook of rasters of any size and system, the first at the bottom, to put points and to correct.

    Scenes are shown in their colours, maps of classes and of values in theirs with a legend, tokens by three principal
    components; all on the ground of the first. The page asks for what it shows, at the screen's resolution; nothing
    comes from the network. `points` of what is returned are the clicks, `corrections` what was drawn; both may be set,
    and `save_points` and `save_corrections` write them as `points`, `review` and `finetune` take them.

    Args:
        layers: rasters, folders of scenes or STAC items, as `score` takes them.
        classes: names that points may have; those of the topmost map of classes where none are given.

    Returns:
        A widget for Jupyter or VS Code.

    Raises:
        InputError: anywidget is not installed, a file is missing or no raster, layers lie on different ground, or a
            name of a class is given twice.
    """
    try:
        from pipelines.exploring.explorer import Explorer
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "ipywidgets", "traitlets"):
            raise
        raise InputError("anywidget is not installed: pip install 'earthtune[notebooks]'") from error
    if wrong := [one for one in layers if not isinstance(one, str | Path) or not str(one)]:
        raise InputError(f"explore: wanted names of rasters, one after the other; came {wrong[0]!r}")
    if isinstance(classes, str):
        raise InputError(f"classes {classes!r}: wanted a list of names, as ['{classes}']")
    shown = [open_layer(layer) for layer in layers]
    grid = grid_of(shown)
    return Explorer(shown, grid, _named(shown, classes))


def _named(layers: Sequence[Layer], classes: Sequence[str]) -> list[dict[str, str | int | None]]:
    """Classes of points: name, colour, and the code that a map has for it."""
    mapped = next((layer.classes for layer in reversed(layers) if layer.classes), ())
    if len({entry.name for entry in mapped}) < len(mapped):
        raise InputError("two classes of the map have one name, so that nothing tells them apart; give them two")
    if not classes:
        return [{"name": entry.name, "colour": entry.colour, "code": entry.code} for entry in mapped]
    known, index = classes_of("classes", classes)
    said = [str(classes[[*index].index(number)]).strip() for number in range(len(known))]
    if "" in said or len(said) < len(classes):
        raise InputError(f"classes {', '.join(map(repr, classes))}: wanted names that differ, none of them empty")
    ours = {entry.name: entry for entry in mapped}
    return [
        {
            "name": name,
            "colour": ours[name].colour if name in ours else entry.colour,
            "code": ours[name].code if name in ours else None,
        }
        for name, entry in zip(said, known, strict=True)
    ]
