"""What is booked: by phase, by process, by attempt; what machines tell of their energy."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from models.errors import InputError
from pipelines.records import meters
from pipelines.records.attempts import PAGE, fold, page_of, read_records, write_part
from pipelines.records.energy import Account, Meter
from pipelines.records.label import line, summed

ROOT = Path(__file__).resolve().parents[3]
RANGE = 262_143_328_850


def powercap(folder, **domains):
    """A tree as Linux has it: NAME_NUMBER is a domain's name and its counter in microjoules."""
    for number, (name, energy) in enumerate(domains.items()):
        domain = folder / f"intel-rapl:{number}"
        domain.mkdir(parents=True, exist_ok=True)
        (domain / "name").write_text(f"{name.replace('_', '-')}\n")
        (domain / "max_energy_range_uj").write_text(f"{RANGE}\n")
        (domain / "energy_uj").write_text(f"{energy}\n")
    return folder


class FakeNvml:
    """The library of a driver that knows two devices; the second is too old to tell."""

    def __init__(self, joules, processes=1):
        self.joules, self.processes = joules, processes

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, i, device):
        device._obj.value = i.value + 1
        return 0

    def nvmlDeviceGetUUID(self, device, name, size):
        name.value = f"GPU-{device.value}".encode()
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device, energy):
        energy._obj.value = round(self.joules * 1000)
        return 0 if device.value == 1 else 3

    def nvmlDeviceGetComputeRunningProcesses_v3(self, device, count, infos):
        count._obj.value = self.processes
        return 7  # no room was given for more than their number


def sources(folder, **given):
    return meters.Sources(**{"powercap": folder, "devices": dict, "used": set} | given)


def burn(seconds):
    """Use the processor for so many CPU seconds of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def booked(folder, say=lambda line: None):
    meter = Meter()
    meter.begin("score", "", say)
    meter.bind(folder / PAGE, parts=True)
    return meter


def test_rapl_adds_packages_and_memory_and_counts_on_where_a_counter_begins_again(tmp_path):
    tree = powercap(tmp_path, package_0=1_000_000, package_1=RANGE - 500_000, core=5, psys=7, dram=0)
    rapl = meters.Rapl(tree)
    assert rapl.readable and rapl.memory
    powercap(tree, package_0=3_000_000, package_1=499_999, core=10**9, psys=10**9, dram=250_000)
    assert rapl.spent() == pytest.approx(2.0 + 1.0 + 0.25)
    assert rapl.spent() == 0


@pytest.mark.parametrize("broken", ["gone", "text", "none"])
def test_counters_that_cannot_be_read_are_none(tmp_path, broken):
    rapl = meters.Rapl(powercap(tmp_path, package_0=1) if broken != "none" else tmp_path / "nowhere")
    if broken == "gone":
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    elif broken == "text":
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("denied")
    assert rapl.spent() is None and rapl.spent() is None and not rapl.readable


def test_the_machines_energy_is_shared_by_cpu_time(tmp_path):
    stat = tmp_path / "stat"
    tree = powercap(tmp_path, package_0=0, dram=0)

    def busy(seconds):
        stat.write_text(f"cpu  {round(seconds * os.sysconf('SC_CLK_TCK'))} 0 0 999 999 0 0 0 0 0\n")

    busy(100)
    meter = Meter(sources=sources(tree, stat=stat))
    meter.begin("score", "")
    burn(0.2)
    powercap(tree, package_0=80_000_000, dram=20_000_000)
    busy(100.8)  # of which we were a quarter
    meter.lap("tiles")
    record = meter.record()
    phase = record["phases"]["tiles"]
    assert phase["joules"] == pytest.approx(100 * phase["cpu"] / 0.8, rel=1e-6) and 20 < phase["joules"] < 40
    label = summed([record])
    assert label["kind"] == "measured" and label["wh"].low == label["wh"].high == phase["joules"] / 3600


def test_devices_count_where_they_are_used_and_told(tmp_path):
    library = FakeNvml(1000.0)
    nvml = meters.Nvml(library)
    assert nvml.devices() == {"GPU-1": (1000.0, 1)}
    meter = Meter(sources=sources(tmp_path, devices=nvml.devices, used=lambda: {"GPU-1"}))
    meter.begin("score", "")
    library.joules = 4600.0
    meter.lap("tiles")
    assert meter.record()["phases"]["tiles"]["device"] == 3600
    assert summed([meter.record()])["wh"].low == pytest.approx(1, abs=0.01)
    library.joules, library.processes = 5600.0, 2  # workers that share a card count it once
    meter.lap("tiles")
    assert meter.record()["phases"]["tiles"]["device"] == 3600 + 500
    idle = Meter(sources=sources(tmp_path, devices=nvml.devices))
    idle.begin("score", "")
    library.joules = 9000.0
    idle.lap("tiles")
    assert idle.record()["phases"]["tiles"]["device"] == 0


def test_a_driver_that_counts_no_processes_gives_the_whole_card(monkeypatch):
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetComputeRunningProcesses_v3")
    assert meters.Nvml(FakeNvml(5.0, processes=3)).devices() == {"GPU-1": (5.0, 1)}


def test_a_device_that_does_not_tell_is_said_to_be_missing(tmp_path):
    meter = Meter(sources=sources(tmp_path, devices=meters.Nvml(FakeNvml(1)).devices, used=lambda: {"GPU-2"}))
    meter.begin("score", "")
    burn(0.01)
    meter.lap("tiles")
    label = summed([meter.record()])
    assert label["unread"] == ["GPU-2"] and label["kind"] == "estimated" and "is missing" in line(label)


def test_without_a_driver_there_are_no_devices():
    assert meters.Nvml(None).devices() == {}

    class Failing:
        nvmlInit_v2 = staticmethod(lambda: 9)

    assert meters.Nvml(Failing()).devices() == {} and ctypes.sizeof(ctypes.c_ulonglong) == 8


CHILD = """
import sys, threading, time
from pathlib import Path
from pipelines.records.energy import Meter
from pipelines.records.attempts import PAGE
meter = Meter(whole=True)
meter.begin("score", "FRA")
meter.bind(Path(sys.argv[1]) / PAGE, parts=True)
meter.lap("start")
held = bytearray(64 << 20)
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: sum(range(1000))
def read():
    with meter.aside("read"):
        burn(.1)
thread = threading.Thread(target=read)
thread.start(); burn(.3); thread.join()
meter.lap("tiles")
burn(.1)
if sys.argv[2:]:
    meter.keep()
    print("kept", flush=True)
    time.sleep(60)
meter.close()
"""


def test_phases_sum_to_the_whole_which_is_what_the_system_says(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    (record,) = read_records(tmp_path)
    for what in ("wall", "cpu"):
        assert sum(phase[what] for phase in record["phases"].values()) == pytest.approx(record["whole"][what], rel=0.01)
    # But for the interpreter's own end.
    assert record["whole"]["cpu"] == pytest.approx(used.ru_utime + used.ru_stime, rel=0.1, abs=0.1)
    phases = {name: phase["cpu"] for name, phase in record["phases"].items()}
    assert phases["read"] == pytest.approx(0.1, rel=0.3) and phases["tiles"] == pytest.approx(0.3, rel=0.3)
    assert 64 << 20 < record["phases"]["tiles"]["peak"] < 64 + 80 << 20 and record["phases"]["start"]["peak"] < 80 << 20


def test_a_killed_attempt_counts_as_far_as_it_came_and_is_added_to_the_next(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen([*command, "wait"], env=env, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None and killed.stdout.readline() == "kept\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (lost,) = read_records(tmp_path)  # also before anything was added up
    assert lost["whole"]["cpu"] >= 0.4 and not (tmp_path / PAGE).exists()
    subprocess.run(command, env=env, check=True)
    records = read_records(tmp_path)
    page = json.loads((tmp_path / PAGE).read_text())
    assert len(records) == 2 and page["attempts"] == 2
    assert page["cpu_s"] == pytest.approx(sum(record["whole"]["cpu"] for record in records))
    assert page["wh"] == list(summed(records)["wh"])


def test_the_same_work_costs_the_same_on_a_busy_machine(tmp_path):
    def cost():
        meter = Meter(sources=sources(tmp_path))
        meter.begin("score", "")
        burn(0.2)
        meter.lap("tiles")
        return summed([meter.record()])["wh"]

    idle = cost()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        busy = cost()
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert busy.mid == pytest.approx(idle.mid, rel=0.3) and busy.low == pytest.approx(idle.low, rel=0.3)


def test_children_are_booked_once(tmp_path):
    """By their parent as they live and when they have ended, or not at all where they have meters of their own."""
    script = """
import multiprocessing, sys, time
from pipelines.records.energy import Meter
def work(begun):
    end = time.process_time() + .3
    while time.process_time() < end: sum(range(1000))
    begun.set()
    time.sleep(60)
if __name__ == "__main__":
    meters = Meter(), Meter()
    for meter, children in zip(meters, (True, False)):
        meter.begin("finetune", "", children=children)
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=work, args=(begun,), daemon=True)
    process.start(); begun.wait()
    for meter in meters: meter.lap("epochs")
    process.terminate(); process.join()
    for meter in meters: meter.lap("assess")
    for meter in meters: print(meter.record()["whole"]["cpu"])
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    mine, without = map(float, done.stdout.split())
    assert 0.27 <= mine - without <= 0.4 and without < 0.1, done.stderr


def test_parts_of_other_processes_are_added_and_their_wall_time_is_not(tmp_path):
    main, part, shard = booked(tmp_path), booked(tmp_path), booked(tmp_path)
    part.begin("score", "", part_of=main.id)
    for meter in (main, part, shard):
        burn(0.02)
        meter.lap("tiles")
        meter.keep()
    part.made(km2=5, samples=10)
    part.close()
    main.close()
    page = json.loads((tmp_path / PAGE).read_text())
    assert (page["attempts"], page["processes"], page["km2"]) == (2, 3, 5)
    assert main.label and "per 1,000 km2" in line(main.label)
    shard.close()  # which was under way when the other was added up
    records = read_records(tmp_path)
    assert len(records) == 3 and not [*(tmp_path / ".earthtune" / "energy").glob("*.json")]
    label = summed(records)
    assert label["wall_s"] < sum(record["whole"]["wall"] for record in records) - 0.01
    assert label["cpu_s"] == pytest.approx(sum(record["whole"]["cpu"] for record in records))


def test_shards_that_end_at_once_lose_nothing(tmp_path):
    some = [booked(tmp_path) for _ in range(8)]
    threads = [threading.Thread(target=meter.close) for meter in some]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record["id"] for record in read_records(tmp_path)} == {meter.id for meter in some}


DAMAGED = [b"", b"{", b"[]", b'{"type": "Feature"}', b"\xff\xfe", b'{"what": "energy of earthtune", "format": 9}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_page_is_told_in_a_line_and_nothing_is_lost(tmp_path, content):
    (tmp_path / PAGE).write_bytes(content)
    said: list[str] = []
    meter = booked(tmp_path, said.append)
    meter.lap("tiles")
    meter.close()
    assert len(said) == 1 and "\n" not in said[0] and str(tmp_path / PAGE) in said[0] and meter.label is None
    assert (tmp_path / PAGE).read_bytes() == content
    with pytest.raises(InputError, match="move it away") as error:
        read_records(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / PAGE).unlink()
    assert [record["id"] for record in read_records(tmp_path)] == [meter.id]


@pytest.mark.parametrize("change", ["country", "whole", "phases", "made", "unread", "id"])
def test_a_record_that_is_none_is_refused(tmp_path, change):
    meter = booked(tmp_path)
    meter.close()
    page = json.loads((tmp_path / PAGE).read_text())
    page["records"][0][change] = {"whole": {"cpu": "much", "wall": 0}, "made": {"km2": float("nan")}}.get(change, 7)
    (tmp_path / PAGE).write_text(json.dumps(page))
    with pytest.raises(InputError, match="no record of energy"):
        read_records(tmp_path)


def test_a_damaged_part_is_left_out(tmp_path):
    meter = booked(tmp_path)
    meter.keep()
    (tmp_path / ".earthtune" / "energy" / "x.json").write_text('{"id": 3}')
    assert [record["id"] for record in read_records(tmp_path)] == [meter.id]


def test_a_full_disk_takes_nothing_from_the_work(small_disk):
    said: list[str] = []
    meter = booked(small_disk, said.append)
    with pytest.raises(OSError), (small_disk / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    meter.lap("tiles")
    meter.keep()
    meter.close()
    assert len(said) == 1 and not (small_disk / PAGE).exists()


def test_what_fails_waits_for_a_call_that_makes_something(tmp_path):
    account = Account("FRA")
    with pytest.raises(KeyboardInterrupt), account.booked("score") as meter:
        meter.bind(tmp_path / PAGE, parts=True)
        raise KeyboardInterrupt
    assert not (tmp_path / PAGE).exists()
    with account.booked("score") as meter:
        meter.bind(tmp_path / PAGE, parts=True)
    page = json.loads((tmp_path / PAGE).read_text())
    assert page["attempts"] == 2 and page["countries"] == ["FRA"]


def test_a_file_has_its_page_beside_it_and_counts_in_its_folder(tmp_path):
    file = tmp_path / "tokens.tif"
    file.touch()
    meter = Meter()
    meter.begin("embed", "")
    meter.close(page_of(file))
    assert [path.name for path in tmp_path.glob("*.json")] == ["tokens.energy.json"]
    assert read_records(file) == read_records(tmp_path) == read_records(page_of(file))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.energy.json", "tokens.tif"]


def test_nothing_recorded_is_told(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError) as error:
            read_records(place)
        assert str(place) in str(error.value) and "\n" not in str(error.value)


def test_the_country_comes_from_the_option_then_the_environment(monkeypatch):
    monkeypatch.setenv("EARTHTUNE_COUNTRY", "germany")
    assert Account().begun("score").call[1] == "DEU"
    assert Account("ind").begun("score").call[1] == "IND"
    monkeypatch.setenv("EARTHTUNE_COUNTRY", "Frnce")
    with pytest.raises(InputError, match="did you mean France"):
        Account().begun("score")


def test_its_own_cost_is_small(monkeypatch):
    """Between laps, of which there is at most one in two seconds, no counter is read."""
    meter = Meter()
    for name in ("own_seconds", "children_seconds", "peak"):
        monkeypatch.setattr(meters, name, lambda: pytest.fail("read"))
    meter.tick("tiles")


def test_records_are_written_while_the_work_goes_on(tmp_path):
    meter = booked(tmp_path)
    meter.lap("tiles")
    assert len(read_records(tmp_path)) == 1
    before = read_records(tmp_path)
    meter.tick("tiles")  # too soon
    assert read_records(tmp_path) == before
    write_part(tmp_path / PAGE, meter.record())
    fold(tmp_path / PAGE, meter.record(), parts=True)
    assert len(read_records(tmp_path)) == 1
