"""Draw a probability sample from maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from models import files
from models.errors import InputError
from models.runtime.hashes import sha256
from pipelines.grids import align
from pipelines.grids.areas import open_classes
from pipelines.surveys.allocation import allocate, places, ranks
from pipelines.surveys.population import Population, Totals, population
from pipelines.surveys.sheet import Design, Point, write_sheet
from pipelines.surveys.strata import everything, strata_of


def sample(
    maps: Sequence[Path],
    *,
    out: Path,
    n: int = 500,
    design: Literal["random", "stratified"] = "stratified",
    strata: str = "classes",
    strata_column: str | None = None,
    least: int = 5,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Draw points from class maps at random, for labelling; `areas` makes estimates of their labels.

    Pixels are drawn without replacement, each of a stratum alike likely, and areas weigh them later. Where maps overlap
    the ground counts once, in the first of them. In QGIS the layer points asks for labels and hides what the map says;
    strata, inclusion probabilities and the map's classes are in the table sample_key of the GeoPackage and in a CSV of
    its name, which are not for who labels. Probabilities beside all maps are kept along.

    Args:
        maps: maps of classes of one run, as score writes them.
        out: the GeoPackage to write.
        n: points.
        design: stratified, in proportion to the strata's pixels, or random among all pixels.
        strata: classes of the map, a raster of codes such as an earlier map, or polygons such as districts.
        strata_column: column of the polygons' names.
        least: points of each stratum at least; many for small strata make the others' too few.
        seed: decides which pixels are drawn.
        overwrite: replace files that exist.
        say: takes a line for the person who waits.

    Returns:
        file, csv, points, hectares, powered (whether probabilities are kept), and for each stratum its name, points,
        pixels and hectares.

    Raises:
        InputError: what is no map of classes, maps of different classes or runs, more points than pixels, fewer than
            the strata want; or the files cannot have these names.
        RunError: a map cannot be read to its end, or the disk does not take the files.
    """
    table = out.with_suffix(".csv")
    files.check_target(out, ".gpkg", overwrite=overwrite)
    files.check_target(table, ".csv", overwrite=overwrite)
    _check_numbers(n, least, seed)
    if design == "random" and strata != "classes":
        raise InputError(f"--strata {strata}: for --design stratified; leave it out")
    classes, powered = population(maps)
    chosen = everything() if design == "random" else strata_of(strata, strata_column, classes)
    whole = Population(tuple(maps), classes, chosen, powered)
    totals = whole.totals()
    if totals.outside:
        share = totals.outside / (totals.outside + totals.pixels.sum())
        say(f"{share:.1%} of the mapped pixels lie in no stratum; the sample, and its areas, are without them")
    held = np.flatnonzero(totals.pixels.sum(axis=1))
    if not held.size:
        raise InputError(f"{maps[0]}: no pixel of a class lies in a stratum; give maps, and strata, of the same ground")
    size = totals.pixels.sum(axis=1)[held]
    points = np.zeros(len(chosen.names), np.int64)
    points[held] = allocate(size, n, least=least)
    drawn = _drawn(whole, totals, points, seed)
    said = _design(whole, totals, points, "random" if design == "random" else strata, seed)
    write_sheet(out, said, drawn, overwrite=overwrite)
    return {
        "file": str(out),
        "csv": str(table),
        "points": n,
        "hectares": float(totals.hectares.sum()),
        "powered": powered,
        "strata": said.told(),
    }


def _check_numbers(n: int, least: int, seed: int) -> None:
    """Refuse numbers that no sample has."""
    if n < 2 or least < 1 or seed < 0:
        raise InputError(f"--n {n}, --least {least}, --seed {seed}: wanted at least 2, 1 and 0")


def _drawn(whole: Population, totals: Totals, points: NDArray[np.int64], seed: int) -> list[Point]:
    """The points, in an order that tells nothing of their strata."""
    size = totals.pixels.sum(axis=1)
    chance = points / np.maximum(size, 1)
    found: list[Point] = []
    blocks = places(ranks(size, points, seed), totals.counts)
    for (at, window), strata in zip(totals.blocks, blocks, strict=True):
        if strata:
            found += _of_block(whole, at, window, strata, chance)
    order = np.random.default_rng((seed, len(points))).permutation(len(found))
    return [replace(found[old], point=number) for number, old in enumerate(order, 1)]


def _of_block(
    whole: Population, at: int, window: Any, strata: Sequence[tuple[int, NDArray[np.int64]]], chance: Any
) -> list[Point]:
    """The points of a block: its strata with drawn pixels, and these pixels' ranks among the stratum's in the block."""
    here, path = whole.pixels(at, window), whole.maps[at]
    geobox = align.grid(open_classes(path))
    flat = here.stratum.ravel()
    place = np.concatenate([np.flatnonzero(flat == stratum)[chosen] for stratum, chosen in strata])
    rows, columns = np.divmod(place, here.stratum.shape[1])
    chances = np.zeros((len(place), 0))
    if whole.powered:
        chances = np.stack([band[rows, columns] for band in whole.chances(at, window)], axis=1)
    tall, wide = rows + window[0].start, columns + window[1].start
    affine: Any = geobox.affine
    x, y = affine * (wide + 0.5, tall + 0.5)
    crs: Any = geobox.crs
    to_degrees = Transformer.from_crs(crs.proj, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(x, y)
    return [
        Point(
            0,
            path.name,
            int(tall[i]),
            int(wide[i]),
            float(longitude[i]),
            float(latitude[i]),
            int(flat[place[i]]),
            float(chance[flat[place[i]]]),
            float(here.hectares[rows[i], columns[i]]),
            whole.classes[here.classes[rows[i], columns[i]]].code,
            tuple(float(one) for one in chances[i]),
        )
        for i in range(len(place))
    ]


def _design(whole: Population, totals: Totals, points: NDArray[np.int64], kind: str, seed: int) -> Design:
    """What `areas` has to know of how the points were drawn."""
    systems = {align.dataset(str(path)).crs.to_wkt() for path in whole.maps}
    return Design(
        kind,
        seed,
        systems.pop() if len(systems) == 1 else "EPSG:4326",
        whole.classes,
        tuple((str(path.resolve()), sha256(path)) for path in whole.maps),
        whole.strata.names,
        tuple(points.tolist()),
        tuple(map(tuple, totals.pixels.tolist())),
        tuple(map(tuple, totals.hectares.tolist())),
        () if totals.chances is None else tuple(map(tuple, totals.chances.tolist())),
    )
