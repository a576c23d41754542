"""Map a GeoTIFF by the model in this folder, with onnxruntime, numpy and rasterio alone.

    python run_edge.py scene.tif map.tif

Everything that is particular to the model is in site.json; each graph takes one tile of a fixed size. A scene is read
and written by rows of tiles, so that it need not fit into memory. What each step does is what `earthtune score` does.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: it numbers the machine and reports

import onnxruntime
import rasterio
from rasterio.warp import transform
from rasterio.windows import Window

Array = np.ndarray[Any, Any]
LOOK = 128  # pixels a side of what is looked at before the work


class Refused(Exception):
    """What a person has to change, in one line."""


def main(arguments: list[str] | None = None) -> int:
    """Map a scene; 0 where it is mapped, 2 where the input has to change."""
    parser = argparse.ArgumentParser(description="Map a GeoTIFF by the model in this folder.")
    parser.add_argument("scene", type=Path)
    parser.add_argument("map", type=Path, help="the GeoTIFF to write")
    parser.add_argument("--confidence", type=Path, help="also write how sure the model is")
    parser.add_argument("--unfamiliar", type=Path, help="also write how unlike the training, above 1 is outside")
    parser.add_argument("--model", help="the name of one of the models in site.json")
    parser.add_argument("--bands", help="names in the order of the file, by commas")
    parser.add_argument("--scale", type=float, help="reflectance = stored * scale + offset")
    parser.add_argument("--offset", type=float)
    parser.add_argument("--nodata", type=float, help="stored value that means no data")
    parser.add_argument("--date", type=datetime.date.fromisoformat, help="YYYY-MM-DD")
    parser.add_argument("--as_is", action="store_true", help="take values that cannot be reflectance")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; all by default")
    parser.add_argument("--overwrite", action="store_true")
    told = parser.parse_args(arguments)
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # a scene without a place is allowed
    try:
        _run(told, Path(__file__).resolve().parent)
    except (Refused, OSError, rasterio.errors.RasterioError, rasterio.errors.CRSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _run(told: argparse.Namespace, folder: Path) -> None:
    """Open, check, map."""
    site = json.loads(_intact(folder, "site.json"))
    wanted = {"map": told.map, "confidence": told.confidence, "unfamiliar": told.unfamiliar}
    targets = {kind: path for kind, path in wanted.items() if path}
    if "confidence" in targets and not site["answer"]["classes"]:
        raise Refused("--confidence: the model tells values, not classes; leave it out")
    if "unfamiliar" in targets and not site["unfamiliar"]:
        raise Refused("--unfamiliar: the model kept no training pixels; leave it out")
    for path in targets.values():
        if path.resolve() == told.scene.resolve():
            raise Refused(f"{path}: is the scene; give the map another name")
        if path.exists() and not told.overwrite:
            raise Refused(f"{path}: exists already; give another name, or --overwrite to replace it")
    models = Models(folder, site, told.model, unfamiliar="unfamiliar" in targets, threads=told.threads)
    with rasterio.open(told.scene, driver="GTiff") as source:
        scene = Scene(source, site, told)
        if not told.as_is and (wrong := impossible(scene)):
            raise Refused(
                f"{source.name}: its values are no {site['unit']}: {wrong}; give --scale and --offset "
                "(reflectance = stored * scale + offset), or --as_is to take them as they are"
            )
        for note in scene.notes:
            print(f"{source.name}: {note}", file=sys.stderr)
        write(targets, scene, site, blended(scene, site, models))


def _intact(folder: Path, name: str) -> bytes:
    """A file of the site, which has to be the one that its checksum is of."""
    content = (folder / name).read_bytes()
    if f"{hashlib.sha256(content).hexdigest()}  {name}" not in (folder / "checksums.txt").read_text().splitlines():
        raise Refused(f"{folder / name}: not the file of checksums.txt; copy the whole site again")
    return content


class Models:
    """The graphs: bands of a tile to its answer, and how unlike the training it is as a channel more."""

    def __init__(self, folder: Path, site: dict[str, Any], name: str | None, *, unfamiliar: bool, threads: int) -> None:
        """Load one of the site's models, the first when not named."""
        files = {model["name"]: model["file"] for model in site["models"]}
        if name and name not in files:
            raise Refused(f"--model {name}: wanted one of {', '.join(files)}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        chosen = [files[name or site["models"][0]["name"]], *([site["unfamiliar"]] if unfamiliar else [])]
        on = ["CPUExecutionProvider"]
        self.sessions = [onnxruntime.InferenceSession(_intact(folder, file), options, on) for file in chosen]
        self.channels = self.sessions[0].get_outputs()[0].shape[1] + len(chosen) - 1

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """(K, tile, tile)."""
        given = [{i.name: inputs[i.name] for i in session.get_inputs()} for session in self.sessions]
        parts = [session.run(None, some)[0][0] for session, some in zip(self.sessions, given, strict=True)]
        return np.concatenate(parts)


class Scene:
    """A GeoTIFF as the model wants it."""

    def __init__(self, source: Any, site: dict[str, Any], told: argparse.Namespace) -> None:
        """Settle which bands, units and pixels without data an open file has, by what a person told before all else."""
        self.source, self.site, self.notes = source, site, list[str]()
        self.height, self.width = source.shape
        wanted = [band["name"] for band in site["bands"]]
        names = names_of(source, site, told.bands, wanted)
        self.indexes = [names.index(name) + 1 if name in names else self._lacks(name, names) for name in wanted]
        twice = next((name for name in wanted if names.count(name) > 1), None)
        if twice:
            raise Refused(f"{source.name}: band {twice} comes more than once; the model wants one date")
        clouds = [name for name in site["clouds"] if name in names] if site["reading"]["mask_clouds"] else []
        self.cloud = (names.index(clouds[0]) + 1, site["clouds"][clouds[0]]) if clouds else None
        if site["reading"]["mask_clouds"] and not clouds:
            self.notes.append("no band is called FMASK, SCL or QA_PIXEL, so that clouds are mapped, too")
        self.units = [self._units(i, b["stored"], told) for i, b in zip(self.indexes, site["bands"], strict=True)]
        declared = [source.nodatavals[i - 1] for i in self.indexes]
        trained = site["reading"]["nodata"]
        here = [] if told.nodata is None else [told.nodata]
        self.voids = [here + ([trained] if d is None and trained is not None else []) for d in declared]
        known = {float(d) for d in declared if d is not None} | {v for void in self.voids for v in void}
        self.date = told.date or date_of(source)
        if site["time"] and not self.date:
            raise Refused(f"{source.name}: the model wants the day and nothing tells it; --date gives it")
        if site["location"] and source.crs is None:
            raise Refused(f"{source.name}: the model wants the place, the file has no coordinate system; give it one")
        self.fill = self._find_fill(known) if site["reading"]["find_fill"] else None

    def _lacks(self, name: str, names: list[str | None]) -> int:
        had = [name for name in names if name]
        if had:
            raise Refused(f"{self.source.name}: band {name} is wanted, it has {', '.join(had)}")
        raise Refused(
            f"{self.source.name}: nothing names its {self.source.count} bands (wanted {name}); --bands gives their "
            "names in the order of the file"
        )

    def _units(self, index: int, stored: bool, told: argparse.Namespace) -> tuple[float, float, bool]:
        """Scale and offset to reflectance, and whether anything tells them."""
        header = self.source.scales[index - 1], self.source.offsets[index - 1]
        reading = self.site["reading"]
        if stored:
            return 1e-4, 0.0, True
        if told.scale is not None or told.offset is not None:
            return 1.0 if told.scale is None else told.scale, told.offset or 0.0, True
        if header != (1.0, 0.0):
            return *header, True
        if reading["scale"] is not None:
            return reading["scale"], reading["offset"], True
        return 1e-4, 0.0, False

    def stored(self, box: Window) -> Array:
        """Values of the wanted bands as the file has them, NaN where it has none: float32 (C, rows, columns)."""
        raw = self.source.read(self.indexes, window=box)
        hidden = self.source.read_masks(self.indexes, window=box) == 0
        for band, voids in enumerate(self.voids):
            hidden[band] |= np.isin(raw[band], np.array(voids).astype(np.result_type(raw, np.float32)))
        values: Array = raw.astype(np.float32)
        hidden |= ~np.isfinite(values)
        values[hidden] = np.nan
        return values

    def read(self, top: int, left: int, height: int, width: int) -> tuple[Array, Array]:
        """Values (C, height, width) in the model's unit, 0 where not valid; and valid (height, width)."""
        box = Window(left, top, width, height)
        x = self.stored(box)
        for values, (scale, offset, _) in zip(x, self.units, strict=True):
            values *= np.float32(scale * 1e4)
            values += np.float32(offset * 1e4)
        valid: Array = np.asarray(np.isfinite(x).all(axis=0))
        if self.fill is not None:
            valid &= ~self.fill[top : top + height, left : left + width]
        if self.cloud:
            index, code = self.cloud
            flags = self.source.read(index, window=box)
            unknown = self.source.read_masks(index, window=box) == 0
            flags = np.where(unknown, 0, flags).astype(np.int32)
            valid &= ~(unknown | ((flags & code["bits"]) != 0) | np.isin(flags, code["classes"]))
        x[:, ~valid] = 0
        return x, valid

    def inputs(self, x: Array, top: int, left: int, height: int, width: int) -> dict[str, Array]:
        """What the graphs take of a tile: x (C, tile, tile) with the day and the place of the window it is of."""
        given = {"imagery": x[None, :, None]}
        if self.site["time"] and self.date:
            day = (self.date - datetime.date(self.date.year, 1, 1)).days
            given["time"] = np.array([[[self.date.year, day]]], np.float32)
        if self.site["location"]:
            place = self.source.transform
            col, row = left + width / 2, top + height / 2
            at = place.c + place.a * col + place.b * row, place.f + place.d * col + place.e * row
            (longitude,), (latitude,) = transform(self.source.crs, "EPSG:4326", [at[0]], [at[1]])
            given["location"] = np.array([[latitude, longitude]], np.float32)
        return given

    def _find_fill(self, declared: set[float]) -> Array | None:
        """Pixels of one listed value in all bands that are connected to the edge, also over those without data."""
        listed = [listed_values(np.dtype(self.source.dtypes[i - 1])) for i in self.indexes]
        values = sorted(set.intersection(*listed) - declared - ({0.0} if len(listed) == 1 else set()))
        kinds = np.zeros((self.height, self.width), np.uint8)
        for top in range(0, self.height, LOOK):
            raw = self.stored(Window(0, top, self.width, min(LOOK, self.height - top)))
            rows = kinds[top : top + LOOK]
            for number, value in enumerate(values, 1):
                rows[(raw == np.float32(value)).all(axis=0)] = number
            rows[np.isnan(raw).any(axis=0)] = len(values) + 1
        found: Array = from_edge(kinds > 0) & (kinds <= len(values))
        return found if found.any() else None


def names_of(source: Any, site: dict[str, Any], told: str | None, wanted: list[str]) -> list[str | None]:
    """The name of each band of a file: as told, else by its description, else as in training."""
    texts = told.split(",") if told else [text or "" for text in source.descriptions]
    if len(texts) != source.count:
        raise Refused(f"{source.name}: has {source.count} bands, {len(texts)} names were given; name each band once")
    codes = [band_code(text) for text in texts]
    table = site["codes"] if {"B8A", "B12"} & set(codes) else {}
    names = [table.get(code) if code else band_name(text, site) for code, text in zip(codes, texts, strict=True)]
    asked = [band for band in ("NIR_NARROW", "NIR_BROAD") if band in wanted]
    if not {"NIR_NARROW", "NIR_BROAD"} & set(names) and len(asked) == 1:
        names = [asked[0] if name == "NIR" else name for name in names]
    trained = site["reading"]["bands"]
    if not any(names) and len(trained) == source.count:
        return [band_name(text, site) or text for text in trained]
    return names


def band_code(text: str) -> str | None:
    """'B2', 'Band 8A' and 'SR_B4' as 'B02', 'B8A' and 'B04'."""
    pattern = r"(?:\d+_|\w*\d{8}\w*_)?(?:sr[ _.-]?)?(?:b|band)[ _.-]?0?(\d{1,2})(a?)(?:_\d+)?"
    parts = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
    return None if parts is None else f"B{parts[1]}A" if parts[2] else f"B{int(parts[1]):02d}"


def band_name(text: str, site: dict[str, Any]) -> str | None:
    """The band, or the cloud layer, that a text such as 'NIR narrow' or 'B02 - Blue' names."""
    length = r"[(\[]?\s*\d+(?:\.\d+)?\s*(?:nm|nanometers?|[uµ]m|micrometers?)\s*[)\]]?"
    text = re.sub(length, "", text, flags=re.IGNORECASE)
    parts = re.fullmatch(r"\s*(?:b|band)[ _]?\d{1,2}a?\s*[ _\-:(]+\s*([a-z].*?)\)?\s*", text, re.IGNORECASE)
    known = {alias: name for name, aliases in site["names"].items() for alias in aliases}
    return known.get(plain(text)) or (known.get(plain(parts[1])) if parts else None)


def plain(text: str) -> str:
    """Small letters and figures only."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def date_of(source: Any) -> datetime.date | None:
    """The day by the file's tags, else by its name."""
    tags = {key.upper(): text for key, text in source.tags().items()}
    texts = [tags.get("SENSING_TIME"), tags.get("ACQUISITION_DATE"), tags.get("DATETIME"), Path(source.name).name]
    patterns = {
        r"(?<!\d)((?:19|20)\d{2})[-_](\d{2})[-_](\d{2})(?!\d)": "%Y%m%d",
        r"(?<!\d)((?:19|20)\d{2})(\d{2})(\d{2})(?!\d)": "%Y%m%d",
        r"(?<!\d)((?:19|20)\d{2})(\d{3})(?!\d)": "%Y%j",
    }
    for text in texts:
        found = [(match, form) for pattern, form in patterns.items() for match in re.finditer(pattern, text or "")]
        for match, form in sorted(found, key=lambda pair: pair[0].start()):
            try:
                day = datetime.datetime.strptime("".join(match.groups()), form).date()
            except ValueError:
                continue
            if day.year >= 1970:
                return day
    return None


def listed_values(dtype: Any) -> set[float]:
    """What may be fill in a band of a type."""
    info: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    least, most = float(info.min), float(info.max)
    return {value for value in (0.0, -9999.0, least, most) if least <= value <= most}


def from_edge(open_: Array) -> Array:
    """Which pixels of a mask are 4-connected to the edge through others of it, by whole runs of rows and columns."""
    reached = open_.copy()
    reached[1:-1, 1:-1] = False
    while reached.any():
        before = np.count_nonzero(reached)
        for _ in range(2):  # along rows, then along columns
            flat = np.pad(open_, ((0, 0), (1, 0))).ravel()  # a closed pixel ends the runs of each row
            run = np.cumsum(flat & ~np.r_[False, flat[:-1]])
            hit = np.zeros(int(run[-1]) + 1, bool)
            hit[run[np.pad(reached, ((0, 0), (1, 0))).ravel()]] = True
            reached = (flat & hit[run]).reshape(open_.shape[0], -1)[:, 1:].T
            open_ = open_.T
        if np.count_nonzero(reached) == before:
            break
    return reached


def impossible(scene: Scene) -> str:
    """Why the values of a scene cannot be reflectance; empty where they can.

    Half of the ground reflects no more than all light and nothing less than none; beyond 2 micrometres not all of it
    is bright. Five parts that hold data are looked at, from the middle outwards.
    """
    chosen = [i for i, band in enumerate(scene.site["bands"]) if band["reflectance"]]
    parts: list[Array] = []
    for down, right in [(4, 4), (2, 2), (2, 6), (6, 2), (6, 6), *((i, j) for i in range(1, 8) for j in range(1, 8))]:
        place = [max(side * at // 8 - LOOK // 2, 0) for side, at in ((scene.height, down), (scene.width, right))]
        size = [min(LOOK, side - at) for side, at in zip((scene.height, scene.width), place, strict=True)]
        x, valid = scene.read(*place, *size)
        parts += [x[chosen][:, valid] / 1e4] if valid.any() else []
        if len(parts) == 5:
            break
    if not parts or not chosen:
        return ""
    x = np.concatenate(parts, axis=1)
    kinds = {scene.source.dtypes[scene.indexes[i] - 1] for i in chosen}
    low, middle, high = np.percentile(x, (1, 50, 98), axis=1)
    if middle.max() > 1.6:
        return f"half of the pixels of a band reflect {middle.max():.3g} times the light that reaches them, or more"
    if np.median(high) > 2:
        return f"bright pixels reflect {np.median(high):.3g} times the light that reaches them"
    if middle.min() < -0.03:
        return f"half of the pixels of a band lie below {middle.min():.2g}, and nothing reflects less than nothing"
    if (x < -0.5).any(axis=0).mean() > 0.01:
        return "pixels lie below -0.5, and nothing reflects less than nothing; if they are no data, --nodata says so"
    if any(kind.startswith("float") for kind in kinds) and np.abs(high).max() <= 0.0002:
        return f"no pixel reflects more than {np.abs(high).max():.2g}"
    if "SWIR_2" in [scene.site["bands"][i]["name"] for i in chosen] and low.min() > 0.6:
        return f"every pixel reflects more than {low.min():.2g} in every band, also beyond 2 micrometres"
    if kinds == {"uint8"} and not any(scene.units[i][2] for i in chosen):
        return "8-bit counts: a picture, or a product whose scale nothing tells"
    return ""


def weights(size: int, tile: int, overlap: int, phase: int = 0) -> list[tuple[int, Array]]:
    """First pixel and blending weights of each tile along a side: raised cosines, over their sum at each pixel."""
    last, step = max(size - tile, 0), tile - overlap
    firsts, length = sorted({0, *range(phase % step, last, step), last}), min(tile, size)
    hann = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    total = np.zeros(size)
    for first in firsts:
        total[first : first + length] += hann
    return [(first, (hann / total[first : first + length]).astype(np.float32)) for first in firsts]


def phase(place: Any) -> tuple[int, int]:
    """Row and column at which the coordinate system begins: tiles are counted from there."""
    down, across = (0, 0) if place.b or place.d else (place.f / place.e, place.c / place.a)
    return -int(np.floor(down + 0.5)), -int(np.floor(across + 0.5))


def blended(scene: Scene, site: dict[str, Any], models: Models) -> Iterator[tuple[int, Array, Array]]:
    """First row, finished rows (K, n, width) and their valid mask (n, width), as soon as no later tile touches them."""
    tile, overlap = site["tile"], site["overlap"]
    sides = zip((scene.height, scene.width), phase(scene.source.transform), strict=True)
    down, across = (weights(size, tile, overlap, begin) for size, begin in sides)
    side = min(tile, scene.height)
    strip = np.zeros((models.channels, side, scene.width), np.float32)
    mask = np.zeros((side, scene.width), bool)
    for (row, tall), below in zip(down, [*(first for first, _ in down[1:]), scene.height], strict=True):
        for col, wide in across:
            x, valid = scene.read(row, col, side, len(wide))
            mask[:, col : col + len(wide)] = valid
            if not valid.any():
                continue
            if not valid.all():  # the others get the tile's mean
                x = np.where(valid, x, x[:, valid].mean(axis=1, dtype=np.float64).astype(np.float32)[:, None, None])
            x = np.pad(x, ((0, 0), (0, tile - side), (0, tile - len(wide))), mode="symmetric")
            y = models(scene.inputs(x, row, col, side, len(wide)))
            if not np.isfinite(y).all():
                raise Refused(f"{scene.source.name}: the model's answer is not finite near row {row}, column {col}")
            strip[:, :, col : col + len(wide)] += y[:, :side, : len(wide)] * np.outer(tall, wide)
        done = min(below - row, side)
        yield row, strip[:, :done], mask[:done]
        for array in (strip.swapaxes(0, 1), mask):  # rows first
            array[: side - done] = array[done:]
            array[side - done :] = 0


def drawn(kind: str, site: dict[str, Any], y: Array, valid: Array) -> Array:
    """Rows of a map: classes or values, the highest probability after calibration, or what is unfamiliar."""
    answer = site["answer"]
    count = len(answer["classes"]) or 1
    if kind == "confidence":
        p = y[:count]
        if site["temperature"] != 1:
            p = np.clip(p, 1e-6, None) ** np.float32(1 / site["temperature"])
            p /= p.sum(axis=0, keepdims=True)
        return np.where(valid, p.max(axis=0), np.float32(np.nan))
    if answer["classes"] and kind == "map":
        codes = np.array([entry["code"] for entry in answer["classes"]], answer["dtype"])
        return np.where(valid, codes[y[:count].argmax(axis=0)], np.array(answer["nodata"], answer["dtype"]))
    return np.where(valid, y[-1 if kind == "unfamiliar" else 0], np.float32(np.nan))


def write(targets: dict[str, Path], scene: Scene, site: dict[str, Any], rows: Any) -> None:
    """Write maps beside their names, and give them these when they are whole."""
    answer, files, drafts = site["answer"], {}, {}
    classes = {entry["code"]: tuple(bytes.fromhex(entry["colour"][1:])) for entry in answer["classes"]}
    nodata = answer["nodata"] if classes else float("nan")
    profile = {"driver": "GTiff", "count": 1, "height": scene.height, "width": scene.width, "compress": "deflate"}
    profile |= {"crs": scene.source.crs, "transform": scene.source.transform, "tiled": True}
    try:
        for kind, path in targets.items():
            drafts[path] = path.with_name(f".{path.name}.{os.getpid()}")
            dtype, void = (answer["dtype"], nodata) if kind == "map" else ("float32", float("nan"))
            files[kind] = rasterio.open(drafts[path], "w", dtype=dtype, nodata=void, **profile)
            files[kind].set_band_description(1, answer["name"] if kind == "map" else kind)
            if kind == "map" and answer["unit"]:
                files[kind].set_band_unit(1, answer["unit"])
            files[kind].update_tags(EARTHTUNE_BUNDLE=site["bundle"], EARTHTUNE_INPUT=Path(scene.source.name).name)
            if kind == "map" and classes and dtype == "uint8":
                files[kind].write_colormap(1, classes | {nodata: (0, 0, 0, 0)})
        for first, y, valid in rows:
            for kind, file in files.items():
                file.write(drawn(kind, site, y, valid), 1, window=Window(0, first, scene.width, len(valid)))
        while files:
            files.popitem()[1].close()
        for path, draft in drafts.items():
            draft.replace(path)
    finally:
        for file in files.values():
            file.close()
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
