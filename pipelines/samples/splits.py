"""Which groups go to which split. A group (a place, a year, a scene) is never divided, so that no split leaks."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from models.errors import InputError
from pipelines.samples.names import listed

WGS84 = CRS("EPSG:4326")  # longitude first, as odc-geo transforms
SPLITS = ("train", "val", "test")
KM_PER_DEGREE = 40_075.017 / 360  # equator of WGS 84


def split_by_group(
    groups: Sequence[str], *, seed: int, fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
) -> list[str]:
    """Assign whole groups to splits whose sizes, counted in items, come near the fractions.

    Groups are shuffled, then each goes to the split that lacks the most items; no split stays empty, and none exceeds
    its share by more than the largest group. The same groups and seed always give the same splits, in any item order.

    Args:
        groups: name of the group of each item.
        seed: seed of the shuffle.
        fractions: shares of train, val and test; positive, with sum one.

    Returns:
        "train", "val" or "test" for each item.

    Raises:
        InputError: fewer than three groups, or fractions that are not shares.
    """
    if len(fractions) != len(SPLITS) or min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"split fractions {fractions}: wanted positive shares of train, val and test with sum 1")
    sizes = Counter(groups)
    if len(sizes) < len(SPLITS):
        raise InputError(f"{len(sizes)} groups ({some(sizes)}): three splits want at least 3; make the groups smaller")
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    lacking = {split: share * len(groups) for split, share in zip(SPLITS, fractions, strict=True)}
    chosen: dict[str, str] = {}
    empty = list(SPLITS)
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        open_to = empty if len(empty) == left else SPLITS
        chosen[group] = max(open_to, key=lambda split: lacking[split])
        lacking[chosen[group]] -= sizes[group]
        empty = [split for split in empty if split != chosen[group]]
    return [chosen[group] for group in groups]


def folds_by_group(groups: Sequence[str], *, count: int, seed: int) -> list[int]:
    """Assign whole groups to folds of about as many items each; the same groups and seed always give the same folds.

    The largest groups go first, each into the fold that holds the fewest items, those of one size in shuffled order.

    Args:
        groups: name of the group of each item.
        count: folds, 2 or more.
        seed: seed of the shuffle.

    Returns:
        The fold of each item, from 0.

    Raises:
        InputError: fewer groups than folds.
    """
    sizes = Counter(groups)
    if not 2 <= count <= len(sizes):
        raise InputError(f"folds {count}: wanted 2 to {len(sizes)}, as many as there are groups ({some(sizes)})")
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    held, chosen = [0] * count, {}
    for group in sorted(order, key=lambda group: -sizes[group]):
        chosen[group] = held.index(min(held))
        held[chosen[group]] += sizes[group]
    return [chosen[group] for group in groups]


def spatial_blocks(geoboxes: Iterable[GeoBox], *, block_km: float) -> list[str]:
    """Name the block of ground, about `block_km` squared, that holds the centre of each chip.

    Blocks are those of one grid over the Earth, so chips in different CRSs (neighbouring UTM zones) share blocks: bands
    of latitude, each cut into blocks whose degrees of longitude grow with 1 / cos(latitude of the middle of the band).

    Args:
        geoboxes: grid of each chip, in any CRS.
        block_km: side of a block in kilometres; at least the distance over which chips look alike.

    Returns:
        "block_<row>_<column>" for each chip; rows count from the equator, columns from Greenwich.

    Raises:
        InputError: a chip has no CRS, or the block has no size.
    """
    if not 0 < block_km < math.inf:
        raise InputError(f"block of {block_km} km: wanted a positive size; 10 to 50 suits most landscapes")
    return [_block(*_centre(geobox), block_km / KM_PER_DEGREE) for geobox in geoboxes]


def _centre(geobox: GeoBox) -> tuple[float, float]:
    """Longitude and latitude of the centre of a grid, in degrees."""
    if geobox.crs is None:
        raise InputError(f"a chip of {geobox.width} x {geobox.height} pixels has no CRS: wanted one to tell its place")
    x, y = geobox.extent.centroid.coords[0]
    lon, lat = geobox.crs.transformer_to_crs(WGS84)(x, y)
    if not abs(lat) <= 90:  # inf where the CRS does not reach
        raise InputError(f"a chip centred on ({x}, {y}) has no longitude and latitude by its CRS {geobox.crs}; mend it")
    return lon, lat


def _block(lon: float, lat: float, degrees: float) -> str:
    """Name of the block that holds a point; `degrees` of latitude are the side of a block."""
    row = math.floor(lat / degrees)
    middle = min(abs((row + 0.5) * degrees), 90.0)
    col = math.floor(lon * math.cos(math.radians(middle)) / degrees)
    return f"block_{row}_{col}"


def split_by_lists(names: Sequence[str], lists: Mapping[str, Path]) -> list[str]:
    """Assign items to splits by lists of names.

    Args:
        names: name of each item (the stem of its file).
        lists: for "train", "val" or "test" the file with the names of its items, see `names.listed`.

    Returns:
        The split of each item.

    Raises:
        InputError: a list is not for a split, cannot be read or is empty; a name stands in two lists, stands in a list
            and is no item's, or is an item's and stands in no list.
    """
    split_of: dict[str, str] = {}
    known = set(names)
    for split, source in lists.items():
        if split not in SPLITS:
            raise InputError(f"list for split {split!r}: wanted one of {', '.join(SPLITS)}")
        meant = listed(source, known, f"a text or CSV file of {split} names, one a line")
        if twice := [name for name in meant if split_of.get(name, split) != split]:
            raise InputError(f"{source}: {some(twice)} also in {split_of[twice[0]]}; a leak: keep it in one")
        split_of.update(dict.fromkeys(meant, split))
    if missing := [name for name in names if name not in split_of]:
        raise InputError(f"{some(missing)} in no split list ({', '.join(lists)}): list it or take its files away")
    return [split_of[name] for name in names]


def some(names: Collection[str]) -> str:
    """The first three of the names, and how many more there are."""
    first = ", ".join(list(names)[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"
