"""Who does the jobs: this process, several on this machine, or actors of a Ray cluster."""

from __future__ import annotations

import concurrent.futures
import functools
import importlib
import itertools
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from models.errors import InputError, RunError
from models.runtime import silence as silence  # before Ray is imported
from models.runtime.engines import cores
from models.types import Progress
from pipelines.records.attempts import PAGE
from pipelines.records.energy import Meter
from pipelines.scoring.jobs import Job, carry_out

TRIES = 3  # how often a job is begun whose worker died
Outcome = tuple[Job, dict[str, Any]]  # and what became of it


def shard_of(text: str) -> tuple[int, int]:
    """Number (from 0) and count of shards from 'i/n', i from 1 to n.

    Raises:
        InputError: anything else.
    """
    number, _, count = text.partition("/")
    if not (text.isascii() and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise InputError(f"shard {text!r}: wanted i/n with i from 1 to n, such as 1/4")
    return int(number) - 1, int(count)


def run_jobs(
    jobs: Iterable[Job], *, workers: int, ray: str | None, meter: Meter | None = None, progress: Progress | None
) -> Iterator[Outcome]:
    """Do jobs as they come; those that another process is at work on come last, and are waited for.

    Jobs are taken from the iterable a few ahead of the work, so that it may open each scene when its turn comes.

    Yields:
        Each job and what became of it, as it ends.

    Raises:
        InputError: Ray is not installed, or not at that address.
    """
    busy = []
    how: dict[str, Any] = {"workers": workers, "ray": ray, "meter": meter, "progress": progress}
    for job, outcome in _attempt(iter(jobs), wait=False, **how):
        if outcome["status"] == "busy":
            busy.append(job)
        else:
            yield job, outcome
    yield from _attempt(iter(busy), wait=True, **how)


def _attempt(
    jobs: Iterator[Job],
    *,
    workers: int,
    ray: str | None,
    wait: bool,
    meter: Meter | None,
    progress: Progress | None,
) -> Iterator[Outcome]:
    first = [*itertools.islice(jobs, 2)]
    every = itertools.chain(first, jobs)
    if ray and first:
        return _actors(every, ray, workers=workers, wait=wait)
    if workers > 1 and len(first) > 1:
        return _processes(every, workers=workers, wait=wait)
    return ((job, carry_out(job, wait=wait, meter=meter, progress=progress)) for job in every)


def _processes(jobs: Iterator[Job], *, workers: int, wait: bool) -> Iterator[Outcome]:
    """Local processes. When one dies, the jobs that were at work are begun again, each in a process of its own."""
    left = True
    while left:
        lost: list[Job] = []
        with _pool(workers) as pool:
            try:
                left = yield from _until_broken(pool, jobs, lost, ahead=2 * workers, wait=wait)
            except BaseException:  # ctrl-C, or nobody wants the rest
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        if lost:
            with ThreadPoolExecutor(workers) as threads:
                yield from zip(lost, threads.map(lambda job: _alone(job, wait), lost), strict=True)


def _until_broken(
    pool: ProcessPoolExecutor, jobs: Iterator[Job], lost: list[Job], *, ahead: int, wait: bool
) -> Generator[Outcome, None, bool]:
    """Do jobs in a pool until there are no more, or a process dies; then the jobs under way are `lost`.

    Returns:
        Whether jobs may be left.
    """
    running: dict[Future[dict[str, Any]], Job] = {}
    more = True
    while more or running:
        for job in itertools.islice(jobs, ahead - len(running)) if more else ():
            try:
                running[pool.submit(_part, job, wait=wait)] = job
            except BrokenProcessPool:
                lost.append(job)
                break
        more = more and not lost and len(running) == ahead
        for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
            job = running.pop(future)
            try:
                yield job, future.result()
            except BrokenProcessPool:
                lost.append(job)
    return bool(lost)


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


def _part(job: Job, *, wait: bool) -> dict[str, Any]:
    """Do a job in a process that is there for that, and write down what it has cost so far."""
    meter = _meter(job.outputs[0].entry.out / PAGE, *job.call)
    outcome = carry_out(job, wait=wait, meter=meter)
    meter.keep()
    return outcome


@functools.cache
def _meter(page: Path, call: str, country: str) -> Meter:
    """The meter of this process."""
    meter = Meter(whole=True)
    meter.begin("score", country, part_of=call)
    meter.bind(page, parts=True)
    return meter


def _alone(job: Job, wait: bool) -> dict[str, Any]:
    """Do a job in a process that dies with no other's work."""
    for _ in range(TRIES - 1):
        with _pool(1) as pool:
            try:
                return pool.submit(_part, job, wait=wait).result()
            except BrokenProcessPool:
                continue
    return _lost(job)


def _lost(job: Job) -> dict[str, Any]:
    error = f"{job.source}: its worker died {TRIES} times; it may want more memory: fewer --workers"
    return {"status": "failed", "error": error, "exit_code": 1}


def _actors(jobs: Iterator[Job], address: str, *, workers: int, wait: bool) -> Iterator[Outcome]:
    """Ray actors, each with its models in memory. They get paths and windows; pixels never pass the object store."""
    try:
        ray: Any = importlib.import_module("ray")
        from ray.exceptions import RayActorError
    except ModuleNotFoundError as error:
        raise InputError("Ray is not installed: pip install 'earthtune[ray]', or use --workers or --shard") from error
    if not ray.is_initialized():
        local = address == "local"
        try:
            _knock(address)
            ray.init(None if local else address, log_to_driver=False, include_dashboard=False if local else None)
        except Exception as error:  # of many kinds, some of none
            why = " ".join(str(error).split())[:200] or type(error).__name__
            if local:
                raise RunError(f"ray {address}: does not start here ({why}); use --workers") from error
            raise InputError(f"ray {address}: no cluster answers there ({why}); check it by `ray status`") from error
    first = next(jobs)
    jobs = itertools.chain([first], jobs)
    gpus = 1 if ray.cluster_resources().get("GPU") and first.engine.runtime != "openvino" else 0
    # A lost actor is started again, and does again what it was doing: parts that it has written are kept.
    options = {"num_cpus": first.engine.threads or cores(), "num_gpus": gpus}
    actor = ray.remote(**options, max_restarts=-1, max_task_retries=TRIES - 1)(_Worker)
    idle: list[Any] = []
    running: dict[Any, tuple[Job, Any]] = {}
    while True:
        for job in itertools.islice(jobs, workers - len(running)):
            worker = idle.pop() if idle else actor.remote()
            running[worker.carry_out.remote(job, wait)] = job, worker
        if not running:
            return
        (ready,), _ = ray.wait(list(running))
        job, worker = running.pop(ready)
        idle.append(worker)
        try:
            yield job, ray.get(ready)
        except RayActorError:
            yield job, _lost(job)


def _knock(address: str) -> None:
    """Raise an OSError at once where nothing listens at host:port; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


class _Worker:
    """An actor."""

    def carry_out(self, job: Job, wait: bool) -> dict[str, Any]:
        return _part(job, wait=wait)


def threads_each(workers: int) -> int | None:
    """Threads for each of some workers on this machine; None leaves all to the only one."""
    return None if workers == 1 else max(cores() // workers, 1)
