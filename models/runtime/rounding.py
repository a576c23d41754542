"""What reduced precision changes of a model's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.runtime.engines import load_runtimes, multiplies_bytes
from models.spec import Answer, Classes
from models.types import Array, Inputs, Predict


def rounding(folder: Path, answer: Answer, inputs: Inputs, *, exact: Predict) -> dict[str, dict[str, float]]:
    """Compare a run's answers in this machine's reduced precisions with those in float32.

    Args:
        folder: the run, with model.onnx.
        answer: what it says.
        inputs: samples by the name of the input, as the runtime takes them.
        exact: the model in float32.

    Returns:
        What `Bundle.rounding` holds; nothing of i8 where no layer is large enough for it.
    """
    wanted, told = exact(inputs), {}
    for name in ("bf16", *(["i8"] if multiplies_bytes() else [])):
        runtime = load_runtimes([folder], runtime="openvino", precision=name)
        if runtime.name.endswith(f" {name}"):
            told[name] = compared(answer, wanted, runtime.run(inputs)[0])
    return told


def compared(answer: Answer, wanted: Array, came: Array) -> dict[str, float]:
    """How answers (B, K, H, W), or (B, K), compare with those in float32; see `Bundle.rounding`."""
    classes = isinstance(answer, Classes)
    unit = 1.0 if classes else float(wanted.std()) or 1.0
    difference = float(np.quantile(np.abs(came - wanted).max(axis=1), 0.999)) / unit
    told = {"difference": round(difference, 6), "samples": float(len(wanted))}
    if classes:
        told["equal"] = round(float((came.argmax(axis=1) == wanted.argmax(axis=1)).mean()), 6)
    return told
