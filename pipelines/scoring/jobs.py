"""A scene's maps as work for any process: score rows into parts; where all parts are there, join them."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from models.bundle import Bundle, load_familiar
from models.errors import EarthtuneError, InputError, RunError, explained, shown
from models.files import stamp
from models.runtime.engines import Runtime, load_runtimes
from models.types import Array, Mask, Progress
from pipelines.grids.areas import least_pixels, pixel_side
from pipelines.grids.rasters import trusting
from pipelines.mosaics.ground import Area
from pipelines.outputs.geotiff import has_data, join, write_rows
from pipelines.outputs.layout import BLOCK, Layout, Regroup
from pipelines.outputs.parts import drop_damaged, missing, read_parts, runs, write_part
from pipelines.outputs.sieve import sieve
from pipelines.records.energy import START, TILES, WRITE, Meter
from pipelines.records.ledger import Entry, fingerprint
from pipelines.samples.unfamiliar import limit, unlike
from pipelines.scenes.scene import Scene
from pipelines.scoring.beside import Beside
from pipelines.scoring.rows import Grid, draw, map_rows, rows_on_files
from pipelines.scoring.watch import share_outside, watching

CACHE = 160 << 20  # bytes of blocks of the scene that GDAL keeps; by default it takes 5 % of the machine's memory


@dataclass(frozen=True)
class Engine:
    """How models are run.

    Attributes:
        runtime: auto, openvino or torch.
        precision: auto, f32, bf16, i8 (bytes in large layers) or int8 (what `earthtune int8` made); auto takes the
            fastest that is known to map alike, and never int8.
        weights: base weights, for --runtime torch and a bundle that stores its head only.
        batch: tiles predicted at once on a GPU; the runtime's own number when not given.
        threads: threads on the CPU; all when None.
    """

    runtime: str = "auto"
    precision: str = "auto"
    weights: Path | None = None
    batch: int | None = None
    threads: int | None = field(default=None, metadata={"option": False})  # from the number of workers


@dataclass(frozen=True)
class Output:
    """The maps of one scene by one bundle.

    Attributes:
        run: the run folder.
        bundle: what it holds.
        identity: what tells it from any other bundle, also from one that was in the same folder before.
        entry: their page in the ledger.
        layouts: each kind of map and how it is laid out.
        weather: that the weather beside the scene is unlike all training weather, in words; empty where it is not.
    """

    run: Path
    bundle: Bundle
    identity: str
    entry: Entry
    layouts: Mapping[str, Layout]
    weather: str = ""

    def path(self, kind: str) -> Path:
        """The file of a kind of map."""
        return self.entry.out / f"{self.entry.stem}_{kind}.tif"

    @property
    def beside(self) -> dict[str, Path]:
        """The picture and the STAC item that lie beside the maps."""
        return {name: self.entry.out / f"{self.entry.stem}.{name}" for name in ("png", "json")}

    @property
    def begun(self) -> Path:
        """A mark that some of these maps have got their names: those that are there are ours."""
        return self.entry.parts / "begun"

    @property
    def files(self) -> list[Path]:
        """All that is written under a final name."""
        return [*map(self.path, self.layouts), *self.beside.values()]

    def told(self, source: str, page: Mapping[str, Any]) -> dict[str, Any]:
        """What a person is told of finished maps; `page` is what the ledger keeps of them."""
        maps = {kind: str(self.path(kind)) for kind in self.layouts}
        files = {"map": maps["map"], "maps": maps, "item": str(self.beside["json"]), "picture": str(self.beside["png"])}
        return {"scene": source, "run": str(self.run), **files, **page}

    def parts(self, kind: str) -> Path:
        """Folder of its parts."""
        return self.entry.parts / kind


@dataclass(frozen=True)
class Job:
    """Some rows of a scene's maps, or all. Holds no open file, so it goes to any process.

    Attributes:
        source: the scene as it was asked for.
        scene: the scene, opened.
        outputs: the maps; of bundles that take the same tiles.
        overlap: pixels that neighbouring tiles share.
        engine: how models are run.
        least_area: hectares; smaller patches are merged into their neighbours. 0 leaves them.
        grid: see `plan.Maps.map_grid`.
        area: see `rows.map_rows`.
        beside: what else the models take of the scene's tiles.
        rows: first row and end, in rows of the map; the first is that of a part.
        whole: whether these are all the rows.
        replace: whether maps of these names may be replaced.
        prints: fingerprints of the files that the scene is read from.
        debug: whether what it fails of is raised, not told.
        trust: whether virtual rasters may read whatever they ask for.
        call: see `Meter.call`.
    """

    source: str
    scene: Scene
    outputs: tuple[Output, ...]
    overlap: int
    engine: Engine
    least_area: float
    grid: Grid
    area: Area | None
    beside: Beside | None
    rows: tuple[int, int]
    whole: bool = True
    replace: bool = False
    prints: tuple[tuple[Path, list[Any]], ...] = ()
    debug: bool = False
    trust: bool = False
    call: tuple[str, str] = ("", "")


def carry_out(job: Job, *, wait: bool, meter: Meter | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Do a job, or what is left of it. Errors are told, not raised: another scene may do better.

    Args:
        job: the job.
        wait: wait while another process is at work on it.
        meter: books what it costs; a new one when None.
        progress: wraps the tiles to show progress.

    Returns:
        {"status": "done", "results": one per output}; or status "busy" where another process is at work on it,
        "partial" where other rows are not there yet, or "failed" with "error" and "exit_code".
    """
    begun, meter = time.monotonic(), meter or Meter()
    try:
        with ExitStack() as stack:
            what = "" if job.whole else f"{job.rows[0]}-{job.rows[1]}"
            # In one order, or two calls might wait for each other.
            ordered = sorted(job.outputs, key=lambda output: output.entry.stem)
            if not all(stack.enter_context(output.entry.claim(what, wait=wait)) for output in ordered):
                return {"status": "busy"}
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
            stack.enter_context(trusting(job.trust))
            left = [output for output in job.outputs if output.entry.done() is None]
            if left:
                _score(job, left, meter, progress)
            results = [_finish(job, output, meter) for output in job.outputs]
        if not all(results):
            return {"status": "partial"}
        return {"status": "done", "results": results, "seconds": round(time.monotonic() - begun, 2)}
    except Exception as error:  # whatever befalls one scene is not the end of the others
        if job.debug:
            raise
        pages = [output.entry.done() for output in job.outputs]
        if all(page is not None for page in pages):  # another process has finished the maps, and put the parts away
            results = [o.told(job.source, p or {}) for o, p in zip(job.outputs, pages, strict=True)]
            return {"status": "done", "results": results}
        return {"status": "failed"} | failure(job.source, error)
    finally:
        meter.lap(WRITE)


def failure(source: str, error: BaseException) -> dict[str, Any]:
    """What a scene failed of, as a person reads it, and its exit code."""
    line, code = explained(error)
    return {"error": line if isinstance(error, EarthtuneError) else shown(f"{source}: {line}"), "exit_code": code}


def _score(job: Job, outputs: Sequence[Output], meter: Meter, progress: Progress | None) -> None:
    """Predict the rows whose parts are not there yet."""
    for output in outputs:
        for kind in output.layouts:
            output.parts(kind).mkdir(parents=True, exist_ok=True)
            drop_damaged(output.parts(kind), output.layouts[kind])
    gaps = _gaps(job, outputs)
    if not gaps:
        return
    runtime = loaded(tuple((output.run, output.identity) for output in outputs), job.engine)
    for output in outputs:
        _same_engine(output, runtime.name)
    specs, watched = [output.bundle.spec for output in outputs], [o for o in outputs if "unfamiliar" in o.layouts]
    runtime = watching(runtime, specs[0], [familiar for o in watched if (familiar := load_familiar(o.run, o.bundle))])
    make = rows_on_files if job.grid == "scene" and job.scene.own else map_rows
    meter.lap(START)
    for gap in gaps:
        writers = [_Writer(output, kind, gap) for output in outputs for kind in output.layouts]
        how: dict[str, Any] = {"overlap": job.overlap, "extra": len(watched), "rows": gap, "area": job.area}
        how["beside"] = job.beside and job.beside.of
        how |= {"meter": meter, "progress": progress}
        counts = [*(spec.answer.channels for spec in specs), *[1] * len(watched)]
        for first, block, valid in make(job.scene, specs, runtime, **how):
            shares = np.split(block, np.cumsum(counts)[:-1])
            answers = {output.run: share for output, share in zip(outputs, shares, strict=False)}
            strange = {output.run: share for output, share in zip(watched, shares[len(outputs) :], strict=True)}
            for writer in writers:
                writer.add(first, (strange if writer.kind == "unfamiliar" else answers)[writer.output.run], valid)
            meter.tick(TILES)
        for writer in writers:
            writer.regroup.finish()
    meter.lap(TILES)


def _same_engine(output: Output, name: str) -> None:
    """Refuse to add rows to those that another engine has made, for `auto` is not the same on every machine."""
    mark = output.entry.parts / "engine"
    try:
        with mark.open("x", encoding="utf-8") as file:
            file.write(name)
    except FileExistsError:
        before = mark.read_text(encoding="utf-8")
        if before not in ("", name):  # empty: another process is about to write it
            raise InputError(
                f"{output.path('map')}: was begun with {before}, and this machine takes {name}; end it on one like the "
                "first, or give --runtime and --precision to begin anew"
            ) from None


class _Writer:
    """Takes predictions as they come and keeps the rows of one kind of map as parts."""

    def __init__(self, output: Output, kind: str, rows: tuple[int, int]) -> None:
        self.output, self.kind, self.layout = output, kind, output.layouts[kind]
        self.regroup = Regroup(self.layout, what=str(output.path(kind)), within=rows)

    def add(self, first: int, block: Array, valid: Mask) -> None:
        drawn = draw(self.kind, self.output.bundle, block, valid)
        for row, part in self.regroup.add(first, drawn):
            write_part(self.output.parts(self.kind), row, part, self.layout, self.output.path(self.kind))


def _gaps(job: Job, outputs: Sequence[Output]) -> list[tuple[int, int]]:
    """Runs of rows of which some map lacks a part; they begin where a part of every map begins."""
    wanted: set[int] = set()
    for output in outputs:
        for kind, layout in output.layouts.items():
            for first, end in missing(output.parts(kind), layout, job.rows):
                wanted.update(range(first // BLOCK, -(-end // BLOCK)))
    return runs((number * BLOCK, min((number + 1) * BLOCK, job.rows[1])) for number in sorted(wanted))


@functools.lru_cache(maxsize=4)
def loaded(runs: tuple[tuple[Path, str], ...], engine: Engine) -> Runtime:
    """The runtime of some runs, each with its bundle's identity, kept for the next scene."""
    folders, asked = [run for run, _ in runs], {"runtime": engine.runtime, "precision": engine.precision}
    made = load_runtimes(folders, **asked, weights=engine.weights, threads=engine.threads, keep=True)
    return made if engine.batch is None else dataclasses.replace(made, batch=engine.batch)


def _finish(job: Job, output: Output, meter: Meter) -> dict[str, Any] | None:
    """Join the maps where all of their parts are there, unless another process has done it; tell what is there."""
    with ExitStack() as stack:
        if not job.whole:
            stack.enter_context(output.entry.claim(wait=True))
        done = output.entry.done()
        if done is not None:
            return output.told(job.source, done)
        height = next(iter(output.layouts.values())).shape[1]
        if any(missing(output.parts(kind), layout, (0, height)) for kind, layout in output.layouts.items()):
            return None
        told = _put_in_place(job, output)
        map_of = output.layouts["map"]
        _, height, width = map_of.shape
        side = pixel_side(map_of.geobox) or 0.0
        meter.made(km2=told["valid"] * height * width * (side / 1000) ** 2)
        return told


def _put_in_place(job: Job, output: Output) -> dict[str, Any]:
    """Write the maps under their names, and what lies beside them."""
    changed = next((path for path, known in job.prints if not path.is_file() or fingerprint(path) != known), None)
    if changed:
        raise RunError(f"{changed}: has changed while it was scored; run the same command to score it as it is now")
    there = next((path for path in output.files if path.exists()), None)
    if there and not (job.replace or output.begun.exists()):
        raise InputError(
            f"{there}: appeared while the scene was scored; --overwrite replaces it, --out names another folder"
        )
    beside = (path.with_name(f"{path.name}.aux.xml") for path in output.files)  # names and statistics, by GDAL
    before = {path: stamp(path) for path in (*output.files, *beside, output.begun)}
    if not output.begun.exists():
        output.begun.touch()
    try:
        return _written(job, output)
    except Exception:  # whatever it was: nothing of it is left, and what was there before is
        for path, known in before.items():
            if stamp(path) != known:
                path.unlink(missing_ok=True)
        raise


def _written(job: Job, output: Output) -> dict[str, Any]:
    """Write the maps, the picture, the STAC item and the ledger's page."""
    from pipelines.outputs.item import stac_item, write_stac_item
    from pipelines.outputs.picture import write_quicklook

    entry, filled = output.entry, 0
    for kind, layout in output.layouts.items():
        if kind == "map" and job.least_area:
            filled = write_rows(output.path(kind), _sieved(output, job), layout, overwrite=True)
        else:
            count = join(output.parts(kind), output.path(kind), layout)
            filled = count if kind == "map" else filled
    assets, beside = {kind: output.path(kind) for kind in output.layouts}, output.beside
    others = {"thumbnail": beside["png"], "model": output.run / "bundle.json"}
    try:
        # What is cut off must not lie among the maps.
        drafts = {name: entry.parts / f"beside.{name}" for name in beside}
        banner = _banner(output)
        classes = output.bundle.spec.answer.classes
        write_quicklook(drafts["png"], assets["map"], classes=classes, scene=job.scene, banner=banner)
        os.replace(drafts["png"], beside["png"])
        ground = job.scene.own.geobox if job.grid == "scene" and job.scene.own else None
        item = stac_item(output.bundle, job.scene, assets | others, name=entry.stem, geobox=ground, remark=banner)
        write_stac_item(drafts["json"], item)
        os.replace(drafts["json"], beside["json"])
        _, height, width = output.layouts["map"].shape
        notes = [*job.scene.remarks, *(job.beside.notes if job.beside else ()), *([banner] if banner else [])]
        page = {"valid": round(filled / (height * width), 6), "notes": [shown(note) for note in notes]}
        page |= {"missing_frames": [*job.scene.missing]} if job.scene.missing else {}
        entry.finish(page, output.files)
    except OSError as error:
        raise RunError(f"{beside['json']}: cannot be written ({error}); make space, run the same command") from error
    return output.told(job.source, page)


def _banner(output: Output) -> str:
    """That a scene, where that was looked for, or its weather is unlike all that was trained on."""
    told = [output.weather]
    if "unfamiliar" in output.layouts:
        share = share_outside(output.path("unfamiliar"))
        told.append(unlike(share, output.bundle) if share > limit(output.bundle) else "")
    return "; ".join(filter(None, told))


def _sieved(output: Output, job: Job) -> list[tuple[int, Any]]:
    """The rows of a class map whose small patches went to their neighbours; holds the map."""
    layout = output.layouts["map"]
    codes = np.concatenate([rows[0] for _, rows in read_parts(output.parts("map"))])
    least = least_pixels(layout.geobox, job.least_area, name=job.source)
    return [(0, sieve(codes, valid=has_data(codes, layout.nodata), least_pixels=least)[None])]
