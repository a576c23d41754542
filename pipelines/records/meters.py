"""What a process can read of its own cost: CPU time, memory, and energy where the machine tells it (RAPL, NVML)."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")


class Rapl:
    """Counters of processor energy of the whole machine, as Linux shows them; often only root may read them.

    Packages count, and memory that lies beside them; cores and graphics are parts of a package, psys of all of it.

    Attributes:
        memory: whether memory is counted, too.
    """

    def __init__(self, folder: Path) -> None:
        """Find the counters of a folder."""
        self._known: dict[Path, tuple[int, int]] = {}  # last value and range, in microjoules
        self.memory = False
        for domain in sorted(folder.glob("intel-rapl:*")):
            try:
                name = (domain / "name").read_text().strip()
                if name.startswith("package") or name == "dram":
                    self._known[domain] = _number(domain / "energy_uj"), _number(domain / "max_energy_range_uj")
                    self.memory |= name == "dram"
            except (OSError, ValueError):
                continue  # not ours to read

    @property
    def readable(self) -> bool:
        """Whether there is a counter that can be read."""
        return bool(self._known)

    def spent(self) -> float | None:
        """Joules since this was asked before; None where no counter can be read, or not all of them any more."""
        joules = 0.0
        for domain, (before, most) in list(self._known.items()):
            try:
                now = _number(domain / "energy_uj")
            except (OSError, ValueError):
                self._known.clear()
                self.memory = False
                return None
            joules += (now - before + (most + 1 if now < before else 0)) / 1e6  # counters begin again at 0
            self._known[domain] = now, most
        return joules if self._known else None


def _number(path: Path) -> int:
    return int(path.read_text())


class Device(NamedTuple):
    """A graphics card: joules since its driver was loaded, and the processes that compute on it."""

    joules: float
    processes: int = 1


class Nvml:
    """Energy counters of NVIDIA devices, by the library that comes with their driver."""

    def __init__(self, library: Any) -> None:
        """Use a library; None where there is none."""
        self._library = library if library is not None and library.nvmlInit_v2() == 0 else None

    def devices(self) -> dict[str, Device]:
        """The devices by their UUIDs; those that do not tell their energy are left out."""
        library, found, count = self._library, dict[str, Device](), ctypes.c_uint()
        if library is None or library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return found
        for i in range(count.value):
            device, name, energy = ctypes.c_void_p(), ctypes.create_string_buffer(96), ctypes.c_ulonglong()
            asked = (
                library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(i), ctypes.byref(device)),
                library.nvmlDeviceGetUUID(device, name, ctypes.c_uint(96)),
                library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)),
            )
            if not any(asked):
                found[name.value.decode()] = Device(energy.value / 1e3, _processes(library, device))
        return found


def _processes(library: Any, device: ctypes.c_void_p) -> int:
    """How many processes compute on a device; 1 where the driver does not tell."""
    count = ctypes.c_uint(0)
    try:
        library.nvmlDeviceGetComputeRunningProcesses_v3(device, ctypes.byref(count), None)
    except AttributeError:  # an older driver
        return 1
    return max(count.value, 1)


@cache
def nvml() -> Nvml:
    """That of this machine."""
    try:
        return Nvml(ctypes.CDLL("libnvidia-ml.so.1"))
    except OSError:
        return Nvml(None)


def devices_used() -> set[str]:
    """UUIDs of the devices that torch computes on in this process."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return set()
    return {f"GPU-{cuda.get_device_properties(cuda.current_device()).uuid}"}


@dataclass(frozen=True)
class Sources:
    """Where energy is read.

    Attributes:
        powercap: folder of the RAPL counters.
        stat: the file in which Linux tells what all processors do.
        devices: the graphics cards by UUID.
        used: which of the devices this process uses.
    """

    powercap: Path = Path("/sys/class/powercap")
    stat: Path = Path("/proc/stat")
    devices: Callable[[], Mapping[str, Device]] = field(default=lambda: nvml().devices())
    used: Callable[[], set[str]] = devices_used


def busy(stat: Path) -> float | None:
    """CPU seconds that all processes of the machine have used; None where that is not told."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, stat.read_text().split()[1:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq) / _TICK


def own_seconds() -> float:
    """CPU seconds of this process."""
    return time.process_time()


def children_seconds() -> float:
    """CPU seconds of its children: those that have ended, and those that multiprocessing began and that still live."""
    living = sys.modules["multiprocessing"].active_children() if "multiprocessing" in sys.modules else []
    seconds = 0.0
    for child in living:
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            seconds += sum(map(int, fields[11:15])) / _TICK
        except OSError:
            continue
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds + ended.ru_utime + ended.ru_stime


def age() -> float:
    """Seconds since this process began; 0 where that is not told."""
    try:
        begun = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / _TICK
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - begun, 0.0)
    except (OSError, AttributeError):
        return 0.0


def peak() -> int:
    """Most bytes of memory that this process has held."""
    try:
        told = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()
        return int(told[0]) << 10
    except (OSError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10
