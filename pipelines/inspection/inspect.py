"""What a file or folder holds, and whether a fine-tuned model can read it: the `inspect` command."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from models.bundle import Bundle, load_familiar, read_bundle
from models.errors import EarthtuneError, InputError
from models.spec import WEATHER
from pipelines.inspection.findings import BandInfo, Inspection, Need
from pipelines.scenes import sensors
from pipelines.scenes.reading import Reading
from pipelines.weather.formats import detect

_FOLDER_SHOWN = 12


def inspect(
    path: str | Path,
    *,
    for_run: Path | None = None,
    reading: Reading = Reading(),
    group: str | None = None,
    trust: bool = False,
) -> Inspection:
    """Tell what a raster, a folder of band files, a STAC item or a weather file holds, and whether a model can read it.

    Args:
        path: raster, folder of band files, STAC item or weather file; a folder of many scenes; the frames of a model of
            several dates are joined by commas, and so are weather files that a model takes together.
        for_run: a run folder: say whether its model can read this, and why not.
        reading: what the files do not say themselves.
        group: group of a weather file (HDF5, Zarr) whose variables lie in several.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.

    Raises:
        InputError: the path is missing or no raster, or the run folder holds no model.
    """
    bundle = None if for_run is None else read_bundle(for_run)
    if bundle and (files := _together(str(path), bundle)):
        from pipelines.inspection.needs import need_weather, weather_notes

        return Inspection(str(path), needs=(need_weather(files, bundle),), notes=weather_notes(bundle.spec))
    if detect.is_weather(str(path)):
        return _weather(str(path), bundle, group, reading, run=for_run)
    from pipelines.grids.rasters import trusting

    contents = _folder_contents(Path(path))
    with trusting(trust):
        if contents is None:
            return _raster(str(path), bundle, reading, run=for_run)
        if bundle is None:
            return Inspection(str(path), contents=contents, notes=("a folder of many rasters: inspect one",))
        return Inspection(str(path), contents=contents, needs=_scene_needs(str(path), bundle, reading))


def _raster(path: str, bundle: Bundle | None, reading: Reading, run: Path | None = None) -> Inspection:
    """Look at one scene, put beside a model where there is one."""
    from pipelines.grids import align
    from pipelines.inspection.needs import need_unit, needs_of, weather_notes
    from pipelines.inspection.scene_contents import describe_scene
    from pipelines.samples.unfamiliar import strange
    from pipelines.scenes.pixel_size import at_size, size_notes
    from pipelines.scenes.products import Assumed, find_products
    from pipelines.scenes.scene import open_told

    plain = Path(path).is_file() and Path(path).suffix.lower() not in (".json", ".geojson")
    source = align.dataset(path) if plain else None
    gcps = len(source.gcps[0]) if source and source.crs is None else 0
    if gcps:
        note = f"{gcps} ground control points in place of a grid; run gdalwarp on the file first"
        needs = () if bundle is None else (Need("grid", False, note),)
        return Inspection(path, gcps=gcps, notes=(note,), needs=needs)
    given: dict[str, Any] = {"file_bands": reading.bands, "scale": reading.scale, "offset": reading.offset}
    given |= {"dates": reading.dates}
    if bundle is None:
        return describe_scene(path, find_products([path], **given))
    spec, assumed = bundle.spec, Assumed.like(bundle.data)
    sources = path.split(",") if spec.imagery.times > 1 else [path]
    try:
        products = find_products(sources, frames=max(spec.imagery.times // len(sources), 1), assumed=assumed, **given)
    except InputError:  # not so many frames in it: told below as a need that is not met
        products = find_products(sources, assumed=assumed, **given)
    found = describe_scene(path, products)
    wants = needs_of(found, products, spec)
    masked = bundle.data.get("mask_clouds") if reading.mask_clouds is None else reading.mask_clouds
    clear = all(product.clouds for product in products)
    remarks = weather_notes(spec)
    if wants[0].ok and wants[1].ok:
        said = dataclasses.replace(reading, mask_clouds=bool(masked) and clear)
        scene = open_told(sources, spec.imagery.channels, said, times=spec.imagery.times, like=bundle.data)
        scene = at_size(scene, spec.imagery.pixel, reading.resample)
        wants.append(need_unit(scene, spec, as_is=reading.as_is))
        remarks += (*scene.remarks, *size_notes(scene, spec.imagery.pixel))
        remarks += tuple(strange(scene, run, bundle)) if run and wants[-1].ok else ()
    if masked:
        words = (
            "a cloud layer lies with it" if clear else "no Fmask, SCL, QA_PIXEL or CLM with it (--mask_clouds false)"
        )
        wants.append(Need("clouds", clear, words))
    return dataclasses.replace(found, notes=tuple(dict.fromkeys((*found.notes, *remarks))), needs=tuple(wants))


def _place_need(place: str, bundle: Bundle, reading: Reading) -> Need:
    """Whether a place has the dates that a model wants."""
    from pipelines.scoring.opening import open_for

    try:
        with open_for(bundle, place, reading) as scene:
            return Need(scene.name, True, scene.notes[-1])
    except InputError as error:
        return Need(Path(place).name, False, str(error))


def _scene_needs(folder: str, bundle: Bundle, reading: Reading) -> tuple[Need, ...]:
    """Whether a model can read each of the scenes that `score` would find in a folder."""
    from pipelines.scenes.find import find_scenes
    from pipelines.scenes.periods import find_places
    from pipelines.scoring.opening import periods_of

    if periods_of(bundle, None):
        return tuple(_place_need(place, bundle, reading) for place in find_places([folder]))
    needs = []
    for source in find_scenes([folder]):
        name = str(Path(source).relative_to(folder))
        try:
            unmet = [need for need in _raster(source, bundle, reading).needs if not need.ok]
        except EarthtuneError as error:
            needs.append(Need(name, False, str(error)))
            continue
        needs.append(Need(name, not unmet, "; ".join(f"{n.need}: {n.reason}" for n in unmet) or "can be read"))
    return tuple(needs)


def _weather(path: str, bundle: Bundle | None, group: str | None, reading: Reading, *, run: Path | None) -> Inspection:
    """Look at a weather file, put beside a model where there is one."""
    from pipelines.inspection.needs import need_weather, weather_notes
    from pipelines.inspection.weather_contents import describe_weather
    from pipelines.weather.dataset import named

    found = describe_weather(named(path), group=group)
    if bundle is None:
        return Inspection(path, weather=found)
    if bundle.spec.over_weather and run:
        needs, notes = _weather_needs(path, run, bundle)
        return Inspection(path, weather=found, needs=needs, notes=notes)
    if notes := weather_notes(bundle.spec):
        return Inspection(path, weather=found, needs=(need_weather([path], bundle),), notes=notes)
    try:  # its variables may be the bands of a scene
        seen = _raster(path, bundle, reading, run=run)
    except InputError as error:
        return Inspection(path, weather=found, needs=(Need("scene", False, str(error)),))
    told = "this is a weather file; where it holds satellite bands, name its variables, or pass netcdf:FILE:VARIABLE"
    notes = seen.notes if seen.needs[0].ok else (*seen.notes, told)
    return Inspection(path, weather=found, needs=seen.needs, notes=notes)


def _weather_needs(path: str, run: Path, bundle: Bundle) -> tuple[tuple[Need, ...], tuple[str, ...]]:
    """Whether a model over weather can read a file as `score` would, and what a person should know then."""
    from pipelines.samples.unfamiliar import strange_fields, unfamiliar_fields
    from pipelines.tasks.task import data_for, task_named

    task, fields = task_named(bundle.spec.task), ", ".join(bundle.spec.weather.channels)
    assert task.unlabelled is not None
    try:
        samples = task.unlabelled(bundle.spec, [path], data_for(bundle))
    except InputError as error:
        return (Need("fields", False, str(error)),), ()
    needs = Need("fields", True, fields), Need("times", True, f"{len(samples.samples)} to tell of")
    familiar = load_familiar(run, bundle)
    strange = [] if familiar is None else strange_fields(samples, unfamiliar_fields(familiar, samples), bundle)
    return needs, (*samples.notes, *strange)


def _together(path: str, bundle: Bundle) -> list[str]:
    """Several weather files, or a folder of nothing else, for a model that takes weather beside its imagery."""
    files = path.split(",")
    if WEATHER not in bundle.spec.series or bundle.spec.over_tables:
        return []
    inside = [file for file in Path(path).rglob("*") if file.is_file()] if Path(path).is_dir() else []
    some = [str(file) for file in inside] or (files if len(files) > 1 else [])
    return files if some and all(detect.is_weather(file) for file in some) else []


def _folder_contents(path: Path) -> dict[str, int] | None:
    """Kinds of raster in a folder of many scenes; None for anything else."""
    if not path.is_dir():
        return None
    suffixes = (".tif", ".tiff", ".jp2", *detect.SUFFIXES)
    files = [file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file()]
    named = [file for file in files if (known := sensors.parse_name(file.name)) and known.band]
    plain = [file for file in files if sensors.band_name(file.stem) or sensors.band_code(file.stem)]
    rasters = [file for file in files if file.suffix.lower() not in detect.SUFFIXES]
    if named or plain or (len(rasters) == 1 and len(files) == 1):
        return None
    if not files:
        raise InputError(f"{path}: no raster or weather file in this folder; pass a file or a folder of band files")
    kinds: dict[str, int] = {}
    for file in files:
        weather = file.suffix.lower() in detect.SUFFIXES
        tail = file.stem.rpartition("_")[2] if "_" in file.stem and not weather else ""
        folder = "" if file.parent == path else f"{file.parent.relative_to(path).as_posix()}/"
        kind = f"{folder}*{'_' + tail if tail and not tail.isdigit() else ''}{file.suffix}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return dict(sorted(kinds.items(), key=lambda pair: -pair[1]))


def format_text(found: Inspection) -> str:
    """The inspection as text for a terminal."""
    lines = [found.path]
    if found.weather is not None:
        lines += [f"  {line}" for line in found.weather.lines()]
    if found.contents is not None:
        lines += [f"  {count:6d}  {kind}" for kind, count in list(found.contents.items())[:_FOLDER_SHOWN]]
    if found.bands:
        lines += _grid_lines(found)
        lines += [_band_line(band) for band in found.bands]
    if found.codes is not None:
        lines.append("  looks like class labels: " + ", ".join(f"{c} ({s:.1%})" for c, s in found.codes.items()))
    lines += [f"  note: {note}" for note in found.notes]
    lines += [f"  {'yes' if need.ok else 'NO '}  {need.need}: {need.reason}" for need in found.needs]
    if found.needs and found.contents is not None:
        count, met = len(found.needs), sum(need.ok for need in found.needs)
        lines.append(f"  the model can read {met} of {count} scene{'s' * (count != 1)}")
    elif found.needs:
        lines.append(f"  the model {'can' if found.ok else 'cannot'} read this")
    return "\n".join(lines)


def _grid_lines(found: Inspection) -> list[str]:
    """Format, size, place, dates and where the names come from."""
    size = "unknown" if found.resolution is None else f"{found.resolution[0]:g} x {found.resolution[1]:g}"
    place = f"{found.crs}, pixel {size}" if found.crs else "no coordinate system"
    days = ", ".join(day or "no date" for day in found.dates)
    return [
        f"  {found.driver}, {found.height} rows x {found.width} columns, {place}",
        f"  {found.frames} frame{'s' * (found.frames != 1)}: {days}",
        f"  {len(found.bands)} band{'s' * (len(found.bands) != 1)}, named by {found.named_by}",
    ]


def _band_line(band: BandInfo) -> str:
    """One band on one line."""
    name = band.name or "(not named)"
    head = f"  {band.index:3d} {name:<18} {band.dtype:<8} valid {band.valid:6.1%}"
    if band.median is None:
        return f"{head}  no data in the pixels looked at"
    values = (band.minimum, band.low, band.median, band.high, band.maximum)
    marks = " ".join(f"{value:g}" for value in values if value is not None)
    packed = "" if (band.scale, band.offset) == (1.0, 0.0) else f", scale {band.scale:g} offset {band.offset:g}"
    nodata = "" if band.nodata is None else f", nodata {band.nodata:g}"
    return f"{head}  min 2% median 98% max: {marks}  ({band.unit}{packed}{nodata})"
