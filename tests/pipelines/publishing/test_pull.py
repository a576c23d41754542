"""Repositories of strangers, and what becomes of them."""

from __future__ import annotations

import json
import shutil

import pytest

from models.errors import InputError
from pipelines.publishing.files import TEXT, check_run

REPO = "org/landuse"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


def changed(files, name, content):
    return files | {name: content(files[name]) if callable(content) else content}


def flipped(held):
    return held[:-1] + bytes([held[-1] ^ 1])


def within(**values):
    return lambda held: json.dumps(json.loads(held) | values).encode()


REFUSED = {
    "other weights": ("model.safetensors", flipped, "its sha256 differs"),
    "another graph": ("model.onnx", flipped, "its sha256 differs"),
    "another card": ("README.md", flipped, "checksums.txt"),
    "a graph that bundle.json tells nothing of": ("model.int8.onnx", b"graph", "it tells of none"),
    "a pointer": ("model.safetensors", POINTER, "pointer of Git LFS"),
    "a bundle that is a pointer": ("bundle.json", POINTER, "pointer of Git LFS"),
    "no JSON": ("bundle.json", b"{", "damaged"),
    "deep JSON": ("bundle.json", b"[" * 100_000, "damaged"),
    "a list": ("bundle.json", b"[1]", "damaged"),
    "another format": ("bundle.json", within(format=9), "wanted format 4"),
    "no Spec": ("bundle.json", within(spec={}), "damaged"),
    "a tile for all memory": (
        "bundle.json",
        lambda held: held.replace(b'"tile": 32', b'"tile": 1048576'),
        "tile 1048576",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_run_is_refused_and_nothing_left(hub, files, tmp_path, told, case):
    name, content, message = REFUSED[case]
    hub.publish(REPO, changed(files, name, content))
    assert message in told("pull", REPO, "--out", tmp_path / "theirs", code=2)
    assert message in told("score", f"hf://{REPO}", "a.tif", "--out", tmp_path / "maps", code=2)
    assert [*tmp_path.iterdir()] == [tmp_path / "hub-cache"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("bundle.json", "wanted bundle.json and model.safetensors"),
        ("model.safetensors", "wanted bundle.json and model.safetensors"),
        ("model.onnx", "no such file"),
        ("README.md", "checksums.txt"),
    ],
)
def test_files_that_lack(hub, files, tmp_path, told, gone, message):
    hub.publish(REPO, {name: held for name, held in files.items() if name != gone})
    assert message in told("pull", REPO, "--out", tmp_path / "theirs", code=2)


def test_pickles_are_not_touched(hub, files, tmp_path, told):
    hub.publish(REPO, {"model.ckpt": b"cos\nsystem\n", "README.md": b"# A model"})
    assert "pickles (model.ckpt), which could run code" in told("pull", REPO, "--out", tmp_path / "theirs", code=2)
    hub.publish(REPO, files | {"model.ckpt": b"cos\nsystem\n", "../up.txt": b"", "code.py": b"", "/tmp/x": b""})
    told("pull", REPO, "--out", tmp_path / "theirs")
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == set(files)
    asked = {path.rpartition("/")[2] for _, path in hub.requests if "/resolve/" in path}
    assert asked == set(files)


def test_what_is_too_large_is_not_fetched(hub, files, tmp_path, told):
    hub.publish(REPO, files | {"bundle.json": b" " * (TEXT + 1)})
    assert "wanted 16,777,216 at most" in told("pull", REPO, "--out", tmp_path / "theirs", code=2)
    assert not [path for _, path in hub.requests if "/resolve/" in path]


def test_what_lies_in_the_cache_is_held_to_the_same_sizes(package, tmp_path):
    copy = shutil.copytree(package, tmp_path / "copy")
    check_run(copy, REPO)
    (copy / "metrics.json").write_bytes(b" " * (TEXT + 1))
    with pytest.raises(InputError, match=r"metrics.json has 16,777,217 bytes"):
        check_run(copy, REPO)


def test_a_disk_without_room_is_told_before(hub, files, tmp_path, told, monkeypatch):
    hub.publish(REPO, files)
    size = sum(map(len, files.values()))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(size, 0, size))
    assert f"has {size:,} bytes" in told("pull", REPO, "--out", tmp_path / "theirs", code=1)
    assert not [path for _, path in hub.requests if "/resolve/" in path]


@pytest.mark.parametrize(
    "name", ["../x", "org/../x", "org", "/etc/x", "org/a/b", "org/a@../x", "org/a@", "org/a@-x", ".x/a", "org/a b", ""]
)
def test_names_that_are_none(hub, tmp_path, told, name):
    assert "wanted org/name or org/name@revision" in told("pull", name, "--out", tmp_path / "theirs", code=2)
    assert not hub.requests


def test_what_the_hub_does_not_have(hub, files, tmp_path, told):
    hub.publish(REPO, files)
    assert "no such repository, or a private one" in told("pull", "org/none", "--out", tmp_path / "a", code=2)
    assert "no branch, tag or commit v9" in told("pull", f"{REPO}@v9", "--out", tmp_path / "a", code=2)
    hub.gated.add(REPO)
    assert "its owner lets in who asks" in told("pull", REPO, "--out", tmp_path / "a", code=2)
    hub.failing = 503
    assert "the Hub broke off" in told("pull", REPO, "--out", tmp_path / "a", code=1)


def test_a_commit_is_taken_whole(hub, files, tmp_path, told, monkeypatch):
    """A branch that moves while it is read gives no mixture."""
    old = hub.publish(REPO, files)
    real = hub.told

    def moving(repo, revision):
        answer = real(repo, revision)
        hub.publish(REPO, files | {"README.md": b"newer"})
        return answer

    monkeypatch.setattr(hub, "told", moving)
    assert "changed while it was read" in told("pull", REPO, "--out", tmp_path / "theirs", code=1)
    told("pull", f"{REPO}@{old}", "--out", tmp_path / "theirs")
    assert (tmp_path / "theirs" / "README.md").read_bytes() == files["README.md"]
