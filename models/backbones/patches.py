"""Patch tokens: patchify and unpatchify as exact inverses, and the maps that tokens make on their grid."""

from __future__ import annotations

from torch import Tensor

Patch = tuple[int, int, int]


def token_grid(frames: int, height: int, width: int, patch: Patch) -> tuple[int, int, int]:
    """Tokens along time, rows and columns.

    Raises:
        ValueError: a side is not a multiple of the patch.
    """
    sides = (frames, height, width)
    if any(side % p for side, p in zip(sides, patch, strict=True)):
        raise ValueError(f"(T, H, W) = {sides} is not a multiple of the patch {patch}")
    return frames // patch[0], height // patch[1], width // patch[2]


def patchify(x: Tensor, patch: Patch) -> Tensor:
    """Cut a stack of frames into patch tokens, frame by frame, row by row.

    The values of a token are in the order of a flattened `Conv3d` kernel (C, pt, ph, pw), so that a Prithvi patch
    embedding equals `patchify(x) @ weight.flatten(1).T + bias`.

    Args:
        x: (B, C, T, H, W).
        patch: (pt, ph, pw); each divides its side.

    Returns:
        (B, N, C*pt*ph*pw) with N = T/pt * H/ph * W/pw.
    """
    b, c, t, h, w = x.shape
    pt, ph, pw = patch
    nt, nh, nw = token_grid(t, h, w, patch)
    x = x.reshape(b, c, nt, pt, nh, ph, nw, pw)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, nt * nh * nw, c * pt * ph * pw)


def unpatchify(tokens: Tensor, patch: Patch, grid: tuple[int, int, int]) -> Tensor:
    """Put patch tokens back together; the exact inverse of `patchify`.

    Args:
        tokens: (B, N, C*pt*ph*pw).
        patch: (pt, ph, pw).
        grid: tokens along (time, rows, columns); their product is N.

    Returns:
        (B, C, T, H, W).
    """
    (b, _, values), (pt, ph, pw), (nt, nh, nw) = tokens.shape, patch, grid
    c = values // (pt * ph * pw)
    x = tokens.reshape(b, nt, nh, nw, c, pt, ph, pw)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, c, nt * pt, nh * ph, nw * pw)


def tokens_to_map(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Lay tokens out as a feature map, the frames' features side by side in the channels.

    The grid is given, never guessed from the number of tokens: a 2x8 grid stays 2x8.

    Args:
        tokens: (B, T*h*w, E) without the class token.
        grid: tokens along (time, rows, columns).

    Returns:
        (B, T*E, h, w).
    """
    b, _, e = tokens.shape
    t, h, w = grid
    return tokens.reshape(b, t, h, w, e).permute(0, 1, 4, 2, 3).reshape(b, t * e, h, w)
