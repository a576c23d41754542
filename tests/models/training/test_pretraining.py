"""Masked autoencoding: the published loss where all is valid, and nothing of what is not."""

import math

import numpy as np
import pytest
import torch
from terratorch.models.backbones.prithvi_mae import PrithviMAE

from models.backbones.prithvi_eo import config
from models.errors import InputError
from models.training.pretraining import MaskedAutoencoder, Reconstruction, masked_error, seen_tokens
from tests.runs import TINY_MAE

NAME, FRAMES, SIDE, PATCH = "prithvi_eo_v2_tiny_tl", 2, 64, 16
TOKENS = FRAMES * (SIDE // PATCH) ** 2


def make(seed=0, **changes):
    torch.manual_seed(seed)
    return MaskedAutoencoder(NAME, frames=FRAMES, tile=SIDE, overrides=TINY_MAE | changes)


def batch(count=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    return {
        "imagery": 1500 + 800 * torch.randn(count, 6, FRAMES, SIDE, SIDE, generator=g),
        "y": torch.ones(count, SIDE, SIDE, dtype=torch.bool),
        "noise": torch.rand(count, TOKENS, generator=g),
        "time": torch.tensor([[[2020.0, 123.0], [2021.0, 5.0]]]).repeat(count, 1, 1),
        "location": torch.tensor([[10.5, -75.1]]).repeat(count, 1),
    }


def half_valid():
    """A batch whose first sample has two patches without data, and half a patch of it."""
    given = batch()
    given["y"][0, :PATCH, : 2 * PATCH] = False
    given["y"][0, 2 * PATCH : 2 * PATCH + 8, :PATCH] = False
    return given


def test_where_all_is_valid_the_loss_is_that_of_the_published_code():
    network, given = make(), batch()
    fields = config(NAME, **TINY_MAE) | {"img_size": SIDE, "num_frames": FRAMES}
    theirs = PrithviMAE(**fields)
    theirs.load_state_dict(network.published())  # strict: each key, and no other
    masking = theirs.encoder.random_masking
    theirs.encoder.random_masking = lambda x, ratio: masking(x, ratio, noise=given["noise"])
    x = (given["imagery"] - network.mean) / network.std
    loss, images, hidden = theirs(x, given["time"], given["location"], mask_ratio=0.75)
    torch.testing.assert_close(network.loss(given), loss["loss"], rtol=1e-5, atol=1e-6)
    ours, asked = network.reconstructed(given)
    assert torch.equal(asked, hidden.bool())
    told = torch.where(hidden.bool()[:, None], images * network.std + network.mean, given["imagery"])
    torch.testing.assert_close(ours, told, rtol=1e-4, atol=0.1)


def test_a_quarter_of_the_tokens_that_hold_data_is_seen():
    live = torch.ones(3, 16, dtype=torch.bool)
    live[1, :9] = False  # 7 left: one is seen
    live[2] = False
    seen = seen_tokens(live, torch.rand(3, 16, generator=torch.Generator().manual_seed(0)), 0.75)
    assert seen.sum(dim=1).tolist() == [4, 1, 0] and not (seen & ~live).any()
    noise = torch.tensor([[0.4, 0.1, 0.3, 0.2]])
    assert seen_tokens(torch.ones(1, 4, dtype=torch.bool), noise, 0.5).tolist() == [[False, True, False, True]]


def test_error_is_the_mean_over_values_that_are_asked_for():
    rng = np.random.default_rng(0)
    told, truth = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    asked = rng.random((2, 3, 4)) < 0.5
    wanted, count = 0.0, 0
    for place in zip(*np.nonzero(asked), strict=True):
        wanted, count = wanted + (float(told[place]) - float(truth[place])) ** 2, count + 1
    truth[~asked] = np.nan
    found = masked_error(*map(torch.from_numpy, (told, truth, asked)))
    assert found.item() == pytest.approx(wanted / count, rel=1e-6)
    assert masked_error(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.bool)) == 0


def test_loss_of_partly_valid_samples_by_hand():
    network, given = make().eval(), half_valid()
    with torch.inference_mode():
        told, seen = network(given)
        loss = network.loss(given).item()
    mean, std = np.array(config(NAME)["mean"]), np.array(config(NAME)["std"])
    x, valid = given["imagery"].numpy(), given["y"].numpy()
    errors = []
    for b, token in np.ndindex(2, TOKENS):
        t, row, column = np.unravel_index(token, (FRAMES, SIDE // PATCH, SIDE // PATCH))
        place = slice(row * PATCH, (row + 1) * PATCH), slice(column * PATCH, (column + 1) * PATCH)
        if seen[b, token]:
            assert valid[b][place].any()
            continue
        values = told[b, token].numpy().reshape(PATCH, PATCH, 6)  # channels last, as published
        truth = (x[b, :, t][(slice(None), *place)].transpose(1, 2, 0) - mean) / std
        errors += [*((values - truth)[valid[b][place]] ** 2).ravel()]
    assert loss == pytest.approx(np.mean(errors), rel=1e-4)
    assert seen.sum(dim=1).tolist() == [7, 8]  # of 28 and of 32


@pytest.mark.parametrize("value", [1e6, math.nan])
def test_what_is_not_valid_changes_nothing(value):
    ends = []
    for filled in (0.0, value):
        network, given = make(), half_valid()
        given["imagery"] = torch.where(given["y"][:, None, None], given["imagery"], filled)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
        for _ in range(2):
            optimiser.zero_grad()
            loss = network.loss(given)
            loss.backward()
            optimiser.step()
        ends.append((loss.item(), network.published()))
    assert ends[0][0] == ends[1][0] and math.isfinite(ends[0][0])
    assert all(torch.equal(ends[0][1][key], ends[1][1][key]) for key in ends[0][1])


def test_a_sample_is_told_the_same_beside_others_with_less_data():
    network, given = make().eval(), half_valid()
    with torch.inference_mode():
        both, _ = network(given)
        for i in range(2):
            alone, _ = network({key: value[i : i + 1] for key, value in given.items()})
            torch.testing.assert_close(both[i], alone[0], rtol=1e-4, atol=1e-5)


def test_a_sample_without_data_is_no_loss_and_no_trouble():
    network, given = make(), batch()
    given["y"][:] = False
    assert network.loss(given) == 0
    objective = Reconstruction(network)
    objective.validate(given)
    assert not objective.scores["rmse"].update_called


def test_what_is_hidden_is_learned():
    """Of flat samples a seen patch tells all others; what cannot be known of these is the noise of 5 in 800."""
    network, given, rng = make(), batch(4), torch.Generator().manual_seed(3)
    levels = 1500 + 800 * torch.randn(4, 6, 1, 1, 1, generator=rng)
    given["imagery"] = levels + 5 * torch.randn(4, 6, FRAMES, SIDE, SIDE, generator=rng)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    first = network.loss(given).item()
    for _ in range(60):
        given["noise"] = torch.rand(4, TOKENS, generator=rng)
        optimiser.zero_grad()
        loss = network.loss(given)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05 * first


def test_published_decoder_is_taken_where_it_fits():
    state = make(seed=5).published()
    network = make(seed=9)
    assert network.load_decoder(state)
    assert all(torch.equal(value, state[f"decoder.{key}"]) for key, value in network.decoder.state_dict().items())
    assert make().load_decoder({key.removeprefix("decoder."): value for key, value in state.items()})  # Prithvi 1.0
    assert not make(decoder_depth=2).load_decoder(state)
    assert not make().load_decoder({key: value for key, value in state.items() if "mask_token" not in key})


def test_encodings_without_coordinates_are_not_trained():
    network = make()
    network.freeze_unused(time=False, location=True)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"backbone.vit.temporal_embed_enc.scale", "decoder.temporal_embed_dec.scale"}


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="decoder_embed_dim 40 with 2 heads"):
        make(decoder_embed_dim=40)
