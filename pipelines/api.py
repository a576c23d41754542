"""What notebooks and other programs may call, by name; whatever is not named here may move.

Each name is imported where it is asked for, so that a program starts with what it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from models.runtime import silence as silence  # before any library that it keeps quiet

_HOME = {
    "models.bundle": ("read_bundle",),
    "models.errors": ("InputError", "RunError"),
    "models.runtime.engines": ("load_runtime", "load_runtimes"),
    "pipelines.changes.changes": ("changes",),
    "pipelines.commands.evaluate": ("evaluate",),
    "pipelines.commands.review": ("review",),
    "pipelines.commands.score": ("score",),
    "pipelines.embeddings.embed": ("embed",),
    "pipelines.embeddings.encoding": ("read_tokens",),
    "pipelines.exploring.explore": ("explore",),
    "pipelines.forecasts.encode": ("encode",),
    "pipelines.forecasts.forecast": ("forecast",),
    "pipelines.forecasts.seasonal": ("seasonal",),
    "pipelines.grids.tokens": ("components", "similarity"),
    "pipelines.inspection.inspect": ("format_text", "inspect"),
    "pipelines.outputs.categories": ("read_categories",),
    "pipelines.points.picker": ("picker",),
    "pipelines.points.points": ("points",),
    "pipelines.recipes.pretraining": ("Pretraining",),
    "pipelines.reports.webmap": ("similarity_map", "web_map"),
    "pipelines.review.review": ("Page",),
    "pipelines.runs.assess": ("baselines_of",),
    "pipelines.runs.finetune": ("finetune",),
    "pipelines.runs.folder": ("Launch", "read_curves"),
    "pipelines.runs.pretrain": ("pretrain",),
    "pipelines.samples.labelling.labels": ("read_labels", "read_values"),
    "pipelines.samples.labelling.polygons": ("Polygons",),
    "pipelines.scenes.reading": ("Reading",),
    "pipelines.scenes.scene": ("open_scene",),
    "pipelines.scoring.jobs": ("Engine",),
    "pipelines.scoring.opening": ("open_for",),
    "pipelines.scoring.plan": ("Maps", "Share"),
    "pipelines.scoring.rows": ("class_map",),
    "pipelines.surveys.areas": ("areas",),
    "pipelines.surveys.draw": ("sample",),
    "pipelines.tasks.task": ("load_recipe", "prepare"),
    "pipelines.weather.dataset": ("one_forecast", "open_weather"),
}
MODULES = {"plots": "pipelines.reports.plots", "map_plots": "pipelines.reports.map_plots"}
WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted((*WHERE, *MODULES))


def __getattr__(name: str) -> Any:
    """A name of the table, imported now."""
    if name not in __all__:
        raise AttributeError(f"pipelines.api has no {name!r}; it has {', '.join(__all__)}")
    return import_module(MODULES[name]) if name in MODULES else getattr(import_module(WHERE[name]), name)
