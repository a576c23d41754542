"""The files of a published run: which there may be, how large, and that they are what their hashes say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.bundle import FILES, Bundle, check_file, read_bundle
from models.errors import InputError
from models.files import check_folder
from models.runtime.hashes import sha256

TEXT, WEIGHTS = 16 << 20, 32 << 30  # bytes at most, of a text or picture, and of weights; 2300M are 9.5 GB
CARD, LICENCE, SUMS, ITEM, PICTURE = "README.md", "LICENSE", "checksums.txt", "item.json", "scores.png"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
OF_RUN = ("recipe.yaml", "metrics.json", "split.csv", "energy.json")  # taken along where they are
MOST: Mapping[str, int] = {
    **dict.fromkeys(("bundle.json", CARD, LICENCE, SUMS, ITEM, PICTURE, ADAPTER[0], *OF_RUN), TEXT),
    **dict.fromkeys((*FILES.values(), ADAPTER[1]), WEIGHTS),
}
ROOT = "training-data-elsewhere"  # where the training data is said to be; a folder that nobody has
PULLED = "pulled.json"  # what was understood of a model of others
MADE = (*MOST, PULLED, "report.html")  # what `pull`, and `evaluate` after it, leave in a run folder
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib")
_POINTER = b"version https://git-lfs.github.com/spec/"
_SUM = re.compile(r"([0-9a-f]{64})  ([\w.-]+)", re.ASCII)


def write_sums(folder: Path) -> None:
    """Write checksums.txt of all files of a folder, as sha256sum reads it."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names), encoding="utf-8")


def check_replaced(out: Path, *, known: Iterable[str] = MADE, overwrite: bool) -> None:
    """Refuse a run folder that cannot be written, or that holds what no published run has.

    Raises:
        InputError: which it is.
    """
    check_folder(out, overwrite=overwrite)
    own = sorted({path.name for path in out.iterdir()} - {*known} if out.is_dir() else ())
    if own:
        raise InputError(
            f"{out}: holds {own[0]}, which no published run has, and is not replaced; --out names another folder"
        )


def check_sizes(sizes: Mapping[str, int], where: object) -> list[str]:
    """The files of a run among those of a repository, bundle.json first.

    Raises:
        InputError: no run, or files that none has.
    """
    if "bundle.json" not in sizes or FILES["sha256"] not in sizes:
        pickles = sorted(name for name in sizes if name.lower().endswith(PICKLES))
        why = f"; it has pickles ({pickles[0]}), which could run code and are not opened" if pickles else ""
        why += "; one of terratorch with one YAML file beside it would be taken by `pull`" if pickles else ""
        raise InputError(f"{where}: wanted bundle.json and {FILES['sha256']}, as `publish` puts them there{why}")
    for name, most in MOST.items():
        if sizes.get(name, 0) > most:
            raise InputError(f"{where}: {name} has {sizes[name]:,} bytes, wanted {most:,} at most; not fetched")
    return [name for name in MOST if name in sizes]


def check_run(folder: Path, where: object) -> Bundle:
    """Refuse a folder whose files are not those that bundle.json and checksums.txt were written for; what it holds.

    Raises:
        InputError: a file lacks, is another, a pointer to one, or none of a run.
    """
    _check_whole(folder, (folder / name for name in MOST), where)
    bundle = read_bundle(folder)
    for key, name in FILES.items():
        wanted = getattr(bundle, key)
        if wanted or key == "sha256" or (folder / name).exists():
            check_file(folder / name, wanted)
    for name, wanted in _sums(folder).items():
        if name in MOST and name != SUMS:
            check_listed(folder / name, wanted)
    return bundle


def _check_whole(folder: Path, files: Iterable[Path], where: object) -> None:
    """Refuse files that are too large to be opened, and pointers of git in place of files."""
    for path in files:
        if not path.exists():
            continue
        if path.stat().st_size > MOST[path.name]:
            raise InputError(f"{where}: {path.name} has {path.stat().st_size:,} bytes, wanted {MOST[path.name]:,}")
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                told = "a pointer of Git LFS, not the file; its owner has to upload the file"
                raise InputError(f"{where}: {path.name} is {told}")


def check_listed(path: Path, wanted: str) -> None:
    """Refuse a file that is not the one which checksums.txt was written for."""
    if not path.is_file() or sha256(path) != wanted:
        raise InputError(f"{path}: not the file that {SUMS} was written for; pull it again, or ask its owner")


def _sums(folder: Path) -> dict[str, str]:
    """Hashes by checksums.txt; none where there is no such file."""
    path = folder / SUMS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return {name: digest for digest, name in _SUM.findall(text)}
