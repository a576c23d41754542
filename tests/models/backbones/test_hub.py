import logging
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from models.backbones.hub import WeightFile, cached, locate, read_state_dict
from models.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
REPO, FILE = "ibm-nasa-geospatial/Prithvi-EO-2.0-tiny-TL", "Prithvi_EO_V2_tiny_TL.pt"


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- locating


def test_a_file_is_downloaded_once_and_its_commit_is_told(hub):
    commit = hub.publish(REPO, {FILE: b"weights"})
    assert cached(REPO, FILE) is None
    found = locate(REPO, FILE)
    assert (found.path.read_bytes(), found.repo, found.revision) == (b"weights", REPO, commit)
    assert cached(REPO, FILE) == found.path
    locate(REPO, FILE)
    assert len([path for method, path in hub.requests if method == "GET" and "/resolve/" in path]) == 1


def test_the_cache_answers_when_the_hub_is_down(hub):
    commit = hub.publish(REPO, {FILE: b"weights"})
    first = locate(REPO, FILE)
    hub.stop()
    assert locate(REPO, FILE) == first
    assert locate(REPO, FILE, revision=commit) == first


def test_the_newest_commit_is_taken_and_an_older_one_can_be_asked_for(hub):
    old = hub.publish(REPO, {FILE: b"old"})
    new = hub.publish(REPO, {FILE: b"new"})
    assert (locate(REPO, FILE).revision, locate(REPO, FILE).path.read_bytes()) == (new, b"new")
    asked = locate(REPO, FILE, revision=old)
    assert (asked.revision, asked.path.read_bytes()) == (old, b"old")


def test_a_moved_branch_is_noticed(hub):
    hub.publish(REPO, {FILE: b"old"})
    locate(REPO, FILE)
    new = hub.publish(REPO, {FILE: b"new"})
    assert locate(REPO, FILE).revision == new


@pytest.mark.parametrize("offline", [False, True])
def test_without_hub_and_cache_three_ways_out_are_named_at_once(hub, monkeypatch, offline):
    hub.publish(REPO, {FILE: b"weights"})
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hub.stop()
    began = time.perf_counter()
    with pytest.raises(InputError) as error:
        locate(REPO, FILE)
    assert time.perf_counter() - began < 1
    text = one_line(error)
    assert f"{REPO}/{FILE}" in text
    assert all(way in text for way in ("--weights FILE", f"hf download {REPO} {FILE}", "--weights random"))
    assert hub.requests == []


def test_offline_by_environment_reads_the_cache_only(hub):
    hub.publish(REPO, {FILE: b"weights"})
    code = f"from models.backbones.hub import locate; locate({REPO!r}, {FILE!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    before = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    assert before.returncode and "Three ways out" in before.stderr and hub.requests == []
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    seen = len(hub.requests)
    assert seen
    subprocess.run([sys.executable, "-c", code], env=offline, check=True, capture_output=True)
    assert len(hub.requests) == seen


@pytest.mark.parametrize(
    ("repo", "file", "revision", "word"),
    [
        (REPO, "other.pt", None, "Entry"),
        (REPO, FILE, "v9", "Revision"),
        ("ibm-nasa-geospatial/none", FILE, None, "Repo"),
        ("not a/repository/name", FILE, None, "name"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_one_line(hub, repo, file, revision, word):
    hub.publish(REPO, {FILE: b"weights"})
    with pytest.raises(InputError) as error:
        locate(repo, file, revision=revision)
    text = one_line(error)
    assert f"{repo}/{file} at {revision or 'main'}" in text
    assert word in text


def test_a_hub_that_answers_without_serving_is_not_called_a_missing_file(hub, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.1)
    hub.failing = 403
    with pytest.raises(InputError) as error, caplog.at_level(logging.CRITICAL):
        locate(REPO, FILE)
    assert "not in the local cache and the Hub did not serve it" in one_line(error)


def test_a_connection_that_breaks_is_told_in_one_line_and_leaves_no_file(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.publish(REPO, {FILE: b"weights" * 1000})
    hub.breaking = True
    with pytest.raises(InputError, match=f"{FILE} at main: cannot be downloaded: ") as error:
        locate(REPO, FILE)
    one_line(error)
    assert cached(REPO, FILE) is None
    hub.breaking = False
    assert locate(REPO, FILE).path.stat().st_size == 7000


def test_the_hash_of_a_weight_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")  # the example of FIPS 180-2
    assert WeightFile(path).sha256() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---------------------------------------------------------------- reading

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state"])
@pytest.mark.parametrize("old_format", [False, True])
def test_pytorch_files_of_every_kind_are_read(tmp_path, wrap, old_format):
    content = {wrap: STATE, "epoch": 3} if wrap else STATE
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not old_format)
    assert same(read_state_dict(tmp_path / "w.pt"))


def test_safetensors_are_read(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(read_state_dict(tmp_path / "w.safetensors"))


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 2", "pickle 4"])
def test_code_in_a_weight_file_is_refused_and_not_run(tmp_path, kind):
    trap, path = tmp_path / "executed", tmp_path / "w.pt"
    content = STATE | {"evil": Malicious(trap)}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError, match=r"refused: .*could execute code|not a PyTorch weight file") as error:
        read_state_dict(path)
    assert str(path) in one_line(error)
    assert not trap.exists()


def test_the_trap_of_that_test_works(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def saved(tmp_path, old_format=False):
    torch.save(STATE, tmp_path / "whole.pt", _use_new_zipfile_serialization=not old_format)
    return (tmp_path / "whole.pt").read_bytes()


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_a_truncated_file_is_refused(tmp_path, old_format, share):
    content = saved(tmp_path, old_format)
    path = tmp_path / "w.pt"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"w\.pt") as error:
        read_state_dict(path)
    assert "code" not in one_line(error)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pt", b""),
        ("w.pt", b"<html>Access denied</html>"),
        ("w.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"),
        ("w.pt", bytes(range(256)) * 4),
        ("w.safetensors", b""),
        ("w.safetensors", b"garbage, eighteen b"),
        ("w.safetensors", struct.pack("<Q", 2**62) + b"{}"),
        ("w.safetensors", struct.pack("<Q", 2) + b"{}"),
    ],
)
def test_what_is_not_a_weight_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
        read_state_dict(tmp_path / name)
    assert "code" not in one_line(error)


def test_a_zip_that_torch_did_not_write_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="not a PyTorch weight file"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {"epoch": 3}, {"state_dict": {}}])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"wanted a dictionary of tensors|holds no tensors"):
        read_state_dict(tmp_path / "w.pt")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(InputError, match="no such weight file"):
            read_state_dict(path)


def test_tensors_without_values_are_refused(tmp_path):
    torch.save({"a": torch.zeros(3, device="meta")}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="tensor a"):
        read_state_dict(tmp_path / "w.pt")


MEASURE = """
import resource, sys
from pathlib import Path
import torch
from models.errors import InputError
from models.backbones.hub import read_state_dict
torch.load(sys.argv[1], weights_only=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        print(read_state_dict(Path(path))["patch_embed.proj.weight"].shape)
    except InputError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    plain, wide, bomb = (tmp_path / f"{name}.pt" for name in ("plain", "wide", "bomb"))
    weight = torch.zeros(1)
    torch.save({"patch_embed.proj.weight": weight}, plain)
    torch.save({"patch_embed.proj.weight": weight.expand(2**20, 2**20)}, wide)
    with zipfile.ZipFile(plain) as good, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as bad:
        for name in good.namelist():
            bad.writestr(name, bytes(2**29) if name.endswith("data.pkl") else good.read(name))
    assert bomb.stat().st_size < 2**20
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, plain, wide, bomb],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    shape, refusal, mebibytes = done.stdout.strip().splitlines()
    assert str(2**20) in shape
    assert "refused: a compressed archive" in refusal
    assert int(mebibytes) < 100
