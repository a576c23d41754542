"""Files that appear whole, or not at all."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.errors import InputError, RunError


def check_target(path: Path, suffix: str, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or not under this name; to be asked before long work.

    Args:
        path: the file to write.
        suffix: the end of its name, such as ".csv".
        overwrite: replace a file that is there.

    Raises:
        InputError: another suffix, no such folder, a folder of this name, or a file that is not to be replaced.
    """
    if path.suffix.lower() != suffix:
        raise InputError(f"{path}: wanted a name that ends in {suffix}, came {path.suffix or 'none'}; rename it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}; make it, or name another")
    if path.is_dir():
        raise InputError(f"{path}: wanted the name of a file, it is a folder; give another name")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; give another name, or --overwrite to replace it")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file in a hidden folder beside `path`; it takes that name when the block ends, and vanishes on an error.

    Other files that the block leaves beside it move along, before it. All get the permissions of any new file.
    """
    with _hidden(path) as folder:
        file = folder / path.name
        yield file
        file.stat()  # raises where the block wrote nothing
        _move(folder, path.parent, last=path.name)


@contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """A hidden folder beside a path, which goes when the block ends; those of processes that were killed go first.

    The process that works in one holds a lock on it, which ends with the process, however it ends.
    """
    for folder in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with locked(folder, wait=False) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)
    while True:
        made = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True)
        with made as name, locked(Path(name), wait=True):
            if Path(name).is_dir():  # none took it for a dead one's before it was locked
                yield Path(name)
                return


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process alone has a folder, until it ends; False where it has gone, or another has it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        free = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:  # another has it, or the file system knows no locks
            free = wait
        yield free
    finally:
        os.close(handle)


def _move(work: Path, folder: Path, *, last: str = "") -> list[str]:
    """Move the files of a folder to another, one of them last; return their names."""
    files = sorted(_opened_up(work), key=lambda file: (file.name == last, file.name))
    for file in files:
        os.replace(file, folder / file.name)
    return [file.name for file in files]


def _opened_up(work: Path) -> list[Path]:
    """The files of a folder, which have the permissions of any new file then."""
    files = [*work.iterdir()]
    probe = work / ".mode"  # some writers make files that nobody else may read; this one has what the umask says
    probe.touch()
    for file in files:
        file.chmod(probe.stat().st_mode)
    probe.unlink()
    return files


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """As `replacing`, for commands.

    Raises:
        RunError: the disk does not take the file.
    """
    with _told(path), replacing(path) as file:
        yield file


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn errors of the disk into one line."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: could not be written ({error.strerror or error}); "
            f"see that {path.parent} can be written and has space, and run again"
        ) from error


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds something already; to be asked before long work.

    Raises:
        InputError: a file of this name or on the way to it, a place that cannot be written, or a folder that is not
            empty and not to be written over.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder}: wanted a folder, {there} is a file; give another name")
    # Files are made beside the folder and move into it.
    for place in {there, there.absolute().parent} if there == folder else {there}:
        try:
            with tempfile.TemporaryDirectory(dir=place, prefix=f".{folder.name}."):
                pass
        except OSError as error:
            raise InputError(
                f"{folder}: nothing can be written in {place} ({error.strerror}); change that, or give another name"
            ) from error
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        advice = "give another folder, or --overwrite to replace what it holds of this"
        raise InputError(f"{folder}: is not empty; {advice}")


@contextmanager
def draft_folder(folder: Path, *, replaces: str, also: Sequence[str] = ()) -> Iterator[Path]:
    """Give a hidden folder beside `folder`; its files move there when the block ends, and vanish on an error.

    A process that is killed leaves all files of a new folder, or none of them.

    Args:
        folder: where the files go; made when missing.
        replaces: pattern of the names of files of earlier work, which are removed when the new ones are there.
        also: more such patterns.

    Raises:
        RunError: the disk does not take the files.
    """
    with _told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _hidden(folder) as hidden:
            work = hidden / folder.name
            work.mkdir()
            yield work
            if not os.path.lexists(folder):
                _opened_up(work)
                work.rename(folder)
                return
            made = _move(work, folder)
            for old in [path for pattern in (replaces, *also) for path in folder.glob(pattern)]:
                if old.name not in made:
                    old.unlink()


def stamp(path: Path) -> tuple[int, int] | None:
    """What tells a file from one that took its place; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns
