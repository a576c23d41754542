import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.errors import InputError
from models.spec import ClassDef, Classes, Values
from models.training.losses import CLASS_LOSSES, VALUE_LOSSES, cross_entropy, dice, focal, weighted_sum

K = 3
CLASSES = Classes(tuple(ClassDef(k, str(k), "#000000") for k in range(K)))
WEIGHTS = torch.tensor([0.5, 2.0, 1.25])


def sample(seed, *, masked=True, side=6):
    """Logits (2, K, side, side) and truth (2, side, side) with about a third not labelled."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, K, side, side, generator=generator) * 3
    return logits, torch.randint(-1 if masked else 0, K, (2, side, side), generator=generator)


def values(seed, side=6):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(2, side, side, generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.3] = math.nan
    return torch.randn(2, side, side, generator=generator), truth


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", ["pixels", "scenes"])
def test_cross_entropy_is_torchs_mean_over_labelled_pixels(weights, smoothing, shape):
    logits, truth = sample(0)
    if shape == "scenes":
        logits, truth = logits[..., 0, 0], truth[..., 0, 0].clamp(min=0)
    known = truth >= 0
    rows = logits.movedim(1, -1)[known]  # (N, K)
    wanted = functional.cross_entropy(rows, truth[known], weight=weights, label_smoothing=smoothing)
    got = cross_entropy(logits, truth, weights=weights, smoothing=smoothing)
    torch.testing.assert_close(got, wanted)


def test_dice_by_hand():
    """Two pixels, one right with probability 3/4 and one with 1/4; see the smoothed formula in the source."""
    p = torch.tensor([[[0.75, 0.75], [0.25, 0.25]]])
    truth = torch.tensor([[0, 1]])
    class_0 = (2 * 0.75 + 1) / (1.5 + 1 + 1)
    class_1 = (2 * 0.25 + 1) / (0.5 + 1 + 1)
    assert dice(p.log(), truth).item() == pytest.approx(1 - (class_0 + class_1) / 2)
    weighted = 1 - (class_0 + 3 * class_1) / 4
    assert dice(p.log(), truth, weights=torch.tensor([1.0, 3.0])).item() == pytest.approx(weighted)


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much(name):
    _, truth = sample(1)
    perfect = functional.one_hot(truth.clamp(min=0), K).movedim(-1, 1) * 40.0
    assert CLASS_LOSSES[name](perfect, truth).item() == pytest.approx(0, abs=1e-4)
    assert CLASS_LOSSES[name](perfect.roll(1, dims=1), truth).item() > 0.5


def test_dice_does_not_count_classes_that_are_absent():
    logits = torch.full((1, K, 4, 4), -40.0)
    logits[:, 0] = 40
    assert dice(logits, torch.zeros(1, 4, 4, dtype=torch.long)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_is_its_published_formula(weights):
    logits, truth = sample(2)
    known = truth >= 0
    p = logits.movedim(1, -1)[known].softmax(-1)
    pt = p[torch.arange(len(p)), truth[known]]
    alpha = torch.ones(K)[truth[known]] if weights is None else weights[truth[known]]
    wanted = (alpha * -((1 - pt) ** 2) * pt.log()).sum() / alpha.sum()
    torch.testing.assert_close(focal(logits, truth, weights=weights), wanted)
    torch.testing.assert_close(
        focal(logits, truth, weights=weights, gamma=0), cross_entropy(logits, truth, weights=weights)
    )


def test_regression_losses_are_torchs_over_finite_pixels():
    output, truth = values(3)
    known = truth.isfinite()
    oracle = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}
    assert oracle.keys() == VALUE_LOSSES.keys()
    for name, function in oracle.items():
        torch.testing.assert_close(VALUE_LOSSES[name](output, truth), function(output[known], truth[known]))


def loss_and_gradient(function, output, truth):
    output = output.clone().requires_grad_()
    loss = function(output, truth)
    loss.backward()
    return loss.detach(), output.grad


@pytest.mark.parametrize("name", CLASS_LOSSES)
@pytest.mark.parametrize("options", [{}, {"weights": WEIGHTS}, {"smoothing": 0.2}])
@settings(max_examples=15)
@given(seed=st.integers(0, 1000), code=st.integers(-300, -1), by=st.floats(-1e4, 1e4))
def test_pixels_without_a_label_change_neither_loss_nor_gradient(name, options, seed, code, by):
    logits, truth = sample(seed)
    hidden = truth < 0
    other = torch.where(hidden.unsqueeze(1), logits + by * torch.arange(K).reshape(K, 1, 1), logits)
    loss, gradient = loss_and_gradient(lambda o, t: CLASS_LOSSES[name](o, t, **options), logits, truth)
    masked = torch.where(hidden, code, truth)
    other_loss, other_gradient = loss_and_gradient(lambda o, t: CLASS_LOSSES[name](o, t, **options), other, masked)
    assert torch.equal(loss, other_loss)
    assert torch.equal(gradient, other_gradient)
    assert (gradient.movedim(1, -1)[hidden] == 0).all()


@pytest.mark.parametrize("name", VALUE_LOSSES)
@settings(max_examples=15)
@given(seed=st.integers(0, 1000), hole=st.sampled_from([math.nan, math.inf, -math.inf]), by=st.floats(-1e4, 1e4))
def test_pixels_without_a_value_change_neither_loss_nor_gradient(name, seed, hole, by):
    output, truth = values(seed)
    hidden = ~truth.isfinite()
    loss, gradient = loss_and_gradient(VALUE_LOSSES[name], output, truth)
    other = torch.where(hidden, output + by, output)
    other_loss, other_gradient = loss_and_gradient(VALUE_LOSSES[name], other, torch.where(hidden, hole, truth))
    assert torch.equal(loss, other_loss) and torch.equal(gradient, other_gradient)
    assert (gradient[hidden] == 0).all() and gradient.isfinite().all()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_a_batch_without_labels_costs_nothing_and_pulls_nowhere(name, weights):
    logits, truth = sample(4)
    loss, gradient = loss_and_gradient(
        lambda o, t: CLASS_LOSSES[name](o, t, weights=weights), logits, torch.full_like(truth, -1)
    )
    assert name == "dice" or loss == 0  # dice is 1 minus a sum over no class: a constant
    assert loss.isfinite()
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", VALUE_LOSSES)
def test_a_batch_without_values_costs_nothing_and_pulls_nowhere(name):
    output, truth = values(5)
    loss, gradient = loss_and_gradient(VALUE_LOSSES[name], output, torch.full_like(truth, math.nan))
    assert loss == 0 and (gradient == 0).all()


def test_losses_are_added_up_by_their_weights():
    logits, truth = sample(6)
    both = weighted_sum(CLASSES, {"ce": 0.7, "dice": 0.3}, smoothing=0.1)
    wanted = 0.7 * cross_entropy(logits, truth, weights=WEIGHTS, smoothing=0.1) + 0.3 * dice(
        logits, truth, weights=WEIGHTS
    )
    torch.testing.assert_close(both(logits, truth, WEIGHTS), wanted)
    output, target = values(7)
    double = weighted_sum(Values(), {"mae": 2.0})
    torch.testing.assert_close(double(output, target), 2 * VALUE_LOSSES["mae"](output, target))


def test_losses_of_half_precision_outputs_are_computed_in_float32():
    logits, truth = sample(8)
    for name, function in CLASS_LOSSES.items():
        got = function(logits.bfloat16(), truth)
        assert got.dtype == torch.float32, name
        torch.testing.assert_close(got, function(logits.bfloat16().float(), truth))


def test_where_no_loss_is_chosen_the_first_known_one_is_taken():
    logits, truth = sample(9)
    torch.testing.assert_close(weighted_sum(CLASSES, {})(logits, truth), cross_entropy(logits, truth))
    output, target = values(9)
    torch.testing.assert_close(weighted_sum(Values(), {})(output, target), VALUE_LOSSES["huber"](output, target))


@pytest.mark.parametrize(
    ("answer", "shares", "words"),
    [
        (CLASSES, {"mse": 1.0}, "mse: wanted weights of ce, dice, focal"),
        (Values(), {"ce": 1.0, "mse": 1.0, "dice": 1.0}, "ce, dice: wanted weights of huber, mse, mae"),
    ],
)
def test_losses_that_an_answer_does_not_know_are_refused(answer, shares, words):
    with pytest.raises(InputError, match=f"training.loss {words}"):
        weighted_sum(answer, shares)


@pytest.mark.parametrize("name", CLASS_LOSSES)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_pixel_that_counts_twice_is_there_twice(name, weights):
    logits, truth = sample(7)
    twice = torch.arange(truth.numel()).reshape(truth.shape) % 3 == 0
    both = torch.cat([truth.flatten(), truth[twice]])[None]  # (1, N)
    rows = torch.cat([logits.movedim(1, -1).reshape(-1, K), logits.movedim(1, -1)[twice]])
    given = {"weights": weights} if name == "dice" else {"weights": weights, "smoothing": 0.1 * (name == "ce")}
    wanted = CLASS_LOSSES[name](rows.T[None], both, **given)
    got = CLASS_LOSSES[name](logits, truth, counts=1.0 + twice, **given)
    torch.testing.assert_close(got, wanted)
    assert not torch.isclose(got, CLASS_LOSSES[name](logits, truth, **given))
    torch.testing.assert_close(
        weighted_sum(CLASSES, {name: 2.0})(logits, truth, weights, 1.0 + twice),
        2 * CLASS_LOSSES[name](logits, truth, weights=weights, counts=1.0 + twice),
    )
