"""Whoever does the work, and however often it is cut off: the same bytes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models.errors import InputError, RunError
from pipelines.commands.score import score
from pipelines.records.attempts import DIFFERS, read_records
from pipelines.records.label import summed
from pipelines.scoring import plan as scoring
from pipelines.scoring import workers as launch
from pipelines.scoring.plan import Maps, Share
from pipelines.scoring.workers import shard_of
from tests import dying
from tests.runs import BANDS, make_chip, write

ROOT = Path(__file__).resolve().parents[3]
TALL = 1300  # rows: three parts


def make_scene(path, *, height=TALL, width=40, seed=0):
    block = np.concatenate([make_chip(seed + i)[0] for i in range(8)], axis=1)
    bands = np.tile(block, (1, -(-height // block.shape[1]), 2))[:, :height, :width].copy()
    bands[:, 600:700, 5:] = -9999
    tags = {"ACQUISITION_DATE": "2022-03-04"}
    return write(path, bands, names=BANDS, tags=tags, nodata=-9999)


def interrupted(monkeypatch):
    """Let scoring end as by ctrl-C at the part that begins at row 1024."""
    from pipelines.scoring import jobs

    write_part = jobs.write_part

    def failing(folder, row, *rest):
        if row >= 1024:
            raise KeyboardInterrupt
        write_part(folder, row, *rest)

    monkeypatch.setattr(jobs, "write_part", failing)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A tall scene and a low one."""
    folder = tmp_path_factory.mktemp("scenes")
    return [str(make_scene(folder / "tall.tif")), str(make_scene(folder / "low.tif", height=90, seed=3))]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in DIFFERS}


@pytest.fixture(scope="module")
def wanted(run, scenes, tmp_path_factory):
    """What one process writes that nobody disturbs."""
    out = tmp_path_factory.mktemp("wanted")
    results = score(run, scenes, out=out, maps=Maps(confidence=True))
    assert [r["status"] for r in results] == ["done", "done"]
    return files(out)


def test_two_workers_write_the_same_bytes_as_one(run, scenes, wanted, tmp_path):
    results = score(run, scenes, out=tmp_path, maps=Maps(confidence=True), share=Share(workers=2))
    assert [r["status"] for r in results] == ["done", "done"]
    assert files(tmp_path) == wanted
    label = summed(read_records(tmp_path))
    assert (label["attempts"], label["processes"]) == (1, 3)
    pixels = sum(r["valid"] * rows * 40 for r, rows in zip(results, (TALL, 90), strict=True))
    assert label["km2"] == pytest.approx(pixels * 0.03**2, rel=0.005)
    assert set(label["phases"]) == {"start", "read", "tiles", "write"}
    for what in ("cpu_s", "wall_s"):
        assert sum(phase[what] for phase in label["phases"].values()) == pytest.approx(label[what], rel=0.01)


def test_a_scene_is_split_where_there_are_more_workers_than_scenes(run, scenes, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "BAND", 512)
    said: list[str] = []
    (result,) = score(
        run, scenes[:1], out=tmp_path, say=said.append, maps=Maps(confidence=True), share=Share(workers=2)
    )
    assert result["status"] == "done"
    assert sum("rows " in line for line in said) == 2
    assert files(tmp_path) == {name: data for name, data in wanted.items() if name.startswith("tall")}


def test_shards_write_the_same_bytes_as_one(run, scenes, wanted, tmp_path_factory, monkeypatch):
    two, three = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("three")
    for i in (1, 2):
        (result,) = score(run, scenes, out=two, maps=Maps(confidence=True), share=Share(shard=f"{i}/2"))
        assert result["status"] == "done"
    assert files(two) == wanted
    monkeypatch.setattr(scoring, "BAND", 512)
    statuses = []
    for i in (3, 1, 2):
        results = score(run, scenes[:1], out=three, maps=Maps(confidence=True), share=Share(shard=f"{i}/3"))
        statuses.append([r["status"] for r in results])
    assert statuses == [["partial"], ["partial"], ["done"]]
    assert files(three) == {name: data for name, data in wanted.items() if name.startswith("tall")}


def command(run, scenes, out):
    return [sys.executable, "-m", "pipelines.cli", "score", str(run), *scenes, "--out", str(out), "--confidence"]


# What is cut off waits after each part, so that it is still at work when the signal comes, however busy the machine is.
SLOWLY = """
import sys, time
from pipelines.cli.main import main
from pipelines.scoring import jobs
write_part = jobs.write_part
jobs.write_part = lambda *given: (write_part(*given), time.sleep(0.3))[0]
sys.exit(main(sys.argv[1:]))
"""


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_killed_at_any_moment_and_called_again_it_writes_the_same_bytes(run, scenes, wanted, tmp_path):
    for signal_, count in ((signal.SIGINT, 1), (signal.SIGKILL, 3)):
        words = [sys.executable, "-c", SLOWLY, *command(run, scenes, tmp_path)[3:]]
        process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL)
        parts: list[Path] = []
        while process.poll() is None and len(parts) < count:
            parts = list(tmp_path.rglob("*.part.tif"))
            time.sleep(0.002)
        process.send_signal(signal_)
        process.wait()
        finished = {path.name for path in tmp_path.glob("*.tif")}
        assert finished < {name for name in wanted if name.endswith(".tif")}  # it was cut off
        assert all(files(tmp_path)[name] == wanted[name] for name in finished)  # what bears its name is whole
    assert list(tmp_path.rglob("*.part.tif"))
    subprocess.run(command(run, scenes, tmp_path), env=environment(), capture_output=True, text=True, check=True)
    assert files(tmp_path) == wanted
    assert not list((tmp_path / ".earthtune").rglob("*.part.tif"))
    booked = read_records(tmp_path)  # what was killed counts, too
    assert len(booked) == 3 and all(record["whole"]["cpu"] > 0.2 for record in booked)
    assert [record["made"]["km2"] > 0 for record in sorted(booked, key=lambda one: one["began"])][-1]


def test_work_goes_on_at_the_last_finished_part(run, scenes, wanted, tmp_path, monkeypatch):
    from pipelines.scoring import jobs

    write_part, written = jobs.write_part, []

    def failing(folder, row, block, layout, path):
        if row >= 1024:
            raise KeyboardInterrupt
        write_part(folder, row, block, layout, path)
        written.append((folder.name, row))

    monkeypatch.setattr(jobs, "write_part", failing)
    with pytest.raises(KeyboardInterrupt):
        score(run, scenes[:1], out=tmp_path, maps=Maps(confidence=True))
    assert not list(tmp_path.glob("*.tif"))
    assert ("map", 512) in written
    monkeypatch.setattr(jobs, "write_part", lambda *a: (written.append((a[0].name, a[1])), write_part(*a))[1])
    tiles: list[int] = []
    written.clear()

    def progress(items, what):
        tiles.append(len(items))
        return items

    (result,) = score(run, scenes[:1], out=tmp_path, progress=progress, maps=Maps(confidence=True))
    assert result["status"] == "done"
    assert sorted(written) == [("confidence", 1024), ("map", 1024)]
    assert tiles[0] < 2 * (TALL - 1024) // 20  # two columns of tiles; not those of the rows above
    assert files(tmp_path) == {name: data for name, data in wanted.items() if name.startswith("tall")}


def cut_off(run, scene, out, monkeypatch, after=1):
    """Score until some parts are kept."""
    from pipelines.scoring import jobs

    write_part, count = jobs.write_part, [0]

    def failing(*arguments):
        count[0] += 1
        if count[0] > after:
            raise KeyboardInterrupt
        write_part(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_part", failing)
        with pytest.raises(KeyboardInterrupt):
            score(run, [scene], out=out, maps=Maps(confidence=True))


def test_rows_of_machines_that_compute_otherwise_are_not_mixed(run, scenes, tmp_path, monkeypatch):
    """`auto` is bfloat16 on one and float32 on another: the second has to say what is wanted."""
    from pipelines.scoring import jobs

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch)
        score(run, scenes[:1], out=tmp_path)
    load = jobs.loaded
    monkeypatch.setattr(jobs, "loaded", lambda *a: dataclasses.replace(load(*a), name="OpenVINO CPU another"))
    (result,) = score(run, scenes[:1], out=tmp_path)
    assert result["status"] == "failed" and result["exit_code"] == 2
    assert "was begun with OpenVINO CPU" in result["error"] and "--precision" in result["error"]
    assert not list(tmp_path.glob("*.tif"))
    monkeypatch.undo()
    (result,) = score(run, scenes[:1], out=tmp_path)
    assert result["status"] == "done"


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(p.read_bytes()[:-50])])
def test_damaged_parts_are_made_again(run, scenes, wanted, tmp_path, monkeypatch, damage):
    cut_off(run, scenes[0], tmp_path, monkeypatch, after=3)
    parts = list(tmp_path.rglob("*.part.tif"))
    assert len(parts) == 3
    damage(parts[0])
    (parts[1].parent / "000000100-00000000.part.tif").mkdir()
    (result,) = score(run, scenes[:1], out=tmp_path, maps=Maps(confidence=True))
    assert result["status"] == "done"
    assert files(tmp_path) == {name: data for name, data in wanted.items() if name.startswith("tall")}


def test_a_scene_that_changes_while_it_is_scored_gets_no_map(run, tmp_path, monkeypatch):
    from pipelines.scoring import jobs

    path = make_scene(tmp_path / "in" / "new.tif", height=90)
    write_part = jobs.write_part

    def changing(*arguments):
        write_part(*arguments)
        make_scene(path, height=90, seed=5)

    monkeypatch.setattr(jobs, "write_part", changing)
    (result,) = score(run, [str(path)], out=tmp_path / "maps")
    assert "new.tif: has changed while it was scored" in result["error"]
    assert not list((tmp_path / "maps").glob("*.*"))[1:]


def test_a_file_that_appears_meanwhile_is_not_replaced(run, tmp_path, monkeypatch):
    from pipelines.scoring import jobs

    path = make_scene(tmp_path / "in" / "new.tif", height=90)
    write_part, mine = jobs.write_part, tmp_path / "maps" / "new_map.tif"

    def appearing(*arguments):
        write_part(*arguments)
        mine.write_text("mine")

    monkeypatch.setattr(jobs, "write_part", appearing)
    (result,) = score(run, [str(path)], out=tmp_path / "maps")
    assert "new_map.tif: appeared" in result["error"] and mine.read_text() == "mine"


def test_two_processes_on_one_folder_share_the_work(run, scenes, wanted, tmp_path):
    both = [
        subprocess.Popen(command(run, scenes, tmp_path), env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(text.splitlines()[-1] in ("2 done", "1 done, 1 kept", "2 kept") for text in said)
    assert files(tmp_path) == wanted


def test_a_worker_that_dies_is_replaced(run, scenes, wanted, tmp_path, tmp_path_factory, monkeypatch):
    mark = tmp_path_factory.mktemp("mark") / "died"
    monkeypatch.setenv("EARTHTUNE_TEST_DIE", str(mark))
    monkeypatch.setattr(launch, "_part", dying.once)
    results = score(run, scenes, out=tmp_path, maps=Maps(confidence=True), share=Share(workers=2))
    assert [r["status"] for r in results] == ["done", "done"]
    assert mark.exists()
    assert files(tmp_path) == wanted


def test_a_scene_that_always_kills_its_worker_takes_no_other_with_it(run, scenes, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "_part", dying.of_the_low_one)
    results = score(run, scenes, out=tmp_path, maps=Maps(confidence=True), share=Share(workers=2))
    assert [r["status"] for r in results] == ["done", "failed"]
    assert "its worker died 3 times" in results[1]["error"] and results[1]["exit_code"] == 1
    assert files(tmp_path) == {name: data for name, data in wanted.items() if name.startswith("tall")}


def test_ray_actors_write_the_same_bytes(run, scenes, wanted, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        results = score(run, scenes, out=tmp_path, maps=Maps(confidence=True), share=Share(workers=2, ray="local"))
    finally:
        ray.shutdown()
    label = summed(read_records(tmp_path))
    assert label["processes"] > 1 and label["phases"]["tiles"]["cpu_s"] > 0 and label["km2"] > 0
    assert [r["status"] for r in results] == ["done", "done"]
    assert files(tmp_path) == wanted


def test_without_ray_the_ways_out_are_told(run, scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'earthtune\[ray\]', or use --workers or --shard"):
        score(run, scenes, out=tmp_path, share=Share(ray="auto"))


def test_shards_are_counted_from_one():
    assert shard_of("1/4") == (0, 4) and shard_of("4/4") == (3, 4)


def test_an_address_where_nothing_listens_is_told_at_once(run, scenes, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"ray 127\.0\.0\.1:1: no cluster answers there \(.*refused\)"):
        score(run, scenes, out=tmp_path, share=Share(ray="127.0.0.1:1"))
    assert time.monotonic() - begun < 30


def test_ray_that_does_not_start_is_one_line(run, scenes, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed")

    def fail(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(RunError, match=r"ray local: does not start here \(TimeoutError\); use --workers"):
        score(run, scenes, out=tmp_path, share=Share(ray="local"))
