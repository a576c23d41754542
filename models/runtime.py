"""Run a bundle: OpenVINO on CPU, torch on CUDA; one function of tiles. Neither imports the other's library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import read_bundle
from models.errors import InputError, RunError

Array = NDArray[np.float32]
Runtime = Callable[[Array, Array | None, Array | None], Array]
RUNTIMES = ("auto", "openvino", "torch")


def load_runtime(folder: Path, *, runtime: str = "auto", weights: Path | None = None) -> Runtime:
    """Load a bundle as a function of tiles.

    The function takes x (B, C, T, H, W) float32 in the Spec's unit, time (B, T, 2) and location (B, 2) or None where
    the model does not use them, and returns (B, K, H, W), or (B, K) for scene classes, float32.

    Args:
        folder: the run.
        runtime: "openvino" runs model.onnx in float32; "torch" runs model.safetensors on CUDA where there is one,
            else on the CPU; "auto" takes torch where there is an NVIDIA device, else OpenVINO.
        weights: the base file, for "torch" and a bundle that stores the head only.

    Raises:
        InputError: not a run, no such runtime, or a file of the bundle is missing.
        RunError: model.onnx cannot be compiled.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime!r}: wanted one of {', '.join(RUNTIMES)}")
    bundle = read_bundle(folder)
    ready = bundle.whole or weights is not None  # torch needs the base of a bundle that stores its head only
    if runtime == "torch" or (runtime == "auto" and ready and Path("/proc/driver/nvidia/version").exists() and _cuda()):
        return _torch_runtime(folder, weights)
    return _openvino_runtime(folder)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _openvino_runtime(folder: Path) -> Runtime:
    import openvino

    model = folder / "model.onnx"
    if not model.is_file():
        raise InputError(f"{model}: missing; use --runtime torch, or copy the whole run folder again")
    try:
        # float32 throughout: year and day of year do not survive bfloat16.
        compiled = openvino.Core().compile_model(str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise RunError(f"{model}: OpenVINO cannot compile it ({str(error).strip().splitlines()[-1]})") from error
    names = [port.any_name for port in compiled.inputs]

    def run(x: Array, time: Array | None, location: Array | None) -> Array:
        given = {"x": x, "time": time, "location": location}
        try:
            result: Any = compiled({name: given[name] for name in names})
        except RuntimeError as error:
            raise RunError(f"{model}: does not fit its bundle.json; copy the whole run folder again") from error
        return np.asarray(result[0])

    return run


def _torch_runtime(folder: Path, weights: Path | None) -> Runtime:
    import torch

    from models.bundle import load_network

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load_network(folder, weights=weights).to(device)

    def run(x: Array, time: Array | None, location: Array | None) -> Array:
        coordinates = [None if a is None else torch.from_numpy(a).to(device) for a in (time, location)]
        with torch.inference_mode():
            y: Array = network.predict(torch.from_numpy(x).to(device), *coordinates).cpu().numpy()
        return y

    return run
