"""Rain of new weather files by a run: a Cloud Optimized GeoTIFF for each valid time, and a CF NetCDF of the series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.bundle import bundle_id
from models.errors import InputError
from models.quantiles import exceedance, expectation
from models.rain import RainNetwork
from models.rain_baselines import Forecast
from models.rain_bundle import load_rain, read_rain_bundle
from models.rain_spec import RainSpec
from pipelines import drafts
from pipelines.geotiff import Layout, check_target, write_rows
from pipelines.rain_samples import Sample, Samples, batch_of, read_weather

Progress = Callable[[Iterable[Any], str], Iterable[Any]]
CELLS = 1 << 14


def forecast(
    network: RainNetwork,
    samples: Samples,
    chosen: Sequence[Sample],
    *,
    progress: Progress | None = None,
) -> Forecast:
    """Run a network over samples, as many at once as make up some ten thousand cells."""
    spec, parts = network.spec, []
    batch = max(CELLS // samples.weather.area.size, 1)
    shown = progress(range(0, len(chosen), batch), "rain") if progress else range(0, len(chosen), batch)
    for first in shown:
        items = [samples.item(s) for s in chosen[first : first + batch]]
        q = network.predict(batch_of(items))  # (B, Q, H, W)
        above = np.stack([exceedance(q, spec.levels, t).numpy() for t in spec.thresholds], axis=1)
        parts.append((expectation(q, spec.levels).numpy(), q.numpy(), above))
    return Forecast(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def score_rain(
    run: Path,
    sources: Sequence[str],
    *,
    out: Path,
    weights: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Write rain maps of weather files: one GeoTIFF per valid time, and a NetCDF of all of them for each lead time.

    Args:
        run: a rain run.
        sources: weather files that go together, in time or side by side.
        out: folder for the maps.
        weights: the encoder's file, for a run that does not hold it.
        overwrite: replace maps that exist.
        progress: wraps the batches to show progress.
        say: takes a line for the person who waits.

    Returns:
        For each map: scene (the files), run, status, map and the share of its cells that hold data.

    Raises:
        InputError: files that the run cannot eat, or maps that exist.
    """
    bundle = read_rain_bundle(run)
    spec = bundle.spec
    weather = read_weather([Path(s) for s in sources], spec.channels, units=spec.units)
    samples = Samples(spec, weather, None)
    geobox = _geobox(samples)
    tags = {
        "TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}",
        "EARTHTUNE_BUNDLE": bundle_id(run),
        "EARTHTUNE_BACKBONE": bundle.backbone,
        "EARTHTUNE_BASE": str(bundle.base),
        "EARTHTUNE_INPUT": ",".join(Path(s).name for s in sources),
    }
    layouts = {s: _layout(samples, s, geobox, tags) for s in samples.samples}
    paths = {s: out / f"rain_{_stamp(samples.valid(s))}{_suffix(spec, s.lead)}.tif" for s in layouts}
    series = {lead: out / f"rain_{_stamp(samples.weather.times[0])}{_suffix(spec, lead)}.nc" for lead in spec.leads}
    for sample, path in paths.items():
        check_target(path, layouts[sample], overwrite=overwrite)
    out.mkdir(parents=True, exist_ok=True)
    for path in series.values():
        drafts.check_target(path, ".nc", overwrite=overwrite)
    network = load_rain(run, weights=weights)
    made = forecast(network, samples, samples.samples, progress=progress)
    results = []
    for i, (sample, path) in enumerate(paths.items()):
        bands = np.concatenate((made.quantiles[i], made.mean[i, None], made.exceedance[i])).astype(np.float32)
        filled = write_rows(path, [(0, bands)], layouts[sample], overwrite=overwrite)
        about = {"scene": ",".join(sources), "run": str(run), "status": "done", "map": str(path)}
        results.append(about | {"valid": filled / bands[0].size})
    for lead, path in series.items():
        _write_series(path, samples, made, lead, tags)
        say(f"series: {path}")
    return results


def band_names(spec: RainSpec) -> tuple[list[str], list[str]]:
    """Description and unit of each band: the quantiles, the mean, the exceedances."""
    names = [f"rain quantile {level:g}" for level in spec.levels] + ["rain mean"]
    above = [f"probability of rain > {t:g} mm/h" for t in spec.thresholds]
    return [*names, *above], ["mm/h"] * len(names) + ["1"] * len(above)


def _stamp(time: np.datetime64) -> str:
    return np.datetime_as_string(time, "m").replace("-", "").replace(":", "")


def _suffix(spec: RainSpec, lead: float) -> str:
    """What tells lead times apart, where there are several."""
    return f"_lead{lead:g}h" if len(spec.leads) > 1 else ""


def _geobox(samples: Samples) -> GeoBox:
    """The grid in EPSG:4326: edges lie half a cell outside of the centres.

    Raises:
        InputError: rows or columns are not evenly spaced, or fewer than two.
    """
    lat, lon = samples.weather.lat, samples.weather.lon
    for name, axis in (("latitudes", lat), ("longitudes", lon)):
        steps = np.diff(axis)
        if not len(steps) or not np.allclose(steps, steps[0], rtol=1e-3):
            raise InputError(
                f"{samples.weather.name}: {name} are not two or more at even steps, as a GeoTIFF wants; regrid it first"
            )
    down, across = (lat[0] - lat[-1]) / (len(lat) - 1), (lon[-1] - lon[0]) / (len(lon) - 1)
    corner = Affine.translation(lon[0] - across / 2, lat[0] + down / 2)
    return GeoBox((len(lat), len(lon)), corner @ Affine.scale(across, -down), "EPSG:4326")


def _layout(samples: Samples, sample: Sample, geobox: GeoBox, tags: dict[str, str]) -> Layout:
    names, units = band_names(samples.spec)
    first, last = _window(samples, sample)
    about = {
        "valid_time": _iso(samples.valid(sample)),
        "lead_time": f"{sample.lead:g} h",
        "reference_time": _iso(samples.time(sample)),
        "interval": f"{_iso(first)}/{_iso(last)}",
    }
    return Layout(geobox, "float32", len(names), float("nan"), (), names, units, tags | about)


def _window(samples: Samples, sample: Sample) -> tuple[np.datetime64, np.datetime64]:
    """Start and end of the interval whose mean rate is told."""
    first, last = (samples.valid(sample) + np.timedelta64(round(edge * 3600), "s") for edge in samples.spec.window)
    return first, last


def _iso(time: np.datetime64) -> str:
    return np.datetime_as_string(time, "s") + "Z"


def _write_series(path: Path, samples: Samples, made: Forecast, lead: float, tags: dict[str, str]) -> None:
    """Write the forecasts of a lead time as CF-1.8 NetCDF: valid times, with the bounds of what was averaged."""
    at = [i for i, s in enumerate(samples.samples) if s.lead == lead]
    chosen = [samples.samples[i] for i in at]
    weather, spec = samples.weather, samples.spec
    quantiles, mean, above = (values[at].astype(np.float32) for values in (made.quantiles, made.mean, made.exceedance))
    rate = {"units": "mm h-1", "cell_methods": "time: mean", "standard_name": "lwe_precipitation_rate"}
    grid = ("lat", "lon")
    data = xr.Dataset(
        {
            "rain": (("time", *grid), mean, rate | {"long_name": "mean of the predicted distribution"}),
            "rain_quantile": (("time", "quantile", *grid), quantiles, rate | {"long_name": "quantiles of rain"}),
            "rain_probability": (
                ("time", "threshold", *grid),
                above,
                {"units": "1", "long_name": "probability of more rain than the threshold"},
            ),
            "time_bnds": (("time", "bnds"), _ns(np.array([_window(samples, s) for s in chosen]))),
            "crs": ((), 0, {"grid_mapping_name": "latitude_longitude", "epsg_code": "EPSG:4326"}),
        },
        {
            "time": ("time", _ns(np.array([samples.valid(s) for s in chosen])), _axis("T", "time", bounds="time_bnds")),
            "forecast_reference_time": (
                "time",
                _ns(np.array([samples.time(s) for s in chosen])),
                {"standard_name": "forecast_reference_time"},
            ),
            "lead_time": ((), float(lead), {"standard_name": "forecast_period", "units": "hours"}),
            "lat": ("lat", weather.lat, _axis("Y", "latitude", units="degrees_north")),
            "lon": ("lon", weather.lon, _axis("X", "longitude", units="degrees_east")),
            "quantile": ("quantile", np.array(spec.levels), {"long_name": "level of the quantile", "units": "1"}),
            "threshold": ("threshold", np.array(spec.thresholds), {"long_name": "rain rate", "units": "mm h-1"}),
        },
        {"Conventions": "CF-1.8", "title": f"Rain ({spec.target})", "source": tags["TIFFTAG_SOFTWARE"]}
        | {key: value for key, value in tags.items() if key.startswith("EARTHTUNE")},
    )
    for key in ("rain", "rain_quantile", "rain_probability"):
        data[key].attrs["grid_mapping"] = "crs"
    since = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    packed = {"zlib": True, "complevel": 1}
    encoding: dict[str, Any] = {key: since for key in ("time", "forecast_reference_time", "time_bnds")}
    encoding |= {key: packed for key in ("rain", "rain_quantile", "rain_probability")}
    with drafts.draft(path) as file:
        data.to_netcdf(file, engine="h5netcdf", encoding=encoding)


def _axis(axis: str, name: str, **more: str) -> dict[str, str]:
    return {"axis": axis, "standard_name": name, **more}


def _ns(times: NDArray[Any]) -> NDArray[Any]:
    return times.astype("datetime64[ns]")
