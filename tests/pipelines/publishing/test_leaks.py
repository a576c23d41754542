"""What is found in all that goes out, kind by kind and file by file."""

from __future__ import annotations

import getpass
import json
import shutil
import socket

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image, PngImagePlugin
from safetensors.numpy import save_file

from models.errors import InputError
from pipelines.publishing import leaks, package
from tests.runs import write

LEAKS = {
    "a path": ("/home/ann/chips/a.tif", "a path of a machine"),
    "a path of a cluster": ("(/scratch/ann/x.nc)", "a path of a machine"),
    "a path on Windows": (r"C:\Users\ann\chips", "a path of a machine"),
    "a path on Windows with /": ("D:/chips/a.tif", "a path of a machine"),
    "a share": (r"\\server\chips\a.tif", "a path of a machine"),
    "an address of a file": ("file:///home/ann/a.tif", "a path of a machine"),
    "a path from home": ("~/chips/a.tif", "a path of a machine"),
    "a Hugging Face token": ("hf_" + "aB3" * 10, "a token of Hugging Face"),
    "an Earthdata token": ("eyJ0eXAiOiJKV1QiLCJ.eyJ0eXBlIjoiVXNlci", "one of Earthdata"),
    "a key": ("AKIA" + "A1B2" * 4, "a key of AWS"),
    "a signature of Azure": ("https://x.blob.core.windows.net/a.tif?se=2026-01-01&sig=abcd%3D", "a signed address"),
    "a signature of AWS": ("https://b.s3.amazonaws.com/a?X-Amz-Signature=00ff", "a signed address"),
    "a password": ("https://ann:secret@h.org/a.tif", "a name and password in an address"),
    "a header": ("Authorization: Bearer abcdef0123456789", "a password or token"),
    "a variable": ("EARTHDATA_TOKEN=abcdef0123", "a password or token"),
    "a private key": ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
    "the user": ("trained by Annabel.", "your user name (annabel)"),
    "the machine": ("on gpu-box-7, at night", "this machine's name (gpu-box-7)"),
}
HARMLESS = (
    "*_hls.tif, rain in mm/h, kg m-2/s, 1/2, a/b/c, and/or; https://h.org/home/data/a.tif?page=2 s3://b/data/x "
    "node_add/backbone/vit/blocks/0 org/name@main 12:30 T2M:K q: a /x annabella ratio~0.5 key: value tokens told "
    "a password protected file, bearer animals, the signature of water, password: null"
)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """A user and a machine whose names are known."""
    monkeypatch.setattr(getpass, "getuser", lambda: "annabel")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-box-7.example.org")
    monkeypatch.setenv("HOME", "/nowhere/annabel")


@pytest.mark.parametrize("case", LEAKS)
def test_each_kind_is_found_and_secrets_are_not_told(tmp_path, case):
    text, what = LEAKS[case]
    (tmp_path / "metrics.json").write_text(json.dumps({"notes": [f"see {text} there"]}))
    with pytest.raises(InputError, match="metrics.json: ") as error:
        leaks.check(tmp_path)
    assert what in str(error.value)
    if "token" in what or "password" in what:
        assert text not in str(error.value) and "secret" not in str(error.value)


def test_names_are_found_behind_escapes(tmp_path, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "jörg")
    for name, content in {"a.json": json.dumps(["of Jörg"]), "b.yaml": yaml.safe_dump({"by": "jörg"})}.items():
        (tmp_path / name).write_text(content)
        assert "ö" not in content
        with pytest.raises(InputError, match=f"{name}: your user name"):
            leaks.check(tmp_path)
        (tmp_path / name).unlink()


def test_what_is_harmless_passes(tmp_path):
    (tmp_path / "README.md").write_text(HARMLESS)
    leaks.check(tmp_path)
    (tmp_path / "README.md").write_text("Annabel made it, /home/x/y")
    with pytest.raises(InputError, match="a path") as error:
        leaks.check(tmp_path, allowed=["annabel"])
    assert "user name" not in str(error.value)


def test_secrets_of_the_environment_are_known(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("note: correct-horse-battery")
    leaks.check(tmp_path)
    monkeypatch.setenv("CDSE_PASSWORD", "correct-horse-battery")
    with pytest.raises(InputError, match=r"the value of CDSE_PASSWORD \(cor\.\.\.\)"):
        leaks.check(tmp_path)


PATH = "/home/ann/chips_of_the_whole_county_in_the_year_2021.tif"  # its length is a letter in a protobuf


def tensors(path):
    save_file({"w": np.zeros(3, np.float32)}, path, metadata={"made": PATH})


def named_tensor(path):
    save_file({PATH: np.zeros(3, np.float32)}, path)


def graph(path, **fields):
    node = onnx.helper.make_node("Identity", ["x"], ["y"], **fields)
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:]))


def documented(path):
    onnx.save(graph(path, doc_string=f"at {PATH}"), path)


def tagged(path):
    model = graph(path)
    model.metadata_props.add(key="stack", value=PATH)
    onnx.save(model, path)


def named_node(path):
    onnx.save(graph(path, name=PATH), path)


def png(path):
    told = PngImagePlugin.PngInfo()
    told.add_text("Source", PATH, zip=True)
    Image.new("RGB", (2, 2)).save(path, pnginfo=told)


def tif(path):
    write(path, np.zeros((1, 4, 4), np.uint8), tags={"SOURCE": PATH})


def yml(path):
    path.write_text(yaml.safe_dump({"data": {"root": PATH}}))


def text(path):
    path.write_bytes(b"\xff\xfe " + PATH.encode())


FILES = {
    **{"model.safetensors": tensors, "familiar.safetensors": named_tensor},
    **{"a.onnx": documented, "b.onnx": tagged, "c.onnx": named_node},
    **{"scores.png": png, "map.tif": tif, "recipe.yaml": yml, "LICENSE": text},
}


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_is_looked_through(tmp_path, name):
    FILES[name](tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: a path of a machine \(/home/ann/chips_of"):
        leaks.check(tmp_path)


def test_paths_become_names(tmp_path):
    told = {
        "weights": "/cluster7/ann/w.pt",
        "notes": ["lost (/data/chips/a.tif: gone)", r"C:\Users\ann\b.tif"],
        "files": ("s3://b/data/x", "*.nc", "/home/ann/*.nc"),
        "n": 3,
    }
    assert leaks.plain(told) == {
        "weights": "w.pt",
        "notes": ["lost (a.tif: gone)", "b.tif"],
        "files": ["s3://b/data/x", "*.nc", "*.nc"],
        "n": 3,
    }


def test_known_paths_of_a_run_go_and_others_are_refused(run, tmp_path, told):
    copy = shutil.copytree(run, tmp_path / "copy")
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"weights": "/home/ann/w.pt"}))
    words = ("publish", copy, "org/landuse", "--dry_run", "--licence", "mit", "--out", tmp_path / "out")
    assert "data.root is training-data-elsewhere" in told(*words)
    out = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert (out["weights"], out["data"]["root"]) == ("w.pt", package.ROOT)
    assert out | {"weights": "", "data": ""} == recipe | {"weights": "", "data": ""}
    assert json.loads((tmp_path / "out" / "bundle.json").read_text())["data"]["root"] == package.ROOT
    split = (copy / "split.csv").read_text()
    (copy / "split.csv").write_text(split.replace("c00_hls", "/mnt/ann/c00_hls"))
    assert "split.csv: a path of a machine (/mnt/ann/c00_hls)" in told(*words, "--overwrite", code=2)
    shutil.rmtree(tmp_path / "out")
    told(*words, code=2)
    assert not (tmp_path / "out").exists()
