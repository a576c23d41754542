"""A scene opened for a model, and what a person should know before it is scored; its map in a file, with no more."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from models.bundle import Bundle
from models.errors import InputError, shown
from models.runtime.engines import Runtime
from models.spec import Spec
from models.types import Progress
from pipelines.scenes.cubes import is_cube
from pipelines.scenes.periods import Period, frames_by, read_periods, sources_in
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.pixel_size import at_size, resampling_of, size_notes
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import Scene, open_told
from pipelines.scoring.rows import draw, layouts, map_rows


def open_for(
    bundle: Bundle, source: str, reading: Reading = Reading(), *, periods: Sequence[str] | None = None
) -> Scene:
    """Open a scene for a bundle: as told, else as the files say, else as the training files were read.

    Where its pixels are of quite another size than those of the training, it may be read on pixels of theirs.

    Args:
        bundle: the run.
        source: files, joined by commas where a model of several dates wants them.
        reading: what a person says.
        periods: of the frames, where `source` is a folder of dated scenes or a file of many dates; those of the
            training when None.

    Raises:
        InputError: the scene lacks bands, frames, dates or a place that the model wants, or has no place on the Earth.
    """
    pixels = bundle.spec.imagery
    files = source.split(",") if pixels.times > 1 else [source]
    said = periods_of(bundle, periods)
    if len(files) == 1 and said:
        scene = _of_place(bundle, source, reading, read_periods(said))
    else:
        scene = open_told(files, pixels.channels, reading, times=pixels.times, like=bundle.data)
    if scene.frames != pixels.times:
        raise InputError(
            f"{source}: wanted {pixels.times} frames, came {scene.frames}; give one file per date, joined by commas"
        )
    if pixels.uses_time:
        scene.time()
    if pixels.uses_location:
        scene.location((slice(0, 1), slice(0, 1)))
    _check_place(source, scene)
    return at_size(scene, pixels.pixel, reading.resample)


def periods_of(bundle: Bundle, said: Sequence[str] | None) -> Sequence[str]:
    """The periods of a run's frames: as told, else those of its training; empty where frames are given one by one.

    Raises:
        InputError: another number of them than of the run's dates.
    """
    times = bundle.spec.imagery.times
    periods = bundle.data.get("periods", ()) if said is None else said
    if said and len(said) != times:
        raise InputError(f"--periods {','.join(said)}: {len(said)} periods; this run wants {times}, one for each date")
    return tuple(map(str, periods)) if times > 1 or said else ()


def _of_place(bundle: Bundle, place: str, reading: Reading, periods: Sequence[Period]) -> Scene:
    """The dates of a place that lie in some periods; of a folder it bears the name."""
    folder = "://" not in place and Path(place).is_dir() and not is_cube(place)
    sources = sources_in(Path(place), periods) if folder else [place]
    every = open_told(sources, bundle.spec.imagery.channels, reading, times=len(sources), like=bundle.data)
    mean, most = bundle.spec.imagery.mean, int(bundle.data.get("missing_frames", 0))
    return frames_by(periods, every, name=Path(place).name if folder else "", absent=mean, most=most)


def _check_place(source: str, scene: Scene) -> None:
    """Refuse degrees that no place on the Earth has: it is the coordinate system of another grid."""
    crs, box = scene.geobox.crs, scene.geobox.boundingbox
    slack = abs(scene.geobox.resolution.y)  # grids of weather may have a row around the pole
    if crs is not None and crs.geographic and "degree" in crs.units[0] and max(-box.bottom, box.top) > 90 + slack:
        told = f"latitudes from {box.bottom:g} to {box.top:g} degrees"
        raise InputError(f"{source}: {told}; give it the coordinate system that its numbers are of")


def warnings_about(scene: Scene, spec: Spec, *, as_is: bool = False) -> list[str]:
    """What a person should know before a scene is scored: of its files, its units and the size of its pixels.

    Args:
        scene: the scene.
        spec: what the model eats.
        as_is: a person insists on the values as they are.

    Raises:
        InputError: the values cannot be in the model's unit.
    """
    return [*scene.remarks, *unit_notes(scene, as_is=as_is), *size_notes(scene, spec.imagery.pixel)]


def tags_for(bundle: Bundle, identity: str, scene: Scene, weather: Sequence[str] = ()) -> dict[str, str]:
    """GDAL tags that say what made the map, and from what: the scene, and the files of weather beside it."""
    tags = {
        "TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}",
        "EARTHTUNE_BUNDLE": identity,
        "EARTHTUNE_RECIPE": str(bundle.training.get("recipe", "")),
        "EARTHTUNE_RECIPE_SHA256": str(bundle.training.get("sha256", "")),
        "EARTHTUNE_BACKBONE": bundle.backbone,
        "EARTHTUNE_BASE": str(bundle.base),
        "EARTHTUNE_INPUT": ",".join(Path(shown(source)).name for source in scene.sources),
    }
    dates = [date.isoformat() for date in scene.dates if date]
    sure = bundle.confidence.get("said", "")
    told = {
        "EARTHTUNE_CONFIDENCE": str(sure),
        "ACQUISITION_DATE": ",".join(dates),
        "EARTHTUNE_MISSING_FRAMES": ",".join(scene.missing),
        "EARTHTUNE_RESAMPLED": resampling_of(scene),
        "EARTHTUNE_WEATHER": ",".join(Path(shown(file)).name for file in weather),
    }
    return tags | {name: text for name, text in told.items() if text}


def write_map(
    path: Path,
    scene: Scene,
    bundle: Bundle,
    runtime: Runtime,
    *,
    overlap: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write the map of one scene to a file, with nothing beside it."""
    from pipelines.outputs.geotiff import write_rows

    layout = layouts(bundle, scene, ["map"], {})["map"]
    rows = map_rows(scene, [bundle.spec], runtime, overlap=overlap, progress=progress)
    write_rows(path, ((row, draw("map", bundle, y, valid)) for row, y, valid in rows), layout, overwrite=overwrite)
