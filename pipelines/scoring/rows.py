"""The maps of a scene: which there are, and their rows, predicted tile by tile."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.bundle import Bundle
from models.confidence.calibration import members, tempered
from models.confidence.intervals import interval_of
from models.errors import InputError, RunError
from models.runtime.engines import Runtime
from models.spec import IMAGERY, Spec
from models.types import Array, Inputs, Mask, Predict, Progress
from pipelines.grids.align import crop
from pipelines.grids.mosaic import Prediction, Rows, blend, fill_invalid, first_largest, pad_tile
from pipelines.grids.positions import Lattice, clip, coarser, footprint, phase, pixel_ratio
from pipelines.grids.resample import resample
from pipelines.grids.windows import Tiles, Window, enlarged
from pipelines.mosaics.ground import Area
from pipelines.outputs.layout import Layout
from pipelines.records.energy import READ, Meter
from pipelines.scenes.scene import Scene

Grid = Literal["train", "scene"]
UNFAMILIAR = "distance from training ground, above 1 is outside"
ENDS = ("lower", "upper")  # the maps of an interval
_STRIP = 16  # rows of the scene's files that are resampled at once


def map_grid(scene: Scene, spec: Spec, grid: Grid) -> GeoBox:
    """The grid of a map of a scene.

    Raises:
        InputError: scene classes are wanted on the grid of the scene's files, and they are per tile of another.
    """
    if grid == "train" or scene.own is None:
        return coarser(scene.geobox, zoom(spec))
    if zoom(spec) > 1:
        raise InputError(
            "--map_grid scene: for a class or a value a pixel; this run tells a class a tile, leave it out"
        )
    return scene.own.geobox


def layouts(
    bundle: Bundle, scene: Scene, kinds: Sequence[str], tags: Mapping[str, str], *, grid: Grid = "train"
) -> dict[str, Layout]:
    """How each kind of map of a scene is laid out.

    "map" holds class codes, or values with their unit; "probabilities" a band for each class; "confidence" the highest
    of them; "sets" how many classes may be right, and which, as bits in the order of the classes; "lower" and "upper"
    the ends of an interval of values; "unfamiliar" how unlike the training's ground it is. Scene classes come as one
    pixel per tile.

    Raises:
        InputError: probabilities of a model that predicts values; see `map_grid`.
    """
    spec = bundle.spec
    lacking = [kind for kind in kinds if kind not in ("map", "unfamiliar", *ENDS)]
    if not spec.answer.classes and lacking:
        raise InputError(f"the model predicts {spec.answer.name}, not classes: it has no {' and no '.join(lacking)}")
    geobox = map_grid(scene, spec, grid)
    dtype, nodata = map_type(spec)
    units = [spec.answer.unit] if spec.answer.unit else []
    names, nan = [f"{entry.code} {entry.name}" for entry in spec.answer.classes], float("nan")
    made = {
        "map": Layout(geobox, dtype, 1, nodata, spec.answer.classes, [spec.answer.name], units, tags),
        "probabilities": Layout(geobox, "float32", max(len(names), 1), nan, descriptions=names, tags=tags),
        "confidence": Layout(geobox, "float32", nodata=nan, descriptions=[_sure(bundle)], tags=tags),
        "sets": Layout(geobox, "uint32", 2, 0, descriptions=_of_sets(bundle), tags=tags, overview_resampling="nearest"),
        "unfamiliar": Layout(geobox, "float32", nodata=nan, descriptions=[UNFAMILIAR], tags=tags),
    }
    for end in ENDS:
        about = [f"{end} end of the {_level(bundle):.0%} interval of {spec.answer.name}"]
        made[end] = Layout(geobox, "float32", nodata=nan, descriptions=about, units=units, tags=tags)
    return {kind: made[kind] for kind in kinds}


def _sure(bundle: Bundle) -> str:
    """What the confidence is."""
    return "highest probability" if temperature(bundle) == 1 else "highest probability, calibrated"


def _of_sets(bundle: Bundle) -> list[str]:
    """What the bands of sets hold."""
    level = next(iter(bundle.confidence.get("sets", {})), "0")
    return [f"classes in the {float(level):.0%} set", "which, bit 0 is the first class of the legend"]


def _level(bundle: Bundle) -> float:
    """Of the intervals that are drawn; 0 where there are none."""
    found = interval_of(bundle.confidence)
    return found[0] if found else 0.0


def temperature(bundle: Bundle) -> float:
    """Of its calibration; 1 where there is none."""
    return float(bundle.confidence.get("temperature", 1))


def zoom(spec: Spec) -> int:
    """Pixels of the scene along one pixel of the map: 1, or a tile for scene classes."""
    return spec.imagery.tile if spec.answer.support == "tile" else 1


def map_type(spec: Spec) -> tuple[str, float]:
    """GDAL type and nodata value of a map: the smallest type that holds the codes, and a value that is no code."""
    if not spec.answer.classes:
        return "float32", float("nan")
    if 0 not in spec.answer.codes:
        return ("uint8" if max(spec.answer.codes) <= 255 else "uint16"), 0
    if max(spec.answer.codes) < 255:
        return "uint8", 255
    return "uint16", next(code for code in range(65535, 0, -1) if code not in spec.answer.codes)


def draw(kind: str, bundle: Bundle, block: Array, valid: Mask) -> NDArray[Any]:
    """Blended predictions (K, n, w) as rows of a kind of map (bands, n, w), nodata where not valid (n, w).

    Probabilities are calibrated here, so that classes are what they were before. What is unfamiliar comes as the
    block itself, (1, n, w).
    """
    spec = bundle.spec
    if spec.answer.classes and kind in ("probabilities", "confidence", "sets"):
        block = tempered(block, temperature(bundle), axis=0)
    if kind == "sets":
        inside = members(block, float(next(iter(bundle.confidence["sets"].values()))), axis=0)
        bits = (inside * (1 << np.arange(len(inside), dtype=np.uint32))[:, None, None]).sum(0)
        return np.where(valid, np.stack((inside.sum(0), bits)), 0).astype(np.uint32)
    if kind in ENDS and (found := interval_of(bundle.confidence)):
        block = found[1](block, positive=bool(bundle.confidence.get("positive")))[ENDS.index(kind)][None]
    if kind == "map" and spec.answer.classes:
        dtype, nodata = map_type(spec)
        codes = np.array(spec.answer.codes, dtype)[first_largest(block)]
        return np.where(valid, codes, np.array(nodata, dtype))[None]
    values = block.max(axis=0, keepdims=True) if kind == "confidence" else block
    return np.where(valid, values, np.float32(np.nan))


def grid_of_tiles(scene: Scene, spec: Spec, overlap: int, *, rows: tuple[int, int] | None = None) -> Tiles:
    """The tiles of a map, in its own pixels: all, or those that touch some of its rows."""
    times = zoom(spec)
    height, width = (-(-side // times) for side in scene.shape)
    if times > 1:
        return Tiles((height, width), 1, 0, rows=rows)
    return Tiles((height, width), spec.imagery.tile, overlap, phase=phase(scene.geobox), rows=rows)


def map_rows(
    scene: Scene,
    specs: Sequence[Spec],
    runtime: Runtime,
    *,
    overlap: int,
    extra: int = 0,
    rows: tuple[int, int] | None = None,
    area: Area | None = None,
    beside: Callable[[Sequence[Window]], Inputs] | None = None,
    meter: Meter | None = None,
    progress: Progress | None = None,
) -> Iterator[Rows]:
    """Predict a scene tile by tile and blend.

    Args:
        scene: the scene.
        specs: the models of the runtime; their inputs and tiles are the same.
        runtime: predicts all of them.
        overlap: pixels that neighbouring tiles share.
        extra: channels that the runtime gives after the models' answers.
        rows: first row and end of the rows of the map that are wanted; all of them when None.
        area: on the grid of the scene; nothing is told outside of it, and tiles outside are not computed.
        beside: what else the models take, of tiles by their windows on the map.
        meter: books the reading, and counts the tiles.
        progress: wraps the tiles to show progress.

    Yields:
        First row, probabilities or values (sum of the models' K and `extra`, n, width), and the valid mask (n, width).

    Raises:
        RunError: a file broke while being read, or an answer is not finite; names the window.
    """
    tiles = grid_of_tiles(scene, specs[0], overlap, rows=rows)
    windows = progress(tiles, scene.name) if progress else tiles
    answers = predict_tiles(scene, specs[0], runtime, windows, meter, area, beside)
    return blend(answers, tiles, channels=sum(spec.answer.channels for spec in specs) + extra, rows=rows)


def rows_on_files(
    scene: Scene,
    specs: Sequence[Spec],
    runtime: Runtime,
    *,
    overlap: int,
    extra: int = 0,
    rows: tuple[int, int] | None = None,
    area: Area | None = None,
    beside: Callable[[Sequence[Window]], Inputs] | None = None,
    meter: Meter | None = None,
    progress: Progress | None = None,
) -> Iterator[Rows]:
    """The rows of `map_rows` on the grid of the scene's files, which is another than the one that it is read on.

    Probabilities and values are bilinear between larger pixels and means by area of smaller ones; classes are to be
    taken from these. Nothing is told where a file has no data. Holds the rows that lie under a few of the map's.
    """
    own = scene.own or scene
    height, width = own.shape
    first, end = rows or (0, height)
    method = Resampling.average if math.prod(pixel_ratio(scene.geobox, own.geobox)) > 1 else Resampling.bilinear
    windows = [(slice(row, min(row + _STRIP, end)), slice(0, width)) for row in range(first, end, _STRIP)]
    unders = [_rows_under(scene, crop(own.geobox, window)) for window in windows]
    wanted = unders[0].start, unders[-1].stop
    how: dict[str, Any] = {"extra": extra, "rows": wanted, "area": area, "beside": beside, "meter": meter}
    how["progress"] = progress
    feed = map_rows(scene, specs, runtime, overlap=overlap, **how)
    channels, top = sum(spec.answer.channels for spec in specs) + extra, wanted[0]
    held = np.empty((channels, 0, scene.shape[1]), np.float32)
    for window, under in zip(windows, unders, strict=True):
        while top + held.shape[1] < under.stop:
            _, block, valid = next(feed)
            np.copyto(block, np.nan, where=~valid)
            held = np.concatenate((held, block), axis=1)
        held, top = held[:, under.start - top :], under.start
        lattice = Lattice(scene.geobox, own.geobox, window, (under, slice(0, scene.shape[1])))
        y = resample(held[:, : under.stop - under.start], lattice, method)
        seen = own.read(window)[1] & np.isfinite(y).all(axis=0)
        np.copyto(y, 0, where=~seen)
        yield window[0].start, y, seen


def _rows_under(scene: Scene, geobox: GeoBox) -> slice:
    """The rows of a scene, as it is read, that lie under rows of its files, and those beside them."""
    under = clip(footprint(scene.geobox, geobox, pad=2), scene.shape)
    return under[0] if under else slice(0, scene.shape[0])


def class_map(scene: Scene, spec: Spec, predict: Predict, *, overlap: int) -> NDArray[np.intp]:
    """Class index of each pixel by a model of classes or a baseline, -1 where not valid: (H, W), all in memory.

    Raises:
        RunError: see `map_rows`.
    """
    runtime = Runtime(lambda inputs: [predict(inputs)], lanes=1, batch=8, name="function")
    rows = map_rows(scene, [spec], runtime, overlap=overlap)
    return np.concatenate([np.where(valid, y.argmax(axis=0), -1) for _, y, valid in rows])


def predict_tiles(
    scene: Scene,
    spec: Spec,
    runtime: Runtime,
    windows: Iterable[Window],
    meter: Meter | None = None,
    area: Area | None = None,
    beside: Callable[[Sequence[Window]], Inputs] | None = None,
) -> Iterator[Prediction]:
    """Predict windows of a map, in order; reading and prediction run beside each other and beside the caller.

    Tiles without a valid pixel are not run and come as None. Invalid pixels hold the tile's band means for the model.

    Args:
        scene: the scene.
        spec: the model's inputs.
        runtime: the models.
        windows: in pixels of the map, row by row.
        meter: books the reading, and counts the tiles.
        area: see `map_rows`.
        beside: see `map_rows`.

    Yields:
        The window, predictions (sum of the models' K, h, w) or None, and the valid mask (h, w).
    """
    waiting: deque[Future[list[Prediction]]] = deque()
    ahead = 2 * (runtime.lanes + 1)
    remote = any("://" in source or source.startswith("/vsi") for source in scene.sources)
    # Each thread that reads decodes a file for itself, so one where it is quick enough for the model.
    count = runtime.lanes + 1 if remote or runtime.batch > 1 else max(runtime.lanes // 4, 1)
    with ThreadPoolExecutor(count) as readers, ThreadPoolExecutor(runtime.lanes) as lanes:
        try:
            for batch in _batches(windows, runtime.batch):
                tiles = readers.submit(_read, scene, spec, batch, meter, area)
                if meter:
                    meter.made(samples=len(batch))
                waiting.append(lanes.submit(_predict, scene, spec, runtime, batch, tiles, beside))
                if len(waiting) > ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            readers.shutdown(wait=False, cancel_futures=True)


def _batches(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    """At most `size` windows of one row of tiles: so a batch is the same wherever scoring began."""
    batch: list[Window] = []
    for window in windows:
        if batch and (len(batch) == size or batch[-1][0] != window[0]):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _read(
    scene: Scene, spec: Spec, windows: Sequence[Window], meter: Meter | None, area: Area | None
) -> list[tuple[Array, Mask, Mask]]:
    """Read a batch: of each window of the map x (C, T, h, w), valid (h, w), and what of that is asked for (h, w)."""
    tiles = []
    with meter.aside(READ) if meter else nullcontext():
        for pixels in (enlarged(window, zoom(spec), scene.shape) for window in windows):
            inside = area.on(pixels) if area else None
            if inside is not None and not inside.any():
                tiles.append((np.empty(0, np.float32), inside, inside))  # nothing is read, nor predicted
                continue
            x, valid = scene.read(pixels)
            tiles.append((x, valid, valid if inside is None else valid & inside))
    return tiles


def _predict(
    scene: Scene,
    spec: Spec,
    runtime: Runtime,
    windows: Sequence[Window],
    reading: Future[list[tuple[Array, Mask, Mask]]],
    beside: Callable[[Sequence[Window]], Inputs] | None,
) -> list[Prediction]:
    """Predict a batch that is being read."""
    tiles = reading.result()
    pixels = [enlarged(window, zoom(spec), scene.shape) for window in windows]
    full = [i for i, (_, valid, _) in enumerate(tiles) if valid.any()]
    answers: dict[int, Array] = {}
    if full:
        tile = spec.imagery.tile
        inputs = {IMAGERY: np.stack([pad_tile(fill_invalid(*tiles[i][:2]), tiles[i][1], tile)[0] for i in full])}
        if spec.imagery.uses_time:
            inputs["time"] = np.repeat(scene.time()[None], len(full), axis=0)
        if spec.imagery.uses_location:
            inputs["location"] = np.stack([scene.location(pixels[i]) for i in full])
        inputs |= beside([windows[i] for i in full]) if beside else {}
        y = np.concatenate(runtime.run(inputs), axis=1)  # (B, K, tile, tile), or (B, K) for classes of tiles
        if not np.isfinite(y).all():
            rows, columns = pixels[full[0]]
            raise RunError(
                f"{scene.name}: the model's answer is not finite near row {rows.start}, column {columns.start}; "
                "look at the values there with `earthtune inspect`"
            )
        answers = dict(zip(full, y, strict=True))
    return [
        (window, *_on_map(spec, answers.get(i), asked))
        for i, (window, (_, _, asked)) in enumerate(zip(windows, tiles, strict=True))
    ]


def _on_map(spec: Spec, y: Array | None, valid: Mask) -> tuple[Array | None, Mask]:
    """An answer and its valid mask in pixels of the map."""
    if spec.answer.support == "tile":
        return None if y is None else y[:, None, None], np.full((1, 1), valid.any())
    height, width = valid.shape
    return None if y is None else y[:, :height, :width], valid
