"""Scenes without labels -> windows of pixels: which there are, which are held out, and what each holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.backbones.catalogue import BANDS
from models.errors import InputError
from models.spec import IMAGERY
from models.types import Array, Mask, Progress, Say
from pipelines.grids.windows import Window, cells
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import Scene, open_told

CACHE_BYTES = 2 << 30  # small scenes are kept in memory, once read, up to this many bytes
HELD_OUT = 0.05  # share of the scenes
WATCHED = 64  # windows that are held out at most
DRAWS = 4  # windows that are drawn where they hold little
NOTES = 8  # lines that are told of scenes
ENOUGH = 0.5  # share of valid pixels with which a window is taken at once


@dataclass(frozen=True)
class Place:
    """Where a sample lies: in any window of a part of a scene.

    Attributes:
        scene: its place in the list of scenes.
        part: rows and columns that windows are drawn from; one of a sample's size is the window itself.
    """

    scene: int
    part: Window


def open_scenes(
    sources: Sequence[str], reading: Reading, *, frames: int, progress: Progress | None, say: Say
) -> list[Scene]:
    """Open scenes in Prithvi's bands, and look at their pixels.

    Args:
        sources: as `open_told` takes them; frames of one scene are joined by commas.
        reading: what a person says of the files.
        frames: dates of a scene.
        progress: wraps the scenes to show progress.
        say: is told what a person should know of them.

    Raises:
        InputError: a scene that cannot be opened, lacks bands or frames, or holds values that no ground reflects.
    """
    scenes: list[Scene] = []
    told: dict[str, list[str]] = {}
    for source in progress(sources, "looking at the scenes") if progress else sources:
        scene = open_frames(source, reading, frames=frames, alone=len(sources) == 1)
        for note in (*scene.remarks, *unit_notes(scene, as_is=reading.as_is)):
            told.setdefault(note, []).append(scene.name)
        scene.close()
        scenes.append(scene)
    for note, names in itertools.islice(told.items(), NOTES):
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"{names[0]}{others}: {note}")
    if len(told) > NOTES:
        say(f"{len(told) - NOTES} more such lines; `earthtune inspect` tells those of a scene")
    return scenes


def open_frames(source: str, reading: Reading, *, frames: int, alone: bool = True) -> Scene:
    """Open one scene in Prithvi's bands; headers are read, pixels are not.

    Raises:
        InputError: as `open_scene`; another number of frames; and where it is not `alone`, how to leave it out.
    """
    try:
        files = source.split(",") if frames > 1 else [source]
        scene = open_told(files, BANDS, reading, times=frames, like=None)
        if scene.frames != frames:
            raise InputError(
                f"{source}: wanted {frames} frames, came {scene.frames}; --frames says how many, one file per date "
                "joined by commas"
            )
    except InputError as error:
        hint = "" if alone else "; to leave files out, name the scenes by a pattern, such as 'DIR/*_hls.tif'"
        raise InputError(f"{error}{hint}") from error
    return scene


class Unlabelled:
    """Windows of scenes as samples.

    Attributes:
        scenes: the scenes.
        size: side of a sample in pixels.
        grid: patches along (frames, rows, columns) of a sample.
        uses_time: whether samples have the dates of their frames: all scenes tell them and the backbone takes them.
        uses_location: whether samples have their latitude and longitude.
    """

    def __init__(self, scenes: Sequence[Scene], *, size: int, patch: int, encodings: Sequence[str] = ()) -> None:
        """Keep the scenes; nothing is read yet.

        Args:
            scenes: of the same bands and number of frames.
            size: side of a sample in pixels, a multiple of the patch.
            patch: side of a patch in pixels.
            encodings: coordinates that the backbone takes: "time", "location".
        """
        self.scenes, self.size = list(scenes), size
        self.grid = (scenes[0].frames, size // patch, size // patch)
        self.uses_time = "time" in encodings and all(date for scene in scenes for date in scene.dates)
        self.uses_location = "location" in encodings and all(scene.geobox.crs is not None for scene in scenes)
        self._kept: dict[int, tuple[Array, Mask]] = {}
        self._bytes = 0

    def item(self, place: Place, rng: np.random.Generator) -> dict[str, Any]:
        """A sample of a place: the window that holds most of a few random ones, or the first that holds enough.

        Returns:
            `imagery` (C, T, H, W) reflectance x10000, 0 where not valid; `y` (H, W), True where valid; `noise` (N,),
            which picks the patches that are hidden; `time` (T, 2) and `location` (2,) where they are used.
        """
        draws: list[tuple[float, Window, Array, Mask]] = []
        while len(draws) < DRAWS:
            window = _drawn(place.part, self.size, rng)
            x, valid = self._read(place.scene, window)
            draws.append((float(valid.mean()), window, x, valid))
            if valid.mean() >= ENOUGH or window == place.part:
                break
        _, window, x, valid = max(draws, key=lambda draw: draw[0])
        missing = [(0, self.size - side) for side in valid.shape]
        item: dict[str, Any] = {
            IMAGERY: np.pad(x, ((0, 0), (0, 0), *missing)),
            "y": np.pad(valid, missing),
            "noise": rng.random(math.prod(self.grid), np.float32),
        }
        scene = self.scenes[place.scene]
        item |= {"time": scene.time()} if self.uses_time else {}
        return item | ({"location": scene.location(window)} if self.uses_location else {})

    def places(self, *, windows: int, seed: int) -> tuple[list[Place], list[Place], str]:
        """Places to learn from, as often as they come in an epoch; windows that are held out; and which these are.

        Of several scenes one in twenty is held out, one at least; of a large one alone its lowest rows. Held-out
        windows are half valid at least, and not more than 64; where nothing can be held out, they are learned from.

        Args:
            windows: that a scene gives in an epoch at most; 0 takes as many as fit beside each other.
            seed: of the choice.

        Raises:
            InputError: no scene has a window of which half is valid.
        """
        wholes = [Place(i, scene.window) for i, scene in enumerate(self.scenes)]
        order = [int(i) for i in np.random.default_rng(seed).permutation(len(wholes))]
        height = self.scenes[0].shape[0]
        learned, apart = wholes, wholes
        if len(wholes) > 1:
            count = max(round(HELD_OUT * len(wholes)), 1)
            apart, learned = [wholes[i] for i in order[:count]], [wholes[i] for i in sorted(order[count:])]
            told = f"{count} of {len(wholes)} scenes held out"
        elif height >= 4 * self.size:
            columns, cut = wholes[0].part[1], height - self.size
            learned, apart = [Place(0, (slice(0, cut), columns))], [Place(0, (slice(cut, height), columns))]
            told = f"the lowest {self.size} rows held out"
        else:
            told = "nothing held out, for the scene is too small: what is told was learned from"
        watched = self._filled(apart)
        if not watched:  # those apart hold nothing
            watched, told = self._filled(wholes), "nothing held out that is half valid: what is told was learned from"
        if not watched:
            raise InputError(
                f"{self.scenes[0].sources[0]}: no window of {self.size} x {self.size} pixels in it, or in any other "
                "scene, is half valid; look at nodata and clouds with `earthtune inspect`"
            )
        times = [_count(place.part, self.size, windows) for place in learned]
        return [place for place, n in zip(learned, times, strict=True) for _ in range(n)], watched, told

    def _filled(self, places: Sequence[Place]) -> list[Place]:
        """Windows beside each other of which half is valid, 64 at most, of as many of the places as possible."""
        each = max(WATCHED // len(places), 1)
        found = (itertools.islice(self._filled_windows(place), each) for place in places)
        return list(itertools.islice(itertools.chain.from_iterable(found), WATCHED))

    def _filled_windows(self, place: Place) -> Iterator[Place]:
        """The windows of a place that lie beside each other and of which half is valid; no slivers at its edges."""
        rows, columns = place.part
        height, width = rows.stop - rows.start, columns.stop - columns.start
        wanted = min(height, self.size), min(width, self.size)
        for down, right in cells(height, width, self.size):
            window = _moved(down, rows.start), _moved(right, columns.start)
            whole = (down.stop - down.start, right.stop - right.start) == wanted
            if whole and self._read(place.scene, window)[1].mean() >= ENOUGH:
                yield Place(place.scene, window)

    def _read(self, index: int, window: Window) -> tuple[Array, Mask]:
        """A window of a scene, see `Scene.read`; scenes not much larger than a sample are read once."""
        scene = self.scenes[index]
        if max(scene.shape) > 2 * self.size:
            return scene.read(window)
        if index not in self._kept:
            x, valid = scene.read(scene.window)
            if self._bytes + x.nbytes + valid.nbytes > CACHE_BYTES:
                return x[..., window[0], window[1]], valid[window]
            self._kept[index], self._bytes = (x, valid), self._bytes + x.nbytes + valid.nbytes
        x, valid = self._kept[index]
        return x[..., window[0], window[1]], valid[window]


def _moved(side: slice, by: int) -> slice:
    return slice(side.start + by, side.stop + by)


def _drawn(part: Window, size: int, rng: np.random.Generator) -> Window:
    """A random window of a side, or less where the part is smaller."""
    starts = [side.start + int(rng.integers(max(side.stop - side.start - size, 0) + 1)) for side in part]
    rows, columns = (slice(at, min(at + size, side.stop)) for at, side in zip(starts, part, strict=True))
    return rows, columns


def _count(part: Window, size: int, windows: int) -> int:
    """How many windows a part of a scene gives in an epoch."""
    beside = math.prod(max(int(side.stop - side.start) // size, 1) for side in part)
    return min(beside, windows) if windows else beside
