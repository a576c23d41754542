"""What is unlike the training as an ONNX graph, for one tile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.confidence.familiar import FAR, Familiar
from models.networks.indices import INDICES
from models.runtime.static import write_graph
from models.spec import IMAGERY, Pixels
from models.types import Array
from pipelines.samples.unfamiliar import STEP, enlarged

UNFAMILIAR = "unfamiliar"  # the answer of its graph
_OPSET, _IR = 18, 10  # what onnxruntime has read since 2024


def write_unfamiliar(path: Path, familiar: Familiar, pixels: Pixels) -> None:
    """Write how unfamiliar each pixel of a tile is as a graph: imagery (1, C, T, H, W) to (1, 1, H, W).

    What `watching` gives beside the answers: every `STEP`th pixel is compared, the others lie linearly between them.
    """
    from onnx import TensorProto, helper

    tile, channels = pixels.tile, len(pixels.channels)
    made = _Graph()
    step = {"starts": [STEP // 2] * 2, "ends": [tile] * 2, "axes": [3, 4], "steps": [STEP] * 2}
    some = made.add("Slice", IMAGERY, *(made.keep(name, np.array(v, np.int64)) for name, v in step.items()))
    rows = made.add("Reshape", some, made.keep("rows", np.array([channels * pixels.times, -1], np.int64)))
    features = made.add("Transpose", _with_indices(made, rows, pixels), perm=[1, 0])  # (N, F)
    away = made.add(
        "MatMul", made.add("Sub", features, made.keep("mean", familiar.mean)), made.keep("turn", familiar.turn)
    )
    turned = made.add("Clip", away, *(made.keep(name, np.float32(v)) for name, v in (("low", -FAR), ("high", FAR))))
    product = made.add("MatMul", turned, made.keep("kept", np.ascontiguousarray(-2 * familiar.kept.T)))
    last = made.keep("last", np.array([1], np.int64))
    near = made.add("ReduceMin", made.add("Add", product, made.keep("squares", (familiar.kept**2).sum(1))), last)
    square = made.add("Relu", made.add("Add", near, made.add("ReduceSum", made.add("Mul", turned, turned), last)))
    far = made.add("Div", made.add("Sqrt", square), made.keep("scale", np.float32(familiar.scale)))
    side = len(range(STEP // 2, tile, STEP))
    map_ = made.add("Reshape", far, made.keep("map", np.array([1, 1, side, side], np.int64)))
    between = _between(side, tile)
    down = made.add("MatMul", made.keep("down", between), map_)
    made.add("MatMul", down, made.keep("across", np.ascontiguousarray(between.T)), to=UNFAMILIAR)
    shapes = (IMAGERY, [1, channels, pixels.times, tile, tile]), (UNFAMILIAR, [1, 1, tile, tile])
    given, told = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes)
    graph = helper.make_graph(made.nodes, UNFAMILIAR, [given], [told], made.constants)
    write_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR), path)


def _with_indices(made: _Graph, rows: str, pixels: Pixels) -> str:
    """Bands as reflectance and the indices of each frame, (F, N): see `statistics.with_indices`."""
    bands = made.add("Div", rows, made.keep("unit", np.float32(1e4)))
    pairs = [pair for pair in INDICES.values() if set(pair) <= set(pixels.channels)]
    if not pairs:
        return bands
    dark = made.add("Relu", bands)
    one, other = (
        made.add("Gather", dark, made.keep(f"side{n}", _places([pair[n] for pair in pairs], pixels))) for n in (0, 1)
    )
    total = made.add("Add", made.add("Add", one, other), made.keep("least", np.float32(0.02)))
    return made.add("Concat", bands, made.add("Div", made.add("Sub", one, other), total), axis=0)


def _places(names: Sequence[str], pixels: Pixels) -> NDArray[np.int64]:
    """Rows of bands in (C * T, N), all frames of each."""
    first = np.array([pixels.channels.index(name) for name in names], np.int64) * pixels.times
    return (first[:, None] + np.arange(pixels.times)).ravel()


def _between(side: int, tile: int) -> Array:
    """The matrix (tile, side) by which a column of compared pixels becomes all."""
    return np.ascontiguousarray(enlarged(np.eye(side, dtype=np.float32)[:, :, None], (tile, 1), STEP)[..., 0].T)


class _Graph:
    """Nodes and constants as they are put together."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def keep(self, name: str, value: NDArray[Any] | np.float32) -> str:
        """A constant."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *given: str, to: str = "", **attributes: Any) -> str:
        """A node; returns the name of what it gives."""
        from onnx import helper

        name = to or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, given, [name], **attributes))
        return name
