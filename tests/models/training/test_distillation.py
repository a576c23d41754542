"""The objective of students: how far they are from their teacher's answers and maps, and what labels add."""

import pytest
import torch

from models.training.distillation import Distilled
from models.training.objectives import Labelled
from models.training.pruning import prune
from models.training.settings import Training


def batch_of(network, *, labelled=True, values=False):
    pixels = network.spec.imagery
    generator = torch.Generator().manual_seed(0)
    shape = (2, pixels.tile, pixels.tile)
    y = torch.rand(shape, generator=generator) * 80 if values else torch.randint(0, 3, shape, generator=generator)
    if not labelled:
        y = torch.full_like(y, float("nan")) if values else torch.full_like(y, -1)
    x = torch.randn(2, len(pixels.channels), 1, *shape[1:], generator=generator) * 500 + 1500
    return {"imagery": x, "y": y}


def pair(make_network, task="segmentation", **changes):
    architecture = {"decoder": "linear", "detail": 0, "statistics": 0, **changes}
    teacher, student = (
        make_network(task, architecture=architecture),
        make_network(task, seed=1, architecture=architecture),
    )
    kept = prune(teacher, student, [{"imagery": batch_of(teacher)["imagery"]}])
    return teacher, student, kept


def test_a_copy_of_its_teacher_has_nothing_to_learn_from_it(make_network):
    """Cross-entropy beside soft targets is least where both are the same, at the targets' entropy."""
    teacher, student, kept = pair(make_network)
    batch = batch_of(teacher, labelled=False)
    loss = Distilled(Labelled(student, Training()), teacher, kept, share=1.0, features=1.0).loss(batch)
    p = teacher.predict({"imagery": batch["imagery"]})
    assert float(loss.detach()) == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=1e-5)
    loss.backward()
    assert max(float(w.grad.abs().max()) for w in student.parameters() if w.grad is not None) < 1e-6


def test_labels_answers_and_maps_are_weighed(make_network):
    teacher, student, kept = pair(make_network)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)))
    batch, plain = batch_of(teacher), Labelled(student, Training())
    teacher.requires_grad_(False)
    labels = float(plain.loss(batch).detach())
    p, q = (network({"imagery": batch["imagery"]})[0].float() for network in (teacher, student))
    soft = float(-(p.softmax(1) * q.log_softmax(1)).sum(1).mean().detach())
    ours, theirs = student.features(batch), teacher.features(batch)
    away = sum(float(((a - b).square().mean() / b.var()).detach()) for a, b in zip(ours, theirs, strict=True)) / len(
        ours
    )
    told = Distilled(plain, teacher, kept, share=0.3, features=0.2).loss(batch)
    assert float(told.detach()) == pytest.approx(0.7 * labels + 0.3 * soft + 0.2 * away, rel=1e-4)


@pytest.mark.parametrize("task", ["segmentation", "regression"])
def test_what_nobody_labelled_teaches_too(make_network, task):
    teacher, student, kept = pair(make_network, task)
    with torch.no_grad():
        student.head.decoder.body.conv.weight.mul_(0.5)
    batch = batch_of(teacher, labelled=False, values=task == "regression")
    loss = Distilled(Labelled(student, Training()), teacher, kept, share=0.5, features=0.0).loss(batch)
    loss.backward()
    assert torch.isfinite(loss) and loss.detach() > 0
    assert student.head.decoder.body.conv.weight.grad.abs().max() > 0
    assert all(w.grad is None for w in teacher.parameters())


def test_values_are_told_in_their_unit(make_network):
    """Teacher and student may know other means and deviations of what they were trained on."""
    teacher, student, kept = pair(make_network, "regression")
    teacher.target_mean.fill_(40.0)
    teacher.target_std.fill_(10.0)
    student.target_mean.fill_(40.0)
    student.target_std.fill_(20.0)
    with torch.no_grad():  # so that it says the same in its own deviations
        for part in (student.head.classify.weight, student.head.classify.bias):
            part.mul_(0.5)
    batch = batch_of(teacher, labelled=False, values=True)
    assert (
        float(Distilled(Labelled(student, Training()), teacher, kept, share=1.0, features=0.0).loss(batch).detach())
        < 1e-9
    )
