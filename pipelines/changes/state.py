"""What is remembered between updates, so that a new date is taken in without reading the old ones.

The ground (seasons, kinds) is written once; runs, the sample and alerts anew by each update under the number of a
generation, and the page that names it is replaced last. A process that is killed leaves the generation before.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.changes.history import Ground, History
from models.changes.runs import Runs
from models.changes.seasons import TERMS, Season
from models.changes.shared import Kinds, Shared
from models.changes.watch import Watch
from models.errors import InputError
from models.files import replacing
from models.types import convert
from pipelines.records.ledger import FOLDER

FORMAT = 1
Arrays = Mapping[str, NDArray[Any]]
MOST = 1 << 36  # bytes of a file; more is none of ours


@dataclass
class Page:
    """What is watched, and how far.

    Attributes:
        key: hash of what decides the history.
        features: names of indices and bands.
        shape: rows and columns of the grid.
        affine: its six numbers.
        crs: its coordinate system, as WKT.
        rows: of a strip.
        rate: of false alarms in a year, as a person said it.
        kept: the same, as thresholds are of it: more dates in a year are more chances.
        history: days of the history.
        since: first day that is watched.
        buffer: pixels around clouds.
        least: hectares of an alert.
        sample: windows of the sample: first row, row after the last, first column, column after the last.
        generation: of the runs; -1 while the first is made.
        mapped: generation that the maps show.
        dates: days that were taken in, and from which scenes.
        watch: of this beginning alone: numbers of alerts hold for it.
    """

    key: str
    features: list[str]
    shape: tuple[int, int]
    affine: list[float]
    crs: str
    rows: int
    rate: float
    kept: float
    history: list[str]
    since: str
    buffer: int
    least: float
    sample: list[list[int]]
    generation: int = -1
    mapped: int = -1
    dates: dict[str, list[str]] = field(default_factory=dict)
    watch: str = ""


@dataclass(frozen=True)
class State:
    """Files of the state under an output folder."""

    out: Path

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.out / FOLDER / "changes"

    def read(self) -> Page | None:
        """The page; None where there is none.

        Raises:
            InputError: it is none that this version writes.
        """
        path = self.folder / "state.json"
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("format") != FORMAT:
                raise ValueError("of another version")
            made: Page = convert(found, Page, "")
            return made
        except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"{path}: cannot be read ({error}); --overwrite watches the place anew") from error

    def write(self, page: Page) -> None:
        """Replace the page, and drop generations that it does not name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "state.json") as draft:
            draft.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(page)}))
        if page.generation >= 0:
            for old in self.folder.glob("generation-*"):
                if old != self.generation(page.generation):
                    shutil.rmtree(old, ignore_errors=True)

    def generation(self, number: int) -> Path:
        """The folder of a generation."""
        return self.folder / f"generation-{number}"

    def forget(self) -> None:
        """Drop all of it, the page first."""
        (self.folder / "state.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Read arrays.

    Raises:
        InputError: the file is damaged, or was not written by us.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if any(one.compress_type != zipfile.ZIP_STORED or one.file_size > MOST for one in packed.infolist()):
                raise ValueError("packed by another program")
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, MemoryError) as error:
        raise InputError(f"{path}: cannot be read ({error}); --overwrite watches the place anew") from error


def ground_arrays(ground: Ground) -> Arrays:
    """What is known of pixels, as arrays."""
    season = ground.season
    return {"terms": season.terms, "scale": season.scale, "kinds": ground.kinds, "astray": ground.astray}


def ground_of(arrays: Arrays) -> Ground:
    """The reverse of `ground_arrays`."""
    return Ground(Season(arrays["terms"], arrays["scale"]), arrays["kinds"], arrays["astray"])


def runs_of(arrays: Arrays, prefix: str = "") -> Runs:
    """Runs from their arrays."""
    return Runs(**{one.name: arrays[prefix + one.name] for one in dataclasses.fields(Runs)})


def checked(arrays: Arrays, path: Path, *, features: int, pixels: int) -> Arrays:
    """Arrays of a strip, which are as many pixels as they should be.

    Raises:
        InputError: they are not.
    """
    wanted = {"terms": (TERMS, features, pixels), "last": (features, pixels), "changed": (pixels,), "kinds": (pixels,)}
    for name, shape in wanted.items():
        if name in arrays and arrays[name].shape[-len(shape) :] != shape:
            raise InputError(f"{path}: {name} of {arrays[name].shape}, wanted {shape}; --overwrite watches it anew")
    return arrays


def history_arrays(history: History, ground: Ground) -> Arrays:
    """A history and what is known of its sample, as arrays."""
    one, shared = history, history.shared
    parts: dict[str, NDArray[Any]] = {
        "centres": one.kinds.centres,
        "unit": one.kinds.unit,
        "days": one.days,
        "usual": one.usual,
    }
    parts |= {"tails": one.tails, "centre": shared.centre, "spread": shared.spread, "own": shared.own}
    return parts | {f"sample_{name}": array for name, array in ground_arrays(ground).items()}


def watch_arrays(watch: Watch) -> Arrays:
    """The runs of a sample and of kinds, as arrays."""
    sample = {f"sample_{name}": array for name, array in watch.runs.arrays().items()}
    return sample | {f"kinds_{name}": array for name, array in watch.of_kinds.arrays().items()}


def watch_of(history: Arrays, runs: Arrays, rate: float) -> Watch:
    """The reverse of `history_arrays` and `watch_arrays`."""
    found = History(
        Kinds(history["centres"], history["unit"]),
        history["days"],
        Shared(history["centre"], history["spread"], history["own"]),
        history["usual"],
        history["tails"],
    )
    sample = ground_of({name.removeprefix("sample_"): array for name, array in history.items()})
    return Watch(found, sample, runs_of(runs, "sample_"), runs_of(runs, "kinds_"), rate)
