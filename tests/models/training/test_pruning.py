"""Pruning: what stays answers as before where what went was idle, and sizes are kept to."""

import pytest
import torch

from models.errors import InputError
from models.networks.network import Network
from models.runtime.export import example_inputs
from models.training.pruning import parameters, prune, smaller
from models.training.settings import Architecture

BACKBONE = "prithvi_eo_v2_300_tl"
WIDE = {"embed_dim": 32, "depth": 4, "num_heads": 2}


def lively(network, seed=1):
    """A network whose norms have seen something, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        for values, low in ((norm.running_mean, -0.5), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -0.5)):
            values.data.copy_(low + torch.rand(values.shape, generator=generator))
    return network.eval()


def built(spec, seed=0, **settings):
    torch.manual_seed(seed)
    overrides = WIDE | settings.pop("overrides", {})
    return lively(Network(spec, BACKBONE, Architecture(overrides=overrides, **settings)), seed)


def answers(network, spec):
    with torch.inference_mode():
        return network(example_inputs(spec, batch=2))


@pytest.mark.parametrize(
    ("task", "about"),
    [
        ("segmentation", {"frames": 2, "uses_time": True, "uses_location": True}),
        ("regression", {}),
        ("classification", {"frames": 2}),
    ],
)
@pytest.mark.parametrize("detail", [4, 0])
def test_a_network_of_the_same_size_answers_as_its_teacher(make_spec, task, about, detail):
    spec = make_spec(task, **about)
    settings = {"decoder": "linear", "channels": 8, "detail": detail, "statistics": 0, "blocks": (1, 3)}
    teacher, student = built(spec, **settings), built(spec, seed=5, **settings)
    assert not torch.allclose(answers(student, spec)[0], answers(teacher, spec)[0], atol=1e-3)
    kept = prune(teacher, student, [example_inputs(spec, batch=2)])
    torch.testing.assert_close(answers(student, spec), answers(teacher, spec))
    assert kept.tolist() == list(range(32))


def test_channels_that_say_nothing_go_and_no_answer_changes(make_spec):
    """Half of each layer of the detail path, the decoder and the hidden units is idle; another half for each."""
    spec = make_spec("segmentation")
    wide = {"decoder": "linear", "channels": 16, "detail": 8, "pixel": (24, 12), "statistics": 0, "blocks": (1, 3)}
    narrow = wide | {"channels": 8, "detail": 4, "pixel": (12, 6), "overrides": {"mlp_ratio": 2.0}}
    teacher, student = built(spec, **wide), built(spec, seed=5, **narrow)
    generator = torch.Generator().manual_seed(3)

    def idle(count):
        return torch.randperm(count, generator=generator)[: count // 2]

    with torch.no_grad():
        for norm in (m for m in teacher.head.modules() if type(m) is torch.nn.BatchNorm2d):
            off = idle(len(norm.weight))
            norm.weight[off], norm.bias[off] = 0, 0
        body = teacher.head.decoder.body.conv
        off = idle(16)
        body.weight[:, off], body.bias[off] = 0, 0
        for block in teacher.backbone.vit.blocks:
            block.mlp.fc2.weight[:, idle(128)] = 0
    prune(teacher, student, [example_inputs(spec, batch=2)])
    torch.testing.assert_close(answers(student, spec), answers(teacher, spec), atol=1e-4, rtol=1e-4)


def test_narrower_heads_attend_as_sharply(make_spec):
    """Attention divides by the root of the width: query and key are scaled, so that their products stay."""
    spec = make_spec("segmentation")
    settings = {"decoder": "linear", "channels": 8, "detail": 0, "statistics": 0, "blocks": (0,)}
    teacher = built(spec, overrides={"embed_dim": 32, "depth": 1}, **settings)
    student = built(spec, seed=5, overrides={"embed_dim": 16, "depth": 1}, **settings)
    with torch.no_grad():
        qkv = teacher.backbone.vit.blocks[0].attn.qkv
        rows = torch.cat([torch.arange(8, 16) + part * 32 + head * 16 for part in (0, 1) for head in (0, 1)])
        qkv.weight[rows], qkv.bias[rows] = 0, 0  # half of each head's pairs are idle
    kept = prune(teacher, student, [example_inputs(spec, batch=2)])
    x = torch.zeros(1, 5, 32)
    x[..., kept] = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))

    def scores(block, x):
        q, k, _ = block.attn.qkv(x).unflatten(-1, (3, 2, -1)).unbind(2)  # (1, 5, heads, width)
        return torch.einsum("bnhd,bmhd->bhnm", q, k) * block.attn.head_dim**-0.5

    wanted, got = scores(teacher.backbone.vit.blocks[0], x), scores(student.backbone.vit.blocks[0], x[..., kept])
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("part", [2, 6, 10])
def test_a_smaller_network_has_at_most_so_many_parameters_and_nearly_that(make_spec, part):
    spec = make_spec("segmentation")
    given = Architecture(decoder="linear", channels=96, detail=16, statistics=64, blocks=(5, 11))
    whole = parameters(spec, "prithvi_eo_v2_tiny_tl", given)
    made = smaller(spec, "prithvi_eo_v2_tiny_tl", given, whole // part)
    count = sum(w.numel() for w in Network(spec, "prithvi_eo_v2_tiny_tl", made).parameters())
    assert 0.7 * whole / part < count <= whole / part
    assert len(made.blocks) == 2 and max(made.blocks) == made.overrides["depth"] - 1


def test_sizes_that_cannot_be_are_refused(make_spec):
    spec, given = make_spec("segmentation"), Architecture(overrides=WIDE, decoder="linear", channels=8)
    with pytest.raises(InputError, match=r"--params 10: the smallest of this run has [\d,]+ parameters"):
        smaller(spec, BACKBONE, given, 10)
    with pytest.raises(InputError, match=r"the run has [\d,]+ parameters; wanted fewer"):
        smaller(spec, BACKBONE, given, 10**9)


def test_scene_classes_shrink_without_settings_that_they_have_no_use_for(make_spec):
    spec, given = make_spec("classification"), Architecture(overrides=WIDE, channels=64)
    made = smaller(spec, BACKBONE, given, parameters(spec, BACKBONE, given) // 2)
    assert (made.detail, made.pixel, made.statistics) == (given.detail, given.pixel, given.statistics)
    assert made.channels < 64


@pytest.mark.parametrize("decoder", ["upernet", "unet", "fcn"])
def test_other_decoders_are_learned_anew_and_the_rest_stays(make_spec, decoder):
    spec = make_spec("segmentation")
    given = Architecture(overrides=WIDE, decoder=decoder, channels=16, detail=4, statistics=0, blocks=(0, 1, 2, 3))
    torch.manual_seed(0)
    teacher = lively(Network(spec, BACKBONE, given))
    made = smaller(spec, BACKBONE, given, int(0.8 * parameters(spec, BACKBONE, given)))
    student = Network(spec, BACKBONE, made).eval()
    own = {name: value.clone() for name, value in student.head.decoder.state_dict().items()}
    kept = prune(teacher, student, [example_inputs(spec, batch=2)])
    assert all(torch.equal(value, own[name]) for name, value in student.head.decoder.state_dict().items())
    patch = teacher.backbone.vit.patch_embed.proj.weight[kept]
    assert torch.equal(student.backbone.vit.patch_embed.proj.weight, patch)
    first = student.head.detail.pixel[0][1].weight
    assert set(first.tolist()) <= set(teacher.head.detail.pixel[0][1].weight.tolist())
    assert answers(student, spec).isfinite().all()
