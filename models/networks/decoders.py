"""Heads: what turns a backbone's feature maps, and the bands themselves, into classes or values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import InputError
from models.networks.detail import BandFeatures, DetailPath, FirstLayers, SceneStatistics, StatisticsVote, enlarge
from models.runtime import silence as silence  # before terratorch is imported
from models.spec import Spec
from models.training.settings import Architecture

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
            size = max(patch // 8, 1)  # to an eighth of the resolution, where the detail path takes over
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


class DenseHead(nn.Module):
    """One output per pixel and member: what tokens say, with the detail path if wanted, and what statistics say."""

    def __init__(self, spec: Spec, architecture: Architecture, *, dims: Sequence[int]) -> None:
        """Build the head for maps of `dims` channels each."""
        super().__init__()
        channels, detail, outputs = architecture.channels, architecture.detail, spec.answer.channels
        self.decoder = Decoder(architecture.decoder, dims=dims, patch=spec.imagery.patch, channels=channels)
        self.classify = nn.Identity() if detail else nn.Conv2d(channels, outputs, 1)
        self.features = BandFeatures(spec.imagery) if detail or architecture.statistics else None
        self.first = FirstLayers()
        count, drop = (self.features.channels if self.features else 0), architecture.dropout
        shape: dict[str, Any] = {"joined": channels, "outputs": outputs, "width": detail, "pixel": architecture.pixel}
        self.detail = DetailPath(count, **shape, dropout=drop) if detail else None
        self.statistics = (
            StatisticsVote(count, outputs, width=architecture.statistics, dropout=drop)
            if architecture.statistics
            else None
        )

    def forward(self, bands: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Bands (B, C*T, H, W), normalised, and maps (B, D_i, h, w) to logits or values (M, B, K, H, W).

        While it is trained, the member of statistics, which is not, is left out.
        """
        tokens = self.decoder(maps)
        first = iter([] if self.training or self.features is None else self._first(self.features, bands))
        if self.detail is None:
            voices = [enlarge(self.classify(tokens), bands)]
        elif self.training:
            voices = [self.detail(cast("BandFeatures", self.features)(bands), tokens)]
        else:
            voices = [self.detail.rest(next(first), tokens)]
        if self.statistics is not None and not self.training:
            voices.append(self.statistics.rest(next(first)))
        return torch.stack([voice.float() for voice in voices])

    def _first(self, features: BandFeatures, bands: Tensor) -> list[Tensor]:
        """What the first layers of the detail path and of the vote give, in this order, where there are any."""
        x, folded = self.first(*features.parts(bands), [part.first for part in (self.detail, self.statistics) if part])
        x = x.contiguous(memory_format=torch.channels_last)
        hidden = [functional.conv2d(x, weight) for weight, _ in folded]
        return [h + bias.to(h.dtype) for h, (_, bias) in zip(hidden, folded, strict=True)]


class SceneHead(nn.Module):
    """One class per tile and member: by each map's mean token and statistics of the bands, and by the statistics alone.

    The first is trained in batches, and in it both vote apart. The second is a logistic regression, solved at once
    (`training.statistics`); while the first is trained it is left out.
    """

    def __init__(self, spec: Spec, architecture: Architecture, *, dims: Sequence[int]) -> None:
        """Build the head for maps of `dims` channels each."""
        super().__init__()
        channels, outputs = architecture.channels, spec.answer.channels
        self.statistics = SceneStatistics(spec.imagery)
        known = self.statistics.channels
        self.vote = nn.Sequential(nn.Dropout(architecture.dropout), nn.Linear(known, outputs))
        self.tokens = nn.Sequential(nn.LayerNorm(sum(dims)), nn.Linear(sum(dims), channels), nn.GELU())
        self.token_vote = nn.Sequential(nn.Dropout(architecture.dropout), nn.Linear(channels, outputs))
        self.logistic = nn.Linear(known, outputs).requires_grad_(False)

    def forward(self, bands: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Bands (B, C*T, H, W), normalised, and maps (B, D_i, h, w) to logits (M, B, K)."""
        tokens, statistics = self.tokens(torch.cat([m.mean((2, 3)) for m in maps], dim=1)), self.statistics(bands)
        voices = [self.vote(statistics) + self.token_vote(tokens)]
        if not self.training:
            voices.append(self.logistic(statistics))
        return torch.stack([voice.float() for voice in voices])
