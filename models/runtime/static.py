"""ONNX graphs of static shapes, for one tile: what small runtimes know, and what can be rounded to bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.errors import InputError
from models.runtime.operators import check_graph


def write_static(source: Path, path: Path) -> None:
    """Write a model for one tile: the batch is 1, and every shape that follows from that is told.

    Raises:
        InputError: not a model as `export_onnx` writes it, or one whose shapes depend on more than the batch.
    """
    write_graph(static(source), path)


def static(source: Path) -> Any:
    """A model for one tile as an `onnx.ModelProto`; see `write_static`."""
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
    return model


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


def write_graph(model: Any, path: Path) -> None:
    """The same bytes from the same model."""
    path.write_bytes(model.SerializeToString(deterministic=True))
