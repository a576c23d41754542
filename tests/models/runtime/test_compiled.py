"""Compiled models that outlive a process: the same answers, and nothing worse than compiling again."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models.bundle import read_bundle, write_bundle
from models.errors import InputError
from models.runtime import compiled as module
from models.runtime import engines as runtime
from models.runtime.engines import load_runtimes
from models.runtime.export import example_inputs


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("EARTHTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def answer(exported, monkeypatch):
    """A function that loads a run, gives its answer to one tile and whether it was compiled anew."""
    examples = example_inputs(exported["classification"][0].spec, batch=1)
    inputs = {name: tensor.numpy() for name, tensor in examples.items()}
    made = []
    prepared = runtime._prepared
    monkeypatch.setattr(runtime, "_prepared", lambda *a, **k: (made.append(1), prepared(*a, **k))[1])

    def ask(folder=exported["classification"][1], **options):
        made.clear()
        loaded = load_runtimes([folder], runtime="openvino", threads=1, **{"keep": True} | options)
        return loaded.run(inputs)[0], loaded.name, bool(made)

    return ask


@pytest.mark.parametrize("precision", ["f32", "bf16", "auto"])
def test_what_was_kept_answers_to_the_bit(place, answer, precision):
    first, name, anew = answer(precision=precision)
    again, same, anew_again = answer(precision=precision)
    assert (anew, anew_again, same) == (True, False, name)
    np.testing.assert_array_equal(first, again)


def test_nothing_is_kept_unasked_or_in_the_run(place, answer, exported):
    before = sorted(path.name for path in exported["classification"][1].iterdir())
    answer(keep=False)
    assert not place.exists()
    answer()
    assert sorted(path.name for path in exported["classification"][1].iterdir()) == before


def test_other_weights_precision_and_files_are_other_models(place, answer, exported, tmp_path):
    assert answer(precision="f32")[2]
    assert answer(precision="bf16")[2]
    copy = shutil.copytree(exported["classification"][1], tmp_path / "copy")
    os.utime(copy / "model.onnx", (1, 1))
    assert not answer(copy, precision="f32")[2]  # the same wherever it lies, and however old it looks
    before = (copy / "model.onnx").stat()
    model = onnx.load(copy / "model.onnx")
    weight = next(w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT and len(w.dims) == 2)
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(model, copy / "model.onnx")
    os.utime(copy / "model.onnx", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=r"model\.onnx: not the file that bundle\.json was written for"):
        answer(copy, precision="f32")
    write_bundle(copy, read_bundle(copy))
    assert answer(copy, precision="f32")[2]
    assert not answer(copy, precision="f32")[2]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 999, "half", None])
@pytest.mark.parametrize("name", ["0.blob", "facts.json"])
def test_what_is_damaged_is_compiled_again(place, answer, damage, name):
    wanted = answer()[0]
    (file,) = place.glob(f"*/{name}")
    if damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    came, _, anew = answer()
    assert anew
    np.testing.assert_array_equal(came, wanted)
    assert not answer()[2]  # and it is whole again


def test_without_room_to_keep_them_models_work_all_the_same(answer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EARTHTUNE_CACHE", str(tmp_path / "file"))
    assert answer()[2]
    assert answer()[2]


def test_what_was_used_longest_ago_makes_room(place, answer, monkeypatch):
    answer(precision="f32")
    (first,) = place.iterdir()
    os.utime(first, (1, 1))
    monkeypatch.setattr(module, "MOST", 1.5 * sum(file.stat().st_size for file in first.iterdir()))
    answer(precision="bf16")
    assert len(list(place.iterdir())) == 1
    assert not first.exists()
    assert not answer(precision="bf16")[2]


def test_what_killed_processes_left_goes(place, answer):
    for name, age in ((".draft-old", 9999), (".draft-new", 5)):
        (place / name / "model").mkdir(parents=True)
        then = time.time() - age
        os.utime(place / name, (then, then))
    answer()
    assert sorted(path.name for path in place.iterdir() if path.name.startswith(".")) == [".draft-new"]


def test_models_of_another_user_are_not_trusted(place, answer, monkeypatch):
    answer()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert answer()[2]


def test_models_work_without_a_home(answer, monkeypatch):
    """A container under any user id has no home folder."""
    for name in ("EARTHTUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    assert answer()[2]
    assert answer(keep=False)[2]


def test_other_graphs_are_other_models(place, answer, monkeypatch):
    answer()
    monkeypatch.setattr(module, "GRAPHS", module.GRAPHS + 1)
    assert answer()[2]
