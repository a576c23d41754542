"""Prithvi WxC's tokens of analyses, written as a weather file that a run over images takes beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.types import Array, Progress, Say, Source
from pipelines.records.attempts import page_of
from pipelines.records.energy import READ, TILES, Account
from pipelines.samples.sets import evenly
from pipelines.weather.regions import Region

if TYPE_CHECKING:
    from models.backbones.prithvi_wxc import WxCEncoder
    from models.backbones.wxc_files import WxCConfig, WxCFiles, WxCScalers
    from models.backbones.wxc_inputs import Batch
    from pipelines.samples.climatology import Climatology
    from pipelines.weather.merra2 import Merra2

Time = np.datetime64

SEEN, CELLS = 32, 1024  # times, and tokens of each, that tell the directions
LARGEST = 1 << 29  # numbers that a file holds: 2 GB
LITTLE = "weights random: these tokens mean little; they show that the way from analyses to a run works"
SUCH = "-100,30,-70,45"


def encode(
    backbone: str,
    analyses: list[Source],
    *,
    out: Path,
    weights: str = "hub",
    climatology: str | None = None,
    region: list[float] | None = None,
    every: float = 24,
    components: int = 16,
    like: Path | None = None,
    precision: str = "float32",
    device: str = "auto",
    account: Account = Account(),
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Write Prithvi WxC's tokens of MERRA-2 analyses as a weather file, which a run over images takes beside them.

    The encoder sees an analysis and the one 6 hours before it, nothing later, and learns nothing. Of the features of
    each patch a few numbers are kept: its principal components. A recipe names the file in data.weather.files, score in
    --weather. Other times are encoded --like the first; a file that is made otherwise bears other names of variables,
    so that no run takes one for the other.

    Args:
        backbone: prithvi_wxc_2300m, or another that `earthtune backbones` lists.
        analyses: MERRA-2 files of the surface, of the model levels and of the constants, or addresses of Zarr stores.
        out: the NetCDF file to write.
        weights: hub for the published ones, a folder laid out like their repository, a weight file in one, or random.
        climatology: hub, a folder that holds climatology/climate_surface_doy090_hour12.nc and so on, or none; default
            where the weights are, and none for random ones.
        region: west,south,east,north in degrees, such as -100,30,-70,45; default the grid of the files.
        every: hours from one time to the next, from 00 UTC of each day on: 24, 12, 8, 6 or 3.
        components: how many numbers are kept of each token.
        like: an earlier file of tokens, whose components are taken.
        precision: float32, or bfloat16 for half the memory.
        device: cpu, cuda, or auto.
        account: on whose account the energy goes, see OUT.energy.json.
        overwrite: replace an earlier file.
        progress: wraps the times to show progress.
        say: takes a line for the person who waits.

    Returns:
        file, times, tokens (rows and columns), features of each, variables, and explained: the share of what varies in
        the tokens that the components tell.

    Raises:
        InputError: files without what is needed, no time with another 6 hours before it, unknown names, a file of
            tokens that were made otherwise, more numbers than a file holds.
        RunError: the disk does not take it.
    """
    from models.backbones.wxc_files import WxCScalers
    from pipelines.forecasts.tokens import Directions, Origin, read_directions, write_tokens
    from pipelines.weather.regions import region_of

    if out.suffix != ".nc":
        raise InputError(f"--out {out}: wanted the name of a NetCDF file, such as tokens.nc")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; --overwrite replaces it")
    if any(out.resolve() == Path(file).resolve() for file in (*analyses, *filter(None, [like]))):
        raise InputError(f"--out {out}: is read, too; give another name")
    meter = account.begun("encode", say)
    earlier, kept = read_directions(like) if like else (None, None)
    place = region_of(region, such=SUCH)
    given = Analyses.open(analyses, backbone, weights=weights, climatology=climatology, region=place, every=every)
    lat, lon = given.places()
    given.check_size(len(kept.shares) if kept else components, len(lat) * len(lon))
    origin = Origin(backbone, given.hashed(), given.climate is not None, earlier.scalers if earlier else WxCScalers({}))
    if earlier and like:
        origin.check(earlier, like)
    encoder, where = given.encoder(earlier.scalers if earlier else None, precision=precision, device=device)
    origin = dataclasses.replace(origin, scalers=encoder.scalers)
    if kept and kept.axes.shape[0] != encoder.dim:
        raise InputError(
            f"--like {like}: of {kept.axes.shape[0]} features, the encoder has {encoder.dim}; copy it again"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    meter.lap(READ)
    kept = kept or Directions.of(given.some(encoder, where), components)
    shown = progress(given.times, "encode") if progress else given.times
    fields = np.stack([kept.along(given.tokens(encoder, where, time)) for time in shown])  # (T, K, h, w)
    meter.made(samples=len(fields))
    meter.lap(TILES)
    names = write_tokens(out, origin, kept, fields, times=given.times, lat=lat, lon=lon)
    meter.close(page_of(out))
    if weights == "random":
        say(LITTLE)
    times = [f"{np.datetime_as_string(time, 'm')}Z" for time in given.times]
    told = {"file": str(out), "times": times, "tokens": [len(lat), len(lon)], "features": encoder.dim}
    return told | {"variables": names, "explained": float(kept.shares.sum())}


@dataclass(frozen=True)
class Analyses:
    """What is encoded.

    Attributes:
        merra: the fields.
        config: the architecture of the encoder.
        files: its weights; None for random ones.
        climate: the climatology that it is given, if any.
        times: at which, each with another 6 hours before it.
    """

    merra: Merra2
    config: WxCConfig
    files: WxCFiles | None
    climate: Climatology | None
    times: tuple[Time, ...]

    @classmethod
    def open(
        cls,
        files: Sequence[Source],
        backbone: str,
        *,
        weights: str,
        climatology: str | None,
        region: Region | None,
        every: float,
    ) -> Analyses:
        """Open files and find the weights; what is missing is told before any work.

        Raises:
            InputError: see `encode`.
        """
        from pipelines.forecasts.start import find_climatology, find_config
        from pipelines.weather.merra2 import open_merra2
        from pipelines.weather.regions import geobox

        config, found = find_config(backbone, weights)
        merra = open_merra2(files, config.channels, static=config.static, region=region)
        geobox(merra.grid, name="analyses")
        times, climate = chosen(merra.times(), every), None
        if climatology != "none" and (climatology or found):
            climate = find_climatology(climatology, weights, merra, config, times[-1])
        if climate:
            climate.check(times)
        return cls(merra, dataclasses.replace(config, decoder_blocks=0), found, climate, times)

    def batch(self, time: Time) -> Batch:
        """What the encoder sees for a time."""
        from models.backbones.rollout import STEP_HOURS

        before = time - np.timedelta64(STEP_HOURS, "h")
        return self.merra.batch((before, time), lead=0, climate=self.climate.read(time) if self.climate else None)

    def encoder(self, scalers: WxCScalers | None, *, precision: str, device: str) -> tuple[WxCEncoder, str]:
        """The encoder and its device, see `start.ready`."""
        from models.backbones.prithvi_wxc import WxCEncoder
        from pipelines.forecasts.start import ready

        asked: dict[str, Any] = {"precision": precision, "device": device, "climatology": self.climate is not None}
        return ready(WxCEncoder, self.config, self.files, self.batch(self.times[0]), scalers=scalers, **asked)

    def hashed(self) -> str:
        """The sha256 of the weights, or "random"."""
        from models.runtime.hashes import sha256

        return sha256(self.files.weights) if self.files else "random"

    def tokens(self, encoder: WxCEncoder, where: str, time: Time) -> Array:
        """The tokens of a time (E, h, w), rows from north to south."""
        import torch

        batch = {key: value.to(where) for key, value in self.batch(time).items()}
        with torch.inference_mode():
            found: Array = encoder(batch)[-1][0].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError(f"tokens at {np.datetime_as_string(time, 'm')} are not finite; take --precision float32")
        return found

    def some(self, encoder: WxCEncoder, where: str) -> Array:
        """Tokens of some times and places, evenly chosen: (N, E)."""
        rows = []
        for i in evenly(len(self.times), SEEN):
            flat = self.tokens(encoder, where, self.times[i]).reshape(encoder.dim, -1).T
            rows.append(flat[evenly(len(flat), CELLS)])
        return np.concatenate(rows)

    def places(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latitudes, falling, and longitudes of the middle of each patch; patches are counted from the south-west."""
        patch, (north, *_, south), lon = self.config.patch, self.merra.lat, self.merra.lon
        sizes = len(self.merra.lat), len(lon)
        down, right = ((north - south) / (sizes[0] - 1), (lon[-1] - lon[0]) / (sizes[1] - 1))
        rows, columns = (patch * np.arange(-(-size // patch)) + (patch - 1) / 2 for size in sizes)
        return (south + rows * down)[::-1], lon[0] + columns * right

    def check_size(self, components: int, tokens: int) -> None:
        """Refuse what no file holds.

        Raises:
            InputError: it is more.
        """
        if len(self.times) * components * tokens > LARGEST:
            raise InputError(
                f"{len(self.times)} times of {tokens} tokens, {components} numbers each, are more than a file holds; "
                "take a --region, fewer files, or fewer --components"
            )


def chosen(times: Sequence[Time], every: float) -> tuple[Time, ...]:
    """The times at so many hours from each other whose forerunner is there, too.

    Raises:
        InputError: hours that do not divide a day, or no such time.
    """
    from models.backbones.rollout import STEP_HOURS
    from pipelines.forecasts.start import held

    if every not in (3, 6, 8, 12, 24):
        raise InputError(f"every {every:g}: wanted 24, 12, 8, 6 or 3 hours")
    before, hour, there = np.timedelta64(STEP_HOURS, "h"), np.timedelta64(1, "h"), set(times)
    found = [t for t in times if t - before in there and not (t - t.astype("datetime64[D]")) / hour % every]
    if not found:
        raise InputError(
            f"analyses: times every {every:g} hours from 00 UTC on are wanted, each with another {STEP_HOURS} hours "
            f"before it; {held(times)}; add files, or take a smaller --every"
        )
    return tuple(found)
