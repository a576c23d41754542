"""earthtune fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipelines.access.request import Request
from pipelines.commands.outcome import Outcome
from pipelines.records.attempts import PAGE
from pipelines.records.energy import READ, Account


def fetch(
    *,
    asked: Request,
    account: Account = Account(),
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fetch scenes or weather of a place and a period: only the wanted bands or fields, only the wanted window.

    Each scene becomes a folder of OUT with a COG for each band and for the cloud layer, and a STAC item with units,
    licence and attribution; `score RUN OUT` maps them all. The same command again verifies what is there and fetches
    what is not; a scene appears whole or not at all. Where a place is clear is told by the cloud layer over the place,
    not by the catalogue's word for the whole scene.

    Weather comes as a NetCDF file for each month, which all that reads weather takes: from a Zarr store, or from the
    dated NetCDF files of a folder behind https, by range. ERA5 is Google's open copy, MERRA-2 is at NASA's GES DISC
    (--collection M2T1NXSLV.5.12.4), others by the address of a store or a folder (--catalogue).

    HLS and MERRA-2 from NASA want a login: EARTHDATA_TOKEN in the environment, or urs.earthdata.nasa.gov in ~/.netrc.

    Args:
        asked: what is asked for.
        account: on whose account this machine's energy goes, see energy.json in OUT; the network's is not known.
        progress: wraps the scenes to show progress.
        say: takes a line for the person who waits.

    Returns:
        The scenes and what became of them (done, kept, planned, partial where another process is at them, failed),
        what was left out and why, the share of the place that any of them shows clear, and megabytes.

    Raises:
        InputError: no such place, days, product or catalogue, access refused, or more than `max_gb`.
        RunError: the catalogue does not answer.
    """
    from pipelines.access.catalogues import ARCHIVES

    with account.booked("fetch", say) as meter:
        if asked.product in ARCHIVES:
            from pipelines.access.archives.weather import fetch_weather as bring
        else:
            from pipelines.access.fetch import fetch_scenes as bring
        result = bring(asked, progress=progress, say=say)
        brought = sum(one["status"] == "done" for one in result["scenes"])
        meter.lap(READ)
        meter.made(samples=brought)
        meter.bind(asked.out / PAGE)
        meter.done = brought > 0
        return result


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """A line for each scene and for what was left out; how much it is, and how much of the place is seen clear."""
    scenes, out = result["scenes"], result["left_out"]
    lines = [_line(one) for one in scenes]
    lines += [f"left out {one['scene']}: {one['why']}" for one in out]
    statuses = [one["status"] for one in scenes]
    counts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)] or ["nothing found"]
    counts += [f"{len(out)} left out"] if out else []
    if "read_at_most" in result:
        amount = f"{result['megabytes']:.1f} MB of fields, by chunks of up to {result['read_at_most']:.1f} MB unpacked"
    elif result["dry_run"]:
        amount = f"{result['megabytes']:.1f} MB to fetch"
    else:
        amount = f"{result['received']:.1f} MB came"
    clear = f"; {result['seen_clear']:.0%} of the place is seen clear at least once" if "seen_clear" in result else ""
    lines.append(f"{', '.join(counts)}; {amount}{clear}")
    return Outcome(dict(result), "\n".join(lines), max((one.get("exit_code", 0) for one in scenes), default=0))


def _line(one: Mapping[str, Any]) -> str:
    """What became of a scene, or of a file."""
    if one["status"] == "failed":
        return f"failed   {one['scene']}: {one['error']}"
    line = f"{one['status']:<8} {one['date']}  {one.get('item') or one['scene']}"
    if "seen" not in one:
        return line
    return f"{line}  {one['megabytes']:.1f} MB, shows {one['seen']:.0%} of the place, {one['clear']:.0%} clear"
