"""Score a run on its test split, or on other labelled files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.bundle import read_bundle
from models.errors import InputError, shown
from models.runtime.engines import load_runtime
from models.types import Progress
from pipelines.commands.outcome import Outcome
from pipelines.grids.rasters import trusting
from pipelines.publishing.pull import check_own
from pipelines.runs.assess import assess, tested, training_samples
from pipelines.runs.folder import read_curves
from pipelines.samples.sets import read_split
from pipelines.tasks.task import data_for, task_named
from pipelines.weather.formats.detect import is_address


def evaluate(
    run: Path,
    *,
    data_root: Path | None = None,
    codes: list[int] | None = None,
    out: Path | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    weights: Path | None = None,
    elevation: Path | None = None,
    climatology: str | None = None,
    batch: int = 8,
    trust: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a run on its test split, or on all labelled files of another folder.

    Writes metrics.json and report.html, over those of the run unless --out names another folder; the run's own scores
    stay in bundle.json. The baselines are trained anew on the run's training split where that is still there.

    Args:
        run: the run folder, or hf://org/name@revision of a published one.
        data_root: another folder with the same kind of files; all of them are scored.
        codes: class codes whose mean IoU is told beside the mean over all.
        out: folder for metrics.json and report.html; the run folder when not given.
        runtime: auto, openvino or torch.
        precision: auto, f32, bf16, i8 or int8.
        weights: base weights, for --runtime torch and a bundle that stores its head only.
        elevation: elevation of another place, for a downscaling run; that of the training when not given.
        climatology: another place of it (hub, a folder), for a run of rain that takes it; that of the training when
            not given.
        batch: tiles predicted at once.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; and ask for data at
            the addresses that the run names; for those you know.
        progress: wraps the samples to show progress.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: not a run, or data that the run cannot eat.
    """
    if out is None:
        check_own(run, "--out names a folder for metrics.json and report.html")
    with trusting(trust):
        bundle = read_bundle(run)
        task = task_named(bundle.spec.task)
        data = data_for(bundle)
        check_addresses(run, data, trust=trust)
        predict = load_runtime(run, runtime=runtime, precision=precision, weights=weights)
        own = data_root is None or data_root.resolve() == data.root.resolve()
        places: dict[str, Any] = {"elevation": elevation, "climatology": climatology}
        samples = task.reopen(bundle.spec, data_for(bundle, root=None if own else data_root, **places))
        chosen, notes = tested(samples, read_split(run / "split.csv", samples.keys), own=own)
        notes += samples.notes
        if own and bundle.training.get("refit"):
            notes.append(
                "This model was trained anew on all samples, these too: bundle.json holds the held-out scores."
            )
        try:
            trained = training_samples(run)
            baselines = task.baselines(*trained) if trained[1] else {}
        except InputError as error:
            notes.append(f"No baselines: the training data cannot be read any more ({error}).")
            baselines = {}
        if baselines and bundle.training.get("corrections"):
            notes.append("The baselines were trained anew on the labels as they are, without the corrections.")
        models = {"model": task.teller(predict), **baselines}
        curves = read_curves(run / "metrics.csv")
        how: dict[str, Any] = {"codes": codes or [], "batch": batch, "progress": progress}
        return assess(out or run, bundle, samples, chosen, models, curves=curves, notes=notes, **how)


def check_addresses(run: Path, data: Any, *, trust: bool) -> None:
    """Refuse to ask the network for what a bundle names, which may come from a stranger."""
    named = (pattern for key in ("inputs", "target_files", "coarse") for pattern in getattr(data, key, []))
    if not trust and (away := next((pattern for pattern in named if is_address(pattern)), None)):
        raise InputError(f"{run}: its data lie at {shown(away)}; --trust asks there, for runs that you know")


def told(result: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The headline, what a person should know of it, and where the report is."""
    folder = options.get("out") or options["run"]
    return Outcome(result, "\n".join([result["headline"], *result["notes"], f"report: {folder / 'report.html'}"]))
