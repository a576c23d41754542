"""Surgery on OpenVINO graphs: several models as one, what wants float32 apart, large layers in bytes.

Whoever changes what comes out raises `compiled.GRAPHS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from models.runtime import silence as silence  # before OpenVINO is imported
from models.runtime.operators import check_graph
from models.spec import IMAGERY

EXACT = "exact."  # values of these names are computed in float32, and all that they depend on
GROUP = 128  # features that share a scale in 8-bit products
END, PHI = 4.0, (0.39787, -0.0645544, 0.00876369, -0.000812187, 4.77638e-05, -1.58882e-06, 2.25882e-08)  # see `lighten`
LEAST = 512  # features in and out from which 8-bit products are faster than bfloat16 ones, as measured


def read(files: Sequence[Path], *, fold: bool = True) -> Any:
    """Read models of the same inputs as one graph for a single tile; what they have in common is there once.

    Args:
        files: the models.
        fold: work constants out, which what is written in bytes must not be: it would become floats.

    Returns:
        An `openvino.Model` of static shapes, with one output for each file.

    Raises:
        InputError: a file holds what our export does not write.
        RuntimeError: it cannot be read, or the inputs differ.
    """
    import openvino
    from openvino.passes import ConstantFolding, Manager

    for file in files:
        check_graph(file)
    core = openvino.Core()
    models = [core.read_model(str(file)) for file in files]
    for model in models:
        model.reshape({port: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
        if fold:
            manager = Manager()
            manager.register_pass(ConstantFolding())  # shapes are constants now, and no obstacle to a cut
            manager.run_passes(model)
    return models[0] if len(models) == 1 else _merged(models)


def _merged(models: Sequence[Any]) -> Any:
    """One graph over shared inputs, with equal subgraphs (a frozen base) joined."""
    import openvino

    shared: dict[str, Any] = {}
    for model in models:
        for port in model.inputs:
            first = shared.setdefault(port.any_name, port)
            if first is not port:
                port.replace(first)
    results = [result for model in models for result in model.get_results()]
    whole = openvino.Model(results, [port.get_node() for port in shared.values()])
    seen: dict[Any, Any] = {}
    for node in whole.get_ordered_ops():
        if node.get_type_name() in ("Parameter", "Result"):
            continue
        first = seen.setdefault(_identity(node), node)
        if first is not node:
            for i, output in enumerate(node.outputs()):
                output.replace(first.output(i))
    return whole


def _identity(node: Any) -> tuple[Any, ...]:
    """What two operations share that give the same values: kind, attributes and inputs; the values of constants."""
    kind = node.get_type_name()
    if kind == "Constant":
        data = node.data
        return kind, str(node.get_element_type()), tuple(node.shape), hashlib.blake2b(data.tobytes()).digest()
    sources = [port.get_source_output() for port in node.inputs()]
    return kind, repr(node.get_attributes()), tuple((s.get_node().get_name(), s.get_index()) for s in sources)


def split(model: Any, *, half: bool = False) -> tuple[Any | None, Any]:
    """Cut off the part of a graph that wants float32, where the rest is to run in bfloat16.

    That part is whatever depends on the coordinates alone (in bfloat16 the years 2017 to 2020 are one number), and what
    the values called `exact.` depend on (differences of squares).

    Args:
        model: an `openvino.Model`; changed in place.
        half: hand maps that were put side by side over in bfloat16, which is what the rest would make of them.

    Returns:
        The exact part, None where there is none; and the rest, whose first inputs are the exact part's outputs in
        their order, followed by those of the model's inputs that it still needs.
    """
    import openvino
    from openvino import opset13 as ops

    edges = {(o.get_node().get_name(), o.get_index()): o for o in (*_named(model), *_coordinates(model))}
    if not edges:
        return None, model
    uses = [list(output.get_target_inputs()) for output in edges.values()]
    # Channels go last across the cut: that is how the CPU computes, and turning them costs as much as a small network.
    outs = [ops.result(_turned(_halved(o) if half else o, (0, 2, 3, 1))) for o in edges.values()]
    exact = openvino.Model(outs, [port.get_node() for port in model.inputs]).clone()
    entries = []
    for output, result, targets in zip(edges.values(), outs, uses, strict=True):
        entry = ops.parameter(list(result.get_output_shape(0)), result.get_output_element_type(0))
        back = _turned(entry.output(0), (0, 3, 1, 2))
        if back.get_element_type() != output.get_element_type():
            back = ops.convert(back, output.get_element_type().to_string()).output(0)
        for target in targets:
            target.replace_source_output(back)
        entries.append(entry)
    needed = _below(model.get_results())
    inputs = [port.get_node() for port in model.inputs if port.get_node().get_name() in needed]
    return exact, openvino.Model(model.get_results(), [*entries, *inputs])


def quantise(model: Any) -> int:
    """Give the large linear layers of a graph 8-bit weights, which a runtime can multiply with 8-bit activations.

    Weights are rounded to w ~ s q with |q| <= 127 and s = max|w| / 127 for each output feature. Activations are left
    to the runtime (dynamic quantisation in groups of GROUP features).

    Args:
        model: an `openvino.Model`; changed in place.

    Returns:
        How many layers there are.
    """
    import numpy as np
    from openvino import opset13 as ops

    layers = [node for node in model.get_ordered_ops() if _is_large_linear(node)]
    for node in layers:
        weight = node.input(1).get_source_output().get_node().data.astype(np.float32)
        weight = weight if node.get_attributes()["transpose_b"] else np.ascontiguousarray(weight.T)  # (out, in)
        scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
        whole = ops.convert(ops.constant(np.rint(weight / scale).astype(np.int8)), "f32")
        product = ops.matmul(node.input(0).get_source_output(), ops.multiply(whole, ops.constant(scale)), False, True)
        node.output(0).replace(product.output(0))
    return len(layers)


def lighten(model: Any) -> None:
    """Give a graph that runs in bfloat16 a GELU over maps that is as right as that, in a third of the time.

    x Phi(x) with Phi(x) ~ 1/2 + t P(t^2), where t is x cut to |t| <= END: the polynomial with the least |error of
    x Phi(x)|, 0.0002, of those that are 1 at the end.

    Args:
        model: an `openvino.Model`; changed in place.
    """
    import numpy as np
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gelu" or len(node.get_output_shape(0)) != 4:
            continue
        x = node.input(0).get_source_output()
        t = ops.clamp(x, -END, END)
        square, value = ops.multiply(t, t), ops.constant(np.float32(PHI[-1]))
        for factor in PHI[-2::-1]:
            value = ops.add(ops.multiply(value, square), ops.constant(np.float32(factor)))
        share = ops.add(ops.multiply(value, t), ops.constant(np.float32(0.5)))
        node.output(0).replace(ops.multiply(x, share).output(0))


def _is_large_linear(node: Any) -> bool:
    """Whether an operation is a product of activations (..., in) with a constant matrix that is worth 8 bits."""
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
        return False
    weight = node.input(1).get_source_output().get_node()
    if weight.get_type_name() != "Constant" or len(weight.shape) != 2:
        return False
    features = weight.shape[1 if node.get_attributes()["transpose_b"] else 0]
    return bool(min(weight.shape) >= LEAST and features % GROUP == 0)


def _turned(output: Any, order: Sequence[int]) -> Any:
    """A map (B, C, H, W) with its axes in another order; anything else as it is."""
    import numpy as np
    from openvino import opset13 as ops

    return ops.transpose(output, np.array(order)).output(0) if len(output.get_shape()) == len(order) else output


def _halved(output: Any) -> Any:
    """Maps that were put side by side, in bfloat16 before they are; anything else as it is."""
    from openvino import opset13 as ops

    node = output.get_node()
    if node.get_type_name() != "Concat":
        return output
    parts = [ops.convert(port.get_source_output(), "bf16") for port in node.inputs()]
    return ops.concat(parts, node.get_attributes()["axis"]).output(0)


def _named(model: Any) -> list[Any]:
    """Outputs whose names say that they are exact."""
    nodes = (node for node in model.get_ordered_ops() if node.get_type_name() != "Constant")
    ports = (port for node in nodes for port in node.outputs())
    return [port for port in ports if any(name.startswith(EXACT) for name in port.get_names())]


def _coordinates(model: Any) -> list[Any]:
    """Outputs that depend on no image, but on time or location, and go where images go."""
    inputs = {port.any_name: port.get_node() for port in model.inputs}
    images = _above(model, [inputs[IMAGERY]])
    places = _above(model, [node for name, node in inputs.items() if name != IMAGERY])
    ports = (
        port.get_source_output()
        for node in model.get_ordered_ops()
        if node.get_name() in images
        for port in node.inputs()
    )
    return [o for o in ports if o.get_node().get_name() in places - images and o.get_element_type().is_real()]


def _above(model: Any, sources: Iterable[Any]) -> set[str]:
    """Names of the operations that depend on any of the sources, and theirs."""
    names: set[str] = {node.get_name() for node in sources}
    for node in model.get_ordered_ops():
        if any(port.get_source_output().get_node().get_name() in names for port in node.inputs()):
            names.add(node.get_name())
    return names


def _below(results: Collection[Any]) -> set[str]:
    """Names of the operations that results depend on, and theirs."""
    names: set[str] = set()
    waiting = list(results)
    while waiting:
        node = waiting.pop()
        if node.get_name() not in names:
            names.add(node.get_name())
            waiting += [port.get_source_output().get_node() for port in node.inputs()]
    return names
