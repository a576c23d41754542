"""What commands spend: each process books its time and energy by phases, and writes them beside what it makes."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import EarthtuneError
from models.types import Say
from pipelines.records import attempts, meters
from pipelines.records.footprint import country_of
from pipelines.records.label import summed

EVERY = 5.0  # seconds between two writings of a record; a kill loses no more
START, READ, TILES, EPOCHS, ASSESS, WRITE = PHASES = ("start", "read", "tiles", "epochs", "assess", "write")


@dataclass
class Phase:
    """What a phase has cost.

    Attributes:
        wall: seconds.
        cpu: CPU seconds of the process, and of those children that it books for.
        measured: those of the CPU seconds whose energy was read.
        joules: that energy.
        device: joules of graphics cards.
        peak: most bytes of memory until its end.
    """

    wall: float = 0.0
    cpu: float = 0.0
    measured: float = 0.0
    joules: float = 0.0
    device: float = 0.0
    peak: int = 0


class _Reading(NamedTuple):
    """Counters at a moment: seconds, CPU seconds of the process, its children and the machine; graphics cards."""

    wall: float
    own: float
    children: float
    busy: float | None
    devices: Mapping[str, meters.Device]


class Meter:
    """Books what this process spends. Phases come one after the other, so that they add up to the whole.

    A process books for itself and for child processes that have no meter of their own; one whose children have some
    leaves its children out, so that nothing counts twice.

    Attributes:
        id: tells its record from any other.
        label: the sum of the command, once it is closed.
        done: whether something was made; else the record waits in the hidden folder for a call that makes something.
    """

    def __init__(self, *, whole: bool = False, sources: meters.Sources = meters.Sources()) -> None:
        """Begin.

        Args:
            whole: book all since the process began, else from now on.
            sources: where energy is read.
        """
        self.id, self.done = uuid.uuid4().hex, True
        self.label: dict[str, Any] | None = None
        self._sources, self._rapl = sources, meters.Rapl(sources.powercap)
        self._children, self._lock = True, threading.Lock()
        self._last = self._read()
        before = Phase(meters.age(), self._last.own, peak=meters.peak()) if whole else Phase()
        self._phases = {START: before} if whole else {}
        self._begun = self._last.wall - before.wall
        self._cpu = before.cpu
        self._aside: dict[str, float] = {}
        self._made = {"km2": 0.0, "samples": 0.0}
        self._unread: set[str] = set()
        self._about: dict[str, Any] = {"began": datetime.now(UTC).isoformat(timespec="seconds")}
        self._page: Path | None = None
        self._parts, self._written = False, 0.0
        self._say: Say = lambda line: None

    def begin(
        self,
        command: str,
        country: str,
        say: Say = lambda line: None,
        *,
        part_of: str = "",
        children: bool = True,
    ) -> None:
        """Say what is done, where, and for whom.

        Args:
            command: the command.
            country: see `footprint.country_of`.
            say: takes a line for the person who waits.
            part_of: id of the meter of the command, for a process that does a part of it.
            children: whether child processes are booked here.
        """
        self._about |= {"command": command, "country": country, "part_of": part_of}
        self._children, self._say = children, say
        self.lap(START)

    @property
    def call(self) -> tuple[str, str]:
        """What a process has to know that does a part of the command: the meter's id, and the country."""
        return self.id, self._about["country"]

    def _read(self) -> _Reading:
        busy = meters.busy(self._sources.stat) if self._rapl.readable else None
        cpu = meters.own_seconds(), meters.children_seconds()
        return _Reading(time.monotonic(), *cpu, busy, self._sources.devices())

    def lap(self, phase: str) -> None:
        """Book what was spent since the last lap."""
        now, before = self._read(), self._last
        cpu = now.own - before.own + (now.children - before.children if self._children else 0.0)
        self._last, spent = now, Phase(now.wall - before.wall, cpu, peak=meters.peak())
        self._cpu += cpu
        joules = self._rapl.spent()
        if joules is not None and now.busy is not None and before.busy is not None:
            # The counters are the whole machine's.
            spent.joules = joules * min(spent.cpu / max(now.busy - before.busy, spent.cpu, 1e-9), 1)
            spent.measured = spent.cpu
        for device in self._sources.used():
            if card := now.devices.get(device):
                spent.device += (card.joules - before.devices.get(device, card).joules) / card.processes
            else:
                self._unread.add(device)
        with self._lock:
            aside, self._aside = self._aside, {}
        rest = 1.0
        for name, seconds in aside.items():
            share = min(seconds / spent.cpu, rest) if spent.cpu > 0 else 0.0
            self._book(name, spent, share)
            rest -= share
        self._book(phase, spent, rest)
        if self._parts and now.wall - self._written >= EVERY:
            self.keep()

    def _book(self, name: str, spent: Phase, share: float) -> None:
        """Add a share of what was spent to a phase."""
        phase = self._phases.setdefault(name, Phase())
        for key in ("wall", "cpu", "measured", "joules", "device"):
            setattr(phase, key, getattr(phase, key) + share * getattr(spent, key))
        phase.peak = spent.peak

    def tick(self, phase: str) -> None:
        """A lap, where the last is long enough ago; costs nothing else."""
        if time.monotonic() - self._last.wall >= EVERY:
            self.lap(phase)

    @contextmanager
    def aside(self, phase: str) -> Iterator[None]:
        """Book what this thread computes in the block to a phase, beside that of the lap in which it falls."""
        begun = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self._aside[phase] = self._aside.get(phase, 0.0) + time.thread_time() - begun

    def made(self, *, km2: float = 0.0, samples: float = 0.0) -> None:
        """Count what was made: square kilometres of maps; tiles, or samples that were learned from."""
        self._made["km2"] += km2
        self._made["samples"] += samples

    def bind(self, page: Path, *, parts: bool = False) -> None:
        """Say where the record goes; nothing is written before.

        Args:
            page: energy.json in a folder, or NAME.energy.json beside a file.
            parts: whether it is also written while the work goes on, into the folder of records that are under way.
        """
        self._page, self._parts = page, parts

    def record(self) -> dict[str, Any]:
        """All that was booked, as plain data."""
        whole = {"wall": self._last.wall - self._begun, "cpu": self._cpu}
        about = {"memory_measured": self._rapl.memory, "unread": sorted(self._unread)}
        phases = {name: asdict(phase) for name, phase in self._phases.items()}
        return {"id": self.id, **self._about, "whole": whole, "phases": phases, "made": dict(self._made), **about}

    def keep(self) -> None:
        """Write the record down, as far as it is, where it is to be written while the work goes on."""
        self._written = time.monotonic()
        if self._page and self._parts:
            attempts.write_part(self._page, self.record())

    def close(self, page: Path | None = None) -> None:
        """Book the rest to the writing; add the record to those of the folder, and tell the sum of this command.

        Args:
            page: where the record goes, where that was not said before.
        """
        self.lap(WRITE)
        self._page = self._page or page
        if not self.done or self._about["part_of"]:
            self.keep()
            return
        if self._page is None or not self._page.parent.is_dir():
            return
        try:
            self.label = summed(attempts.fold(self._page, self.record(), parts=self._parts))
        except (OSError, EarthtuneError) as error:  # what was made is there all the same
            self._say(f"energy: not added up ({error})")


@dataclass(frozen=True)
class Account:
    """On whose account the energy goes.

    Attributes:
        country: whose power is used, by its ISO 3166 alpha-3 code, such as FRA; EARTHTUNE_COUNTRY when not given, and
            a range over the world without either.
        meter: what books the energy; one of this call when None.
    """

    country: str | None = None
    meter: Meter | None = None

    def begun(self, command: str, say: Say = lambda line: None, *, part_of: str = "", children: bool = True) -> Meter:
        """The meter, which has begun; see `Meter.begin`.

        Raises:
            InputError: no such country.
        """
        country = country_of(self.country or os.environ.get("EARTHTUNE_COUNTRY", ""))
        meter = self.meter or Meter()
        meter.begin(command, country, say, part_of=part_of, children=children)
        return meter

    @contextmanager
    def booked(
        self, command: str, say: Say = lambda line: None, *, part_of: str = "", children: bool = True
    ) -> Iterator[Meter]:
        """The same; what it booked is written when the block ends, however it ends."""
        meter = self.begun(command, say, part_of=part_of, children=children)
        try:
            yield meter
        except BaseException:
            meter.done = False
            raise
        finally:
            meter.close()
