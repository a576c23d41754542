"""A region on the mask units of Prithvi WxC: turned, padded, cut into units, and all of that undone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from models.backbones.wxc_inputs import Batch
from models.errors import InputError


@dataclass(frozen=True)
class Canvas:
    """How a region lies on whole mask units, latitudes ascending.

    A region that mask units do not divide is padded in the north and in the east by repeating its edge. Patches that
    are padding altogether are left out of every attention, as masked ones are in pretraining.

    Attributes:
        height: rows of the region.
        width: columns of the region.
        rows: rows of the canvas, a multiple of the mask unit.
        columns: columns of the canvas.
        patch: side of a patch in pixels.
        north_up: whether the region's rows run from north to south.
    """

    height: int
    width: int
    rows: int
    columns: int
    patch: int
    north_up: bool

    @classmethod
    def of(cls, batch: Batch, *, mask_unit: tuple[int, int], patch: int) -> Canvas:
        """The canvas of a batch, whose samples share one direction of latitude; without values, from north to south.

        Raises:
            InputError: some samples run from north to south and some from south to north.
        """
        height, width = batch["x"].shape[-2:]
        blind = torch.compiler.is_exporting() or isinstance(batch["static"], FakeTensor)
        (unit_rows, unit_columns), up = mask_unit, blind or _north_up(batch["static"])
        rows, columns = -(-height // unit_rows) * unit_rows, -(-width // unit_columns) * unit_columns
        return cls(height, width, rows, columns, patch, up)

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches that hold any of the region."""
        return -(-self.height // self.patch), -(-self.width // self.patch)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of the canvas."""
        return self.rows // self.patch, self.columns // self.patch

    def lay(self, x: Tensor) -> Tensor:
        """(..., height, width) to (..., rows, columns)."""
        x = x.flip(-2) if self.north_up else x
        return _extended(_extended(x, self.rows, -2), self.columns, -1)

    def lay_static(self, static: Tensor) -> Tensor:
        """The same for static channels, whose latitude and longitude go on growing in the padding."""
        laid = self.lay(static)
        for channel, size, total, dim in ((0, self.height, self.rows, -2), (1, self.width, self.columns, -1)):
            if total > size > 1:
                axis = laid[:, channel]
                beyond = torch.arange(total, device=axis.device).sub(size - 1).clamp(min=0)
                step = axis.select(dim, size - 1) - axis.select(dim, size - 2)
                shape = (-1, 1) if dim == -2 else (-1,)
                laid[:, channel] = axis + beyond.reshape(shape) * step.unsqueeze(dim)
        return laid

    def take(self, y: Tensor) -> Tensor:
        """(..., rows, columns) of pixels back to (..., height, width) in the region's direction."""
        return self._cut(y, self.height, self.width)

    def take_patches(self, y: Tensor) -> Tensor:
        """(..., h, w) of the canvas's patches to those of the region, `patches`, in its direction."""
        return self._cut(y, *self.patches)

    def crop(self, pixels: Tensor) -> Tensor:
        """Cut pixels made from `patches` to the region: where its sides are odd the outer patches reach over them.

        Args:
            pixels: (..., patch * h, patch * w), in the region's direction.

        Returns:
            (..., height, width).
        """
        surplus = pixels.shape[-2] - self.height if self.north_up else 0
        return pixels[..., surplus : surplus + self.height, : self.width]

    def valid(self, device: torch.device) -> Tensor | None:
        """Which patches of the canvas hold any of the region, (h, w); None where all do."""
        if self.patches == self.grid:
            return None
        valid = torch.zeros(self.grid, dtype=torch.bool, device=device)
        valid[: self.patches[0], : self.patches[1]] = True
        return valid

    def _cut(self, y: Tensor, height: int, width: int) -> Tensor:
        y = y[..., :height, :width]
        return y.flip(-2) if self.north_up else y


def _north_up(static: Tensor) -> bool:
    """Whether latitudes fall, which a graph cannot ask."""
    falling = static[:, 0, 0, 0] > static[:, 0, -1, 0]
    if falling.any() and not falling.all():
        raise InputError("batch: wanted rows in one direction, came some from north to south and some the other way")
    return bool(falling.any())


def _extended(x: Tensor, total: int, dim: int) -> Tensor:
    """Repeat the last slice of an axis until it has `total`."""
    size = x.shape[dim]
    return x if size == total else x.index_select(dim, torch.arange(total, device=x.device).clamp(max=size - 1))


def to_units(x: Tensor, unit: tuple[int, int]) -> Tensor:
    """Cut a map into mask units: (B, E, h, w) to (B, units, patches of a unit, E), both row by row."""
    b, e, h, w = x.shape
    r, c = unit
    x = x.reshape(b, e, h // r, r, w // c, c).permute(0, 2, 4, 3, 5, 1)  # (B, h/r, w/c, r, c, E)
    return x.reshape(b, (h // r) * (w // c), r * c, e)


def from_units(x: Tensor, unit: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Lay mask units out as a map; the exact inverse of `to_units`.

    Args:
        x: (B, units, patches of a unit, E).
        unit: rows and columns of patches in a unit.
        grid: rows and columns of patches in the map.

    Returns:
        (B, E, h, w).
    """
    (b, _, _, e), (r, c), (h, w) = x.shape, unit, grid
    x = x.reshape(b, h // r, w // c, r, c, e).permute(0, 5, 1, 3, 2, 4)  # (B, E, h/r, r, w/c, c)
    return x.reshape(b, e, h, w)
