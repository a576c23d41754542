"""Answers as they come: a line each, on the disk before the next is asked for; and one person at a time."""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import InputError, RunError

FORMAT = 1
WORDS = ("", "agree", "class", "value", "unsure")
_MOST_POINTS = 2000  # corners of a polygon
MOST_POLYGONS = 10_000  # of a region, or outside of all


@dataclass(frozen=True)
class Answer:
    """What a person says of a region or a point.

    Attributes:
        word: one of `WORDS`; "" where nothing is said.
        label: code of the class, or the value, that goes with "class" and "value".
        polygons: corrected ground: (class code or value, ring of (x, y) in the map's coordinates).
    """

    word: str = ""
    label: float | None = None
    polygons: tuple[tuple[float, tuple[tuple[float, float], ...]], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is said."""
        return not self.word and not self.polygons

    def plain(self) -> dict[str, Any]:
        """As plain JSON types."""
        drawn = [{"label": label, "ring": [list(point) for point in ring]} for label, ring in self.polygons]
        return {"answer": self.word, "label": self.label, "polygons": drawn}


def answer_of(said: Any, codes: frozenset[int]) -> Answer:
    """An answer from plain JSON types.

    Args:
        said: the keys of `Answer.plain`.
        codes: of the classes; empty where values are told.

    Raises:
        ValueError: it is none; the message says what is wrong.
    """
    if not isinstance(said, Mapping) or said.get("answer") not in WORDS:
        raise ValueError(f"an answer wants one of {', '.join(WORDS[1:])}")
    word, label = said["answer"], said.get("label")
    if word in ("class", "value"):
        label = _label(label, codes)
    elif label is not None:
        raise ValueError(f"{word or 'no answer'!r} goes with no label, {label!r} came")
    drawn = said.get("polygons", [])
    if not isinstance(drawn, list) or len(drawn) > MOST_POLYGONS:
        raise ValueError(f"polygons: wanted a list of at most {MOST_POLYGONS}")
    if not all(isinstance(one, Mapping) for one in drawn):
        raise ValueError("polygons: wanted label and ring of each")
    return Answer(word, label, tuple((_label(one.get("label"), codes), _ring(one.get("ring"))) for one in drawn))


def _label(label: Any, codes: frozenset[int]) -> float:
    """A class code that is known, or a finite value."""
    if isinstance(label, bool) or not isinstance(label, int | float) or not math.isfinite(label):
        raise ValueError(f"label {label!r}: wanted a number")
    if codes and label not in codes:
        raise ValueError(f"label {label!r}: no such class; wanted one of {', '.join(map(str, sorted(codes)))}")
    return int(label) if codes else float(label)


def _ring(ring: Any) -> tuple[tuple[float, float], ...]:
    """Corners of a polygon, at least three of them; the last is not the first again."""
    if not isinstance(ring, list) or not 3 <= len(ring) <= _MOST_POINTS:
        raise ValueError(f"a polygon wants 3 to {_MOST_POINTS} corners")
    for point in ring:
        numbers = isinstance(point, list) and len(point) == 2 and all(type(v) in (int, float) for v in point)
        if not numbers or not all(map(math.isfinite, point)):
            raise ValueError(f"corner {point!r}: wanted two numbers")
    return tuple((float(x), float(y)) for x, y in ring)


@dataclass
class Answers:
    """Answers of a review, kept in a file of a JSON line each.

    Attributes:
        path: the file.
        header: what is reviewed, the first line.
        codes: of the classes; empty for values.
        ids: of what may be answered.
        said: by id, what was said last, in the order in which it was.
        past: what was said before each answer, for undoing: (id, answer).
    """

    path: Path
    header: Mapping[str, Any]
    codes: frozenset[int]
    ids: frozenset[int]
    said: dict[int, Answer] = field(default_factory=dict)
    past: list[tuple[int, Answer]] = field(default_factory=list)

    def take(self, number: int, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            RunError: the disk does not take it; nothing is changed then.
        """
        self._append({"id": number, **answer.plain()})
        self._set(number, answer)

    def undo(self) -> int | None:
        """Take the last answer back; the id that it was about, or None where there is none."""
        if not self.past:
            return None
        self._append({"undo": True})
        return self._undone()

    def _set(self, number: int, answer: Answer) -> None:
        self.past.append((number, self.said.get(number, Answer())))
        self.said[number] = answer

    def _undone(self) -> int:
        number, before = self.past.pop()
        self.said[number] = before
        return number

    def _append(self, record: Mapping[str, Any]) -> None:
        stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({**record, "at": stamp}, ensure_ascii=False, allow_nan=False) + "\n"
        append(self.path, line)

    def replay(self, lines: list[str]) -> None:
        """Take up what the lines of a file say.

        Raises:
            InputError: a line is no answer, or about something that is not there.
        """
        for index, line in enumerate(lines, start=2):
            try:
                record = json.loads(line)
                if isinstance(record, Mapping) and record.get("undo") is True:
                    if self.past:
                        self._undone()
                    continue
                answer = answer_of(record, self.codes)
                if record.get("id") not in self.ids:
                    raise ValueError(f"id {record.get('id')!r} is not there")
            except ValueError as error:
                raise InputError(
                    f"{self.path}: line {index} is no answer ({error}); mend or remove that line, all others stay"
                ) from error
            self._set(record["id"], answer)


def append(path: Path, line: str) -> None:
    """Add a line to a file; it is on the disk when this returns.

    Raises:
        RunError: the disk does not take it; the file is as before then.
    """
    try:
        with path.open("ab") as file:
            start = file.tell()
            try:
                file.write(line.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), start)
                raise
    except OSError as error:
        raise RunError(
            f"{path}: an answer could not be kept ({error.strerror}); make space and answer again"
        ) from error


def open_answers(path: Path, header: Mapping[str, Any], codes: frozenset[int], ids: frozenset[int]) -> Answers:
    """Open the answers of a review, or begin them. What a kill left of a last line is dropped.

    Args:
        path: the file.
        header: what is reviewed; has to be that of the file, if there is one.
        codes: of the classes; empty for values.
        ids: of what may be answered.

    Raises:
        InputError: the file is of another review or cannot be read.
        RunError: the disk does not take it.
    """
    answers = Answers(path, header, codes, ids)
    lines = read_lines(path)
    if lines is None:
        append(path, json.dumps(dict(header), ensure_ascii=False) + "\n")
        return answers
    held = read_header(path, lines)
    for key, value in header.items():
        if held.get(key) != value:
            raise InputError(
                f"{path}: answers about another {key} ({_short(held.get(key))}, now {_short(value)}): what is reviewed "
                "has changed since; give another --out, or move this file away"
            )
    answers.replay(lines[1:])
    return answers


def read_header(path: Path, lines: list[str]) -> Mapping[str, Any]:
    """The first line of a file of answers.

    Raises:
        InputError: it is none.
    """
    try:
        held = json.loads(lines[0]) if lines else None
    except ValueError:
        held = None
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise InputError(f"{path}: wanted answers of a review (a first line with format {FORMAT}); move it away")
    return held


def read_lines(path: Path) -> list[str] | None:
    """Whole lines of a file of answers, None where there is none; what follows the last line end is cut off.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        return whole.decode("utf-8").splitlines() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8; wanted answers of a review: move it away") from error


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 40 else f"{text[:36]} ..."


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; it ends with the process, however that ends.

    Raises:
        InputError: another process has it, or the folder takes no file.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); check the folder, or give --out") from error
    try:
        _lock(handle, path)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    """Lock a file that is still the one of this name; refuse where another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
        told = f"process {other} is at this review already; end it first, or give another --out"
        raise InputError(f"{path}: {told}") from error
    if not path.exists() or path.stat().st_ino != os.fstat(handle).st_ino:
        raise InputError(f"{path}: another process has just ended this review; run the same command again")
