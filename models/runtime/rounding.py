"""What reduced precision changes of a model's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.runtime.engines import Array, Predict, load_runtime, multiplies_bytes
from models.spec import Spec


def rounding(
    folder: Path, spec: Spec, x: Array, time: Array | None, location: Array | None, *, exact: Predict
) -> dict[str, dict[str, float]]:
    """Compare a run's answers in this machine's reduced precisions with those in float32.

    Args:
        folder: the run, with model.onnx.
        spec: its Spec.
        x: samples (B, C, T, H, W) in the Spec's unit.
        time: (B, T, 2) or None.
        location: (B, 2) or None.
        exact: the model in float32.

    Returns:
        What `Bundle.rounding` holds.
    """
    wanted = exact(x, time, location)  # (B, K, H, W), or (B, K)
    unit = (float(wanted.std()) or 1.0) if spec.task == "regression" else 1.0
    told = {}
    for name in ("bf16", *(["i8"] if multiplies_bytes() else [])):
        came = load_runtime(folder, runtime="openvino", precision=name)(x, time, location)
        difference = float(np.quantile(np.abs(came - wanted).max(axis=1), 0.999)) / unit
        told[name] = {"difference": round(difference, 6), "samples": float(len(x))}
        if spec.task != "regression":
            told[name]["equal"] = round(float((came.argmax(axis=1) == wanted.argmax(axis=1)).mean()), 6)
    return told
