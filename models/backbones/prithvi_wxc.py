"""Prithvi WxC, whole or encoder only, run without masking; any grid, and channels by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.wxc_canvas import from_units, to_units
from models.backbones.wxc_files import WxCConfig, WxCScalers
from models.backbones.wxc_inputs import Batch
from models.backbones.wxc_network import WxCInputs, WxCNetwork
from models.errors import InputError


class WxCEncoder(WxCNetwork):
    """The encoder of Prithvi WxC over the pretrained channels or any others.

    Attributes:
        net: PrithviWxC's network without decoder, whose `state_dict` keys are those of the published files.
        config: the architecture.
        inputs: channels, static fields and times that it takes.
        blocks: indices of the transformers whose tokens come out.
    """

    def __init__(
        self,
        config: WxCConfig | None = None,
        *,
        channels: Sequence[str] | None = None,
        static: Sequence[str] | None = None,
        times: int | None = None,
        climatology: bool | None = None,
        scalers: WxCScalers | None = None,
        blocks: Sequence[int] | None = None,
        recompute: bool = False,
    ) -> None:
        """Build the encoder with random weights, or without memory for them under `torch.device("meta")`.

        Args:
            config: the architecture; that of 2300M when None.
            channels: input channels, by any names; the pretrained ones when None, as for the next three.
            static: static fields.
            times: time steps.
            climatology: whether a climatology of the channels comes with them.
            scalers: means and deviations of channels and static fields. Where none are given they are 0 and 1 until
                `load_pretrained` takes those of the file.
            blocks: which transformers' tokens to return; the last one's when None.
            recompute: save memory while training: forget activations and compute them again.

        Raises:
            InputError: a block that is not there.
        """
        config = config or WxCConfig()
        known = WxCInputs.pretrained(config)
        inputs = WxCInputs(
            known.channels if channels is None else tuple(channels),
            known.static if static is None else tuple(static),
            times or known.times,
            known.climatology if climatology is None else climatology,
        )
        super().__init__(config, inputs, scalers, decoder=False, recompute=recompute)
        depth = 2 * config.encoder_blocks + 1
        self.blocks = tuple(blocks) if blocks is not None else (depth - 1,)
        if not self.blocks or not all(0 <= i < depth for i in self.blocks):
            raise InputError(f"blocks {list(self.blocks)}: the encoder has blocks 0..{depth - 1}")

    def forward(self, batch: Batch) -> list[Tensor]:
        """Return the feature maps of the chosen transformers.

        Args:
            batch: as `wxc_inputs.make_batch` builds it; rows in either direction, any height and width. What mask
                units do not divide is padded and masked inside (see `Canvas`).

        Returns:
            One map per block, (B, E, ceil(H/patch), ceil(W/patch)), rows in the batch's direction. Where the height is
            odd, patches count from the south; `canvas(batch).crop` cuts pixels made from them.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        canvas = self.canvas(batch)
        units = to_units(self.embed(batch, canvas), self.unit)
        shifting = self.config.encoder_shifting
        _, maps = self._through(self.net.encoder, units, canvas, shifting=shifting, keep=self.blocks)
        return [canvas.take_patches(maps[i]) for i in self.blocks]


class WxCForecaster(WxCNetwork):
    """The whole Prithvi WxC.

    Attributes:
        net: PrithviWxC's network, whose `state_dict` keys are those of the published files.
        config: the architecture.
        inputs: channels, static fields and times that it takes; it returns the same channels.
    """

    def __init__(
        self, config: WxCConfig | None = None, *, scalers: WxCScalers | None = None, recompute: bool = False
    ) -> None:
        """Build the model with random weights, or without memory for them under `torch.device("meta")`.

        Args:
            config: the architecture; that of 2300M when None.
            scalers: of channels, static fields and anomalies. Where none are given means are 0 and deviations 1 until
                `load_pretrained` takes those of the file.
            recompute: save memory while training: forget activations and compute them again.

        Raises:
            InputError: an architecture without decoder.
        """
        config = config or WxCConfig()
        if not config.decoder_blocks:
            raise InputError("decoder_blocks 0: a forecast wants a decoder; WxCEncoder does without")
        super().__init__(config, WxCInputs.pretrained(config), scalers, decoder=True, recompute=recompute)

    def forward(self, batch: Batch) -> Tensor:
        """Forecast the channels at the target time.

        The network's output times the deviation of anomalies is added to the climatology (residual "climate"), to the
        last input ("temporal"; to the first at lead 0) or to the mean ("none"), as in the published code.

        Args:
            batch: as `wxc_inputs.make_batch` builds it; rows in either direction, any height and width. What mask
                units do not divide is padded and masked inside (see `Canvas`).

        Returns:
            (B, C, H, W) in physical units, float32, rows in the batch's direction. `wxc_inputs.advance` makes the next
            step's batch of it.

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        canvas, config = self.canvas(batch), self.config
        units = to_units(self.embed(batch, canvas), self.unit)
        units, _ = self._through(self.net.encoder, units, canvas, shifting=config.encoder_shifting)
        units, _ = self._through(self.net.decoder, units, canvas, shifting=config.decoder_shifting)
        patches = from_units(self.net.unembed(units), self.unit, canvas.grid)  # (B, C*patch*patch, h, w)
        pixels = canvas.take(F.pixel_shuffle(patches, config.patch)).float()  # (B, C, H, W)
        forecast: Tensor = self.net.output_scalers * pixels + self._start(batch)
        return forecast

    def _start(self, batch: Batch) -> Tensor:
        """What the scaled output is added to."""
        if self.config.residual == "climate":
            return batch["climate"].float()
        if self.config.residual == "temporal":
            ahead = (batch["lead_time"] > 0).reshape(-1, 1, 1, 1)
            return torch.where(ahead, batch["x"][:, -1], batch["x"][:, 0]).float()
        mean: Tensor = self.net.input_scalers_mu[:, 0]
        return mean
