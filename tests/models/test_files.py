"""Files that appear whole, or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import RunError
from models.files import draft, draft_folder, replacing

ROOT = Path(__file__).parents[2]


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RunError), replacing(path) as draft:
        draft.write_text("half")
        raise RunError("the disk is full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), draft_folder(tmp_path / "o", replaces="*.tif") as work:
        (work / "a.tif").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from models.files import draft_folder
left = int(sys.argv[2])
def die(event, _):
    global left
    left -= event == "os.rename"
    if event == "os.rename" and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
with draft_folder(Path(sys.argv[1]), replaces="*.tif") as work:
    for name in ("a.tif", "b.tif", "c.json"):
        (work / name).write_text("whole")
"""


@pytest.mark.parametrize("rename", [1, 2, 3])  # the one before which the process is killed, if there are so many
def test_a_killed_process_leaves_a_new_folder_whole_or_not_at_all(tmp_path, rename):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "o")]
    subprocess.run([*command, str(rename)], cwd=ROOT)
    assert not (tmp_path / "o").exists() or len(list((tmp_path / "o").iterdir())) == 3
    subprocess.run([*command, "0"], cwd=ROOT, check=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"o", "a.tif", "b.tif", "c.json"}


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_a_file_has_the_permissions_of_any_other(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as file:
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors makes its files
        with draft_folder(tmp_path / "folder", replaces="*") as work:
            (work / "file").touch(0o600)
    finally:
        os.umask(before)
    for path in (tmp_path / "file", tmp_path / "folder" / "file"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_what_lies_beside_a_draft_moves_before_it(tmp_path, monkeypatch):
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda one, two: (moved.append(two.name), replace(one, two)))
    with replacing(tmp_path / "model.onnx") as file:
        file.write_text("graph")
        file.with_name("model.onnx.data").write_text("weights")
        file.with_name("a").write_text("first by name")
    assert moved == ["a", "model.onnx.data", "model.onnx"]
    assert {path.name for path in tmp_path.iterdir()} == set(moved)


def test_nobody_can_guess_the_name_of_a_draft(tmp_path):
    with replacing(tmp_path / "file") as one, replacing(tmp_path / "file") as two:
        assert one != two and str(os.getpid()) not in one.name
        assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
        one.touch()
        two.touch()


def test_a_command_is_told_of_the_disk(tmp_path):
    words = r"map\.csv: could not be written \(No space left\); see that .* has space"
    with pytest.raises(RunError, match=words), draft(tmp_path / "map.csv"):
        raise OSError(28, "No space left")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass  # nothing was written


def test_the_next_writer_clears_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from models.files import replacing\n"
        f"with replacing(Path({str(tmp_path)!r}) / 'a.txt') as draft:\n"
        "    draft.write_text('half'); print('there', flush=True); time.sleep(600)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        assert [writer.stdout.readline() for writer in writers] == [b"there\n"] * 2
        (tmp_path / ".a.txt.kept").mkdir()  # another's
        with replacing(tmp_path / "a.txt") as draft:
            assert len([*tmp_path.iterdir()]) == 4  # two that live, this one, and another's
            draft.write_text("one")
        writers[0].kill()
        writers[0].wait()
        with replacing(tmp_path / "a.txt") as draft:
            draft.write_text("two")
        assert len([*tmp_path.iterdir()]) == 3  # the one that lives, another's, the file
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()
    with replacing(tmp_path / "a.txt") as draft:
        draft.write_text("three")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.txt.kept", "a.txt"]
    assert (tmp_path / "a.txt").read_text() == "three"
