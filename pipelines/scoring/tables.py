"""Files about all scenes of a call together: polygons, areas and a mosaic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import EarthtuneError, InputError
from models.files import check_target as check_file
from models.spec import Spec
from pipelines.grids.areas import ground_system
from pipelines.records.ledger import is_ours, remember

if TYPE_CHECKING:
    from pipelines.scoring.plan import Plan, Share


def check_tables(plan: Plan, share: Share) -> None:
    """Refuse files that could not be written at the end; those that an earlier call wrote are written anew."""
    for suffix, file in plan.maps.tables.items():
        if file and share.shard:
            raise InputError(
                f"{file}: a shard sees some scenes only; when all have ended, the same call without --shard writes it "
                "(for polygons give the shards --confidence)"
            )
        if file:
            if file.parent.resolve() == plan.out.resolve():
                plan.out.mkdir(parents=True, exist_ok=True)
            check_file(file, suffix, overwrite=plan.overwrite or is_ours(plan.out, file))


def tabulated(results: Sequence[Mapping[str, Any]], run: Path, spec: Spec, plan: Plan) -> list[dict[str, Any]]:
    """Write the polygons and the areas of all maps that are there; results where that fails."""
    if not any(plan.maps.tables.values()):
        return []
    from pipelines.grids.align import dataset, grid
    from pipelines.grids.areas import area_table
    from pipelines.mosaics.mosaic import joined
    from pipelines.outputs.polygons import write_polygons

    made, lacking = [], []
    for result in (result for result in results if result["status"] in ("done", "kept")):
        try:
            ground_system(grid(dataset(result["map"])), result["map"])
            made.append(result)
        except EarthtuneError as error:  # one without a place on the ground keeps no other out of the tables
            lacking += failed(result["scene"], [run], {"error": str(error), "exit_code": error.exit_code})
    maps, polygons, table = [Path(result["map"]) for result in made], plan.maps.polygons, plan.maps.area_table
    mosaic = plan.maps.mosaic
    try:
        if maps and table:
            area_table(maps, spec.answer.classes, table, overwrite=True)
            remember(plan.out, table)
        if maps and polygons:
            pairs = [(path, Path(result["maps"]["confidence"])) for path, result in zip(maps, made, strict=True)]
            write_polygons(pairs, spec.answer.classes, polygons, overwrite=True)
            remember(plan.out, polygons)
        if maps and mosaic:
            joined([*map(str, maps)], mosaic, plan.ground)
            remember(plan.out, mosaic)
    except EarthtuneError as error:  # the maps are there all the same
        told = {"error": str(error), "exit_code": error.exit_code}
        lacking += failed(", ".join(str(file) for file in (polygons, table, mosaic) if file), [run], told)
    return lacking


def failed(scene: str, runs: Iterable[Path], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Results of a scene of which nothing could be made."""
    return [{"scene": scene, "run": str(run), "status": "failed", **told} for run in runs]
