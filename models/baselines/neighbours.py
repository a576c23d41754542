"""What is hidden of an image, told by what was seen around it: what masked autoencoding has to beat."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.backbones.patches import Patch


def from_neighbours(x: Tensor, seen: Tensor, patch: Patch) -> Tensor:
    """Each patch as the mean of all patches seen in its frame, weighted by the inverse square of their distance.

    A patch that was seen has the mean of what was seen of it (Shepard 1968, A two-dimensional interpolation function
    for irregularly-spaced data).

    Args:
        x: (B, C, T, H, W), finite.
        seen: (B, T, H, W), True where a pixel was seen.
        patch: (1, ph, pw); sides of a patch.

    Returns:
        (B, C, T, H, W), one value a patch and band; NaN in a frame of which nothing was seen.
    """
    share = functional.avg_pool3d(seen[:, None].float(), patch)  # (B, 1, T, h, w)
    total = functional.avg_pool3d(torch.where(seen[:, None], x, 0.0), patch)  # (B, C, T, h, w)
    known = share.flatten(-2) > 0  # (B, 1, T, N)
    mean = torch.where(known, total.flatten(-2) / share.flatten(-2), 0.0)  # (B, C, T, N)
    h, w = share.shape[-2:]
    place = torch.cartesian_prod(torch.arange(h, device=x.device), torch.arange(w, device=x.device)).float()
    weight = 1 / torch.cdist(place, place).square().clamp(min=1e-6)  # (N, N)
    told = (mean @ weight) / (known.float() @ weight)  # the weights are symmetric
    told = torch.where(known.any(dim=-1, keepdim=True), told, torch.nan).reshape(total.shape)
    return told.repeat_interleave(patch[1], dim=-2).repeat_interleave(patch[2], dim=-1)
