"""The model as a STAC item with the MLM extension: of no place, and of the time that excludes none."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.bundle import FILES, Bundle
from pipelines.outputs.item import assembled, model_fields, when
from pipelines.outputs.item_assets import MODEL, asset
from pipelines.publishing.files import PICTURE

_MODELS = {  # assets, the field of a bundle that tells of the file, and what it is
    "onnx": ("graph", "Model as ONNX: physical units in, answers out"),
    "weights": ("sha256", "Weights for PyTorch"),
    "int8": ("int8", "Model in bytes, as ONNX"),
}


def model_item(bundle: Bundle, folder: Path, *, name: str, licence: str) -> dict[str, Any]:
    """Describe the model files of a folder."""
    scenes = not bundle.spec.over_weather and not bundle.spec.over_tables
    bands = bundle.spec.imagery.channels if scenes else ()
    assets = {
        key: asset(MODEL, folder / FILES[field], folder, bands=bands) | {"title": title}
        for key, (field, title) in _MODELS.items()
        if (folder / FILES[field]).is_file()
    }
    assets["bundle"] = asset("bundle", folder / "bundle.json", folder) | {"roles": ["metadata"]}
    assets["thumbnail"] = asset("thumbnail", folder / PICTURE, folder) | {"title": "Scores beside baselines"}
    told = {
        "title": name,
        "description": f"A fine-tuned {bundle.backbone}, {bundle.spec.task}; of no place, its time is a placeholder.",
        "license": licence,
        "processing:software": {"earthtune": version("earthtune")},
        **when([]),
        **model_fields(bundle),
    }
    return assembled(name, {"geometry": None}, told, [], assets)
