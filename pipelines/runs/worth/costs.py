"""What a tile, or a map of weather, costs a student and its teacher: CPU seconds, and energy by area.

Times differ from run to run, so they lie in a file of their own, which nothing else is made of.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.bundle import FILES, Bundle, read_bundle
from models.files import replacing
from models.runtime.engines import Runtime, load_runtimes, multiplies_bytes
from models.spec import IMAGERY, Spec
from models.types import Inputs
from pipelines.records.attempts import COST as PAGE
from pipelines.records.energy import TILES, Phase
from pipelines.records.footprint import WORLD, Span, said
from pipelines.records.label import summed
from pipelines.reports.measures import ABSENT
from pipelines.runs.training import base_of
from pipelines.scoring.passes import usual

ROUNDS = 5  # in which each model is asked once; the least of its times counts
LONG = 20.0  # CPU seconds after which no round of a precision begins
TIMES = (
    "CPU time of one thread on the machine that wrote this page, least of a few, start and reading left out. What has "
    "no teacher is the student's network."
)
ENERGY = "Energy is estimated from it (1 to 4 W a busy thread), for tiles that overlap as score lays them by itself."


def of(spec: Spec) -> str:
    """What a sample of a run is."""
    return "map" if spec.over_weather else "tile"


def write(out: Path, folders: Mapping[str, Path], inputs: Inputs) -> None:
    """Write down what a sample costs each of some models; afterwards the file of `read` lies in the folder.

    Args:
        out: the run folder.
        folders: of the models by name, with bundle.json; all eat and say the same.
        inputs: of one sample.
    """
    bundles = {name: read_bundle(folder) for name, folder in folders.items()}
    spec = next(iter(bundles.values())).spec
    km2 = area(spec.imagery.tile, spec.imagery.pixel) if IMAGERY in spec.inputs else None
    graphs = all(bundles[name].graph and (folder / FILES["graph"]).is_file() for name, folder in folders.items())
    runtime = "openvino" if graphs and not spec.over_weather else "torch"  # as `score` on a processor, alike for all
    models: dict[str, dict[str, Any]] = {name: {} for name in folders}
    threads = torch.get_num_threads()
    try:
        for precision in ("f32", "bf16", "i8", "int8"):
            found = {name: _loaded(folder, bundles[name], runtime, precision) for name, folder in folders.items()}
            loaded = {name: one for name, one in found.items() if one}
            for name, seconds in measured(loaded, inputs).items():
                energy = per_1000_km2(seconds, km2) if km2 else None
                models[name][precision] = {
                    "engine": loaded[name].name,
                    "cpu_s": seconds,
                    "wh_per_1000_km2": energy and list(energy),
                }
    finally:
        torch.set_num_threads(threads)
    with replacing(out / PAGE) as draft:
        draft.write_text(json.dumps({"of": of(spec), "km2": km2, "models": models}, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """What `write` wrote: "of", what a sample is, its "km2", and for each of the "models" by precision its costs."""
    return dict(json.loads((folder / PAGE).read_text(encoding="utf-8")))


def area(tile: int, pixel: float | None) -> float | None:
    """Square kilometres that a tile adds to a map, of pixels of so many metres; None where these are not known."""
    return pixel and ((tile - usual(tile)) * pixel / 1e3) ** 2


def per_1000_km2(seconds: float, km2: float) -> Span:
    """Wh of the processor for 1,000 km2 of tiles of so many CPU seconds and square kilometres each."""
    made = {"km2": km2, "samples": 1}
    record = {"id": "", "command": "score", "country": WORLD, "part_of": "", "made": made, "unread": []}
    phases = {TILES: asdict(Phase(wall=seconds, cpu=seconds))}  # without memory, which is that of this process
    whole = {"wall": seconds, "cpu": seconds}
    label = summed([record | {"memory_measured": False, "whole": whole, "phases": phases}])
    return Span(*label["wh_per_1000_km2"])


def measured(loaded: Mapping[str, Runtime], inputs: Inputs) -> dict[str, float]:
    """Least CPU seconds of a call of each runtime, asked in turn so that all meet the same machine."""
    for one in loaded.values():
        one.run(inputs)  # the first call makes room
    least = dict.fromkeys(loaded, float("inf"))
    begun = time.process_time()
    for _ in range(ROUNDS):
        for name, one in loaded.items():
            before = time.process_time()
            one.run(inputs)
            least[name] = min(least[name], time.process_time() - before)
        if time.process_time() - begun > LONG:
            break
    return least


def _loaded(folder: Path, bundle: Bundle, runtime: str, precision: str) -> Runtime | None:
    """A run on one thread of the processor; None where it is not of this precision."""
    known = {"i8": multiplies_bytes(), "int8": bool(bundle.int8)} if runtime == "openvino" else {}
    if not known.get(precision, precision in ("f32", "bf16")):
        return None
    weights = base_of(folder) if runtime == "torch" else None
    found = load_runtimes([folder], runtime=runtime, precision=precision, weights=weights, threads=1)
    return found if found.name.lower().endswith(f"cpu {precision}") else None


def rows(spent: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """Rows of a table, by what they are called, with a cell for each of some models."""
    each, found = [spent["models"].get(name, {}) for name in names], dict[str, list[str]]()
    for precision in dict.fromkeys(key for one in each for key in one):
        some = [one.get(precision) for one in each]
        found[f"CPU time a {spent['of']}, {precision}"] = [_milliseconds(one) if one else ABSENT for one in some]
        if spent["km2"]:
            found[f"Energy per 1,000 km2, {precision}"] = [
                said(Span(*one["wh_per_1000_km2"]), "Wh") if one else ABSENT for one in some
            ]
    return found


def note(spent: Mapping[str, Any]) -> str:
    """How these numbers were found."""
    return f"{TIMES} {ENERGY}" if spent["km2"] else TIMES


def _milliseconds(one: Mapping[str, Any]) -> str:
    return f"{1e3 * one['cpu_s']:,.3g} ms"
