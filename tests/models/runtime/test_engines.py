import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import read_bundle
from models.errors import InputError, RunError
from models.runtime.engines import RUNTIMES, load_runtime, load_runtimes, multiplies_bytes
from models.runtime.export import example_inputs

ROOT = Path(__file__).resolve().parents[3]


def inputs_of(network, batch=3):
    return {name: tensor.numpy() for name, tensor in example_inputs(network.spec, batch=batch).items()}


def alone(inputs, i):
    """One sample of a batch, as a batch."""
    return {name: array[i : i + 1] for name, array in inputs.items()}


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_both_runtimes_give_the_same_map(exported, task):
    network, folder = exported[task]
    names = ("openvino", "torch", "auto")
    answers = [load_runtime(folder, runtime=name, precision="f32")(inputs_of(network)) for name in names]
    for answer in answers:
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, answers[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_half_precision_is_close(exported, task, runtime):
    network, folder = exported[task]
    exact = load_runtime(folder, precision="f32")(inputs_of(network))
    half = load_runtime(folder, runtime=runtime, precision="bf16")(inputs_of(network))
    spread = 7.5 if task == "regression" else 1.0  # the deviation of the training's values
    np.testing.assert_allclose(half, exact, atol=0.02 * spread)


def test_trained_models_give_the_same_labels_in_half_precision(run, chips):
    from pipelines.recipes.recipe import Data, data_of
    from pipelines.samples.chips import Chips, find_chips
    from pipelines.samples.sets import inputs_of

    bundle = read_bundle(run)
    data = data_of(bundle, Data)
    found = find_chips(data, bundle.spec, seed=0, split=False)
    inputs = inputs_of(Chips(bundle.spec, data, found), found)
    exact, half = (load_runtime(run, runtime="openvino", precision=p)(inputs) for p in ("f32", "bf16"))
    assert (exact.argmax(1) == half.argmax(1)).mean() >= 0.99
    assert np.abs(exact - half).max() < 0.02


@pytest.fixture(scope="session")
def wide_run(make_network, tmp_path_factory):
    """A network whose linear layers are large enough for bytes, and its run folder with `rounding` not yet known."""
    from models.bundle import Bundle, write_bundle, write_weights
    from models.runtime.export import export_onnx
    from models.training.settings import Architecture

    chosen = {"overrides": {"embed_dim": 512, "depth": 2, "num_heads": 8}, "decoder": "fcn", "channels": 8, "detail": 0}
    network = make_network(architecture=chosen | {"blocks": (0, 1)})
    folder = tmp_path_factory.mktemp("wide")
    write_weights(folder, network, whole=True)
    export_onnx(network, folder / "model.onnx")
    write_bundle(folder, Bundle(network.spec, "prithvi_eo_v2_300_tl", Architecture(**chosen | {"blocks": (0, 1)})))
    return network, folder


bytewise = pytest.mark.skipif(not multiplies_bytes(), reason="this processor has no dot products of bytes")


@bytewise
def test_bytes_answer_alike_and_a_tile_alone_as_among_others(wide_run):
    network, folder = wide_run
    inputs = inputs_of(network, batch=4)
    exact = load_runtime(folder, precision="f32")(inputs)
    runtime = load_runtimes([folder], runtime="openvino", precision="i8", threads=2)
    assert runtime.name == "OpenVINO CPU i8"
    (came,) = runtime.run(inputs)
    assert (came.argmax(1) == exact.argmax(1)).mean() >= 0.99
    assert 0 < np.abs(came - exact).max() < 0.02
    (first,) = runtime.run(alone(inputs, 0))
    np.testing.assert_array_equal(first[0], came[0])


@bytewise
@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({}, False),
        ({"i8": {"equal": 0.999, "difference": 0.004, "samples": 9}}, True),
        ({"i8": {"difference": 0.004, "samples": 9}}, True),
        ({"i8": {"equal": 0.98, "difference": 0.004, "samples": 9}}, False),
        ({"i8": {"equal": 0.999, "difference": 0.03, "samples": 9}}, False),
    ],
)
def test_bytes_are_taken_unasked_only_where_the_bundle_bears_them(wide_run, tmp_path, known, wanted):
    import dataclasses

    from models.bundle import write_bundle

    folder = shutil.copytree(wide_run[1], tmp_path / "run")
    write_bundle(folder, dataclasses.replace(read_bundle(folder), rounding=known))
    name = load_runtimes([folder], runtime="openvino", threads=1).name
    assert (name == "OpenVINO CPU i8") == wanted


def test_bytes_are_for_openvino(exported):
    with pytest.raises(InputError, match="precision i8: OpenVINO only"):
        load_runtime(exported["regression"][1], runtime="torch", precision="i8")


def test_a_processor_without_products_of_bytes_says_so(exported, monkeypatch):
    monkeypatch.setattr("models.runtime.engines.multiplies_bytes", lambda: False)
    with pytest.raises(InputError, match="precision i8: this processor"):
        load_runtime(exported["regression"][1], runtime="openvino", precision="i8")


def test_a_tile_alone_is_answered_as_among_others(exported):
    """To the bit, however many lanes there are: maps must not depend on who scored which rows."""
    network, folder = exported["segmentation"]
    inputs = inputs_of(network, batch=5)
    one, two = (load_runtimes([folder], runtime="openvino", threads=threads) for threads in (1, 2))
    (together,) = two.run(inputs)
    assert (one.lanes, two.lanes, two.batch) == (1, 2, 1)
    for i in range(5):
        (answer,) = one.run(alone(inputs, i))
        np.testing.assert_array_equal(answer[0], together[i])


def test_threads_may_call_at_once(exported):
    from concurrent.futures import ThreadPoolExecutor

    network, folder = exported["segmentation"]
    inputs = inputs_of(network, batch=8)
    runtime = load_runtimes([folder], runtime="openvino", threads=2)
    (wanted,) = runtime.run(inputs)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda i: runtime.run(alone(inputs, i))[0][0], range(8)))
    np.testing.assert_array_equal(np.stack(answers), wanted)


SCORE = """
import sys
from pathlib import Path
import numpy as np
from models.runtime.engines import load_runtime
y = load_runtime(Path(sys.argv[1]), runtime="openvino")({"imagery": np.ones((2, 3, 1, 32, 32), np.float32)})
assert y.shape == (2, 1, 32, 32)
heavy = {"torch", "terratorch", "lightning", "timm", "huggingface_hub", "safetensors", "rasterio", "pipelines"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_scoring_on_a_cpu_imports_neither_torch_nor_terratorch(exported):
    _, folder = exported["regression"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCORE, str(folder)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_runtime_is_refused(exported):
    with pytest.raises(InputError, match=f"runtime 'tensorrt': wanted one of {', '.join(RUNTIMES)}"):
        load_runtime(exported["regression"][1], runtime="tensorrt")


def test_an_unknown_precision_is_refused(exported):
    with pytest.raises(InputError, match="precision 'int4': wanted one of auto, f32, bf16, i8"):
        load_runtime(exported["regression"][1], precision="int4")


def test_what_is_not_a_run_is_refused(tmp_path):
    for name in RUNTIMES:
        with pytest.raises(InputError, match="not a run folder"):
            load_runtime(tmp_path, runtime=name)


def test_a_missing_graph_is_refused_and_torch_is_the_way_out(run_copy):
    folder = run_copy("regression")
    (folder / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: missing; use --runtime torch"):
        load_runtime(folder, runtime="openvino")
    assert load_runtime(folder, runtime="torch")({"imagery": np.ones((1, 3, 1, 32, 32), np.float32)}).shape[1] == 1


def test_a_damaged_graph_is_a_failure_told_in_one_line(run_copy):
    import onnx

    from models.bundle import write_bundle

    folder = run_copy("regression")
    model = onnx.load(folder / "model.onnx")
    del model.graph.initializer[:]
    onnx.save(model, folder / "model.onnx")
    write_bundle(folder, read_bundle(folder))
    with pytest.raises(RunError, match=r"model\.onnx: OpenVINO cannot compile it") as error:
        load_runtime(folder, runtime="openvino")
    assert "\n" not in str(error.value)


def test_dropout_and_gradients_are_off(run_copy):
    folder = run_copy("classification")
    run = load_runtime(folder, runtime="torch")
    x = np.random.default_rng(0).normal(1500, 500, (2, 3, 1, 32, 32)).astype(np.float32)
    assert np.array_equal(run({"imagery": x}), run({"imagery": x}))
    assert torch.is_grad_enabled()
