"""earthtune review."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.errors import InputError
from pipelines.commands.outcome import Outcome
from pipelines.review.review import Page, Pick, review_map, review_sample


def review(
    map: Path,
    *,
    scene: str | None = None,
    out: Path | None = None,
    take: Path | None = None,
    legend: Path | None = None,
    most: int = 500,
    side: int = 32,
    pick: Pick = "doubt",
    page: Page = Page(),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Look at the regions of a map that are most in doubt, or label the points of a sample.

    A page in a browser of this machine shows the regions of a map that weigh most by low confidence, or by ground
    unlike the training's, times area; each with its reason, over the scene. A key agrees with the map, gives another
    class or says unsure; corrected ground is drawn. Each answer is on the disk before the next region is shown, so the
    same command goes on where it was ended or killed. The answers become SCENE_review.gpkg beside the map, with forms
    and styles for QGIS; what is changed there is taken up when the command is run again. Needs what `score
    --confidence --probabilities`, of values `score --interval`, writes beside the map, and takes SCENE_unfamiliar.tif
    where it is.

    A sample, a GeoPackage with a layer of points sample, is labelled blind: no map is shown.

    Args:
        map: SCENE_map.tif as score writes it, or the GeoPackage of a sample.
        scene: the scene under it, where it does not lie near the map; one always for a sample.
        out: the GeoPackage to write, a .gpkg; the answers lie beside it under the same name, .ndjson.
        take: a GeoPackage of this review that was edited elsewhere, to take up.
        legend: a map whose classes a sample is labelled with, where its own form does not offer them; it is not shown.
        most: regions at most, up to 500.
        side: height and width of a region in pixels, at most; larger ones are cut.
        pick: doubt takes the least sure ground; alerts takes what `changes` raised, new ones first, whose answers
            outlive updates of the map; diverse takes squares of the scene that are unlike each other in bands
            and indices, to be labelled next, and every fourth at random; each says which. In our trials labels that
            were chosen so taught no more than as many chosen at random.
        page: how the page is shown.
        say: takes a line for the person who waits.

    Returns:
        The file, how many regions or points there are and how many have an answer.

    Raises:
        InputError: no map or sample, nothing that tells doubt, a review of a map that has changed, somebody else at it.
        RunError: the disk does not take an answer, or the file.
    """
    if not 1 <= most <= 500 or side < 4:
        raise InputError(f"--most {most} --side {side}: wanted 1 to 500 regions, of 4 pixels a side or more")
    if map.suffix.lower() == ".gpkg":
        if take:
            raise InputError("--take: for maps; the labels of a sample lie in its own file; leave it out")
        return review_sample(map, scene=scene, legend=legend, page=page, out=out, say=say)
    if legend:
        raise InputError("--legend: for samples; a map names its classes itself; leave it out")
    if out and out.suffix.lower() != ".gpkg":
        raise InputError(f"{out}: wanted a name that ends in .gpkg, came {out.suffix or 'none'}; rename it")
    return review_map(map, scene=scene, out=out, take=take, most=most, side=side, pick=pick, page=page, say=say)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The file, and how much of it is answered."""
    if "points" in result:
        return Outcome(result, f"{result['file']}: {result['labelled']} of {result['points']} points have a label")
    words = f"{result['regions']} regions, {result['hectares']:.4g} ha, {result['answered']} answered"
    made = f", {result['corrections']} corrections" if "corrections" in result else ""
    return Outcome(result, f"{result['file']}: {words}{made}")
