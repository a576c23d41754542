"""A coarse field on finer cells: bicubic, and on top of it what Prithvi WxC, convolutions and elevation tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones.wxc_canvas import Canvas
from models.backbones.wxc_files import WxCConfig
from models.backbones.wxc_inputs import Batch
from models.networks.weather import LIMIT, Trunk, WeatherNetwork, block
from models.spec import Spec
from models.training.processes import mean_of_all
from models.training.settings import WeatherArchitecture

EDGE = 2  # cells that bicubic looks beyond


def bicubic(coarse: Tensor, factor: int) -> Tensor:
    """Cubic convolution (Keys 1981, a = -1/2) onto cells that divide the coarse ones; edges continue as they end.

    Args:
        coarse: (B, C, h, w).
        factor: fine cells along a side of a coarse one.

    Returns:
        (B, C, h * factor, w * factor).
    """
    padded = functional.pad(coarse, (EDGE,) * 4, mode="replicate")
    # torch takes a = -3/4 without antialias, which does not keep a slope; enlarging, antialias does nothing else.
    fine = functional.interpolate(padded, scale_factor=factor, mode="bicubic", antialias=True)
    return fine[..., EDGE * factor : -EDGE * factor, EDGE * factor : -EDGE * factor]


def repeated(coarse: Tensor, factor: int) -> Tensor:
    """Each coarse cell's value on all of its fine ones."""
    return coarse.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def area_means(fine: Tensor, area: Tensor, factor: int) -> Tensor:
    """Means over coarse cells: (B, C, H, W) with weights of rows (B, H, 1) to (B, C, H / factor, W / factor)."""
    weight = area[:, None].expand(-1, 1, -1, fine.shape[-1])
    mean: Tensor = functional.avg_pool2d(fine * weight, factor) / functional.avg_pool2d(weight, factor)
    return mean


def unresolved(fine: Tensor, area: Tensor, factor: int) -> Tensor:
    """What bicubic leaves out of a fine field when it starts from the field's area means: (B, C, H, W)."""
    return fine - bicubic(area_means(fine, area, factor), factor)


class Member(Trunk):
    """A trunk over the coarse cells, its features shuffled onto the fine ones, and convolutions there."""

    def __init__(self, spec: Spec, config: WxCConfig, architecture: WeatherArchitecture) -> None:
        """Build for a Spec's channels and an encoder's tokens."""
        super().__init__(spec, config, architecture)
        width, up, drop = architecture.detail, architecture.channels, architecture.dropout
        self.finer = nn.Sequential(
            nn.Conv2d(width, up * spec.field.factor**2, 1), nn.PixelShuffle(spec.field.factor), nn.GELU()
        )  # (B, up, H, W)
        self.decoder = nn.Sequential(
            block(up + 2 + 2 * bool(spec.weather.elevation), width, drop), block(width, width, drop)
        )
        self.head = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type] # there is one

    def forward(self, fields: Tensor, tokens: Tensor, lead: Tensor, canvas: Canvas, fine: Tensor) -> Tensor:
        """What `WeatherNetwork.encoded` gives, and what is known of fine cells, to detail (B, 1, H, W) in scales."""
        features = self.finer(self.features(fields, tokens, lead, canvas))
        detail: Tensor = self.head(self.decoder(torch.cat((features, fine), dim=1)))
        return detail


class DownscaleNetwork(WeatherNetwork):
    """A field on finer cells; with random weights as bicubic has it.

    A batch holds `weather`, `static` and hours over the coarse cells; `coarse` (B, 1, h, w), the target; `area`
    (B, H, 1), the relative areas of the fine rows; and `fine` (B, 1, H, W), their elevation in m, for models with it.
    """

    losses = ("mse", "mae", "huber")
    member = Member

    def forward(self, batch: Batch) -> Tensor:
        """The fine field of each member in the target's unit: (M, B, H, W).

        Raises:
            InputError: the batch lacks something, or has shapes that the model does not take.
        """
        told, coarse, area = self.spec.field, batch["coarse"].float(), batch["area"].float()
        base = bicubic(coarse, told.factor)  # (B, 1, H, W)
        encoded, fine = self.encoded(batch), self._fine(batch, coarse, base, area)
        answers = [base + told.scale * member(*encoded, fine) for member in self.members]
        if told.conserve:
            answers = [a + repeated(coarse - area_means(a, area, told.factor), told.factor) for a in answers]
        return torch.cat(answers, dim=1).movedim(1, 0)

    def predict(self, batch: Batch) -> Tensor:
        """The members' answers averaged, (B, H, W); none is below 0 where the target never is."""
        answer = super().predict(batch)
        return answer.clamp(min=0) if self.spec.field.positive else answer

    def loss(self, answer: Tensor, y: Tensor, weights: Mapping[str, float]) -> Tensor:
        """The losses over known cells in scales of the detail."""
        known = y.isfinite()
        error = (answer - y)[known] / self.spec.field.scale
        zero = torch.zeros_like(error)
        kinds: dict[str, Callable[..., Tensor]] = {
            "mse": functional.mse_loss,
            "mae": functional.l1_loss,
            "huber": functional.huber_loss,
        }
        each = [weight * mean_of_all(kinds[name](error, zero, reduction="none")) for name, weight in weights.items()]
        return torch.stack(each).sum()

    def apart(self, answer: Tensor, wanted: Tensor) -> Tensor:
        """Huber's loss of fields (B, H, W) beside others, in scales of the detail."""
        away = (answer - wanted) / self.spec.field.scale
        return mean_of_all(functional.huber_loss(away, torch.zeros_like(away), reduction="none"))

    def expected(self, answer: Tensor) -> Tensor:
        """The answers (B, H, W) themselves."""
        return answer

    def _fine(self, batch: Batch, coarse: Tensor, base: Tensor, area: Tensor) -> Tensor:
        """What is known of the fine cells, normalised: (B, S, H, W)."""
        given, told = self.spec.weather, self.spec.field
        at = given.channels.index(told.name)
        known = [(base - given.mean[at]) / given.std[at], (base - repeated(coarse, told.factor)) / told.scale]
        if given.elevation:
            mean, std, detail = given.elevation
            height = batch["fine"].float()
            known += [(height - mean) / std, unresolved(height, area, told.factor) / detail]
        return torch.cat(known, dim=1).clamp(-LIMIT, LIMIT)
