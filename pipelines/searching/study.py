"""Which trial is whose: Optuna's study of a folder, shared by all processes that search there, without a server.

A trial is held by the process that has a lock on its folder, which ends with the process. One that is under way and
that nobody holds was cut off, and the next who asks goes on with it. Optuna's own heartbeats are for databases alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import InputError, RunError
from models.files import locked
from pipelines.reports.measures import rank
from pipelines.searching.space import Range, Space
from pipelines.searching.trial import COMPLETE, FAILED, PRUNED, Told, read_told

if TYPE_CHECKING:
    import optuna

JOURNAL, TRIALS = "study.log", "trials"
ENOUGH = 8  # complete trials of which is told what mattered
SURE = 0.1  # chance at which a trial no worse than the best is stopped at a look


class Study:
    """The trials of a folder.

    Attributes:
        out: the folder.
        study: Optuna's.
    """

    def __init__(
        self, out: Path, space: Space, *, name: str, storage: str, seed: int, first: Mapping[str, Any]
    ) -> None:
        """Open the study, or begin it.

        Args:
            out: the folder.
            space: what is tried.
            name: the study's.
            storage: address of a database; empty for a journal in the folder.
            seed: of the recipe.
            first: what the first trial is to try, as far as it lies in the space.

        Raises:
            InputError: Optuna is not installed, or the storage cannot be opened.
        """
        optuna = imported()
        self.out, self.space, self._seed = out, space, seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner = optuna.pruners.WilcoxonPruner(p_threshold=SURE)
        with locked(out, wait=True):
            held = _database(storage) if storage else _journal(out / JOURNAL)
            asked = {"study_name": name, "direction": "maximize", "load_if_exists": True, "pruner": pruner}
            try:
                self.study = optuna.create_study(storage=held, **asked)
            except (ValueError, KeyError) as error:
                raise InputError(f"{out / JOURNAL}: damaged ({error}); give another --out") from error
            if not self.study.get_trials(deepcopy=False):
                self.study.enqueue_trial({key: label(value) for key, value in first.items()})

    @contextmanager
    def claim(self, total: int) -> Iterator[optuna.Trial | None]:
        """A trial that this process alone has, until the block ends; None where `total` are begun or done.

        Trials that were cut off come first.
        """
        with ExitStack() as held:
            with locked(self.out, wait=True):
                trial = self._cut_off(held) or self._next(held, total)
            yield trial

    def folder(self, number: int) -> Path:
        """The folder of a trial; people count from 1."""
        return self.out / TRIALS / f"{number + 1:04d}"

    def _cut_off(self, held: ExitStack) -> optuna.Trial | None:
        """A trial under way that nobody holds."""
        import optuna

        for frozen in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if self._taken(frozen.number, held):
                self._sampler(frozen.number)
                return optuna.Trial(self.study, frozen._trial_id)
        return None

    def _next(self, held: ExitStack, total: int) -> optuna.Trial | None:
        """A new trial, where fewer than `total` were begun."""
        begun = sum(frozen.state.name != "WAITING" for frozen in self.study.get_trials(deepcopy=False))
        if begun >= total:
            return None
        self._sampler(begun)
        trial: optuna.Trial = self.study.ask()
        if not self._taken(trial.number, held):
            raise RunError(f"{self.folder(trial.number)}: cannot be locked; give --out on a file system with locks")
        return trial

    def _taken(self, number: int, held: ExitStack) -> bool:
        """Whether the folder of a trial, which is made, is this process's from now on."""
        self.folder(number).mkdir(parents=True, exist_ok=True)
        return held.enter_context(locked(self.folder(number), wait=False))

    def _sampler(self, number: int) -> None:
        """What a trial tries follows from its number and from what is known; others under way count as bad."""
        import optuna

        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def suggested(self, trial: optuna.Trial) -> dict[str, Any]:
        """What a trial tries, by the names of the settings; the same each time."""
        return {name: _suggested(trial, name, dimension) for name, dimension in self.space.items()}

    def hopeless(self, trial: optuna.Trial, told: Told) -> bool:
        """Whether a trial is worse than the best, by the groups that both are known of."""
        self._report(trial, told)
        return trial.should_prune()

    def _report(self, trial: optuna.Trial, told: Told) -> None:
        """Tell Optuna of the groups that it does not know of; the process may have been killed before it did."""
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for place, value in told.ranks.items():
            if place not in known:
                trial.report(value, place)

    def tell(self, trial: optuna.Trial, told: Told) -> None:
        """End a trial. Nobody looks for trials to claim meanwhile, so that none is taken that has just ended."""
        self._report(trial, told)
        with locked(self.out, wait=True):
            state = {PRUNED: "PRUNED", FAILED: "FAIL"}.get(told.state, "COMPLETE")
            mean = sum(told.ranks.values()) / len(told.ranks) if state == "COMPLETE" else None
            self.study.tell(trial.number, mean, state=getattr(imported().trial.TrialState, state))

    def known(self) -> dict[int, Told]:
        """What is known of each trial that was begun, by its number."""
        numbers = [one.number for one in self.study.get_trials(deepcopy=False) if one.state.name != "WAITING"]
        return {number: read_told(self.folder(number)) or Told({}) for number in numbers}


def best_of(known: Mapping[int, Told]) -> int | None:
    """The trial with the best mean over groups; of several the first, and None where none is complete."""
    complete = {number: told for number, told in known.items() if told.state == COMPLETE}
    return max(complete, key=lambda number: rank(complete[number].score, complete[number].mean), default=None)


def imported() -> Any:
    """Optuna, quiet.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise InputError("search needs Optuna, which is not installed; pip install 'earthtune[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _journal(path: Path) -> Any:
    """Optuna's journal in a file, a line for each step."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path = path.resolve()  # the lock is a link to it, which is followed: relative ones would lead nowhere
    lock = JournalFileSymlinkLock(str(path))
    backend = JournalFileBackend(str(path), lock_obj=lock)
    lock.acquire()
    try:
        _mend(path)
    finally:
        lock.release()
    return JournalStorage(backend)


def _mend(path: Path) -> None:
    """Take off a last line that was cut off while it was written: whatever came after it could never be read."""
    with path.open("r+b") as file:
        whole = file.read()
        file.truncate(whole.rfind(b"\n") + 1)


def _database(url: str) -> Any:
    """Optuna's tables in a database."""
    import sqlalchemy
    from optuna.storages import RDBStorage

    try:
        return RDBStorage(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, OSError) as error:
        told = str(error).strip().splitlines()[0]
        raise InputError(
            f"--storage: cannot be opened ({told}); wanted an address such as sqlite:///study.db"
        ) from error


def label(value: Any) -> Any:
    """What Optuna calls a choice: plain values as they are, others as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _suggested(trial: optuna.Trial, name: str, dimension: Any) -> Any:
    """The value of a setting."""
    if isinstance(dimension, Range):
        suggest = trial.suggest_int if isinstance(dimension.low, int) else trial.suggest_float
        return suggest(name, dimension.low, dimension.high, log=dimension.log)  # type: ignore[arg-type]
    labels = [label(value) for value in dimension]
    return dimension[labels.index(trial.suggest_categorical(name, labels))]


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each setting in what makes complete trials differ (fANOVA); none of fewer than `ENOUGH`."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(complete) < ENOUGH or len({trial.value for trial in complete}) < 2:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
