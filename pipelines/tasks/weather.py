"""The tasks over weather fields by name: what each reads, and the samples that it makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from models.errors import InputError
from models.weather_bundle import WeatherBundle
from pipelines.recipes.recipe import data_of
from pipelines.recipes.weather import DownscaleData, WeatherData
from pipelines.samples.fields import Samples
from pipelines.tasks import downscale, rain


class Task(Protocol):
    """A module that knows a task."""

    @property
    def Data(self) -> type[WeatherData]:
        """The settings of its data."""

    def prepare(self, recipe: Any) -> Samples:
        """Samples as a recipe names them, with a Spec that fits but for its statistics."""

    def reopen(self, spec: Any, data: Any) -> Samples:
        """Samples with their truth for a trained model."""

    def inputs(self, spec: Any, files: Sequence[Path], data: Any) -> Samples:
        """Samples without truth, to be scored."""


def data_for(bundle: WeatherBundle, *, root: Path | None = None, elevation: Path | None = None) -> Any:
    """The data settings of a bundle, with another folder or other elevation where these are given.

    Raises:
        InputError: they are damaged, or the task or the model takes no elevation.
    """
    task = bundle.spec.task
    data = data_of(bundle, TASKS[task].Data)
    changes: dict[str, Any] = {"root": root} if root else {}
    if elevation and not isinstance(data, DownscaleData):
        raise InputError(f"elevation {elevation}: a {task} run takes none; leave it out")
    if elevation and not bundle.spec.elevation:
        raise InputError(f"elevation {elevation}: this run was trained without (data.elevation none); leave it out")
    changes |= {"elevation": str(elevation)} if elevation else {}
    return dataclasses.replace(data, **changes)


TASKS: Mapping[str, Task] = {"rain": rain, "downscale": downscale}
