import pytest
import torch

from models.errors import InputError
from models.networks.decoders import DECODERS, Decoder, DenseHead, SceneHead
from models.spec import ClassDef
from models.training.settings import Architecture
from tests.specs import scene_spec

DIMS, PATCH, BANDS, OUTPUTS = [32] * 4, 16, 5, 3
SPEC = scene_spec(
    "segmentation",
    ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1"),
    mean=(1000.0,) * BANDS,
    std=(400.0,) * BANDS,
    classes=tuple(ClassDef(i, f"class {i}", "#000000") for i in range(OUTPUTS)),
)


def head(decoder, *, detail=4, statistics=6, dims=DIMS, seed=0):
    torch.manual_seed(seed)
    chosen = Architecture(decoder=decoder, channels=8, detail=detail, statistics=statistics, dropout=0.5)
    return DenseHead(SPEC, chosen, dims=dims).eval()


def inputs(height, width, *, dims=DIMS, seed=1):
    """Bands (2, BANDS, H, W) and one map per block."""
    g = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, d, height // PATCH, width // PATCH, generator=g) for d in dims]
    return torch.randn(2, BANDS, height, width, generator=g), maps


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("detail", "statistics"), [(0, 0), (4, 0), (0, 6), (4, 6)])
@pytest.mark.parametrize("side", [(32, 32), (32, 96), (96, 32)])
def test_every_decoder_answers_each_pixel(decoder, detail, statistics, side):
    bands, maps = inputs(*side)
    with torch.inference_mode():
        out = head(decoder, detail=detail, statistics=statistics)(bands, maps)
    assert out.shape == (2 if statistics else 1, 2, OUTPUTS, *side)
    assert out.isfinite().all()


def test_the_member_of_statistics_hears_no_token_and_the_other_does():
    bands, maps = inputs(32, 32)
    dense = head("linear")
    with torch.inference_mode():
        plain, other = dense(bands, maps), dense(bands, [m + 1 for m in maps])
        assert torch.equal(plain[1], other[1]) and not torch.equal(plain[0], other[0])
        # A changed pixel changes what statistics say of all the neighbourhoods that it is in, and of no other.
        wide = inputs(96, 96)[0]
        changed = wide.clone()
        changed[0, 2, 20, 20] += 5
        moved = (dense.statistics(dense.features(changed)) - dense.statistics(dense.features(wide))).abs()
    assert moved[0].amax(0)[:41, :41].min() > 0 and (moved[1] == 0).all()
    assert moved[0].amax(0)[20, 20] > 20 * moved[0].amax(0)[45:, 45:].max()  # the tile's mean moved a little


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_detail_path_draws_single_pixels(decoder):
    """With the backbone's maps held fixed, a changed pixel changes its neighbourhood and hardly what is far."""
    bands, maps = inputs(96, 96)
    changed = bands.clone()
    changed[0, 2, 20, 20] += 5
    fine, coarse = head(decoder, statistics=0), head(decoder, detail=0, statistics=0)
    with torch.inference_mode():
        change = (fine(changed, maps) - fine(bands, maps))[0].abs().amax(1)  # (2, H, W)
        assert torch.equal(coarse(changed, maps), coarse(bands, maps))
    assert change[0, 20, 20] > 1e-4
    assert change[0, 20, 20] > 20 * change[0, 75:, 75:].max()  # not zero: the tile's mean moved a little
    assert (change[1] == 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("block", range(4))
def test_every_map_of_the_backbone_counts(decoder, block):
    bands, maps = inputs(32, 32)
    maps[block].requires_grad_()
    head(decoder)(bands, maps).square().sum().backward()
    assert (maps[block].grad.abs().amax((0, 2, 3)) > 0).all()  # every channel of it


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_gradient_reaches_every_weight(decoder):
    bands, maps = inputs(64, 64)
    dense = head(decoder).train()
    dense(bands, maps).square().mean().backward()
    missing = {name.split(".")[0] for name, p in dense.named_parameters() if p.grad is None}
    assert missing == {"statistics"}  # which learns apart


@pytest.mark.parametrize("decoder", ["unet", "upernet"])
@pytest.mark.parametrize("count", [2, 5])
def test_pyramids_want_four_maps(decoder, count):
    with pytest.raises(InputError, match=f"{decoder} wants four blocks of the backbone, {count} were given"):
        head(decoder, dims=[32] * count)


def test_an_unknown_decoder_is_refused():
    with pytest.raises(InputError, match="'segformer': wanted one of linear, fcn, unet, upernet"):
        Decoder("segformer", dims=DIMS, patch=PATCH, channels=8)


def test_a_scene_head_reads_tokens_and_band_statistics():
    torch.manual_seed(0)
    scene = SceneHead(SPEC, Architecture(channels=8, dropout=0.5), dims=DIMS).eval()
    bands, maps = inputs(32, 64)
    with torch.inference_mode():
        out = scene(bands, maps)
        assert out.shape == (2, 2, OUTPUTS)
        # A scene may be turned and mirrored: its class does not hang on where north is.
        for turned in (bands.flip(-1), bands.flip(-2)):
            torch.testing.assert_close(scene(turned, maps), out, rtol=1e-4, atol=1e-5)
        for other in ((bands + 1, maps), (bands * 2, maps)):
            assert not any(torch.allclose(a, b, atol=1e-4) for a, b in zip(scene(*other), out, strict=True))
        other = scene(bands, [m + torch.randn(1, 32, 1, 1) for m in maps])
        assert not torch.allclose(other[0], out[0], atol=1e-4)
        torch.testing.assert_close(other[1], out[1])  # the member of statistics hears no token
    assert scene.train()(bands, maps).shape == (1, 2, OUTPUTS)


@pytest.mark.parametrize(("detail", "statistics"), [(4, 0), (0, 6), (4, 6)])
def test_scoring_answers_as_the_layers_one_after_the_other(detail, statistics):
    """Norms folded into convolutions and what is a tile's own as a bias, for norms that have seen something."""
    bands, maps = inputs(64, 48)
    dense = head("linear", detail=detail, statistics=statistics)
    generator = torch.Generator().manual_seed(2)
    for norm in (m for m in dense.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        for values, low in ((norm.running_mean, -1.0), (norm.running_var, 0.2), (norm.weight, 0.5), (norm.bias, -1.0)):
            values.data.copy_(low + torch.rand(values.shape, generator=generator))
    with torch.inference_mode():
        features, wanted = dense.features(bands), []
        if dense.detail is not None:
            wanted.append(dense.detail(features, dense.decoder(maps)))
        if dense.statistics is not None:
            wanted.append(dense.statistics(features))
        torch.testing.assert_close(dense(bands, maps)[-len(wanted) :], torch.stack(wanted), rtol=1e-4, atol=1e-4)
