"""Hashes of large files are remembered, and forgotten as soon as a file changes."""

import hashlib
import os
import time

import pytest

from models.runtime import hashes
from models.runtime.hashes import sha256


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """An empty cache, where any file is large and old enough; the list of what was read."""
    monkeypatch.setenv("EARTHTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "SMALL", 0)
    monkeypatch.setattr(hashes, "SETTLED", 0)
    read, digest = [], hashes.sha256_now
    monkeypatch.setattr(hashes, "sha256_now", lambda path: (read.append(path), digest(path))[1])
    return read


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path, counted):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = path.stat()
    wanted = hashlib.sha256(b"one").hexdigest()
    assert [sha256(path), sha256(path)] == [wanted, wanted] and len(counted) == 1
    path.rename(tmp_path / "b")  # changes the time of change
    (tmp_path / "b").rename(path)
    assert sha256(path) == wanted
    count = len(counted)
    time.sleep(0.02)
    path.write_bytes(b"two")  # of the same size, and made to look as old
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256(path) == hashlib.sha256(b"two").hexdigest() and len(counted) == count + 1
    other = tmp_path / "other"
    other.write_bytes(b"six")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)
    assert sha256(path) == hashlib.sha256(b"six").hexdigest()


def test_what_was_just_written_is_not_remembered(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(hashes, "SETTLED", 60_000_000_000)
    (tmp_path / "a").write_bytes(b"one")
    assert sha256(tmp_path / "a") == sha256(tmp_path / "a") and len(counted) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 64, b"0" * 63])
def test_a_damaged_memory_is_none(tmp_path, counted, damage):
    (tmp_path / "a").write_bytes(b"one")
    wanted = sha256(tmp_path / "a")
    (page,) = (tmp_path / "cache" / "hashes").iterdir()
    page.write_bytes(damage)
    assert sha256(tmp_path / "a") == wanted and len(counted) == 2


def test_the_memory_of_another_user_is_not_trusted(tmp_path, counted, monkeypatch):
    (tmp_path / "a").write_bytes(b"one")
    sha256(tmp_path / "a")
    (page,) = (tmp_path / "cache" / "hashes").iterdir()
    page.write_text("0" * 64)
    assert sha256(tmp_path / "a") == "0" * 64  # which is why
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()


def test_without_room_or_home_files_are_read_each_time(tmp_path, counted, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "a").write_bytes(b"one")
    monkeypatch.setenv("EARTHTUNE_CACHE", str(tmp_path / "file"))
    assert sha256(tmp_path / "a") == sha256(tmp_path / "a") and len(counted) == 2


def test_small_files_leave_nothing(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(hashes, "SMALL", 100)
    (tmp_path / "a").write_bytes(b"one")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest() and not (tmp_path / "cache").exists()
