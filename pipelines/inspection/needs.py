"""What a model needs of its input, and whether it is there."""

from __future__ import annotations

import numpy as np

from models.spec import Spec
from pipelines.inspection.findings import Inspection, Need
from pipelines.inspection.scene_contents import look
from pipelines.scenes import sensors
from pipelines.scenes.bands import Product, open_layer
from pipelines.scenes.scene import settled


def needs_of(found: Inspection, products: list[Product], spec: Spec) -> list[Need]:
    """Everything the model needs, met or not, with the reason."""
    needs = [_need_bands(products, spec), _need_frames(found, spec), _need_size(found, spec)]
    if needs[0].ok:
        needs.append(_need_unit(products[0], spec))
    if spec.imagery.uses_time:
        known = [day for day in found.dates if day]
        missing = len(found.dates) - len(known)
        needs.append(Need("dates", not missing, f"{missing} frames without date" if missing else ", ".join(known)))
    if spec.imagery.uses_location:
        needs.append(Need("location", found.crs is not None, found.crs or "no coordinate system"))
    return needs


def _need_bands(products: list[Product], spec: Spec) -> Need:
    """Every band of the model, in every frame."""
    wanted = ", ".join(spec.imagery.channels)
    for product in products:
        names = _names(product, spec)
        absent = [band for band in spec.imagery.channels if band not in names]
        if product.problem:
            return Need("bands", False, product.problem)
        if absent:
            there = ", ".join(name for name in names if name) or "none that is named: give their names with --bands"
            return Need("bands", False, f"{', '.join(absent)} missing; it has {there}")
    inside = [name for name in _names(products[0], spec) if name in spec.imagery.channels]
    order = "in this order" if tuple(inside) == spec.imagery.channels else "in another order, which is put right"
    return Need("bands", True, f"{wanted}, {order}")


def _names(product: Product, spec: Spec) -> tuple[str | None, ...]:
    """Names of a product's bands as the model would ask for them."""
    return sensors.resolve_nir([layer.name for layer in product.layers], spec.imagery.channels)


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


def _need_unit(product: Product, spec: Spec) -> Need:
    """Whether values, as the scene would be read, lie where the model's do.

    The brightest pixels of each band (98 %) are put beside the model's mean: reflectance of 0..1 read as x10000 is ten
    thousand times too small, while clouds, snow and water change a scene by a factor of ten or so. Counts of 8 bits
    would pass for dark reflectance, so they are told by their type.
    """
    ratios = []
    for band, mean in zip(spec.imagery.channels, spec.imagery.mean, strict=True):
        layer = product.layers[_names(product, spec).index(band)]
        scale, offset = settled(layer).units or (1e-4, 0.0)
        if open_layer(layer).dtypes[layer.index - 1] == "uint8" and scale == 1e-4:
            told = f"{band} holds 8-bit counts; wanted {spec.imagery.unit}: give --scale and --offset"
            return Need("unit", False, told)
        values = (look(layer) * scale + offset) * 1e4
        good = values[np.isfinite(values)]
        if good.size and mean > 0:
            ratios.append(float(np.percentile(good, 98)) / mean)
    if not ratios:
        return Need("unit", False, "no pixel with data to tell the unit from")
    typical = float(np.median(ratios))
    ok = 1 / 30 < typical < 30
    hint = "" if ok else f"; wanted {spec.imagery.unit}: give --scale and --offset, reflectance = raw * scale + offset"
    return Need("unit", ok, f"bright pixels are {typical:.3g} times the model's mean{hint}")
