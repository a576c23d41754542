"""The run folder and the training in it: begun, cut off and resumed, replaced, ended."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from models.bundle import Bundle, read_bundle
from models.errors import EarthtuneError, InputError, RunError
from models.files import replacing
from models.training.settings import Training
from models.types import Progress, Say
from pipelines.recipes.reading import read_values
from pipelines.records.attempts import PAGE, RANK
from pipelines.records.energy import EPOCHS, READ, Account, Meter

if TYPE_CHECKING:
    from lightning import LightningDataModule, LightningModule
    from torch import nn


SHARDED = "fsdp"  # the strategy that divides weights, gradients and what AdamW keeps among the devices


@dataclass(frozen=True)
class Launch(Account):
    """How a run is carried out; none of it changes what it makes.

    Attributes:
        devices: how many on each node, or auto for all.
        nodes: how many, of torchrun or Slurm.
        strategy: strategy, as Lightning takes it: auto, ddp, fsdp.
        resume: go on with a run that was cut off.
        overwrite: replace a run folder that exists.
        trust: let virtual rasters (.vrt) read whatever they ask for: addresses, archives, formulas; for those you know.
        progress: wraps long loops to show progress; None shows none.
        say: takes a line for the person who waits.
    """

    devices: str = "1"
    nodes: int = 1
    strategy: str = "auto"
    resume: bool = False
    overwrite: bool = False
    trust: bool = False
    progress: Progress | None = None
    say: Say = lambda line: None


def is_first() -> bool:
    """Whether this is the first process of all: Lightning, torchrun or Slurm start the others by this same command."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    if "RANK" in os.environ:  # torchrun's
        return os.environ["RANK"] == "0"
    if SLURMEnvironment.detect():
        return os.environ.get("SLURM_PROCID", "0") == "0"
    return os.environ.get("LOCAL_RANK", "0") == os.environ.get("NODE_RANK", "0") == "0"


@contextmanager
def booked_run(command: str, out: Path, launch: Launch) -> Iterator[Launch]:
    """A launch with the meter that books the run; each process of a training on several devices has its own."""
    part = "" if is_first() else RANK
    alone = launch.devices == "1" and launch.nodes == 1
    with launch.booked(command, launch.say, part_of=part, children=alone) as meter:
        try:
            yield dataclasses.replace(launch, meter=meter, say=Launch.say if part else launch.say)
        finally:
            if part and out.is_dir():  # it is the first's to make
                meter.bind(out / PAGE, parts=True)


def lap(launch: Launch, phase: str) -> None:
    """Book a phase of a run."""
    if launch.meter:
        launch.meter.lap(phase)


def replacing_run(out: Path, launch: Launch, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the work of a run; the run that it was to replace comes back if it fails."""
    waited = _kept(out).exists()  # from a replacement that was cut off, and is not this call's to undo
    try:
        result = work()
    except EarthtuneError:
        if launch.overwrite and _kept(out).exists() and not waited:  # what was to be replaced is still the better run
            shutil.rmtree(out, ignore_errors=True)
            _kept(out).rename(out)
        raise
    shutil.rmtree(_kept(out), ignore_errors=True)
    return result


def ended(out: Path, recipe: Mapping[str, Any], launch: Launch) -> bool:
    """Whether a resumed run has ended already; refuse a folder that exists and may not be touched."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder for the run")
    if not out.exists() or launch.overwrite:
        return False
    if not launch.resume:
        advice = "--resume goes on with it, --overwrite replaces it, --out names another"
        raise InputError(f"{out}: exists already; {advice}")
    stored = out / "recipe.yaml"
    if not stored.is_file():
        raise InputError(f"{out}: no recipe.yaml in it, so it is no run that could be resumed; --out names another")
    try:
        before = read_values(stored)
    except InputError as error:
        raise InputError(f"{stored}: damaged ({error}); --overwrite starts anew") from error
    changed = [key for key in recipe if before.get(key) != recipe[key]]
    if changed:
        raise InputError(f"{out}: was started with another {', '.join(changed)}; resume with the same, or --overwrite")
    if not (out / "bundle.json").is_file():
        return False
    bundle = read_bundle(out)  # it is written before the scores, and again after a training on all samples
    return bool(bundle.scores) and bundle.training.get("refit", False) == bool(
        recipe.get("refit") or recipe.get("folds")
    )


def result_before(out: Path, recipe: Mapping[str, Any], launch: Launch) -> dict[str, Any] | None:
    """The scores of a resumed run that has ended already; None where there is something to do, see `ended`."""
    if not ended(out, recipe, launch):
        return None
    launch.say(f"{out}: this run has ended already")
    bundle = read_bundle(out)
    return {"model": dict(bundle.scores), "baselines": dict(bundle.baselines)}


def trained_on(bundle: Bundle) -> dict[str, str]:
    """What a report tells of the training of any run, by what it is called."""
    training = bundle.training
    told = {
        "Backbone": bundle.backbone,
        "Backbone weights": str(bundle.base),
        "Mode": bundle.mode,
        "Split": str(training.get("divided", "")),
        "Epochs": str(training.get("epochs", "")),
        "Seed": str(training.get("seed", "")),
    }
    compared = []
    for name, known in bundle.rounding.items():
        same = f"{100 * known['equal']:.2f} % of the pixels keep their class, " if "equal" in known else ""
        compared.append(f"{name}: {same}99.9 % of the answers differ by less than {known['difference']:.2g}")
    return told | ({"Reduced precision": "; ".join(compared)} if compared else {})


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write metrics.json; the folder is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "metrics.json") as draft:
        draft.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def make_folder(out: Path, recipe: Mapping[str, Any], launch: Launch) -> None:
    """Make the run folder with its recipe; with --overwrite the run that was there waits aside.

    What was booked until now was reading, and the record is written there from here on.
    """
    import yaml

    if launch.overwrite and out.exists():
        if any(out.iterdir()) and not (out / "recipe.yaml").is_file():
            why = "holds no recipe.yaml, so it is no run folder and is not deleted"
            raise InputError(f"{out}: {why}; --out names another")
        shutil.rmtree(out) if _kept(out).exists() else out.rename(_kept(out))
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "recipe.yaml") as draft:
        draft.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
    if launch.meter:
        launch.meter.bind(out / PAGE, parts=True)
    lap(launch, READ)


def _kept(out: Path) -> Path:
    """Where the run that is being replaced waits until the new one has ended."""
    return out.with_name(f".{out.name}.replaced")


def fit(
    module: LightningModule,
    data: LightningDataModule,
    network: nn.Module,
    training: Training,
    out: Path,
    *,
    monitor: tuple[str, str],
    launch: Launch,
) -> None:
    """Train with Lightning; the network, which is `module.network`, ends with the kept weights, in eval mode.

    Args:
        module: what is trained.
        data: its batches.
        network: whose weights are kept.
        training: the settings.
        out: the run folder, whose checkpoints/ a resumed run goes on from.
        monitor: the validation score that picks the best epoch, and "min" or "max".
        launch: how to carry it out.

    Raises:
        InputError: devices that are not there, or a damaged checkpoint.
        RunError: a checkpoint cannot be written, or memory runs out.
    """
    import torch
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    whole = copy.deepcopy(network) if launch.strategy == SHARDED else None
    if whole is not None:
        module.configure_model = cast("Any", module).divide  # type: ignore[method-assign]
    try:
        trainer = _trainer(training, *monitor, out, launch)
    except (MisconfigurationException, ValueError, ModuleNotFoundError) as error:
        raise InputError(f"devices {launch.devices}, strategy {launch.strategy}: {_first_line(error)}") from error
    last = out / "checkpoints" / "last.ckpt"
    start = last if launch.resume and last.is_file() else None
    if start:
        _check_checkpoint(start)
    if launch.resume:
        launch.say(f"going on from {last}" if start else f"{out}: no checkpoint yet; starting from the beginning")
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True if start else None)
    except OSError as error:
        raise RunError(f"{out}: {error}; make space and run the same command with --resume") from error
    except SystemExit as stop:  # Lightning's answer to ctrl-C
        raise KeyboardInterrupt from stop
    except torch.OutOfMemoryError as error:
        raise RunError(f"out of memory: lower the batch; then --resume ({_first_line(error)})") from error
    if trainer.interrupted or trainer.received_sigterm:
        raise KeyboardInterrupt
    best = out / "checkpoints" / "best.ckpt"
    kept = best if training.keep == "best" and best.is_file() else last
    state = torch.load(kept, map_location="cpu", weights_only=True)["state_dict"]
    if whole is not None:  # what was sharded stays so
        network.__class__, network.__dict__ = whole.__class__, whole.__dict__
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    network.cpu().eval()
    if launch.meter:
        launch.meter.lap(EPOCHS)


def _check_checkpoint(path: Path) -> None:
    """Refuse a damaged checkpoint."""
    import pickle

    import torch

    try:
        known = {"state_dict", "optimizer_states", "loops", "curves"} <= set(torch.load(path, weights_only=True))
    except (RuntimeError, KeyError, EOFError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: damaged ({_first_line(error)}); delete it, or --overwrite starts anew") from error
    if not known:
        raise InputError(f"{path}: no checkpoint of earthtune; delete it, or --overwrite starts anew")


def _trainer(training: Training, monitor: str, better: str, out: Path, launch: Launch) -> Any:
    import logging

    from lightning import Trainer
    from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, LambdaCallback, ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger

    from models.training.module import WholeCheckpoints

    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    for name in ("lightning.pytorch", "lightning.fabric"):  # importing Lightning sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    folder = out / "checkpoints"
    callbacks: list[Any] = [
        ModelCheckpoint(folder, "best", monitor=monitor, mode=better, enable_version_counter=False),
        ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
    ]
    if training.patience:
        callbacks.append(EarlyStopping(monitor, mode=better, patience=training.patience))
    if launch.progress is not None:
        callbacks.append(_progress_bar())
    else:  # a log wants a line now and then
        every = -(-training.epochs // 10)

        def tell(trainer: Any, module: Any) -> None:
            epoch, loss = trainer.current_epoch + 1, trainer.callback_metrics.get("val_loss")
            if trainer.is_global_zero and (epoch % every == 0 or epoch == trainer.max_epochs):
                told = "" if loss is None else f": validation loss {loss:.3f}"
                launch.say(f"epoch {epoch} of {trainer.max_epochs}{told}")

        callbacks.append(LambdaCallback(on_train_epoch_end=tell))
    if launch.meter:
        callbacks.append(_booking(launch.meter))
    if training.ema:
        callbacks.append(EMAWeightAveraging(decay=training.ema))
    return Trainer(
        max_epochs=training.epochs,
        devices=int(launch.devices) if launch.devices.isdigit() else launch.devices,
        num_nodes=launch.nodes,
        strategy=_strategy(launch),
        precision=precision_of(training.precision),  # type: ignore[arg-type] # Lightning names each by a literal
        gradient_clip_val=training.clip or None,
        accumulate_grad_batches=training.accumulate,
        callbacks=callbacks,
        logger=TensorBoardLogger(out, name=None, version="tensorboard"),
        enable_progress_bar=launch.progress is not None,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,  # EpochSampler shares out the samples itself
        deterministic="warn",
        default_root_dir=out,
        plugins=[WholeCheckpoints()],
    )


def _strategy(launch: Launch) -> Any:
    """Lightning's strategy."""
    if launch.strategy != SHARDED:
        return launch.strategy
    if not launch.devices.isdigit():
        raise ValueError("wanted a number of devices for fsdp")
    from models.training.divided import Divided

    return Divided(int(launch.devices) * launch.nodes)


def _booking(meter: Meter) -> Any:
    """Counts the samples, and books what epochs cost while they run."""
    from lightning.pytorch.callbacks import LambdaCallback

    def book(trainer: Any, module: Any, outputs: Any, batch: Mapping[str, Any], i: int) -> None:
        meter.made(samples=len(batch["y"]))
        meter.tick(EPOCHS)

    return LambdaCallback(on_train_batch_end=book, on_validation_batch_end=lambda *_: meter.tick(EPOCHS))


def _progress_bar() -> Any:
    """Lightning's bar in the words of the log: epochs are counted from 1, and no version of a logger is told."""
    from lightning.pytorch.callbacks import RichProgressBar

    class Bar(RichProgressBar):
        def _get_train_description(self, current_epoch: int) -> str:
            return f"epoch {current_epoch + 1} of {self.trainer.max_epochs}"

        def get_metrics(self, trainer: Any, module: Any) -> dict[str, Any]:
            return {key: value for key, value in super().get_metrics(trainer, module).items() if key != "v_num"}

    return Bar(console_kwargs={"stderr": True})


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def precision_of(asked: str) -> str:
    """bf16 where the machine computes in it, unless something was asked for."""
    import torch

    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"


def read_curves(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv; empty where there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
