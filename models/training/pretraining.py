"""Masked autoencoding as Prithvi was pretrained: most patches are hidden and asked for, from those that are left.

He et al. 2022, Masked autoencoders are scalable vision learners, arXiv:2111.06377; with frames, time and location as
Szwarcman et al. 2024, Prithvi-EO-2.0, arXiv:2412.02732. Here pixels without data are neither seen nor asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import Dataset

from models.backbones.patches import patchify, token_grid, unpatchify
from models.backbones.prithvi_eo import PrithviEO, config, encodings, pretrained_statistics
from models.errors import InputError
from models.runtime import silence as silence  # before terratorch is imported
from models.spec import IMAGERY
from models.training.processes import share

Batch = Mapping[str, Tensor]


def seen_tokens(live: Tensor, noise: Tensor, mask: float) -> Tensor:
    """Which tokens the encoder sees.

    Args:
        live: (B, N), True where a token holds a valid pixel.
        noise: (B, N), random.
        mask: share of a sample's live tokens that is hidden.

    Returns:
        (B, N), True for int(n * (1 - mask)) of the n live tokens of a sample: those of the least noise.
    """
    rank = noise.masked_fill(~live, torch.inf).argsort(dim=1).argsort(dim=1)
    count = (live.sum(dim=1).double() * (1 - mask)).long()  # (B,)
    return rank < count[:, None]


def masked_error(told: Tensor, truth: Tensor, asked: Tensor) -> Tensor:
    """Mean squared error over the values that are asked for, 0 where none is.

    Each value weighs alike. Where all pixels are valid this is the published loss: the mean over hidden patches of the
    mean over a patch.

    Args:
        told: (B, N, V).
        truth: (B, N, V).
        asked: (B, N, V), True for valid values of hidden tokens.
    """
    error = torch.where(asked, told - truth, 0.0)
    return error.square().sum() / share(asked.sum()).clamp(min=1)


class MaskedAutoencoder(nn.Module):
    """A Prithvi EO encoder with the decoder of its pretraining, over physical units.

    A batch holds `imagery` (B, C, T, H, W) in reflectance x10000, of any value where not valid; `y` (B, H, W), True
    where valid; `noise` (B, N), which picks what is hidden; and `time` (B, T, 2) and `location` (B, 2) or neither.

    Attributes:
        backbone: the encoder.
        decoder: terratorch's `MAEDecoder`, whose `state_dict` keys are those of the published files.
        mask: share of the tokens that is hidden.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        frames: int,
        tile: int,
        mask: float = 0.75,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        """Build with random weights.

        Args:
            name: the backbone, of the catalogue.
            frames: dated frames per sample.
            tile: side of a sample in pixels, a multiple of the patch.
            mask: share of the tokens that is hidden.
            overrides: configuration fields to change, such as {"depth": 2}.

        Raises:
            InputError: names or sizes that do not exist or do not fit each other.
        """
        super().__init__()
        from terratorch.models.backbones.prithvi_mae import MAEDecoder

        fields, self.mask = config(name, **(overrides or {})), mask
        width, heads = fields["decoder_embed_dim"], fields["decoder_num_heads"]
        if width % 16 or width % heads:
            wanted = "a multiple of 16 and of the heads"
            raise InputError(f"backbone field decoder_embed_dim {width} with {heads} heads: wanted {wanted}")
        self.backbone = PrithviEO(name, frames=frames, tile=tile, overrides=overrides)
        self.decoder = MAEDecoder(
            patch_size=self.backbone.patch,
            grid_size=self.backbone.vit.patch_embed.grid_size,
            in_chans=len(self.backbone.bands),
            encoder_embed_dim=fields["embed_dim"],
            decoder_embed_dim=width,
            depth=fields["decoder_depth"],
            num_heads=heads,
            mlp_ratio=fields["mlp_ratio"],
            coords_encoding=fields["coords_encoding"],
            coords_scale_learn=fields["coords_scale_learn"],
        )
        known = pretrained_statistics(name)
        for i, statistic in enumerate(("mean", "std")):
            values = torch.tensor([known[band][i] for band in self.backbone.bands]).reshape(-1, 1, 1, 1)
            self.register_buffer(statistic, values, persistent=False)

    def freeze_unused(self, *, time: bool, location: bool) -> None:
        """Freeze the encodings that no sample brings coordinates for."""
        self.backbone.freeze_unused(time=time, location=location)
        if self.decoder.temporal_encoding and not time:
            self.decoder.temporal_embed_dec.requires_grad_(False)
        if self.decoder.location_encoding and not location:
            self.decoder.location_embed_dec.requires_grad_(False)

    def published(self) -> dict[str, Tensor]:
        """The weights by the names that they have in the published files of Prithvi EO 2.0."""
        parts = {"encoder": self.backbone.vit, "decoder": self.decoder}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}

    def load_decoder(self, state: Mapping[str, Tensor]) -> bool:
        """Take the decoder of a published file, if it holds this one whole; whether it does.

        Position embeddings are the model's own: they are a fixed function of the grid.
        """
        found = {key.rpartition("decoder.")[2]: value for key, value in state.items()}
        own = {key: value for key, value in self.decoder.state_dict().items() if key != "decoder_pos_embed"}
        if any(key not in found or found[key].shape != value.shape for key, value in own.items()):
            return False
        self.decoder.load_state_dict({key: found[key] for key in own}, strict=False)
        return True

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What hidden patches hold, in standard deviations from the mean, and which tokens were seen.

        Returns:
            (B, N, pt * ph * pw * C), a value for each of all tokens in the published order: channels last; and (B, N),
            True where a token was seen.
        """
        x, valid = batch[IMAGERY], batch["y"]
        x = torch.where(valid[:, None, None], (x - self.mean) / self.std, 0.0)  # (B, C, T, H, W)
        live = self._values(valid[:, None, None].expand(-1, 1, x.shape[2], -1, -1)).any(dim=-1)  # (B, N)
        seen = seen_tokens(live, batch["noise"], self.mask)
        coordinates = batch.get("time"), batch.get("location")
        tokens = self.backbone.embedded(x, *coordinates)  # (B, 1+N, E)
        most = int(seen.sum(dim=1).max())
        order = seen.byte().argsort(dim=1, descending=True, stable=True)[:, :most]  # (B, K): the seen ones first
        return self._decode(self._encode(tokens, seen, order), x.shape, live, seen, order, coordinates), seen

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error, in variances of the bands, of what was hidden and is valid."""
        told, seen = self(batch)
        return masked_error(told.float(), self._truth(batch), self._asked(batch, seen))

    def reconstructed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Samples with what was hidden as the model tells it, and the pixels that were hidden.

        Returns:
            (B, C, T, H, W) reflectance x10000, what was seen as it is; and (B, T, H, W), True where hidden and valid.
        """
        told, seen = self(batch)
        x = batch[IMAGERY]
        grid = token_grid(x.shape[2], x.shape[3], x.shape[4], self.backbone.patch)
        images = unpatchify(_channels_first(told.float(), x.shape[1]), self.backbone.patch, grid)
        asked = unpatchify(_channels_first(self._asked(batch, seen), x.shape[1]), self.backbone.patch, grid)
        return torch.where(asked, images * self.std + self.mean, x), asked[:, 0]

    def _encode(self, tokens: Tensor, seen: Tensor, order: Tensor) -> Tensor:
        """The encoder over the class token and the seen ones, (B, 1+K, E); samples that see fewer are filled up."""
        kept = tokens[:, 1:].gather(1, order[..., None].expand(-1, -1, tokens.shape[-1]))  # (B, K, E)
        x = torch.cat((tokens[:, :1], kept), dim=1)
        attention = _attention(seen.gather(1, order))
        for block in self.backbone.vit.blocks:
            x = self.backbone.through(block, x, attn_mask=attention)
        out: Tensor = self.backbone.vit.norm(x)
        return out

    def _decode(
        self,
        latent: Tensor,
        shape: torch.Size,
        live: Tensor,
        seen: Tensor,
        order: Tensor,
        coordinates: tuple[Tensor | None, Tensor | None],
    ) -> Tensor:
        """The values of all tokens, (B, N, V), from what the encoder saw."""
        decoder = self.decoder
        latent = decoder.decoder_embed(latent)  # (B, 1+K, D)
        hidden = decoder.mask_token.to(latent.dtype).expand(*seen.shape, -1)  # (B, N, D)
        index = order[..., None].expand(-1, -1, latent.shape[-1])
        placed = torch.zeros_like(hidden).scatter(1, index, latent[:, 1:])
        tokens = torch.where(seen[..., None], placed, hidden)
        position = decoder.interpolate_pos_encoding(shape[-3:])  # (1, 1+N, D)
        tokens = tokens + position[:, 1:]
        clock = decoder.temporal_embed_dec if decoder.temporal_encoding else None
        place = decoder.location_embed_dec if decoder.location_encoding else None
        per_frame = seen.shape[1] // shape[2]
        tokens = tokens + encodings(clock, place, *coordinates, per_frame=per_frame, like=tokens)
        x = torch.cat((latent[:, :1] + position[:, :1], tokens), dim=1)
        attention = _attention(live)
        for block in decoder.decoder_blocks:
            x = self.backbone.through(block, x, attn_mask=attention)
        out: Tensor = decoder.decoder_pred(decoder.decoder_norm(x))[:, 1:]
        return out

    def _values(self, x: Tensor) -> Tensor:
        """The values of each token in the published order, (B, N, pt * ph * pw * C), of (B, C, T, H, W)."""
        tokens = patchify(x, self.backbone.patch)  # channels first
        return tokens.reshape(*tokens.shape[:2], x.shape[1], -1).transpose(-1, -2).flatten(-2)

    def _truth(self, batch: Batch) -> Tensor:
        """What the tokens hold, (B, N, V), in standard deviations from the mean."""
        return self._values((batch[IMAGERY] - self.mean) / self.std)

    def _asked(self, batch: Batch, seen: Tensor) -> Tensor:
        """Which values are asked for, (B, N, V): valid ones of hidden tokens."""
        valid = batch["y"][:, None, None].expand_as(batch[IMAGERY])
        return self._values(valid) & ~seen[..., None]


def _channels_first(values: Tensor, channels: int) -> Tensor:
    """Values of tokens in the published order as `unpatchify` takes them."""
    return values.reshape(*values.shape[:2], -1, channels).transpose(-1, -2).flatten(-2)


def _attention(real: Tensor) -> Tensor | None:
    """Which tokens may be looked at, (B, 1, 1, 1+K), the class token among them; None where all may."""
    if bool(real.all()):
        return None
    first = torch.ones_like(real[:, :1])
    return torch.cat((first, real), dim=1)[:, None, None]


class Reconstruction(nn.Module):
    """What continued pretraining makes small; see `objectives.Labelled`.

    Attributes:
        monitor: the validation score that is watched, and "min".
        scores: RMSE of what was hidden, in reflectance x10000.
    """

    monitor = ("val_loss", "min")
    weight = 1.0

    def __init__(self, network: MaskedAutoencoder) -> None:
        """Make the objective of a network."""
        super().__init__()
        self.network = [network]  # not a part of this module
        self.scores = torchmetrics.MetricCollection({"rmse": torchmetrics.MeanSquaredError(squared=False)})

    def begin(self, items: Dataset[Any], *, seed: int) -> str:
        """Nothing learns apart."""
        return ""

    def loss(self, batch: Batch) -> Tensor:
        """See `MaskedAutoencoder.loss`."""
        return self.network[0].loss(batch)

    def validate(self, batch: Batch) -> Tensor:
        """The loss; the error in reflectance is added to the scores."""
        network = self.network[0]
        images, hidden = network.reconstructed(batch)
        hidden = hidden[:, None].expand_as(images)
        if hidden.any():
            self.scores.update(images[hidden], batch[IMAGERY][hidden])
        return network.loss(batch)
