"""Graphs cut and joined, against the same models run as they are."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models.runtime import graphs
from models.runtime.export import example_inputs


def compiled(model, precision="f32"):
    import openvino

    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})


def given(network):
    return {name: tensor.numpy() for name, tensor in example_inputs(network.spec, batch=1).items()}


def heavy(model):
    kinds = {"Convolution", "GroupConvolution", "MatMul"}
    return sum(node.get_type_name() in kinds for node in model.get_ordered_ops())


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_a_cut_model_answers_as_the_whole(exported, task):
    network, folder = exported[task]
    inputs = given(network)
    (wanted,) = compiled(graphs.read([folder / "model.onnx"]))(inputs).values()
    exact, rest = graphs.split(graphs.read([folder / "model.onnx"]))
    handed = list(compiled(exact)({k: inputs[k] for k in (p.any_name for p in exact.inputs)}).values())
    others = [inputs[port.any_name] for port in rest.inputs[len(handed) :]]
    (came,) = compiled(rest)([*handed, *others]).values()
    np.testing.assert_allclose(came, wanted, atol=1e-5)
    assert heavy(rest) > 0
    names = {port.any_name for port in rest.inputs[len(handed) :]}
    assert names == {"imagery"}  # years and places are used in float32 only


def test_maps_side_by_side_are_handed_over_in_half_precision(exported):
    """From which the rest gives what it gives of the same maps in float32, to the rounding of bfloat16."""
    network, folder = exported["segmentation"]
    inputs = given(network)
    (wanted,) = compiled(graphs.read([folder / "model.onnx"]))(inputs).values()
    exact, rest = graphs.split(graphs.read([folder / "model.onnx"]), half=True)
    kinds = [port.get_element_type().to_string() for port in exact.outputs]
    assert kinds == [port.get_element_type().to_string() for port in rest.inputs[: len(kinds)]]
    assert kinds.count("bf16") == 1 and max(np.prod(port.shape) for port in exact.outputs) == np.prod(
        exact.outputs[kinds.index("bf16")].shape
    )
    first, second = compiled(exact).create_infer_request(), compiled(rest).create_infer_request()
    first.infer({port.any_name: inputs[port.any_name] for port in exact.inputs})
    for i in range(len(kinds)):
        second.set_input_tensor(i, first.get_output_tensor(i))
    for i, port in enumerate(rest.inputs[len(kinds) :], len(kinds)):
        second.get_input_tensor(i).data[...] = inputs[port.any_name]
    second.infer()
    came = second.get_output_tensor(0).data
    assert 0 < np.abs(came - wanted).max() < 0.02


def test_a_light_gelu_is_as_right_as_bfloat16():
    import openvino
    import torch
    from openvino import opset13 as ops

    values = np.linspace(-12, 12, 4096, dtype=np.float32).reshape(1, 1, 64, 64)
    x = ops.parameter(list(values.shape), np.float32)
    model = openvino.Model([ops.result(ops.gelu(x, "erf"))], [x])
    graphs.lighten(model)
    assert "Gelu" not in {node.get_type_name() for node in model.get_ordered_ops()}
    (came,) = compiled(model)([values]).values()
    wanted = torch.nn.functional.gelu(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(came, wanted, atol=4e-4, rtol=1e-5)


def test_years_are_told_apart_in_half_precision(exported):
    """In bfloat16 the years 2017 to 2020 are one number: a cut model must not compute their encoding in it."""
    network, folder = exported["segmentation"]
    exact, _ = graphs.split(graphs.read([folder / "model.onnx"]))
    codes, model = [], compiled(exact)
    for year in range(2017, 2021):
        inputs = given(network)
        inputs["time"][..., 0] = year
        codes.append(np.concatenate([v.ravel() for v in model(inputs).values()]))
    for first in range(4):
        for second in range(first):
            assert np.abs(codes[first] - codes[second]).max() > 1e-3


def test_what_differs_of_two_models_is_kept_and_what_is_equal_is_there_once(exported, tmp_path):
    network, folder = exported["classification"]
    other = onnx.load(folder / "model.onnx")
    of_the_head = {f"network.head.{name}" for name, _ in network.head.named_parameters()}
    for weight in (w for w in other.graph.initializer if w.name in of_the_head):
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + 0.1, weight.name))
    onnx.save(other, tmp_path / "model.onnx")
    files = [folder / "model.onnx", tmp_path / "model.onnx"]
    alone = [graphs.read([file]) for file in files]
    both = graphs.read(files)
    inputs = given(network)
    wanted = [next(iter(compiled(model)(inputs).values())) for model in alone]
    came = list(compiled(both)(inputs).values())
    assert not np.allclose(wanted[0], wanted[1])
    for a, b in zip(wanted, came, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    head = 4  # the head's own linear layers
    assert heavy(both) == heavy(alone[0]) + head


def test_the_same_model_twice_is_one(exported, tmp_path):
    network, folder = exported["segmentation"]
    shutil.copy(folder / "model.onnx", tmp_path / "model.onnx")
    both = graphs.read([folder / "model.onnx", tmp_path / "model.onnx"])
    first, second = compiled(both)(given(network)).values()
    np.testing.assert_array_equal(first, second)
    assert heavy(both) == heavy(graphs.read([folder / "model.onnx"]))


def linear_model(features, *, transposed):
    """Two linear layers of 8 tokens: the first as large as asked, the second small."""
    import openvino
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    x = ops.parameter([1, 8, features], np.float32, name="x")
    weight = rng.normal(0, 0.05, (640, features) if transposed else (features, 640)).astype(np.float32)
    weight[3] = 0  # a feature that is never used, or a token feature that is never looked at
    hidden = ops.matmul(x, ops.constant(weight), False, transposed)
    y = ops.matmul(hidden, ops.constant(rng.normal(0, 0.05, (640, 4)).astype(np.float32)), False, False)
    return openvino.Model([ops.result(y)], [x]), rng.normal(0, 1, (1, 8, features)).astype(np.float32)


@pytest.mark.parametrize("transposed", [False, True])
def test_large_linear_layers_become_bytes_and_answer_alike(transposed):
    model, x = linear_model(512, transposed=transposed)
    (wanted,) = compiled(model)([x]).values()
    wanted = wanted.copy()
    assert graphs.quantise(model) == 1
    kinds = [str(n.get_element_type()) for n in model.get_ordered_ops() if n.get_type_name() == "Constant" and n.shape]
    assert kinds.count("<Type: 'int8_t'>") == 1
    (came,) = compiled(model)([x]).values()  # the weights are rounded, the activations are not
    assert 0 < np.abs(came - wanted).max() < 0.05 * wanted.std()


def test_small_linear_layers_are_left_alone():
    for features in (384, 500, 576):  # few, and not in whole groups
        model, _ = linear_model(features, transposed=False)
        assert graphs.quantise(model) == 0
