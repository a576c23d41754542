"""A network as model.onnx: physical units in, probabilities or values out, any batch size."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.files import replacing
from models.networks.assembly import AnyNetwork
from models.networks.detail import FirstLayers, SceneStatistics
from models.runtime.graphs import EXACT as EXACT_NAME
from models.spec import IMAGERY, Spec, valid_of

EXACT = (FirstLayers, SceneStatistics)  # their differences of squares do not survive bfloat16


class _Predict(nn.Module):
    """A network's `predict` as a forward."""

    def __init__(self, network: AnyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.network.predict(inputs)


def export_onnx(network: AnyNetwork, path: Path, inputs: Mapping[str, Tensor] | None = None) -> None:
    """Write a network as ONNX.

    Inputs are those of a batch, by name, of any number of samples: `imagery` (B, C, T, H, W) and, where the Spec says
    so, `time` (B, T, 2) and `location` (B, 2), H and W the Spec's tile; or the arrays of samples of weather, of the
    examples' grid, rows from north to south. The output bears the answer's name and is as of the network's `predict`.

    Args:
        network: the network.
        path: the file.
        inputs: an example of two samples or more; one is made up for scenes when None.

    Raises:
        OnnxExporterError: the network cannot be exported (of `torch.onnx`).
    """
    inputs = dict(inputs or example_inputs(network.spec, batch=2))
    free = {0: torch.export.Dim("batch", min=1, max=4096)}
    quiet = logging.getLogger("torch.onnx")
    quiet.setLevel(logging.ERROR)
    with (
        replacing(path) as draft,  # above 2 GB the weights lie beside it, in a file that the graph names
        warnings.catch_warnings(),
        torch.no_grad(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            _Predict(network).eval(),
            kwargs={"inputs": inputs},  # by name: a mapping at the end of what comes by place is taken apart
            input_names=list(inputs),
            output_names=list(network.spec.answers),
            dynamic_shapes={"inputs": dict.fromkeys(inputs, free)},
            dynamo=True,
            optimize=False,  # the runtime optimises what it compiles; this takes half of the time
        )
        assert program is not None  # as always with dynamo
        _name_exact(program.model.graph, [f"network.{n}" for n, m in network.named_modules() if isinstance(m, EXACT)])
        for node in program.model.graph:  # traces name folders of this machine, and differ from one export to the next
            node.metadata_props.clear()
        program.save(draft, external_data=False)


def _name_exact(graph: Any, modules: Sequence[str]) -> None:
    """Name the values that modules of float32 give to the rest of the graph, so that a runtime can tell them."""
    scopes = {node: ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]")) for node in graph}
    for module in modules:
        inside = {node for node, scope in scopes.items() if module in scope}
        for value in [value for node in inside for value in node.outputs]:
            if any(node not in inside for node, _ in value.uses()):
                value.name = f"{EXACT_NAME}{value.name}"


def example_inputs(spec: Spec, *, batch: int) -> dict[str, Tensor]:
    """Plausible inputs by name: values around their means, and where they are used a date and a place."""
    generator = torch.Generator().manual_seed(0)
    if spec.over_tables:
        return _example_series(spec, batch, generator)
    imagery = spec.imagery
    shape = (batch, len(imagery.channels), imagery.times, imagery.tile, imagery.tile)
    mean, std = (torch.tensor(v).reshape(-1, 1, 1, 1) for v in (imagery.mean, imagery.std))
    inputs = {IMAGERY: torch.randn(shape, generator=generator) * std + mean}
    if imagery.uses_time:
        inputs["time"] = torch.tensor([2020.0, 180.0]).expand(batch, imagery.times, 2).clone()
    if imagery.uses_location:
        inputs["location"] = torch.tensor([45.0, 9.0]).expand(batch, 2).clone()
    beside = _example_series(spec, batch, generator)
    return inputs | beside | ({valid_of(IMAGERY): torch.ones(batch, 1)} if beside else {})


def _example_series(spec: Spec, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Plausible series, all of which are there."""
    inputs = {}
    for name, series in spec.series.items():
        values = torch.randn((batch, series.times, len(series.channels)), generator=generator)
        inputs[name] = values * torch.tensor(series.std) + torch.tensor(series.mean)
        inputs[valid_of(name)] = torch.ones_like(values)
    return inputs
