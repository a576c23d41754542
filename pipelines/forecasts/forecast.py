"""Prithvi WxC rolled forward from MERRA-2 files: maps and a series of the chosen variables, verified where asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import InputError
from models.files import check_folder
from models.types import Array, Progress, Say, Source
from pipelines.records.energy import READ, TILES, Account, Meter

if TYPE_CHECKING:
    from torch import Tensor

    from models.backbones.prithvi_wxc import WxCForecaster
    from models.backbones.wxc_inputs import Batch
    from pipelines.samples.climatology import Climatology

Time = np.datetime64

DEFAULT = ("T2M", "SLP", "U10M", "V10M")
MEANINGLESS = "weights random: this forecast means nothing; it shows that the way from files to maps works"


def forecast(
    backbone: str,
    analyses: list[Source],
    *,
    out: Path,
    steps: int = 4,
    start: str | None = None,
    variables: list[str] | None = None,
    weights: str = "hub",
    climatology: str | None = None,
    region: list[float] | None = None,
    verify: list[Source] | None = None,
    rain: Path | None = None,
    precision: str = "float32",
    device: str = "auto",
    account: Account = Account(),
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Forecast the weather in steps of 6 hours with Prithvi WxC, from MERRA-2 files that hold two times 6 hours apart.

    Writes into a folder: a Cloud Optimized GeoTIFF per step (a band per variable or level), the series as forecast.nc,
    and forecast.json. With --verify, later MERRA-2 files, it scores the forecast beside persistence and climatology.
    Rain is not among the variables of Prithvi WxC: with --rain, a run of the recipe rainfall is asked about each step
    and the one before it, and writes rain.nc, by lead time, beside the fields that it was given, rain_fields.nc.

    Args:
        backbone: prithvi_wxc_2300m_rollout, tuned for steps of 6 hours; or another that `earthtune backbones` lists.
        analyses: MERRA-2 files of the surface, of the model levels and of the constants, or addresses of Zarr stores.
        out: the folder to write.
        steps: how many steps of 6 hours.
        start: time of the last analysis used (YYYY-MM-DDTHH:MM, UTC); the newest with another 6 hours before it.
        variables: what to write, joined by commas, such as T2M,U_51 (level 51), U (all levels) or all; default
            T2M,SLP,U10M,V10M. A run over some of them scores forecast.nc.
        weights: hub for the published ones, a folder laid out like their repository, a weight file in one, or random.
        climatology: hub, or a folder that holds climatology/climate_surface_doy090_hour12.nc and so on; default
            where the weights are. With random weights the mean of the analyses stands in for it.
        region: west,south,east,north in degrees, such as -100,30,-70,45; default the grid of the files.
        verify: later MERRA-2 files, or the same ones where they hold later times.
        rain: a run folder of rain whose fields are channels of Prithvi WxC, at times 6 hours apart where there are two.
        precision: float32, or bfloat16 for half the memory.
        device: cpu, cuda, or auto.
        account: on whose account the energy goes, see energy.json in the folder.
        overwrite: replace an earlier forecast in the folder.
        progress: wraps the steps to show progress.
        say: takes a line for the person who waits.

    Returns:
        What forecast.json holds: start, steps, files, series, and verification, rows of variable, lead_hours, rmse,
        persistence and climatology; with --rain its files and its run.

    Raises:
        InputError: files without what is needed, a gap in their times, unknown names, a folder that is not empty, a run
            of rain that reads what the forecast does not have.
        RunError: the forecast is not finite, or the disk does not take it.
    """
    # All of these bring torch, which no other command's help has to wait for.
    from models.backbones.prithvi_wxc import WxCForecaster
    from models.backbones.rollout import STEP_HOURS
    from pipelines.forecasts.forecast_fields import Forecast, write_forecast
    from pipelines.forecasts.rain import WRITTEN, open_rain
    from pipelines.forecasts.start import find_climatology, find_config, last_time, ready
    from pipelines.forecasts.verification import check_truth, verified
    from pipelines.weather.merra2 import choose_channels, open_merra2
    from pipelines.weather.regions import geobox, region_of

    if steps < 1:
        raise InputError(f"steps {steps}: wanted 1 or more, each of {STEP_HOURS} hours")
    check_folder(out, overwrite=overwrite)
    meter = account.begun("forecast", say)
    config, files = find_config(backbone, weights)
    chosen = choose_channels(variables or [name for name in DEFAULT if name in config.channels], config.channels)
    box = region_of(region, such="-100,30,-70,45")
    merra = open_merra2(analyses, config.channels, static=config.static, region=box)
    geobox(merra.grid, name="analyses")
    begin = last_time(merra.times(), start)
    targets = tuple(begin + np.timedelta64(STEP_HOURS * step, "h") for step in range(1, steps + 1))
    known = (begin - np.timedelta64(STEP_HOURS, "h"), begin)
    asked = open_rain(rain, merra, (*known, *targets), start=begin, climatology=climatology) if rain else None
    truth = open_merra2(verify, chosen, static=(), region=box) if verify else None
    check_truth(truth, merra, targets)
    climate = _checked(find_climatology(climatology, weights, merra, config, begin), targets)
    normal = climate if climate and config.residual == "climate" else None
    _warn(backbone, weights, say)
    batch = merra.batch(known, lead=STEP_HOURS, climate=normal.read(targets[0]) if normal else None)
    model, _ = ready(WxCForecaster, config, files, batch, precision=precision, device=device)
    kept = choose_channels({*chosen, *(asked.channels if asked else ())}, config.channels)
    at = [config.channels.index(channel) for channel in kept]
    fields = _rolled(model, batch, begin, normal, _shown(targets, progress), at, meter)
    made = Forecast(merra, kept, begin, targets, fields)
    origin = {"model": backbone, "weights": weights, "climatology": climate.told if climate else "none"}
    rows = verified(made.of(chosen), truth, climate) if truth else []
    states = made.after(batch["x"][0, :, at].numpy(), known)
    beside = partial(asked.write, states=states, out=out, origin=origin) if asked else None
    return write_forecast(out, made.of(chosen), origin, rows, meter, beside=beside, also=WRITTEN)


def _checked(climate: Climatology | None, targets: Sequence[Time]) -> Climatology | None:
    """A climatology that has the targets, which is seen before any work."""
    if climate:
        climate.check(targets)
    return climate


def _shown(targets: Sequence[Time], progress: Progress | None) -> Iterable[Time]:
    """The targets, with progress where a person waits for them."""
    return progress(targets, "forecast") if progress else targets


def _warn(backbone: str, weights: str, say: Say) -> None:
    """Say what a forecast by these weights is not worth."""
    if weights == "random":
        say(MEANINGLESS)
    elif not backbone.endswith("_rollout"):
        say(f"{backbone} was not tuned to be rolled forward; prithvi_wxc_2300m_rollout was")


def _rolled(
    model: WxCForecaster,
    batch: Batch,
    start: Time,
    climate: Climatology | None,
    targets: Iterable[Time],
    at: Sequence[int],
    meter: Meter,
) -> Array:
    """The channels `at` these indices for every target, (T, C, H, W); what it costs is booked."""
    import torch

    from models.backbones.rollout import rollout

    def climate_at(time: Time) -> Tensor | None:
        return None if climate is None else torch.from_numpy(climate.read(time))[None]

    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in batch.items()}
    stepping = rollout(model, batch, start=start, climate=climate_at)
    meter.lap(READ)
    fields = np.stack([next(stepping)[0, at].cpu().numpy() for _ in targets])
    meter.made(samples=len(fields))
    meter.lap(TILES)
    return fields
