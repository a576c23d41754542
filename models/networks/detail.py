"""What is there at full resolution beside the tokens: bands, indices and neighbourhoods, and who votes by them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.indices import INDICES, SIDES, TEXTURES
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
        with torch.autocast(bands.device.type, enabled=False):  # differences of squares want float32
            values = self.values(bands)
            tile = torch.cat((values.mean((2, 3), keepdim=True), values.std((2, 3), keepdim=True)), dim=1)
            if self.training:
                tile = tile + self.noise * torch.randn_like(tile)
            tile = tile.expand(-1, -1, bands.shape[2], bands.shape[3])
            near = [moment for side in SIDES for moment in _moments(values, side)]
            return torch.cat((values, *near, tile), dim=1)


class SceneStatistics(nn.Module):
    """What bands and indices say of a whole tile: their mean and spread, and those of their local spread."""

    def __init__(self, imagery: Pixels) -> None:
        """Build for bands and frames."""
        super().__init__()
        self.values = BandsAndIndices(imagery)
        self.channels = (2 + 2 * len(TEXTURES)) * self.values.channels
        self.norm = nn.BatchNorm1d(self.channels)

    def forward(self, bands: Tensor) -> Tensor:
        """Normalised bands (B, C*T, H, W) to statistics (B, channels)."""
        with torch.autocast(bands.device.type, enabled=False):
            values = self.values(bands)
            maps = [values, *(_moments(values, side)[1] for side in TEXTURES)]
            statistics: Tensor = self.norm(
                torch.cat([part for m in maps for part in (m.mean((2, 3)), m.std((2, 3)))], 1)
            )
        return statistics


def _box(x: Tensor, size: int) -> Tensor:
    """Mean over size x size pixels, (B, C, H, W) to the same, as two passes of a depthwise convolution."""
    pad, channels = size // 2, x.shape[1]
    kernel = x.new_full((channels, 1, size, 1), 1 / size)
    x = functional.pad(x, (pad, pad, pad, pad), mode="replicate")
    return functional.conv2d(functional.conv2d(x, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


def _moments(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over size x size pixels."""
    mean = _box(x, size)
    return mean, ((_box(x * x, size) - mean**2).clamp(min=0) + 1e-5).sqrt()


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


class DetailPath(nn.Module):
    """A small U-Net over the bands at full resolution that takes the decoder's features in at an eighth of it.

    A 16-pixel token alone cannot draw a field edge; the bands can. Beside the U-Net, the pixel's own features vote
    directly.
    """

    def __init__(
        self, features: int, *, joined: int, outputs: int, width: int, dropout: float, branch_dropout: float = 0.2
    ) -> None:
        """Build the path.

        Args:
            features: channels of `BandFeatures`.
            joined: channels of the decoder's features.
            outputs: classes, or 1 for values.
            width: channels at full resolution.
            dropout: share of channels dropped while training.
            branch_dropout: share of samples that train without the tokens, or without the U-Net.
        """
        super().__init__()
        self.norm = FeatureNorm(features)
        self.pixel = nn.Sequential(_block(features, 96, size=1), nn.Dropout2d(dropout), _block(96, 64, size=1))
        self.pixel_vote = nn.Conv2d(64, outputs, 1)
        self.down = nn.ModuleList(
            [
                _block(64, width),
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
        pixel = self.pixel(self.norm(features).contiguous(memory_format=torch.channels_last))
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
