"""What a run has cost: the part of the report, and a picture of several runs, score against energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.files import check_target, draft
from pipelines.records.attempts import read_records
from pipelines.records.footprint import Span, said
from pipelines.records.label import summed, where
from pipelines.reports import plots
from pipelines.reports.measures import named

_COLOURS = {
    "start": "#8a8a8a",
    "read": "#e08a1e",
    "tiles": "#3d85c6",
    "epochs": "#3d85c6",
    "assess": "#6aa84f",
    "write": "#a679c9",
}
_LEAST = 0.005  # share of a bar below which a phase is no more to be seen


def view(folder: Path) -> Mapping[str, Any] | None:
    """What the report shows of the energy that was recorded in a folder until now; None where none was."""
    try:
        label = summed(read_records(folder))
    except InputError:
        return None
    return rendered(label) if label["wh"].mid else None


def rendered(label: Mapping[str, Any]) -> Mapping[str, Any]:
    """A label as the page shows it."""
    whole = label["wh"].mid
    phases = [
        {
            "name": name,
            "share": phase["wh"].mid / whole,
            "wh": said(phase["wh"], "Wh"),
            "cpu": seconds(phase["cpu_s"]),
            "wall": seconds(phase["wall_s"]),
            "colour": _COLOURS.get(name, "#8a8a8a"),
        }
        for name, phase in label["phases"].items()
        if phase["wh"].mid / whole >= _LEAST
    ]
    stands = [(name, text) for name, text in rows(label) if name != "Energy"]
    return {"kind": label["kind"], "wh": said(label["wh"], "Wh"), "phases": phases, "rows": stands, "why": why(label)}


def rows(label: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a label says, a name and a text each."""
    grid = f"power of {where(label['countries'])}, {label['grid_year']}"
    told = [
        ("Energy", said(label["wh"], "Wh")),
        ("CO2e", f"{said(label['g_co2e'], 'g')} ({grid})"),
        ("Water", f"{said(label['water_l'], 'L')} in all, {said(label['water_on_site_l'], 'L')} of it on site"),
        ("Phones", said(label["phone_charges"], "phone charges")),
        ("Per 1,000 km2", label["wh_per_1000_km2"] and said(label["wh_per_1000_km2"], "Wh")),
        ("Per 1,000 samples", label["wh_per_1000_samples"] and said(label["wh_per_1000_samples"], "Wh")),
        ("Time", f"{seconds(label['wall_s'])}, {seconds(label['cpu_s'])} of processors"),
        ("Memory", f"{label['peak_bytes'] / 1e9:.2g} GB at most in one process"),
        ("Attempts", f"{label['attempts']}" if label["attempts"] > 1 else None),
    ]
    return [(name, text) for name, text in told if text]


def why(label: Mapping[str, Any]) -> str:
    """How sure a label is, in a sentence."""
    told = {
        "measured": "Read from the machine's own counters.",
        "estimated": "Estimated from processor seconds (1 to 4 W a busy thread) and memory: no counter could be read.",
        "mixed": "Partly read from the machine's counters, partly estimated from processor seconds and memory.",
    }[label["kind"]]
    return told + (
        " A graphics card was used that could not be read: its energy is missing." if label["unread"] else ""
    )


def columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns stand below each other."""
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)).rstrip() for row in table]


def seconds(value: float) -> str:
    """A time as a person says it."""
    if value < 90:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes = value / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def write_comparison(path: Path, points: Sequence[tuple[str, Span, float]], score: str, *, overwrite: bool) -> None:
    """Draw runs by energy and score.

    Args:
        path: PNG to write.
        points: name, Wh and score of each.
        score: what the score is called.
        overwrite: replace a file that exists.

    Raises:
        InputError: a file that may not be written.
    """
    check_target(path, ".png", overwrite=overwrite)
    figure = plots.figure(6.4, 4.2)
    axes = figure.add_subplot()
    for i, (name, wh, value) in enumerate(points):
        ends = [[wh.mid - wh.low], [wh.high - wh.mid]]
        colour = plots.SERIES[i % len(plots.SERIES)]
        axes.errorbar([wh.mid], [value], xerr=ends, fmt="o", color=colour, capsize=3)
        axes.annotate(name, (wh.mid, value), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(0.2)
    axes.set_xlabel("energy in Wh; a line is the range in which it lies")
    axes.set_ylabel(named(score))
    plots.style(axes, ink="#1f2328")
    with draft(path) as file:
        figure.savefig(file, dpi=120, facecolor="white")
