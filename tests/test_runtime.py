import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import InputError, RunError
from models.export import example_inputs
from models.runtime import RUNTIMES, load_runtime

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_both_runtimes_give_the_same_map(exported, task):
    network, folder = exported[task]
    inputs = [None if t is None else t.numpy() for t in example_inputs(network.spec, batch=3)]
    answers = [load_runtime(folder, runtime=name)(*inputs) for name in ("openvino", "torch", "auto")]
    for answer in answers:
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, answers[0], rtol=1e-4, atol=1e-4)


SCORE = """
import sys
from pathlib import Path
import numpy as np
from models.runtime import load_runtime
y = load_runtime(Path(sys.argv[1]), runtime="openvino")(np.ones((2, 3, 1, 32, 32), np.float32), None, None)
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


def test_what_is_not_a_run_is_refused(tmp_path):
    for name in RUNTIMES:
        with pytest.raises(InputError, match="not a run folder"):
            load_runtime(tmp_path, runtime=name)


def test_a_missing_graph_is_refused_and_torch_is_the_way_out(run_copy):
    folder = run_copy("regression")
    (folder / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: missing; use --runtime torch"):
        load_runtime(folder, runtime="openvino")
    assert load_runtime(folder, runtime="torch")(np.ones((1, 3, 1, 32, 32), np.float32), None, None).shape[1] == 1


def test_a_damaged_graph_is_a_failure_told_in_one_line(run_copy):
    folder = run_copy("regression")
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"model\.onnx: OpenVINO cannot compile it") as error:
        load_runtime(folder, runtime="openvino")
    assert "\n" not in str(error.value)


def test_dropout_and_gradients_are_off(run_copy):
    folder = run_copy("classification")
    run = load_runtime(folder, runtime="torch")
    x = np.random.default_rng(0).normal(1500, 500, (2, 3, 1, 32, 32)).astype(np.float32)
    assert np.array_equal(run(x, None, None), run(x, None, None))
    assert torch.is_grad_enabled()
