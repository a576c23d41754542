import copy
import dataclasses
import math
import os
import pickle
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from models.backbones import wxc_canvas
from models.backbones.catalogue import WXC_REPO, WXC_VARIANTS
from models.backbones.prithvi_wxc import WxCEncoder, WxCForecaster
from models.backbones.wxc_canvas import Canvas, from_units, to_units
from models.backbones.wxc_climatology import climatology_names, locate_climatology, read_climatology
from models.backbones.wxc_files import (
    SCALER_FILES,
    WxCConfig,
    WxCFiles,
    WxCScalers,
    as_safetensors,
    local_files,
    locate_files,
    published_config,
    read_config,
    read_scalers,
)
from models.backbones.wxc_inputs import (
    LEVELS,
    STATIC,
    SURFACE,
    VERTICAL,
    advance,
    channel_names,
    climatology_index,
    kept_rows,
    make_batch,
    stack_channels,
    static_channels,
    time_terms,
)
from models.backbones.wxc_weights import fill_random, load_pretrained, load_state
from models.errors import InputError
from tests.wxc_repo import checkpoint, climatology, network, repository, scaler_files

REAL = Path(__file__).parents[4] / "shared" / "data" / "merra2_wxc"
PLAIN, ROLLOUT = "prithvi_wxc_2300m", "prithvi_wxc_2300m_rollout"
TINY = WxCConfig(embed_dim=32, encoder_blocks=2, decoder_blocks=2, mlp_multiplier=2, heads=4)
MINI = WxCConfig(surface=("T2M", "PS"), vertical=("U",), levels=(51, 72), static=("PHIS",), embed_dim=16, heads=2)
MINI = dataclasses.replace(MINI, encoder_blocks=2, mlp_multiplier=2)


def sample(height, width, *, samples=1, channels=160, static=4, seed=1, south=-30.0, west=10.0):
    """A batch of random fields, rows from south to north."""
    g = torch.Generator().manual_seed(seed)
    terms = torch.randn(samples, 6 + static, height, width, generator=g)
    terms[:, 0] = torch.deg2rad(south + 0.5 * torch.arange(height))[:, None]
    terms[:, 1] = torch.deg2rad(west + 0.625 * torch.arange(width))
    return {
        "x": torch.randn(samples, 2, channels, height, width, generator=g),
        "static": terms,
        "climate": torch.randn(samples, channels, height, width, generator=g),
        "input_time": torch.linspace(3, 9, samples),
        "lead_time": torch.linspace(6, 24, samples),
    }


def turned(batch):
    """The same region with its rows from north to south."""
    return {key: value.flip(-2) if value.ndim > 2 else value for key, value in batch.items()}


def theirs(net, batch):
    """What PrithviWxC itself computes without masking, tokens in grid order."""
    from PrithviWxC.model import masked_inference

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", FutureWarning)  # of the attention kernels
        return masked_inference(net, batch | {"y": batch["climate"]})


def loaded(kind, net, **fields):
    config = dataclasses.replace(TINY, encoder_shifting=net._encoder_shift, decoder_shifting=net._decoder_shift)
    model = kind(dataclasses.replace(config, residual=net.residual, **fields))
    load_state(model, net.state_dict(), source="net")
    return model.eval()


def run(model, batch):
    with torch.inference_mode():
        return model(batch)


@pytest.fixture(scope="module")
def forecaster():
    return loaded(WxCForecaster, network())


@pytest.fixture(scope="module")
def mini():
    torch.manual_seed(3)
    return WxCForecaster(MINI).eval()


# ---------------------------------------------------------------- channels


def test_the_channels_are_the_published_ones_in_their_order():
    names = channel_names()
    assert len(names) == 160 and names[:20] == SURFACE
    assert names[20:34] == tuple(f"CLOUD_{level}" for level in LEVELS)
    assert (names[12], names[34], names[159]) == ("T2M", "H_34", "V_72")
    from PrithviWxC import definitions

    assert tuple(v for v in definitions.VALID_SURFACE_VARS if v != "PRECTOT") == SURFACE
    assert (tuple(definitions.VALID_VERTICAL_VARS), tuple(definitions.VALID_LEVELS)) == (VERTICAL, LEVELS)


@pytest.mark.parametrize("stored", [LEVELS, LEVELS[::-1], LEVELS[3:] + LEVELS[:3], tuple(float(v) for v in LEVELS)])
def test_levels_are_chosen_by_their_label(stored):
    deep = {v: np.full((2, 14, 3, 4), 1000.0 * i) + np.array(stored)[:, None, None] for i, v in enumerate(VERTICAL)}
    flat = {v: np.full((2, 3, 4), -1.0 - i) for i, v in enumerate(SURFACE)}
    x = stack_channels(channel_names(), flat, deep, levels=stored)
    assert x.shape == (2, 160, 3, 4) and x.dtype == np.float32
    assert x[1, :20, 2, 3].tolist() == [-1.0 - i for i in range(20)]
    assert x[0, 20:, 0, 0].tolist() == [1000 * i + level for i in range(10) for level in LEVELS]


def test_the_rule_for_missing_values():
    hole = np.array([[np.nan, 0.5]])
    assert stack_channels(["GWETROOT", "LAI"], {"GWETROOT": hole, "LAI": hole}).tolist() == [[[1, 0.5]], [[0, 0.5]]]
    with pytest.raises(InputError, match="TS: 1 of 2 values are missing"):
        stack_channels(["TS"], {"TS": hole})


def test_what_is_not_there_is_refused():
    flat, deep = {"PS": np.zeros((3, 4)), "TS": np.zeros((3, 5))}, {"U": np.zeros((2, 3, 4))}
    for channels, levels, words in (
        (["T2M"], (), "T2M: no such field; came PS, TS, U"),
        (["PS", "TS"], (), r"TS: its shape is \(3, 5\), that of PS is \(3, 4\)"),
        (["U_51"], (51,), r"U: wanted \(\.\.\., 1 levels"),
        (["U_51"], (50, 72), "U_51: wanted level 51 once; came 50, 72"),
    ):
        with pytest.raises(InputError, match=words):
            stack_channels(channels, flat, deep, levels=levels)


def test_static_terms_are_those_worked_by_hand():
    # 1 April 2020 is day 92 of a leap year; 06 UTC is a quarter of a day.
    fields = {name: np.full((2, 3), i) for i, name in enumerate(STATIC)}
    static = static_channels(datetime(2020, 4, 1, 6), np.array([45.0, -90.0]), np.array([0.0, 90.0, 135.0]), fields)
    assert static.shape == (10, 2, 3)
    np.testing.assert_allclose(static[0], [[math.pi / 4] * 3, [-math.pi / 2] * 3], rtol=1e-6)
    np.testing.assert_allclose(static[1], [[0, math.pi / 2, 3 * math.pi / 4]] * 2, rtol=1e-6)
    angle = 2 * math.pi * 92 / 366
    np.testing.assert_allclose(static[2:6, 1, 2], [math.cos(angle), math.sin(angle), 0.0, 1.0], atol=1e-7)
    assert static[6:, 0, 0].tolist() == [0, 1, 2, 3]


def test_longitudes_start_in_the_pretrained_range_and_run_on_over_the_antimeridian():
    for lon in ([190.0, 200.0], [-170.0, -160.0]):
        static = static_channels(datetime(2020, 1, 1), np.zeros(1), np.array(lon), {}, names=())
        np.testing.assert_allclose(static[1, 0], np.radians([-170, -160]), rtol=1e-6)
    across = static_channels(datetime(2020, 1, 1), np.zeros(1), np.array([179.0, -179.0]), {}, names=())
    np.testing.assert_allclose(across[1, 0], np.radians([179, 181]), rtol=1e-6)


def test_the_climatology_of_a_leap_years_last_days():
    assert climatology_index(datetime(2020, 12, 31, 21)) == (365, 21)
    assert climatology_index(np.datetime64("2020-12-30T03:00")) == (365, 3)
    assert climatology_index(np.datetime64("2021-03-01", "ns")) == (60, 0)
    assert climatology_index(datetime.fromisoformat("2021-01-01T01:00+02:00")) == (365, 23)
    assert climatology_index(datetime(2021, 1, 1, tzinfo=UTC)) == (1, 0)
    assert climatology_names(datetime(2021, 1, 9, 6))[1] == "climatology/climate_vertical_doy009_hour06.nc"
    with pytest.raises(InputError, match="every three hours"):
        climatology_names(datetime(2021, 1, 9, 7))


@pytest.mark.parametrize("lat", [np.linspace(-90, 90, 361), np.linspace(90, -90, 361)])
def test_the_north_pole_of_the_whole_globe_is_left_out(lat):
    kept = lat[kept_rows(lat)]
    assert len(kept) == 360 and kept.max() == 89.5 and kept.min() == -90
    assert kept_rows(lat[:200]) == slice(0, 200)


def fields_of(height, width, times=2):
    rng = np.random.default_rng(0)
    surface = {name: rng.normal(size=(times, height, width)) for name in SURFACE}
    vertical = {name: rng.normal(size=(times, 14, height, width)) for name in VERTICAL}
    return surface, vertical, {name: rng.normal(size=(height, width)) for name in STATIC}


def build(height=4, width=6, **changes):
    surface, vertical, static = fields_of(height, width)
    fields = {
        "levels": LEVELS[::-1],
        "lat": np.linspace(45, 45 - 0.5 * (height - 1), height),
        "lon": np.arange(width) * 0.625 - 100,
        "times": [datetime(2020, 3, 29, 21), datetime(2020, 3, 30, 3)],
        "lead": 12,
        "static": static,
        "climate": np.zeros((160, height, width)),
    }
    return make_batch(channel_names(), surface, vertical, **fields | changes)


def test_a_batch_has_the_published_keys_and_shapes():
    batch = build()
    shapes = {key: tuple(value.shape) for key, value in batch.items()}
    assert shapes == {
        "x": (1, 2, 160, 4, 6),
        "static": (1, 10, 4, 6),
        "climate": (1, 160, 4, 6),
        "input_time": (1,),
        "lead_time": (1,),
    }
    assert (batch["input_time"].item(), batch["lead_time"].item()) == (6, 12)
    surface, vertical, static = fields_of(4, 6)
    np.testing.assert_allclose(batch["x"][0, :, 12], surface["T2M"], rtol=1e-6)
    np.testing.assert_allclose(batch["x"][0, 1, 20 + 8 * 14 + 7], vertical["U"][1, LEVELS[::-1].index(51)], rtol=1e-6)
    np.testing.assert_allclose(batch["static"][0, 9], static["PHIS"], rtol=1e-6)
    np.testing.assert_allclose(batch["static"][0, 2:6, 0, 0], time_terms(datetime(2020, 3, 30, 3)), rtol=1e-6)
    assert all(value.dtype == torch.float32 for value in batch.values())


def test_a_batch_of_the_whole_globe_has_a_row_less():
    lat, lon = np.linspace(90, -90, 31), np.arange(-180, 180, 12.0)
    batch = build(31, 30, lat=lat, lon=lon)
    surface, _, static = fields_of(31, 30)
    assert batch["x"].shape[-2:] == batch["climate"].shape[-2:] == (30, 30)
    np.testing.assert_allclose(batch["x"][0, 1, 12], surface["T2M"][1, 1:], rtol=1e-6)
    np.testing.assert_allclose(batch["static"][0, 9], static["PHIS"][1:], rtol=1e-6)
    np.testing.assert_allclose(batch["static"][0, 0, :, 0], np.radians(lat[1:]), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lead": -6}, "a lead from 0 up"),
        ({"times": [datetime(2020, 3, 30, 3), datetime(2020, 3, 29)]}, "times that grow"),
        ({"times": [datetime(2020, 3, 30)]}, r"wanted \(times, rows, columns\) \(1, 4, 6\), came \(2, 4, 6\)"),
        ({"lat": np.array([1.0, 2.0, 2.0, 3.0])}, "lat: wanted"),
        ({"lon": np.arange(6)[::-1]}, "lon: wanted"),
        ({"climate": np.zeros((159, 4, 6))}, "climate: wanted"),
        ({"climate": np.full((160, 4, 6), np.nan)}, "EFLUX: 24 of 24|HFLUX: 24 of 24"),
        ({"static": {"FRACI": np.zeros((4, 6))}}, "FRLAND: no such field"),
    ],
)
def test_what_makes_no_batch_is_refused(changes, words):
    with pytest.raises(InputError, match=words) as error:
        build(**changes)
    assert "\n" not in str(error.value)


def test_a_rollout_step_moves_the_window_and_the_clock():
    batch = build(lead=6)
    before = copy.deepcopy(batch)
    forecast, climate = torch.randn(1, 160, 4, 6), torch.randn(1, 160, 4, 6)
    after = advance(batch, forecast, time=datetime(2020, 3, 30, 9), climate=climate)
    assert torch.equal(after["x"][:, 0], batch["x"][:, 1]) and torch.equal(after["x"][:, 1], forecast)
    day, hour = 2 * math.pi * 90 / 366, 2 * math.pi * 9 / 24
    wanted = [math.cos(day), math.sin(day), math.cos(hour), math.sin(hour)]
    np.testing.assert_allclose(after["static"][0, 2:6, 1, 1], wanted, rtol=1e-5)
    assert torch.equal(after["static"][:, [0, 1, 6, 7, 8, 9]], batch["static"][:, [0, 1, 6, 7, 8, 9]])
    assert torch.equal(after["climate"], climate)
    assert all(torch.equal(batch[key], before[key]) for key in batch)
    with pytest.raises(InputError, match="wanted a lead equal to the distance"):
        advance(build(lead=12), forecast, time=datetime(2020, 3, 30, 15))


# ---------------------------------------------------------------- mask units


@given(st.tuples(*[st.integers(1, 4)] * 4), st.integers(1, 2), st.integers(1, 3))
def test_mask_units_are_undone_exactly(sides, samples, width):
    r, c, down, across = sides
    x = torch.arange(samples * width * r * down * c * across).reshape(samples, width, r * down, c * across)
    units = to_units(x, (r, c))
    assert units.shape == (samples, down * across, r * c, width)
    assert torch.equal(from_units(units, (r, c), (r * down, c * across)), x)
    assert torch.equal(units[:, -1, 0], x[:, :, -r, -c])


def test_mask_units_are_those_of_the_published_network():
    net = network((60, 96))
    x = torch.randn(2, 32, 30, 48)
    assert torch.equal(to_units(x, (15, 16)), net.to_patching(x))
    units = torch.randn(2, 6, 240, 12)
    assert torch.equal(from_units(units, (15, 16), (30, 48)), net.from_patching(units))


@given(st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_a_region_comes_back_from_its_canvas(height, width, north_up):
    canvas = Canvas(height, width, -(-height // 30) * 30, -(-width // 32) * 32, 2, north_up)
    x = torch.arange(height * width).reshape(1, height, width)
    laid = canvas.lay(x)
    assert laid.shape == (1, canvas.rows, canvas.columns)
    assert torch.equal(canvas.take(laid), x)
    assert torch.equal(laid[0, 0, 0], x[0, -1 if north_up else 0, 0])
    patches = canvas.take_patches(laid[:, ::2, ::2])
    pixels = patches.repeat_interleave(2, -2).repeat_interleave(2, -1)
    assert tuple(patches.shape[-2:]) == (-(-height // 2), -(-width // 2))
    assert canvas.crop(pixels).shape == x.shape
    covering = laid[:, ::2, ::2].repeat_interleave(2, -2).repeat_interleave(2, -1)  # the patch over each pixel
    assert torch.equal(canvas.crop(pixels), canvas.take(covering))


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize("shifting", [False, True])
@pytest.mark.parametrize("grid", [(60, 64), (30, 96)])
def test_a_forecast_is_that_of_the_published_forward(grid, shifting):
    net = network(grid, decoder_shifting=shifting)
    batch = sample(*grid, samples=2)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", FutureWarning)
        wanted = net(batch | {"y": batch["climate"]})
    torch.testing.assert_close(run(loaded(WxCForecaster, net), batch), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("residual", ["climate", "temporal", "none"])
@pytest.mark.parametrize("blocks", [2, 3])
def test_shifted_encoders_and_every_residual_agree_with_the_published_masked_inference(residual, blocks):
    net = network((60, 96), encoder_shifting=True, residual=residual, n_blocks_encoder=blocks)
    batch = sample(60, 96, samples=2) | {"lead_time": torch.tensor([0.0, 6.0])}
    model = loaded(WxCForecaster, net, encoder_blocks=blocks)
    torch.testing.assert_close(run(model, batch), theirs(net, batch), rtol=1e-4, atol=1e-4)


def test_the_encoder_is_that_of_the_whole_model():
    net, batch = network(), sample(60, 64, samples=2)
    came = []
    net.encoder.register_forward_hook(lambda _, __, out: came.append(out))
    theirs(net, batch)
    wanted = net.from_patching(came[0])
    encoder = loaded(WxCEncoder, net)
    (features,) = run(encoder, batch)
    assert features.shape == (2, 32, 30, 32)
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)
    assert not any(key.startswith(("decoder", "unembed")) for key in encoder.net.state_dict())


def test_embedded_tokens_are_a_plain_convolution_and_codes_of_place_and_time():
    net, batch = network(), sample(60, 64, samples=2)
    model = loaded(WxCForecaster, net)
    with torch.inference_mode():
        got = model.embed(batch, model.canvas(batch))
    state = {key: value.double() for key, value in net.state_dict().items()}
    mu, sigma = state["input_scalers_mu"], state["input_scalers_sigma"]
    x = ((batch["x"] - mu) / sigma).flatten(1, 2)
    fixed = (batch["static"][:, 2:] - state["static_input_scalers_mu"][:, 3:]) / state["static_input_scalers_sigma"][
        :, 3:
    ]
    climate = (batch["climate"] - mu[:, 0]) / sigma[:, 0]
    wanted = torch.zeros(2, 32, 30, 32, dtype=torch.float64)
    for name, inputs in (("patch_embedding", x), ("patch_embedding_static", torch.cat((fixed, climate), 1))):
        weight, bias = state[f"{name}.proj.weight"], state[f"{name}.proj.bias"]
        patches = F.unfold(inputs, 2, stride=2)  # (B, C*4, N)
        wanted += (weight.flatten(1) @ patches + bias[:, None]).reshape(2, 32, 30, 32)
    lat, lon = (F.avg_pool2d(batch["static"][:, [i]].double(), 2) for i in (0, 1))
    k = torch.arange(1, 9, dtype=torch.float64)[:, None, None]
    wanted += torch.cat((torch.sin(k * lat), torch.sin(k * lon), torch.cos(k * lat), torch.cos(k * lon)), 1)
    hours = (("input_time", batch["input_time"]), ("lead_time", batch["lead_time"]))
    angles = [
        h[:, None].double() * state[f"{n}_embedding.weight"][:, 0] + state[f"{n}_embedding.bias"] for n, h in hours
    ]
    wanted += torch.cat([f(a) for f in (torch.cos, torch.sin) for a in angles], 1)[:, :, None, None]
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


def test_twice_the_same(forecaster):
    batch = sample(60, 64)
    assert torch.equal(run(forecaster, batch), run(forecaster, batch))
    forecaster.train()
    assert torch.equal(run(forecaster, batch), run(forecaster.eval(), batch))


def test_blocks_of_shifted_windows_come_out_in_place():
    """A constant added to one corner's tokens shows up in that corner of every block's map."""
    torch.manual_seed(0)
    config = dataclasses.replace(MINI, encoder_shifting=True)
    encoder = WxCEncoder(config, blocks=(0, 1, 2, 3, 4)).eval()
    for transformer in encoder.net.encoder.lgl_block.transformers:
        nn.init.zeros_(transformer.attention[1].w_layer.weight)  # tokens do not mix
    batch = sample(60, 64, channels=4, static=1)
    other = {key: value.clone() for key, value in batch.items()}
    other["x"][..., 50:, 60:] += 3
    for one, two in zip(run(encoder, batch), run(encoder, other), strict=True):
        changed = (one - two).abs().amax(dim=1)[0] > 1e-6
        assert changed[25:, 30:].all() and changed.sum() == changed[25:, 30:].numel()


@pytest.mark.parametrize("shifting", [False, True])
@pytest.mark.parametrize(("height", "width"), [(28, 64), (30, 50), (44, 70), (31, 49), (1, 3)])
def test_padding_does_not_matter(monkeypatch, height, width, shifting):
    torch.manual_seed(0)
    config = dataclasses.replace(MINI, encoder_shifting=shifting)
    models = WxCForecaster(config).eval(), WxCEncoder(config, blocks=(1, 2, 4)).eval()
    batch = sample(height, width, channels=4, static=1)
    wanted = [run(model, batch) for model in models]
    assert wanted[0].shape == (1, 4, height, width) and wanted[0].isfinite().all()
    edge = wxc_canvas._extended

    def garbage(x, total, dim):
        out, size = edge(x, total, dim).clone(), x.shape[dim]
        even = size + size % 2  # the half of a patch that reaches over an odd side does count
        if total > even and x.ndim > 2:
            out.narrow(dim, even, total - even).fill_(1e3)
        return out

    monkeypatch.setattr(wxc_canvas, "_extended", garbage)
    torch.testing.assert_close(run(models[0], batch), wanted[0], rtol=1e-4, atol=1e-4)
    for got, maps in zip(run(models[1], batch), wanted[1], strict=True):
        assert tuple(maps.shape) == (1, 16, -(-height // 2), -(-width // 2))
        torch.testing.assert_close(got, maps, rtol=1e-4, atol=1e-4)


@settings(max_examples=12)
@given(st.integers(1, 62), st.integers(1, 66))
def test_a_region_turned_over_gives_the_same_turned_over(mini, height, width):
    batch = sample(height, width, channels=4, static=1)
    assert torch.equal(run(mini, turned(batch)).flip(-2), run(mini, batch))


def test_feature_maps_turn_over_with_the_region():
    encoder = loaded(WxCEncoder, network())
    for height in (60, 31):
        batch = sample(height, 49)
        assert torch.equal(run(encoder, turned(batch))[0].flip(-2), run(encoder, batch)[0])


def test_coordinates_go_on_in_the_padding():
    batch = sample(29, 31)
    canvas = Canvas.of(turned(batch), mask_unit=(30, 32), patch=2)
    laid = canvas.lay_static(turned(batch)["static"])
    whole = sample(30, 32)["static"]
    torch.testing.assert_close(laid[:, :2], whole[:, :2], rtol=1e-5, atol=1e-5)


def test_samples_of_a_batch_are_their_own(forecaster):
    batch = sample(30, 32, samples=3)
    together = run(forecaster, batch)
    for i in range(3):
        alone = run(forecaster, {key: value[i : i + 1] for key, value in batch.items()})
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_places_and_scalers_exact(forecaster):
    batch = sample(30, 32)
    half = copy.deepcopy(forecaster)
    for parameter in half.parameters():
        parameter.data = parameter.data.bfloat16()
    out, wanted = run(half, batch), run(forecaster, batch)
    assert out.dtype == torch.float32
    added = wanted - batch["climate"]
    assert (out - wanted).abs().mean() < 0.05 * added.abs().mean()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert (forecaster(batch) - wanted).abs().mean() < 0.05 * added.abs().mean()


def test_gradients_are_the_same_when_activations_are_computed_again():
    torch.manual_seed(0)
    plain = WxCEncoder(MINI)
    again = WxCEncoder(MINI, recompute=True)
    again.load_state_dict(plain.state_dict())
    for model in (plain, again):
        model(sample(31, 40, channels=4, static=1))[0].square().mean().backward()
    for (name, one), two in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert (one.grad is None) == (name == "net.mask_token")
        if one.grad is not None:
            assert one.grad.abs().sum() > 0, name
            torch.testing.assert_close(two.grad, one.grad)


def test_models_can_be_copied_and_pickled(mini):
    batch = sample(30, 32, channels=4, static=1)
    for twin in (copy.deepcopy(mini), pickle.loads(pickle.dumps(mini))):
        assert torch.equal(run(twin, batch), run(mini, batch))


def test_batches_that_do_not_fit_are_refused(forecaster):
    batch = sample(30, 32, samples=2)
    for wrong, words in (
        ({k: v for k, v in batch.items() if k != "climate"}, "no climate; came x, static"),
        (batch | {"x": batch["x"][:, :1]}, r"x has the shape \(2, 1, 160, 30, 32\), wanted \(2, 2, 160, 30, 32\)"),
        (batch | {"static": batch["static"][:, 2:]}, "static has the shape"),
        (batch | {"lead_time": batch["lead_time"][:1]}, "lead_time has the shape"),
        ({k: torch.cat((v[:1], turned(batch)[k][:1])) for k, v in batch.items()}, "rows in one direction"),
    ):
        with pytest.raises(InputError, match=words):
            forecaster(wrong)


def test_adapters_find_the_attention(mini):
    from models.backbones.lora import add_lora

    model, batch = copy.deepcopy(mini), sample(30, 32, channels=4, static=1)
    wanted = run(model, batch)
    assert add_lora(model, rank=2, targets=("attention.1.qkv_layer", "attention.1.w_layer")) == 2 * 10
    assert torch.equal(run(model, batch), wanted)


def test_what_cannot_be_built_is_refused():
    for work, words in (
        (lambda: WxCForecaster(dataclasses.replace(MINI, decoder_blocks=0)), "decoder_blocks 0"),
        (lambda: WxCEncoder(MINI, blocks=(5,)), r"blocks \[5\]: the encoder has blocks 0\.\.4"),
        (lambda: dataclasses.replace(MINI, heads=3), "embed_dim 16"),
        (lambda: dataclasses.replace(MINI, mask_unit=(15, 16)), "mask unit"),
        (lambda: dataclasses.replace(MINI, residual="clima"), "wanted climate, temporal or none"),
        (lambda: published_config("prithvi_wxc_9000m"), "wanted one of prithvi_wxc_tiny, prithvi_wxc_2300m"),
    ):
        with pytest.raises(InputError, match=words):
            work()


def test_the_published_models_have_their_size_and_take_no_memory_on_meta():
    with torch.device("meta"):
        whole, encoder = WxCForecaster(), WxCEncoder()
    millions = sum(p.numel() for p in whole.parameters()) / 1e6
    assert millions == pytest.approx(WXC_VARIANTS[PLAIN].parameters, abs=0.06)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(1971.7, abs=0.06)
    tiny = WxCForecaster(published_config("prithvi_wxc_tiny"))
    millions = sum(p.numel() for p in tiny.parameters()) / 1e6
    assert millions == pytest.approx(WXC_VARIANTS["prithvi_wxc_tiny"].parameters, abs=0.06)
    assert all(p.is_meta for p in whole.parameters()) and not any(b.is_meta for b in whole.buffers())


def test_random_weights_fill_a_model_without_memory():
    outs = []
    for seed in (0, 0, 1):
        with torch.device("meta"):
            encoder = WxCEncoder(MINI)
        fill_random(encoder, dtype=torch.bfloat16, seed=seed)
        assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
        outs.append(run(encoder, sample(30, 32, channels=4, static=1))[0])
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    assert outs[0].isfinite().all() and outs[0].std() > 0


# ---------------------------------------------------------------- files


def publish(hub, name=PLAIN, **changes):
    net = network(**changes)
    published = WXC_VARIANTS[name]
    hub.publish(published.repo, repository(net, published.file))
    return net


@pytest.mark.parametrize("kind", [WxCEncoder, WxCForecaster])
def test_a_model_by_name_from_the_hub(hub, kind):
    net, batch = publish(hub), sample(60, 64)
    files = locate_files(PLAIN)
    assert files.config == TINY and files.repo == WXC_REPO and len(files.revision) == 40
    with torch.device("meta"):
        model = kind(files.config)
    report = load_pretrained(model, files)
    got = {path.split("/", 5)[-1] for method, path in hub.requests if method == "GET" and "/resolve/" in path}
    assert got == {"config.yaml", "prithvi.wxc.2300m.v1.pt", *SCALER_FILES.values()}
    state = net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.net.state_dict().items() if "scalers" not in key)
    assert report.bands == {n: f"loaded from {n}" for n in (*channel_names(), *STATIC)}
    depth = "encoder 5, decoder 5" if kind is WxCForecaster else "encoder 5"
    assert report.notes[0] == f"transformers loaded: {depth}"
    assert "scalers are not those of the climatology files" in report.notes[1]  # the tests' are random on both sides
    if kind is WxCForecaster:
        torch.testing.assert_close(run(model, batch), theirs(net, batch), rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(run(model, batch)[0], run(loaded(WxCEncoder, net), batch)[0])


def test_the_rollout_model_shifts_its_encoder_and_shares_the_climatology(hub):
    publish(hub)
    net, batch = publish(hub, ROLLOUT, encoder_shifting=True, seed=4), sample(60, 64)
    files = locate_files(ROLLOUT)
    assert files.repo.endswith("-rollout") and files.config.encoder_shifting
    model = WxCForecaster(files.config).eval()
    load_pretrained(model, files)
    torch.testing.assert_close(run(model, batch), theirs(net, batch), rtol=1e-4, atol=1e-4)


def test_without_hub_and_cache_the_ways_out_are_named_at_once(hub):
    hub.stop()
    began = time.perf_counter()
    with pytest.raises(InputError, match="Three ways out") as error:
        locate_files(PLAIN)
    assert time.perf_counter() - began < 2 and "\n" not in str(error.value)


def test_the_cache_answers_when_the_hub_is_down(hub):
    publish(hub)
    first = locate_files(PLAIN)
    hub.stop()
    assert locate_files(PLAIN) == first


@pytest.fixture
def folder(tmp_path):
    """A copy of a published repository on disk."""
    for name, content in repository(network(), "prithvi.wxc.2300m.v1.pt").items():
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_bytes(content)
    return tmp_path / "repo"


def test_local_files_make_the_same_model(folder, tmp_path):
    files = local_files(folder)
    assert files.config == TINY and files.weights == folder / "prithvi.wxc.2300m.v1.pt"
    model = WxCForecaster(files.config).eval()
    load_pretrained(model, files, folder=tmp_path / "converted")
    batch = sample(60, 64)
    assert torch.equal(run(model, batch), run(loaded(WxCForecaster, network()), batch))
    (folder / "other.pt").write_bytes(b"")
    with pytest.raises(InputError, match="wanted one weight file .* found 2"):
        local_files(folder)
    (folder / SCALER_FILES["anomaly_surface"]).unlink()
    with pytest.raises(InputError, match="anomaly_variance_surface.nc: no such file"):
        local_files(folder, weights=files.weights)


def test_scalers_are_those_that_the_published_code_reads(tmp_path):
    from PrithviWxC.dataloaders import merra2

    for name, content in scaler_files().items():
        (tmp_path / Path(name).name).write_bytes(content)
    files = {key: tmp_path / Path(name).name for key, name in SCALER_FILES.items()}
    scalers = read_scalers(files, TINY)
    names = (list(SURFACE), list(VERTICAL), [float(level) for level in LEVELS])
    mu, sigma = merra2.input_scalers(*names, files["input_surface"], files["input_vertical"])
    variance = merra2.output_scalers(*names, files["anomaly_surface"], files["anomaly_vertical"])
    assert sigma.min() < 1.1e-4 and sigma.max() == 1e4 and variance.max() == 1e7  # the limits are reached
    net = WxCForecaster(TINY, scalers=scalers).net
    torch.testing.assert_close(net.input_scalers_mu.flatten(), mu)
    torch.testing.assert_close(net.input_scalers_sigma.flatten(), sigma)
    torch.testing.assert_close(net.output_scalers.flatten(), variance.sqrt())
    mu, sigma = merra2.static_input_scalers(files["input_surface"], list(STATIC))
    torch.testing.assert_close(net.static_input_scalers_mu.flatten(), mu)
    torch.testing.assert_close(net.static_input_scalers_sigma.flatten(), sigma)


@pytest.mark.parametrize("content", [b"", b"no NetCDF", None])
def test_broken_scaler_files_are_told_by_name(tmp_path, content):
    for name, good in scaler_files().items():
        (tmp_path / Path(name).name).write_bytes(good)
    files = {key: tmp_path / Path(name).name for key, name in SCALER_FILES.items()}
    if content is None:
        files["input_vertical"] = files["input_surface"]  # lacks the variables
    else:
        files["input_vertical"].write_bytes(content)
    with pytest.raises(InputError, match=f"{files['input_vertical'].name}: cannot be read"):
        read_scalers(files, TINY)


SMALLEST = "params: {embed_dim: 32, n_blocks_encoder: 1, n_blocks_decoder: 0, n_heads: 4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("params: [", "cannot be read as a config.yaml"),
        ("params: {embed_dim: 32}", "no n_blocks_encoder, n_blocks_decoder, n_heads under params"),
        ("3", "not the config.yaml"),
        (f"{SMALLEST}, positional_encoding: absolute}}", "only fourier"),
        (f"{SMALLEST}, levels: 3}}", "a field cannot be read"),
        (f"{SMALLEST}, embed_dim: 30}}", "multiple of 4"),
    ],
)
def test_configurations_that_cannot_be_read_are_refused(tmp_path, text, words):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_config(tmp_path / "config.yaml")


def test_the_climatology_of_a_region_from_the_hub(hub):
    at = datetime(2020, 12, 31, 9)
    lat, lon = np.arange(30, 36, 0.5), np.arange(-10, 10, 0.625)
    hub.publish(WXC_REPO, climatology(at, lat, lon))
    surface, vertical = locate_climatology(at)
    assert surface.name == "climate_surface_doy365_hour09.nc"
    rows, columns = lat[[7, 6, 5]], lon[3:9] + 360  # from north to south, longitudes from 0 to 360
    got = read_climatology(surface, vertical, lat=rows, lon=columns)
    place = rows[:, None] / 100 + lon[3:9] / 10000
    wanted = [place + i for i in range(20)] + [place + level for _ in VERTICAL for level in LEVELS]
    np.testing.assert_allclose(got, np.stack(wanted), rtol=1e-6)
    with pytest.raises(InputError, match=r"surface_doy365_hour09\.nc: latitude 40 is not among its 12"):
        read_climatology(surface, vertical, lat=np.array([40.0]), lon=columns)


def test_a_checkpoint_is_converted_once_and_sheds_the_optimiser(tmp_path):
    net, cache = network(), tmp_path / "cache"
    checkpoint(net, tmp_path / "w.pt")
    converted = as_safetensors(tmp_path / "w.pt", folder=cache)
    stamp = converted.stat().st_mtime_ns
    assert as_safetensors(tmp_path / "w.pt", folder=cache) == converted and converted.stat().st_mtime_ns == stamp
    state = load_file(converted)
    wanted = {key: value for key, value in net.state_dict().items() if "shifter." not in key}
    assert state.keys() == wanted.keys() and all(torch.equal(state[key], wanted[key]) for key in state)
    half = as_safetensors(tmp_path / "w.pt", dtype=torch.bfloat16, folder=cache)
    kinds = {key: value.dtype for key, value in load_file(half).items()}
    assert all((kinds[key] == torch.float32) == ("scalers" in key) for key in kinds)
    assert sorted(path.name for path in cache.iterdir()) == sorted([converted.name, half.name])
    assert as_safetensors(half, folder=cache) == half == as_safetensors(half, dtype=torch.bfloat16, folder=cache)
    checkpoint(network(seed=1), tmp_path / "w.pt")
    assert as_safetensors(tmp_path / "w.pt", folder=cache) != converted


def test_half_precision_is_what_the_model_computes_with(tmp_path):
    checkpoint(network(), tmp_path / "w.pt")
    with torch.device("meta"):
        encoder = WxCEncoder(TINY)
    load_pretrained(encoder, WxCFiles(tmp_path / "w.pt"), dtype=torch.bfloat16, folder=tmp_path)
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
    assert encoder.net.input_scalers_mu.dtype == torch.float32
    assert run(encoder, sample(30, 32))[0].dtype == torch.bfloat16


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    state = network().state_dict()
    torch.save({"model_state": state, "config": Malicious(tmp_path / "executed")}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"w\.pt: refused: .*could execute code"):
        load_pretrained(WxCEncoder(TINY), WxCFiles(tmp_path / "w.pt"), folder=tmp_path / "cache")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embed_dim": 64}, "wanted embedding 32, 5 transformers.*; came embedding 64, 5 transformers"),
        ({"n_blocks_encoder": 3}, "came embedding 32, 7 transformers in the encoder"),
        ({"n_blocks_encoder": 1}, "came embedding 32, 3 transformers in the encoder"),
        ({"n_blocks_decoder": 0}, "and 0 in the decoder"),
        ({"mlp_multiplier": 4}, r"first difference: encoder.*\.ff\.1\.net"),
        ({"patch_size_px": (1, 1)}, r"first difference: .*unembed|first difference: patch_embedding"),
        ({"residual": "none"}, "first difference: patch_embedding_static"),
    ],
)
def test_weights_of_another_architecture_are_refused_and_nothing_is_loaded(changes, words):
    model = WxCForecaster(TINY)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=words) as error:
        load_state(model, network(**changes).state_dict(), source="strange.pt")
    assert str(error.value).startswith("strange.pt: weights of another architecture") and "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_file_without_prithvi_wxc_is_refused():
    with pytest.raises(InputError, match=r"w\.pt: no Prithvi WxC in this file"):
        load_state(WxCEncoder(TINY), {"encoder.patch_embed.proj.weight": torch.zeros(3)}, source="w.pt")


# ---------------------------------------------------------------- other variables

SCALED = WxCScalers({"tp": (0.1, 2.0), "t2m": (280.0, 10.0)})


def test_pretrained_blocks_take_other_variables_by_a_new_patch_embedding():
    net = network()
    state = net.state_dict()
    encoder = WxCEncoder(TINY, channels=("T2M", "tp", "U_51"), static=("PHIS",), climatology=False, scalers=SCALED)
    report = load_state(encoder, state, source="w.pt")
    assert report.bands == {
        "T2M": "loaded from T2M",
        "tp": "new: mean of the pretrained channels",
        "U_51": "loaded from U_51",
        "PHIS": "loaded from PHIS",
    }
    kernel = state["patch_embedding.proj.weight"].unflatten(1, (2, 160))
    new = encoder.net.patch_embedding.proj.weight.unflatten(1, (2, 3))
    wanted = torch.stack((kernel[:, :, 12], kernel.mean(2), kernel[:, :, channel_names().index("U_51")]), 2)
    torch.testing.assert_close(new, wanted)
    static = encoder.net.patch_embedding_static.proj.weight
    assert torch.equal(static, state["patch_embedding_static.proj.weight"][:, [0, 1, 2, 3, 7]])
    means = encoder.net.input_scalers_mu.flatten()
    assert means[1] == pytest.approx(0.1) and torch.equal(means[[0, 2]], state["input_scalers_mu"].flatten()[[12, 139]])
    for key, value in encoder.net.encoder.state_dict().items():
        assert torch.equal(value, state[f"encoder.{key}"])
    batch = {k: v for k, v in sample(31, 40, channels=3, static=1).items() if k != "climate"}
    assert run(encoder, batch)[0].shape == (1, 32, 16, 20)


def test_new_channels_may_start_at_random():
    state = network().state_dict()
    encoder = WxCEncoder(TINY, channels=("tp", "t2m"), times=1, climatology=False, scalers=SCALED)
    report = load_state(encoder, state, source="w.pt", new="random")
    assert report.bands["tp"] == "new: random" and report.bands["PHIS"] == "loaded from PHIS"
    weight = encoder.net.patch_embedding.proj.weight
    assert weight.shape == (32, 2, 2, 2) and not torch.equal(weight[:, 0], weight[:, 1])
    last = WxCEncoder(TINY, channels=("T2M",), times=1)
    load_state(last, state, source="w.pt")
    assert torch.equal(last.net.patch_embedding.proj.weight[:, 0], state["patch_embedding.proj.weight"][:, 172])


def test_new_channels_want_scalers():
    with pytest.raises(InputError, match=r"w\.pt: no scalers for tp, sp; give them"):
        load_state(WxCEncoder(TINY, channels=("T2M", "tp", "sp")), network().state_dict(), source="w.pt")


# ---------------------------------------------------------------- real data


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data is not at {REAL}")
def test_real_fields_of_merra2_become_the_160_channels():
    xr = pytest.importorskip("xarray")
    names = ["MERRA2_sfc_20200330.nc4", "MERRA_pres_20200330.nc4"]
    sets = (xr.open_dataset(REAL / name, engine="h5netcdf").load() for name in names)
    flat, deep = (opened.sortby("lat", ascending=False) for opened in sets)
    at = slice("2020-03-30T00", "2020-03-30T06", 2)
    surface = {name: flat[name].sel(time=at).values for name in SURFACE}
    vertical = {name: deep[name].sel(time=at).values for name in VERTICAL}
    times = list(flat.time.sel(time=at).values)
    batch = make_batch(
        channel_names(),
        surface,
        vertical,
        levels=deep.lev.values,
        lat=flat.lat.values,
        lon=flat.lon.values,
        times=times,
        lead=0,
        static={name: flat[name].values for name in STATIC},
    )
    assert batch["x"].shape == (1, 2, 160, 31, 49) and batch["input_time"].item() == 6
    pressure = batch["x"][0, 0, [i for i, n in enumerate(channel_names()) if n.startswith("PL_")]].mean((1, 2))
    assert (pressure.diff() > 0).all() and pressure[-1] > 9e4  # level 72 is at the ground
    assert batch["x"][0, 1, 12].numpy() == pytest.approx(flat["T2M"].sel(time=times[1]).values)
    fields = dict(zip((*channel_names(), *STATIC), (*batch["x"][0, 1], *batch["static"][0, 6:]), strict=True))
    moments = {name: (float(field.mean()), float(field.std()) + 1e-4) for name, field in fields.items()}
    torch.manual_seed(0)
    encoder = WxCEncoder(TINY, climatology=False, scalers=WxCScalers(moments)).eval()
    (features,) = run(encoder, batch)
    assert features.shape == (1, 32, 16, 25) and features.isfinite().all()
    assert features.std(dim=(2, 3)).min() > 0
