"""What the folder holds, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio

from models.bundle import load_familiar, read_bundle
from models.confidence.familiar import features_of
from models.errors import InputError, RunError
from models.runtime.static import write_static
from pipelines.commands.edge import edge, told
from pipelines.edge import vendored
from pipelines.edge.site import _check, write_site
from pipelines.edge.unfamiliar import write_unfamiliar
from pipelines.samples.unfamiliar import STEP, enlarged
from pipelines.scenes.reading import Reading
from tests.pipelines.edge.scenes_to_map import make_scene
from tests.specs import rain_spec

PAGE = Path(__file__).parents[3] / "pipelines" / "edge" / "page"


@pytest.fixture(scope="module")
def site(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_site(run, folder / "site", scene=str(make_scene(folder / "scene.tif")))
    return folder / "site"


def test_checksums_are_those_of_all_files(site):
    done = subprocess.run(["sha256sum", "-c", "checksums.txt"], cwd=site, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count(": OK") == len([*site.iterdir()]) - 1
    names = {path.name for path in site.iterdir()}
    assert {"index.html", "page.js", "worker.js", "model.onnx", "unfamiliar.onnx", "sample.tif", "run_edge.py"} < names
    assert not any(name.endswith((".ts", ".gz", ".json.gz")) or name == "tsconfig.json" for name in names)
    assert sum(path.stat().st_size for path in site.iterdir()) < 25e6


def test_licences_name_each_file_of_others(site):
    text = (site / "licences.txt").read_text()
    for name in ("ort.js", "ort-wasm.js", "ort.wasm", "geotiff.js"):
        assert re.search(rf"^{re.escape(name)}: .* of [\w-]+ [\d.]+, MIT$", text, re.MULTILINE)
    assert "Microsoft Corporation" in text and "Apache License" in text


def test_ours_names_no_other_host():
    for path in PAGE.iterdir():
        found = re.findall(r"https?://[\w.]+", path.read_text())
        assert found == [] and "innerHTML" not in path.read_text() and "eval(" not in path.read_text()
    policy = re.search(r'Policy" content="([^"]*)"', (PAGE / "index.html").read_text())[1]
    assert policy.startswith("default-src 'self'; script-src 'self' 'wasm-unsafe-eval';")
    assert "unsafe-inline" not in policy and "http" not in policy and "*" not in policy


def test_the_graph_is_for_one_tile_and_has_no_sequences(site, run):
    model = onnx.load_model(site / "model.onnx")
    onnx.checker.check_model(model)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert shapes == {"imagery": [1, 6, 1, 32, 32], "time": [1, 1, 2], "location": [1, 2]}
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 3, 32, 32]
    assert not {node.op_type for node in model.graph.node} & {"SplitToSequence", "SequenceAt"}
    read = {name for node in model.graph.node for name in node.input}
    assert all(node.output[0] in read for node in model.graph.node if node.op_type == "Constant")
    write_static(run / "model.onnx", site.parent / "again.onnx")
    assert (site.parent / "again.onnx").read_bytes() == (site / "model.onnx").read_bytes()


def test_uneven_parts_of_a_split_keep_their_sizes(tmp_path):
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    def kept(name, value):
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, np.int64)))

    whole, parts = "imagery", ["class", "rest"]
    nodes = [
        *(kept(name, value) for name, value in (("sizes", [1, 3]), ("zero", 0), ("one", 1))),
        helper.make_node("SplitToSequence", [whole, "sizes"], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", "one"], ["large"]),
        helper.make_node("Relu", ["large"], ["class"]),
    ]
    given = helper.make_tensor_value_info(whole, TensorProto.FLOAT, ["batch", 4])
    answer = helper.make_tensor_value_info(parts[0], TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "g", [given], [answer])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "a.onnx")
    write_static(tmp_path / "a.onnx", tmp_path / "b.onnx")
    x = np.array([[-1, 2, -3, 4]], np.float32)
    assert ReferenceEvaluator(str(tmp_path / "b.onnx")).run(None, {whole: x})[0].tolist() == [[2, 0, 4]]


def test_the_graph_of_what_is_unfamiliar_says_what_score_says(run, tmp_path):
    from onnx.reference import ReferenceEvaluator

    bundle = read_bundle(run)
    familiar, pixels = load_familiar(run, bundle), bundle.spec.imagery
    write_unfamiliar(tmp_path / "u.onnx", familiar, pixels)
    onnx.checker.check_model(str(tmp_path / "u.onnx"), full_check=True)
    x = np.random.default_rng(0).normal(1500, 1200, (1, 6, 1, 32, 32)).astype(np.float32)
    some = x[..., STEP // 2 :: STEP, STEP // 2 :: STEP]
    wanted = enlarged(familiar(features_of(some, pixels.channels)[0]).reshape(1, 8, 8), (32, 32), STEP)
    (found,) = ReferenceEvaluator(str(tmp_path / "u.onnx")).run(None, {"imagery": x})
    assert found.shape == (1, 1, 32, 32) and np.allclose(found[0], wanted, rtol=1e-3, atol=1e-3)
    assert wanted.std() > 0.1


def test_the_sample_is_the_middle_of_the_scene_in_the_models_unit(site):
    with rasterio.open(site / "sample.tif") as made:
        assert made.descriptions == ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
        assert made.scales == (1e-4,) * 6 and made.tags()["ACQUISITION_DATE"] == "2021-06-15"
        values, valid = made.read(), made.read_masks(1) > 0
    with rasterio.open(site.parent / "scene.tif") as source:
        counts = source.read()[:6][::-1]
    assert valid[0, 0] and not valid[52, 10] and not valid[74, 108] and valid[21, 25]
    assert np.abs(values - (counts * 0.5 - 2000))[:, valid].max() <= 0.5


def test_a_sample_is_cut_to_the_middle(run, tmp_path):
    from pipelines.edge import sample

    scene = make_scene(tmp_path / "scene.tif")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "SIDE", 20)
        sample.write_sample(tmp_path / "s.tif", read_bundle(run), str(scene), Reading(), say=print)
    with rasterio.open(tmp_path / "s.tif") as made, rasterio.open(scene) as whole:
        assert made.shape == (20, 20)
        assert made.transform.c == whole.transform.c + 44 * 30 and made.transform.f == whole.transform.f - 27 * 30


def test_a_site_is_not_written_over_and_one_in_its_place_keeps_nothing_of_it(run, tmp_path):
    out = tmp_path / "site"
    edge(run, out=out, scene=str(make_scene(tmp_path / "scene.tif")))
    with pytest.raises(InputError, match="is not empty"):
        edge(run, out=out)
    (out / "model-int8.onnx").touch()
    result = edge(run, out=out, overwrite=True)
    assert not (out / "sample.tif").exists() and not (out / "model-int8.onnx").exists()
    assert json.loads((out / "site.json").read_text())["sample"] is None
    assert "http.server" in told(result, {}).text and result["models"] == ["f32"]


def test_a_scene_that_does_not_fit_leaves_no_site(run, tmp_path):
    scene = make_scene(tmp_path / "scene.tif", names=("a", "b", "c", "d", "e", "f", "g"))
    with pytest.raises(InputError, match="BLUE"):
        edge(run, out=tmp_path / "site", scene=str(scene))
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("task, why", [("classification", "classification of imagery"), ("segmentation", "2 dates")])
def test_what_a_site_cannot_do_is_refused_in_a_line(exported, tmp_path, task, why):
    with pytest.raises(InputError, match=why) as refused:
        edge(exported[task][1], out=tmp_path / "site")
    assert "\n" not in str(refused.value) and "score" in str(refused.value)


def test_rain_is_refused():
    with pytest.raises(InputError, match="rain of weather: a site maps classes or values per pixel"):
        _check(Path("run"), rain_spec(["T2M"], ["K"], [280.0], [10.0]))


def test_overlap_has_to_be_below_the_tile(run, tmp_path):
    with pytest.raises(InputError, match="wanted 0 to 31"):
        edge(run, out=tmp_path / "site", overlap=32)


def test_a_model_that_was_swapped_is_refused(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(InputError, match="not the file that"):
        edge(copy, out=tmp_path / "site")


def test_a_file_of_others_that_was_changed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vendored.gzip, "decompress", lambda content: b"else")
    with pytest.raises(RunError, match=r"ort\.js: not the file of onnxruntime-web"):
        vendored.unpack(tmp_path)


def test_a_second_model_of_the_run_comes_along(run, tmp_path, monkeypatch):
    from pipelines.edge import site as module

    bundle = read_bundle(run)
    monkeypatch.setitem(module.FILES, "int8", "model.onnx")
    object.__setattr__(bundle, "int8", bundle.graph)
    monkeypatch.setattr(module, "read_bundle", lambda folder: bundle)
    write_site(run, tmp_path / "site")
    about = json.loads((tmp_path / "site" / "site.json").read_text())
    assert about["models"] == [{"name": "f32", "file": "model.onnx"}, {"name": "int8", "file": "model-int8.onnx"}]
    assert (tmp_path / "site" / "model-int8.onnx").is_file()


@pytest.mark.skipif(shutil.which("tsc") is None, reason="no tsc (TypeScript) on the PATH")
def test_the_pages_types_hold():
    done = subprocess.run(["tsc", "-p", str(PAGE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
