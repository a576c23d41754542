"""Runs to the Hub and back, by the real client and a hub on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from models.bundle import read_bundle
from pipelines.cli.main import main
from tests.runs import BANDS, make_chip, write

REPO = "org/landuse"


@pytest.fixture
def scene(tmp_path):
    """A dated scene of the run's bands."""
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    return write(tmp_path / "new.tif", make_chip(3, side=48)[0], names=BANDS, tags=tags, nodata=-9999)


def told(capsys, *words, code=0):
    """What a command printed, after it ended with this code."""
    ended = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert ended == code, err
    return out + err


def test_a_run_comes_back_and_maps_alike(hub, run, scene, tmp_path, capsys):
    line = told(capsys, "publish", run, REPO, "--licence", "apache-2.0", "--data", "Chips (CC BY 4.0)")
    commit = hub.commit(REPO, "main")
    assert f"published: hf://{REPO}@{commit}" in line
    assert sum(path.endswith("/commit/main") for _, path in hub.requests) == 1
    told(capsys, "pull", REPO, "--out", tmp_path / "theirs")
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == set(hub.files(REPO)) - {".gitattributes"}
    told(capsys, "score", run, scene, "--out", tmp_path / "ours")
    told(capsys, "score", tmp_path / "theirs", scene, "--out", tmp_path / "pulled")
    told(capsys, "score", f"hf://{REPO}@{commit}", scene, "--out", tmp_path / "straight")
    maps = [(tmp_path / name / "new_map.tif").read_bytes() for name in ("ours", "pulled", "straight")]
    assert maps[0] == maps[1] == maps[2]
