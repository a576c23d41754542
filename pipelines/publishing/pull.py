"""A run taken from the Hub, into its cache, where `score` reads it, or as a folder: no code, no pickles."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.backbones.hub import locate, reachable
from models.bundle import Base
from models.errors import InputError, RunError
from models.files import draft_folder
from pipelines.publishing.files import MADE, MOST, check_replaced, check_run, check_sizes
from pipelines.publishing.foreign import run
from pipelines.publishing.repository import Address, address_of, check_online, listing

SPARE = 1.1  # of the bytes that are fetched, to be free on the disk


def run_folder(text: str, say: Callable[[str], None]) -> Path:
    """The folder of a run that is named by its address, checked: fetched into the Hub's cache, or there already.

    Raises:
        InputError: no run there, one whose files are not those of its hashes, or no such address.
        RunError: the Hub cannot be reached, and it is not in the cache.
    """
    address = address_of(text)
    folder = _fetched(address, say) if reachable() else _cached(address, say)
    check_run(folder, address)
    return folder


def check_own(run: Path, what: str) -> None:
    """Refuse to write into the Hub's cache, which is read by its hashes.

    Args:
        run: the folder of a run.
        what: what would be written, and where it may go.

    Raises:
        InputError: it lies in the cache.
    """
    if run.parent.name == "snapshots" and (run.parent.parent / "blobs").is_dir():
        raise InputError(f"{run.name[:12]}: a published run in the Hub's cache is not written to: {what}")


def pull(
    source: str,
    *,
    out: Path,
    yaml: Path | None,
    scale: float | None,
    overwrite: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Bring a run, or a model of terratorch as one, see `commands.pull.pull`."""
    how: dict[str, Any] = {"out": out, "scale": scale, "overwrite": overwrite, "say": say}
    if run.is_checkpoint(source):
        return run.bring_files(Path(source), yaml, **how)
    address = address_of(source)
    check_replaced(out, overwrite=overwrite)
    folder = _fetched(address, say, run.chosen) if reachable() else _cached(address, say)
    names = run.chosen({path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}, address)
    if "bundle.json" not in names:
        base = Base("hub", address.repo, folder.name, names[0])
        return run.bring(folder / names[0], yaml or folder / names[1], base=base, **how)
    if yaml or scale is not None:
        raise InputError(f"{address}: is a run of ours, which takes no --yaml and no --scale; leave them out")
    return _copied(folder, address, out)


def _copied(source: Path, address: Address, out: Path) -> dict[str, Any]:
    """A run in the Hub's cache as a folder."""
    bundle = check_run(source, address)
    names = [name for name in MOST if (source / name).is_file()]
    with draft_folder(out, replaces="bundle.json", also=MADE) as folder:
        for name in names:
            shutil.copyfile(source / name, folder / name)
    size = sum((out / name).stat().st_size for name in names)
    told = {"run": str(out), "repo": address.repo, "commit": source.name, "files": names, "bytes": size}
    return told | {"task": bundle.spec.task, "backbone": bundle.backbone, "base": str(bundle.base)}


def _fetched(
    address: Address,
    say: Callable[[str], None],
    wanted: Callable[[Mapping[str, int], object], list[str]] = check_sizes,
) -> Path:
    """The folder in the Hub's cache with wanted files of a commit; what is there already is not fetched again."""
    held = listing(address)
    names = wanted(held.sizes, address)
    lacking = [name for name in names if not _is_cached(address, name, held.commit)]
    size = sum(held.sizes[name] for name in lacking)
    _check_room(size, address)
    if lacking:
        say(f"{address}: commit {held.commit[:12]}, {size / 1e6:.1f} MB to fetch")
    first = locate(address.repo, names[0], revision=address.revision, online=True)
    if first.revision != held.commit:
        raise RunError(f"{address}: changed while it was read; the same command takes the newer one")
    for name in names[1:]:
        locate(address.repo, name, revision=held.commit, online=True)
    return first.path.parent


def _is_cached(address: Address, name: str, commit: str) -> bool:
    """Whether a file of a commit lies in the Hub's cache, whole."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(address.repo, name, revision=commit), str)


def _check_room(wanted: int, address: Address) -> None:
    """Refuse to begin what the disk cannot hold."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < SPARE * wanted:
        raise RunError(f"{address}: has {wanted:,} bytes, {there} {free:,} free; make room, or HF_HOME names another")


def _cached(address: Address, say: Callable[[str], None]) -> Path:
    """The folder in the Hub's cache, where the Hub is not to be asked or cannot be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(address.repo, revision=address.revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        check_online(address)
        raise RunError(f"{address}: the Hub did not answer at once; the same command tries again") from None
    if folder.name != address.revision:
        say(f"{address}: the Hub was not asked; this is commit {folder.name[:12]}, the newest in the local cache")
    return folder
