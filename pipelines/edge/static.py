"""ONNX graphs of static shapes, for one tile: the model's, and one that tells what is unlike the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.confidence.familiar import FAR, Familiar
from models.errors import InputError
from models.networks.indices import INDICES
from models.runtime.operators import check_graph
from models.spec import IMAGERY, Pixels
from models.types import Array
from pipelines.samples.unfamiliar import STEP, enlarged

UNFAMILIAR = "unfamiliar"  # the answer of its graph
_OPSET, _IR = 18, 10  # what onnxruntime has read since 2024


def write_static(source: Path, path: Path) -> None:
    """Write a model for one tile: the batch is 1, and every shape that follows from that is told.

    Raises:
        InputError: not a model as `export_onnx` writes it, or one whose shapes depend on more than the batch.
    """
    import onnx

    check_graph(source)
    model = onnx.load_model(source)
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim[:1]:
            dimension.dim_value = 1
    del model.graph.value_info[:]  # they speak of any batch
    _without_sequences(model.graph)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in (*model.graph.input, *model.graph.output):
        if not all(dimension.dim_value > 0 for dimension in value.type.tensor_type.shape.dim):
            raise InputError(f"{source}: the shape of {value.name} is not known before it runs; train the run again")
    _write(model, path)


def _without_sequences(graph: Any) -> None:
    """Make splits whose parts are taken one by one plain ones.

    Small runtimes know no sequences, and ONNX's own inference of shapes takes their parts for equal.
    """
    from onnx import helper, numpy_helper

    made = {output: node for node in graph.node for output in node.output}

    def constant(name: str) -> Any:
        return numpy_helper.to_array(made[name].attribute[0].t)

    taken: dict[str, dict[int, str]] = {}
    for node in graph.node:
        if node.op_type == "SequenceAt":
            taken.setdefault(node.input[0], {})[int(constant(node.input[1]))] = node.output[0]
    nodes = []
    for node in graph.node:
        if node.op_type == "SplitToSequence":
            whole, sizes, (name,) = node.input[0], node.input[1], node.output
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            parts = [taken[name].get(i, f"{name}.{i}") for i in range(len(constant(sizes)))]
            node = helper.make_node("Split", [whole, sizes], parts, axis=axis)
        if node.op_type != "SequenceAt":
            nodes.append(node)
    read = {name for node in nodes for name in node.input}
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type != "Constant" or node.output[0] in read)


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
    _write(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR), path)


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


def _write(model: Any, path: Path) -> None:
    """The same bytes from the same model."""
    path.write_bytes(model.SerializeToString(deterministic=True))
