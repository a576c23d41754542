"""Score new scenes with a run: windows in, a Cloud Optimized GeoTIFF per scene out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import Bundle, read_bundle
from models.errors import InputError, RunError
from models.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.runtime import Runtime
    from pipelines.scene import Scene
    from pipelines.windows import Window

    Array = NDArray[np.float32]
    Tile = tuple[Window, Array | None]


def score(
    run: Path,
    scenes: Sequence[str],
    *,
    out: Path,
    bands: list[str] | None = None,
    dates: list[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    mask_clouds: bool | None = None,
    overlap: int | None = None,
    batch: int = 8,
    runtime: str = "auto",
    weights: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Score scenes with a run; write one map per scene, <scene>_map.tif.

    A map of classes holds the class codes, with colours and names; a map of values holds float32 with its unit; scene
    classes come as one pixel per tile. Every scene is opened and checked before the first tile is run.

    Args:
        run: the run folder.
        scenes: rasters, folders of band files or STAC items; the frames of a model of several dates are joined by
            commas: a.tif,b.tif.
        out: folder for the maps.
        bands: names of the bands in the order of the files, where the files do not say.
        dates: day of each frame (YYYY-MM-DD), where the files do not say.
        scale: reflectance = raw * scale + offset, where the files do not say.
        offset: see scale.
        mask_clouds: leave clouded pixels out, by Fmask, SCL or QA_PIXEL; as in training when not given.
        overlap: pixels that neighbouring tiles share; a quarter of a tile when not given.
        batch: tiles predicted at once.
        runtime: auto, openvino or torch.
        weights: base weights, for --runtime torch and a bundle that stores its head only.
        overwrite: replace maps that exist.
        progress: wraps the tiles to show progress.
        say: takes a line for the person who waits.

    Returns:
        For each scene: scene, map, share of valid pixels, and notes.

    Raises:
        InputError: a scene that the run cannot eat, a map that exists, or an overlap that no tiles can have.
    """
    from models.runtime import load_runtime

    bundle = read_bundle(run)
    spec = bundle.spec
    shared = spec.tile // 4 if overlap is None else overlap
    if batch < 1:
        raise InputError(f"batch {batch}: wanted at least 1")
    if not 0 <= shared < spec.tile:
        raise InputError(f"overlap {shared}: wanted 0 to {spec.tile - 1}, below the tile of {spec.tile} pixels")
    jobs = [
        (
            open_for(bundle, source, bands=bands, dates=dates, scale=scale, offset=offset, mask_clouds=mask_clouds),
            source,
        )
        for source in scenes
    ]
    targets = _targets(out, [scene for scene, _ in jobs], overwrite=overwrite)
    predict = load_runtime(run, runtime=runtime, weights=weights)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for (scene, source), path in zip(jobs, targets, strict=True):
        for note in (*scene.notes, *unit_notes(scene, spec)):
            say(f"{scene.name}: {note}")
        share = write_map(
            path, scene, bundle, predict, overlap=shared, batch=batch, overwrite=overwrite, progress=progress
        )
        if not share:
            say(f"{scene.name}: no valid pixel, so the map is empty")
        results.append({"scene": source, "map": str(path), "valid": round(share, 6), "notes": list(scene.notes)})
    return results


def open_for(
    bundle: Bundle,
    source: str,
    *,
    bands: Sequence[str] | None = None,
    dates: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    mask_clouds: bool | None = None,
) -> Scene:
    """Open a scene for a bundle: as told, else as the files say, else as the training files were read.

    Raises:
        InputError: the scene lacks bands, frames, dates or a place that the model wants.
    """
    from pipelines.scene import Assumed, open_scene

    spec = bundle.spec
    files = source.split(",") if spec.frames > 1 else [source]
    scene = open_scene(
        files if len(files) > 1 else source,
        spec.bands,
        file_bands=bands,
        scale=scale,
        offset=offset,
        dates=dates,
        frames=max(spec.frames // len(files), 1),
        mask_clouds=bool(bundle.data.get("mask_clouds")) if mask_clouds is None else mask_clouds,
        assumed=Assumed.like(bundle.data),
    )
    if scene.frames != spec.frames:
        raise InputError(
            f"{source}: wanted {spec.frames} frames, came {scene.frames}; give one file per date, joined by commas"
        )
    if spec.uses_time:
        scene.time()
    if spec.uses_location:
        scene.location((slice(0, 1), slice(0, 1)))
    return scene


def unit_notes(scene: Scene, spec: Spec) -> list[str]:
    """A warning where the values in the middle of a scene lie far from those that the model knows."""
    import numpy as np

    middle = [max((side - spec.tile) // 2, 0) for side in scene.shape]
    rows, columns = (slice(m, min(m + spec.tile, side)) for m, side in zip(middle, scene.shape, strict=True))
    x, valid = scene.read((rows, columns))
    if not valid.any():
        return []
    bright = np.percentile(np.abs(x[..., valid]), 98, axis=(1, 2))  # (C,)
    ratio = float(np.median(bright / np.maximum(np.abs(spec.mean), 1e-6)))
    if 1 / 30 < ratio < 30:
        return []
    return [f"WARNING: bright pixels are {ratio:.2g} times the model's mean: wrong unit? wanted {spec.unit} (--scale)"]


def _targets(out: Path, scenes: Sequence[Scene], *, overwrite: bool) -> list[Path]:
    """Path of each map; refuse two maps of one name and maps that exist."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder for the maps")
    paths = [out / f"{scene.name}_map.tif" for scene in scenes]
    twice = {path.name for path in paths if paths.count(path) > 1}
    if twice:
        raise InputError(f"{out}: two scenes would both be written as {min(twice)}; score them into two folders")
    inputs = frozenset().union(*(scene.files for scene in scenes))
    eaten = [path for path in paths if path.resolve() in inputs]
    if eaten:
        raise InputError(f"{eaten[0]}: the map would replace a file that is to be read; --out names another folder")
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise InputError(f"{there[0]}: exists already; --overwrite replaces it, --out names another folder")
    return paths


def write_map(
    path: Path,
    scene: Scene,
    bundle: Bundle,
    predict: Runtime,
    *,
    overlap: int,
    batch: int,
    overwrite: bool,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None,
) -> float:
    """Predict a scene tile by tile and write the map.

    Returns:
        The share of valid pixels.
    """
    from pipelines.geotiff import write_rows
    from pipelines.mosaic import blend
    from pipelines.windows import tiles

    spec, (height, width) = bundle.spec, scene.shape
    if spec.task == "classification":
        geobox, rows = _cells(scene, spec, predict, batch=batch, progress=progress)
    else:
        windows = tiles(height, width, spec.tile, overlap)
        answers = predict_tiles(scene, spec, predict, shown(windows, path.name, progress), batch=batch)
        geobox = scene.geobox
        channels = spec.outputs + 1  # the last one carries the valid mask through the blending
        rows = blend(answers, channels=channels, height=height, width=width, tile=spec.tile, overlap=overlap)
    counted = [0, 0]

    def finished() -> Iterator[tuple[int, Any]]:
        for row, block in rows:
            valid = block[-1] > 0.5
            counted[0] += int(valid.sum())
            counted[1] += valid.size
            yield row, _codes(spec, block[:-1], valid)

    dtype, nodata = map_type(spec)
    quantity = spec.target.name if spec.target else "class"
    write_rows(
        path,
        finished(),
        geobox=geobox,
        dtype=dtype,
        nodata=nodata,
        classes=spec.classes,
        descriptions=[quantity],
        units=[spec.target.unit] if spec.target and spec.target.unit else [],
        tags=_tags(bundle, scene),
        overwrite=overwrite,
    )
    return counted[0] / counted[1]


def shown(
    items: Sequence[Any], what: str, progress: Callable[[Iterable[Any], str], Iterable[Any]] | None
) -> Iterable[Any]:
    """The items, with progress where it is shown."""
    return progress(items, what) if progress else items


def map_type(spec: Spec) -> tuple[str, float]:
    """GDAL type and nodata value of a map: the smallest type that holds the codes, and a value that is no code."""
    if spec.task == "regression":
        return "float32", float("nan")
    if 0 not in spec.codes:
        return ("uint8" if max(spec.codes) <= 255 else "uint16"), 0
    if max(spec.codes) < 255:
        return "uint8", 255
    return "uint16", next(code for code in range(65535, 0, -1) if code not in spec.codes)


def _codes(spec: Spec, block: Array, valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Blended predictions (K, n, w) as map values (1, n, w) with nodata where not valid."""
    import numpy as np

    dtype, nodata = map_type(spec)
    if spec.task == "regression":
        return np.where(valid, block, np.float32(nodata)).astype(np.float32)
    codes = np.array(spec.codes, dtype)[block.argmax(axis=0)]
    return np.where(valid, codes, np.array(nodata, dtype))[None]


def predict_tiles(
    scene: Scene, spec: Spec, predict: Runtime, windows: Iterable[Window], *, batch: int
) -> Iterator[Tile]:
    """Predict windows in batches, in order; the valid mask comes as one more channel.

    Tiles without a valid pixel are not run and come as None. Invalid pixels hold the tile's band means for the model.

    Yields:
        The window and (K+1, h, w), or (K+1, 1, 1) for scene classes, or None.
    """
    waiting: list[tuple[Window, Array | None, NDArray[np.bool_]]] = []
    for window in windows:
        x, valid = scene.read(window)
        waiting.append((window, _ready(x, valid, spec.tile) if valid.any() else None, valid))
        full = sum(x is not None for _, x, _ in waiting)
        if full == batch or len(waiting) == 4 * batch:  # empty tiles must not pile up either
            yield from _run(scene, spec, predict, waiting)
            waiting = []
    yield from _run(scene, spec, predict, waiting)


def _ready(x: Array, valid: NDArray[np.bool_], tile: int) -> Array:
    from pipelines.mosaic import fill_invalid, pad_tile

    return pad_tile(fill_invalid(x, valid), valid, tile)[0]


def _run(
    scene: Scene, spec: Spec, predict: Runtime, waiting: Sequence[tuple[Window, Array | None, NDArray[np.bool_]]]
) -> Iterator[Tile]:
    import numpy as np

    full = [(window, x) for window, x, _ in waiting if x is not None]
    if full:
        x = np.stack([x for _, x in full])
        time = np.repeat(scene.time()[None], len(full), axis=0) if spec.uses_time else None
        location = np.stack([scene.location(w) for w, _ in full]) if spec.uses_location else None
        y = predict(x, time, location)
        if not np.isfinite(y).all():
            rows, columns = full[0][0]
            raise RunError(
                f"{scene.name}: the model's answer is not finite near row {rows.start}, column {columns.start}; "
                "look at the values there with `earthtune inspect`"
            )
        answers = iter(y)
    for window, tile, valid in waiting:
        if tile is None:
            yield window, None
        elif spec.task == "classification":
            yield window, np.append(next(answers), np.float32(1))[:, None, None]
        else:
            h, w = valid.shape
            yield window, np.concatenate((next(answers)[:, :h, :w], valid[None].astype(np.float32)))


def _cells(
    scene: Scene,
    spec: Spec,
    predict: Runtime,
    *,
    batch: int,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None,
) -> tuple[Any, Iterator[tuple[int, Array]]]:
    """Scene classes: one pixel per tile, on a grid of cells as wide as a tile."""
    import numpy as np

    from pipelines.align import coarser

    (height, width), tile = scene.shape, spec.tile
    geobox = coarser(scene.geobox, tile)
    columns = range(0, width, tile)

    def rows() -> Iterator[tuple[int, Array]]:
        for i, top in enumerate(shown(range(0, height, tile), scene.name, progress)):
            strip = [(slice(top, min(top + tile, height)), slice(c, min(c + tile, width))) for c in columns]
            answers = [y for _, y in predict_tiles(scene, spec, predict, strip, batch=batch)]
            blank = np.zeros((spec.outputs + 1, 1, 1), np.float32)
            yield i, np.concatenate([blank if y is None else y for y in answers], axis=2)

    return geobox, rows()


def _tags(bundle: Bundle, scene: Scene) -> dict[str, str]:
    """GDAL tags that say what made the map, and from what."""
    from importlib.metadata import version

    tags = {
        "TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}",
        "EARTHTUNE_RECIPE": str(bundle.training.get("recipe", "")),
        "EARTHTUNE_RECIPE_SHA256": str(bundle.training.get("sha256", "")),
        "EARTHTUNE_BACKBONE": bundle.backbone,
        "EARTHTUNE_BASE": str(bundle.base),
        "EARTHTUNE_INPUT": ",".join(Path(source).name for source in scene.sources),
    }
    dates = [date.isoformat() for date in scene.dates if date]
    return tags | ({"ACQUISITION_DATE": ",".join(dates)} if dates else {})
