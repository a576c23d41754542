"""Prithvi WxC rolled forward from MERRA-2 files: maps and a series of the chosen variables, verified where asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray
    from torch import Tensor

    from models.backbones.prithvi_wxc import WxCForecaster
    from models.backbones.wxc_files import WxCConfig, WxCFiles
    from models.backbones.wxc_inputs import Batch
    from pipelines.weather.merra2 import Merra2

    Array = NDArray[np.float32]
    Time = np.datetime64

DEFAULT = ("T2M", "SLP", "U10M", "V10M")
MEANINGLESS = "weights random: this forecast means nothing; it shows that the way from files to maps works"

# Names of the CF standard name table, version 86 (cfconventions.org).
STANDARD_NAMES = {
    "T2M": "air_temperature",
    "T": "air_temperature",
    "TS": "surface_temperature",
    "PS": "surface_air_pressure",
    "SLP": "air_pressure_at_mean_sea_level",
    "PL": "air_pressure",
    "U10M": "eastward_wind",
    "U": "eastward_wind",
    "V10M": "northward_wind",
    "V": "northward_wind",
    "QV2M": "specific_humidity",
    "QV": "specific_humidity",
    "OMEGA": "lagrangian_tendency_of_air_pressure",
    "H": "geopotential_height",
    "TQV": "atmosphere_mass_content_of_water_vapor",
}


def forecast(
    backbone: str,
    analyses: list[Path],
    *,
    out: Path,
    steps: int = 4,
    start: str | None = None,
    variables: list[str] | None = None,
    weights: str = "hub",
    climatology: str | None = None,
    region: list[float] | None = None,
    verify: list[Path] | None = None,
    precision: str = "float32",
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Forecast the weather in steps of 6 hours with Prithvi WxC, from MERRA-2 files that hold two times 6 hours apart.

    Writes into a folder: a Cloud Optimized GeoTIFF per step (a band per variable or level), the series as forecast.nc,
    and forecast.json. With --verify, later MERRA-2 files, it scores the forecast beside persistence and climatology.
    Rain is not among the variables of Prithvi WxC.

    Args:
        backbone: prithvi_wxc_2300m_rollout, tuned for steps of 6 hours; or another that `earthtune backbones` lists.
        analyses: MERRA-2 files of the surface, of the model levels and of the constants.
        out: the folder to write.
        steps: how many steps of 6 hours.
        start: time of the last analysis used (YYYY-MM-DDTHH:MM, UTC); the newest with another 6 hours before it.
        variables: what to write, joined by commas, such as T2M,U_51 (level 51) or U (all levels); default
            T2M,SLP,U10M,V10M.
        weights: hub for the published ones, a folder laid out like their repository, a weight file in one, or random.
        climatology: hub, or a folder that holds climatology/climate_surface_doy090_hour12.nc and so on; default
            where the weights are. With random weights the mean of the analyses stands in for it.
        region: west,south,east,north in degrees, such as -100,30,-70,45; default the grid of the files.
        verify: later MERRA-2 files, or the same ones where they hold later times.
        precision: float32, or bfloat16 for half the memory.
        device: cpu, cuda, or auto.
        overwrite: replace an earlier forecast in the folder.
        progress: wraps the steps to show progress.
        say: takes a line for the person who waits.

    Returns:
        What forecast.json holds: start, steps, files, series, and verification, rows of variable, lead_hours, rmse,
        persistence and climatology.

    Raises:
        InputError: files without what is needed, a gap in their times, unknown names, a folder that is not empty.
        RunError: the forecast is not finite, or the disk does not take it.
    """
    import numpy as np

    from models.backbones.rollout import STEP_HOURS
    from models.files import check_folder
    from pipelines.weather.merra2 import choose_channels, open_merra2
    from pipelines.weather.regions import geobox

    if steps < 1:
        raise InputError(f"steps {steps}: wanted 1 or more, each of {STEP_HOURS} hours")
    check_folder(out, overwrite=overwrite)
    config, files = _config(backbone, weights)
    chosen = choose_channels(variables or [name for name in DEFAULT if name in config.channels], config.channels)
    box = _region(region)
    merra = open_merra2(analyses, config.channels, static=config.static, region=box)
    geobox(merra.grid, name="analyses")
    begin = _start(merra.times(), start)
    targets = tuple(begin + np.timedelta64(STEP_HOURS * step, "h") for step in range(1, steps + 1))
    truth = open_merra2(verify, chosen, static=(), region=box) if verify else None
    _check_truth(truth, merra, targets)
    climate = _climate(climatology, weights, merra, config, begin)
    if climate:
        climate.check(targets)
    first = climate.read(targets[0]) if climate and config.residual == "climate" else None
    if weights == "random":
        say(MEANINGLESS)
    elif not backbone.endswith("_rollout"):
        say(f"{backbone} was not tuned to be rolled forward; prithvi_wxc_2300m_rollout was")
    batch = merra.batch([begin - np.timedelta64(STEP_HOURS, "h"), begin], lead=STEP_HOURS, climate=first)
    model, where = _ready(config, files, batch, precision=precision, device=device)
    batch = {key: value.to(where) for key, value in batch.items()}
    at = [config.channels.index(channel) for channel in chosen]
    shown = progress(targets, "forecast") if progress else targets
    fields = _rolled(model, batch, begin, climate if config.residual == "climate" else None, shown, at)
    made = Forecast(merra, chosen, begin, targets, fields)
    origin = {"model": backbone, "weights": weights, "climatology": climate.told if climate else "none"}
    return _write(out, made, origin, _verified(made, truth, climate) if truth else [])


def _rolled(
    model: WxCForecaster,
    batch: Batch,
    start: Time,
    climate: Climatology | None,
    targets: Iterable[Time],
    at: Sequence[int],
) -> Array:
    """The channels `at` these indices for every target, (T, C, H, W)."""
    import numpy as np
    import torch

    from models.backbones.rollout import rollout

    def climate_at(time: Time) -> Tensor | None:
        return None if climate is None else torch.from_numpy(climate.read(time))[None]

    stepping = rollout(model, batch, start=start, climate=climate_at)
    return np.stack([next(stepping)[0, at].cpu().numpy() for _ in targets])


@dataclass(frozen=True)
class Forecast:
    """Forecast fields.

    Attributes:
        analyses: what it starts from; its grid is that of the fields.
        channels: names of the C channels.
        start: time of the last analysis used.
        times: the T valid times.
        fields: (T, C, H, W) in the units of MERRA-2.
    """

    analyses: Merra2
    channels: tuple[str, ...]
    start: Time
    times: tuple[Time, ...]
    fields: Array

    def lead_hours(self, i: int) -> int:
        """Hours from the start to a valid time."""
        import numpy as np

        return int((self.times[i] - self.start) / np.timedelta64(1, "h"))


# --- what it starts from ------------------------------------------------------------------------------------------


def _config(backbone: str, weights: str) -> tuple[WxCConfig, WxCFiles | None]:
    """The architecture, and the files of the weights unless they are random."""
    import dataclasses

    from models.backbones.wxc_files import local_files, locate_files, published_config, read_config

    known = published_config(backbone)
    if weights == "random":
        return known, None
    if weights == "hub":
        files = locate_files(backbone)
        return files.config, files
    path = Path(weights)
    if not path.exists():
        raise InputError(
            f"--weights {weights}: wanted hub, random, or a folder or weight file; there is none of this name"
        )
    folder = path if path.is_dir() else path.parent
    files = local_files(folder, weights=None if path.is_dir() else path)
    files = dataclasses.replace(files, config=read_config(folder / "config.yaml", known))
    return files.config, files


def _region(region: Sequence[float] | None) -> Any:
    from pipelines.weather.regions import Region

    if region is None:
        return None
    if len(region) != 4:
        raise InputError(f"region {list(region)}: wanted west, south, east, north in degrees, such as -100,30,-70,45")
    return Region(*region)


def _start(times: Sequence[Time], start: str | None) -> Time:
    """The last input time: as asked for, else the newest that another precedes by a step.

    Raises:
        InputError: none does; the message says which times there are.
    """
    import numpy as np

    from models.backbones.rollout import STEP_HOURS

    step, there = np.timedelta64(STEP_HOURS, "h"), set(times)
    listed = ", ".join(np.datetime_as_string(time, "m") for time in times[-8:]) or "none"
    held = f"the files hold all variables at {len(times)} times{', the last ' if len(times) > 8 else ': '}{listed}"
    if start is None:
        found = [time for time in times if time - step in there and _hour(time) % 3 == 0]
        if not found:
            raise InputError(
                f"analyses: two times {STEP_HOURS} hours apart are wanted, at 00, 03, ... 21 UTC, {held}; add files"
            )
        return found[-1]
    try:
        wanted = np.datetime64(start.removesuffix("Z") or "nothing", "ns")
    except ValueError as error:
        raise InputError(f"start {start!r}: wanted a time such as 2020-03-30T12:00") from error
    if np.isnat(wanted):
        raise InputError(f"start {start!r}: wanted a time such as 2020-03-30T12:00")
    missing = [np.datetime_as_string(time, "m") for time in (wanted - step, wanted) if time not in there]
    if missing:
        raise InputError(f"start {start}: analyses at {' and '.join(missing)} are wanted, {held}; add files")
    return wanted


def _hour(time: Time) -> int:
    return int((time - time.astype("datetime64[D]")).astype("timedelta64[h]").astype(int))


@dataclass(frozen=True)
class Climatology:
    """The channels' climatology by time, on the grid of the analyses.

    Attributes:
        told: where it comes from, for the outputs.
        merra: whose grid it is read on.
        config: names the channels.
        folder: holds climatology/; None for the Hub.
        mean: (C, H, W) that stands in for it at all times, or None.
    """

    told: str
    merra: Merra2
    config: WxCConfig
    folder: Path | None = None
    mean: Array | None = None

    def read(self, time: Time) -> Array:
        """The channels at a time, (C, H, W)."""
        from models.backbones.wxc_files import read_climatology

        if self.mean is not None:
            return self.mean
        surface, vertical = self.files(time)
        return read_climatology(surface, vertical, lat=self.merra.lat, lon=self.merra.lon, config=self.config)

    def files(self, time: Time) -> tuple[Path, Path]:
        """The surface and the vertical file of a time."""
        from models.backbones.wxc_files import climatology_names, locate_climatology

        if self.folder is None:
            return locate_climatology(time)
        surface, vertical = climatology_names(time)
        return self.folder / surface, self.folder / vertical

    def check(self, times: Iterable[Time]) -> None:
        """See that the files of these times are there, before any work.

        Raises:
            InputError: one is not.
        """
        absent = [file for time in times if self.mean is None for file in self.files(time) if not file.is_file()]
        if absent:
            raise InputError(
                f"{absent[0]}: no such file, and {len(absent) - 1} more; the climatology at the targets is wanted"
            )


def _climate(where: str | None, weights: str, merra: Merra2, config: WxCConfig, start: Time) -> Climatology | None:
    """The climatology as chosen; None where the model does without and none was named.

    With random weights and no choice the mean of the analyses up to the start stands in.
    """
    import numpy as np

    if where is None and weights == "random":
        times = [time for time in merra.times() if time <= start]
        mean = np.mean([merra.stack(time) for time in times], axis=0)
        return Climatology(f"mean of {len(times)} analyses", merra, config, mean=mean)
    if where is None and config.residual != "climate":
        return None
    chosen = where or weights
    path = Path(chosen)
    folder = None if chosen == "hub" else path.parent if path.is_file() else path
    return Climatology(chosen, merra, config, folder)


def _ready(
    config: WxCConfig, files: WxCFiles | None, batch: Batch, *, precision: str, device: str
) -> tuple[WxCForecaster, str]:
    """The model in eval mode on its device, and that device's name."""
    import torch

    from models.backbones.prithvi_wxc import WxCForecaster
    from models.backbones.wxc_weights import fill_random, load_pretrained

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision not in kinds:
        raise InputError(f"precision {precision!r}: wanted one of {', '.join(kinds)}")
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device {device!r}: wanted auto, cpu, or cuda where there is one")
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    with torch.device("meta"):
        model = WxCForecaster(config, scalers=None if files else _own_scalers(config, batch))
    if files:
        load_pretrained(model, files, dtype=kinds[precision])
    else:
        fill_random(model, dtype=kinds[precision])
    return model.eval().to(where), where


def _own_scalers(config: WxCConfig, batch: Batch) -> Any:
    """Scalers from the analyses themselves, for random weights: values then have the size of weather."""
    import torch

    from models.backbones.wxc_files import WxCScalers

    x, static = batch["x"][0].double(), batch["static"][0, -len(config.static) :].double()  # (2, C, H, W), (S, H, W)
    seen = torch.cat((x, batch["climate"].double())) if "climate" in batch else x
    mean, std = seen.mean(dim=(0, 2, 3)), seen.std(dim=(0, 2, 3)).clamp(min=1e-4)
    std = std.maximum(1e-6 * mean.abs())  # pressures of the upper levels do not vary
    flat, spread = static.mean(dim=(1, 2)), static.std(dim=(1, 2)).clamp(min=1e-4)
    change = (x[1] - x[0]).std(dim=(1, 2)).clamp(min=1e-8)
    pairs = zip((*mean.tolist(), *flat.tolist()), (*std.tolist(), *spread.tolist()), strict=True)
    names = (*config.channels, *config.static)
    return WxCScalers(dict(zip(names, pairs, strict=True)), dict(zip(config.channels, change.tolist(), strict=True)))


# --- verification -------------------------------------------------------------------------------------------------


def _check_truth(truth: Merra2 | None, merra: Merra2, targets: Sequence[Time]) -> None:
    """Refuse, before any work, analyses that cannot verify the forecast.

    Raises:
        InputError: another grid, or none of the valid times.
    """
    import numpy as np

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


def _verified(made: Forecast, truth: Merra2, climate: Climatology | None) -> list[dict[str, Any]]:
    """A row per variable and lead that an analysis is there for."""
    from pipelines.reports.scores import area_rmse
    from pipelines.weather.merra2 import split_channel
    from pipelines.weather.regions import cell_areas

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
            rows.append({**where, "lead_hours": made.lead_hours(i), "valid_time": _stamp(time), **scores})
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


# --- files --------------------------------------------------------------------------------------------------------


def _stamp(time: Time) -> str:
    import numpy as np

    return f"{np.datetime_as_string(time, 'm')}Z"


def _write(out: Path, made: Forecast, origin: Mapping[str, str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write all files, or none; returns what forecast.json holds."""
    from models.files import draft_folder

    with draft_folder(out, replaces="forecast_*h.tif") as folder:
        names = [_write_map(folder, made, i, origin) for i in range(len(made.times))]
        _write_series(folder / "forecast.nc", made, origin)
        result = {
            "start": _stamp(made.start),
            "steps": len(names),
            **origin,
            "files": [str(out / name) for name in names],
            "series": str(out / "forecast.nc"),
            "verification": rows,
        }
        (folder / "forecast.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _write_map(folder: Path, made: Forecast, i: int, origin: Mapping[str, str]) -> str:
    """One step as a GeoTIFF; returns its name."""
    from pipelines.outputs.geotiff import Layout, write_rows
    from pipelines.weather.regions import geobox

    lead = made.lead_hours(i)
    layout = Layout(
        geobox(made.analyses.grid),
        dtype="float32",
        bands=len(made.channels),
        nodata=float("nan"),
        descriptions=made.channels,
        units=[str(made.analyses.attrs(channel).get("units", "")) for channel in made.channels],
        tags={
            "reference_time": _stamp(made.start),
            "valid_time": _stamp(made.times[i]),
            "lead_time": f"{lead} h",
            **{f"EARTHTUNE_{key.upper()}": value for key, value in origin.items()},
        },
    )
    name = f"forecast_{lead:03d}h.tif"
    write_rows(folder / name, [(0, made.fields[i])], layout)
    return name


def _write_series(path: Path, made: Forecast, origin: Mapping[str, str]) -> None:
    """All steps as one NetCDF file after the CF conventions, version 1.11."""
    from pipelines.outputs.netcdf import write_netcdf

    data = series(made)
    data.attrs |= {"Conventions": "CF-1.11", "title": "Forecast by Prithvi WxC", **origin}
    since = str(made.start.astype("datetime64[s]")).replace("T", " ")
    hours = {"units": f"hours since {since}", "dtype": "float64"}
    write_netcdf(path, data, encoding={"time": hours, "reference_time": hours})


def series(made: Forecast) -> xr.Dataset:
    """The forecast as a dataset: a variable (time, lat, lon) per channel, with lead_time beside the valid time."""
    import numpy as np
    import xarray as xr

    from pipelines.weather.merra2 import split_channel

    leads = np.array([made.lead_hours(i) for i in range(len(made.times))], float)
    grid = made.analyses.grid
    coords = {
        "time": ("time", np.array(made.times, "datetime64[ns]"), {"standard_name": "time", "long_name": "valid time"}),
        "lead_time": ("time", leads, {"standard_name": "forecast_period", "units": "hours"}),
        "reference_time": ((), made.start, {"standard_name": "forecast_reference_time"}),
        "lat": ("lat", grid["lat"].values, {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}),
        "lon": ("lon", grid["lon"].values, {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}),
    }
    fields = {}
    for k, channel in enumerate(made.channels):
        name, level = split_channel(channel)
        source = made.analyses.attrs(channel)
        attrs = {"units": str(source.get("units", "")), "long_name": str(source.get("long_name", name))}
        attrs |= {"standard_name": STANDARD_NAMES[name]} if name in STANDARD_NAMES else {}
        extra = {} if level is None else {"model_level": level}
        fields[channel] = (("time", "lat", "lon"), made.fields[:, k], attrs | extra)
    return xr.Dataset(fields, coords)
