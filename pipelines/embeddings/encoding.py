"""An encoder and a scene that it looks at: patch tokens as finished rows, blended where tiles overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from models.backbones.catalogue import variant
from models.bundle import Bundle, bundle_id, load_network, read_bundle
from models.errors import InputError
from models.types import Array, Say
from pipelines.grids.mosaic import Prediction, blend, fill_invalid, pad_tile
from pipelines.grids.positions import coarser
from pipelines.grids.tokens import Tokens
from pipelines.grids.windows import Tiles, Window, enlarged
from pipelines.records.ledger import fingerprint
from pipelines.scenes.physical import unit_notes
from pipelines.scenes.pixel_size import at_size
from pipelines.scenes.reading import Reading
from pipelines.scenes.scene import Scene, open_told

if TYPE_CHECKING:
    from models.backbones.prithvi_eo import PrithviEO

Shown = Callable[[Iterable[Window]], Iterable[Window]]


@dataclass(frozen=True)
class Encoder:
    """An encoder, ready to look at scenes.

    Attributes:
        name: of the backbone, or the run folder.
        network: one block's features.
        statistics: mean and deviation of its bands, (C, 1, 1, 1).
        run: the run whose backbone it is, if it is one's.
        identity: what tells its weights from others.
        block: the block whose tokens it gives.
        tile: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share.
    """

    name: str
    network: PrithviEO
    statistics: tuple[Any, Any]
    run: Bundle | None
    identity: Any
    block: int
    tile: int
    overlap: int

    @property
    def patch(self) -> int:
        """Pixels along a token."""
        return int(self.network.patch[1])


@dataclass(frozen=True)
class Encoding:
    """A scene and the encoder that looks at it.

    Attributes:
        scene: the frames.
        encoder: the encoder.
        geobox: the grid of the tokens.
    """

    scene: Scene
    encoder: Encoder
    geobox: GeoBox

    @property
    def features(self) -> int:
        """Features of a token, those of all frames side by side."""
        return int(self.encoder.network.dim * self.scene.frames)

    @property
    def names(self) -> list[str]:
        """What each feature is called."""
        dim = int(self.encoder.network.dim)
        return [f"frame {t} feature {i}" for t in range(self.scene.frames) for i in range(dim)]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        height, width = self.geobox.shape
        return int(height), int(width)

    def windows(self, rows: tuple[int, int] | None = None) -> Tiles:
        """The tiles, in tokens: all, or those that touch some rows."""
        patch = self.encoder.patch
        return Tiles(self.shape, self.encoder.tile // patch, self.encoder.overlap // patch, rows=rows)

    def rows(self, shown: Shown = iter, within: tuple[int, int] | None = None) -> Iterator[tuple[int, Array]]:
        """Finished rows: the first row, and tokens (features, rows, columns), NaN where no pixel was seen.

        Args:
            shown: wraps the tiles.
            within: first row and end; all when None.
        """
        import torch

        windows = self.windows(within)
        with torch.inference_mode():
            tiles = _token_tiles(self.scene, self.encoder, shown(windows))
            for row, tokens, seen in blend(tiles, windows, channels=self.features, rows=within):
                yield row, np.where(seen, tokens, np.float32(np.nan))


def read_tokens(
    backbone: str,
    scene: str,
    *,
    weights: str = "hub",
    block: int = -1,
    tile: int = 224,
    overlap: int | None = None,
    reading: Reading = Reading(),
    say: Say = lambda line: None,
) -> Tokens:
    """The patch tokens of a scene in memory; arguments and errors as of `embed`."""
    encoder = load_encoder(backbone, weights, frames=frames_of(scene), block=block, tile=tile, overlap=overlap, say=say)
    encoding = encode(encoder, scene, reading, say)
    return Tokens(np.concatenate([tokens for _, tokens in encoding.rows()], axis=1), encoding.geobox)


def frames_of(scene: str) -> int:
    """Dates that a scene is asked to have, where no run tells."""
    return scene.count(",") + 1


def load_encoder(
    backbone: str, weights: str, *, frames: int, block: int, tile: int, overlap: int | None, say: Say
) -> Encoder:
    """Load the encoder of a backbone or a run.

    Args:
        backbone: a name of the catalogue, or a run folder, which tells the number of frames.
        weights: hub, random or a weight file.
        frames: dates of a scene.
        block: the block whose tokens are wanted; -1 is the last.
        tile: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share; half a tile, in whole patches, when None.
        say: takes what a person should know of the weights.

    Raises:
        InputError: unknown backbone or block, a tile or overlap that patches do not divide.
    """
    run = read_bundle(Path(backbone)) if (Path(backbone) / "bundle.json").is_file() else None
    frames = run.spec.imagery.times if run else frames
    network, statistics, lines = _network(backbone, weights, frames=frames, tile=tile, block=block)
    for line in lines:
        say(line)
    patch = network.patch[1]
    shared = tile // 2 // patch * patch if overlap is None else overlap
    if shared % patch or not 0 <= shared < tile:
        raise InputError(f"overlap {shared}: wanted a multiple of the patch ({patch}) below the tile ({tile})")
    published = None if run else variant(backbone)
    known = bundle_id(Path(backbone)) if run else [published and published.repo, published and published.file]
    identity = [known, fingerprint(Path(weights)) if Path(weights).is_file() else weights]
    return Encoder(backbone, network, statistics, run, identity, network.blocks[0], tile, shared)


def encode(encoder: Encoder, scene: str, reading: Reading, say: Say) -> Encoding:
    """Open a scene for an encoder.

    Raises:
        InputError: it lacks bands, frames or dates.
    """
    frames = encoder.run.spec.imagery.times if encoder.run else frames_of(scene)
    opened = _open(scene, encoder.network, encoder.run, reading, frames=frames, say=say)
    return Encoding(opened, encoder, coarser(opened.geobox, encoder.patch))


def _open(scene: str, encoder: PrithviEO, run: Bundle | None, reading: Reading, *, frames: int, say: Say) -> Scene:
    """Open the frames as the encoder wants them; tell what a person should know."""
    opened = open_told(scene.split(","), encoder.bands, reading, times=frames, like=run.data if run else None)
    if opened.frames != frames:
        raise InputError(f"{scene}: wanted {frames} frames, came {opened.frames}; join one file per date by commas")
    opened = at_size(opened, run.spec.imagery.pixel if run else None, reading.resample)
    undated = encoder.uses_time and not all(opened.dates)
    if undated and run and run.spec.imagery.uses_time:
        opened.time()  # says which frame has no date
    if undated:
        say("time encoding off: a frame has no date (--dates gives one)")
    for note in (*opened.remarks, *unit_notes(opened, as_is=reading.as_is)):
        say(f"{opened.name}: {note}")
    return opened


def _network(
    backbone: str, weights: str, *, frames: int, tile: int, block: int
) -> tuple[PrithviEO, tuple[Any, Any], list[str]]:
    """The encoder, its bands' mean and deviation (C, 1, 1, 1), and the patch-embedding report."""
    import torch

    from models.backbones import prithvi_eo
    from models.backbones.hub import locate, read_state_dict
    from models.networks.network import Network

    if (Path(backbone) / "bundle.json").is_file():
        network = load_network(Path(backbone), weights=Path(weights) if weights not in ("hub", "random") else None)
        if not isinstance(network, Network):
            raise InputError(f"{backbone}: a run over weather, wanted one over scenes or the name of a Prithvi EO")
        encoder = network.backbone
        encoder.blocks = (_block(block, len(encoder.vit.blocks)),)
        return encoder, (network.mean, network.std), []
    depth = int(prithvi_eo.config(backbone)["depth"])
    with torch.random.fork_rng():
        torch.manual_seed(0)  # what keeps random weights is the same each time
        encoder = prithvi_eo.PrithviEO(backbone, frames=frames, tile=tile, blocks=(_block(block, depth),)).eval()
    lines = []
    if weights != "random":
        published = variant(backbone)
        if weights == "hub" and (published.repo is None or published.file is None):
            raise InputError(f"{backbone}: no weights were published; give a file of them, or a run as the backbone")
        path = locate(published.repo or "", published.file or "").path if weights == "hub" else Path(weights)
        lines = prithvi_eo.load_pretrained(encoder, read_state_dict(path), source=str(path)).lines()
    pairs = prithvi_eo.pretrained_statistics(backbone)
    mean, std = (torch.tensor([pairs[b][i] for b in encoder.bands]).reshape(-1, 1, 1, 1) for i in (0, 1))
    return encoder, (mean, std), lines


def _block(block: int, depth: int) -> int:
    if not -depth <= block < depth:
        raise InputError(f"block {block}: wanted 0 to {depth - 1}, or -1 for the last")
    return block % depth


def _token_tiles(scene: Scene, encoder: Encoder, windows: Iterable[Window]) -> Iterator[Prediction]:
    """Features of each window of tokens, and which tokens saw a valid pixel."""
    import torch

    patch, tile, network = encoder.patch, encoder.tile, encoder.network
    mean, std = encoder.statistics
    for window in windows:
        pixels = enlarged(window, patch, scene.shape)
        height, width = (side.stop - side.start for side in window)
        x, valid = scene.read(pixels)
        if not valid.any():
            yield window, None, np.zeros((height, width), bool)
            continue
        x, valid = pad_tile(fill_invalid(x, valid), valid, tile)
        location = scene.location(pixels) if network.uses_location and scene.geobox.crs is not None else None
        time = scene.time() if network.uses_time and all(scene.dates) else None
        coordinates = [None if a is None else torch.from_numpy(a)[None] for a in (time, location)]
        maps = network((torch.from_numpy(x)[None] - mean) / std, *coordinates)[0][0].numpy()  # (T*E, h, w)
        seen = np.any(valid.reshape(tile // patch, patch, tile // patch, patch), axis=(1, 3))
        yield window, maps[:, :height, :width], seen[:height, :width]
