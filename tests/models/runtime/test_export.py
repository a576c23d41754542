from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from models.runtime import export
from models.runtime.export import example_inputs, export_onnx

TASKS = ("segmentation", "regression", "classification")


def arrays(network, batch, seed):
    """Plausible inputs for a network by name, other ones than the exporter saw."""
    rng = np.random.default_rng(seed)
    given = network.spec.imagery
    shape = (batch, len(given.channels), given.times, given.tile, given.tile)
    mean, std = (np.array(v).reshape(-1, 1, 1, 1) for v in (given.mean, given.std))
    inputs = {"imagery": (rng.normal(size=shape) * std + mean).astype(np.float32)}
    if given.uses_time:
        inputs["time"] = rng.uniform((2015, 0), (2025, 366), (batch, given.times, 2)).astype(np.float32)
    if given.uses_location:
        inputs["location"] = rng.uniform((-90, -180), (90, 180), (batch, 2)).astype(np.float32)
    return inputs


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_answers_as_torch_does_for_any_batch(exported, task, batch):
    import openvino

    network, folder = exported[task]
    inputs = arrays(network, batch, seed=batch)
    with torch.inference_mode():
        wanted = network.predict({name: torch.from_numpy(a) for name, a in inputs.items()}).numpy()
    run = openvino.Core().compile_model(folder / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (got,) = run(inputs).values()
    assert got.shape == wanted.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    if batch > 1:
        assert np.abs(got[0] - got[1]).max() > 1e-5


@pytest.mark.parametrize("task", TASKS)
def test_the_graph_asks_for_what_the_spec_names_and_is_one_file(exported, task):
    network, folder = exported[task]
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    given = network.spec.imagery
    asked = ["imagery"] + ["time"] * given.uses_time + ["location"] * given.uses_location
    assert [value.name for value in graph.input] == asked
    assert [value.name for value in graph.output] == ["value" if task == "regression" else "class"]
    sizes = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [0, len(given.channels), given.times, given.tile, given.tile]  # 0: any number
    assert {path.name for path in folder.iterdir()} == {"bundle.json", "model.safetensors", "model.onnx"}
    assert all(not tensor.external_data for tensor in graph.initializer)


def test_years_and_places_change_the_exported_answer(exported):
    from models.runtime.engines import load_runtime

    network, folder = exported["segmentation"]
    run = load_runtime(folder, runtime="openvino")
    inputs = arrays(network, 1, seed=0)
    answers = []
    for year in (2017, 2018, 2019, 2020):
        inputs["time"][..., 0] = year
        answers.append(run(inputs).ravel())
    answers.append(run(inputs | {"location": -inputs["location"]}).ravel())
    assert len(np.unique(answers, axis=0)) == 5


def test_example_inputs_fit_the_spec(make_spec):
    inputs = example_inputs(make_spec(frames=2, uses_time=True, uses_location=True), batch=3)
    shapes = {"imagery": (3, 3, 2, 32, 32), "time": (3, 2, 2), "location": (3, 2)}
    assert {name: tuple(tensor.shape) for name, tensor in inputs.items()} == shapes
    means = torch.tensor([1000.0, 1500.0, 2500.0])
    torch.testing.assert_close(inputs["imagery"].mean((0, 2, 3, 4)), means, rtol=0.05, atol=0)
    assert set(example_inputs(make_spec(), batch=1)) == {"imagery"}


def test_a_failing_export_leaves_no_file(make_network, tmp_path, monkeypatch):
    def fail(path, **__):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    program = SimpleNamespace(model=SimpleNamespace(graph=[]), save=fail)
    monkeypatch.setattr(export.torch.onnx, "export", lambda *_, **__: program)
    with pytest.raises(OSError, match="No space left"):
        export_onnx(make_network("classification"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_export_names_no_folder_of_the_machine(exported):
    for _, folder in exported.values():
        content = (folder / "model.onnx").read_bytes()
        assert b"site-packages" not in content and b"stack_trace" not in content
