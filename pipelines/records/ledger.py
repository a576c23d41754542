"""What an output folder remembers: which maps are done, the parts of those that are not, and who is at work."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.files import replacing
from models.types import Say

FOLDER = ".earthtune"
# What is made of scenes and may lie beside them.
KINDS = ("map", "probabilities", "confidence", "sets", "lower", "upper", "unfamiliar", "views", "tokens")
HEADER = 1 << 16  # bytes of a file that its hash covers: the header of a GeoTIFF, and what tells two files apart


def fingerprint(path: Path) -> list[Any]:
    """Name, size, time of change and hash of the header of a local file; cheap for a file of any size."""
    stat = path.stat()
    with path.open("rb") as file:
        header = hashlib.sha256(file.read(HEADER)).hexdigest()
    return [path.name, stat.st_size, stat.st_mtime_ns, header]


def remember(out: Path, path: Path) -> None:
    """Write down that a file beside the maps was made by us, as it is now."""
    page = out / FOLDER / "tables" / f"{digest({'path': str(path.resolve())})[:16]}.json"
    page.parent.mkdir(parents=True, exist_ok=True)
    with replacing(page) as draft:
        draft.write_text(json.dumps(fingerprint(path)))


def is_ours(out: Path, path: Path) -> bool:
    """Whether a file is as we made it, and so may be made anew."""
    page = out / FOLDER / "tables" / f"{digest({'path': str(path.resolve())})[:16]}.json"
    try:
        return bool(json.loads(page.read_text(encoding="utf-8")) == fingerprint(path))
    except (OSError, ValueError):
        return False


def digest(content: Mapping[str, Any]) -> str:
    """Hash of plain JSON types."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """The ledger's page about the maps of one scene.

    Attributes:
        out: the output folder.
        stem: what the names of the maps begin with.
        key: hash of all that decides what the maps hold.
    """

    out: Path
    stem: str
    key: str

    @property
    def parts(self) -> Path:
        """Folder of the parts of unfinished maps; others' parts are never taken for these."""
        return self.out / FOLDER / f"{self.stem}-{self.key[:16]}"

    @property
    def _page(self) -> Path:
        return self.out / FOLDER / f"{self.stem}.json"

    def done(self) -> dict[str, Any] | None:
        """What was written down of these maps when they were finished; None when they are not, or have gone since."""
        try:
            page = json.loads(self._page.read_text(encoding="utf-8"))
            sizes = {name: (self.out / name).stat().st_size for name in page["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        same = page.get("key") == self.key and sizes == page["files"]
        return dict(page["result"]) if same else None

    def differs(self) -> bool:
        """Whether maps of this name were finished here from something else: other options, scene or model."""
        return self._finished() not in (None, self.key)

    def knows(self) -> bool:
        """Whether these maps were finished here, whatever became of them."""
        return bool(self._finished() == self.key)

    def others(self, path: Path) -> bool:
        """Whether what was finished here under this name is not what `path` is one file of, but other maps."""
        try:
            files = json.loads(self._page.read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return path.name not in files

    def _finished(self) -> Any:
        """Key of the maps of this name that were finished here; None where there were none."""
        try:
            return json.loads(self._page.read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget(self) -> None:
        """Take the maps for not done."""
        self._page.unlink(missing_ok=True)

    def finish(self, result: Mapping[str, Any], files: list[Path]) -> None:
        """Write down that the maps are finished; their parts, and those of other attempts that nobody works on, go.

        Raises:
            OSError: the disk does not take it.
        """
        sizes = {os.path.relpath(path, self.out): path.stat().st_size for path in files}
        with replacing(self._page) as draft:
            draft.write_text(json.dumps({"key": self.key, "files": sizes, "result": result}))
        for folder in self._page.parent.glob(f"{glob.escape(self.stem)}-????????????????"):
            locks = [] if folder == self.parts else sorted(folder.parent.glob(f"{glob.escape(folder.name)}*.lock"))
            with ExitStack() as stack:
                if all(stack.enter_context(_lock(lock, wait=False)) for lock in locks):
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def claim(self, what: str = "", *, wait: bool, say: Say = lambda line: None) -> Iterator[bool]:
        """Keep other processes off these maps, or off a part of the work on them; ends with the process if it dies.

        Args:
            what: the part.
            wait: until another process is done with it; that is said.
            say: takes a line for the person who waits.

        Yields:
            Whether the claim was granted; always, where `wait`.
        """
        self.parts.parent.mkdir(parents=True, exist_ok=True)
        name = f"{self.parts.name}.{what}.lock" if what else f"{self.parts.name}.lock"
        with _lock(self.parts.with_name(name), wait=False) as mine:
            if mine or not wait:
                yield mine
                return
        say(f"{self.out}: another process is at it; this one waits until that has ended")
        with _lock(self.parts.with_name(name), wait=True) as mine:
            yield mine


@contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[bool]:
    from filelock import FileLock, Timeout

    try:
        held = FileLock(path).acquire(blocking=wait)
    except Timeout:
        yield False
        return
    with held:
        yield True
