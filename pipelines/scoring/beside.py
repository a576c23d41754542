"""What stands beside the tiles of a scene for a run that takes it: the weather before its day, its season and place."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.bundle import Bundle
from models.errors import InputError
from models.spec import STATIC, WEATHER, valid_of
from models.types import Array
from pipelines.grids.windows import Window, enlarged
from pipelines.recipes.fused import FusedData
from pipelines.recipes.recipe import data_of
from pipelines.samples.fused import inputs_at, withheld
from pipelines.samples.static import Static, open_static
from pipelines.scenes.scene import Scene
from pipelines.scoring.rows import grid_of_tiles, zoom
from pipelines.weather.series import WeatherSeries, open_series

SHARE = 0.5  # of the wanted values; what has fewer is told of


@dataclass(frozen=True)
class Beside:
    """Inputs of the tiles of a scene.

    Attributes:
        place: the number of each tile by its first row and column, in pixels of the map.
        arrays: the inputs by name, a row a tile.
        notes: what a person should know.
        static: name and file of each raster of what does not change.
    """

    place: Mapping[tuple[int, int], int]
    arrays: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def of(self, windows: Sequence[Window]) -> dict[str, Array]:
        """The inputs of some tiles, as a batch."""
        rows = [self.place[window[0].start, window[1].start] for window in windows]
        return {name: array[rows] for name, array in self.arrays.items()}

    @property
    def identity(self) -> str:
        """What tells these inputs from any others."""
        held = hashlib.sha256()
        for name, array in self.arrays.items():
            held.update(f"{name} {array.shape}".encode() + array.tobytes())
        return held.hexdigest()


def opened(bundle: Bundle, files: Sequence[str]) -> WeatherSeries | None:
    """The weather for a run, from other files than those of its training; None where no files are given.

    Raises:
        InputError: the run takes no weather, or the files lack a variable or are in another unit than the training's.
    """
    if not files:
        return None
    if not bundle.spec.series:
        raise InputError(f"--weather {files[0]}: this run takes imagery alone; leave it out")
    wanted, before = bundle.spec.series[WEATHER], data_of(bundle, FusedData).weather
    weather = open_series(dataclasses.replace(before, files=tuple(files), variables=wanted.channels))
    for name, here, there in zip(wanted.channels, weather.units, wanted.units, strict=True):
        if here != there:
            here, there = here or "no unit", there or "no unit"
            raise InputError(f"--weather {files[0]}: {name} is in {here}; wanted {there}, as in training")
    return weather


def check_static(runs: Iterable[Bundle], files: Sequence[str], *, weather: Sequence[str]) -> None:
    """Refuse NAME=FILE of rasters that none of the runs takes, or that would count for nothing without weather.

    Raises:
        InputError: which it is.
    """
    known = dict.fromkeys(name for run in runs if STATIC in run.spec.series for name in data_of(run, FusedData).static)
    for text in files:
        name, _, file = text.partition("=")
        if name not in known or not file:
            told = f"wanted {', '.join(f'{name}=FILE' for name in known)}" if known else "no run here takes any"
            raise InputError(f"--static {text}: {told}; leave it out, or correct it")
        if [other.partition("=")[0] for other in files].count(name) > 1:
            raise InputError(f"--static {text}: {name} is given twice; leave one out")
        if not weather:
            raise InputError(f"--static {text}: counts beside the weather alone; give --weather, or leave it out")


def static_of(bundle: Bundle, given: Mapping[str, str]) -> Static | None:
    """The rasters of what does not change; None for a run that takes none.

    Args:
        bundle: the run.
        given: files by name, in place of the training's, which are taken where they still lie where they lay.

    Raises:
        InputError: one is no such raster, or in another unit than the training's; a damaged bundle.
    """
    wanted = bundle.spec.series.get(STATIC)
    if wanted is None:
        return None
    data = data_of(bundle, FusedData)
    trained = {name: data.root / file for name, file in data.static.items()}
    own = {name: path for name, path in trained.items() if data.root.is_absolute() and path.is_file()}
    static = open_static({name: Path(given[name]) if name in given else own.get(name) for name in trained})
    if static.channels != wanted.channels:
        raise InputError("bundle.json: its data.static are not what its model takes; copy the run folder again")
    for channel, here, there in zip(wanted.channels, static.units, wanted.units, strict=True):
        if here and there and here != there:
            raise InputError(f"--static: {channel} is in {here}; wanted {there}, as in training")
    return static


def beside(
    bundle: Bundle, scene: Scene, overlap: int, weather: WeatherSeries | None, static: Sequence[str] = ()
) -> Beside | None:
    """What stands beside the tiles of a scene; None for a run of imagery alone.

    Args:
        bundle: the run.
        scene: the scene.
        overlap: pixels that neighbouring tiles share.
        weather: what `opened` gives.
        static: NAME=FILE of rasters, see `check_static`; those that the run does not take are for others.

    Raises:
        InputError: weather is given, and the scene has no date or no place to join it by; see `static_of`.
    """
    spec, given = bundle.spec, dict(text.partition("=")[::2] for text in static)
    if not spec.series:
        return None
    windows = [*grid_of_tiles(scene, spec, overlap)]
    place = {(window[0].start, window[1].start): i for i, window in enumerate(windows)}
    if weather is None:
        plain = withheld(spec.series, len(windows))
        return Beside(place, plain, ("no weather is given (--weather): the map is by the imagery alone",))
    day = scene.dates[-1]
    if day is None:
        raise InputError(f"{scene.name}: wanted a date, to know what weather came before; --date gives it")
    pixels = [enlarged(window, zoom(spec), scene.shape) for window in windows]
    places = np.stack([np.concatenate((scene.location(window), scene.area(window))) for window in pixels])
    ground = static_of(bundle, given)
    known = ground.at((scene.geobox, window) for window in pixels) if ground else None
    unseen = ground.unseen(known[1]) if ground and known else []
    if named := [name for name in unseen if name in given]:
        raise InputError(f"--static {named[0]}={given[named[0]]}: shows nothing of the ground of {scene.name}")
    arrays = inputs_at(weather, [day] * len(windows), places, known)
    there = float(arrays[valid_of(WEATHER)].mean())
    notes = [f"of the weather before {day} {there:.0%} is in the files; the rest is missing"] if there < SHARE else []
    notes += [f"nothing is known of {', '.join(unseen)} here; --static NAME=FILE gives it"] if unseen else []
    files = ground.files.items() if ground else ()
    used = tuple(f"{name}={path.name}" for name, path in files if path and name not in unseen)
    return Beside(place, arrays, (*weather.notes, *notes), used)
