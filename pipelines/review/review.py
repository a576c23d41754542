"""A review from a map to its GeoPackage, or of a sample to its labels; the order of events."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.areas import pixel_areas, read
from pipelines.grids.windows import whole as all_of
from pipelines.outputs.categories import read_categories
from pipelines.review import answers as kept
from pipelines.review import beside, package, pictures
from pipelines.review import sample as samples
from pipelines.review.alerts import Alert, alert_regions, read_alerts, to_ask, watch_of
from pipelines.review.diverse import diverse_cells
from pipelines.review.page import Desk, Server
from pipelines.review.regions import Doubt, Region, bounds_of, class_reason, find_regions, interval_reason, regions_at

Say = Callable[[str], None]
Pick = Literal["doubt", "diverse", "alerts"]


@dataclass(frozen=True)
class Page:
    """How the page is shown.

    Attributes:
        port: port of the page on 127.0.0.1; a free one when 0.
        no_page: only write the GeoPackage of the regions, with the answers that are there.
    """

    port: int = 0
    no_page: bool = False


def review_map(
    path: Path,
    *,
    scene: str | None,
    out: Path | None,
    take: Path | None,
    most: int,
    side: int,
    pick: Pick = "doubt",
    page: Page,
    say: Say,
) -> dict[str, Any]:
    """Review a map; see the command `review`."""
    mapped = beside.open_map(path)
    target, lines = mapped.target(".gpkg", out), mapped.target(".ndjson", out)
    layers = _layers(mapped, scene, say) if not page.no_page else {}
    with kept.alone(mapped.target(".lock", out)):
        held = kept.read_lines(lines)
        if held and pick != "alerts":  # regions are those of then, whatever lies beside the map by now
            before = kept.read_header(lines, held)
            mapped = _as_before(mapped, before, lines, (most, side, pick))
        header = _header(mapped, most, side, pick)
        source = (scene or beside.scene_of(mapped)) if pick == "diverse" else None
        if pick == "diverse" and source is None:
            raise InputError(
                f"{path}: --pick diverse looks at its scene, which does not lie near; --scene FILE names that"
            )
        alerts = read_alerts(mapped) if pick == "alerts" else None
        regions, codes = regions_of(mapped, most=most, side=side, diverse=source, alerts=alerts)
        if not regions and not take:
            raise InputError(f"{path}: {_nothing(mapped, pick)}; there is nothing to review")
        ids = frozenset(one.id for one in regions) | frozenset(one.number for one in alerts or ())
        answers = kept.open_answers(
            lines, header, frozenset(entry.code for entry in mapped.classes), ids | {package.ELSEWHERE}
        )
        if alerts is not None:
            regions = to_ask(regions, alerts, {key for key, one in answers.said.items() if not one.empty}, most)
        reviewed = package.Reviewed(mapped.scene, mapped.geobox, mapped.classes, regions, header, codes, ids)
        _take_edited(
            answers, reviewed, [file for file in (target, take) if file and (file == take or file.is_file())], say
        )
        package.write_package(target, reviewed, answers.said)
        if page.no_page:
            return _told(target, regions, answers, None)
        desk = Desk(_about_map(mapped, regions), {r.id: r.bounds for r in regions}, layers_of(mapped, layers), answers)
        serve(desk, page.port, say)
        corrections = package.write_package(target, reviewed, answers.said)
        return _told(target, regions, answers, corrections)


def review_sample(
    path: Path, *, scene: str | None, legend: Path | None, page: Page, out: Path | None, say: Say
) -> dict[str, Any]:
    """Label the points of a sample without showing a map; see the command `review`."""
    if out or page.no_page:
        told = "--out" if out else "--no_page"
        raise InputError(f"{told}: for maps; the labels of a sample are written into {path.name}; leave it out")
    sample = samples.read_sample(path)
    classes = read_categories(legend) if legend else sample.offered
    if not classes:
        raise InputError(f"{path}: nothing tells which classes there are; --legend MAP names a map that has them")
    if scene is None:
        raise InputError(f"{path}: points are labelled on a scene; --scene FILE names it")
    geobox, layers = _scene_grid(scene)
    places = _on_grid(sample, geobox, scene)
    lines = path.with_suffix(".labels.ndjson")
    with kept.alone(path.with_suffix(".lock")):
        order = json.dumps([[key, *place] for key, place in sample.points.items()])
        header = {"format": kept.FORMAT, "kind": "sample", "sample": path.name}
        header["points"] = hashlib.sha256(order.encode()).hexdigest()
        codes = frozenset(entry.code for entry in classes)
        answers = kept.open_answers(lines, header, codes, frozenset(sample.points))
        for key, answer in samples.held_answers(sample, classes).items():
            if answers.said.get(key, kept.Answer()).empty:
                answers.take(key, answer)
        boxes = dict(zip(places, bounds_of([*places.values()]), strict=True))
        desk = Desk(_about_sample(path, classes, places), boxes, pictures.Pictures(geobox, layers), answers)
        serve(desk, page.port, say)
        labelled = samples.write_labels(sample, answers.said, classes)
        return {"file": str(path), "points": len(places), "labelled": labelled}


def serve(desk: Desk, port: int, say: Say) -> None:
    """Show the page until it is ended there, or by ctrl-C; all answers are on the disk either way.

    Raises:
        InputError: the port is taken.
    """
    try:
        server = Server(desk, port)
    except OSError as error:
        raise InputError(f"--port {port}: cannot be had ({error.strerror}); give another, or leave it out") from error
    with ExitStack() as stack:
        stack.callback(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=desk.draw, daemon=True).start()
        stack.callback(server.shutdown)
        print(f"open {server.url} in a browser of this machine; end it there, or by ctrl-C", flush=True)
        try:
            desk.done.wait()
        except KeyboardInterrupt:
            say("ended by ctrl-C; all answers are kept")


def regions_of(
    mapped: beside.Mapped, *, most: int, side: int, diverse: str | None = None, alerts: Sequence[Alert] | None = None
) -> tuple[list[Region], NDArray[Any] | None]:
    """The regions of a map, and its codes (rows, columns), None for values.

    They are the most doubtful, or those that are unlike each other in a scene `diverse`, or all of `alerts`.
    """
    source, whole = align.dataset(str(mapped.path)), all_of(mapped.geobox.shape)
    values = read(source, whole)
    nodata = source.nodatavals[0]
    valid = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    if nodata is not None and not math.isnan(nodata):
        valid &= values != nodata
    codes = values if mapped.classes else None
    if codes is not None:
        strange = sorted({int(v) for v in np.unique(codes[valid])} - {entry.code for entry in mapped.classes})
        if strange:
            raise InputError(f"{mapped.path}: holds code {strange[0]}, which is none of its classes; score it again")
    held = {kind: _values(file, whole) for kind, file in mapped.files.items() if kind != "probabilities"}
    if "confidence" not in held and "probabilities" in mapped.files:
        held["confidence"] = _highest(mapped.files["probabilities"], whole)
    doubt = Doubt(valid, codes, **{name: held.get(name) for name in ("confidence", "unfamiliar", "lower", "upper")})
    placed = mapped.geobox.crs is not None
    areas = pixel_areas(mapped.geobox, name=str(mapped.path))(whole) if placed else np.ones((values.shape[0], 1))
    if alerts is not None:
        regions = alert_regions(alerts, mapped.geobox, doubt, areas)
    elif diverse is not None:
        regions = regions_at(doubt, areas, diverse_cells(diverse, mapped.geobox, valid, most=most, side=side))
    else:
        regions = find_regions(doubt, areas, _words(mapped, doubt), most=most, side=side)
    return regions if placed else [dataclasses.replace(one, hectares=math.nan) for one in regions], codes


def _words(mapped: beside.Mapped, doubt: Doubt) -> Any:
    """What gives the reasons of regions."""
    if doubt.codes is None:
        return interval_reason(doubt.lower, doubt.upper, mapped.unit)
    names = {entry.code: entry.name for entry in mapped.classes}
    file = mapped.files.get("probabilities")
    if file is None or align.dataset(str(file)).count != len(names):
        return class_reason(doubt.codes, names, lambda inside, box: None)
    source = align.dataset(str(file))

    def shares(inside: NDArray[np.bool_], box: tuple[slice, slice]) -> NDArray[Any] | None:
        cut = source.read(window=tuple((part.start, part.stop) for part in box))[:, inside]  # (C, n)
        cut = cut[:, np.isfinite(cut).all(axis=0)]
        return cut.mean(axis=1) if cut.size else None

    return class_reason(doubt.codes, names, shares)


def _values(file: Path, window: Any) -> NDArray[Any]:
    """A band of floats, NaN without data."""
    source = align.dataset(str(file))
    values = read(source, window).astype(np.float32)
    nodata = source.nodatavals[0]
    return values if nodata is None or math.isnan(nodata) else np.where(values == nodata, np.nan, values)


def _highest(file: Path, window: Any) -> NDArray[Any]:
    """The highest probability of each pixel, a band at a time."""
    source = align.dataset(str(file))
    out = source.read(1)
    for band in range(2, source.count + 1):
        np.fmax(out, source.read(band), out=out)
    return np.asarray(out)


def _header(mapped: beside.Mapped, most: int, side: int, pick: Pick) -> dict[str, Any]:
    """The first line of the answers. Those about alerts outlive an update of the map, whose hash changes."""
    header: dict[str, Any] = {"format": kept.FORMAT, "kind": "regions", "map": mapped.path.name}
    if pick == "alerts":
        return header | {"kind": "alerts", "watch": watch_of(mapped)}
    header |= {"hashes": dict(mapped.hashes), "most": most, "side": side}
    return header | ({"pick": pick} if pick != "doubt" else {})


def _nothing(mapped: beside.Mapped, pick: Pick) -> str:
    """Why a map has no region."""
    if pick == "alerts":
        return "no alert lies on it"
    sure = "confidence above 0.9 everywhere" if mapped.classes else "no interval has a width"
    return f"nothing in it is doubtful ({sure})"


def _as_before(
    mapped: beside.Mapped, header: Mapping[str, Any], lines: Path, asked: tuple[int, int, str]
) -> beside.Mapped:
    """A map with the files that an earlier review of it had.

    Raises:
        InputError: the map or one of the files has changed or is gone, or other settings are asked for.
    """
    hashes = header.get("hashes", {})
    if header.get("kind") != "regions":
        raise InputError(f"{lines}: a review of {header.get('kind')} of this map; give --pick alerts, or another --out")
    for kind, sha in hashes.items():
        if mapped.hashes.get(kind) != sha:
            name = mapped.path.name if kind == "map" else f"{mapped.scene}_{kind}.tif"
            what = "has changed" if kind in mapped.hashes else "is gone"
            raise InputError(f"{lines}: a review of before {name} {what}; restore it, or give another --out")
    before = header.get("most"), header.get("side"), header.get("pick", "doubt")
    if before != asked:
        told = "--most {} --side {} --pick {}".format(*before)
        raise InputError(f"{lines}: a review begun with {told}; give these, or another --out")
    files = {kind: file for kind, file in mapped.files.items() if kind in hashes}
    return dataclasses.replace(mapped, files=files, hashes=dict(hashes))


def _take_edited(answers: kept.Answers, reviewed: package.Reviewed, sources: list[Path], say: Say) -> None:
    """Take up what a person changed in GeoPackages."""
    for file in sources:
        if not file.is_file():
            raise InputError(f"{file}: no such file; --take wants the GeoPackage of this review, edited")
        changed, notes = package.edited(file, reviewed)
        for note in notes:
            say(note)
        for number, answer in changed.items():
            if answers.said.get(number, kept.Answer()) != answer:
                answers.take(number, answer)
        if changed:
            say(f"{len(changed)} answers taken from {file}")


def _layers(mapped: beside.Mapped, scene: str | None, say: Say) -> dict[str, Any]:
    """Colourings of the scene, where it is near."""
    source = scene or beside.scene_of(mapped)
    if source is None:
        say(f"the scene of {mapped.path.name} does not lie near and is not shown; --scene FILE names it")
        return {}
    return pictures.scene_pictures(source, mapped.geobox)


def layers_of(mapped: beside.Mapped, layers: Mapping[str, Any]) -> pictures.Pictures:
    """Pictures of a map over its scene."""
    return pictures.Pictures(mapped.geobox, {**layers, **pictures.map_pictures(mapped)})


def _scene_grid(scene: str) -> tuple[GeoBox, dict[str, Any]]:
    """The grid of a scene, and its colourings."""
    grid = pictures.scene_grid(scene)
    return grid, pictures.scene_pictures(scene, grid)


def _on_grid(sample: samples.Sample, geobox: GeoBox, scene: str) -> dict[int, tuple[float, float]]:
    """Points in pixels of a grid, (column, row).

    Raises:
        InputError: some lie outside.
    """
    from rasterio.warp import transform

    xs, ys = zip(*sample.points.values(), strict=True)
    if sample.crs is not None and geobox.crs is not None:
        xs, ys = transform(sample.crs, geobox.crs.to_wkt(), [*xs], [*ys])
    back, (height, width) = ~geobox.affine, geobox.shape
    places = {key: back * (x, y) for key, x, y in zip(sample.points, xs, ys, strict=True)}
    outside = [key for key, (x, y) in places.items() if not (0 <= x < width and 0 <= y < height)]
    if outside:
        many = f"{len(outside)} of {len(places)} points, such as {outside[0]}, lie"
        raise InputError(f"{sample.path}: {many} outside of {scene}; give the scene that was sampled")
    return places


def _about_map(mapped: beside.Mapped, regions: list[Region]) -> dict[str, Any]:
    """What the page is told of a map's regions."""
    names = {entry.code: entry.name for entry in mapped.classes}

    def item(region: Region) -> dict[str, Any]:
        held = {"id": region.id, "bounds": region.bounds, "rings": region.rings, "reason": region.reason}
        numbers = {"hectares": region.hectares, "confidence": region.confidence, "unfamiliar": region.unfamiliar}
        held |= {key: round(value, 4) if math.isfinite(value) else None for key, value in numbers.items()}
        return held | {"code": region.code, "class": names.get(-1 if region.code is None else region.code)}

    kind = "regions"
    items = [item(region) for region in regions]
    return {
        "title": mapped.path.name,
        "kind": kind,
        "unit": mapped.unit,
        "classes": _classes(mapped.classes),
        "items": items,
    }


def _about_sample(
    path: Path, classes: tuple[ClassDef, ...], places: Mapping[int, tuple[float, float]]
) -> dict[str, Any]:
    """What the page is told of a sample's points: nothing of any map."""
    boxes = bounds_of([*places.values()])
    items = [{"id": k, "bounds": box, "point": xy} for (k, xy), box in zip(places.items(), boxes, strict=True)]
    return {"title": path.name, "kind": "sample", "unit": "", "classes": _classes(classes), "items": items}


def _classes(classes: tuple[ClassDef, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(entry) for entry in classes]


def _told(target: Path, regions: list[Region], answers: kept.Answers, corrections: int | None) -> dict[str, Any]:
    """What became of a review."""
    answered = sum(not answer.empty for answer in answers.said.values())
    hectares = sum(region.hectares for region in regions if math.isfinite(region.hectares))
    about = {"file": str(target), "regions": len(regions), "hectares": round(hectares, 2), "answered": answered}
    return about | ({} if corrections is None else {"corrections": corrections})
