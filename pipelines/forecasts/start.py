"""What a forecast starts from: weights, region, the last analysis, the climatology at its targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.backbones.rollout import STEP_HOURS
from models.backbones.wxc_files import WxCConfig, WxCFiles, local_files, locate_files, published_config, read_config
from models.errors import InputError
from pipelines.samples.climatology import Climatology
from pipelines.weather.merra2 import Merra2

Time = np.datetime64


def find_config(backbone: str, weights: str) -> tuple[WxCConfig, WxCFiles | None]:
    """The architecture, and the files of the weights unless they are random."""
    known = published_config(backbone)
    if weights == "random":
        return known, None
    if weights == "hub":
        files = locate_files(backbone)
        return files.config, files
    path = Path(weights)
    if not path.exists():
        raise InputError(
            f"--weights {weights}: wanted hub, random, or a folder or weight file; there is none of this name"
        )
    folder = path if path.is_dir() else path.parent
    files = local_files(folder, weights=None if path.is_dir() else path)
    files = dataclasses.replace(files, config=read_config(folder / "config.yaml", known))
    return files.config, files


def last_time(times: Sequence[Time], start: str | None) -> Time:
    """The last input time: as asked for, else the newest that another precedes by a step.

    Raises:
        InputError: none does; the message says which times there are.
    """
    step, there = np.timedelta64(STEP_HOURS, "h"), set(times)
    listed = ", ".join(np.datetime_as_string(time, "m") for time in times[-8:]) or "none"
    held = f"the files hold all variables at {len(times)} times{', the last ' if len(times) > 8 else ': '}{listed}"
    if start is None:
        hours = {time: int((time - time.astype("datetime64[D]")) // np.timedelta64(1, "h")) for time in times}
        found = [time for time in times if time - step in there and hours[time] % 3 == 0]
        if not found:
            raise InputError(
                f"analyses: two times {STEP_HOURS} hours apart are wanted, at 00, 03, ... 21 UTC, {held}; add files"
            )
        return found[-1]
    try:
        wanted = np.datetime64(start.removesuffix("Z") or "nothing", "ns")
    except ValueError as error:
        raise InputError(f"start {start!r}: wanted a time such as 2020-03-30T12:00") from error
    if np.isnat(wanted):
        raise InputError(f"start {start!r}: wanted a time such as 2020-03-30T12:00")
    missing = [np.datetime_as_string(time, "m") for time in (wanted - step, wanted) if time not in there]
    if missing:
        raise InputError(f"start {start}: analyses at {' and '.join(missing)} are wanted, {held}; add files")
    return wanted


def find_climatology(
    where: str | None, weights: str, merra: Merra2, config: WxCConfig, start: Time
) -> Climatology | None:
    """The climatology as chosen; None where the model does without and none was named.

    With random weights and no choice the mean of the analyses up to the start stands in.
    """
    if where is None and weights == "random":
        times = [time for time in merra.times() if time <= start]
        mean = np.mean([merra.stack(time) for time in times], axis=0)
        return Climatology(f"mean of {len(times)} analyses", merra.lat, merra.lon, config, mean=mean)
    if where is None and config.residual != "climate":
        return None
    return Climatology.at(where or weights, merra.lat, merra.lon, config)
