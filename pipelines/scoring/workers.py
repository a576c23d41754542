"""Who does the jobs: this process, several on this machine, or actors of a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from models.errors import InputError
from models.runtime.engines import cores
from models.types import Progress
from pipelines.scoring.jobs import Job, carry_out

TRIES = 3  # how often a job is begun whose worker died
Outcome = tuple[int, dict[str, Any]]  # number of the job, and what became of it


def shard_of(text: str) -> tuple[int, int]:
    """Number (from 0) and count of shards from 'i/n', i from 1 to n.

    Raises:
        InputError: anything else.
    """
    number, _, count = text.partition("/")
    if not (text.isascii() and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise InputError(f"shard {text!r}: wanted i/n with i from 1 to n, such as 1/4")
    return int(number) - 1, int(count)


def run_jobs(jobs: Sequence[Job], *, workers: int, ray: str | None, progress: Progress | None) -> Iterator[Outcome]:
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
    """Local processes. When one dies, the jobs that were not done are begun again, each in a process of its own."""
    left = list(range(len(jobs)))
    with _pool(workers) as pool:
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
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    if left:
        with ThreadPoolExecutor(workers) as threads:
            yield from zip(left, threads.map(lambda i: _alone(jobs[i], wait), left), strict=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (os.getpid(),))


def _begin(parent: int) -> None:
    """End quietly on ctrl-C, and when the process that began this one is gone, however it went."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _alone(job: Job, wait: bool) -> dict[str, Any]:
    """Do a job in a process that dies with no other's work."""
    for _ in range(TRIES - 1):
        with _pool(1) as pool:
            try:
                return pool.submit(carry_out, job, wait=wait).result()
            except BrokenProcessPool:
                continue
    return _lost(job)


def _lost(job: Job) -> dict[str, Any]:
    error = f"{job.source}: its worker died {TRIES} times; it may want more memory: fewer --workers"
    return {"status": "failed", "error": error, "exit_code": 1}


def _actors(jobs: Sequence[Job], address: str, *, workers: int, wait: bool) -> Iterator[Outcome]:
    """Ray actors, each with its models in memory. They get paths and windows; pixels never pass the object store."""
    try:
        ray: Any = importlib.import_module("ray")
        from ray.exceptions import RayActorError
    except ModuleNotFoundError as error:
        raise InputError("Ray is not installed: pip install 'earthtune[ray]', or use --workers or --shard") from error
    if not ray.is_initialized():
        local = address == "local"
        try:
            ray.init(None if local else address, log_to_driver=False, include_dashboard=False if local else None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"ray {address}: no cluster answers there ({str(error).splitlines()[0]})") from error
    gpus = 1 if ray.cluster_resources().get("GPU") and jobs[0].engine.runtime != "openvino" else 0
    # A lost actor is started again, and does again what it was doing: parts that it has written are kept.
    options = {"num_cpus": jobs[0].engine.threads or cores(), "num_gpus": gpus}
    actor = ray.remote(**options, max_restarts=-1, max_task_retries=TRIES - 1)(_Worker)
    idle = [actor.remote() for _ in range(min(workers, len(jobs)))]
    waiting, running = list(range(len(jobs)))[::-1], dict[Any, tuple[int, Any]]()
    while waiting or running:
        while idle and waiting:
            number, worker = waiting.pop(), idle.pop()
            running[worker.carry_out.remote(jobs[number], wait)] = number, worker
        (ready,), _ = ray.wait(list(running))
        number, worker = running.pop(ready)
        idle.append(worker)
        try:
            yield number, ray.get(ready)
        except RayActorError:
            yield number, _lost(jobs[number])


class _Worker:
    """An actor."""

    def carry_out(self, job: Job, wait: bool) -> dict[str, Any]:
        return carry_out(job, wait=wait)


def threads_each(workers: int) -> int | None:
    """Threads for each of some workers on this machine; None leaves all to the only one."""
    return None if workers == 1 else max(cores() // workers, 1)
