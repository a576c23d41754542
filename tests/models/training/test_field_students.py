"""Students over weather: what is idle may go, how small they get, and how far they are from their teacher's answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch.nn.functional import huber_loss

from models.backbones.wxc_inputs import make_batch
from models.errors import InputError
from models.networks.assembly import assemble
from models.training.field_students import DistilledFields, prune_fields, smaller_fields
from models.training.objectives import Ensemble
from models.training.pruning import parameters
from models.training.settings import Training, WeatherArchitecture
from tests.specs import fine_spec, rain_spec

NAMES, BACKBONE = ("T2M", "V10M"), "prithvi_wxc_tiny"
GIVEN = NAMES, ("K", "m s-1"), (285.0, 1.0), (8.0, 4.0)
RAIN = rain_spec(*GIVEN, scale=0.5)
FINE = fine_spec(*GIVEN, cells={"elevation": (300.0, 200.0, 50.0)}, target="T2M", scale=0.5, factor=3)
WIDE = WeatherArchitecture({"embed_dim": 16, "heads": 2, "mask_unit": (8, 8)}, channels=4, detail=12, members=3)
NARROW = dataclasses.replace(
    WIDE, overrides=dict(WIDE.overrides) | {"embed_dim": 8}, channels=2, detail=6, members=2
)  # half of all
LAT, LON = 44 - 0.5 * np.arange(12), -99 + 0.5 * np.arange(15)


def built(spec, architecture, seed=0):
    """A network whose members say something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = assemble(spec, BACKBONE, architecture).eval()
        for member in made.members:
            torch.nn.init.normal_(member.head.weight, std=0.3)
        return made


def batch(seed=0):
    """Two samples of 4 x 5 coarse cells with what both kinds of networks hear; truths at all cells but some."""
    rng = np.random.default_rng(seed)
    lat, lon, times = LAT.reshape(4, 3).mean(1), LON.reshape(5, 3).mean(1), [np.datetime64("2020-03-30T00")]
    parts = []
    for _ in range(2):
        fields = {name: rng.normal(mean, std, (1, 4, 5)) for name, mean, std in zip(NAMES, *GIVEN[2:], strict=True)}
        parts.append(make_batch(NAMES, fields, lat=lat, lon=lon, times=times, lead=0.0, static={}, static_names=()))
    made = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    x = made.pop("x")
    area = torch.from_numpy(np.cos(np.radians(LAT)).astype(np.float32))[None, :, None].expand(2, -1, -1)
    height = torch.from_numpy(rng.uniform(0, 900, (2, 1, 12, 15)).astype(np.float32))
    return made | {"weather": x, "coarse": x[:, 0, :1], "area": area, "fine": height}


def truth(spec, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 4, 5) if spec is RAIN else (2, 12, 15)
    y = torch.rand(shape, generator=generator) + (0 if spec is RAIN else 285)
    y[0, 0] = torch.nan
    return y


@pytest.mark.parametrize("spec", [RAIN, FINE], ids=["rain", "downscale"])
def test_channels_that_say_nothing_go_and_no_member_that_stays_changes(spec):
    """Half of each layer is idle, another half in each, and nothing hears the tokens, which are learned anew."""
    teacher, student = built(spec, WIDE), built(spec, NARROW, seed=5)
    generator = torch.Generator().manual_seed(3)

    def silence(convolution, *, parts=1):
        wide = convolution.out_channels // parts
        off = torch.randperm(wide, generator=generator)[: wide // 2]
        rows = (off[:, None] * parts + torch.arange(parts)).flatten()
        convolution.weight[rows], convolution.bias[rows] = 0, 0
        return off

    with torch.no_grad():
        for member in teacher.members:
            silence(member.before[0][0])
            off = silence(member.before[1][0])
            member.lead.weight[off], member.lead.bias[off] = 0, 0
            for layer in (member.after, *([member.decoder] if spec is FINE else [])):
                silence(layer[0][0])
                silence(layer[1][0])
            if spec is FINE:
                silence(member.finer[0], parts=9)
            member.after[0][0].weight[:, 12:] = 0
        prune_fields(teacher, student, [batch(7)])
        for member in student.members:
            assert member.after[0][0].weight[:, 6:].abs().min() > 0  # its own
            member.after[0][0].weight[:, 6:] = 0
        torch.testing.assert_close(student(batch()), teacher(batch())[:2], atol=1e-4, rtol=1e-4)
    assert (teacher(batch())[0] - teacher(batch())[1]).abs().max() > 1e-3  # which is which shows


@pytest.mark.parametrize("part", [2, 6, 10])
def test_a_smaller_network_has_at_most_so_many_parameters_and_nearly_that(part):
    given = WeatherArchitecture(members=4)
    whole = parameters(RAIN, BACKBONE, given)
    made = smaller_fields(RAIN, BACKBONE, given, whole // part)
    count = sum(w.numel() for w in assemble(RAIN, BACKBONE, made).parameters())
    assert 0.75 * whole / part < count <= whole / part
    assert made.members == {2: 2, 6: 1, 10: 1}[part] and made.detail < given.detail
    assert made.overrides["embed_dim"] % 4 == 0 and made.overrides["encoder_blocks"] == 1


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"--params 10: the smallest of this run has [\d,]+ parameters"):
        smaller_fields(RAIN, BACKBONE, WIDE, 10)
    with pytest.raises(InputError, match=r"the run has [\d,]+ parameters; wanted fewer"):
        smaller_fields(RAIN, BACKBONE, WIDE, 10**9)


def test_distributions_are_apart_as_scipy_says():
    """Quantiles of even levels are samples of a distribution, whose distance is the mean over cells."""
    network, rng = built(RAIN, NARROW), np.random.default_rng(2)
    ours, theirs = (np.sort(rng.gamma(1.0, 1.0, (2, 13, 3, 4)), axis=1).astype(np.float32) for _ in range(2))
    cells = [wasserstein_distance(ours[b, :, i, j], theirs[b, :, i, j]) for b, i, j in np.ndindex(2, 3, 4)]
    found = network.apart(torch.from_numpy(ours), torch.from_numpy(theirs))
    assert float(found) == pytest.approx(np.mean(cells) / 0.5, rel=1e-5)
    dry = torch.full((1, 13, 1, 1), -1.0, requires_grad=True)  # it can be told of the rain
    network.apart(dry, torch.ones(1, 13, 1, 1)).backward()
    assert (dry.grad < 0).all()


@pytest.mark.parametrize("spec", [RAIN, FINE], ids=["rain", "downscale"])
def test_labels_and_answers_are_weighed_and_what_is_not_measured_is_answered_too(spec):
    teacher, student = built(spec, WIDE), built(spec, NARROW, seed=1)
    given = batch() | {"y": truth(spec)}
    plain = Ensemble(student, Training())
    labels = float(plain.loss(given).detach())
    teacher.requires_grad_(False)
    wanted = teacher(given).clamp(min=0).mean(0) if spec is RAIN else teacher(given).mean(0)
    answers = student(given).detach()
    if spec is RAIN:
        away = (torch.where(answers < 0, 0.1 * answers, answers) - wanted).abs().mean() / 0.5
    else:
        away = huber_loss(answers / 0.5, (wanted / 0.5).expand_as(answers))
    told = DistilledFields(plain, teacher, share=0.3).loss(given)
    assert float(told.detach()) == pytest.approx(0.7 * labels + 0.3 * float(away), rel=1e-4)
    told.backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    given["y"][0] = torch.nan  # nothing is measured there
    told = DistilledFields(plain, teacher, share=1.0).loss(given)
    assert float(told.detach()) == pytest.approx(float(away), rel=1e-4)


def test_a_copy_of_a_fields_teacher_has_nothing_to_learn_from_it():
    alone = dataclasses.replace(WIDE, members=1)
    teacher, student = built(FINE, alone), built(FINE, alone)
    loss = DistilledFields(Ensemble(student, Training()), teacher, share=1.0).loss(batch() | {"y": truth(FINE)})
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-9)
