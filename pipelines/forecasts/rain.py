"""Rain by lead time: a run over weather asked about the states of a forecast, each with those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.backbones.rollout import STEP_HOURS
from models.backbones.wxc_files import WxCConfig
from models.bundle import Bundle, load_familiar, read_bundle
from models.errors import InputError
from models.networks.weather import inputs_told
from models.runtime.engines import load_runtime
from models.spec import Quantiles
from models.training.settings import WeatherArchitecture
from pipelines.forecasts.forecast_fields import Forecast, write_series
from pipelines.grids.areas import OTHER_SIZE
from pipelines.samples.climatology import Climatology
from pipelines.samples.unfamiliar import unfamiliar_fields
from pipelines.scoring.fields import doubts_of, lead_suffix, tags_of
from pipelines.scoring.fields import write_series as write_rain
from pipelines.tasks.rain import RainData
from pipelines.tasks.task import data_for, task_named
from pipelines.tasks.weather import forecast
from pipelines.weather.merra2 import Merra2
from pipelines.weather.regions import step

Time = np.datetime64

FIELDS = "rain_fields.nc"  # what the run was given
WRITTEN = ("rain.nc", "rain_lead*h.nc", FIELDS)


@dataclass(frozen=True)
class RainRun:
    """A run that tells of rain, and fits a forecast.

    Attributes:
        folder: the run folder.
        bundle: what it holds.
        data: settings of its data, with the climatology that the forecast was given.
    """

    folder: Path
    bundle: Bundle
    data: RainData

    @property
    def channels(self) -> tuple[str, ...]:
        """The fields that it eats."""
        return self.bundle.spec.weather.channels

    def write(self, folder: Path, states: Forecast, *, out: Path, origin: Mapping[str, str]) -> dict[str, Any]:
        """Write rain.nc, or rain_lead6h.nc and so on for a run of several leads, and the fields that it was made of.

        The fields are read back and told of as `score` does it, so that both say the same.

        Args:
            folder: where to; a draft.
            states: fields at the analyses and at each step, the run's channels among them.
            out: the folder that the draft becomes.
            origin: of the forecast, for the attributes.

        Returns:
            What forecast.json tells of them: the files, the run, and how much of what its encoder was made for it got.

        Raises:
            InputError: fields that the run does not take.
            RunError: the disk does not take it.
        """
        spec, source = self.bundle.spec, folder / FIELDS
        write_series(source, states.of(self.channels), origin)
        unlabelled = task_named(spec.task).unlabelled
        assert unlabelled is not None
        samples = unlabelled(spec, [source], self.data)
        samples.samples = [s for s in samples.samples if samples.time(s) > states.start]
        made = forecast(load_runtime(self.folder), samples, samples.samples)
        familiar = load_familiar(self.folder, self.bundle)
        strange = None if familiar is None else unfamiliar_fields(familiar, samples)
        doubts = doubts_of(self.bundle, made, strange)
        tags = tags_of(self.folder, self.bundle, [FIELDS])
        names = {lead: f"rain{lead_suffix(spec.field, lead)}.nc" for lead in spec.field.leads}
        for lead, name in names.items():
            write_rain(folder / name, samples, made, lead, tags, doubts=doubts, start=states.start)
        assert isinstance(self.bundle.architecture, WeatherArchitecture)
        told = inputs_told(spec.weather, self.bundle.backbone, self.bundle.architecture)
        return {"rain": [str(out / name) for name in names.values()], "rain_run": str(self.folder), "rain_inputs": told}


def open_rain(run: Path, merra: Merra2, times: Sequence[Time], *, start: Time, climatology: str | None) -> RainRun:
    """Open a run of rain, before any work.

    Args:
        run: the run folder.
        merra: what the forecast starts from; its channels are those of the forecast.
        times: of the states: the analyses, then each step.
        start: the last of the analyses.
        climatology: where that of the forecast is; that of the run's training when None.

    Raises:
        InputError: no run of rain, or one whose fields, times or cells a forecast does not have.
    """
    bundle = read_bundle(run)
    spec = bundle.spec
    if not isinstance(spec.answer, Quantiles):
        raise InputError(f"--rain {run}: a run of task {spec.task}; wanted one of rain, as of the recipe rainfall")
    given, data = spec.weather, data_for(bundle, climatology=climatology if spec.weather.climatology else None)
    absent = [name for name in (*given.channels, *given.static) if name not in (*merra.channels, *merra.static)]
    if absent:
        listed = f"{', '.join(absent[:5])}{' ...' if len(absent) > 5 else ''}"
        raise InputError(
            f"--rain {run}: it reads {listed}, which a forecast of Prithvi WxC does not have; wanted a run over its "
            "channels, as of the recipe rainfall"
        )
    past = [np.timedelta64(round(back * given.step * 3600), "s") for back in range(1, given.times)]
    if not any(all(time - back in times for back in past) for time in times if time > start):
        raise InputError(
            f"--rain {run}: it reads {given.times} times {given.step:g} h apart; the forecast has "
            f"{len(times)} {STEP_HOURS} h apart: wanted a run of 2 times, data.step {STEP_HOURS}, or more --steps"
        )
    came = step(merra.lat), step(merra.lon)
    if not all(1 / OTHER_SIZE < a / b < OTHER_SIZE for a, b in zip(came, given.size, strict=False)):
        (down, across), (high, wide) = came, given.size
        raise InputError(
            f"--rain {run}: it was trained on cells of {high:.4g} x {wide:.4g} deg, those of the forecast are "
            f"{down:.4g} x {across:.4g} deg; wanted a run trained on such cells"
        )
    if given.climatology:
        leads = [np.timedelta64(round(lead * 3600), "s") for lead in spec.field.leads]
        valid = [time + lead for time in times if time > start for lead in leads]
        Climatology.at(data.climatology, merra.lat, merra.lon, WxCConfig()).check(valid, given.channels)
    return RainRun(run, bundle, data)
