"""What is there at full resolution beside the tokens: bands, indices and neighbourhoods, and who votes by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.indices import INDICES, PERCENTILES, SIDES, TEXTURES
from models.spec import Pixels


class BandsAndIndices(nn.Module):
    """Bands of all frames, and the indices that they give."""

    mean: Tensor
    std: Tensor

    def __init__(self, imagery: Pixels) -> None:
        """Build for bands and frames."""
        super().__init__()
        count = len(imagery.channels)
        pairs = [
            (imagery.channels.index(a), imagery.channels.index(b))
            for a, b in INDICES.values()
            if {a, b} <= set(imagery.channels)
        ]
        # Channels come as (C, T) flattened: channel c of frame t is c * T + t.
        self.pairs = [(a * imagery.times + t, b * imagery.times + t) for a, b in pairs for t in range(imagery.times)]
        shape = (1, count * imagery.times, 1, 1)
        self.register_buffer("mean", torch.tensor(imagery.mean).repeat_interleave(imagery.times).reshape(shape), False)
        self.register_buffer("std", torch.tensor(imagery.std).repeat_interleave(imagery.times).reshape(shape), False)
        self.channels = count * imagery.times + len(self.pairs)

    def forward(self, bands: Tensor) -> Tensor:
        """Normalised bands (B, C*T, H, W) to these and their indices (B, channels, H, W), float32."""
        bands = bands.float()
        if not self.pairs:
            return bands
        reflectance = (bands * self.std + self.mean).clamp(min=0) / 1e4
        first, second = (reflectance[:, [pair[i] for pair in self.pairs]] for i in (0, 1))
        # The constant keeps the index of two dark bands from being noise.
        return torch.cat((bands, 2 * (first - second) / (first + second + 0.02)), dim=1)


class BandFeatures(nn.Module):
    """What a pixel's bands say beside their values: indices, mean and spread of its neighbourhoods and its tile.

    Local spread tells a town from bare fields, and the tile's own mean tells a dark scene from dark land: what a small
    network over single scenes does not learn from a few hundred of them. Neighbourhoods of several sizes are what a
    classifier of statistics needs to hold its own at places that nobody trained on.
    """

    def __init__(self, imagery: Pixels, *, noise: float = 0.3) -> None:
        """Build for bands and frames; `noise` is added to the tile's statistics while training."""
        super().__init__()
        self.noise, self.values = noise, BandsAndIndices(imagery)
        self.channels = (3 + 2 * len(SIDES)) * self.values.channels

    def forward(self, bands: Tensor) -> Tensor:
        """Normalised bands (B, C*T, H, W) to features (B, channels, H, W)."""
        maps, tile = self.parts(bands)
        return torch.cat((*maps, tile.expand(-1, -1, *bands.shape[2:])), dim=1)

    def parts(self, bands: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features as they come: maps (B, values, H, W) and, at the end, what is the tile's (B, T, 1, 1)."""
        with torch.autocast(bands.device.type, enabled=False):  # differences of squares want float32
            values = self.values(bands)
            tile = torch.cat((values.mean((2, 3), keepdim=True), values.std((2, 3), keepdim=True)), dim=1)
            if self.training:
                tile = tile + self.noise * torch.randn_like(tile)
            return [values, *(moment for near in _moments(values) for moment in near)], tile


class SceneStatistics(nn.Module):
    """What bands and indices say of a whole tile: mean, spread and percentiles, and how much they spread locally.

    Told in standard deviations about the mean of the training samples, once `standardise` was given these.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, imagery: Pixels) -> None:
        """Build for bands and frames."""
        super().__init__()
        self.values = BandsAndIndices(imagery)
        self.channels = (2 + len(PERCENTILES) + 2 * len(TEXTURES)) * self.values.channels
        self.register_buffer("centre", torch.zeros(self.channels))
        self.register_buffer("scale", torch.ones(self.channels))

    def forward(self, bands: Tensor) -> Tensor:
        """Normalised bands (B, C*T, H, W) to statistics (B, channels)."""
        with torch.autocast(bands.device.type, enabled=False):
            return (self.plain(bands) - self.centre) / self.scale

    def plain(self, bands: Tensor) -> Tensor:
        """The statistics as they are, (B, channels)."""
        values = self.values(bands)
        near = dict(zip(SIDES, _moments(values), strict=True))
        maps = [values, *(near[side][1] for side in TEXTURES)]
        parts = [part for m in maps for part in (m.mean((2, 3)), m.std((2, 3)))]
        return torch.cat((*parts, *_percentiles(values)), 1)

    def standardise(self, plain: Tensor) -> None:
        """Tell statistics about those of some samples (N, channels) from now on."""
        self.centre.copy_(plain.mean(0))
        self.scale.copy_(plain.std(0, unbiased=False).clamp(min=1e-6))


def _percentiles(x: Tensor) -> list[Tensor]:
    """The `PERCENTILES` of each map (B, C, H, W), each (B, C), between values as numpy has them."""
    ranked = x.flatten(2).sort(dim=2).values
    last, found = ranked.shape[2] - 1, []
    for percent in PERCENTILES:
        below, rest = divmod(percent * last, 100)
        above = min(below + 1, last)
        found.append(ranked[..., below] + (rest / 100) * (ranked[..., above] - ranked[..., below]))
    return found


def _moments(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation over the SIDES, each as x (B, C, H, W)."""
    edge = SIDES[-1] // 2
    x = functional.pad(x, (edge, edge, edge, edge), mode="replicate").contiguous(memory_format=torch.channels_last)
    pairs = zip(_means(x), _means(x * x), strict=True)
    return [(mean, ((square - mean**2).clamp(min=0) + 1e-5).sqrt()) for mean, square in pairs]


def _means(x: Tensor) -> list[Tensor]:
    """Means over squares of 3, 9, 21 and 41 pixels, of x with 20 pixels more at each side.

    They are made of one another, which takes a third of the products: 9 = 3 x 3, 21 = 3 x 7, 41 = 21 + 21 - 1.
    """
    down = _mean(x, 3, 2)
    near = _mean(down, 3, 3)
    nine = _mean(_mean(_inner(near, 16), 3, 2, step=3), 3, 3, step=3)
    down = _mean(down, 7, 2, step=3)
    some = _mean(_mean(_inner(down, 10), 3, 3), 7, 3, step=3)
    down = _twice(down, x, 2)
    return [_inner(near, 19), nine, some, _twice(_mean(_mean(down, 3, 3), 7, 3, step=3), down, 3)]


def _mean(x: Tensor, count: int, axis: int, *, step: int = 1) -> Tensor:
    """Mean of `count` pixels that are `step` apart along an axis, where all of them are there."""
    down = axis == 2
    kernel = x.new_full((x.shape[1], 1, count, 1) if down else (x.shape[1], 1, 1, count), 1 / count)
    return functional.conv2d(x, kernel, groups=x.shape[1], dilation=(step, 1) if down else (1, step))


def _twice(mean: Tensor, x: Tensor, axis: int) -> Tensor:
    """Mean of 41 pixels along an axis by the means of 21 and the pixels themselves: those of two share one pixel."""
    return (42 * _mean(mean, 2, axis, step=20) - _inner(x, 20, axis)) / 41


def _inner(x: Tensor, edge: int, *axes: int) -> Tensor:
    """A map without `edge` pixels at each end of its axes, rows and columns when none is named."""
    for axis in axes or (2, 3):
        x = x.narrow(axis, edge, x.shape[axis] - 2 * edge)
    return x


def _block(inputs: int, outputs: int, *, size: int = 3, dilation: int = 1) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class FeatureNorm(nn.BatchNorm2d):
    """A batch norm of `BandFeatures`, in float32 as they are."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, H, W) to the same."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features)


class FirstLayers(nn.Module):
    """First convolutions over `BandFeatures`, each with its norm folded in, as scoring computes them.

    All of them read the same maps, and what is the same all over a tile is a bias.
    """

    def forward(
        self, maps: Sequence[Tensor], tile: Tensor, layers: Sequence[tuple[nn.BatchNorm2d, nn.Conv2d]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """What to convolve, and with what.

        Args:
            maps: features (B, C, H, W), as of `BandFeatures.parts`.
            tile: and those of the tile (B, T, 1, 1).
            layers: convolutions of single pixels, each with the norm before it.

        Returns:
            The maps about their means (B, F, H, W), and for each layer weights (N, F, 1, 1) and a bias (B, N, 1, 1).
        """
        with torch.autocast(tile.device.type, enabled=False):
            scale, shift = _affine(layers[0][0], plain=True)
            sizes = [part.shape[1] for part in (*maps, tile)]
            *parts, tile = [
                part * a[:, None, None] + b[:, None, None]
                for part, a, b in zip(
                    (*maps, tile), scale.split_with_sizes(sizes), shift.split_with_sizes(sizes), strict=True
                )
            ]
            folded = []
            for norm, convolution in layers:
                a, b = _affine(norm)
                weight, bias = _folded(convolution, a / scale, b - a * shift / scale)
                near, own = weight.split_with_sizes((sum(sizes[:-1]), sizes[-1]), dim=1)
                folded.append((near, functional.conv2d(tile, own, bias)))
            return torch.cat(parts, dim=1), folded


def _affine(norm: nn.BatchNorm2d, *, plain: bool = False) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm that learns no more; `plain` without its own weights."""
    mean, scale = cast("Tensor", norm.running_mean), (cast("Tensor", norm.running_var) + norm.eps).rsqrt()
    return (scale, -mean * scale) if plain else (scale * norm.weight, norm.bias - mean * scale * norm.weight)


def _folded(convolution: nn.Conv2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (N, C, 1, 1) and bias (N,) of a convolution of single pixels over x by those over scale * x + shift."""
    weight = convolution.weight
    bias = weight.flatten(1) @ shift
    return weight * scale[:, None, None], bias if convolution.bias is None else bias + convolution.bias


class StatisticsVote(nn.Sequential):
    """A vote of each pixel by its own features alone: what a classifier of statistics says, and no token.

    It learns apart from all else, from pixels of all samples at once (`training.statistics`): in batches of a few
    whole samples it learns places instead. While the rest is trained it is left alone.
    """

    def __init__(self, features: int, outputs: int, *, width: int, dropout: float) -> None:
        """Build for (B, features, H, W); `width` and half of it are the hidden layers."""
        layers: list[nn.Module] = [FeatureNorm(features), nn.Dropout(dropout / 3)]
        for inputs, wide in ((features, width), (width, width // 2)):
            layers += [nn.Conv2d(inputs, wide, 1), nn.GELU(), nn.BatchNorm2d(wide), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Conv2d(width // 2, outputs, 1))
        self.requires_grad_(False)

    @property
    def first(self) -> tuple[nn.BatchNorm2d, nn.Conv2d]:
        """The norm of the features and the convolution that reads them."""
        return cast("tuple[nn.BatchNorm2d, nn.Conv2d]", (self[0], self[2]))

    def rest(self, x: Tensor) -> Tensor:
        """What `first` gave (B, width, H, W) to the vote (B, K, H, W), when nothing is learned."""
        layers = cast("Any", ((self[3], self[4], self[6]), (self[7], self[8], self[10])))
        for gelu, norm, convolution in layers:
            x = functional.conv2d(gelu(x), *_folded(convolution, *_affine(norm)))
        return x


class DetailPath(nn.Module):
    """A small U-Net over the bands at full resolution that takes the decoder's features in at an eighth of it.

    A 16-pixel token alone cannot draw a field edge; the bands can. Beside the U-Net, the pixel's own features vote
    directly.
    """

    def __init__(
        self,
        features: int,
        *,
        joined: int,
        outputs: int,
        width: int,
        pixel: tuple[int, int],
        dropout: float,
        branch_dropout: float = 0.2,
    ) -> None:
        """Build the path.

        Args:
            features: channels of `BandFeatures`.
            joined: channels of the decoder's features.
            outputs: classes, or 1 for values.
            width: channels at full resolution.
            pixel: those of the two layers over single pixels.
            dropout: share of channels dropped while training.
            branch_dropout: share of samples that train without the tokens, or without the U-Net.
        """
        super().__init__()
        self.norm = FeatureNorm(features)
        first, second = pixel
        self.pixel = nn.Sequential(
            _block(features, first, size=1), nn.Dropout2d(dropout), _block(first, second, size=1)
        )
        self.pixel_vote = nn.Conv2d(second, outputs, 1)
        self.down = nn.ModuleList(
            [
                _block(second, width),
                nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), _block(width, 2 * width), _block(2 * width, 2 * width)),
                nn.Sequential(
                    nn.MaxPool2d(2, ceil_mode=True), _block(2 * width, 4 * width), _block(4 * width, 4 * width)
                ),
                nn.Sequential(
                    nn.MaxPool2d(2, ceil_mode=True),
                    _block(4 * width, 4 * width),
                    _block(4 * width, 4 * width),
                    _block(4 * width, 4 * width, dilation=2),
                ),
            ]
        )
        self.join = _block(4 * width + joined, 4 * width)
        self.up = nn.ModuleList(
            [
                nn.Sequential(_block(8 * width, 4 * width), nn.Dropout2d(dropout)),
                _block(6 * width, 2 * width),
                _block(3 * width, width),
            ]
        )
        self.vote = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, outputs, 1))
        self.branch_dropout = branch_dropout

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Features (B, F, H, W) and decoded tokens (B, D, h', w') to logits or values (B, K, H, W)."""
        return self._join(self.pixel(self.norm(features).contiguous(memory_format=torch.channels_last)), tokens)

    @property
    def first(self) -> tuple[nn.BatchNorm2d, nn.Conv2d]:
        """The norm of the features and the convolution that reads them."""
        return self.norm, cast("nn.Conv2d", cast("nn.Sequential", self.pixel[0])[0])

    def rest(self, x: Tensor, tokens: Tensor) -> Tensor:
        """What `first` gave (B, F, H, W) and decoded tokens to logits or values, as `forward`."""
        return self._join(self.pixel[1:](cast("nn.Sequential", self.pixel[0])[1:](x)), tokens)

    def _join(self, pixel: Tensor, tokens: Tensor) -> Tensor:
        levels = [pixel]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = self.join(torch.cat((levels[-1], enlarge(self._dropped(tokens), levels[-1])), dim=1))
        for up, level in zip(self.up, levels[-2:0:-1], strict=True):
            x = up(torch.cat((level, enlarge(x, level)), dim=1))
        out: Tensor = self._dropped(self.vote(x).float()) + self.pixel_vote(pixel).float()
        return out

    def _dropped(self, x: Tensor) -> Tensor:
        """Leave a branch out of some samples while training, as dropout does with features."""
        if not self.training or not self.branch_dropout:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.branch_dropout
        return x * kept.to(x.dtype) / (1 - self.branch_dropout)


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation of x (B, C, h, w) to the rows and columns of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
