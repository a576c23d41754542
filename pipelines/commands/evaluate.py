"""Score a model on labelled chips beside its baselines: metrics.json and report.html."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import WEATHER, Bundle, read_bundle, task_of
from models.errors import InputError, RunError
from models.spec import Spec
from pipelines.commands.outcome import Outcome
from pipelines.recipes.recipe import Data, data_of
from pipelines.runs.folder import refuse_unused, trained_on, write_result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.reports.report import Example
    from pipelines.samples.chips import Chip, Reader

    Array = NDArray[np.float32]
    Predict = Callable[[Array, Array | None, Array | None], Array]

EXAMPLES = 6
# Options that runs over weather do not take, and their values that ask for nothing; those runs always use torch.
_OF_SCENES: Mapping[str, Sequence[Any]] = {
    **{"codes": (None, []), "batch": (8,)},
    **{"runtime": ("auto", "torch"), "precision": ("auto",)},
}


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
    batch: int = 8,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
) -> dict[str, Any]:
    """Score a run on its test split, or on all labelled images of another folder.

    Writes metrics.json and report.html, over those of the run unless --out names another folder; the run's own scores
    stay in bundle.json. The baselines are trained anew on the run's training split where that is still there.

    Args:
        run: the run folder.
        data_root: another folder with the same kind of files; all of them are scored.
        codes: class codes whose mean IoU is told beside the mean over all.
        out: folder for metrics.json and report.html; the run folder when not given.
        runtime: auto, openvino or torch.
        precision: auto, f32, bf16 or i8.
        weights: base weights, for --runtime torch and a bundle that stores its head only.
        elevation: elevation of another place, for a downscaling run; that of the training when not given.
        batch: tiles predicted at once.
        progress: wraps the chips to show progress.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: not a run, or data that the run cannot eat.
    """
    given = dict(locals())
    if task_of(run) in WEATHER:
        from pipelines.runs.weather import evaluate_weather

        refuse_unused(given, _OF_SCENES, "for scenes; a run over weather is scored without")
        where = {"data_root": data_root, "out": out, "weights": weights, "elevation": elevation}
        return evaluate_weather(run, **where, curves=read_curves(run / "metrics.csv"), progress=progress)
    refuse_unused(given, {"elevation": (None,)}, "for runs that downscale weather; this one maps scenes")
    from models.runtime.engines import load_runtime
    from pipelines.samples.chips import Reader, find_chips, read_split

    bundle = read_bundle(run)
    spec, data = bundle.spec, data_of(bundle, Data)
    seed = int(bundle.training.get("seed", 0))
    predict = load_runtime(run, runtime=runtime, precision=precision, weights=weights)
    notes: list[str] = []
    asked = dataclasses.replace(data, root=data_root or data.root)
    own = asked.root.resolve() == data.root.resolve()
    split = read_split(run / "split.csv")  # not drawn again: files may have come or gone since
    chips = find_chips(asked, spec, seed=seed, split=False)
    known = [c for c in chips if c.name in split]
    tested = [c for c in known if split[c.name] == "test"] if own else chips
    if own and len(known) < len(chips):
        notes.append(f"{len(chips) - len(known)} samples came after the training and are left out.")
    if not own and known:
        notes.append(f"{len(known)} samples bear names of the training data; if they are the same, the scores flatter.")
    try:
        baselines = baselines_of(run)
    except InputError as error:
        notes.append(f"No baselines: the training data cannot be read any more ({error}).")
        baselines = {}
    return assess(
        out or run,
        bundle,
        Reader(spec, asked),
        tested,
        predict,
        baselines,
        codes=codes or [],
        curves=read_curves(run / "metrics.csv"),
        notes=notes,
        batch=batch,
        progress=progress,
    )


def baselines_of(run: Path) -> dict[str, Predict]:
    """The baselines of a run, trained anew on its training split.

    Raises:
        InputError: the training data cannot be read any more.
    """
    from pipelines.samples.chips import Reader, find_chips, read_split

    bundle, split = read_bundle(run), read_split(run / "split.csv")
    spec, data, seed = bundle.spec, data_of(bundle, Data), int(bundle.training.get("seed", 0))
    chips = [c for c in find_chips(data, spec, seed=seed, split=False) if split.get(c.name) == "train"]
    return fit(spec, Reader(spec, data), chips, seed=seed)


def fit(spec: Spec, reader: Reader, chips: Sequence[Chip], *, seed: int) -> dict[str, Predict]:
    """Train the baselines of a task on chips; each is called as a runtime is."""
    from models.baselines.pixels import fit_baselines

    samples = ((s.x, s.y) for s in map(reader, chips))
    return dict(fit_baselines(spec, samples, count=len(chips), seed=seed))


def assess(
    folder: Path,
    bundle: Bundle,
    reader: Reader,
    chips: Sequence[Chip],
    predict: Predict,
    baselines: Mapping[str, Predict],
    *,
    codes: Sequence[int] = (),
    curves: list[dict[str, float]],
    notes: Sequence[str] = (),
    batch: int = 8,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
) -> dict[str, Any]:
    """Score a model and its baselines on chips; write metrics.json and report.html into `folder`.

    Returns:
        {"headline", "data", "samples", "model": scores, "baselines": {name: scores}}, and for classes the model's
        "confusion": rows of true classes, columns of predicted ones.

    Raises:
        InputError: no chips, or none of their pixels is labelled.
    """
    from pipelines.reports.report import best_baseline, headline, write_report

    if batch < 1:
        raise InputError(f"batch {batch}: wanted at least 1")
    if not chips:
        raise InputError(f"{reader.data.root}: no sample to evaluate; look at data.fractions or data.test")
    spec = bundle.spec
    tally, pictures = _tallies(spec, reader, chips, {"model": predict, **baselines}, batch=batch, progress=progress)
    scores = {name: t.scores(codes) for name, t in tally.items()}
    if not scores["model"]["n"]:
        raise InputError(f"{reader.data.root}: none of the {len(chips)} samples has a labelled pixel; nothing to score")
    model = scores.pop("model")
    best, line = best_baseline(spec.task, scores), headline(spec, model, scores)
    result = {
        "headline": line,
        "data": str(reader.data.root),
        "samples": len(chips),
        "model": model,
        "baselines": scores,
    } | ({} if spec.task == "regression" else {"confusion": tally["model"].confusion.tolist()})
    write_result(folder, result)
    write_report(
        folder / "report.html",
        title=f"{bundle.training.get('recipe', 'run')}: {bundle.backbone}",
        spec=spec,
        facts=_facts(bundle, reader, len(chips)),
        scores=model,
        baselines=scores,
        confusion=tally["model"].confusion,
        curves=curves,
        examples=[_example(spec, reader, chips[i], outputs, best) for i, outputs in pictures],
        notes=[*bundle.training.get("notes", ()), *notes],
    )
    return result


def rounded(
    run: Path, spec: Spec, reader: Reader, chips: Sequence[Chip], exact: Predict
) -> dict[str, dict[str, float]]:
    """What `Bundle.rounding` is to hold, from at most 16 of some chips."""
    from models.runtime.rounding import rounding

    x, time, location = _inputs(spec, reader, [chips[i] for i in sorted(_evenly(len(chips), 16))])
    return rounding(run, spec, x, time, location, exact=exact)


def _tallies(
    spec: Spec,
    reader: Reader,
    chips: Sequence[Chip],
    models: Mapping[str, Predict],
    *,
    batch: int,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None,
) -> tuple[dict[str, Tally], list[tuple[int, dict[str, Array]]]]:
    """Run every model over every chip; keep their tallies, and the outputs of a few chips for pictures."""
    tally = {name: Tally(spec) for name in models}
    pick = _evenly(len(chips), EXAMPLES)
    pictures: list[tuple[int, dict[str, Array]]] = []
    shown = progress(range(0, len(chips), batch), "evaluating") if progress else range(0, len(chips), batch)
    for first in shown:
        part = chips[first : first + batch]
        outputs = _predict_batch(spec, reader, part, models)
        for i, chip in enumerate(part):
            y = reader(chip).y
            for name, output in outputs.items():
                tally[name].add(y, output[i])
            if first + i in pick:
                pictures.append((first + i, {name: output[i] for name, output in outputs.items()}))
    return tally, pictures


class Tally:
    """Streaming scores of one model."""

    def __init__(self, spec: Spec) -> None:
        """Start at nothing."""
        import numpy as np

        self.spec = spec
        self.confusion: Any = None if spec.task == "regression" else np.zeros((spec.outputs,) * 2, np.int64)
        self.sums: Any = None

    def add(self, y: NDArray[Any], output: Array) -> None:
        """Add one sample: its labels, and the model's output (K, H, W) or (K,)."""
        import numpy as np

        from pipelines.reports.scores import confusion_matrix, value_sums

        if not np.isfinite(output).all():
            raise RunError("the model's answer is not finite; look at the values of the input with `earthtune inspect`")
        if self.spec.task == "regression":
            sums = value_sums(y, output[0])
            self.sums = sums if self.sums is None else self.sums + sums
        else:
            truth, predicted = np.atleast_1d(y), np.atleast_1d(output.argmax(axis=0))
            self.confusion += confusion_matrix(truth, predicted, classes=self.spec.outputs)

    def scores(self, codes: Sequence[int] = ()) -> dict[str, Any]:
        """Scores as `pipelines.reports.scores` gives them, with the mean IoU of `codes` if any are named."""
        from pipelines.reports.scores import class_scores, mean_iou_of, value_scores

        if self.spec.task == "regression":
            return dict(value_scores(self.sums))
        scores = dict(class_scores(self.confusion, self.spec.classes))
        if codes:
            scores["mean_iou_of"] = {
                "codes": list(codes),
                "mean_iou": mean_iou_of(self.confusion, self.spec.classes, codes),
            }
        return scores


def _predict_batch(
    spec: Spec, reader: Reader, chips: Sequence[Chip], models: Mapping[str, Predict]
) -> dict[str, Array]:
    inputs = _inputs(spec, reader, chips)
    return {name: predict(*inputs) for name, predict in models.items()}


def _inputs(spec: Spec, reader: Reader, chips: Sequence[Chip]) -> tuple[Array, Array | None, Array | None]:
    """X (B, C, T, H, W), time and location of some chips."""
    import numpy as np

    x = np.stack([reader(c).x for c in chips])
    coordinates = [reader.coordinates(c) for c in chips]
    time = np.stack([c["time"] for c in coordinates]) if spec.uses_time else None
    location = np.stack([c["location"] for c in coordinates]) if spec.uses_location else None
    return x, time, location


def _evenly(count: int, most: int) -> set[int]:
    """Indices of at most `most` of `count` items, at even distances."""
    return {round(i * (count - 1) / max(min(count, most) - 1, 1)) for i in range(min(count, most))}


def _example(spec: Spec, reader: Reader, chip: Chip, outputs: Mapping[str, Array], best: str | None) -> Example:
    import numpy as np

    from pipelines.reports.plots import true_colour
    from pipelines.reports.report import Example

    sample = reader(chip)

    def answer(output: Array) -> NDArray[Any]:
        return output[0] if spec.task == "regression" else np.atleast_1d(output.argmax(axis=0))

    def shaped(a: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(a).reshape(1, 1) if spec.task == "classification" else a

    return Example(
        name=chip.name,
        image=true_colour(sample.x[:, -1], bands=spec.bands, valid=sample.valid),
        truth=shaped(sample.y),
        predicted=shaped(answer(outputs["model"])),
        valid=sample.valid,
        baseline=shaped(answer(outputs[best])) if best else None,
    )


def _facts(bundle: Bundle, reader: Reader, samples: int) -> dict[str, str]:
    spec = bundle.spec
    encodings = [name for name, on in (("time", spec.uses_time), ("location", spec.uses_location)) if on]
    return {
        "Evaluated on": f"{samples} samples of {reader.data.root.name or reader.data.root}",
        "Bands": ", ".join(spec.bands),
        "Tile": f"{spec.tile} x {spec.tile} pixels, patch {spec.patch}, {spec.frames} frame{'s' * (spec.frames > 1)}",
        "Encodings": ", ".join(encodings) or "none",
        **trained_on(bundle),
        "Reduced precision": "; ".join(map(_rounding_line, bundle.rounding.items())) or "not compared",
    }


def _rounding_line(item: tuple[str, Mapping[str, float]]) -> str:
    """How a reduced precision compares with float32, in words."""
    name, known = item
    same = f"{100 * known['equal']:.2f} % of the pixels keep their class, " if "equal" in known else ""
    return f"{name}: {same}99.9 % of the answers differ by less than {known['difference']:.2g}"


def read_curves(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv; empty where there is none."""
    import csv

    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def told(result: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The headline, and where the report is."""
    folder = options.get("out") or options["run"]
    return Outcome(result, f"{result['headline']}\nreport: {folder / 'report.html'}")
