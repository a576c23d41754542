"""What a run tells of a watched place: its classes in the same season before it was watched, and on its last days."""

from __future__ import annotations

import dataclasses
import datetime
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from models.bundle import read_bundle
from models.changes.seasons import YEAR
from models.errors import InputError
from models.spec import Classes
from models.types import Say
from pipelines.changes.alerts import Alert, Alerts
from pipelines.changes.series import Day
from pipelines.mosaics.ground import Ground
from pipelines.outputs.categories import read_categories, sidecar
from pipelines.outputs.parts import open_raster
from pipelines.scenes.reading import Reading
from pipelines.scoring.plan import Maps, Plan, Share, score_scenes

DAYS = 5  # that a map is made of at most


def check_run(run: Path) -> None:
    """Refuse a run that tells no classes of pixels from scenes of one date.

    Raises:
        InputError: it is so, or no run.
    """
    spec = read_bundle(run).spec
    if not isinstance(spec.answer, Classes) or spec.answer.support != "pixel":
        raise InputError(f"--run {run}: wanted a run that tells a class of each pixel, as of task segmentation")
    if spec.imagery.times > 1:
        raise InputError(f"--run {run}: takes {spec.imagery.times} dates at once; wanted a run of one date")


def days_of(days: Sequence[Day], since: str) -> tuple[list[Day], list[Day]]:
    """Days of the year before the watch that are nearest in season to its last, and its last days."""
    start = datetime.date.fromisoformat(since)
    after = [day for day in days if day.date >= start][-DAYS:]
    if not after:
        return [], []
    last = after[-1].number
    year = [day for day in days if day.date < start and (start - day.date).days <= YEAR]
    apart = [abs((last - day.number + YEAR / 2) % YEAR - YEAR / 2) for day in year]
    return [year[at] for at in sorted(np.argsort(apart, kind="stable")[:DAYS])], after


def write_classes(run: Path, days: Iterable[Day], target: Path, grid: Path, reading: Reading, say: Say) -> bool:
    """Map the scenes of some days with a run, and join them on the grid of the changes; False where there are none.

    Raises:
        InputError: no scene can be mapped; says why of the first.
    """
    scenes = [",".join(map(str, scene.sources)) for day in days for scene in day.scenes]
    if not scenes:
        return False
    masked = reading if reading.mask_clouds is not None else dataclasses.replace(reading, mask_clouds=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".changes.") as folder:
        joined = Path(folder) / "joined_map.tif"
        plan = Plan(Path(folder), Maps(mosaic=joined), masked, ground=Ground(grid=grid))
        results = score_scenes([run], scenes, plan, Share(), progress=None, say=lambda line: None)
        if not joined.is_file():
            raise InputError(f"--run {run}: {next(one['error'] for one in results if 'error' in one)}")
        for result in results:
            if "error" in result:
                say(f"left out of {target.name}: {result['error']}")
        os.replace(sidecar(joined), sidecar(target))
        os.replace(joined, target)
    return True


def tell(alerts: Alerts, standing: Sequence[Alert], file: Path, field: str) -> None:
    """Write the commonest class of each alert's pixels into its field; nothing where none is known."""
    with open_raster(file) as dataset:
        codes = dataset.read(1)
    names = {entry.code: entry.name for entry in read_categories(file)}
    known = (alerts.numbers > 0) & np.isin(codes, [*names])
    pairs, counts = np.unique(np.stack((alerts.numbers[known], codes[known])), axis=1, return_counts=True)
    commonest = {int(pairs[0, at]): int(pairs[1, at]) for at in np.argsort(counts, kind="stable")}  # the last one stays
    for alert in standing:
        setattr(alert, field, names[commonest[alert.number]] if alert.number in commonest else "")
