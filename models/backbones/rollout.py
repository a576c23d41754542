"""Prithvi WxC rolled forward: each forecast becomes the last input of the next step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from models.backbones.prithvi_wxc import WxCForecaster
from models.backbones.wxc_inputs import Batch, advance
from models.errors import RunError

STEP_HOURS = 6  # what the rollout weights were tuned for, inputs and lead alike

Climate = Callable[[np.datetime64], Tensor | None]


def rollout(model: WxCForecaster, batch: Batch, *, start: np.datetime64, climate: Climate) -> Iterator[Tensor]:
    """Forecast step after step, without end; the caller stops.

    Args:
        model: on the device that computes, in eval mode.
        batch: two times 6 h apart and a lead of 6 h, on the model's device; left as it is.
        start: time of the last input, in UTC.
        climate: the climatology (B, C, H, W) at a time, None for models without; asked for each target time.

    Yields:
        (B, C, H, W) in physical units, float32, at start + 6 h, start + 12 h, ...

    Raises:
        InputError: the batch is not one that the model takes, or its lead is not the distance of its inputs.
        RunError: a forecast is not finite.
    """
    device, step = batch["x"].device, np.timedelta64(STEP_HOURS, "h")
    target = start + step
    batch = batch | _on(device, climate(target))
    while True:
        with torch.inference_mode():
            forecast = model(batch)
        if not forecast.isfinite().all():
            when = np.datetime_as_string(target, "m")
            raise RunError(f"forecast for {when}: values are not finite; take float32, or look at the analyses")
        yield forecast
        following = target + step
        batch = advance(batch, forecast, time=target) | _on(device, climate(following))
        target = following


def _on(device: torch.device, climate: Tensor | None) -> Batch:
    """The climatology's entry of a batch."""
    return {} if climate is None else {"climate": climate.to(device)}
