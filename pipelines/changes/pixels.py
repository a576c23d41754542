"""Pixels strip by strip: their ground from the dates of the history, their runs through those that are watched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.changes.history import Ground, History
from models.changes.runs import Runs
from models.changes.shared import Shared
from models.changes.watch import take
from models.types import Array
from pipelines.changes.series import Day, Series
from pipelines.changes.state import checked, ground_arrays, ground_of, load, runs_of, save
from pipelines.grids.windows import Window

HELD = 512 << 20  # bytes of a strip's history, as float16: half a thousandth of an index, a tenth of its noise
AT_ONCE = 1 << 22  # values of (T, F, N) that are fitted at once
SAMPLE = 20_000  # pixels, about
SIDE = 50  # pixels; of a window of the sample, which costs as much to open as to read


def strip_rows(width: int, dates: int, features: int) -> int:
    """Rows of a strip whose history is held: fewer where there are more dates, so that memory is the same."""
    return int(np.clip(HELD // (2 * dates * features * width), 16, 512))


def strips(shape: tuple[int, int], rows: int) -> list[Window]:
    """Windows of the strips of a grid."""
    height, width = shape
    return [(slice(row, min(row + rows, height)), slice(0, width)) for row in range(0, height, rows)]


def sample_windows(shape: tuple[int, int]) -> list[Window]:
    """Windows that lie evenly over a grid: of about `SAMPLE` pixels, or all of it where it has no more."""
    height, width = shape
    if height * width <= SAMPLE:
        return [(slice(0, height), slice(0, width))]
    apart = np.sqrt(height * width * SIDE**2 / SAMPLE)
    counts = [max(round(size / apart), 1) for size in shape]
    starts = [
        np.linspace(0, size - min(SIDE, size), count + 2)[1:-1].astype(int)
        for size, count in zip(shape, counts, strict=True)
    ]
    rows, cols = (
        [slice(int(at), int(at) + min(SIDE, size)) for at in s] for s, size in zip(starts, shape, strict=True)
    )
    return [(row, col) for row in rows for col in cols]


def read_sample(series: Series, day: Day, windows: Sequence[Window]) -> Array:
    """The sample's features on a day (F, N)."""
    parts = [series.read(day, window).reshape(len(series.features), -1) for window in windows]
    series.close(day)
    return np.concatenate(parts, axis=1)


def read_history(series: Series, days: Sequence[Day], window: Window) -> NDArray[np.float16]:
    """Features of a window on days: float16 (T, F, N)."""
    rows, columns = (side.stop - side.start for side in window)
    held = np.empty((len(days), len(series.features), rows * columns), np.float16)
    for t, day in enumerate(days):
        held[t] = series.read(day, window).reshape(len(series.features), -1)
        series.close(day)
    return held


def fit_ground(history: History, held: NDArray[np.float16]) -> Ground:
    """What is known of pixels, a few at once."""
    step = max(AT_ONCE // held[..., 0].size, 1)
    parts = [history.ground(held[..., n : n + step].astype(np.float32)) for n in range(0, held.shape[2], step)]
    found = [ground_arrays(part) for part in parts]
    return ground_of({name: np.concatenate([one[name] for one in found], axis=-1) for name in found[0]})


def watch_strip(
    series: Series, ground: Ground, runs: Runs, window: Window, dates: Sequence[tuple[Day, Shared]], threshold: Array
) -> None:
    """Take dates into the runs of a strip."""
    for day, shared in dates:
        y = series.read(day, window).reshape(len(series.features), -1)
        series.close(day)
        if np.isfinite(y[0]).any():
            take(runs, ground, y, day.number, shared, threshold)


def strip_file(folder: Path, window: Window) -> Path:
    """The file of a strip."""
    return folder / f"{window[0].start:06d}.npz"


def first_pass(
    series: Series,
    history: History,
    rate: float,
    window: Window,
    days: Sequence[Day],
    dates: Sequence[tuple[Day, Shared]],
    folders: tuple[Path, Path],
) -> None:
    """Fit a strip and watch it through all dates; its files in the folders of ground and runs appear at the end."""
    if strip_file(folders[1], window).is_file():
        return
    ground = fit_ground(history, read_history(series, days, window))
    runs = Runs.begin(len(series.features), len(ground.kinds))
    watch_strip(series, ground, runs, window, dates, history.threshold(rate, ground))
    save(strip_file(folders[0], window), ground_arrays(ground))
    save(strip_file(folders[1], window), runs.arrays())


def update(
    series: Series,
    history: History,
    rate: float,
    window: Window,
    dates: Sequence[tuple[Day, Shared]],
    folders: tuple[Path, Path, Path],
) -> None:
    """Take new dates into a strip; folders of its ground, its runs so far, and its runs from now on."""
    ground, runs = load_strip(series, window, folders[0], folders[1])
    watch_strip(series, ground, runs, window, dates, history.threshold(rate, ground))
    save(strip_file(folders[2], window), runs.arrays())


def load_strip(series: Series, window: Window, ground: Path, runs: Path) -> tuple[Ground, Runs]:
    """The ground and the runs of a strip."""
    rows, columns = (side.stop - side.start for side in window)
    found = []
    for folder in (ground, runs):
        path = strip_file(folder, window)
        found.append(checked(load(path), path, features=len(series.features), pixels=rows * columns))
    return ground_of(found[0]), runs_of(found[1])


def each_strip(
    series: Series, windows: Sequence[Window], ground: Path, runs: Path
) -> Iterator[tuple[Window, Ground, Runs]]:
    """All strips of a generation, one after the other."""
    for window in windows:
        yield (window, *load_strip(series, window, ground, runs))
