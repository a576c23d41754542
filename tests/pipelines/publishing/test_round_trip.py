"""Runs to the Hub and back, by the real client and a hub on the loopback interface."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipelines.cli.options import call_of, respelled, with_folders
from pipelines.cli.parser import make_parser
from pipelines.cli.table import COMMANDS
from tests.runs import BANDS, make_chip, write

REPO = "org/landuse"


@pytest.fixture
def scene(tmp_path):
    """A dated scene of the run's bands."""
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    return write(tmp_path / "new.tif", make_chip(3, side=48)[0], names=BANDS, tags=tags, nodata=-9999)


def commits(hub):
    return [path.rpartition("/")[2] for _, path in hub.requests if "/commit/" in path]


def test_a_run_comes_back_and_maps_alike(hub, run, scene, tmp_path, told):
    line = told("publish", run, REPO, "--licence", "apache-2.0")
    commit = hub.commit(REPO, "main")
    assert f"published: hf://{REPO}@{commit}" in line and commits(hub) == ["main"] and not hub.private
    told("pull", REPO, "--out", tmp_path / "theirs")
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == set(hub.files(REPO)) - {".gitattributes"}
    for name, source in (("ours", run), ("pulled", tmp_path / "theirs"), ("straight", f"hf://{REPO}@{commit}")):
        told("score", source, scene, "--out", tmp_path / name)
    maps = [(tmp_path / name / "new_map.tif").read_bytes() for name in ("ours", "pulled", "straight")]
    assert maps[0] == maps[1] == maps[2]


def test_a_pulled_run_is_published_as_it_came(hub, files, tmp_path, told):
    hub.publish(REPO, files)
    told("pull", REPO, "--out", tmp_path / "theirs")
    line = told(
        "publish", tmp_path / "theirs", REPO, "--licence", "apache-2.0", "--dry_run", "--out", tmp_path / "again"
    )
    changed = {name for name, held in files.items() if (tmp_path / "again" / name).read_bytes() != held}
    assert changed == {"README.md", "checksums.txt"}  # nobody told of the data again
    assert "paths of this machine" not in line


def test_branches_private_repositories_and_files_of_before(hub, run, files, told):
    told("publish", run, REPO, "--licence", "apache-2.0", "--private", "--revision", "next")
    assert hub.private == {REPO} and commits(hub) == ["next"] and set(hub.files(REPO)) == {".gitattributes"}
    hub.publish(REPO, files | {"adapter_config.json": b"{}", "notes.md": b"mine"})
    told("publish", run, REPO, "--licence", "apache-2.0")
    held = set(hub.files(REPO))
    assert "notes.md" in held and "adapter_config.json" not in held  # of another hand; of an earlier run


def test_a_dry_run_asks_nobody(hub, run, tmp_path, monkeypatch, told):
    monkeypatch.chdir(tmp_path)
    assert "nothing was sent" in told("publish", run, REPO, "--licence", "apache-2.0", "--dry_run")
    assert (tmp_path / "landuse" / "README.md").is_file() and not hub.requests
    again = ("publish", run, REPO, "--licence", "apache-2.0", "--dry_run")
    assert "is not empty" in told(*again, code=2)
    told(*again, "--overwrite")
    copy = shutil.copytree(run, tmp_path / "trained")
    for out in (copy, tmp_path):
        assert "--out names another folder" in told(*again, "--overwrite", "--out", out, code=2)
    assert (copy / "checkpoints").is_dir()


def test_who_may_publish(hub, run, monkeypatch, told):
    hub.token = "hf_" + "a1" * 12
    words = ("publish", run, REPO, "--licence", "apache-2.0")
    assert "wants a token" in told(*words, code=2) and not commits(hub)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    told(*words)
    assert commits(hub) == ["main"]


def test_a_hub_that_breaks_off(hub, run, tmp_path, told):
    """Without a folder nothing is left; with one, the words that are told send what was made."""
    hub.failing = 500
    words = ("publish", run, REPO, "--licence", "apache-2.0")
    line = told(*words, code=1)
    assert "the Hub broke off" in line and "--overwrite" not in line
    words = (*words, "--out", tmp_path / "made")
    assert "goes on from here, with --overwrite: " in told(*words, code=1)
    hub.failing = None
    told(*words, "--overwrite")
    assert commits(hub) == ["main"]


def test_without_network(hub, files, tmp_path, monkeypatch, told):
    commit = hub.publish(REPO, files)
    told("pull", REPO, "--out", tmp_path / "first")
    hub.stop()
    told("pull", f"{REPO}@{commit}", "--out", tmp_path / "cached")
    line = told("pull", REPO, "--out", tmp_path / "newest")  # as it was when it was asked last
    assert f"this is commit {commit[:12]}, the newest in the local cache" in line
    assert "cannot be reached" in told("pull", "org/other", "--out", tmp_path / "other", code=1)
    assert "cannot be reached" in told("score", "hf://org/other", "a.tif", "--out", tmp_path / "maps", code=1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in told("pull", "org/other", "--out", tmp_path / "other", code=2)
    told("pull", REPO, "--out", tmp_path / "offline")


def test_a_download_that_broke_off_goes_on(hub, files, tmp_path, monkeypatch, told):
    hub.publish(REPO, files)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries again and again
    hub.breaking = True
    told("pull", REPO, "--out", tmp_path / "theirs", code=2)
    assert not (tmp_path / "theirs").exists()
    hub.breaking = False
    told("pull", REPO, "--out", tmp_path / "theirs")
    asked = len(hub.requests)
    told("pull", REPO, "--out", tmp_path / "again")
    assert not [path for method, path in hub.requests[asked:] if method == "GET" and "/resolve/" in path]


def test_what_a_pull_replaces(hub, run, files, tmp_path, told):
    hub.publish(REPO, files | {"model.int8.onnx.txt": b""})
    out = tmp_path / "theirs"
    told("pull", REPO, "--out", out)
    assert "is not empty" in told("pull", REPO, "--out", out, code=2)
    (out / "adapter_config.json").write_text("{}")  # of an earlier commit, say
    told("pull", REPO, "--out", out, "--overwrite")
    assert {path.name for path in out.iterdir()} == set(files)
    mine = shutil.copytree(run, tmp_path / "mine")
    assert "is not replaced" in told("pull", REPO, "--out", mine, "--overwrite", code=2)
    assert json.loads((mine / "bundle.json").read_text())["data"]["root"].startswith("/")


@pytest.mark.parametrize(
    ("command", "words", "where"),
    [
        ("score", "hf://o/a a.tif --out m --bundle hf://o/b", {"run": ["hf://o/a"], "bundle": ["hf://o/b"]}),
        ("embed", "hf://o/a a.tif --out m", {"backbone": ["hf://o/a"]}),
        ("composite", "a.tif --out m --for hf://o/a", {"for": ["hf://o/a"]}),
        ("forecast", "prithvi_wxc_tiny a.nc --out m --rain hf://o/a", {"rain": ["hf://o/a"]}),
        ("distil", "hf://o/a --out m", {"run": ["hf://o/a"]}),
        ("inspect", "hf://o/a", {}),
    ],
)
def test_where_a_run_is_taken_an_address_is(monkeypatch, command, words, where):
    monkeypatch.setattr("pipelines.publishing.pull.run_folder", lambda text, say: Path("/cache") / text[-1])
    call = call_of(COMMANDS[command])
    typed = vars(make_parser(command, call).parse_args(respelled(words.split(), call.options, ())))
    found = with_folders(typed, call.options, print)
    assert {name: typed[name] for name in typed if found[name] != typed[name]} == where
    assert {name: found[name] for name in where} == {name: [f"/cache/{t[-1]}" for t in where[name]] for name in where}


def test_commands_take_a_run_by_its_address(hub, files, scene, chips, tmp_path, told):
    hub.publish(REPO, files)
    assert "the model can read this" in told("inspect", scene, "--for", f"hf://{REPO}")
    line = told("evaluate", f"hf://{REPO}", "--data.root", chips, "--out", tmp_path / "there")
    assert "12 samples bear names of the training data" in line and "No baselines" in line
    assert json.loads((tmp_path / "there" / "metrics.json").read_text())["samples"] == 12
    kept = "a published run in the Hub's cache is not written to"
    assert kept in told("evaluate", f"hf://{REPO}", code=2)
    assert kept in told("int8", f"hf://{REPO}", code=2)
