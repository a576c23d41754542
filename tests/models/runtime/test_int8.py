"""Models in bytes, beside the models that they were made of."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from models.bundle import read_bundle, write_bundle
from models.errors import InputError, RunError
from models.runtime.engines import load_runtime, load_runtimes
from models.runtime.int8 import best_range, steps, write_int8
from tests.models.runtime.test_engines import alone, inputs_of


@pytest.fixture(scope="module")
def rounded(exported, tmp_path_factory):
    """For each task the network, its model in bytes, and the samples that it was made with."""
    made = {}
    for task, (network, folder) in exported.items():
        inputs = inputs_of(network, batch=4)
        path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
        write_int8(folder / "model.onnx", path, [alone(inputs, i) for i in range(4)])
        made[task] = network, path, inputs
    return made


def weights_of(path):
    return {weight.name: numpy_helper.to_array(weight) for weight in onnx.load_model(path).graph.initializer}


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_weights_are_within_half_a_step_of_those_of_the_network(rounded, task):
    network, path, _ = rounded[task]
    kept, state = weights_of(path), {f"network.{name}": value.numpy() for name, value in network.state_dict().items()}
    pairs = {name.removesuffix(".q"): v for name, v in kept.items() if v.dtype == np.int8 and v.ndim > 1}
    same = [(state[name], value, kept[f"{name}.scale"]) for name, value in pairs.items() if name in state]
    assert len(pairs) >= 8 and same
    for wanted, whole, scale in same:
        axis = whole.shape.index(len(scale)) if whole.shape[0] != len(scale) else 0
        step = scale.reshape([-1 if i == axis else 1 for i in range(whole.ndim)])
        if np.abs(wanted).max(tuple(i for i in range(whole.ndim) if i != axis)) == pytest.approx(63 * scale, rel=1e-5):
            assert (np.abs(whole * step - wanted) <= step / 2 * 1.001).all() and np.abs(whole).max() == 63


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_openvino_and_onnxruntime_say_what_the_network_says(rounded, exported, run_copy, task):
    _, path, inputs = rounded[task]
    folder = run_copy(task)
    (folder / "model.int8.onnx").write_bytes(path.read_bytes())
    write_bundle(folder, read_bundle(folder))
    exact = load_runtime(exported[task][1], runtime="openvino", precision="f32")(inputs)
    loaded = load_runtimes([folder], precision="int8", runtime="openvino")
    (came,) = loaded.run(inputs)
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    plain = [session.run(None, {name: inputs[name][i : i + 1] for name in names})[0] for i in range(4)]
    spread = 7.5 if task == "regression" else 1.0
    np.testing.assert_allclose(came, np.concatenate(plain), atol=0.01 * spread)
    np.testing.assert_allclose(came, exact, atol=0.06 * spread)
    assert np.abs(came - exact).max() > 1e-4 * spread and loaded.name == "OpenVINO CPU int8"


def test_what_leads_to_exact_values_is_as_it_was(rounded):
    graph = onnx.load_model(rounded["segmentation"][1]).graph
    made = {name: node for node in graph.node for name in node.output}
    waiting = [name for name in made if name.startswith("exact.") and not name.endswith((".q", ".dq"))]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in made and name not in seen:
            seen.add(name)
            assert made[name].op_type not in ("QuantizeLinear", "DequantizeLinear")
            waiting += made[name].input
    assert any(made[name].op_type == "Conv" for name in seen)


def test_the_same_bytes_each_time(rounded, exported, tmp_path):
    _, path, inputs = rounded["classification"]
    write_int8(exported["classification"][1] / "model.onnx", tmp_path / "again", [alone(inputs, i) for i in range(4)])
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_range_leaves_out_what_is_rare_and_keeps_zero():
    counts = np.zeros(2048)
    counts[:512] = 1e6  # values from 0 to 2, and one at 8
    counts[-1] = 1
    low, high = best_range(counts, 0.0, 8.0)
    assert low == 0 and 2 <= high < 3
    counts[:] = 1
    assert best_range(counts, -1.0, 3.0) == (-1.0, 3.0)
    scale, zero = steps(-1.0, 3.0)
    assert zero == 64 and (0 - float(zero)) * scale == pytest.approx(-1.0, abs=0.01)
    assert np.isfinite(steps(0.0, 0.0)).all()


def test_bytes_are_taken_only_on_request(rounded, run_copy):
    import dataclasses

    folder = run_copy("segmentation")
    (folder / "model.int8.onnx").write_bytes(rounded["segmentation"][1].read_bytes())
    told = {"equal": 1.0, "difference": 0.0, "samples": 8.0}
    write_bundle(folder, dataclasses.replace(read_bundle(folder), rounding={"int8": told}))
    assert load_runtimes([folder], runtime="openvino").name.split()[-1] in ("f32", "bf16")


def test_another_file_and_none_are_refused(rounded, run_copy):
    folder = run_copy("segmentation")
    with pytest.raises(InputError, match=r"has no model in bytes; `earthtune int8 .*` makes one$"):
        load_runtime(folder, runtime="openvino", precision="int8")
    (folder / "model.int8.onnx").write_bytes(rounded["segmentation"][1].read_bytes())
    write_bundle(folder, read_bundle(folder))
    (folder / "model.int8.onnx").write_bytes(rounded["regression"][1].read_bytes())
    with pytest.raises(InputError, match=r"model\.int8\.onnx: not the file that bundle\.json was written for"):
        load_runtime(folder, runtime="openvino", precision="int8")
    with pytest.raises(InputError, match="precision int8: OpenVINO only"):
        load_runtime(folder, runtime="torch", precision="int8")


def test_a_machine_without_onnxruntime_is_told_what_to_install(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'earthtune\[int8\]'"):
        write_int8(exported["segmentation"][1] / "model.onnx", tmp_path / "m.onnx", [])


def test_a_full_disk_is_told_of(exported, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RunError, match="make room"):
            write_int8(exported["segmentation"][1] / "model.onnx", tmp_path / "m.onnx", [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()]
