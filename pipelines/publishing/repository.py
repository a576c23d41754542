"""A repository of the Hub: its address, what it holds, a folder sent to it; what it refuses, in a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.backbones.hub import reachable
from models.errors import EarthtuneError, InputError, RunError

SCHEME = "hf://"
SECONDS = 30.0  # that the Hub may take to list a repository
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,250}", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A repository, and a branch, tag or commit of it; None is the newest.

    Attributes:
        repo: owner and name.
        revision: branch, tag or commit.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        """As it is typed."""
        return f"{SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit.

    Attributes:
        commit: its hash.
        sizes: bytes of each file, by its path.
    """

    commit: str
    sizes: Mapping[str, int]


def address_of(text: str) -> Address:
    """An address from hf://org/name@revision; the scheme and the revision may lack.

    Raises:
        InputError: it is none.
    """
    name, mark, revision = text.removeprefix(SCHEME).partition("@")
    right = _NAME.fullmatch(name) and (_REVISION.fullmatch(revision) if mark else True)
    if not right or ".." in text or "--" in name:
        raise InputError(f"{text!r}: wanted org/name or org/name@revision, as on the model's page; check the name")
    return Address(name, revision or None)


def check_online(address: Address) -> None:
    """Refuse to ask a Hub that is out of reach, or that nobody may ask.

    Raises:
        InputError: HF_HUB_OFFLINE is set.
        RunError: no network.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{address}: HF_HUB_OFFLINE is set, and the Hub would have to be asked; unset it")
    if not reachable():
        host = constants.ENDPOINT.partition("://")[2]
        raise RunError(f"{address}: {host} cannot be reached; the same command goes on where there is network")


@contextmanager
def asking(address: Address) -> Iterator[None]:
    """Tell in one line what the Hub refuses, or where it broke off."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # not in its __all__

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _told(address, error) from error


def _told(address: Address, error: Exception) -> EarthtuneError:
    """What a person can do about an error of the hub client."""
    from huggingface_hub import errors

    log_in = "`hf auth login`, or a token in HF_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"{address}: its owner lets in who asks: ask on its page, then {log_in}")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{address}: no branch, tag or commit {address.revision}; look it up on its page")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(f"{address}: no such repository, or a private one: check the name; {log_in} opens one")
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return InputError(f"{address}: the Hub wants a token that may do this: {log_in}")
    lines = " ".join(str(error).split())[:200] or type(error).__name__
    if status == 400 or isinstance(error, ValueError):
        return InputError(f"{address}: the Hub refuses it: {lines}")
    return RunError(f"{address}: the Hub broke off: {lines}; the same command goes on from here")


def listing(address: Address) -> Listing:
    """What a repository holds.

    Raises:
        InputError: no such repository or revision, or one that wants a token.
        RunError: the Hub cannot be reached.
    """
    check_online(address)
    from huggingface_hub import HfApi

    with asking(address):
        info = HfApi().model_info(address.repo, revision=address.revision, files_metadata=True, timeout=SECONDS)
    return Listing(info.sha or "", {file.rfilename: file.size or 0 for file in info.siblings or ()})


def send(folder: Path, address: Address, *, private: bool) -> str:
    """Make a repository where there is none, and its files those of a folder, in one commit; return the commit.

    Files of an earlier run that are not in the folder go; what others put there stays.

    Raises:
        InputError: no token, or one that may not.
        RunError: the Hub cannot be reached, or broke off.
    """
    check_online(address)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from pipelines.publishing.files import MOST

    api = HfApi()
    files = sorted(folder.iterdir())
    with asking(address):
        api.create_repo(address.repo, private=private or None, exist_ok=True)
        if address.revision:
            api.create_branch(address.repo, branch=address.revision, exist_ok=True)
    gone = sorted({*MOST} & {*listing(address).sizes} - {path.name for path in files})
    with asking(address):
        # Not by upload_folder, which makes several commits of what takes long.
        adds, deletes = [CommitOperationAdd(path.name, path) for path in files], map(CommitOperationDelete, gone)
        message = "A run of earthtune"
        sent = api.create_commit(address.repo, [*adds, *deletes], commit_message=message, revision=address.revision)
    return str(sent.oid)
