"""A scene's maps as work for any process: score rows into parts; where all parts are there, join them."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from models.bundle import Bundle
from models.errors import UNEXPECTED, EarthtuneError, RunError
from pipelines.geotiff import BLOCK, Layout, Regroup, join, missing, read_parts, write_part, write_rows
from pipelines.ledger import Entry
from pipelines.maps import Progress, draw, map_rows
from pipelines.mosaic import Array, Mask
from pipelines.scene import Scene

if TYPE_CHECKING:
    from models.runtime import Runtime

CACHE = 256 << 20  # bytes of blocks of the scene that GDAL keeps; by default it takes 5 % of the machine's memory


@dataclass(frozen=True)
class Engine:
    """How models are run.

    Attributes:
        runtime: auto, openvino or torch.
        precision: auto, f32 or bf16.
        weights: base weights, for torch and a bundle that stores its head only.
        batch: tiles at once on a GPU; the runtime's own number when None.
        threads: threads on the CPU; all when None.
    """

    runtime: str = "auto"
    precision: str = "auto"
    weights: Path | None = None
    batch: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Output:
    """The maps of one scene by one bundle.

    Attributes:
        run: the run folder.
        bundle: what it holds.
        entry: their page in the ledger.
        layouts: each kind of map and how it is laid out.
    """

    run: Path
    bundle: Bundle
    entry: Entry
    layouts: Mapping[str, Layout]

    def path(self, kind: str) -> Path:
        """The file of a kind of map."""
        return self.entry.out / f"{self.entry.stem}_{kind}.tif"

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
        rows: first row and end, in rows of the map; the first is that of a part.
        whole: whether these are all the rows.
    """

    source: str
    scene: Scene
    outputs: tuple[Output, ...]
    overlap: int
    engine: Engine
    least_area: float
    rows: tuple[int, int]
    whole: bool = True


def carry_out(job: Job, *, wait: bool, progress: Progress | None = None) -> dict[str, Any]:
    """Do a job, or what is left of it. Errors are told, not raised: another scene may do better.

    Args:
        job: the job.
        wait: wait while another process is at work on it.
        progress: wraps the tiles to show progress.

    Returns:
        {"status": "done", "results": one per output}; or status "busy" where another process is at work on it,
        "partial" where other rows are not there yet, or "failed" with "error" and "exit_code".
    """
    begun = time.monotonic()
    try:
        with ExitStack() as stack:
            what = "" if job.whole else f"{job.rows[0]}-{job.rows[1]}"
            if not all(stack.enter_context(o.entry.claim(what, wait=wait)) for o in job.outputs):
                return {"status": "busy"}
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
            left = [output for output in job.outputs if output.entry.done() is None]
            if left:
                _score(job, left, progress)
            results = [_finish(job, output) for output in job.outputs]
        if not all(results):
            return {"status": "partial"}
        return {"status": "done", "results": results, "seconds": round(time.monotonic() - begun, 2)}
    except EarthtuneError as error:
        return {"status": "failed", "error": str(error), "exit_code": error.exit_code}
    except OSError as error:
        advice = "make space or give another folder, then run the same command"
        return {"status": "failed", "error": f"{job.source}: {error}; {advice}", "exit_code": 1}
    except UNEXPECTED as error:
        if os.environ.get("EARTHTUNE_DEBUG"):
            raise
        line = " ".join(str(error).split()) or "no message"
        kind = type(error).__name__
        return {
            "status": "failed",
            "error": f"{job.source}: unexpected {kind}: {line}; please report it",
            "exit_code": 1,
        }


def _score(job: Job, outputs: Sequence[Output], progress: Progress | None) -> None:
    """Predict the rows whose parts are not there yet."""
    for output in outputs:
        for kind in output.layouts:
            output.parts(kind).mkdir(parents=True, exist_ok=True)
    gaps = _gaps(job, outputs)
    if not gaps:
        return
    runtime = loaded(tuple(output.run for output in outputs), job.engine)
    specs = [output.bundle.spec for output in outputs]
    for gap in gaps:
        writers = [_Writer(output, kind, gap) for output in outputs for kind in output.layouts]
        rows = map_rows(job.scene, specs, runtime, overlap=job.overlap, rows=gap, progress=progress)
        for first, block, valid in rows:
            shares = np.split(block, np.cumsum([spec.outputs for spec in specs])[:-1])
            answers = {output.run: share for output, share in zip(outputs, shares, strict=True)}
            for writer in writers:
                writer.add(first, answers[writer.output.run], valid)
        for writer in writers:
            writer.regroup.finish()


class _Writer:
    """Takes predictions as they come and keeps the rows of one kind of map as parts."""

    def __init__(self, output: Output, kind: str, rows: tuple[int, int]) -> None:
        self.output, self.kind, self.layout = output, kind, output.layouts[kind]
        self.regroup = Regroup(self.layout, what=str(output.path(kind)), within=rows)

    def add(self, first: int, block: Array, valid: Mask) -> None:
        drawn = draw(self.kind, self.output.bundle.spec, block, valid)
        for row, part in self.regroup.add(first, drawn):
            write_part(self.output.parts(self.kind), row, part, self.layout, self.output.path(self.kind))


def _gaps(job: Job, outputs: Sequence[Output]) -> list[tuple[int, int]]:
    """Runs of rows of which some map lacks a part; they begin where a part of every map begins."""
    wanted: set[int] = set()
    for output in outputs:
        for kind, layout in output.layouts.items():
            for first, end in missing(output.parts(kind), layout, job.rows):
                wanted.update(range(first // BLOCK, -(-end // BLOCK)))
    gaps: list[tuple[int, int]] = []
    for number in sorted(wanted):
        first, end = number * BLOCK, min((number + 1) * BLOCK, job.rows[1])
        if gaps and gaps[-1][1] == first:
            gaps[-1] = gaps[-1][0], end
        else:
            gaps.append((first, end))
    return gaps


@functools.lru_cache(maxsize=4)
def loaded(runs: tuple[Path, ...], engine: Engine) -> Runtime:
    """The runtime of some runs, kept for the next scene."""
    import dataclasses

    from models.runtime import load_runtimes

    made = load_runtimes(
        runs, runtime=engine.runtime, precision=engine.precision, weights=engine.weights, threads=engine.threads
    )
    return made if engine.batch is None else dataclasses.replace(made, batch=engine.batch)


def _finish(job: Job, output: Output) -> dict[str, Any] | None:
    """Join the maps where all of their parts are there, unless another process has done it; tell what is there."""
    with ExitStack() as stack:
        if not job.whole:
            stack.enter_context(output.entry.claim(wait=True))
        done = output.entry.done()
        if done is not None:
            return done
        height = next(iter(output.layouts.values())).shape[1]
        if any(missing(output.parts(kind), layout, (0, height)) for kind, layout in output.layouts.items()):
            return None
        return _publish(job, output)


def _publish(job: Job, output: Output) -> dict[str, Any]:
    """Write the maps under their names, and what lies beside them."""
    from pipelines.quicklook import write_quicklook
    from pipelines.stac import stac_item, write_stac_item

    entry, filled = output.entry, 0
    for kind, layout in output.layouts.items():
        if kind == "map" and job.least_area:
            rows = _sieved(output, job)
            filled = write_rows(output.path(kind), rows, layout, overwrite=True)
        else:
            count = join(output.parts(kind), output.path(kind), layout)
            filled = count if kind == "map" else filled
    assets = {kind: output.path(kind) for kind in output.layouts}
    picture, item = entry.out / f"{entry.stem}.png", entry.out / f"{entry.stem}.json"
    beside = {"thumbnail": picture, "model": output.run / "bundle.json"}
    try:
        write_quicklook(picture, assets["map"], spec=output.bundle.spec)
        write_stac_item(item, stac_item(output.bundle, job.scene, assets | beside, name=entry.stem))
        _, height, width = output.layouts["map"].shape
        result = {
            "scene": job.source,
            "run": str(output.run),
            "map": str(assets["map"]),
            "maps": {kind: str(path) for kind, path in assets.items()},
            "item": str(item),
            "picture": str(picture),
            "valid": round(filled / (height * width), 6),
            "notes": list(job.scene.notes),
        }
        entry.finish(result, [*assets.values(), picture, item])
    except OSError as error:
        raise RunError(f"{item}: cannot be written ({error}); make space and run the same command") from error
    return result


def _sieved(output: Output, job: Job) -> list[tuple[int, Any]]:
    """The rows of a class map whose small patches went to their neighbours; holds the map."""
    from pipelines.areas import least_pixels
    from pipelines.geotiff import has_data
    from pipelines.sieve import sieve

    layout = output.layouts["map"]
    codes = np.concatenate([rows[0] for _, rows in read_parts(output.parts("map"))])
    valid = has_data(codes, layout.nodata)
    return [
        (0, sieve(codes, valid=valid, least_pixels=least_pixels(layout.geobox, job.least_area, name=job.source))[None])
    ]
