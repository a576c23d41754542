"""Score new scenes with runs: windows in, Cloud Optimized GeoTIFFs out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import WEATHER, Bundle, read_bundle, task_of
from models.errors import EarthtuneError, InputError
from models.spec import Spec
from pipelines.runs.folder import refuse_unused

if TYPE_CHECKING:
    from models.runtime.engines import Runtime
    from pipelines.scenes.scene import Reading, Scene
    from pipelines.scoring.jobs import Engine, Job, Output
    from pipelines.scoring.rows import Progress

_MADE_LATER = (".aux.xml", ".ovr")  # what viewers put beside an image; it stays the same image
# Options that runs over weather do not take, and their values that ask for nothing; those runs always use torch.
_OF_SCENES: Mapping[str, Sequence[Any]] = {
    **{name: (None, []) for name in ("bundle", "polygons", "area_table", "bands", "dates", "scale", "offset")},
    **{name: (None,) for name in ("mask_clouds", "overlap", "batch", "shard", "ray")},
    **{"probabilities": (False,), "confidence": (False,), "min_area": (0,), "workers": (1,)},
    **{"runtime": ("auto", "torch"), "precision": ("auto",)},
}
BAND = 2048  # rows; a scene is split among workers into bands no lower than this, as each begins with tiles of its own


def score(
    run: Path,
    scenes: Sequence[str],
    *,
    out: Path,
    bundle: list[Path] | None = None,
    probabilities: bool = False,
    confidence: bool = False,
    min_area: float = 0.0,
    polygons: Path | None = None,
    area_table: Path | None = None,
    bands: list[str] | None = None,
    dates: list[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    mask_clouds: bool | None = None,
    overlap: int | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    weights: Path | None = None,
    elevation: Path | None = None,
    workers: int = 1,
    shard: str | None = None,
    ray: str | None = None,
    overwrite: bool = False,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Score scenes with a run; write one map per scene, <scene>_map.tif.

    A map of classes holds the class codes, with colours and names; a map of values holds float32 with its unit; scene
    classes come as one pixel per tile. Beside each map lie a STAC item and a picture. Every scene is opened and checked
    before the first tile is run; a scene that fails does not stop the others. The same command again skips what is
    done and goes on where it was stopped.

    Args:
        run: the run folder.
        scenes: rasters, folders of band files, STAC items, patterns such as 'b/*.tif', or folders of many scenes; the
            frames of a model of several dates are joined by commas: a.tif,b.tif.
        out: folder for the maps.
        bundle: another run to score with in the same pass, may be given again; a frozen base that runs share runs once.
        probabilities: also write <scene>_probabilities.tif, a band for each class.
        confidence: also write <scene>_confidence.tif, the highest probability.
        min_area: hectares; smaller patches of a class map are merged into their largest neighbour.
        polygons: GeoPackage to write, with class, area in hectares and mean confidence of every patch.
        area_table: CSV to write, with the pixels and hectares of every class.
        bands: names of the bands in the order of the files, where the files do not say.
        dates: day of each frame (YYYY-MM-DD), where the files do not say.
        scale: reflectance = raw * scale + offset, where the files do not say.
        offset: see scale.
        mask_clouds: leave clouded pixels out, by Fmask, SCL or QA_PIXEL; as in training when not given.
        overlap: pixels that neighbouring tiles share; a quarter of a tile when not given.
        runtime: auto, openvino or torch.
        precision: auto, f32, bf16 or i8 (bytes in large layers); auto takes the fastest that is known to map alike.
        batch: tiles predicted at once on a GPU.
        weights: base weights, for --runtime torch and a bundle that stores its head only.
        elevation: elevation of another place, for a downscaling run; that of the training when not given.
        workers: processes on this machine, or actors with --ray.
        shard: i/n, this call's share where n calls on any machines share a folder: 1/4, 2/4, 3/4, 4/4.
        ray: address of a Ray cluster, auto, or local to start one here.
        overwrite: replace maps that exist.
        progress: wraps the tiles to show progress.
        say: takes a line for the person who waits.

    Returns:
        For each scene and run: scene, run, status (done, kept from before, partial where other shards are at work on
        it, failed), and map, maps, item, picture, valid (share of valid pixels) and notes, or error and exit_code.

    Raises:
        InputError: what is no run, or arguments that no scene could be scored with.
    """
    if _over_weather(run, dict(locals())):
        from pipelines.scoring.fields import score_weather

        files = {"weights": weights, "elevation": elevation}
        return score_weather(run, scenes, out=out, **files, overwrite=overwrite, progress=progress, say=say)
    from pipelines.scenes.find import find_scenes
    from pipelines.scenes.scene import Reading
    from pipelines.scoring.jobs import Engine
    from pipelines.scoring.workers import launch, shard_of, threads_each

    _check(run, out, workers=workers, batch=batch, min_area=min_area)
    runs = {path: read_bundle(path) for path in (run, *(bundle or []))}
    passes = _passes(runs, overlap)
    _check_runs(runs, classes="min_area" if min_area else str(polygons or area_table or ""))
    kinds = ["map", *["probabilities"] * probabilities, *["confidence"] * (confidence or polygons is not None)]
    part, parts = shard_of(shard) if shard else (0, 1)
    sources = find_scenes(scenes)
    mine = sources[part::parts] if len(sources) >= parts else sources
    reading = Reading(bands, dates, scale, offset, mask_clouds)
    engine = Engine(runtime, precision, weights, batch, threads_each(workers))
    tables = {".gpkg": polygons, ".csv": area_table}
    _check_tables(tables, out, shard=shard, overwrite=overwrite)
    plan = _Plan(out, kinds, min_area, reading, engine, overwrite, len(runs) > 1, any((min_area, *tables.values())))
    jobs, results = _surveyed(mine, runs, passes, plan, say)
    pieces = -(-workers * parts // len(sources)) if len(sources) < max(workers, parts) else 1
    jobs = [band for job in jobs for band in _bands(job, pieces)]
    jobs = jobs[part::parts] if len(sources) < parts else jobs
    ended = dict(_told(launch(jobs, workers=workers, ray=ray, progress=progress), jobs, say)) if jobs else {}
    results = _in_order([*results, *_gathered(jobs, ended)], mine, runs)
    return results + _tabulated(results, run, runs[run].spec, tables, out)


def _over_weather(run: Path, given: Mapping[str, Any]) -> bool:
    """Whether a run is over weather; options that its kind does not take are refused."""
    if task_of(run) in WEATHER:
        refuse_unused(given, _OF_SCENES, "for scenes; a run over weather writes its maps and a series without")
        return True
    refuse_unused(given, {"elevation": (None,)}, "for runs that downscale weather; this one maps scenes")
    return False


def _in_order(results: list[dict[str, Any]], sources: Sequence[str], runs: Iterable[Path]) -> list[dict[str, Any]]:
    """The results by scene, and of each by run."""
    order = {(source, str(path)): i for i, (source, path) in enumerate(itertools.product(sources, runs))}
    return sorted(results, key=lambda result: order[result["scene"], result["run"]])


def _check(run: Path, out: Path, *, workers: int, batch: int | None, min_area: float) -> None:
    """Refuse arguments that no scene could be scored with."""
    if workers < 1 or (batch is not None and batch < 1):
        raise InputError(f"workers {workers}, batch {batch}: wanted at least 1")
    if not 0 <= min_area < 1e9:
        raise InputError(f"min_area {min_area:g}: wanted hectares, 0 or more")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder for the maps")


def _check_runs(runs: Mapping[Path, Bundle], *, classes: str) -> None:
    """Refuse runs whose maps could not be told apart, or not serve what wants class maps of one run."""
    names = [path.resolve().name for path in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{twice}: two runs bear this name, which tells their maps apart; rename one")
    spec = next(iter(runs.values())).spec
    if classes and (spec.task == "regression" or (len(runs) > 1 and classes != "min_area")):
        raise InputError(f"{classes}: polygons, area tables and smallest areas are for the class maps of one run")


def _check_tables(tables: Mapping[str, Path | None], out: Path, *, shard: str | None, overwrite: bool) -> None:
    """Refuse files that could not be written at the end; those that an earlier call wrote are written anew."""
    from models.files import check_target
    from pipelines.records.ledger import is_ours

    for suffix, file in tables.items():
        if file and shard:
            raise InputError(
                f"{file}: a shard sees some scenes only; when all have ended, the same call without --shard writes it "
                "(for polygons give the shards --confidence)"
            )
        if file:
            if file.parent.resolve() == out.resolve():
                out.mkdir(parents=True, exist_ok=True)
            check_target(file, suffix, overwrite=overwrite or is_ours(out, file))


def _tabulated(
    results: Sequence[Mapping[str, Any]], run: Path, spec: Spec, tables: Mapping[str, Path | None], out: Path
) -> list[dict[str, Any]]:
    """Write the polygons and the areas of all maps that are there; a result where that fails."""
    from pipelines.grids.areas import area_table
    from pipelines.outputs.polygons import write_polygons
    from pipelines.records.ledger import remember

    results = [result for result in results if result["status"] in ("done", "kept")]
    maps, (polygons, table) = [Path(result["map"]) for result in results], (tables[".gpkg"], tables[".csv"])
    try:
        if maps and table:
            area_table(maps, spec.classes, table, overwrite=True)
            remember(out, table)
        if maps and polygons:
            pairs = [(path, Path(result["maps"]["confidence"])) for path, result in zip(maps, results, strict=True)]
            write_polygons(pairs, spec.classes, polygons, overwrite=True)
            remember(out, polygons)
    except EarthtuneError as error:  # the maps are there all the same
        told = {"error": str(error), "exit_code": error.exit_code}
        return _failed(", ".join(str(file) for file in tables.values() if file), [run], told)
    return []


@dataclass(frozen=True)
class _Plan:
    """What is the same for all scenes of a call."""

    out: Path
    kinds: Sequence[str]
    least_area: float
    reading: Reading
    engine: Engine
    overwrite: bool
    named: bool  # whether the run's name is part of the maps' names
    on_ground: bool  # whether areas are asked for


def _passes(runs: Mapping[Path, Bundle], overlap: int | None) -> list[tuple[tuple[Path, ...], int]]:
    """Runs that can be predicted from the same tiles, together, with the overlap of those tiles.

    Raises:
        InputError: an overlap that no tiles can have.
    """
    groups: dict[Any, list[Path]] = {}
    for path, bundle in runs.items():
        spec = bundle.spec
        read = [bundle.data.get(key) for key in ("bands", "scale", "offset", "mask_clouds")]
        inputs = (spec.bands, spec.frames, spec.tile, spec.unit, spec.uses_time, spec.uses_location)
        groups.setdefault((inputs, spec.task == "classification", repr(read)), []).append(path)
    passes = []
    for paths in groups.values():
        tile = runs[paths[0]].spec.tile
        shared = tile // 4 if overlap is None else overlap
        if not 0 <= shared < tile:
            raise InputError(f"overlap {shared}: wanted 0 to {tile - 1}, below the tile of {tile} pixels")
        passes.append((tuple(paths), shared))
    return passes


def _surveyed(
    sources: Sequence[str],
    runs: Mapping[Path, Bundle],
    passes: Sequence[tuple[tuple[Path, ...], int]],
    plan: _Plan,
    say: Callable[[str], None],
) -> tuple[list[Job], list[dict[str, Any]]]:
    """Open and check all scenes; the jobs, and results of those that are done or cannot be."""
    from pipelines.scoring.jobs import FAILURES, explained

    jobs: list[Job] = []
    results: list[dict[str, Any]] = []
    for source in sources:
        for folders, overlap in passes:
            try:
                job, kept = _survey(source, {f: runs[f] for f in folders}, plan, overlap, jobs, say)
            except FAILURES as error:
                results += _failed(source, folders, explained(source, error))
                continue
            results += kept
            jobs += [job] if job else []
    results += _eaten(jobs)
    return jobs, results


def _survey(
    source: str,
    runs: Mapping[Path, Bundle],
    plan: _Plan,
    overlap: int,
    jobs: Sequence[Job],
    say: Callable[[str], None],
) -> tuple[Job | None, list[dict[str, Any]]]:
    """Open and check a scene.

    Returns:
        The job, None when nothing is left to do; and results of maps that are done.

    Raises:
        InputError: a scene that a run cannot eat, a map that exists, or one that would replace another or an input.
    """
    from pipelines.outputs.layout import check_target
    from pipelines.records.ledger import fingerprint
    from pipelines.scoring.jobs import Job

    first = next(iter(runs.values()))
    scene = open_for(first, source, plan.reading)
    if plan.on_ground and scene.geobox.crs is None:
        raise InputError(f"{source}: has no coordinate system, so its areas are not known; give it one")
    outputs, kept = [], []
    for run, bundle in runs.items():
        output = _output(run, bundle, scene, plan, overlap)
        done = None if plan.overwrite else output.entry.done()
        if done is not None:
            kept.append(output.told(source, done) | {"status": "kept"})
            continue
        ours = output.begun.exists()  # a call that was cut off after a map had got its name
        why = "exists already, made with other options, model or scene" if output.entry.differs() else "exists already"
        for path in output.files:
            if path.exists() and not (plan.overwrite or ours):
                raise InputError(
                    f"{path}: {why}; --overwrite makes all maps of this scene anew, --out names another folder"
                )
        for kind, layout in output.layouts.items():
            check_target(output.path(kind), layout, overwrite=plan.overwrite or ours)
        outputs.append(output)
    for note in warnings_about(scene, first.spec) if outputs else ():
        say(f"{scene.name}: {note}")
    taken = {output.entry.stem: job.source for job in jobs for output in job.outputs}
    for output in outputs:
        stem = output.entry.stem
        if taken.get(stem, source) != source:
            raise InputError(
                f"{source}: would be written as {stem}_map.tif, as {taken[stem]} is; score them into two folders"
            )
    if not outputs:
        return None, kept
    if plan.overwrite:
        for output in outputs:
            output.entry.forget()
    height = next(iter(outputs[0].layouts.values())).shape[1]
    job = Job(source, scene, tuple(outputs), overlap, plan.engine, plan.least_area, (0, height), replace=plan.overwrite)
    prints = tuple((path, fingerprint(path)) for path in sorted(scene.files) if not str(path).endswith(_MADE_LATER))
    return dataclasses.replace(job, prints=prints), kept


def _eaten(jobs: list[Job]) -> list[dict[str, Any]]:
    """Take the jobs out whose maps would replace a file that is to be read; results of these."""
    inputs = frozenset().union(*(job.scene.files for job in jobs))
    results = []
    for job in list(jobs):
        paths = [path for output in job.outputs for path in output.files]
        eaten = next((path for path in paths if path.resolve() in inputs), None)
        if eaten:
            error = f"{eaten}: the map would replace a file that is to be read; --out names another folder"
            told = {"error": error, "exit_code": InputError.exit_code}
            results += _failed(job.source, [output.run for output in job.outputs], told)
            jobs.remove(job)
    return results


def _output(run: Path, bundle: Bundle, scene: Scene, plan: _Plan, overlap: int) -> Output:
    """The maps of a scene by a run, and their page in the ledger."""
    from importlib.metadata import version

    from models.bundle import bundle_id
    from pipelines.records.ledger import Entry, digest, ends, fingerprint
    from pipelines.scoring.jobs import Output
    from pipelines.scoring.rows import layouts

    identity = bundle_id(run)
    layers = [layer for frame in scene.stack for layer in (*frame.layers, *([frame.clouds] if frame.clouds else []))]
    remote = sorted({layer.path for layer in layers if not Path(layer.path).is_file()})
    local = [path for path in sorted(scene.files) if not str(path).endswith(_MADE_LATER)]
    content = {
        "software": version("earthtune"),
        "bundle": identity,
        "source": [*map(fingerprint, local), *remote],
        "model": ends(run / "model.onnx"),
        "reading": dataclasses.asdict(plan.reading),
        "engine": [plan.engine.runtime, plan.engine.precision, plan.engine.batch],
        "maps": [list(plan.kinds), plan.least_area, overlap],
    }
    stem = f"{scene.name}_{run.resolve().name}" if plan.named else scene.name
    made = layouts(bundle, scene, plan.kinds, _tags(bundle, identity, scene))
    return Output(run, bundle, identity, Entry(plan.out, stem, digest(content)), made)


def _tags(bundle: Bundle, identity: str, scene: Scene) -> dict[str, str]:
    """GDAL tags that say what made the map, and from what."""
    from importlib.metadata import version

    tags = {
        "TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}",
        "EARTHTUNE_BUNDLE": identity,
        "EARTHTUNE_RECIPE": str(bundle.training.get("recipe", "")),
        "EARTHTUNE_RECIPE_SHA256": str(bundle.training.get("sha256", "")),
        "EARTHTUNE_BACKBONE": bundle.backbone,
        "EARTHTUNE_BASE": str(bundle.base),
        "EARTHTUNE_INPUT": ",".join(Path(source).name for source in scene.sources),
    }
    dates = [date.isoformat() for date in scene.dates if date]
    return tags | ({"ACQUISITION_DATE": ",".join(dates)} if dates else {})


def _bands(job: Job, pieces: int) -> list[Job]:
    """A job as several of about as many rows each, where there are workers for them."""
    from pipelines.outputs.layout import BLOCK

    height = job.rows[1]
    rows = max(-(-height // pieces // BLOCK) * BLOCK, BAND)
    if rows >= height:
        return [job]
    return [
        dataclasses.replace(job, rows=(first, min(first + rows, height)), whole=False)
        for first in range(0, height, rows)
    ]


def _told(
    outcomes: Iterable[tuple[int, dict[str, Any]]], jobs: Sequence[Job], say: Callable[[str], None]
) -> Iterable[tuple[int, dict[str, Any]]]:
    """The outcomes, each told as it comes where there are several."""
    for count, (i, outcome) in enumerate(outcomes, 1):
        if len(jobs) > 1:
            rows = "" if jobs[i].whole else f", rows {jobs[i].rows[0]} to {jobs[i].rows[1]}"
            say(f"{count} of {len(jobs)}: {jobs[i].source}{rows}: {outcome.get('error', outcome['status'])}")
        yield i, outcome


def _gathered(jobs: Sequence[Job], ended: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One result for each scene and run, from what became of all their jobs."""
    results: dict[tuple[str, str], dict[str, Any]] = {}
    rank = {"partial": 0, "done": 1, "failed": 2}
    for i, job in enumerate(jobs):
        outcome = ended[i]
        for n, output in enumerate(job.outputs):
            about = {"scene": job.source, "run": str(output.run), "status": outcome["status"]}
            if outcome["status"] == "done":
                about |= dict(outcome["results"][n]) | {"seconds": outcome["seconds"]} | about
            elif outcome["status"] == "failed":
                about |= {"error": outcome["error"], "exit_code": outcome["exit_code"]}
            before = results.get((job.source, str(output.run)))
            if before is None or rank[about["status"]] > rank[before["status"]]:
                results[job.source, str(output.run)] = about
    return list(results.values())


def _failed(scene: str, runs: Iterable[Path], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Results of a scene of which nothing could be made."""
    return [{"scene": scene, "run": str(run), "status": "failed", **told} for run in runs]


def open_for(bundle: Bundle, source: str, reading: Reading | None = None) -> Scene:
    """Open a scene for a bundle: as told, else as the files say, else as the training files were read.

    Raises:
        InputError: the scene lacks bands, frames, dates or a place that the model wants.
    """
    from pipelines.scenes.products import Assumed
    from pipelines.scenes.scene import Reading, open_scene

    spec, told = bundle.spec, reading or Reading()
    files = source.split(",") if spec.frames > 1 else [source]
    scene = open_scene(
        files if len(files) > 1 else source,
        spec.bands,
        file_bands=told.bands,
        scale=told.scale,
        offset=told.offset,
        dates=told.dates,
        frames=max(spec.frames // len(files), 1),
        mask_clouds=bool(bundle.data.get("mask_clouds")) if told.mask_clouds is None else told.mask_clouds,
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


def warnings_about(scene: Scene, spec: Spec) -> list[str]:
    """What a person should know before a scene is scored: of its files, its units and the size of its pixels."""
    from pipelines.grids.areas import pixel_notes

    return [*scene.notes, *unit_notes(scene, spec), *pixel_notes(scene.geobox, spec.pixel)]


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


def draw_map(
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
    from pipelines.scoring.rows import draw, layouts, map_rows

    layout = layouts(bundle, scene, ["map"], {})["map"]
    rows = map_rows(scene, [bundle.spec], runtime, overlap=overlap, progress=progress)
    write_rows(path, ((row, draw("map", bundle.spec, y, valid)) for row, y, valid in rows), layout, overwrite=overwrite)
