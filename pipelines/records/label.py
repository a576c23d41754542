"""Records of energy added up: by phase and as a whole, what that stands for, and how it was found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.records.footprint import WORLD, Span, charges, factor, factors, grams, litres, said, total

Record = dict[str, Any]
_ORDER = ("start", "read", "tiles", "epochs", "assess", "write")
_HOUR = 3600.0
_TRAINING = {"finetune": "fine-tuning", "pretrain": "pre-training"}  # as model cards have it
_FIELDS = ("wall", "cpu", "measured", "joules", "device", "peak")
_NEGLIGIBLE = 0.01  # share of the energy that may be estimated, or measured, without a word of it


def check(record: Any) -> Record:
    """A record as it was read, which is one.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
    """
    texts = [record[key] for key in ("id", "command", "country", "part_of", "began")]
    numbers = [*record["whole"].values(), *record["made"].values()]
    for phase in record["phases"].values():
        numbers += [phase[key] for key in _FIELDS]
    numbers += [record["whole"]["wall"], record["whole"]["cpu"], record["made"]["km2"], record["made"]["samples"]]
    if not all(isinstance(text, str) for text in texts) or not isinstance(record["unread"], list):
        raise ValueError("a text is none")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("a number is none")
    if ("grid", record["country"]) not in factors():
        raise ValueError(f"no country {record['country']!r}")
    return dict(record)


def _estimated(phase: Mapping[str, Any], record: Mapping[str, Any]) -> Span:
    """Wh of a phase that nothing measured: CPU seconds by watts, and its memory while it computes.

    While it waits others compute, and memory is on in any case: charged by the clock, the same work would cost more on
    a busy machine.
    """
    cpu = factor("processor").times(max(phase["cpu"] - phase["measured"], 0.0))
    memory = 0.0 if record["memory_measured"] else phase["peak"] / 1e9 * max(min(phase["wall"], phase["cpu"]), 0.0)
    return total((cpu, factor("memory").times(memory))).times(1 / _HOUR)


def _measured(phase: Mapping[str, Any]) -> float:
    """Wh of a phase that were measured."""
    return float((phase["joules"] + phase["device"]) / _HOUR)


def _energy(phase: Mapping[str, Any], record: Mapping[str, Any]) -> Span:
    return total((_estimated(phase, record), Span(*[_measured(phase)] * 3)))


def summed(records: Sequence[Record], country: str | None = None) -> dict[str, Any]:
    """Records added up.

    Args:
        records: at least one.
        country: whose power it was; as each record says when None.

    Returns:
        Plain data. Spans are [low, middle, high]. `wall` leaves out processes that did parts of a command beside it.
    """
    phases: dict[str, dict[str, Any]] = {}
    names = dict.fromkeys(name for record in records for name in record["phases"])
    for name in sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)):
        booked = [(record["phases"][name], record) for record in records if name in record["phases"]]
        phases[name] = {
            "wall_s": sum(phase["wall"] for phase, record in booked if not record["part_of"]),
            "cpu_s": sum(phase["cpu"] for phase, _ in booked),
            "peak_bytes": max(phase["peak"] for phase, _ in booked),
            "wh": total(_energy(phase, record) for phase, record in booked),
        }
    grids = [(record["country"] if country is None else country, record) for record in records]
    emitted = total(grams(_of(record), where) for where, record in grids)
    places = sorted({where for where, _ in grids})
    wh = total(phase["wh"] for phase in phases.values())
    km2, samples = (sum(record["made"][what] for record in records) for what in ("km2", "samples"))
    site, water = litres(wh)
    return {
        "kind": _kind(records),
        "attempts": sum(not record["part_of"] for record in records),
        "processes": len(records),
        "wall_s": sum(record["whole"]["wall"] for record in records if not record["part_of"]),
        "cpu_s": sum(record["whole"]["cpu"] for record in records),
        "peak_bytes": max((phase["peak_bytes"] for phase in phases.values()), default=0),
        "phases": phases,
        "wh": wh,
        "g_co2e": emitted,
        "countries": places,
        "grid_year": ", ".join(sorted({factors()["grid", place].year for place in places})),
        "water_on_site_l": site,
        "water_l": water,
        "phone_charges": charges(wh),
        "km2": km2,
        "samples": samples,
        "wh_per_1000_km2": _per_1000(records, "km2"),
        "wh_per_1000_samples": _per_1000(records, "samples"),
        "unread": sorted({device for record in records for device in record["unread"]}),
        "co2_eq_emissions": _card(emitted, places, records),
    }


def between(earlier: Record, later: Record) -> Record:
    """What a process booked between two of its records, as a record."""
    before = earlier["phases"]
    phases = {
        name: {key: value - (0 if key == "peak" else before.get(name, {}).get(key, 0)) for key, value in phase.items()}
        for name, phase in later["phases"].items()
    }
    told = {part: {key: later[part][key] - earlier[part][key] for key in later[part]} for part in ("whole", "made")}
    return {**later, **told, "phases": phases}


def _of(record: Record) -> Span:
    """Wh of a record."""
    return total(_energy(phase, record) for phase in record["phases"].values())


def _per_1000(records: Sequence[Record], what: str) -> Span | None:
    """Wh for 1,000 of what commands made; of those commands alone, and None where they are of several kinds."""
    commands = {record["command"] for record in records if record["made"][what]}
    if len(commands) != 1:
        return None
    makers = [record for record in records if record["command"] in commands]
    return total(map(_of, makers)).per(sum(record["made"][what] for record in makers), 1000)


def _kind(records: Iterable[Record]) -> str:
    """Whether the energy was measured, estimated, or both."""
    pairs = [(phase, record) for record in records for phase in record["phases"].values()]
    guessed = sum(_estimated(phase, record).mid for phase, record in pairs)
    known = sum(_measured(phase) for phase, _ in pairs)
    if any(record["unread"] for _, record in pairs):
        return "mixed" if known else "estimated"
    if guessed <= _NEGLIGIBLE * known:
        return "measured" if known else "estimated"
    return "estimated" if known <= _NEGLIGIBLE * guessed else "mixed"


def _card(emitted: Span, places: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
    """`co2_eq_emissions` as a model card of the Hugging Face hub has it: grams, and what they come from."""
    kinds = {_TRAINING.get(record["command"], "") for record in records} - {""}
    between = f"{emitted.low:.3g} to {emitted.high:.3g} g"
    return {
        "emissions": float(f"{emitted.mid:.3g}"),
        "source": f"earthtune, {_kind(records)}: {between}",
        "training_type": ", ".join(sorted(kinds)),
        "geographical_location": where(places),
    }


def where(places: Sequence[str]) -> str:
    """Countries in words."""
    names = [factors()["grid", place].name for place in places if place != WORLD]
    return ", ".join([*names, *(["the world"] if WORLD in places else [])])


def line(label: Mapping[str, Any]) -> str:
    """A label in one line."""
    parts = [
        f"energy: {said(label['wh'], 'Wh')} ({label['kind']})",
        f"{said(label['g_co2e'], 'g CO2e')} ({where(label['countries'])})",
        f"{said(label['water_l'], 'L of water')} in all, {said(label['water_on_site_l'], 'L')} on site",
        said(label["phone_charges"], "phone charges"),
    ]
    if label["wh_per_1000_km2"]:
        parts.append(f"{said(label['wh_per_1000_km2'], 'Wh')} per 1,000 km2")
    unread = "; a graphics card was not read, and is missing" if label["unread"] else ""
    return ", ".join(parts) + unread
