"""What a forecast or tokens start from: weights in a model, the last analysis, the climatology."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from models.backbones.rollout import STEP_HOURS
from models.backbones.wxc_files import (
    WxCConfig,
    WxCFiles,
    WxCScalers,
    local_files,
    locate_files,
    published_config,
    read_config,
)
from models.errors import InputError
from pipelines.samples.climatology import Climatology
from pipelines.weather.merra2 import Merra2

if TYPE_CHECKING:
    from models.backbones.prithvi_wxc import WxCEncoder, WxCForecaster
    from models.backbones.wxc_inputs import Batch

Time = np.datetime64
Model = TypeVar("Model", "WxCEncoder", "WxCForecaster")


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
    if start is None:
        hours = {time: int((time - time.astype("datetime64[D]")) // np.timedelta64(1, "h")) for time in times}
        found = [time for time in times if time - step in there and hours[time] % 3 == 0]
        if not found:
            raise InputError(
                f"analyses: two times {STEP_HOURS} hours apart are wanted, at 00, 03, ... 21 UTC, {held(times)}; "
                "add files"
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
        raise InputError(f"start {start}: analyses at {' and '.join(missing)} are wanted, {held(times)}; add files")
    return wanted


def held(times: Sequence[Time]) -> str:
    """Which times the files hold, in words."""
    listed = ", ".join(np.datetime_as_string(time, "m") for time in times[-8:]) or "none"
    return f"the files hold all variables at {len(times)} times{', the last ' if len(times) > 8 else ': '}{listed}"


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


def ready(
    kind: type[Model],
    config: WxCConfig,
    files: WxCFiles | None,
    batch: Batch,
    *,
    precision: str,
    device: str,
    scalers: WxCScalers | None = None,
    **inputs: Any,
) -> tuple[Model, str]:
    """A model in eval mode on its device, and that device's name.

    Args:
        kind: what is built.
        config: the architecture.
        files: the weights; None for random ones.
        batch: analyses, from which random weights take their scalers.
        precision: float32 or bfloat16.
        device: cpu, cuda or auto.
        scalers: those of random weights, where they are known.
        inputs: what else `kind` is built with.

    Raises:
        InputError: no such precision or device; see `load_pretrained`.
    """
    import torch

    from models.backbones.wxc_weights import fill_random, load_pretrained

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision not in kinds:
        raise InputError(f"precision {precision!r}: wanted one of {', '.join(kinds)}")
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device {device!r}: wanted auto, cpu, or cuda where there is one")
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    with torch.device("meta"):
        model = kind(config, scalers=None if files else scalers or own_scalers(config, batch), **inputs)
    if files:
        load_pretrained(model, files, dtype=kinds[precision])
    else:
        fill_random(model, dtype=kinds[precision])
    return model.eval().to(where), where


def own_scalers(config: WxCConfig, batch: Batch) -> WxCScalers:
    """Scalers from the analyses themselves, for random weights: values then have the size of weather."""
    import torch

    x, static = batch["x"][0].double(), batch["static"][0, -len(config.static) :].double()  # (2, C, H, W), (S, H, W)
    seen = torch.cat((x, batch["climate"].double())) if "climate" in batch else x
    mean, std = seen.mean(dim=(0, 2, 3)), seen.std(dim=(0, 2, 3)).clamp(min=1e-4)
    std = std.maximum(1e-6 * mean.abs())  # pressures of the upper levels do not vary
    flat, spread = static.mean(dim=(1, 2)), static.std(dim=(1, 2)).clamp(min=1e-4)
    change = (x[1] - x[0]).std(dim=(1, 2)).clamp(min=1e-8)
    pairs = zip((*mean.tolist(), *flat.tolist()), (*std.tolist(), *spread.tolist()), strict=True)
    names = (*config.channels, *config.static)
    return WxCScalers(dict(zip(names, pairs, strict=True)), dict(zip(config.channels, change.tolist(), strict=True)))
