"""What a model needs of its input, and whether it is there."""

from __future__ import annotations

from collections.abc import Sequence

from models.bundle import Bundle
from models.errors import InputError
from models.spec import STATIC, WEATHER, Spec
from pipelines.inspection.findings import Inspection, Need
from pipelines.scenes.bands import Product
from pipelines.scenes.physical import doubt
from pipelines.scenes.scene import Scene, find_bands


def needs_of(found: Inspection, products: list[Product], spec: Spec) -> list[Need]:
    """Everything the model needs, met or not, with the reason."""
    needs = [_need_bands(products, spec), _need_frames(found, spec), _need_size(found, spec)]
    if spec.imagery.uses_time:
        known = [day for day in found.dates if day]
        missing = len(found.dates) - len(known)
        needs.append(Need("dates", not missing, f"{missing} frames without date" if missing else ", ".join(known)))
    if spec.imagery.uses_location:
        needs.append(Need("location", found.crs is not None, found.crs or "no coordinate system"))
    return needs


def need_weather(files: Sequence[str], bundle: Bundle) -> Need:
    """Whether files, or a folder of them, hold the weather that a model takes beside its imagery."""
    from pipelines.scoring.beside import opened

    try:
        opened(bundle, files)
    except InputError as error:
        return Need("weather", False, str(error))
    return Need("weather", True, _weather_of(bundle.spec))


def weather_notes(spec: Spec) -> tuple[str, ...]:
    """What a model takes beside a scene, in sentences; none of a model over imagery alone, or over tables."""
    if WEATHER not in spec.series or spec.over_tables:
        return ()
    days = spec.series[WEATHER].times * spec.series[WEATHER].step / 24
    told = f"beside a scene the model takes {_weather_of(spec)} of the {days:g} days before it (score --weather FILES)"
    channels = spec.series[STATIC].channels if STATIC in spec.series else ()
    static = [name for name in channels if f"{name}, deviation" in channels]
    return (told, *(f"and {name} of its ground (score --static {name}=FILE)" for name in static))


def _weather_of(spec: Spec) -> str:
    """Variables with their units."""
    weather = spec.series[WEATHER]
    known = zip(weather.channels, weather.units, strict=True)
    return ", ".join(name if unit in ("", "1") else f"{name} ({unit})" for name, unit in known)


def _need_bands(products: list[Product], spec: Spec) -> Need:
    """Every band of the model, in every frame."""
    wanted = ", ".join(spec.imagery.channels)
    for product in products:
        names = find_bands(product, spec.imagery.channels)[0]
        absent = [band for band in spec.imagery.channels if band not in names]
        if product.problem:
            return Need("bands", False, product.problem)
        if absent:
            there = ", ".join(names) or "none that is named: give their names with --bands"
            return Need("bands", False, f"{', '.join(absent)} missing; it has {there}")
    layers, _ = find_bands(products[0], spec.imagery.channels)
    inside = [name for _, name in sorted((products[0].layers.index(layers[b]), b) for b in spec.imagery.channels)]
    order = "in this order" if tuple(inside) == spec.imagery.channels else "in another order, which is put right"
    return Need("bands", True, f"{wanted}, {order}")


def _need_frames(found: Inspection, spec: Spec) -> Need:
    """As many dates as the model was trained with."""
    same = found.frames == spec.imagery.times
    advice = "" if same else f", {spec.imagery.times} wanted: join that many files by commas"
    return Need("frames", same, f"{found.frames}{advice}")


def _need_size(found: Inspection, spec: Spec) -> Need:
    """A scene smaller than a tile is padded, which costs accuracy at its edges but works."""
    least = min(found.height, found.width)
    text = f"{found.height} x {found.width} pixels, tile {spec.imagery.tile}"
    return Need("size", least > 0, text + (" (padded)" if least < spec.imagery.tile else ""))


def need_unit(scene: Scene, spec: Spec, *, as_is: bool) -> Need:
    """Whether values, as the scene would be read, can be in the model's unit; what is unlikely is told."""
    found = doubt(scene)
    if not found.told:
        none = "no pixel with data to tell the unit from"
        return Need("unit", found.pixels > 0, spec.imagery.unit if found.pixels else none)
    hint = "" if not found.impossible or as_is else ": give --scale and --offset, reflectance = raw * scale + offset"
    return Need("unit", as_is or not found.impossible, f"{found.told}; wanted {spec.imagery.unit}{hint}")
