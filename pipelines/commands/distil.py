"""earthtune distil: a run in, a run of a sixth or a tenth of its parameters out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipelines.commands.outcome import Outcome
from pipelines.runs.folder import Launch


def distil(
    run: Path,
    *,
    out: Path,
    size: Literal["small", "tiny"] = "small",
    params: int | None = None,
    unlabelled: list[str] | None = None,
    epochs: int | None = None,
    data_root: Path | None = None,
    compare: bool = True,
    launch: Launch = Launch(),
) -> dict[str, Any]:
    """Make a small student of a run over scenes or weather, trained on its labels and on its teacher's answers.

    It begins with what is most active in its teacher; over weather its encoder and its trees are learned anew. The
    student is a run folder as any other. Its report tells how it does beside its teacher, and beside the same model
    trained without one, on samples that none of them saw, and what both cost.

    Args:
        run: the run folder of the teacher.
        out: the run folder of the student.
        size: small has a sixth of the parameters, tiny a tenth.
        params: most parameters, in place of --size.
        unlabelled: scenes without labels to learn from, too, of the bands that the run reads; for runs over scenes.
        epochs: passes over the training samples; as the run's when not given.
        data_root: where the training data is, if it was moved.
        compare: train the same model without a teacher, too; takes twice the time.
        launch: how it is carried out.
    """
    from pipelines.runs.distil import student_of  # torch: not for the help
    from pipelines.runs.finetune import finetune

    asked: dict[str, Any] = {"size": size, "params": params, "unlabelled": unlabelled or [], "epochs": epochs}
    recipe = student_of(run, data_root=data_root, compare=compare, **asked)
    result = finetune(recipe, out, launch=launch, name=f"student of {run.resolve().name}")
    return result and {"run": str(out), **result}


def told(result: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    """How it does beside its teacher, and where it is; nothing from other processes."""
    if not result:
        return Outcome({}, "")
    out = Path(result["run"])
    student = result.get("student") or {}
    lines = [result.get("headline", ""), *student.get("told", []), f"run: {out}", f"report: {out / 'report.html'}"]
    return Outcome(result, "\n".join(line for line in lines if line))
