"""What a scoring does: which scenes by which runs, each checked when its turn comes; the jobs, the results."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from models.bundle import Bundle, bundle_id, read_bundle
from models.errors import InputError
from models.spec import WEATHER
from models.types import Progress
from pipelines.grids.areas import ground_system
from pipelines.grids.positions import phase
from pipelines.grids.rasters import trusting
from pipelines.mosaics.ground import Area, Ground
from pipelines.outputs.layout import BLOCK, check_memory, check_target
from pipelines.records.attempts import PAGE
from pipelines.records.energy import READ, START, TILES, Account, Meter
from pipelines.records.ledger import Entry, digest, fingerprint
from pipelines.samples.unfamiliar import strange, strange_weather, unfamiliar_weather
from pipelines.scenes.find import find_scenes
from pipelines.scenes.periods import find_places
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import Scene
from pipelines.scoring.beside import Beside, beside, check_static, opened
from pipelines.scoring.jobs import CACHE, Engine, Job, Output, failure
from pipelines.scoring.names import by_name, files_of
from pipelines.scoring.opening import open_for, periods_of, tags_for, warnings_about
from pipelines.scoring.passes import passes_of
from pipelines.scoring.rows import ENDS, Grid, layouts
from pipelines.scoring.tables import check_tables, failed, tabulated
from pipelines.scoring.watch import check_confidence
from pipelines.scoring.workers import run_jobs, shard_of, threads_each
from pipelines.weather.series import WeatherSeries

_MADE_LATER = (".aux.xml", ".ovr")  # what viewers put beside an image; it stays the same image
BAND = 2048  # rows; a scene is split among workers into bands no lower than this, as each begins with tiles of its own


@dataclass(frozen=True)
class Maps:
    """What is written of each scene.

    Attributes:
        probabilities: also write <scene>_probabilities.tif, a band for each class.
        confidence: also write <scene>_confidence.tif, the highest probability, calibrated where the run could be.
        sets: also write <scene>_sets.tif, how many classes may be right, and which, as bits.
        interval: also write <scene>_lower.tif and <scene>_upper.tif, between which nine of ten values are measured.
        unfamiliar: also write <scene>_unfamiliar.tif, above 1 where it is unlike all that was trained on.
        min_area: hectares; smaller patches of a class map are merged into their largest neighbour.
        polygons: GeoPackage to write, with class, area in hectares and mean confidence of every patch.
        area_table: CSV to write, with the pixels and hectares of every class.
        mosaic: GeoTIFF to write, all maps joined to one; `earthtune mosaic` joins maps that are there.
        map_grid: of a scene that was resampled: train writes maps on the training's pixels, scene on its own.
    """

    probabilities: bool = False
    confidence: bool = False
    sets: bool = False
    interval: bool = False
    unfamiliar: bool = False
    min_area: float = 0.0
    polygons: Path | None = None
    area_table: Path | None = None
    mosaic: Path | None = None
    map_grid: Grid = "train"

    @property
    def kinds(self) -> list[str]:
        """The maps of a scene by their names; polygons want the confidence."""
        sure = self.confidence or self.polygons is not None
        wanted = {"probabilities": self.probabilities, "confidence": sure, "sets": self.sets}
        wanted |= dict.fromkeys(ENDS, self.interval) | {"unfamiliar": self.unfamiliar}
        return ["map", *(kind for kind, asked in wanted.items() if asked)]

    @property
    def tables(self) -> dict[str, Path | None]:
        """The files of all scenes together, by the suffix that each wants."""
        return {".gpkg": self.polygons, ".csv": self.area_table, ".tif": self.mosaic}

    @property
    def wants_ground(self) -> str:
        """The option that wants areas on the ground; empty where none does."""
        return "min_area" if self.min_area else str(self.polygons or self.area_table or "")


@dataclass(frozen=True)
class Share:
    """Who does the work.

    Attributes:
        workers: processes on this machine, or actors with --ray.
        shard: i/n, this call's share where n calls on any machines share a folder: 1/4, 2/4, 3/4, 4/4.
        ray: address of a Ray cluster, auto, or local to start one here.
    """

    workers: int = 1
    shard: str | None = None
    ray: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is the same for all scenes of a call.

    Attributes:
        out: folder for the maps.
        maps: what is written.
        reading: what a person says about the files.
        engine: how models are run.
        overlap: pixels that neighbouring tiles share; a quarter of a tile when None.
        weather: files of the weather before the scenes.
        static: NAME=FILE of rasters of what does not change, in place of the training's.
        overwrite: whether maps that exist are replaced.
        ground: where the mosaic lies, and what is asked for.
        named: whether the run's name is part of the maps' names.
        debug: whether what a scene fails of is raised, not told.
        trust: whether virtual rasters may read whatever they ask for.
        periods: of the frames, see `commands.score`; those of the training when None.
    """

    out: Path
    maps: Maps = Maps()
    reading: Reading = Reading()
    engine: Engine = Engine()
    overlap: int | None = None
    weather: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    overwrite: bool = False
    ground: Ground = Ground()
    named: bool = False
    debug: bool = False
    trust: bool = False
    periods: Sequence[str] | None = None


def score_scenes(
    folders: Sequence[Path],
    scenes: Sequence[str],
    plan: Plan,
    share: Share,
    *,
    account: Account = Account(),
    progress: Progress | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Score scenes with one run or several; see `commands.score.score`."""
    # Processes that do a part of the work have meters of their own.
    with account.booked("score", say, children=False) as meter:
        return _scored(folders, scenes, plan, share, meter, progress=progress, say=say)


def _scored(
    folders: Sequence[Path],
    scenes: Sequence[str],
    plan: Plan,
    share: Share,
    meter: Meter,
    *,
    progress: Progress | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The steps of `score_scenes`."""
    _check(folders[0], plan, share)
    if plan.maps.mosaic is None and (plan.ground.grid or plan.ground.crs or plan.ground.pixel):
        raise InputError("--grid, --crs, --pixel: for the mosaic of all maps; name it by --mosaic, or leave them out")
    with trusting(plan.trust):
        plan.ground.check()
    runs = {path: read_bundle(path) for path in folders}
    passes = passes_of(runs, plan.overlap)
    _check_runs(runs, classes=plan.maps.wants_ground)
    check_static(runs.values(), plan.static, weather=plan.weather)
    if plan.maps.mosaic:
        if len(runs) > 1:
            raise InputError(f"{plan.maps.mosaic}: a mosaic is of the maps of one run; score with one, or join later")
        maps = dataclasses.replace(plan.maps, probabilities=bool(runs[folders[0]].spec.answer.classes))
        plan = dataclasses.replace(plan, maps=maps)
    for path, bundle in runs.items():
        check_confidence(path, bundle, plan.maps.kinds)
    part, parts = shard_of(share.shard) if share.shard else (0, 1)
    told = any("=" in band for band in plan.reading.bands or ())  # each folder is one scene, its files are named
    places = any([bool(periods_of(bundle, plan.periods)) for bundle in runs.values()])
    sources = [*dict.fromkeys(scenes)] if told else find_places(scenes) if places else find_scenes(scenes)
    mine = sources[part::parts] if len(sources) >= parts else sources
    check_tables(plan, share)
    engine = dataclasses.replace(plan.engine, threads=threads_each(share.workers))
    plan = dataclasses.replace(plan, engine=engine, named=len(runs) > 1)
    meter.lap(START)
    results: list[dict[str, Any]] = []
    jobs: Iterable[Job] = _surveyed(mine, runs, passes, plan, meter, results, say)
    total = len(mine) * len(passes)
    if len(sources) < max(share.workers, parts):  # the rows of each are shared out
        pieces = -(-share.workers * parts // len(sources))
        jobs = [band for job in jobs for band in _by_rows(job, pieces)]
        jobs = jobs[part::parts] if len(sources) < parts else jobs
        total = len(jobs)
    ended: dict[tuple[str, str], dict[str, Any]] = {}
    outcomes = run_jobs(jobs, workers=share.workers, ray=share.ray, meter=meter, progress=progress)
    for count, (job, outcome) in enumerate(outcomes, 1):
        if total > 1:
            rows = "" if job.whole else f", rows {job.rows[0]} to {job.rows[1]}"
            say(f"{count} of {total}: {job.source}{rows}: {outcome.get('error', outcome['status'])}")
        _gather(ended, job, outcome)
        meter.lap(TILES)
    meter.done = any(result["status"] == "done" for result in ended.values())
    order = {(source, str(path)): i for i, (source, path) in enumerate(itertools.product(mine, runs))}
    results = sorted([*results, *ended.values()], key=lambda result: order[result["scene"], result["run"]])
    return results + tabulated(results, folders[0], runs[folders[0]].spec, plan)


def _check(run: Path, plan: Plan, share: Share) -> None:
    """Refuse arguments that no scene could be scored with."""
    batch, min_area = plan.engine.batch, plan.maps.min_area
    if share.workers < 1 or (batch is not None and batch < 1):
        raise InputError(f"workers {share.workers}, batch {batch}: wanted at least 1")
    if not 0 <= min_area < 1e9:
        raise InputError(f"min_area {min_area:g}: wanted hectares, 0 or more")
    if plan.out.exists() and not plan.out.is_dir():
        raise InputError(f"{plan.out}: is a file; --out wants a folder for the maps")


def _check_runs(runs: Mapping[Path, Bundle], *, classes: str) -> None:
    """Refuse runs whose maps could not be told apart, or not serve what wants class maps of one run."""
    names = [path.resolve().name for path in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{twice}: two runs bear this name, which tells their maps apart; rename one")
    spec = next(iter(runs.values())).spec
    if classes and (not spec.answer.classes or (len(runs) > 1 and classes != "min_area")):
        raise InputError(f"{classes}: polygons, area tables and smallest areas are for the class maps of one run")


def _surveyed(
    sources: Sequence[str],
    runs: Mapping[Path, Bundle],
    passes: Sequence[tuple[tuple[Path, ...], int]],
    plan: Plan,
    meter: Meter,
    results: list[dict[str, Any]],
    say: Callable[[str], None],
) -> Iterator[Job]:
    """The jobs, each scene opened and checked when its turn comes.

    What names alone tell (files that are missing, scenes whose maps would have one name) is told before the first.
    `results` gets those of scenes that are done or cannot be.
    """
    survey = _Survey(runs, plan, frozenset(Path(part).resolve() for s in sources for part in files_of(s)), say)
    refused = by_name(sources)
    for source, error in refused.items():
        say(f"{error}")
        results += failed(source, runs, {"error": str(error), "exit_code": error.exit_code})
        if plan.debug:
            raise error
    for source, (folders, overlap) in itertools.product(sources, passes):
        if source in refused:
            continue
        try:
            with trusting(plan.trust), rasterio.Env(GDAL_CACHEMAX=CACHE):
                job, kept = survey.job(source, folders, overlap)
        except Exception as error:  # whatever befalls one scene is not the end of the others
            if plan.debug:
                raise
            told = failure(source, error)
            if len(sources) > 1:
                say(told["error"])
            results += failed(source, folders, told)
            continue
        results += kept
        meter.lap(READ)
        if job:
            meter.bind(plan.out / PAGE, parts=True)
            yield dataclasses.replace(job, call=meter.call)


@dataclass
class _Survey:
    """Opens scenes and checks them, one after the other.

    Attributes:
        runs: the bundles by their folders.
        plan: what is the same for all.
        inputs: the files of all scenes, as far as their names tell.
        say: takes a line for the person who waits.
        taken: the scene whose maps have a name.
        opened: the weather, once it was asked for, by what runs want of it.
    """

    runs: Mapping[Path, Bundle]
    plan: Plan
    inputs: frozenset[Path]
    say: Callable[[str], None]
    taken: dict[str, str] = field(default_factory=dict)
    opened: dict[str, WeatherSeries | None] = field(default_factory=dict)

    def job(self, source: str, folders: Sequence[Path], overlap: int) -> tuple[Job | None, list[dict[str, Any]]]:
        """Open and check a scene.

        Returns:
            The job, None when nothing is left to do; and results of maps that are done.
        """
        plan, runs = self.plan, {folder: self.runs[folder] for folder in folders}
        first = next(iter(runs.values()))
        scene = open_for(first, source, plan.reading, periods=plan.periods)
        area = Area(plan.ground.aoi, scene.geobox) if plan.ground.aoi else None
        if plan.maps.wants_ground:
            ground_system(scene.geobox, source)
        heard = next((one for one in runs.values() if one.spec.series), first)
        joined = beside(heard, scene, overlap, self.weather(heard), plan.static)
        outputs, kept = [], []
        for run, bundle in runs.items():
            output = _output(run, bundle, scene, plan, overlap, area, joined)
            if self.taken.setdefault(output.entry.stem, source) != source:
                stem, other = output.entry.stem, self.taken[output.entry.stem]
                same = f"would be written as {stem}_map.tif, as {other} is"
                raise InputError(f"{source}: {same}; score them into two folders")
            done = None if plan.overwrite else output.entry.done()
            if done is not None:
                kept.append(output.told(source, done) | {"status": "kept"})
                continue
            self._check_targets(output, scene)
            outputs.append(output)
        if not outputs:
            return None, kept
        strip = 4 * first.spec.imagery.tile * scene.shape[1] * sum(one.spec.answer.channels for one in runs.values())
        check_memory(source, [layout for output in outputs for layout in output.layouts.values()], strip=strip)
        for note in warnings_about(scene, first.spec, as_is=plan.reading.as_is):
            self.say(f"{scene.name}: {note}")
        for note in joined.notes if joined else ():
            self.say(f"{scene.name}: {note}")
        for output in outputs:
            for note in (*strange(scene, output.run, output.bundle), *filter(None, [output.weather])):
                self.say(f"{scene.name}: {note}")
        if plan.overwrite:
            for output in outputs:
                output.entry.forget()
        height = next(iter(outputs[0].layouts.values())).shape[1]
        prints = tuple((path, fingerprint(path)) for path in sorted(scene.files) if not str(path).endswith(_MADE_LATER))
        maps = plan.maps
        what = (source, scene, tuple(outputs), overlap, plan.engine, maps.min_area, maps.map_grid, area, joined)
        return Job(*what, (0, height), replace=plan.overwrite, prints=prints, debug=plan.debug, trust=plan.trust), kept

    def weather(self, bundle: Bundle) -> WeatherSeries | None:
        """The weather of all scenes, opened once; None beside runs of which another takes it."""
        others = not bundle.spec.series and any(one.spec.series for one in self.runs.values())
        if others:
            return None
        wanted = repr((bundle.data.get("weather"), bundle.spec.series.get(WEATHER)))
        if wanted not in self.opened:
            self.opened[wanted] = opened(bundle, self.plan.weather)
        return self.opened[wanted]

    def _check_targets(self, output: Output, scene: Scene) -> None:
        """Refuse to replace what is not to be replaced."""
        overwrite = self.plan.overwrite or output.begun.exists()  # cut off after a map had got its name
        why = "exists already, made with other options, model or scene" if output.entry.differs() else "exists already"
        for path in output.files:
            if path.resolve() in self.inputs or path.resolve() in scene.files:
                raise InputError(f"{path}: the map would replace a file that is to be read; --out names another folder")
            if path.exists() and not overwrite:
                advice = "--overwrite makes all maps of this scene anew, --out names another folder"
                raise InputError(f"{path}: {why}; {advice}")
        for kind, layout in output.layouts.items():
            check_target(output.path(kind), layout, overwrite=overwrite)


def _output(
    run: Path, bundle: Bundle, scene: Scene, plan: Plan, overlap: int, area: Area | None, joined: Beside | None
) -> Output:
    """The maps of a scene by a run, and their page in the ledger."""
    identity = bundle_id(run)
    paths = {layer.path for frame in scene.stack for layer in frame.every}
    remote = sorted(path for path in paths if not Path(path).is_file())
    local = [path for path in sorted(scene.files) if not str(path).endswith(_MADE_LATER)]
    content = {
        "software": version("earthtune"),
        "bundle": identity,
        "source": [*map(fingerprint, local), *remote],
        "reading": dataclasses.asdict(plan.reading),
        "layers": [[la.name, la.index, la.units, la.nodata, la.alpha] for frame in scene.stack for la in frame.every],
        "missing": [[t, f.name, str(f.date)] for t, f in enumerate(scene.stack) if f.absent],
        "engine": [plan.engine.runtime, plan.engine.precision, plan.engine.batch],
        "maps": [plan.maps.kinds, plan.maps.min_area, plan.maps.map_grid, overlap, phase(scene.geobox)],
        "area": area and area.shape.wkb_hex,
        "beside": joined.identity if joined and bundle.spec.series else None,
    }
    stem = f"{scene.name}_{run.resolve().name}" if plan.named else scene.name
    tags, weather = tags_for(bundle, identity, scene, plan.weather if bundle.spec.series else ()), ""
    if joined and bundle.spec.series and plan.weather:
        tags |= {"EARTHTUNE_STATIC": ",".join(joined.static)} if joined.static else {}
        far = unfamiliar_weather(run, bundle, joined.arrays)
        weather = strange_weather(bundle, joined.arrays, far)
        tags |= {"EARTHTUNE_WEATHER_UNFAMILIAR": f"{np.nanmax(far):.3g}"} if np.isfinite(far).any() else {}
    made = layouts(bundle, scene, plan.maps.kinds, tags, grid=plan.maps.map_grid)
    return Output(run, bundle, identity, Entry(plan.out, stem, digest(content)), made, weather)


def _by_rows(job: Job, pieces: int) -> list[Job]:
    """A job as several of about as many rows each, where there are workers for them."""
    height = job.rows[1]
    rows = max(-(-height // pieces // BLOCK) * BLOCK, BAND)
    if rows >= height:
        return [job]
    bands = [(first, min(first + rows, height)) for first in range(0, height, rows)]
    return [dataclasses.replace(job, rows=band, whole=False) for band in bands]


def _gather(ended: dict[tuple[str, str], dict[str, Any]], job: Job, outcome: Mapping[str, Any]) -> None:
    """Put what became of a job to what became of other rows of its scene: failed counts most, then done."""
    rank = {"partial": 0, "done": 1, "failed": 2}
    for n, output in enumerate(job.outputs):
        about = {"scene": job.source, "run": str(output.run), "status": outcome["status"]}
        if outcome["status"] == "done":
            about |= dict(outcome["results"][n]) | {"seconds": outcome["seconds"]} | about
        elif outcome["status"] == "failed":
            about |= {"error": outcome["error"], "exit_code": outcome["exit_code"]}
        before = ended.get((job.source, str(output.run)))
        if before is None or rank[about["status"]] > rank[before["status"]]:
            ended[job.source, str(output.run)] = about
