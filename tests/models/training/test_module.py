import csv
import math
from itertools import pairwise

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from models.backbones.lora import LoraLinear
from models.errors import InputError
from models.training.module import FineTuning, apply_mode, parameter_groups, write_curves
from models.training.objectives import Labelled
from models.training.settings import MODES, Lora, Training

DEEP = {"overrides": {"embed_dim": 32, "depth": 4, "num_heads": 2}}


def tuning(network, training, *, mode="full", seed=0, log=None, **labelled):
    """The module that trains a network of imagery."""
    return FineTuning(network, Labelled(network, training, **labelled), training, mode=mode, seed=seed, log=log)


def samples(task, count=4, *, side=32):
    """Samples that differ so much that a small network can know them by heart; a tenth of the pixels has no label."""
    g = torch.Generator().manual_seed(0)
    result = []
    for i in range(count):
        index = torch.zeros(side, side, dtype=torch.long)
        index[:, 8 + 4 * i :] = 1
        index[20:, : 6 + 2 * i] = 2
        level = torch.tensor([600.0, 1500.0, 2600.0])
        x = level[index] + 60 * torch.randn(3, 1, side, side, generator=g)
        hidden = torch.rand(side, side, generator=g) < 0.1
        if task == "segmentation":
            y = torch.where(hidden, -1, index)
        elif task == "regression":
            y = torch.where(hidden, math.nan, 30 + 10.0 * index)
        else:
            y = torch.tensor(i % 3)
            x = x * (1 + 0.4 * (i % 3))
        result.append({"imagery": x, "y": y})
    return result


def trainer(epochs, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **quiet | options,
    )


def fit(network, training, data, *, mode="full", **options):
    """Train; the module that did."""
    network.train()
    apply_mode(network, mode, Lora(rank=2))
    if network.spec.task == "regression":
        network.target_mean.fill_(40.0)
        network.target_std.fill_(8.0)
    module = tuning(network, training, mode=mode, seed=1, **options)
    batches = DataLoader(data, batch_size=training.batch)
    trainer(training.epochs).fit(module, batches, batches)
    return module


# ---------------------------------------------------------------- what is trained


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_chooses_what_is_trained(make_network, mode):
    network = make_network(architecture={"statistics": 0})
    apply_mode(network, mode, Lora(rank=2))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    head = {name for name, _ in network.named_parameters() if name.startswith("head.")}
    assert head <= trained
    inside = trained - head
    assert bool(inside) == (mode != "frozen")
    assert all(name.endswith((".up", ".down")) for name in inside) == (mode != "full")
    assert any(isinstance(m, LoraLinear) for m in network.modules()) == (mode == "lora")


def test_an_unknown_mode_is_refused(make_network):
    with pytest.raises(InputError, match="mode 'half': wanted one of frozen, lora, full"):
        apply_mode(make_network(), "half", Lora())


def test_each_block_learns_more_slowly_than_the_one_above(make_network):
    network = make_network(architecture=DEEP | {"detail": 0, "statistics": 0})
    training = Training(lr=1e-2, backbone_lr=0.5, layer_decay=0.5, weight_decay=0.3)
    rates, decays = {}, {}
    names = {id(p): name for name, p in network.named_parameters()}
    for group in parameter_groups(network, training):
        for parameter in group["params"]:
            rates[names[id(parameter)]] = group["lr"]
            decays[names[id(parameter)]] = group["weight_decay"]
    assert set(rates) == {name for name, _ in network.named_parameters()}  # each exactly once
    top = 0.5 * 1e-2
    wanted = {f"backbone.vit.blocks.{i}.attn.qkv.weight": top / 2 ** (3 - i) for i in range(4)}
    wanted |= {"backbone.vit.norm.weight": top, "head.classify.weight": 1e-2}
    wanted |= {"backbone.vit.patch_embed.proj.weight": top / 16, "backbone.vit.cls_token": top / 16}
    assert {name: rates[name] for name in wanted} == pytest.approx(wanted)
    assert decays["head.classify.weight"] == decays["backbone.vit.blocks.0.mlp.fc1.weight"] == 0.3
    assert decays["head.classify.bias"] == decays["backbone.vit.norm.weight"] == 0


def test_adapters_learn_at_the_rate_of_the_head_and_frozen_weights_have_no_group(make_network):
    network = make_network()
    apply_mode(network, "lora", Lora(rank=2))
    groups = list(parameter_groups(network, Training(lr=1e-2)))
    assert {group["lr"] for group in groups} == {1e-2}
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in network.parameters() if p.requires_grad}
    network.requires_grad_(False)
    with pytest.raises(InputError, match="nothing is left to train"):
        list(parameter_groups(network, Training()))


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_the_backbones_own_weights_stay_as_they_are(make_network, mode):
    network = make_network(architecture={"statistics": 0})
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    modes = []
    network.backbone.register_forward_hook(lambda module, *_: modes.append(module.training))
    head = [p.detach().clone() for p in network.head.parameters()]
    fit(network, Training(epochs=2, batch=2), samples("segmentation"), mode=mode)
    after = {key.replace(".base.", "."): value for key, value in network.backbone.state_dict().items()}
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    own = [p for n, p in network.backbone.named_parameters() if not n.endswith((".up", ".down"))]
    assert all(p.grad is None for p in own)
    assert not any(torch.equal(p, old) for p, old in zip(network.head.parameters(), head, strict=True))
    if mode == "frozen":
        assert modes and not any(modes)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_a_tiny_network_learns_four_samples_by_heart(make_network, task):
    data = samples(task)
    network = make_network(task, architecture={"detail": 8, "statistics": 0, "dropout": 0.0})
    module = fit(network, Training(epochs=40, batch=4, lr=2e-2, clip=0), data)
    assert module.curves[-1]["train_loss"] < 0.3 * module.curves[0]["train_loss"]
    x, y = (torch.stack([sample[key] for sample in data]) for key in ("imagery", "y"))
    with torch.inference_mode():
        answer = network.eval().predict({"imagery": x})
    if task == "regression":
        known = y.isfinite()
        error = (answer[:, 0] - y)[known].square().mean().sqrt()
        assert error < 0.5 * y[known].std()
        assert module.curves[-1]["val_rmse"] == pytest.approx(error.item(), rel=1e-3)
    else:
        right = (answer.argmax(1) == y)[y >= 0].float().mean()
        assert right > 0.9
        assert module.curves[-1]["val_accuracy"] == pytest.approx(right.item(), rel=1e-4)
    monitor = {"segmentation": "val_mean_iou", "regression": "val_rmse", "classification": "val_loss"}[task]
    assert module.objective.monitor == (monitor, "max" if task == "segmentation" else "min")
    assert monitor in module.curves[-1]


def test_the_rate_warms_up_and_falls_to_zero(make_network):
    network = make_network().train()
    seen = []
    training = Training(epochs=10, batch=4, lr=1e-2, warmup=0.3)
    module = tuning(network, training)
    module.on_train_batch_end = lambda *_: seen.append(module.trainer.optimizers[0].param_groups[-1]["lr"])
    batches = DataLoader(samples("segmentation"), batch_size=4)
    trainer(10).fit(module, batches, batches)
    assert max(seen) == pytest.approx(1e-2)
    assert seen.index(max(seen)) in (1, 2, 3)
    assert all(a > b for a, b in pairwise(seen[4:]))
    assert seen[-1] == pytest.approx(0, abs=1e-8)


def test_known_features_train_a_frozen_network_the_same_way(make_network):
    data = samples("segmentation")
    results = []
    for cached in (False, True):
        network = make_network(architecture={"dropout": 0.0})
        batches = data
        if cached:
            with torch.no_grad():
                maps = [network.features({"imagery": sample["imagery"][None]}) for sample in data]
            batches = [s | {"features": torch.stack([m[0] for m in f])} for s, f in zip(data, maps, strict=True)]
        module = fit(network, Training(epochs=3, batch=2), batches, mode="frozen")
        results.append([row["train_loss"] for row in module.curves])
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(make_network):
    data = samples("segmentation")
    data[2]["imagery"][0, 0, 5, 5] = math.nan
    with pytest.raises(InputError, match=r"the loss is nan in epoch 0: lower the learning rate, or look for") as error:
        fit(make_network(), Training(epochs=1, batch=2), data)
    assert "\n" not in str(error.value)


def test_a_batch_without_labels_is_no_error(make_network):
    for task, hole in (("segmentation", -1), ("regression", math.nan)):
        data = samples(task)
        data[0]["y"] = torch.full_like(data[0]["y"], hole)
        module = fit(make_network(task), Training(epochs=1, batch=1), data)
        assert all(math.isfinite(value) for value in module.curves[-1].values())
        empty = [sample | {"y": torch.full_like(sample["y"], hole)} for sample in data]
        fit(make_network(task), Training(epochs=1, batch=1), empty)


def test_class_weights_reach_the_loss(make_network):
    network = make_network()
    weights = torch.tensor([1.0, 5.0, 0.2])
    module = tuning(network, Training(), class_weights=weights)
    sample = samples("segmentation")[0]
    batch = {name: value[None] for name, value in sample.items()}
    module.log = lambda *_, **__: None
    with torch.inference_mode():
        loss = module.training_step(batch, 0)
        losses = [
            torch.nn.functional.cross_entropy(logits, batch["y"], weight=weights, ignore_index=-1)
            for logits in network(batch)
        ]
    torch.testing.assert_close(loss, sum(losses) / 2)


def test_a_loss_of_another_answer_is_refused(make_network):
    with pytest.raises(InputError, match=r"training\.loss ce: wanted weights of huber, mse, mae"):
        Labelled(make_network("regression"), Training(loss={"ce": 1.0}))


def test_the_same_seed_gives_the_same_weights_and_another_one_others(make_network):
    ends = []
    for seed in (1, 1, 2):
        network = make_network().train()
        module = tuning(network, Training(epochs=1, batch=2), seed=seed)
        batches = DataLoader(samples("segmentation"), batch_size=2)
        torch.manual_seed(torch.seed())
        trainer(1).fit(module, batches, batches)
        ends.append([p.detach().clone() for p in network.head.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ends[0], ends[2], strict=True))


# ---------------------------------------------------------------- curves


def test_curves_hold_a_row_an_epoch_and_travel_with_checkpoints(make_network, tmp_path):
    log = tmp_path / "metrics.csv"
    module = fit(make_network(), Training(epochs=3, batch=2), samples("segmentation"), log=log)
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert {"train_loss", "val_loss", "val_mean_iou", "val_accuracy"} <= set(rows[0])
    assert [float(row["val_loss"]) for row in rows] == pytest.approx([row["val_loss"] for row in module.curves])
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    other = tuning(make_network(), Training())
    other.on_load_checkpoint(checkpoint)
    assert other.curves == module.curves


def test_curves_with_unlike_columns_are_one_table(tmp_path):
    write_curves(tmp_path / "m.csv", [{"epoch": 0, "a": 1.0}, {"epoch": 1, "a": 2.0, "b": 3.0}])
    assert (tmp_path / "m.csv").read_text().split() == ["epoch,a,b", "0,1.0,", "1,2.0,3.0"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]
