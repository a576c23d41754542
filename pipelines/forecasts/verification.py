"""A forecast beside the analyses of its valid times, persistence and climatology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.errors import InputError
from pipelines.forecasts.forecast_fields import Forecast, stamp
from pipelines.reports.scores import area_rmse
from pipelines.samples.climatology import Climatology
from pipelines.weather.merra2 import Merra2, split_channel
from pipelines.weather.regions import cell_areas

Time = np.datetime64


def check_truth(truth: Merra2 | None, merra: Merra2, targets: Sequence[Time]) -> None:
    """Refuse, before any work, analyses that cannot verify the forecast.

    Raises:
        InputError: another grid, or none of the valid times.
    """
    if truth is None:
        return
    for dim in ("lat", "lon"):
        mine, theirs = truth.grid[dim].values, merra.grid[dim].values
        if len(mine) != len(theirs) or np.abs(mine - theirs).max() > 0.01:
            raise InputError(f"verify: another {dim} than that of the analyses; wanted files of the same grid")
    held = truth.times()
    if not set(held) & set(targets):
        wanted = f"{np.datetime_as_string(targets[0], 'm')}..{np.datetime_as_string(targets[-1], 'm')}"
        came = ", ".join(np.datetime_as_string(time, "m") for time in held[:4]) or "none"
        raise InputError(f"verify: analyses at times of {wanted} are wanted, these files hold {came}; add later files")


def verified(made: Forecast, truth: Merra2, climate: Climatology | None) -> list[dict[str, Any]]:
    """A row per variable and lead that an analysis is there for."""
    areas = cell_areas(made.analyses.lat)
    every = made.analyses.channels
    at = [every.index(channel) for channel in made.channels]
    last = made.analyses.stack(made.start)[at]
    rows, held = [], set(truth.times())
    for i, time in enumerate(made.times):
        if time not in held:
            continue
        observed = truth.stack(time)
        guesses = {"rmse": made.fields[i], "persistence": last}
        if climate:
            guesses["climatology"] = climate.read(time)[at]
        for k, channel in enumerate(made.channels):
            scores = {name: area_rmse(guess[k], observed[k], areas) for name, guess in guesses.items()}
            unit = str(made.analyses.attrs(channel).get("units", ""))
            where = {"variable": channel, "level": split_channel(channel)[1], "unit": unit}
            rows.append({**where, "lead_hours": made.lead_hours(i), "valid_time": stamp(time), **scores})
    return sorted(rows, key=lambda row: (made.channels.index(row["variable"]), row["lead_hours"]))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The verification as lines of text: root mean square errors, weighted by area."""
    if not rows:
        return ""
    names = ["rmse", "persistence", *(["climatology"] if "climatology" in rows[0] else [])]
    lines = [
        f"{'variable':<12}{'lead':>6}" + "".join(f"{'forecast' if n == 'rmse' else n:>14}" for n in names) + "  unit"
    ]
    for row in rows:
        values = "".join(f"{row[name]:>14.4g}" for name in names)
        lines.append(f"{row['variable']:<12}{row['lead_hours']:>4} h{values}  {row['unit']}")
    return "\n".join(lines)
