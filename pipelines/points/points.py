"""From a few labelled points to a map of a scene: learn a head, say what it is worth, map, ask for the next labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform

from models.baselines.heads import Labelled, Told, fit
from models.confidence.calibration import Calibration, tempered
from models.errors import InputError
from models.files import draft
from models.spec import IMAGERY, Classes, Pixels, Spec
from models.types import Array, Mask, Progress, Say
from pipelines.grids.areas import pixel_side
from pipelines.grids.rasters import trusting
from pipelines.grids.windows import Window
from pipelines.outputs.geotiff import join
from pipelines.outputs.layout import Layout, Regroup, check_memory, check_target
from pipelines.outputs.parts import write_part
from pipelines.outputs.picture import write_quicklook
from pipelines.points.ground import CELL, STATISTICS, TOKENS, Ground, open_ground
from pipelines.points.item import points_item
from pipelines.points.labels import Labels, read_points
from pipelines.points.worth import Worth, calibration, compared, summary, worth
from pipelines.records.attempts import page_of
from pipelines.records.energy import ASSESS, START, TILES, Account
from pipelines.review.diverse import k_centre
from pipelines.scenes.reading import Reading
from pipelines.scoring.rows import map_type

STRIP = 128  # rows that are mapped at once
DOUBTFUL = 16  # pixels of each cell that may be asked about, the least sure ones
BOTH = "tokens and statistics"
ALONE = "statistics alone"


def points(
    scene: str,
    labels: Sequence[Path],
    *,
    out: Path,
    tokens: Path | None = None,
    column: str | None = None,
    layer: str | None = None,
    group: str | None = None,
    ask: int = 10,
    seed: int = 0,
    reading: Reading = Reading(),
    account: Account = Account(),
    overwrite: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Map a scene from a few labelled points or polygons, and say what that is worth.

    A head learns from statistics of each pixel's surroundings, and from the tokens over it if there are some. Groups
    of labels that lie near each other are left out in turn: they choose how much the head may learn, and whether it
    needs the tokens, and tell the balanced accuracy, beside the statistics alone. Beside the map lie its confidence, a
    STAC item, a picture, and points that are worth a label next, with room for it: fill it in and give that file, too.

    Args:
        scene: raster, folder of band files or STAC item; frames are joined by commas.
        labels: CSV with lon and lat (or x and y in the scene's system) and a class; or points or polygons as GeoJSON,
            GeoPackage, shapefile or FlatGeobuf; those of all files count.
        out: the map to write, a GeoTIFF.
        tokens: of the scene, as embed writes them.
        column: of the classes, codes or names; the one called class, label or code when not given.
        layer: of a file that has several.
        group: column of what belongs together, such as a place; by distance when there is none called group or place.
        ask: points to be labelled next.
        seed: of the trees, and of what is drawn.
        reading: what the files do not say themselves.
        account: on whose account the energy goes, see NAME.energy.json beside the map.
        overwrite: replace files that exist.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the rows to show progress.
        say: takes a line for the person who waits.

    Returns:
        map, confidence, item, picture, next, labels (of each class), groups, scores (of each head and of the
        majority), tokens_help, chosen, calibration and valid, the share of the scene that is mapped.

    Raises:
        InputError: labels that no head can learn from, a scene without bands or place, or files that are there.
    """
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{out}: wanted a name that ends in .tif; rename it")
    if not 0 <= ask <= 1000:
        raise InputError(f"ask {ask}: wanted 0 to 1000 points")
    with account.booked("points", say) as meter, trusting(trust):
        meter.bind(page_of(out))
        ground = open_ground(scene, tokens, reading, say)
        known = read_points(labels, ground.scene.geobox, column=column, layer=layer, group=group, say=say)
        files = _files(out)
        _check(files, ground, labels, tokens, overwrite=overwrite)
        meter.lap(START)
        features, seen = ground.at(known.rows, known.columns)
        known, features = known.kept(seen, " and ".join(map(str, labels)), say), features[seen]
        learned = _learn(known, features, ground, seed)
        for name in known.alone():
            say(f"{name}: all of its labels are of one group; left out, it is known to nobody and counts as wrong")
        meter.lap(ASSESS)
        told = _write(files, ground, known, learned, labels, ask=ask, seed=seed, progress=progress)
        height, width = ground.scene.shape
        side = pixel_side(ground.scene.geobox) or 0.0
        meter.made(km2=told["valid"] * height * width * (side / 1000) ** 2, samples=len(known.target))
        meter.lap(TILES)
        return {**{name: str(path) for name, path in files.items()}, "labels": known.counts(), **learned.told, **told}


@dataclass(frozen=True)
class _Learned:
    """A head, and what is known of it."""

    head: Told
    tokens: bool
    calibration: Calibration
    spec: Spec
    told: Mapping[str, Any]


def _files(out: Path) -> dict[str, Path]:
    """What is written, by its kind."""
    names = {"confidence": "_confidence.tif", "item": ".json", "picture": ".png", "next": "_next.geojson"}
    return {"map": out} | {kind: out.with_name(f"{out.stem}{name}") for kind, name in names.items()}


def _check(
    files: Mapping[str, Path], ground: Ground, labels: Sequence[Path], tokens: Path | None, *, overwrite: bool
) -> None:
    """Refuse to replace what is read, and files without leave."""
    read = {path.resolve() for path in (*labels, tokens) if path} | {*ground.scene.files}
    for path in files.values():
        if path.resolve() in read:
            raise InputError(f"{path}: is read, and would be replaced; --out wants another name")
        if path.is_dir() or (path.exists() and not overwrite):
            raise InputError(f"{path}: exists already; give another name, or --overwrite to replace it")
    strip = 8 * STRIP * CELL * max(part.stop for part in ground.sets.values())
    check_memory(ground.scene.name, [Layout(ground.scene.geobox, "float32")], strip=strip)


def _learn(known: Labels, features: Array, ground: Ground, seed: int) -> _Learned:
    """Ask heads about groups left out; the one that the map is drawn by learns from all labels."""
    whole = Labelled(features, known.target, known.weight, known.group, len(known.classes))
    sets = {ALONE: whole.of(ground.sets[STATISTICS])} | ({BOTH: whole} if TOKENS in ground.sets else {})
    worths = {name: worth(labelled, seed=seed) for name, labelled in sets.items()}
    groups = len(np.unique(known.group))
    chosen = max(worths, key=lambda name: worths[name].score or 0.0)  # the first, without tokens, of equals
    sure = calibration(worths[chosen], sets[chosen])
    scores = summary({name: worths[name] for name in reversed(worths)}, len(known.classes), groups)
    told = {
        **{"groups": groups, "groups_by": "column" if known.named else "distance", "scores": scores, "chosen": chosen},
        **{"tokens_help": _helped(worths, groups), "calibration": sure.to_json()},
    }
    bands = ground.scene.bands
    ours = features[:, : len(bands)] * 1e4
    mean, std = (tuple(map(float, of)) for of in (ours.mean(0), ours.std(0)))
    pixels = Pixels(bands, mean, std, ground.scene.frames)
    spec = Spec("segmentation", {IMAGERY: pixels}, {"class": Classes(known.classes)})
    head = fit(sets[chosen], worths[chosen].strength, seed=seed)
    return _Learned(head, chosen == BOTH, sure, spec, told)


def _helped(worths: Mapping[str, Worth], groups: int) -> str:
    """Whether tokens help, as a sentence."""
    if BOTH not in worths:
        return "No tokens were given: the map is by statistics alone."
    if worths[BOTH].score is None:
        return "Whether tokens help cannot be told: all labels are of one group."
    found = compared(worths[BOTH], worths[ALONE], groups)
    words = {"ahead": "Tokens help. ", "behind": "Tokens do harm here. ", "level": "Tokens do not change much. "}
    names = ("With tokens it", "Without tokens it")
    return words.get(found.verdict, "Whether tokens help cannot be told. ") + found.told(names=names)


def _write(
    files: Mapping[str, Path],
    ground: Ground,
    known: Labels,
    learned: _Learned,
    labels: Sequence[Path],
    *,
    ask: int,
    seed: int,
    progress: Progress | None,
) -> dict[str, Any]:
    """Draw the maps, and what lies beside them; all files appear together, the map last."""
    scene, out = ground.scene, files["map"]
    dtype, nodata = map_type(learned.spec)
    tags = {
        "EARTHTUNE_LABELS": ",".join(path.name for path in labels),
        "EARTHTUNE_CONFIDENCE": learned.calibration.said,
    }
    layouts = {
        "map": Layout(scene.geobox, dtype, 1, nodata, known.classes, ["class"], tags=tags),
        "confidence": Layout.of_fields(scene.geobox, ["highest probability"], tags=tags),
    }
    for kind, layout in layouts.items():
        check_target(files[kind], layout, overwrite=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with draft(out) as file:
        work = file.parent
        doubtful = _Doubtful([])
        parts = {kind: work / f"parts_{kind}" for kind in layouts}
        for folder in parts.values():
            folder.mkdir()
        regroups = {kind: Regroup(layout, what=str(files[kind])) for kind, layout in layouts.items()}
        tops = range(0, scene.shape[0], STRIP)
        for top in progress(tops, scene.name) if progress else tops:
            drawn = _strip(ground, learned, top, doubtful)
            for kind, regroup in regroups.items():
                for row, part in regroup.add(top, drawn[kind]):
                    write_part(parts[kind], row, part, layouts[kind], files[kind])
        made = {kind: work / files[kind].name for kind in files}
        filled = 0
        for kind, layout in layouts.items():
            regroups[kind].finish()
            count = join(parts[kind], made[kind], layout)
            filled = count if kind == "map" else filled
            _remove(parts[kind])
        asked = doubtful.chosen(ask, seed)
        made["next"].write_text(_geojson(asked, known, ground), encoding="utf-8")
        write_quicklook(made["picture"], made["map"], classes=learned.spec.answer.classes, scene=scene)
        item = points_item(scene, made, learned.spec.answer.classes, learned.told, labels, folder=out.parent)
        made["item"].write_text(json.dumps(item, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return {"valid": round(filled / (scene.shape[0] * scene.shape[1]), 6), "asked": len(asked)}


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _strip(ground: Ground, learned: _Learned, top: int, doubtful: _Doubtful) -> dict[str, NDArray[Any]]:
    """Some rows of the maps."""
    height, width = ground.scene.shape
    bottom = min(top + STRIP, height)
    p = np.zeros((len(learned.spec.answer.classes), bottom - top, width), np.float32)
    valid = np.zeros((bottom - top, width), bool)
    for left in range(0, width, CELL):
        window = slice(top, bottom), slice(left, min(left + CELL, width))
        features, known = ground.read(window, tokens=learned.tokens)
        if known.any():
            rows = features[:, known].T
            answers = tempered(learned.head(rows), learned.calibration.temperature, axis=1)
            p[:, :, window[1]][:, known] = answers.T
            doubtful.add(window, known, rows, answers)
        valid[:, window[1]] = known
    return {kind: _drawn(kind, learned.spec, p, valid) for kind in ("map", "confidence")}


def _drawn(kind: str, spec: Spec, p: Array, valid: Mask) -> NDArray[Any]:
    if kind == "map":
        dtype, nodata = map_type(spec)
        codes = np.array(spec.answer.codes, dtype)[p.argmax(axis=0)]
        return np.where(valid, codes, np.array(nodata, dtype))[None]
    return np.where(valid, p.max(axis=0), np.float32(np.nan))[None]


@dataclass
class _Doubtful:
    """Pixels that a label would tell much of: the least sure of each cell, with their features."""

    found: list[tuple[NDArray[np.intp], Array, NDArray[Any]]]

    def add(self, window: Window, known: Mask, rows: Array, answers: Array) -> None:
        """Take the least sure of a cell."""
        sure = answers.max(axis=1)
        least = np.argsort(sure, kind="stable")[:DOUBTFUL]
        places = np.argwhere(known)[least] + (window[0].start, window[1].start)
        about = np.stack((sure[least], answers[least].argmax(axis=1)), axis=1)
        self.found.append((places.astype(np.intp), rows[least], about))

    def chosen(self, most: int, seed: int) -> list[tuple[int, int, float, int]]:
        """Row, column, confidence and class of pixels of the less sure half that are unlike each other."""
        if not self.found or not most:
            return []
        places, rows, about = (np.concatenate(part) for part in zip(*self.found, strict=True))
        half = np.argsort(about[:, 0], kind="stable")[: max(len(about) // 2, most)]
        picked = [int(half[i]) for i, _ in k_centre(rows[half], most, seed=seed)]
        return [(int(places[i, 0]), int(places[i, 1]), float(about[i, 0]), int(about[i, 1])) for i in picked]


def _geojson(asked: Sequence[tuple[int, int, float, int]], known: Labels, ground: Ground) -> str:
    """The points to be labelled next, with room for the class, in longitude and latitude."""
    geobox = ground.scene.geobox
    middles = [geobox.affine * (column + 0.5, row + 0.5) for row, column, _, _ in asked]
    places = transform(str(geobox.crs), "EPSG:4326", *zip(*middles, strict=True)) if middles else ([], [])
    features = [
        {
            "type": "Feature",
            "properties": {
                **{"point": number, "class": None, "map_says": known.classes[index].name},
                "confidence": round(sure, 3),
            },
            "geometry": {"type": "Point", "coordinates": [round(lon, 7), round(lat, 7)]},
        }
        for number, ((_, _, sure, index), lon, lat) in enumerate(zip(asked, *places, strict=True), 1)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1, ensure_ascii=False) + "\n"
