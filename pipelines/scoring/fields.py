"""Maps of new weather files by a run: a Cloud Optimized GeoTIFF for each valid time, and a CF NetCDF of the series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models import files
from models.baselines.fields import Forecast
from models.bundle import Bundle, bundle_id, load_familiar, read_bundle
from models.confidence.intervals import interval_of
from models.errors import shown
from models.runtime.engines import load_runtime
from models.spec import Quantiles, Spec, Values
from models.types import Array, Progress
from pipelines.grids.areas import pixel_areas
from pipelines.outputs.geotiff import write_rows
from pipelines.outputs.layout import Layout, check_target
from pipelines.outputs.netcdf import grid_axes, write_netcdf
from pipelines.records.attempts import PAGE
from pipelines.records.energy import READ, START, TILES, Account, Meter
from pipelines.samples.fields import FieldSamples, Moment
from pipelines.samples.sets import inputs_of
from pipelines.samples.unfamiliar import strange_fields, unfamiliar_fields
from pipelines.scoring.jobs import Engine
from pipelines.scoring.rows import ENDS
from pipelines.tasks.task import data_for, task_named
from pipelines.tasks.weather import forecast
from pipelines.weather import regions
from pipelines.weather.dataset import called

UNFAMILIAR = "distance from training weather, above 1 is outside"


def score_weather(
    run: Path,
    sources: Sequence[str],
    *,
    out: Path,
    engine: Engine = Engine(),
    elevation: Path | None = None,
    climatology: str | None = None,
    account: Account = Account(),
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Write maps of weather files: one GeoTIFF per valid time, and a NetCDF of all of them for each lead time.

    Args:
        run: a run over weather.
        sources: weather files, or addresses of Zarr stores, that go together, in time or side by side.
        out: folder for the maps.
        engine: how the model is run; auto is torch, on any grid.
        elevation: elevation of the files' place, for a downscaling run whose own does not cover it.
        climatology: that of the fields' channels, for a run that takes it: hub or a folder.
        account: on whose account the energy goes.
        overwrite: replace maps that exist.
        progress: wraps the batches to show progress.
        say: takes a line for the person who waits.

    Returns:
        For each map: scene (the files), run, status, map and the share of its cells that hold data.

    Raises:
        InputError: files that the run, or its model.onnx, cannot eat, or maps that exist.
    """
    with account.booked("score", say) as meter:
        how: dict[str, Any] = {"engine": engine, "overwrite": overwrite, "progress": progress, "say": say}
        return _scored(run, sources, out, meter, {"elevation": elevation, "climatology": climatology}, **how)


def _scored(
    run: Path,
    sources: Sequence[str],
    out: Path,
    meter: Meter,
    places: Mapping[str, Any],
    *,
    engine: Engine,
    overwrite: bool,
    progress: Progress | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The steps of `score_weather`; `places` are those of its data."""
    bundle = read_bundle(run)
    task = task_named(bundle.spec.task)
    assert task.unlabelled is not None
    data = data_for(bundle, **places)
    samples = task.unlabelled(bundle.spec, sources, data)
    for note in samples.notes:
        say(note)
    familiar = load_familiar(run, bundle)
    strange = None if familiar is None else unfamiliar_fields(familiar, samples)
    for note in [] if strange is None else strange_fields(samples, strange, bundle):
        say(f"{samples.weather.name}: {note}")
    lat, lon = samples.grid
    geobox = regions.geobox(xr.Dataset(coords={"lat": lat, "lon": lon}), name=samples.weather.name)
    tags = tags_of(run, bundle, sources)
    layouts = {s: _layout(samples, s, geobox, tags, bundle) for s in samples.samples}
    paths, series = _targets(out, samples)
    for sample, path in paths.items():
        check_target(path, layouts[sample], overwrite=overwrite)
    meter.lap(READ)
    predict = load_runtime(run, runtime=engine.runtime, precision=engine.precision, weights=engine.weights)
    if engine.runtime == "openvino":  # a grid that model.onnx does not take is refused before the folder is made
        predict(inputs_of(samples, samples.samples[:1]))
    out.mkdir(parents=True, exist_ok=True)
    meter.bind(out / PAGE)
    meter.lap(START)
    for path in series.values():
        files.check_target(path, ".nc", overwrite=overwrite)
    made = forecast(predict, samples, samples.samples, progress=progress)
    meter.made(samples=len(samples.samples), km2=_ground(geobox) * len(samples.samples))
    meter.lap(TILES)
    doubts, results = doubts_of(bundle, made, strange), []
    for i, (sample, path) in enumerate(paths.items()):
        doubted = (values[i, None] for values, _, _ in doubts.values())
        bands = np.concatenate((made.quantiles[i], made.mean[i, None], made.exceedance[i], *doubted)).astype(np.float32)
        filled = write_rows(path, [(0, bands)], layouts[sample], overwrite=overwrite)
        about = {"scene": shown(",".join(sources)), "run": str(run), "status": "done", "map": str(path)}
        results.append(about | {"valid": filled / bands[0].size})
    for lead, path in series.items():
        write_series(path, samples, made, lead, tags, doubts=doubts)
        say(f"series: {path}")
    return results


def _ground(geobox: GeoBox) -> float:
    """Square kilometres of a grid."""
    rows = (slice(0, side) for side in geobox.shape)
    hectares = pixel_areas(geobox)((next(rows), next(rows)))
    return float(np.nansum(hectares)) / 100


def tags_of(run: Path, bundle: Bundle, sources: Sequence[str]) -> dict[str, str]:
    """What maps and series tell of their run and of the files that they were made of."""
    return {
        "TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}",
        "EARTHTUNE_BUNDLE": bundle_id(run),
        "EARTHTUNE_BACKBONE": bundle.backbone,
        "EARTHTUNE_BASE": str(bundle.base),
        "EARTHTUNE_INPUT": ",".join(map(called, sources)),
    }


def _targets(out: Path, samples: FieldSamples) -> tuple[dict[Moment, Path], dict[float, Path]]:
    """The map of each sample, and the series of each lead time."""
    field, name = samples.spec.field, quantity(samples.spec)
    maps = {s: out / f"{name}_{_stamp(samples.valid(s))}{lead_suffix(field, s.lead)}.tif" for s in samples.samples}
    first = _stamp(samples.weather.times[0])
    return maps, {lead: out / f"{name}_{first}{lead_suffix(field, lead)}.nc" for lead in field.leads}


def quantity(spec: Spec) -> str:
    """What maps and variables are called: the answer's name in the Spec."""
    return next(iter(spec.answers))


Doubts = Mapping[str, tuple[Array, str, str]]  # values (N, H, W), long name and unit by name


def doubts_of(bundle: Bundle, made: Forecast, strange: Array | None) -> Doubts:
    """What tells how far to trust a forecast: lower, upper and unfamiliar, as far as the run can.

    Args:
        bundle: the run.
        made: the forecast.
        strange: see `watch.unfamiliar_fields`; None for a run that keeps no training weather.
    """
    found: dict[str, Array] = {} if strange is None else {"unfamiliar": strange}
    if learned := interval_of(bundle.confidence):
        answers = np.moveaxis(made.quantiles, 1, 0) if bundle.spec.field.levels else made.mean[None]
        found |= zip(ENDS, learned[1](answers, positive=bundle.spec.field.positive), strict=True)
    return {name: (found[name], *about) for name, about in _doubts_told(bundle).items()}


def _doubts_told(bundle: Bundle) -> dict[str, tuple[str, str]]:
    """Long name and unit of what `doubts_of` gives."""
    told: dict[str, tuple[str, str]] = {}
    if learned := interval_of(bundle.confidence):
        what = f"end of the {learned[0]:.0%} interval of {quantity(bundle.spec)}"
        told = {end: (f"{end} {what}", bundle.spec.field.unit) for end in ENDS}
    return told | ({"unfamiliar": (UNFAMILIAR, "1")} if bundle.familiar else {})


def band_names(bundle: Bundle) -> tuple[list[str], list[str]]:
    """Description and unit of each band: the quantiles, the mean, the exceedances, or the field alone; then doubts."""
    spec = bundle.spec
    name, field = quantity(spec), spec.field
    names = [f"{name} quantile {level:g}" for level in field.levels] + [f"{name} mean" if field.levels else name]
    above = [f"probability of {name} > {t:g} {field.unit}" for t in field.thresholds]
    doubts = [*_doubts_told(bundle).values()]
    units = [field.unit] * len(names) + ["1"] * len(above) + [unit for _, unit in doubts]
    return [*names, *above, *(about for about, _ in doubts)], units


def _stamp(time: np.datetime64) -> str:
    return np.datetime_as_string(time, "m").replace("-", "").replace(":", "")


def lead_suffix(field: Values | Quantiles, lead: float) -> str:
    """What tells lead times apart, where there are several."""
    return f"_lead{lead:g}h" if len(field.leads) > 1 else ""


def _layout(samples: FieldSamples, sample: Moment, geobox: GeoBox, tags: dict[str, str], bundle: Bundle) -> Layout:
    names, units = band_names(bundle)
    first, last = _window(samples, sample)
    about = {
        "valid_time": _iso(samples.valid(sample)),
        "lead_time": f"{sample.lead:g} h",
        "reference_time": _iso(samples.time(sample)),
        **({"interval": f"{_iso(first)}/{_iso(last)}"} if last > first else {}),
    }
    return Layout.of_fields(geobox, names, units, tags=tags | about)


def _window(samples: FieldSamples, sample: Moment) -> tuple[np.datetime64, np.datetime64]:
    """Start and end of the interval whose mean is told; the valid time twice where there is none."""
    first, last = (
        samples.valid(sample) + np.timedelta64(round(edge * 3600), "s") for edge in samples.spec.field.window
    )
    return first, last


def _iso(time: np.datetime64) -> str:
    return np.datetime_as_string(time, "s") + "Z"


def write_series(
    path: Path,
    samples: FieldSamples,
    made: Forecast,
    lead: float,
    tags: dict[str, str],
    *,
    doubts: Doubts,
    start: np.datetime64 | None = None,
) -> None:
    """Write the forecasts of a lead time as CF-1.8 NetCDF: valid times, with the bounds of what was averaged.

    Args:
        path: the file.
        samples: what was asked about.
        made: what was said of all of them.
        lead: hours from an input to what is told; samples of others are left out.
        tags: attributes, of which those of ours are written.
        doubts: what tells how far to trust them.
        start: when the forecast began whose states are the inputs; each input is a beginning of its own when None.

    Raises:
        RunError: the disk does not take it.
    """
    at = [i for i, s in enumerate(samples.samples) if s.lead == lead]
    chosen = [samples.samples[i] for i in at]
    (lat, lon), spec, field = samples.grid, samples.spec, samples.spec.field
    told = _told(spec, made, at) | _doubted(spec, doubts, at)
    bounds = np.array([_window(samples, s) for s in chosen])
    averaged = field.window[0] < field.window[1]
    held: dict[str, Any] = {key: (dims, a, about | {"grid_mapping": "crs"}) for key, (dims, a, about) in told.items()}
    held |= {"time_bnds": (("time", "bnds"), _ns(bounds))} if averaged else {}
    held["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude", "epsg_code": "EPSG:4326"})
    over = {"axis": "T", "standard_name": "time", **({"bounds": "time_bnds"} if averaged else {})}
    coords: dict[str, Any] = {
        "time": (
            "time",
            _ns(np.array([samples.valid(s) for s in chosen])),
            {"axis": "T", "standard_name": "time", **over},
        ),
        **_begun(samples, chosen, lead, start),
        **grid_axes(lat, lon),
    }
    if field.levels:
        coords["quantile"] = ("quantile", np.array(field.levels), {"long_name": "level of the quantile", "units": "1"})
    if field.thresholds:
        about = {"long_name": "value that is exceeded", "units": _cf(field.unit)}
        coords["threshold"] = ("threshold", np.array(field.thresholds), about)
    about = {"Conventions": "CF-1.8", "title": samples.told(), "source": tags["TIFFTAG_SOFTWARE"]}
    data = xr.Dataset(held, coords, about | {key: tag for key, tag in tags.items() if key.startswith("EARTHTUNE")})
    since = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    times = ("time", "forecast_reference_time", *(["time_bnds"] if averaged else []))
    encoding: dict[str, Any] = {key: since for key in times}
    encoding["crs"] = {"dtype": "int32", "zlib": False, "complevel": None}
    with files.draft(path) as file:
        write_netcdf(file, data, encoding=encoding)


def _begun(samples: FieldSamples, chosen: Sequence[Moment], lead: float, start: np.datetime64 | None) -> dict[str, Any]:
    """When forecasts began, and hours from there to their valid times."""
    reference, period = {"standard_name": "forecast_reference_time"}, {"standard_name": "forecast_period"}
    period |= {"units": "hours"}
    if start is None:
        times = _ns(np.array([samples.time(s) for s in chosen]))
        return {"forecast_reference_time": ("time", times, reference), "lead_time": ((), float(lead), period)}
    hours = [float((samples.valid(s) - start) / np.timedelta64(1, "h")) for s in chosen]
    begun = start.astype("datetime64[ns]")
    return {"forecast_reference_time": ((), begun, reference), "lead_time": ("time", np.array(hours), period)}


def _told(spec: Spec, made: Forecast, at: Sequence[int]) -> dict[str, tuple[tuple[str, ...], Any, dict[str, str]]]:
    """Dimensions, values and attributes of what the series holds, by name."""
    name, field, grid = quantity(spec), spec.field, ("lat", "lon")
    about = {"units": _cf(field.unit)} if field.unit else {}
    if isinstance(field, Quantiles):
        about |= {"cell_methods": "time: mean", "standard_name": "lwe_precipitation_rate"}
    long_name = "mean of the predicted distribution" if field.levels else f"{name}, downscaled"
    told: dict[str, Any] = {name: (("time", *grid), made.mean[at].astype(np.float32), about | {"long_name": long_name})}
    if field.levels:
        quantiles = about | {"long_name": f"quantiles of {name}"}
        told[f"{name}_quantile"] = (("time", "quantile", *grid), made.quantiles[at].astype(np.float32), quantiles)
    if field.thresholds:
        above = {"units": "1", "long_name": f"probability of more {name} than the threshold"}
        told[f"{name}_probability"] = (("time", "threshold", *grid), made.exceedance[at].astype(np.float32), above)
    return told


def _doubted(spec: Spec, doubts: Doubts, at: Sequence[int]) -> dict[str, tuple[tuple[str, ...], Any, dict[str, str]]]:
    """The same of what tells how far to trust them."""
    return {
        f"{quantity(spec)}_{name}": (
            ("time", "lat", "lon"),
            values[at].astype(np.float32),
            {"long_name": about} | ({"units": _cf(unit)} if unit else {}),
        )
        for name, (values, about, unit) in doubts.items()
    }


def _cf(unit: str) -> str:
    """A unit as CF wants it."""
    return {"mm/h": "mm h-1", "mm/day": "mm d-1"}.get(unit, unit)


def _ns(times: NDArray[Any]) -> NDArray[Any]:
    return times.astype("datetime64[ns]")
