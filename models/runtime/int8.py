"""A model.onnx in bytes: what its layers multiply is rounded to 256 steps, as samples of the training say.

QuantizeLinear and DequantizeLinear stand around each layer (QDQ), so that any runtime can multiply bytes there, and one
that does not gets the same answers. What leads to the values called `exact.` is as it was.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError, RunError
from models.runtime import silence as silence  # before onnxruntime is imported
from models.runtime.graphs import EXACT
from models.runtime.static import static, write_graph
from models.types import Array, Inputs

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # that multiply by weights
BINS = 2048  # of the histogram of what runs through a layer
# Of a weight: processors without dot products of bytes add two products into 16 bits, which 2 * 255 * 63 fits.
LARGEST = 63
CUTS = np.linspace(0.3, 1, 36)  # parts of the range that are tried; what lies beyond is cut off
_TINY = np.float32(1e-12)
Range = tuple[float, float]


def write_int8(source: Path, path: Path, samples: Sequence[Inputs]) -> int:
    """Write a model for one tile whose layers take and multiply bytes.

    Weights are w ~ s q with |q| <= 63, s = max|w| / 63 for each output channel; activations are x ~ s (q - z) with q
    from 0 to 255 over the range that rounds what the samples bring with the least squared error.

    Args:
        source: a model as `export_onnx` writes it.
        path: the file.
        samples: inputs of one sample each, by name: of the training.

    Returns:
        How many layers there are.

    Raises:
        InputError: onnxruntime is not installed, or not a model as `export_onnx` writes it.
        RunError: the disk for drafts is full.
    """
    model = _folded(source)
    layers = _layers(model.graph)
    after = _outputs(model.graph, layers)
    ranges = _ranges(model, [*dict.fromkeys([layer.input[0] for layer in layers] + after)], samples)
    _Rounding(model.graph, ranges, frozenset(after)).round(layers)
    write_graph(model, path)
    return len(layers)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("int8 needs onnxruntime, which is not installed; pip install 'earthtune[int8]'") from error
    return onnxruntime


def _session(model: bytes, **changes: Any) -> Any:
    """A session on one thread, so that sums do not depend on the machine's cores."""
    ort = _runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    for name, value in changes.items():
        setattr(options, name, value)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _folded(source: Path) -> Any:
    """A model for one tile whose weights are constants, with norms folded into the layers that they follow."""
    import onnx
    import onnx_ir
    from onnxscript import optimizer

    level = _runtime().GraphOptimizationLevel.ORT_ENABLE_BASIC
    logging.getLogger("onnxscript.optimizer").setLevel(logging.ERROR)
    model = onnx_ir.from_proto(static(source))
    optimizer.fold_constants(model, onnx_shape_inference=False, input_size_limit=1 << 31, output_size_limit=1 << 31)
    optimizer.remove_unused_nodes(model)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "folded.onnx"
        whole = onnx_ir.to_proto(model).SerializeToString()
        try:
            _session(whole, graph_optimization_level=level, optimized_model_filepath=str(file))
        except _runtime().capi.onnxruntime_pybind11_state.InvalidProtobuf as error:  # what it calls a write that fails
            raise RunError(f"{place}: does not take {source.name} ({error}); make room, or set TMPDIR") from error
        folded = onnx.load_model(file)
    plain = [one for one in folded.opset_import if not one.domain]
    del folded.opset_import[:], folded.graph.value_info[:]
    folded.opset_import.extend(plain)
    return folded


def _layers(graph: Any) -> list[Any]:
    """The nodes that multiply by constant weights, but for those that lead to exact values."""
    made = {output: node for node in graph.node for output in node.output}
    exact: set[str] = set()
    waiting = [name for name in made if name.startswith(EXACT)]
    while waiting:
        node = made.get(waiting.pop())
        if node and node.output[0] not in exact:
            exact.add(node.output[0])
            waiting += node.input
    weights = {weight.name for weight in graph.initializer if len(weight.dims) > 1}
    return [n for n in graph.node if n.op_type in LAYERS and n.output[0] not in exact and n.input[1] in weights]


def _outputs(graph: Any, layers: Sequence[Any]) -> list[str]:
    """What convolutions, and the ReLU after them, hand on to other layers: in bytes they need no other kind between."""
    uses: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    ours = {layer.output[0] for layer in layers}
    led: set[str] = set()  # values that lead to a layer
    for node in reversed(graph.node):
        if node.output[0] in ours or led & {*node.output}:
            led.update(node.input)
    found = []
    for layer in layers:
        if layer.op_type == "Conv":
            name = layer.output[0]
            if [use.op_type for use in uses.get(name, [])] == ["Relu"]:
                name = uses[name][0].output[0]
            found += [name] if name in led else []
    return found


def _ranges(model: Any, names: Sequence[str], samples: Sequence[Inputs]) -> dict[str, Range]:
    """The range in which values are rounded with the least squared error, for each of some names."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    given, told = ({value.name for value in values} for values in (model.graph.input, model.graph.output))
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given | told)
    session = _session(watched.SerializeToString())

    def passed() -> Iterator[tuple[str, Array]]:
        for sample in samples:
            inputs = {name: sample[name] for name in given}
            rest = [name for name in names if name not in given]
            yield from zip(rest, session.run(rest, inputs), strict=True)
            yield from ((name, inputs[name]) for name in names if name in given)

    ends = dict.fromkeys(names, (0.0, 0.0))
    for name, values in passed():
        ends[name] = min(ends[name][0], float(values.min())), max(ends[name][1], float(values.max()))
    counts = {name: np.zeros(BINS) for name in names}
    for name, values in passed():
        if ends[name][0] < ends[name][1]:
            counts[name] += np.histogram(values, BINS, ends[name])[0]
    return {name: best_range(counts[name], *ends[name]) for name in names}


def best_range(counts: NDArray[np.float64], low: float, high: float) -> Range:
    """The range, 0 in it, in whose 256 steps a histogram between two ends is told with the least squared error."""
    middle = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    best, least = (low, high), np.inf
    for cut in CUTS[::-1]:
        for bottom, top in ((low * cut, high * cut), (low, high * cut), (low * cut, high)):
            scale, zero = steps(bottom, top)
            told = (np.clip(np.rint(middle / scale) + zero, 0, 255) - zero) * scale
            error = float((counts * (told - middle) ** 2).sum())
            if error < least:
                best, least = (float(bottom), float(top)), error
    return best


def steps(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of a range."""
    scale = np.maximum(np.float32((high - low) / 255), _TINY)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


class _Rounding:
    """A graph whose layers are given bytes, one after the other."""

    def __init__(self, graph: Any, ranges: Mapping[str, Range], after: frozenset[str]) -> None:
        self.graph, self.ranges, self.after = graph, ranges, after
        self.weights = {weight.name: weight for weight in graph.initializer}
        self.nodes: list[Any] = []
        self.told: dict[str, str] = {}  # values, and what they are in bytes
        self.scales: dict[str, Array] = {}

    def round(self, layers: Sequence[Any]) -> None:
        """Put bytes around the layers, and drop the weights that no node reads any more."""
        ours = {layer.output[0] for layer in layers}
        for node in list(self.graph.node):
            if node.output[0] in ours:
                self._layer(node)
            else:
                node.input[:] = [self.told[name] if name in self.after else name for name in node.input]
            self.nodes.append(node)
            for name in node.output:
                if name in self.after:
                    self._activation(name)
        read = {name for node in self.nodes for name in node.input}
        kept = [weight for name, weight in self.weights.items() if name in read]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(kept)

    def _layer(self, node: Any) -> None:
        """Give a layer its input, weights and bias in bytes; the bias in steps of their product, 32 bits."""
        from onnx import numpy_helper

        x, w, *rest = node.input
        scale = self._activation(x) * self._weight(w, _axis(node))
        if rest and rest[0] in self.weights:
            bias = numpy_helper.to_array(self.weights[rest[0]])
            whole = np.rint(bias.astype(np.float64) / scale) if bias.shape == scale.shape else np.full(1, np.inf)
            if np.abs(whole).max() < 2**31:
                name = f"{node.output[0]}.bias"
                node.input[2] = self._back(name, whole.astype(np.int32), scale, np.zeros(len(scale), np.int32), 0)
        node.input[0], node.input[1] = self.told[x], self.told[w]

    def _activation(self, name: str) -> Any:
        """Round a value where it is not yet; its scale."""
        from onnx import helper

        scale, zero = steps(*self.ranges[name])
        if name not in self.told:
            how = [self._keep(f"{name}.scale", scale), self._keep(f"{name}.zero", zero)]
            self.nodes.append(helper.make_node("QuantizeLinear", [name, *how], [f"{name}.q"]))
            self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *how], [f"{name}.dq"]))
            self.told[name] = f"{name}.dq"
        return scale

    def _weight(self, name: str, axis: int) -> Array:
        """Round weights where they are not yet; their scales, one for each output channel."""
        from onnx import numpy_helper

        if name not in self.told:
            values = np.moveaxis(numpy_helper.to_array(self.weights[name]).astype(np.float32), axis, -1)
            scale = np.maximum(np.abs(values).reshape(-1, values.shape[-1]).max(axis=0), _TINY) / np.float32(LARGEST)
            whole = np.moveaxis(np.clip(np.rint(values / scale), -LARGEST, LARGEST).astype(np.int8), -1, axis)
            self.scales[name] = scale
            self.told[name] = self._back(name, whole, scale, np.zeros(len(scale), np.int8), axis)
        return self.scales[name]

    def _back(self, name: str, whole: NDArray[Any], scale: Array, zero: NDArray[Any], axis: int) -> str:
        """Whole numbers, and the node that gives what they stand for; its name."""
        from onnx import helper

        given = [self._keep(f"{name}.{part}", v) for part, v in (("q", whole), ("scale", scale), ("zero", zero))]
        self.nodes.append(helper.make_node("DequantizeLinear", given, [f"{name}.dq"], axis=axis))
        return f"{name}.dq"

    def _keep(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name


def _axis(node: Any) -> int:
    """The axis of a layer's weights that tells output channels apart."""
    turned = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1
