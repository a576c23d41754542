import copy

import pytest
import torch
from torch import nn

from models.backbones.lora import LoraLinear, add_lora, merge_lora
from models.backbones.prithvi_eo import PrithviEO
from models.errors import InputError

X = torch.randn(2, 6, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return PrithviEO("prithvi_eo_v2_300", tile=32, overrides={"embed_dim": 32, "depth": 3, "num_heads": 2}).eval()


def stir(module):
    """Give the adapters values, as training does."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith((".up", ".down")):
                parameter.normal_(std=0.3)


def test_adapters_change_nothing_at_first(backbone):
    before = backbone(X)[-1]
    assert add_lora(backbone, rank=4) == 2 * 3  # qkv and proj of three blocks
    torch.testing.assert_close(backbone(X)[-1], before, rtol=0, atol=0)


def test_only_the_adapters_are_trained(backbone):
    frozen = {key: value.clone() for key, value in backbone.state_dict().items()}
    add_lora(backbone, rank=4)
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    assert all(name.endswith((".up", ".down")) for name in trained)
    sizes = sum(p.numel() for p in trained.values())
    assert sizes == 3 * 4 * ((32 + 96) + (32 + 32))  # rank * (inputs + outputs) of qkv and of proj
    stir(backbone)
    optimiser = torch.optim.SGD(trained.values(), lr=0.1)
    before = {name: p.detach().clone() for name, p in trained.items()}
    (backbone(X)[-1] - X.mean()).abs().sum().backward()
    optimiser.step()
    assert all(not torch.equal(p, before[name]) for name, p in trained.items())
    after = {key.replace(".base.", "."): value for key, value in backbone.state_dict().items()}
    assert all(torch.equal(value, after[key]) for key, value in frozen.items())


def test_merging_gives_the_same_outputs_and_the_plain_layers_back(backbone):
    keys = set(backbone.state_dict())
    plain = backbone(X)[-1]
    add_lora(backbone, rank=4, alpha=6.0)
    stir(backbone)
    with_adapters = backbone(X)[-1]
    assert not torch.allclose(with_adapters, plain, atol=1e-3)
    assert merge_lora(backbone) == 6
    torch.testing.assert_close(backbone(X)[-1], with_adapters, rtol=1e-4, atol=1e-5)
    assert set(backbone.state_dict()) == keys
    assert not any(isinstance(m, LoraLinear) for m in backbone.modules())
    assert merge_lora(backbone) == 0


def test_the_product_is_scaled_by_alpha_over_rank():
    base = nn.Linear(5, 3)
    layer = LoraLinear(copy.deepcopy(base), rank=2, alpha=8.0)
    stir(nn.ModuleDict({"x": layer}))
    x = torch.randn(4, 7, 5)
    wanted = base(x) + 4 * torch.einsum("oi,bni->bno", layer.up @ layer.down, x)
    torch.testing.assert_close(layer(x), wanted)


def test_targets_choose_the_layers(backbone):
    assert add_lora(backbone, targets=("mlp.fc1",)) == 3
    assert [n for n, m in backbone.named_modules() if isinstance(m, LoraLinear)] == [
        f"vit.blocks.{i}.mlp.fc1" for i in range(3)
    ]


@pytest.mark.parametrize(
    ("options", "words"), [({"rank": 0}, "LoRA rank 0"), ({"targets": ("conv",)}, r"named \.\.\.conv")]
)
def test_impossible_adapters_are_refused(backbone, options, words):
    with pytest.raises(InputError, match=words):
        add_lora(backbone, **options)
