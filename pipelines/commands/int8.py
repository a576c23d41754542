"""earthtune int8: the model of a run in bytes, beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.types import Progress
from pipelines.commands.outcome import Outcome
from pipelines.grids.rasters import trusting
from pipelines.reports.measures import named, number


def int8(
    run: Path,
    *,
    data_root: Path | None = None,
    trust: bool = False,
    progress: Progress | None = None,
    say: Any = lambda line: None,
) -> dict[str, Any]:
    """Round the model of a run over scenes to bytes, for `score --precision int8`, `edge` and small machines.

    Writes model.int8.onnx into the run folder, a third of the size, calibrated on 32 training samples, and into
    bundle.json what it changes. It is kept only where, on samples that were left out of the training, 98.5 % of the
    labels stay and at most half a point of the score is lost (of the error of values, half a percent); of a run with
    folds the networks of the folds are rounded and asked, too. Maps are made with it only where it is asked for. Needs
    onnxruntime: pip install 'earthtune[int8]'.

    Args:
        run: the run folder.
        data_root: where the training data is, if it was moved.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps the samples to show progress.
        say: takes a line for the person who waits.

    Returns:
        The run, how many layers are in bytes, how answers compare, the score before and after, and the sizes.

    Raises:
        InputError: no run over scenes, or training data that cannot be read any more.
        RunError: the model does not bear bytes, or the disk is full.
    """
    from pipelines.runs.int8 import make_int8  # torch: not for the help

    with trusting(trust):
        return make_int8(run, data_root=data_root, progress=progress, say=say)


def told(result: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    """What it changes, and how to score with it."""
    score = result["score"]
    before, after = (number(score, result[key]) for key in ("before", "after"))
    same = f"{result['equal']:.2%} of the labels stay, " if "equal" in result else ""
    large, small = (f"{result[key] / 1e6:.1f} MB" for key in ("bytes_before", "bytes"))
    lines = [
        f"{result['layers']} layers in bytes, {large} become {small}",
        f"on samples left out: {same}{named(score)} {before} in float32, {after} in bytes",
        f"score with it: earthtune score {result['run']} SCENE --out DIR --precision int8",
    ]
    return Outcome(result, "\n".join(lines))
