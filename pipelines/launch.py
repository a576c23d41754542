"""Who does the jobs: this process, several on this machine, or actors of a Ray cluster."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from models.errors import InputError, RunError
from pipelines.jobs import Job, carry_out
from pipelines.maps import Progress

TRIES = 3  # how often a job is begun whose worker died
Outcome = tuple[int, dict[str, Any]]  # number of the job, and what became of it


def shard_of(text: str) -> tuple[int, int]:
    """Number (from 0) and count of shards from 'i/n', i from 1 to n.

    Raises:
        InputError: anything else.
    """
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise InputError(f"shard {text!r}: wanted i/n with i from 1 to n, such as 1/4")
    return int(number) - 1, int(count)


def launch(jobs: Sequence[Job], *, workers: int, ray: str | None, progress: Progress | None) -> Iterator[Outcome]:
    """Do jobs; those that another process is at work on come last, and are waited for.

    Yields:
        What became of each job, as it ends.

    Raises:
        InputError: Ray is not installed, or not at that address.
    """
    busy = []
    for number, outcome in _attempt(jobs, workers=workers, ray=ray, wait=False, progress=progress):
        if outcome["status"] == "busy":
            busy.append(number)
        else:
            yield number, outcome
    if busy:
        again = _attempt([jobs[i] for i in busy], workers=workers, ray=ray, wait=True, progress=progress)
        yield from ((busy[i], outcome) for i, outcome in again)


def _attempt(
    jobs: Sequence[Job], *, workers: int, ray: str | None, wait: bool, progress: Progress | None
) -> Iterator[Outcome]:
    if ray:
        return _actors(jobs, ray, workers=workers, wait=wait)
    if workers > 1 and len(jobs) > 1:
        return _processes(jobs, workers=min(workers, len(jobs)), wait=wait)
    return ((i, carry_out(job, wait=wait, progress=progress)) for i, job in enumerate(jobs))


def _processes(jobs: Sequence[Job], *, workers: int, wait: bool) -> Iterator[Outcome]:
    """Local processes; when one dies, the jobs that were not done are begun again."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    left = list(range(len(jobs)))
    for _ in range(TRIES):
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(carry_out, jobs[i], wait=wait): i for i in left}
            try:
                for future in as_completed(futures):
                    try:
                        outcome = future.result()
                    except BrokenProcessPool:
                        continue
                    left.remove(futures[future])
                    yield futures[future], outcome
            except BaseException:  # ctrl-C, or nobody wants the rest
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if not left:
            return
    yield from ((i, _lost(jobs[i])) for i in left)


def _lost(job: Job) -> dict[str, Any]:
    error = f"{job.source}: its worker died {TRIES} times; it may want more memory: fewer --workers"
    return {"status": "failed", "error": error, "exit_code": 1}


def _actors(jobs: Sequence[Job], address: str, *, workers: int, wait: bool) -> Iterator[Outcome]:
    """Ray actors, each with its models in memory. They get paths and windows; pixels never pass the object store."""
    try:
        ray: Any = importlib.import_module("ray")
        from ray.exceptions import RayActorError
        from ray.util import ActorPool
    except ModuleNotFoundError as error:
        raise InputError("Ray is not installed: pip install 'earthtune[ray]', or use --workers or --shard") from error

    if not ray.is_initialized():
        try:
            ray.init(
                None if address == "local" else address,
                log_to_driver=False,
                include_dashboard=False if address == "local" else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"ray {address}: no cluster answers there ({str(error).splitlines()[0]})") from error
    threads = jobs[0].engine.threads or 1
    gpus = 1 if ray.cluster_resources().get("GPU") and jobs[0].engine.runtime != "openvino" else 0
    # A lost actor is started again, and does again what it was doing: parts that it has written are kept.
    actor = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=-1, max_task_retries=TRIES - 1)(_Worker)
    pool: Any = ActorPool([actor.remote() for _ in range(min(workers, len(jobs)))])
    for i, job in enumerate(jobs):
        pool.submit(lambda worker, item: worker.carry_out.remote(*item), (i, job, wait))
    while pool.has_next():
        try:
            yield pool.get_next_unordered()
        except RayActorError as error:
            raise RunError(f"ray {address}: an actor died {TRIES} times ({str(error).splitlines()[0]})") from error


class _Worker:
    """An actor."""

    def carry_out(self, number: int, job: Job, wait: bool) -> Outcome:
        return number, carry_out(job, wait=wait)


def threads_each(workers: int) -> int | None:
    """Threads for each of some workers on this machine; None leaves all to the only one."""
    return None if workers == 1 else max(len(os.sched_getaffinity(0)) // workers, 1)
