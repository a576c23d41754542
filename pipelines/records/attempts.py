"""Records of energy on disk: one for each process, under way in a hidden folder, and all in energy.json at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.files import locked, replacing
from pipelines.records.label import check, summed
from pipelines.records.ledger import FOLDER

PAGE = "energy.json"
SUFFIX = ".energy.json"  # of the page beside a file
COST = "cost.json"  # what a sample costs a student and its teacher
DIFFERS = (PAGE, COST, FOLDER)  # what differs in a folder from run to run of the same work
FORMAT = 1
RANK = "rank"  # what processes of a training on several devices are part of, beside the first
Record = dict[str, Any]


def page_of(file: Path) -> Path:
    """The page beside a file: map.energy.json beside map.tif."""
    return file.with_name(f"{file.stem}{SUFFIX}")


def _parts(page: Path) -> Path:
    return page.parent / FOLDER / "energy"


def write_part(page: Path, record: Mapping[str, Any]) -> None:
    """Write down what a process has booked so far; a disk that does not take it now may do so later."""
    try:
        _parts(page).mkdir(parents=True, exist_ok=True)
        with replacing(_parts(page) / f"{record['id']}.json") as draft:
            draft.write_text(json.dumps(record), encoding="utf-8")
    except OSError:
        pass


def fold(page: Path, record: Record, *, parts: bool) -> list[Record]:
    """Add a command's record to those of a page.

    Args:
        page: the page; made where there is none.
        record: what the process of the command has booked.
        parts: whether others write theirs into the hidden folder, which are added, too.

    Returns:
        The records of this command: its own, and those of processes that did parts of it.

    Raises:
        InputError: the page is damaged, or another's; nothing is lost, the hidden folder keeps the record.
        OSError: the disk does not take it.
    """
    with locked(page.parent, wait=True):  # shards end when they like
        try:
            known = {one["id"]: one for one in _read_page(page)}
        except InputError:
            write_part(page, record)
            raise
        found = {one["id"]: one for one in _read_parts(page)} if parts else {}
        ranks = [one for one in found.values() if one["part_of"] == RANK and one["id"] not in known]
        known |= found | {record["id"]: record}
        _write(page, list(known.values()))
        mine = [one for one in known.values() if record["id"] in (one["id"], one["part_of"])] + ranks
        for one in mine if parts else ():
            (_parts(page) / f"{one['id']}.json").unlink(missing_ok=True)
        with suppress(OSError):  # others are at work, or nothing was under way
            _parts(page).rmdir()
            _parts(page).parent.rmdir()
    return mine


def _write(page: Path, records: Sequence[Record]) -> None:
    """Write the sums, and the records that they are made of."""
    about = {"what": "energy of earthtune", "format": FORMAT}
    with replacing(page) as draft:
        draft.write_text(json.dumps(about | summed(records) | {"records": records}, indent=1) + "\n", encoding="utf-8")


def _read_page(page: Path) -> list[Record]:
    """The records of a page; none where there is no page."""
    if not page.exists():
        return []
    try:
        held = json.loads(page.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or held.get("what") != "energy of earthtune":
            raise ValueError("not written by earthtune")
        if held.get("format") != FORMAT:
            raise ValueError(f"format {held.get('format')}, wanted {FORMAT}")
        return [check(one) for one in held["records"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        advice = "move it away, and records are added up anew from here on"
        raise InputError(f"{page}: no record of energy that can be read ({_short(error)}); {advice}") from error


def _read_parts(page: Path) -> list[Record]:
    """The records in the hidden folder; one that is damaged is left out."""
    found = []
    for part in sorted(_parts(page).glob("*.json")):
        try:
            found.append(check(json.loads(part.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def read_records(place: Path) -> list[Record]:
    """All records of a run folder, of a folder of maps, or of a single file; also of work that is under way or died.

    Raises:
        InputError: nothing was recorded there, or what was is damaged.
    """
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; check the path")
    if place.is_dir():
        pages = [place / PAGE, *sorted(place.glob(f"*{SUFFIX}"))]
    else:
        pages = [place if place.name.endswith(PAGE) else page_of(place)]
    found: dict[str, Record] = {}
    for page in pages:
        found |= {one["id"]: one for one in _read_page(page)}
    if pages[0].name == PAGE:
        found |= {one["id"]: one for one in _read_parts(pages[0])}
    if not found:
        raise InputError(f"{place}: no {pages[0].name} there, nothing was recorded; name a run, or a folder of maps")
    return list(found.values())
