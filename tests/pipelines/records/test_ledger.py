"""What an output folder remembers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.records.ledger import FOLDER, Entry, digest, fingerprint, is_ours, remember

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def entry(tmp_path):
    entry = Entry(tmp_path, "scene.v1", "a" * 64)
    (entry.parts / "map").mkdir(parents=True)
    return entry


def test_maps_are_done_while_they_are_as_they_were(entry):
    assert entry.done() is None
    file = entry.out / "scene.v1_map.tif"
    file.write_bytes(b"map")
    entry.finish({"valid": 0.5}, [file])
    assert entry.done() == {"valid": 0.5}
    assert Entry(entry.out, entry.stem, "b" * 64).done() is None
    assert Entry(entry.out, "scene", entry.key).done() is None
    assert not entry.parts.exists()
    file.write_bytes(b"shorter or longer")
    assert entry.done() is None
    file.unlink()
    assert entry.done() is None


def test_maps_made_from_something_else_are_told_and_may_be_forgotten(entry):
    other = Entry(entry.out, entry.stem, "b" * 64)
    assert not entry.differs() and not other.differs()  # nothing is finished
    entry.finish({"valid": 1}, [])
    assert not entry.differs() and other.differs()
    entry.forget()
    assert entry.done() is None and not other.differs()
    entry.forget()


def test_what_only_looks_like_a_folder_of_parts_is_left_alone(entry):
    stray = entry.parts.with_name(f"{entry.stem}-{'f' * 16}")
    stray.write_text("a file")
    entry.finish({}, [])
    assert stray.is_file() and not entry.parts.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {}, "key": 1, "result": 2', "null"])
def test_a_damaged_page_means_not_done(entry, text):
    (entry.out / FOLDER / "scene.v1.json").write_text(text)
    assert entry.done() is None


def test_parts_of_other_attempts_go_unless_somebody_works_on_them(entry):
    left, busy = (Entry(entry.out, entry.stem, letter * 64) for letter in "bc")
    other = Entry(entry.out, "scene.v12", "d" * 64)
    for one in (left, busy, other):
        one.parts.mkdir()
    with busy.claim(wait=False) as granted:
        assert granted
        entry.finish({}, [])
    assert not left.parts.exists() and not entry.parts.exists()
    assert busy.parts.exists() and other.parts.exists()
    with busy.claim("0-512", wait=False):  # a band of its rows
        entry.finish({}, [])
    assert busy.parts.exists()
    entry.finish({}, [])
    assert not busy.parts.exists()


def test_a_table_is_ours_until_somebody_changes_it(tmp_path):
    table = tmp_path / "areas.csv"
    assert not is_ours(tmp_path, table)
    table.write_text("a,b")
    assert not is_ours(tmp_path, table)
    remember(tmp_path, table)
    assert is_ours(tmp_path, table)
    table.write_text("a,b,c")
    assert not is_ours(tmp_path, table)
    remember(tmp_path, table)
    other = tmp_path / "other.csv"
    other.write_text("a,b,c")
    assert is_ours(tmp_path, table) and not is_ours(tmp_path, other)


CLAIM = """
import sys, time
from pathlib import Path
from pipelines.records.ledger import Entry
with Entry(Path(sys.argv[1]), "scene.v1", "a" * 64).claim(sys.argv[2], wait=False) as granted:
    print(granted, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def test_a_claim_keeps_others_off_and_ends_with_its_process(entry):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def claim(what, seconds):
        command = [sys.executable, "-c", CLAIM, str(entry.out), what, str(seconds)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    with claim("", 60) as first:
        assert first.stdout.readline() == "True\n"
        with entry.claim(wait=False) as granted:
            assert not granted
        with entry.claim("0-512", wait=False) as granted:
            assert granted
        first.kill()
    with entry.claim(wait=True) as granted:
        assert granted


def test_bands_of_rows_are_claimed_apart_and_each_by_one(tmp_path):
    entry = Entry(tmp_path / "a" / "new" / "folder", "scene", "a" * 64)
    with entry.claim("0-512", wait=False) as first, entry.claim("512-1024", wait=False) as second:
        assert first and second
        with entry.claim("0-512", wait=False) as again, entry.claim(wait=False) as whole:
            assert not again and whole


def test_a_claim_waits_for_as_long_as_it_takes(entry):
    claimed, waited = threading.Event(), 1.3  # seconds

    def hold():
        with entry.claim(wait=False):
            claimed.set()
            time.sleep(waited)

    holder = threading.Thread(target=hold)
    holder.start()
    assert claimed.wait(60)
    said = []
    with entry.claim(wait=True, say=said.append) as granted:
        assert granted
    holder.join()
    assert said == [f"{entry.out}: another process is at it; this one waits until that has ended"]
    with entry.claim(wait=True, say=said.append):
        assert len(said) == 1  # nothing to wait for, nothing to say


def test_fingerprints_tell_files_apart(tmp_path):
    first, second = tmp_path / "a.tif", tmp_path / "b" / "a.tif"
    second.parent.mkdir()
    first.write_bytes(b"x" * 100_000)
    second.write_bytes(b"y" + b"x" * 99_999)
    os.utime(second, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
    assert fingerprint(first)[:3] == fingerprint(second)[:3]
    assert fingerprint(first) != fingerprint(second)
    for at, told in ((65_535, True), (65_536, False)):  # 64 kB are read, however large the file
        second.write_bytes(b"x" * at + b"y" + b"x" * (99_999 - at))
        os.utime(second, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
        assert (fingerprint(first) != fingerprint(second)) == told
    assert digest({"a": fingerprint(first), "b": 1}) == digest({"b": 1, "a": fingerprint(first)})
