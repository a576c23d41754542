"""What a model.onnx may hold: the operators that our export writes, and its weights; a run may come from a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.errors import InputError

# What torch's exporter makes of our networks, and what is near it: arithmetic, shapes, convolutions, norms.
OPERATORS = frozenset(
    (
        *("Abs", "Add", "And", "ArgMax", "Attention", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil"),
        *("Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace"),
        *("Div", "Dropout", "Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements"),
        *("GatherND", "Gelu", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "GroupNormalization"),
        *("Identity", "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Less"),
        *("LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mod", "Mul", "Neg", "Not", "Or"),
        *("Pad", "Pow", "RMSNormalization", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin"),
        *("ReduceProd", "ReduceSum", "Relu", "Reshape", "Resize", "Round", "ScatterElements", "ScatterND"),
        *("DequantizeLinear", "QuantizeLinear"),  # of models in bytes
        *("SequenceAt", "Shape", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split"),
        *(
            "SplitToSequence",
            "Sqrt",
            "Squeeze",
            "Sub",
            "Tanh",
            "Tile",
            "TopK",
            "Transpose",
            "Unsqueeze",
            "Where",
            "Xor",
        ),
    )
)
_TELL = "our export writes no such thing; train the run again, or --runtime torch"


def check_graph(path: Path) -> None:
    """Refuse a model.onnx that is anything but a network as `export_onnx` writes it.

    Operators that hold graphs of their own (Loop, Scan, If) could run for ever, those of other domains run what a
    plugin says, and weights in other files could be any file.

    Raises:
        InputError: no ONNX, or what it holds beside plain operators and finite weights.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file; copy the whole run folder again") from error
    if not model.graph.node:
        raise InputError(f"{path}: holds no network; copy the whole run folder again")
    for node in model.graph.node:
        inner = any(a.HasField("g") or a.graphs or a.HasField("sparse_tensor") for a in node.attribute)
        if node.domain or node.op_type not in OPERATORS or inner:
            kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise InputError(f"{path}: holds the operator {kind}, {_TELL}")
    if model.functions or model.graph.sparse_initializer or model.training_info:
        raise InputError(f"{path}: holds functions, sparse weights or a training, {_TELL}")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise InputError(f"{path}: weight {tensor.name} lies in another file, {_TELL}")
        if _has_nan(tensor):
            raise InputError(f"{path}: weight {tensor.name} holds NaN, so that any answer would; {_TELL}")


def _tensors(graph: Any) -> Iterator[Any]:
    """The weights of a graph, and the constants in its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)


def _has_nan(tensor: Any) -> bool:
    import numpy as np
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    return values.dtype.kind == "f" and bool(np.isnan(values).any())
