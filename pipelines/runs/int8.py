"""A run's model in bytes: calibrated on its training samples, and kept where it does as well on those left out."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import FILES, Bundle, check_file, read_bundle, write_bundle
from models.errors import InputError, RunError
from models.files import replacing
from models.runtime.engines import load_runtime
from models.runtime.export import export_onnx
from models.runtime.int8 import write_int8
from models.runtime.rounding import compared
from models.spec import IMAGERY, Classes
from models.types import Progress, Say
from pipelines.publishing.pull import check_own
from pipelines.recipes.recipe import Recipe
from pipelines.runs.assess import tested
from pipelines.runs.shares import LEARNED, set_weights
from pipelines.runs.training import FOLDS, trained
from pipelines.samples.sets import Samples, evenly, inputs_of, key_of, read_split
from pipelines.tasks.task import Task, load_recipe, task_named

CALIBRATED, COMPARED = 32, 64  # samples that ranges are learned from, and whose answers are compared one by one
SAME_LABELS, SAME_VALUES, LOST = 0.985, 0.1, 0.005  # what is kept: labels, values in deviations, and of the score
FLOAT, BYTES = "model", "int8"  # what the two are called where they are scored


@dataclass(frozen=True)
class Pair:
    """A bundle with its model in float32 and in bytes, and samples that it never saw."""

    folder: Path
    left: Sequence[Any]


def make_int8(run: Path, *, data_root: Path | None, progress: Progress | None, say: Say) -> dict[str, Any]:
    """Write model.int8.onnx into a run folder; see `commands.int8.int8`."""
    check_own(run, "`earthtune pull` makes a run of it that can have bytes, too")
    bundle = read_bundle(run)
    if IMAGERY not in bundle.spec.inputs:
        raise InputError(f"{run}: a {bundle.spec.task} run, and bytes are for runs over scenes; score it as it is")
    check_file(run / FILES["graph"], bundle.graph)
    task, changes = task_named(bundle.spec.task), {"data.root": str(data_root)} if data_root else {}
    recipe = load_recipe(run / "recipe.yaml", **changes)
    samples = task.reopen(bundle.spec, recipe.data)
    split = read_split(run / "split.csv", samples.keys)
    learned = [one for one in samples.samples if split.get(key_of(samples, one)) == "train"]
    if not learned:
        raise InputError(f"{samples.name}: none of the samples that {run} learned from; --data.root names their folder")
    with tempfile.TemporaryDirectory(prefix="earthtune-") as place:
        draft = Path(place) / "whole"
        say(f"rounding to bytes by {min(len(learned), CALIBRATED)} samples")
        layers = _bundle_of(draft, bundle, samples, learned, graph=run / FILES["graph"])
        if not layers:
            raise InputError(f"{run}: no layer that bytes could be multiplied in; score it as it is")
        if recipe.folds:
            pairs = [*_folds(run, Path(place), bundle, recipe, task, say)]
        else:
            pairs = [Pair(draft, tested(samples, split, own=True)[0])]
        told = _told(draft, bundle, samples, [one for pair in pairs for one in pair.left])
        score, told["before"], told["after"], lost = _scores(task, samples, pairs, progress)
        _admit(run, told, score, lost)
        with replacing(run / FILES[BYTES]) as file:
            shutil.copyfile(draft / FILES[BYTES], file)
    write_bundle(run, dataclasses.replace(bundle, rounding={**bundle.rounding, BYTES: told}))
    sizes = [(run / FILES[name]).stat().st_size for name in ("graph", BYTES)]
    return {"run": str(run), "layers": layers, "score": score, **told, "bytes": sizes[1], "bytes_before": sizes[0]}


def _bundle_of(
    folder: Path, bundle: Bundle, samples: Samples, learned: Sequence[Any], *, graph: Path | Callable[[Path], None]
) -> int:
    """Make a bundle of a graph, which is there or is written, and the same in bytes; how many layers are."""
    folder.mkdir()
    own = folder / FILES["graph"]
    if isinstance(graph, Path):
        own.symlink_to(graph.resolve())
    else:
        graph(own)
    chosen = [learned[i] for i in evenly(len(learned), CALIBRATED)]
    layers = write_int8(own, folder / FILES[BYTES], [inputs_of(samples, [one]) for one in chosen])
    write_bundle(folder, bundle)
    return layers


def _folds(run: Path, place: Path, bundle: Bundle, recipe: Recipe, task: Task, say: Say) -> Iterator[Pair]:
    """Each network of the folds, exported and in bytes, with the samples that it never saw."""
    samples = task.prepare(recipe)
    for fold in range(recipe.folds):
        weights = run / FOLDS / str(fold + 1)
        if not (weights / FILES["sha256"]).is_file():
            raise InputError(f"{weights}: the network of this fold is not there; copy the whole run folder again")
        say(f"fold {fold + 1} of {recipe.folds}: rounding its network, asking about what it never saw")
        samples.fold(recipe.folds, fold, seed=recipe.seed)
        samples.spec = task.fitted(samples, ("train",))
        network = trained(recipe, samples.spec, weights)
        set_weights(network, {name: getattr(bundle.architecture, name) for name in LEARNED})
        own, folder = dataclasses.replace(bundle, spec=samples.spec), place / str(fold + 1)
        _bundle_of(folder, own, samples, samples.of("train"), graph=partial(export_onnx, network))
        yield Pair(folder, samples.of("test"))


def _told(folder: Path, bundle: Bundle, samples: Samples, left: Sequence[Any]) -> dict[str, float]:
    """How answers in bytes compare with those in float32."""
    if not left:
        raise InputError(f"{samples.name}: no sample was left out of the training; nothing to compare with")
    inputs = inputs_of(samples, [left[i] for i in evenly(len(left), COMPARED)])
    exact, came = (load_runtime(folder, runtime="openvino", precision=name)(inputs) for name in ("f32", BYTES))
    return compared(bundle.spec.answer, exact, came)


def _scores(
    task: Task, samples: Samples, pairs: Sequence[Pair], progress: Progress | None
) -> tuple[str, float, float, float]:
    """The leading score's name, the score in float32 and in bytes, and what is lost.

    That is a difference of shares; for values, whose error has a unit, a part of the error.
    """
    of = {key_of(samples, one): pair.folder for pair in pairs for one in pair.left}
    asked: dict[str, Any] = {}
    for name, precision in ((FLOAT, "f32"), (BYTES, BYTES)):
        load = partial(load_runtime, runtime="openvino", precision=precision)
        tellers = {pair.folder: task.teller(load(pair.folder)) for pair in pairs}

        def tell(samples: Samples, some: Sequence[Any], tellers: Any = tellers) -> Any:
            return np.concatenate([tellers[of[key_of(samples, one)]](samples, [one]) for one in some])

        asked[name] = tell
    found = task.judge(samples, [one for pair in pairs for one in pair.left], asked, progress=progress)
    lead = found.shown.said[0]
    before, after = (float(found.scores[name][lead]) for name in (FLOAT, BYTES))
    share = isinstance(samples.spec.answer, Classes)
    return lead, before, after, before - after if share else (after - before) / max(before, 1e-9)


def _admit(run: Path, told: dict[str, float], score: str, lost: float) -> None:
    """Refuse bytes that change more than they may; nothing is kept then."""
    changed = []
    if not told.get("equal", 1.0) >= SAME_LABELS:
        changed.append(f"{told['equal']:.2%} of the labels stay, wanted {SAME_LABELS:.1%}")
    if "equal" not in told and not told["difference"] <= SAME_VALUES:
        changed.append(f"values differ by {told['difference']:.2g} of their deviation, wanted {SAME_VALUES}")
    if not lost <= LOST:
        changed.append(f"{score} goes from {told['before']:.4f} to {told['after']:.4f}, wanted {LOST:.1%} at most")
    if changed:
        raise RunError(f"{run}: its model does not bear bytes ({'; '.join(changed)}); none was kept, score it as it is")
