"""Score new scenes with runs: windows in, Cloud Optimized GeoTIFFs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.bundle import read_bundle
from models.errors import InputError, RunError
from pipelines.commands.outcome import Outcome
from pipelines.mosaics.ground import Ground
from pipelines.records.energy import Account
from pipelines.scenes.reading import Reading
from pipelines.scoring.jobs import Engine
from pipelines.scoring.plan import Maps, Plan, Share, score_scenes


def score(
    run: Path,
    scenes: Sequence[str],
    *,
    out: Path,
    bundle: Sequence[Path] = (),
    maps: Maps = Maps(),
    ground: Ground = Ground(),
    reading: Reading = Reading(),
    overlap: int | None = None,
    engine: Engine = Engine(),
    periods: list[str] | None = None,
    elevation: Path | None = None,
    climatology: str | None = None,
    weather: Sequence[str] = (),
    static: Sequence[str] = (),
    share: Share = Share(),
    account: Account = Account(),
    overwrite: bool = False,
    trust: bool = False,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
    debug: bool = False,
) -> list[dict[str, Any]]:
    """Score scenes with a run; write one map per scene, <scene>_map.tif.

    A map of classes holds the class codes, with colours and names; a map of values holds float32 with its unit; scene
    classes come as one pixel per tile. Beside each map lie a STAC item and a picture. Files that are missing
    and names that clash are told at once, all else of a scene when its turn comes; a scene that fails leaves nothing
    and does not stop the others. The same command again skips what is done and goes on where it was stopped.

    Args:
        run: the run folder, or hf://org/name@revision of a published one.
        scenes: rasters, folders of band files, STAC items, patterns such as 'b/*.tif', or folders of many scenes; the
            frames of a model of several dates are joined by commas: a.tif,b.tif.
        out: folder for the maps.
        bundle: another run to score with in the same pass, may be given again; a frozen base that runs share runs once.
        maps: what is written of each scene.
        ground: where a mosaic lies; outside of --aoi nothing is mapped, and nothing computed.
        reading: what the files do not say themselves.
        overlap: pixels that neighbouring tiles share; a quarter of a tile when not given.
        engine: how models are run.
        periods: of the frames of a model of several dates, one for each, where scenes are folders of dated scenes of a
            place, or files of many dates: 2022-03, FROM/TO, or 03 and 06/08 of any year; the clearest date of each is
            taken. Those of the training when not given.
        elevation: elevation of another place, for a downscaling run; that of the training when not given.
        climatology: another place of it (hub, a folder), for a run of rain that takes it; that of the training when
            not given.
        weather: weather files or Zarr stores, for a run that takes the weather before a scene, too; may be given
            again. Without, the map is by the imagery alone.
        static: NAME=FILE of a raster of what does not change, such as elevation=dem.tif, for a run that takes it and
            another place than the training's; may be given again.
        share: who does the work.
        account: on whose account the energy goes, see energy.json beside the maps.
        overwrite: replace maps that exist.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the tiles to show progress.
        say: takes a line for the person who waits.
        debug: raise what a scene fails of, where the others would go on.

    Returns:
        For each scene and run: scene, run, status (done, kept from before, partial where other shards are at work on
        it, failed), and map, maps, item, picture, valid (share of valid pixels) and notes, or error and exit_code.

    Raises:
        InputError: what is no run, or arguments that no scene could be scored with.
    """
    spec = read_bundle(run).spec
    if spec.over_tables:
        from pipelines.tables.scoring import score_tables

        why = "for scenes; a run over a table writes the table again, with its answers"
        beside = {"elevation": elevation, "climatology": climatology, "overlap": overlap}
        _refuse_unused(
            why, {"bundle": [*bundle], "weather": [*weather], "static": [*static]}, beside, maps, ground, reading, share
        )
        return score_tables(run, scenes, out=out, runtime=engine.runtime, overwrite=overwrite, say=say)
    if spec.over_weather:
        from pipelines.scoring.fields import score_weather

        why = "for scenes; a run over weather writes its maps and a series without"
        lists = {"bundle": [*bundle], "periods": periods, "weather": [*weather], "static": [*static]}
        given = lists, maps, ground, reading, {"overlap": overlap, "batch": engine.batch}, share
        _refuse_unused(why, *given)
        places: dict[str, Any] = {"elevation": elevation, "climatology": climatology}
        how: dict[str, Any] = {"account": account, "overwrite": overwrite, "progress": progress, "say": say}
        return score_weather(run, scenes, out=out, engine=engine, **places, **how)
    _refuse_unused("for runs that downscale weather; this one maps scenes", {"elevation": elevation})
    _refuse_unused("for runs of rain; this one maps scenes", {"climatology": climatology})
    beside_them: dict[str, Any] = {"weather": tuple(weather), "static": tuple(static), "periods": periods}
    how = {"overwrite": overwrite, "ground": ground, "debug": debug, "trust": trust}
    plan = Plan(out, maps, reading, engine, overlap, **beside_them, **how)
    return score_scenes((run, *bundle), scenes, plan, share, account=account, progress=progress, say=say)


def _refuse_unused(why: str, *options: Any) -> None:
    """Refuse options that would be left aside, all that ask for something by name.

    Args:
        why: what they are for, and what is done here.
        options: dataclasses, whose values are put beside their defaults; or mappings of names to values, of which None
            and what is empty ask for nothing.
    """
    names: list[str] = []
    for group in options:
        if isinstance(group, Mapping):
            names += [name for name, value in group.items() if value is not None and value != []]
        else:
            plain = type(group)()
            names += [name for name, value in vars(group).items() if value != getattr(plain, name)]
    if names:
        told = ", ".join(f"--{name}" for name in names)
        raise InputError(f"{told}: {why}; leave {'it' if len(names) == 1 else 'them'} out")


def told(results: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Outcome:
    """What became of the scenes; one alone that failed is the command's error."""
    if len(results) == 1 and results[0]["status"] == "failed" and not options["json"]:
        kind = InputError if results[0]["exit_code"] == InputError.exit_code else RunError
        raise kind(results[0]["error"])
    lines = [_line(result) for result in results]
    counts = {status: sum(r["status"] == status for r in results) for status in ("done", "kept", "partial", "failed")}
    if len(results) > 1:
        lines.append(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    return Outcome(results, "\n".join(lines), max((r.get("exit_code", 0) for r in results), default=0))


def _line(result: Mapping[str, Any]) -> str:
    """What became of a scene."""
    if result["status"] == "failed":
        return f"failed   {result['error']}"
    if result["status"] == "partial":
        return f"partial  {result['scene']}: its other rows are for other shards"
    what = f"{result['rows']} rows told" if "rows" in result else "pixels mapped"
    seconds = f", {result['seconds']:.1f} s" if "seconds" in result else ""
    return f"{result['status']:<8} {result['map']}  ({result['valid']:.1%} of the {what}{seconds})"
