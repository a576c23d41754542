"""earthtune fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipelines.access.request import Request
from pipelines.commands.outcome import Outcome


def fetch(
    *,
    asked: Request,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fetch scenes of a place and a period: only the wanted bands, only the blocks of the wanted window.

    Each scene becomes a folder of OUT with a COG for each band and for the cloud layer, and a STAC item with units,
    licence and attribution; `score RUN OUT` maps them all. The same command again verifies what is there and fetches
    what is not; a scene appears whole or not at all. Where a place is clear is told by the cloud layer over the place,
    not by the catalogue's word for the whole scene.

    HLS from NASA's LP DAAC wants a login: EARTHDATA_TOKEN in the environment, or urs.earthdata.nasa.gov in ~/.netrc.

    Args:
        asked: what is asked for.
        progress: wraps the scenes to show progress.
        say: takes a line for the person who waits.

    Returns:
        The scenes and what became of them (done, kept, planned, partial where another process is at them, failed),
        what was left out and why, the share of the place that any of them shows clear, and megabytes.

    Raises:
        InputError: no such place, days, product or catalogue, access refused, or more than `max_gb`.
        RunError: the catalogue does not answer.
    """
    from pipelines.access.fetch import fetch_scenes

    return fetch_scenes(asked, progress=progress, say=say)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """A line for each scene and for what was left out; how much it is, and how much of the place is seen clear."""
    scenes, out = result["scenes"], result["left_out"]
    lines = [_line(one) for one in scenes]
    lines += [f"left out {one['scene']}: {one['why']}" for one in out]
    amount = f"{result['megabytes']:.1f} MB to fetch" if result["dry_run"] else f"{result['received']:.1f} MB came"
    statuses = [one["status"] for one in scenes]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no scene"
    lines.append(
        f"{said}, {len(out)} left out; {amount}; {result['seen_clear']:.0%} of the place is seen clear at least once"
    )
    return Outcome(dict(result), "\n".join(lines), max((one.get("exit_code", 0) for one in scenes), default=0))


def _line(one: Mapping[str, Any]) -> str:
    """What became of a scene."""
    if one["status"] == "failed":
        return f"failed   {one['scene']}: {one['error']}"
    about = (
        f"  {one['megabytes']:.1f} MB, shows {one['seen']:.0%} of the place, {one['clear']:.0%} clear"
        if "seen" in one
        else ""
    )
    return f"{one['status']:<8} {one['date']}  {one.get('item') or one['scene']}{about}"
