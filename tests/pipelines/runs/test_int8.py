"""A run's model in bytes: kept where it is as good, and else nothing is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from models.bundle import FILES, read_bundle
from models.errors import InputError, RunError
from models.runtime.hashes import sha256
from pipelines.commands.int8 import int8, told
from pipelines.edge.site import write_site
from pipelines.runs import assess
from pipelines.runs import int8 as module
from pipelines.samples.sets import inputs_of, read_split
from pipelines.tasks.task import data_for, task_named


@pytest.fixture(scope="module")
def rounded(run, tmp_path_factory):
    """A copy of the run with its model in bytes, and what was told of it; not to be changed."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("int8") / "run")
    return folder, int8(folder)


def test_bundle_json_holds_its_hash_and_what_onnxruntime_says_of_left_out_samples(rounded, run):
    folder, result = rounded
    bundle, before = read_bundle(folder), read_bundle(run)
    assert bundle.int8 == sha256(folder / "model.int8.onnx") and bundle.graph == before.graph
    assert {name: bundle.rounding[name] for name in before.rounding} == before.rounding
    samples = task_named("segmentation").reopen(bundle.spec, data_for(bundle))
    chosen, _ = assess.tested(samples, read_split(folder / "split.csv", samples.keys), own=True)
    truth = np.stack([samples.truth(one) for one in chosen])
    labels = {}
    for name in ("model.onnx", "model.int8.onnx"):
        session = onnxruntime.InferenceSession(folder / name)
        parts = [inputs_of(samples, [one]) for one in chosen]
        labels[name] = np.concatenate([session.run(None, part)[0].argmax(1) for part in parts])
    exact, came = labels.values()
    known = bundle.rounding["int8"]
    assert known["equal"] == pytest.approx((exact == came).mean(), abs=0.002) and known["samples"] == len(chosen)
    shares = [
        np.mean([((a == c) & (truth == c)).sum() / ((a == c) | (truth == c)).sum() for c in range(3)])
        for a in (exact, came)
    ]
    assert [known["before"], known["after"]] == pytest.approx(shares, abs=0.002)
    assert result["bytes"] == (folder / "model.int8.onnx").stat().st_size < result["bytes_before"]
    assert "of the labels stay, Mean IoU" in told(result, {}).text


def test_a_spoiled_model_is_refused_and_the_run_is_as_it_was(run, tmp_path, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def spoiled(source, path, samples):
        model = onnx.load_model(source)
        for weight in model.graph.initializer:
            if weight.name.startswith("network.head") and len(weight.dims) == 4:
                values = numpy_helper.to_array(weight)
                weight.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=0), weight.name))
        onnx.save_model(model, path)
        return 3

    monkeypatch.setattr(module, "write_int8", spoiled)
    with pytest.raises(RunError, match=r"does not bear bytes \(.*of the labels stay, wanted 98\.5%.*none was kept"):
        int8(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("known", "lost", "kept"),
    [
        ({"equal": 0.985}, 0.005, True),
        ({"equal": 0.9849}, 0.0, False),
        ({"equal": 1.0}, 0.0051, False),
        ({"equal": 1.0}, float("nan"), False),
        ({"difference": 0.1}, 0.0, True),
        ({"difference": 0.11}, 0.0, False),
        ({"difference": 0.5, "equal": 0.99}, 0.0, True),
    ],
)
def test_what_is_kept(tmp_path, known, lost, kept):
    known = {"difference": 0.0, "before": 0.5, "after": 0.4} | known
    if kept:
        return module._admit(tmp_path, known, "mean_iou", lost)
    with pytest.raises(RunError, match="none was kept"):
        module._admit(tmp_path, known, "mean_iou", lost)


@pytest.mark.parametrize("name", ["value_run", "scene_run"])
def test_values_and_scene_classes_are_rounded_too(name, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "run")
    result = int8(folder)
    assert read_bundle(folder).int8 and ("equal" in result) == (name == "scene_run")


def test_a_run_with_folds_asks_each_network_about_what_it_never_saw(run, tmp_path, monkeypatch):
    """The folder's own graph and weights stand for those of the folds, which are made the same way."""
    import yaml

    folder, asked = shutil.copytree(run, tmp_path / "run"), []
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"folds": 3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for fold in (1, 2, 3):
        (folder / "folds" / str(fold)).mkdir(parents=True)
        shutil.copyfile(folder / FILES["sha256"], folder / "folds" / str(fold) / FILES["sha256"])
    monkeypatch.setattr(module, "export_onnx", lambda network, file: shutil.copyfile(folder / "model.onnx", file))
    monkeypatch.setattr(
        module, "_scores", lambda task, samples, pairs, progress: (asked.extend(pairs), "mean_iou", 1.0, 1.0, 0.0)[1:]
    )
    int8(folder)
    names = [chip.name for pair in asked for chip in pair.left]
    assert len(asked) == 3 and len({pair.folder for pair in asked}) == 3
    assert len(names) == len(set(names)) == 12
    (folder / "folds" / "2" / FILES["sha256"]).unlink()
    with pytest.raises(InputError, match="2: the network of this fold is not there"):
        int8(folder)


def test_weather_and_moved_data_are_refused_in_a_line(rain_run, run, tmp_path):
    with pytest.raises(InputError, match="a rain run, and bytes are for runs over scenes; score it as it is$"):
        int8(rain_run)
    folder = shutil.copytree(run, tmp_path / "run")
    with pytest.raises(InputError, match="elsewhere"):
        int8(folder, data_root=tmp_path / "elsewhere")
    assert not (folder / "model.int8.onnx").exists()


def test_a_site_offers_both_models(rounded, tmp_path):
    folder, _ = rounded
    write_site(folder, tmp_path / "site")
    models = json.loads((tmp_path / "site" / "site.json").read_text())["models"]
    assert models == [{"name": "f32", "file": "model.onnx"}, {"name": "int8", "file": "model-int8.onnx"}]
    session = onnxruntime.InferenceSession(tmp_path / "site" / "model-int8.onnx")
    inputs = {v.name: np.ones(v.shape, np.float32) for v in session.get_inputs()}
    plain = onnxruntime.InferenceSession(folder / "model.int8.onnx")
    assert np.array_equal(session.run(None, inputs)[0], plain.run(None, inputs)[0])
