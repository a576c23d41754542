"""A run given to others: the folder is made and looked through first, then it goes to the Hub in one commit."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.errors import InputError, RunError
from pipelines.publishing.files import MOST, check_replaced
from pipelines.publishing.package import Wish, write_package
from pipelines.publishing.repository import Address, address_of, check_online, send


def publish(
    run: Path,
    wish: Wish,
    *,
    out: Path | None,
    dry_run: bool,
    private: bool,
    revision: str | None,
    overwrite: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Make the folder of a run and send it, see `commands.publish.publish`."""
    address = _address(wish.repo, revision)
    wish = dataclasses.replace(wish, repo=address.repo)
    if dry_run:
        out = out or Path(address.repo.rpartition("/")[2])
    else:
        check_online(address)
    if out is None:
        with tempfile.TemporaryDirectory() as place:
            made = write_package(run, Path(place) / "run", wish, say=say)
            return made | {"folder": None} | _sent(Path(place) / "run", address, private=private)
    _check_target(run, out, overwrite=overwrite)
    made = write_package(run, out, wish, say=say)
    if dry_run:
        return made | {"commit": None}
    try:
        return made | _sent(out, address, private=private)
    except RunError as error:
        raise RunError(f"{error}, with --overwrite: {out} is made already") from error


def _address(repo: str, revision: str | None) -> Address:
    """Where it goes; the branch may be said either way."""
    address = address_of(repo)
    if revision and address.revision:
        raise InputError(f"{repo}: names a branch, and --revision {revision} another; say one of them")
    return address_of(f"{address.repo}@{revision}") if revision else address


def _check_target(run: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse to write over what is no published folder, a run above all."""
    if out.exists() and out.resolve() == run.resolve():
        raise InputError(f"{out}: is the run itself; --out names another folder")
    check_replaced(out, known=MOST, overwrite=overwrite)


def _sent(folder: Path, address: Address, *, private: bool) -> dict[str, Any]:
    """Send a folder; where it is now."""
    commit = send(folder, address, private=private)
    return {"repo": address.repo, "commit": commit, "address": str(Address(address.repo, commit))}
