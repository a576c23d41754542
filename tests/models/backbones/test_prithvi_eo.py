import copy
import pickle

import numpy as np
import pytest
import torch
from terratorch.models.backbones.prithvi_mae import PrithviMAE

from models.backbones.catalogue import BANDS, VARIANTS
from models.backbones.hub import read_state_dict
from models.backbones.patches import patchify, tokens_to_map
from models.backbones.prithvi_eo import PrithviEO, config, evenly_spaced, load_pretrained, pretrained_statistics
from models.errors import InputError

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TL, PLAIN, V1 = "prithvi_eo_v2_300_tl", "prithvi_eo_v2_300", "prithvi_eo_v1_100"
TIME = torch.tensor([[[2020.0, 123.0]], [[2018.0, 5.0]]])
PLACE = torch.tensor([[10.5, -75.1], [-33.0, 151.0]])

# Width, depth, heads, patch of the model cards.
SIZES = {
    "prithvi_eo_tiny": (256, 4, 4, 16),
    "prithvi_eo_v1_100": (768, 12, 12, 16),
    "prithvi_eo_v2_tiny_tl": (192, 12, 3, 16),
    "prithvi_eo_v2_100": (768, 12, 12, 16),
    "prithvi_eo_v2_100_tl": (768, 12, 12, 16),
    "prithvi_eo_v2_300": (1024, 24, 16, 16),
    "prithvi_eo_v2_300_tl": (1024, 24, 16, 16),
    "prithvi_eo_v2_600": (1280, 32, 16, 14),
    "prithvi_eo_v2_600_tl": (1280, 32, 16, 14),
}


def make(name=TL, *, tile=32, seed=0, overrides=TINY, **fields):
    torch.manual_seed(seed)
    return PrithviEO(name, tile=tile, overrides=overrides, **fields).eval()


def images(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- building


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_its_published_size(name):
    with torch.device("meta"):
        backbone = PrithviEO(name)
    dim, depth, heads, patch = SIZES[name]
    assert (backbone.dim, len(backbone.vit.blocks), backbone.vit.blocks[0].attn.num_heads) == (dim, depth, heads)
    assert backbone.patch == (1, patch, patch)
    assert backbone.blocks == tuple(depth // 4 * (i + 1) - 1 for i in range(4))
    assert backbone.uses_time == backbone.uses_location == name.endswith("_tl")
    parameters = sum(p.numel() for p in backbone.parameters())
    assert parameters / 1e6 == pytest.approx(VARIANTS[name].parameters, abs=0.06)


def test_the_300m_backbone_runs_at_full_size():
    backbone = PrithviEO(TL).eval()
    with torch.inference_mode():
        maps = backbone(images(1, 6, 1, 224, 224), TIME[:1], PLACE[:1])
    assert [m.shape for m in maps] == [(1, 1024, 14, 14)] * 4
    assert all(m.isfinite().all() and m.std() > 0 for m in maps)


def test_statistics_are_those_of_the_model_cards():
    two, one = pretrained_statistics(TL), pretrained_statistics(V1)
    assert tuple(two) == tuple(one) == BANDS
    assert [v[0] for v in two.values()] == [1087, 1342, 1433, 2734, 1958, 1363]
    assert [v[1] for v in two.values()] == [2248, 2179, 2178, 1850, 1242, 1049]
    assert one["RED"] == pytest.approx((1229, 1399), abs=1)


def test_evenly_spaced_blocks_end_with_the_last():
    assert evenly_spaced(12) == (2, 5, 8, 11)
    assert evenly_spaced(24) == (5, 11, 17, 23)
    assert evenly_spaced(32) == (7, 15, 23, 31)
    assert evenly_spaced(2) == (0, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "prithvi_eo_v9"}, "wanted one of prithvi_eo_tiny"),
        ({"overrides": {"width": 3}}, "backbone field width: wanted one of"),
        ({"tile": 30}, "tile 30: .* multiple of its patch, 16"),
        ({"blocks": (0, 2)}, r"blocks \[0, 2\]: .* 0\.\.1"),
        ({"blocks": (-1,)}, r"blocks \[-1\]"),
        ({"overrides": TINY | {"embed_dim": 40}}, "embed_dim 40 with 2 heads: wanted a multiple of 16"),
        ({"overrides": TINY | {"num_heads": 5}}, "embed_dim 32 with 5 heads: wanted a multiple"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        make(**fields)


def test_overriding_a_field_leaves_the_published_table_alone():
    before = config(TL)
    assert config(TL, depth=1)["depth"] == 1
    assert config(TL) == before


# ---------------------------------------------------------------- forward


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("side", [(32, 32), (64, 64), (32, 128)])
@pytest.mark.parametrize(("time", "place"), [(True, True), (True, False), (False, True), (False, False)])
def test_forward_is_that_of_terratorch(frames, side, time, place):
    backbone = make(frames=frames, blocks=(0, 1))
    x = images(2, 6, frames, *side)
    coords = TIME.repeat(1, frames, 1) + torch.arange(frames)[:, None] * 16 if time else None
    location = PLACE if place else None
    with torch.inference_mode():
        ours = backbone(x, coords, location)
        theirs = backbone.vit.forward_features(x, coords, location)
    grid = (frames, side[0] // 16, side[1] // 16)
    for mine, tokens in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, tokens_to_map(tokens[:, 1:], grid), rtol=1e-5, atol=1e-5)


def test_only_the_blocks_asked_for_come_out_in_their_order():
    every = make(overrides=TINY | {"depth": 4}, blocks=(0, 1, 2, 3))
    some = make(overrides=TINY | {"depth": 4}, blocks=(2, 0))
    x = images(1, 6, 1, 32, 32)
    with torch.inference_mode():
        maps = every(x)
        for wanted, got in zip((maps[2], maps[0]), some(x), strict=True):
            assert torch.equal(wanted, got)


def test_the_patch_embedding_is_a_product_with_patchify():
    backbone = make()
    x, embed = images(2, 6, 1, 32, 48), backbone.vit.patch_embed
    product = patchify(x, backbone.patch) @ embed.proj.weight.flatten(1).T + embed.proj.bias
    torch.testing.assert_close(product, embed(x), rtol=1e-5, atol=1e-5)


def test_gradients_are_the_same_when_activations_are_computed_again():
    plain, again = make(drop_path=0.3), make(drop_path=0.3)
    again.recompute = True
    kept: list[list[int]] = [[], []]
    for model, sizes in zip((plain, again), kept, strict=True):
        torch.manual_seed(2)  # of the blocks that are skipped
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            model.train()(images(2, 6, 1, 32, 32))[-1].square().mean().backward()
    assert sum(kept[1]) < 0.7 * sum(kept[0])
    for (name, one), two in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad)


def test_an_image_that_patches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="not a multiple of the patch"):
        make()(images(1, 6, 1, 32, 40))


def test_variants_without_encodings_leave_time_and_place_out():
    backbone = make(PLAIN)
    x = images(2, 6, 1, 32, 32)
    with torch.inference_mode():
        for mine, plain in zip(backbone(x, TIME, PLACE), backbone(x), strict=True):
            assert torch.equal(mine, plain)


def sines(values, width):
    """The sine-cosine encoding of Vaswani et al. 2017 in float64: (N,) to (N, width)."""
    angles = np.asarray(values, float)[:, None] / 10000 ** (np.arange(width // 2) / (width / 2))
    return np.concatenate((np.sin(angles), np.cos(angles)), axis=1)


def test_time_and_place_are_encoded_in_float32_under_autocast():
    backbone = make().bfloat16().float()  # weights that bfloat16 holds exactly, so that only arithmetic differs
    entered = []
    backbone.vit.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].float()))
    years = torch.tensor([[[year, 100.0]] for year in range(2016, 2021)])
    x, place = images(1, 6, 1, 32, 32).expand(5, -1, -1, -1, -1), torch.tensor([[45.25, 9.125]]).expand(5, -1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        backbone(x)
        last = backbone(x, years, place)[-1]
        backbone(x, None, place)
    plain, both, placed = (tokens[:, 1].numpy() for tokens in entered)  # the first patch of each sample
    scale = backbone.vit.temporal_embed_enc.scale.item()
    time = np.concatenate((sines(years[:, 0, 0], 16), sines(years[:, 0, 1], 16)), axis=1)
    np.testing.assert_allclose(both - placed, scale * time, atol=2e-4)
    where = np.concatenate((sines([45.25], 16), sines([9.125], 16)), axis=1)
    scale = backbone.vit.location_embed_enc.scale.item()
    np.testing.assert_allclose(placed - plain, scale * where.repeat(5, 0), atol=2e-4)
    assert len(torch.unique(last.flatten(1), dim=0)) == 5  # every year has an output of its own


def test_a_deep_copy_is_a_model_of_its_own():
    backbone = make()
    x = images(1, 6, 1, 32, 32)
    twin = copy.deepcopy(backbone)
    with torch.inference_mode():
        before = backbone(x)[-1]
        assert torch.equal(twin(x)[-1], before)
        for parameter in twin.parameters():
            parameter.mul_(1.5)
        assert torch.equal(backbone(x)[-1], before)
        assert not torch.allclose(twin(x)[-1], before)


def test_a_pickled_backbone_is_the_same_model():
    backbone = make()
    x = images(1, 6, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(pickle.loads(pickle.dumps(backbone))(x)[-1], backbone(x)[-1])


# ---------------------------------------------------------------- loading


def published(*, encodings=True, seed=5, **changes):
    """What Prithvi's authors put into a file: the state of the whole masked autoencoder."""
    torch.manual_seed(seed)
    fields = TINY | {"img_size": 64, "num_frames": 4, "in_chans": 6, "patch_size": [1, 16, 16]}
    fields |= {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2} | changes
    coords = ["time", "location"] if encodings else []
    return PrithviMAE(**fields, coords_encoding=coords, coords_scale_learn=True).state_dict()


def without_prefix(state):
    return {key.removeprefix("encoder.").removeprefix("decoder."): value for key, value in state.items()}


LAYOUTS = {
    "V2": lambda state: state,
    "V1": without_prefix,
    "timm": lambda state: {f"_timm_module.{k}": v for k, v in without_prefix(state).items()},
    "lightning": lambda state: {
        "epoch": 7,
        "state_dict": {f"model.{k}": v for k, v in state.items() if k.startswith("encoder.")}
        | {"model.decoder.head.weight": torch.zeros(2, 3)},
    },
    "wrapped": lambda state: {"model": state},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [TL, PLAIN])
def test_every_published_layout_loads_with_every_tensor_equal(tmp_path, layout, name):
    state = published(encodings=name == TL)
    torch.save(LAYOUTS[layout](state), tmp_path / "w.pt")
    backbone = make(name, frames=2, seed=9)
    own = backbone.vit.pos_embed.clone()
    report = load_pretrained(backbone, read_state_dict(tmp_path / "w.pt"), source="w.pt")
    for key, value in backbone.vit.state_dict().items():
        assert torch.equal(value, own if key == "pos_embed" else state[f"encoder.{key}"]), key
    assert report.bands == {band: f"loaded from {band}" for band in BANDS}


@pytest.mark.parametrize(("frames", "tile"), [(1, 32), (4, 64), (3, 96)])
def test_a_loaded_model_computes_what_the_published_one_does(frames, tile):
    state = published()
    torch.manual_seed(5)
    coords = {"coords_encoding": ["time", "location"], "coords_scale_learn": True}
    fields = TINY | {"img_size": tile, "num_frames": frames, "in_chans": 6, "patch_size": [1, 16, 16]} | coords
    mae = PrithviMAE(**fields, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2).eval()
    mae.load_state_dict({k: v for k, v in state.items() if "pos_embed" not in k}, strict=False)
    backbone = make(frames=frames, tile=tile, seed=9)
    load_pretrained(backbone, state, source="w.pt")
    x, time = images(2, 6, frames, tile, tile), TIME.repeat(1, frames, 1)
    with torch.inference_mode():
        theirs = mae.forward_features(x, time, PLACE)[-1]
        ours = backbone(x, time, PLACE)[-1]
    wanted = tokens_to_map(theirs[:, 1:], (frames, tile // 16, tile // 16))
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "bands",
    [("RED", "NIR_NARROW"), BANDS[::-1], ("SWIR_2", "VV", "BLUE", "VH"), (*BANDS, "RED_EDGE_1")],
    ids=["subset", "reorder", "some new", "superset"],
)
def test_patch_weights_follow_the_names_of_the_bands(bands):
    state = published()
    kernel = state["encoder.patch_embed.proj.weight"]
    backbone = make(bands=bands)
    report = load_pretrained(backbone, state, source="w.pt")
    weight = backbone.vit.patch_embed.proj.weight
    for i, band in enumerate(bands):
        wanted = kernel[:, BANDS.index(band)] if band in BANDS else sum(kernel.unbind(1)) / 6
        torch.testing.assert_close(weight[:, i], wanted, rtol=0, atol=1e-7)
        known = f"loaded from {band}" if band in BANDS else "new: mean of the pretrained bands"
        assert report.bands[band] == known
    assert list(report.bands) == list(bands)
    assert len(report.lines()) == len(bands)
    assert torch.equal(backbone.vit.patch_embed.proj.bias, state["encoder.patch_embed.proj.bias"])


def test_the_order_of_the_files_bands_can_be_told():
    state = published(in_chans=2)
    backbone = make(bands=("VH", "VV"))
    load_pretrained(backbone, state, source="w.pt", pretrained_bands=("VV", "VH"))
    kernel = state["encoder.patch_embed.proj.weight"]
    assert torch.equal(backbone.vit.patch_embed.proj.weight, kernel.flip(1))


def test_half_precision_files_are_taken():
    state = {key: value.half() for key, value in published().items()}
    backbone = make()
    load_pretrained(backbone, state, source="w.pt")
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    assert torch.equal(backbone.vit.norm.weight, state["encoder.norm.weight"].float())


def test_a_file_with_encodings_loads_into_a_variant_without_them():
    state = published(encodings=True)
    backbone = make(PLAIN)
    load_pretrained(backbone, state, source="w.pt")
    assert torch.equal(backbone.vit.blocks[1].mlp.fc2.weight, state["encoder.blocks.1.mlp.fc2.weight"])


REFUSALS = {
    "total loss": ({"bands": ("B02", "B03")}, {}, "none of the bands B02, B03 was pretrained"),
    "wider": ({}, {"embed_dim": 64}, "wanted embedding 32, 2 blocks.*came embedding 64, 2 blocks"),
    "deeper": ({}, {"depth": 3}, "wanted embedding 32, 2 blocks.*came embedding 32, 3 blocks"),
    "shallower": ({}, {"depth": 1}, "wanted embedding 32, 2 blocks.*came embedding 32, 1 blocks"),
    "patch": ({}, {"patch_size": [1, 8, 8]}, r"wanted .*patch \(1, 16, 16\).*came .*patch \(1, 8, 8\)"),
    "tubelet": ({}, {"patch_size": [2, 16, 16], "encodings": False}, r"came .*patch \(2, 16, 16\)"),
    "bands": ({}, {"in_chans": 4}, "its patch embedding has 4 bands, 6 were named"),
    "no encodings": ({}, {"encodings": False}, r"temporal_embed_enc\.scale"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded(case):
    ours, theirs, words = REFUSALS[case]
    backbone = make(**ours)
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(InputError, match=words) as error:
        load_pretrained(backbone, published(**theirs), source="strange.pt")
    assert str(error.value).startswith("strange.pt: ")
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_file_without_a_prithvi_encoder_is_refused():
    with pytest.raises(InputError, match=r"w\.pt: no Prithvi encoder"):
        load_pretrained(make(), {"conv1.weight": torch.zeros(3)}, source="w.pt")
    with pytest.raises(InputError, match="another architecture"):
        load_pretrained(make(), {"encoder.patch_embed.proj.weight": torch.zeros(3)}, source="w.pt")
