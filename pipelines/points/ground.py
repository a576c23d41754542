"""What is known of each pixel of a scene: statistics of its surroundings, and the tokens over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.backbones.catalogue import BANDS
from models.baselines.statistics import surroundings
from models.errors import InputError
from models.types import Array, Mask, Say
from pipelines.embeddings.stored import geobox_of, is_tokens, read_window
from pipelines.grids import align
from pipelines.grids.windows import Window, cells
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import Scene, open_told

SIDES = (3, 9)  # pixels of neighbourhoods; 21 beside them was worth nothing on places left out
COMPONENTS = 16  # of tokens; 64 were worse than none on places left out
CELL = 512  # pixels a side that are read at once
_BANDS = (BANDS, ("NIR_NARROW", "RED", "GREEN"), ("RED", "GREEN", "BLUE"))
_TOKENS = 20_000  # of which components are made
_STRIP = 64  # rows of tokens that are read at once
STATISTICS, TOKENS = "statistics", "tokens"


@dataclass(frozen=True)
class Components:
    """The leading principal components of tokens, each token's features standardised before.

    Attributes:
        path: the raster of tokens.
        geobox: its grid.
        mean: of each feature (E,).
        turn: features less their mean to components (E, K).
    """

    path: Path
    geobox: GeoBox
    mean: NDArray[np.float64]
    turn: NDArray[np.float64]

    def onto(self, geobox: GeoBox, window: Window) -> Array:
        """Components at the pixels of a window, bilinear between tokens: (K, rows, columns), NaN where none is."""

        def read(under: Window) -> Array:
            tokens = read_window(self.path, under)
            turned = np.tensordot(self.turn.T, tokens - self.mean[:, None, None], axes=1)
            return np.asarray(turned, np.float32)

        return np.asarray(align.warp(read, self.turn.shape[1], self.geobox, geobox, window, Resampling.bilinear))


@dataclass(frozen=True)
class Ground:
    """A scene, and the tokens over it if there are some.

    Attributes:
        scene: the scene.
        tokens: components of its tokens.
    """

    scene: Scene
    tokens: Components | None

    @property
    def sets(self) -> Mapping[str, slice]:
        """Where the features of each kind lie."""
        count = self._count
        found = {STATISTICS: slice(0, count)}
        return found | ({TOKENS: slice(count, count + self.tokens.turn.shape[1])} if self.tokens else {})

    @property
    def _count(self) -> int:
        """Statistics of a pixel."""
        probe = np.zeros((len(self.scene.bands), self.scene.frames, 1, 1), np.float32)
        return len(surroundings(probe, np.ones((1, 1), bool), self.scene.bands, SIDES))

    def read(self, window: Window, *, tokens: bool = True) -> tuple[Array, Mask]:
        """Features (F, rows, columns) of a window, and where they are known: the same whatever window it is.

        Args:
            window: inside of the scene.
            tokens: with those of tokens.
        """
        reach = max(SIDES) // 2
        wide, inner = zip(
            *(
                (slice(max(side.start - reach, 0), min(side.stop + reach, size)), min(reach, side.start))
                for side, size in zip(window, self.scene.shape, strict=True)
            ),
            strict=True,
        )
        x, valid = self.scene.read(wide)
        inside = tuple(slice(first, first + side.stop - side.start) for first, side in zip(inner, window, strict=True))
        maps = [surroundings(x, valid, self.scene.bands, SIDES)[(slice(None), *inside)]]
        if tokens and self.tokens:
            maps.append(self.tokens.onto(self.scene.geobox, window))
        found = np.concatenate(maps)
        known = valid[inside] & np.isfinite(found).all(axis=0)
        return np.where(known, found, np.float32(0)), known

    def at(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[Array, Mask]:
        """Features of pixels (N, F), and where they are known (N,); each cell that has some is read once."""
        out = np.zeros((len(rows), max(part.stop for part in self.sets.values())), np.float32)
        known = np.zeros(len(rows), bool)
        for window in cells(*self.scene.shape, CELL):
            (top, left), (bottom, right) = ([getattr(side, end) for side in window] for end in ("start", "stop"))
            here = np.flatnonzero((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))
            if len(here):
                found, seen = self.read(window)
                at = rows[here] - top, columns[here] - left
                out[here], known[here] = found[:, at[0], at[1]].T, seen[at]
        return out, known


def open_ground(source: str, tokens: Path | None, reading: Reading, say: Say) -> Ground:
    """Open a scene and its tokens.

    Raises:
        InputError: it lacks bands, values cannot be reflectance, it has no place on the ground, or tokens are none or
            of other ground.
    """
    if is_tokens(Path(source)):
        raise InputError(f"{source}: holds tokens; give the scene that they are of, and these by --tokens")
    scene = _open(source, reading, say)
    if scene.geobox.crs is None:
        raise InputError(f"{source}: labels have a place on the ground and the scene has none; give it a system")
    for note in (*scene.remarks, *unit_notes(scene, as_is=reading.as_is)):
        say(f"{scene.name}: {note}")
    if tokens is None:
        return Ground(scene, None)
    components = components_of(tokens)
    if not align.overlaps(align.dataset(str(tokens)), scene.geobox):
        raise InputError(f"{tokens}: lies on other ground than {source}; make tokens of this scene")
    return Ground(scene, components)


def _open(source: str, reading: Reading, say: Say) -> Scene:
    """The scene with Prithvi's six bands, or those of the few that a picture has."""
    files, problems = source.split(","), []
    for bands in _BANDS:
        try:
            scene = open_told(files, bands, reading, times=len(files), like=None)
        except InputError as error:
            problems.append(error)
            continue
        if problems:
            say(f"{scene.name}: looked at {', '.join(bands)} alone, for it has not all of {', '.join(BANDS)}")
        return scene
    raise problems[0]


def components_of(path: Path) -> Components:
    """The leading components of a file of tokens, by at most `_TOKENS` of them, evenly of all.

    Raises:
        InputError: it holds no tokens, or no two that were seen.
    """
    geobox = geobox_of(path)
    rows = np.concatenate([*_strips(path, geobox)])  # (N, E)
    if len(rows) < 2:
        raise InputError(f"{path}: no token saw a valid pixel; look at the scene with `earthtune inspect`")
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    rows = (rows - mean) / spread
    _, axes = np.linalg.eigh(rows.T @ rows / len(rows))  # rising
    turn = axes[:, ::-1][:, : min(COMPONENTS, rows.shape[1])]
    return Components(path, geobox, mean, turn / spread[:, None])


def _strips(path: Path, geobox: GeoBox) -> Iterator[NDArray[np.float64]]:
    """Tokens that were seen, evenly of all, (n, E)."""
    height, width = (int(side) for side in geobox.shape)
    step = max(height * width // _TOKENS, 1)
    for top in range(0, height, _STRIP):
        values = read_window(path, (slice(top, min(top + _STRIP, height)), slice(0, width)))
        rows = values.reshape(len(values), -1).T[::step]
        yield rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
