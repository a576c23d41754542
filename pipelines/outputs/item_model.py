"""The model in a STAC item, by the MLM extension."""

from __future__ import annotations

from typing import Any

from models.bundle import Bundle
from models.spec import IMAGERY, Spec
from pipelines.outputs.item_assets import classes_of

_TASKS = {"segmentation": "semantic-segmentation", "classification": "scene-classification", "regression": "regression"}


def model_fields(bundle: Bundle) -> dict[str, Any]:
    """The model by the MLM extension (https://github.com/stac-extensions/mlm)."""
    pretrained = bundle.base.source != "random"
    head = "linear head" if bundle.spec.answer.support == "tile" else getattr(bundle.architecture, "decoder", "")
    settings = {"mode": bundle.mode, "recipe_sha256": bundle.training.get("sha256")}
    return {
        "mlm:name": f"{bundle.backbone} {bundle.spec.task}",
        "mlm:architecture": f"Prithvi EO vision transformer ({bundle.backbone}), {head}",
        "mlm:tasks": [_TASKS[bundle.spec.task]],
        "mlm:framework": "PyTorch",
        "mlm:pretrained": pretrained,
        "mlm:pretrained_source": str(bundle.base) if pretrained else None,
        "mlm:input": _inputs(bundle.spec),
        "mlm:output": [_output(bundle.spec)],
        "mlm:hyperparameters": {key: value for key, value in settings.items() if value is not None},
    }


def _inputs(spec: Spec) -> list[dict[str, Any]]:
    """The image; and dates and place, where the model takes them."""
    image = {
        "name": IMAGERY,
        "description": f"{spec.imagery.unit}, frames by date",
        "bands": list(spec.imagery.channels),
        "input": {
            "shape": [-1, len(spec.imagery.channels), spec.imagery.times, spec.imagery.tile, spec.imagery.tile],
            "dim_order": ["batch", "bands", "time", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(spec.imagery.mean, spec.imagery.std, strict=True)
        ],
        "resize_type": "pad",
    }
    time = _vector("time", "year and day of the year from 0, of each frame", [-1, spec.imagery.times, 2], "time")
    place = _vector("location", "latitude and longitude of the tile's centre, degrees", [-1, 2])
    return [image, *([time] if spec.imagery.uses_time else []), *([place] if spec.imagery.uses_location else [])]


def _vector(name: str, description: str, shape: list[int], *dimensions: str) -> dict[str, Any]:
    """An input without bands."""
    structure = {"shape": shape, "dim_order": ["batch", *dimensions, "coordinate"], "data_type": "float32"}
    return {"name": name, "description": description, "bands": [], "input": structure}


def _output(spec: Spec) -> dict[str, Any]:
    """What the model answers for a tile."""
    axis = "class" if spec.answer.classes else "channel"
    pixels = [] if spec.answer.support == "tile" else ["height", "width"]
    unit = f" in {spec.answer.unit}" if spec.answer.unit else ""
    return {
        "name": spec.answer.name,
        "description": f"{spec.answer.name}{unit}" if not spec.answer.classes else "probability of each class",
        "tasks": [_TASKS[spec.task]],
        "result": {
            "shape": [-1, spec.answer.channels, *[spec.imagery.tile for _ in pixels]],
            "dim_order": ["batch", axis, *pixels],
            "data_type": "float32",
        },
        "classification:classes": classes_of(spec.answer.classes),
    }
