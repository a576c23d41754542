"""What reduced precision changes of a model's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.runtime.engines import load_runtime, multiplies_bytes
from models.spec import Answer, Classes
from models.types import Inputs, Predict


def rounding(folder: Path, answer: Answer, inputs: Inputs, *, exact: Predict) -> dict[str, dict[str, float]]:
    """Compare a run's answers in this machine's reduced precisions with those in float32.

    Args:
        folder: the run, with model.onnx.
        answer: what it says.
        inputs: samples by the name of the input, as the runtime takes them.
        exact: the model in float32.

    Returns:
        What `Bundle.rounding` holds.
    """
    wanted, classes = exact(inputs), isinstance(answer, Classes)  # (B, K, H, W), or (B, K)
    unit = 1.0 if classes else float(wanted.std()) or 1.0
    told = {}
    for name in ("bf16", *(["i8"] if multiplies_bytes() else [])):
        came = load_runtime(folder, runtime="openvino", precision=name)(inputs)
        difference = float(np.quantile(np.abs(came - wanted).max(axis=1), 0.999)) / unit
        told[name] = {"difference": round(difference, 6), "samples": float(len(wanted))}
        if classes:
            told[name]["equal"] = round(float((came.argmax(axis=1) == wanted.argmax(axis=1)).mean()), 6)
    return told
