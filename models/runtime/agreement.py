"""model.onnx, and whether it answers as its network does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from models.bundle import Bundle, write_bundle
from models.errors import RunError
from models.networks.assembly import AnyNetwork, predict_by
from models.runtime.engines import load_runtime
from models.runtime.export import example_inputs, export_onnx
from models.types import Predict

AGREEMENT = 1e-3  # largest difference between the exported model's answers and torch's: of probabilities, or in scales


def write_graph(
    out: Path,
    bundle: Bundle,
    network: AnyNetwork,
    inputs: Mapping[str, Tensor] | None = None,
    *,
    scale: float = 1.0,
) -> Predict:
    """Write model.onnx and bundle.json; the exported model in float32, which agrees with the trained one.

    Args:
        out: the run folder, with model.safetensors.
        bundle: what bundle.json is to hold.
        network: the trained network.
        inputs: a batch to compare answers on; one is made up for scenes when None.
        scale: of the answers.

    Raises:
        RunError: it answers differently; bundle.json is gone then.
    """
    inputs = inputs or example_inputs(bundle.spec, batch=3)
    export_onnx(network, out / "model.onnx", inputs)
    write_bundle(out, bundle)
    predict = load_runtime(out, runtime="openvino", precision="f32")
    given = {name: tensor.numpy() for name, tensor in inputs.items()}
    difference = float(np.abs(predict_by(network)(given) - predict(given)).max()) / scale
    if not difference <= AGREEMENT:
        (out / "bundle.json").unlink()
        raise RunError(
            f"{out / 'model.onnx'}: differs from the trained model by {difference:.2g}; the bundle is not kept"
        )
    return predict
