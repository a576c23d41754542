"""Two processes, with parts of one batch each, learn what one learns from the whole of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from models.networks.quantiles import pinball_loss
from models.training.losses import CLASS_LOSSES, VALUE_LOSSES
from models.training.pretraining import masked_error
from models.training.processes import as_one, rank_of_all

ROOT = Path(__file__).parents[3]
CLASSES, SAMPLES = 4, 5


def batch() -> dict[str, torch.Tensor]:
    """Five samples, of which the second part has the fewer, less of it labelled, and one class never."""
    torch.manual_seed(0)
    x, classes = torch.randn(SAMPLES, 3, 6, 6), torch.randint(0, CLASSES, (SAMPLES, 6, 6))
    classes[1::2][classes[1::2] == 3] = -1
    values = torch.where(classes < 0, torch.nan, torch.randn(SAMPLES, 6, 6))
    return {"x": x, "classes": classes, "values": values, "counts": 1 + torch.rand(SAMPLES, 6, 6)}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, CLASSES, 3))


def losses() -> dict[str, object]:
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])

    def of_classes(function, **given):
        return lambda out, b: function(out, b["classes"], weights=weights, **given)

    found = {name: of_classes(function) for name, function in CLASS_LOSSES.items()}
    found["counted"] = lambda out, b: CLASS_LOSSES["ce"](out, b["classes"], counts=b["counts"])
    found |= {name: lambda out, b, f=f: f(out[:, 0], b["values"]) for name, f in VALUE_LOSSES.items()}
    found["pinball"] = lambda out, b: pinball_loss(out, b["values"], (0.1, 0.4, 0.6, 0.9))
    found["masked"] = lambda out, b: masked_error(out[:, 0], b["counts"], b["classes"] >= 0)
    return found


def learned(loss, part: dict[str, torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
    """The loss of a step, and the gradients and running statistics after it; of processes, their means."""
    model = network()
    with as_one():
        value = loss(model(part["x"]), part)
    value.backward()
    found = [p.grad for p in model.parameters()] + [model[1].running_mean, model[1].running_var]
    for tensor in (value := value.detach(), *found):
        if rank_of_all()[1] > 1:
            distributed.all_reduce(tensor)
            tensor /= rank_of_all()[1]
    return float(value), found


def main(rank: int, store: str, out: str) -> None:
    """What one of two processes finds, which the first writes."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    part = {name: tensor[rank::2] for name, tensor in batch().items()}
    found = {name: learned(loss, part) for name, loss in losses().items()}
    if rank == 0:
        torch.save(found, out)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.models.training.test_processes import main; main"
    started = [
        subprocess.Popen([sys.executable, "-c", f"{code}({rank}, {str(folder / 's')!r}, {str(folder / 'out.pt')!r})"])
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    return torch.load(folder / "out.pt", weights_only=True)


@pytest.mark.parametrize("name", losses())
def test_two_processes_learn_what_one_does(name, together):
    value, found = learned(losses()[name], batch())
    told, others = together[name]
    assert told == pytest.approx(value, rel=1e-5)
    for ours, theirs in zip(found, others, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
