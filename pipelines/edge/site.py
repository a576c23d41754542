"""The folder: page, runtime, model, classes and a sample, with nothing fetched from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.bundle import FILES, Bundle, bundle_id, check_file, load_familiar, read_bundle
from models.errors import InputError
from models.files import check_folder, draft_folder
from models.runtime.hashes import sha256
from models.runtime.static import write_static
from models.spec import IMAGERY, Spec, Values
from pipelines.edge.sample import write_sample
from pipelines.edge.unfamiliar import write_unfamiliar
from pipelines.edge.vendored import unpack
from pipelines.samples.unfamiliar import limit
from pipelines.scenes import sensors
from pipelines.scenes.bands import AS_STORED
from pipelines.scenes.reading import Reading
from pipelines.scoring.passes import usual
from pipelines.scoring.rows import map_type, temperature

FORMAT = 1
MOST_PIXELS = 16_000_000  # of a scene in a browser: its values and maps are in memory at once
GRAPHS = {"f32": "graph", "int8": "int8"}  # fields of a bundle that hold the hash of each graph
_OPTIONAL = ("sample.tif", "unfamiliar.onnx", "model-*.onnx")  # what a site may have, and the next one in its place not


def write_site(
    run: Path,
    out: Path,
    *,
    scene: str | None = None,
    reading: Reading = Reading(),
    overlap: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the site of a run; see `commands.edge.edge`."""
    bundle = read_bundle(run)
    _check(run, bundle.spec)
    tile = bundle.spec.imagery.tile
    shared = usual(tile) if overlap is None else overlap
    if not 0 <= shared < tile:
        raise InputError(f"overlap {shared}: wanted 0 to {tile - 1}, below the tile of {tile} pixels")
    check_folder(out, overwrite=overwrite)
    with draft_folder(out, replaces=_OPTIONAL[0], also=_OPTIONAL[1:]) as folder:
        models = _models(run, bundle, folder)
        familiar = load_familiar(run, bundle)
        if familiar:
            write_unfamiliar(folder / "unfamiliar.onnx", familiar, bundle.spec.imagery)
        if scene:
            write_sample(folder / "sample.tif", bundle, scene, reading, say=say)
        _copy_page(folder)
        unpack(folder)
        about = _about(run, bundle, overlap=shared) | {
            "models": models,
            "unfamiliar": "unfamiliar.onnx" if familiar else None,
            "sample": "sample.tif" if scene else None,
        }
        (folder / "site.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        sums = "".join(f"{sha256(folder / name)}  {name}\n" for name in sizes)
        (folder / "checksums.txt").write_text(sums, encoding="utf-8")
    return {"site": str(out), "models": [model["name"] for model in models], "bytes": sum(sizes.values())}


def _check(run: Path, spec: Spec) -> None:
    """Refuse what no site can do."""
    can = "a site maps classes or values per pixel, of images of one date"
    if IMAGERY not in spec.inputs or len(spec.inputs) > 1 or spec.answer.support != "pixel":
        raise InputError(f"{run}: {spec.task} of {' and '.join(spec.inputs)}: {can}; use `earthtune score`")
    if spec.imagery.times > 1:
        raise InputError(f"{run}: wants {spec.imagery.times} dates: {can}; use `earthtune score`")


def _models(run: Path, bundle: Bundle, folder: Path) -> list[dict[str, str]]:
    """Write the graphs that a run has, float32 first; their names, files and precisions."""
    found = []
    for name, field in GRAPHS.items():
        wanted = getattr(bundle, field)
        if not wanted and name != "f32":
            continue
        source, file = run / FILES[field], "model.onnx" if name == "f32" else f"model-{name}.onnx"
        check_file(source, wanted)
        write_static(source, folder / file)
        found.append({"name": name, "file": file})
    return found


def _copy_page(folder: Path) -> None:
    """The page, its modules and `run_edge.py`."""
    ours = resources.files("pipelines.edge")
    page = [file for file in ours.joinpath("page").iterdir() if re.search(r"\.(html|css|js)$", file.name)]
    for file in (*page, ours.joinpath("run_edge.py")):
        (folder / file.name).write_bytes(file.read_bytes())


def _about(run: Path, bundle: Bundle, *, overlap: int) -> dict[str, Any]:
    """What page and `run_edge.py` are to know, as plain data."""
    pixels, answer, data = bundle.spec.imagery, bundle.spec.answer, bundle.data
    dtype, nodata = map_type(bundle.spec)
    classes = [{"code": c.code, "name": c.name, "colour": c.colour} for c in answer.classes]
    known = sensors.aliases()
    names = known | {name: [re.sub(r"[^a-z0-9]", "", name.lower())] for name in pixels.channels if name not in known}
    bands = [
        {"name": name, "stored": name in AS_STORED, "reflectance": name in sensors.BANDS and name not in AS_STORED}
        for name in pixels.channels
    ]
    clouds = {name: {"bits": code.bits, "classes": code.classes} for name, code in sensors.CLOUDS.items()}
    return {
        "format": FORMAT,
        "title": str(bundle.training.get("recipe") or run.resolve().name),
        "software": f"earthtune {version('earthtune')}",
        "bundle": bundle_id(run),
        "backbone": bundle.backbone,
        "scores": _scores(bundle.scores),
        "tile": pixels.tile,
        "overlap": overlap,
        "bands": bands,
        "names": names,
        "codes": sensors.SENTINEL2,
        "unit": pixels.unit,
        "pixel": pixels.pixel,
        "time": pixels.uses_time,
        "location": pixels.uses_location,
        "answer": {
            "kind": "values" if isinstance(answer, Values) else "classes",
            "output": next(iter(bundle.spec.answers)),
            "name": answer.name,
            "unit": answer.unit,
            "classes": classes,
            "dtype": dtype,
            "nodata": nodata if classes else None,  # NaN of values, which JSON does not know
        },
        "temperature": temperature(bundle),
        "confidence": str(bundle.confidence.get("said", "")),
        "unfamiliar_limit": limit(bundle),
        "reading": {
            "bands": list(data.get("bands") or ()),
            "scale": data.get("scale"),
            "offset": data.get("offset") or 0.0,
            "nodata": data.get("nodata"),
            "find_fill": bool(data.get("find_fill", True)),
            "mask_clouds": bool(data.get("mask_clouds", False)),
        },
        "clouds": clouds,
        "most_pixels": MOST_PIXELS,
    }


def _scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that the page tells."""
    known = {name: scores.get(name) for name in ("accuracy", "mean_iou", "rmse", "r2")}
    return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}
