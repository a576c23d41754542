"""Heads: what turns a backbone's feature maps, and the bands themselves, into classes or values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import InputError

DECODERS = ("linear", "fcn", "unet", "upernet")


class Decoder(nn.Module):
    """A terratorch decoder over the maps of a plain ViT, with the neck it needs.

    "linear" and "fcn" read the maps side by side; "unet" and "upernet" want four maps, which a learned neck turns into
    a pyramid of strides patch/4, patch/2, patch and 2*patch.
    """

    def __init__(self, name: str, *, dims: Sequence[int], patch: int, channels: int) -> None:
        """Build the decoder.

        Args:
            name: one of `DECODERS`.
            dims: channels of each map.
            patch: pixels along a token, to know how far "linear" has to enlarge.
            channels: width of the decoder and of its output.

        Raises:
            InputError: unknown name, or not four maps where a pyramid is needed.
        """
        super().__init__()
        from terratorch.models import decoders
        from terratorch.models.necks import LearnedInterpolateToPyramidal

        if name not in DECODERS:
            raise InputError(f"decoder {name!r}: wanted one of {', '.join(DECODERS)}")
        self.neck: nn.Module | None = None
        if name in ("unet", "upernet"):
            if len(dims) != 4:
                raise InputError(f"decoder {name} wants four blocks of the backbone, {len(dims)} were given")
            neck = LearnedInterpolateToPyramidal(list(dims))
            self.neck, dims = neck, neck.embedding_dim
        if name == "linear":
            size = max(patch // 4, 1)  # to a quarter of the resolution, where the detail path takes over
            self.body = decoders.LinearDecoder([sum(dims)], num_classes=channels, upsampling_size=size)
        elif name == "fcn":
            self.body = decoders.FCNDecoder([sum(dims)], channels=channels, num_convs=2)
        elif name == "unet":
            self.body = decoders.UNetDecoder(list(dims), channels=[channels * 2**i for i in (3, 2, 1, 0)])
        else:
            self.body = decoders.UperNetDecoder(list(dims), channels=channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, D_i, h, w) to features (B, channels, h', w')."""
        inputs = self.neck(list(maps)) if self.neck is not None else [torch.cat(list(maps), dim=1)]
        features: Tensor = self.body(inputs)
        return features


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with batch norm and GELU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
    )


class DetailPath(nn.Module):
    """A small U-Net over the bands at full resolution that joins the decoder's features at a quarter of it.

    A 16-pixel token alone cannot draw a field edge; the bands can.
    """

    def __init__(self, bands: int, *, joined: int, width: int, dropout: float) -> None:
        """Build the path for `bands` input channels and `joined` decoder channels."""
        super().__init__()
        self.fine = _block(bands, width)
        self.middle = _block(width, 2 * width)
        self.coarse = _block(2 * width, 4 * width)
        self.join = nn.Sequential(nn.Dropout2d(dropout), _block(4 * width + joined, 4 * width))
        self.up_middle = _block(6 * width, 2 * width)
        self.up_fine = _block(3 * width, width)

    def forward(self, bands: Tensor, features: Tensor) -> Tensor:
        """Bands (B, C, H, W) and features (B, D, h', w') to (B, width, H, W)."""
        fine = self.fine(bands)
        middle = self.middle(_shrink(fine))
        coarse = self.coarse(_shrink(middle))
        x = self.join(torch.cat((coarse, _enlarge(features, coarse)), dim=1))
        x = self.up_middle(torch.cat((middle, _enlarge(x, middle)), dim=1))
        out: Tensor = self.up_fine(torch.cat((fine, _enlarge(x, fine)), dim=1))
        return out


def _shrink(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2, ceil_mode=True)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class DenseHead(nn.Module):
    """One output per pixel: a decoder over the tokens, and beside it, if wanted, the detail path over the bands."""

    def __init__(
        self,
        *,
        bands: int,
        dims: Sequence[int],
        patch: int,
        outputs: int,
        decoder: str,
        channels: int,
        detail: int,
        dropout: float,
    ) -> None:
        """Build the head.

        Args:
            bands: input channels of all frames together (T*C).
            dims: channels of each feature map.
            patch: pixels along a token.
            outputs: classes, or 1 for values.
            decoder: one of `DECODERS`.
            channels: width of the decoder.
            detail: width of the detail path at full resolution; 0 leaves it out.
            dropout: share of features dropped while training.
        """
        super().__init__()
        self.decoder = Decoder(decoder, dims=dims, patch=patch, channels=channels)
        self.detail = DetailPath(bands, joined=channels, width=detail, dropout=dropout) if detail else None
        self.classify = nn.Conv2d(detail or channels, outputs, 1)

    def forward(self, bands: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Bands (B, T*C, H, W), normalised, and maps (B, D_i, h, w) to logits or values (B, K, H, W)."""
        features = self.decoder(maps)
        if self.detail is not None:
            features = self.detail(bands, features)
        return _enlarge(self.classify(features), bands)


class SceneHead(nn.Module):
    """One class per tile: the mean token of each map beside the bands' means and deviations."""

    def __init__(self, *, bands: int, dims: Sequence[int], outputs: int, channels: int, dropout: float) -> None:
        """Build the head; arguments as in `DenseHead`."""
        super().__init__()
        self.norm = nn.LayerNorm(sum(dims))
        self.statistics = nn.BatchNorm1d(2 * bands)
        self.mix = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(sum(dims) + 2 * bands, channels), nn.GELU(), nn.Dropout(dropout)
        )
        self.classify = nn.Linear(channels, outputs)

    def forward(self, bands: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Bands (B, T*C, H, W), normalised, and maps (B, D_i, h, w) to logits (B, K)."""
        tokens = self.norm(torch.cat([m.mean((2, 3)) for m in maps], dim=1))
        values = torch.cat((bands.mean((2, 3)), bands.std((2, 3))), dim=1)
        logits: Tensor = self.classify(self.mix(torch.cat((tokens, self.statistics(values)), dim=1)))
        return logits
