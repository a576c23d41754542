import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.backbones.patches import patchify, token_grid, tokens_to_map, unpatchify

small = st.integers(1, 3)


@st.composite
def stacks(draw):
    patch, grid = draw(st.tuples(small, st.integers(1, 5), st.integers(1, 5))), draw(st.tuples(small, small, small))
    shape = (draw(small), draw(small), *(p * n for p, n in zip(patch, grid, strict=True)))
    x = torch.arange(torch.tensor(shape).prod().item(), dtype=torch.float32).reshape(shape)
    return x, patch, grid


@given(stacks())
def test_unpatchify_is_the_exact_inverse_of_patchify(stack):
    x, patch, grid = stack
    tokens = patchify(x, patch)
    assert tokens.shape == (len(x), torch.tensor(grid).prod(), x.shape[1] * torch.tensor(patch).prod())
    assert torch.equal(unpatchify(tokens, patch, grid), x)
    assert torch.equal(patchify(unpatchify(tokens, patch, grid), patch), tokens)


@settings(max_examples=30)
@given(stacks())
def test_a_patch_embedding_is_a_product_with_the_tokens(stack):
    x, patch, _ = stack
    torch.manual_seed(0)
    embed = nn.Conv3d(x.shape[1], 7, kernel_size=patch, stride=patch).double()
    x = x.double() / x.numel()
    wanted = embed(x).flatten(2).transpose(1, 2)
    product = patchify(x, patch) @ embed.weight.flatten(1).T + embed.bias
    torch.testing.assert_close(product, wanted, rtol=0, atol=1e-12)


@given(stacks())
def test_a_token_holds_the_pixels_of_its_place(stack):
    x, (pt, ph, pw), (nt, nh, nw) = stack
    tokens = patchify(x, (pt, ph, pw)).reshape(len(x), nt, nh, nw, -1)
    t, r, c = nt - 1, nh // 2, nw - 1
    block = x[:, :, t * pt : (t + 1) * pt, r * ph : (r + 1) * ph, c * pw : (c + 1) * pw]
    assert torch.equal(tokens[:, t, r, c], block.flatten(1))


@pytest.mark.parametrize("grid", [(1, 2, 8), (1, 8, 2), (1, 4, 4), (3, 2, 8)])
def test_a_map_keeps_its_grid_and_puts_frames_side_by_side(grid):
    t, h, w = grid
    tokens = torch.tensor([[[100 * f + 10 * r + c, -1] for f in range(t) for r in range(h) for c in range(w)]])
    out = tokens_to_map(tokens, grid)
    assert out.shape == (1, t * 2, h, w)
    assert all(out[0, 2 * f, r, c] == 100 * f + 10 * r + c for f in range(t) for r in range(h) for c in range(w))
    assert (out[0, 1::2] == -1).all()


@pytest.mark.parametrize("sides", [(1, 30, 32), (1, 32, 30), (3, 32, 32)])
def test_sides_that_patches_do_not_divide_are_refused(sides):
    with pytest.raises(ValueError, match=r"not a multiple of the patch \(2, 16, 16\)"):
        token_grid(*sides, (2, 16, 16))
    assert token_grid(4, 32, 48, (2, 16, 16)) == (2, 2, 3)
