"""The folder that goes out: the run's files without what tells of the machine, card, licence, item, picture, hashes."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bundle import FILES, Bundle, check_file, read_bundle, write_bundle
from models.errors import InputError
from models.files import draft_folder
from pipelines.outputs.item import write_stac_item
from pipelines.publishing import leaks, licences
from pipelines.publishing.adapters import check_adapters, write_adapters
from pipelines.publishing.card import Facts, card
from pipelines.publishing.files import CARD, ITEM, LICENCE, MOST, PICTURE, PULLED, ROOT, write_sums
from pipelines.publishing.item import model_item
from pipelines.publishing.picture import lead_of, write_scores
from pipelines.recipes.reading import read_values
from pipelines.records.attempts import read_records
from pipelines.records.label import summed


@dataclass(frozen=True)
class Wish:
    """What a person says of a publication.

    Attributes:
        repo: owner and name.
        licence: its licence; that of the base's weights when None.
        data: the training data and its licence, in words.
        adapter_only: the adapters and the head, without the graph.
        allowed: words that may go out, see `leaks.check`.
    """

    repo: str
    licence: str | None = None
    data: str = ""
    adapter_only: bool = False
    allowed: Sequence[str] = ()


def write_package(run: Path, out: Path, wish: Wish, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Write the folder of a run, whole or not at all.

    Raises:
        InputError: no run, files that are not its own, a licence that its base does not allow, or what would leak.
        RunError: the disk does not take it.
    """
    bundle = read_bundle(run)
    if not bundle.scores:
        theirs = (run / PULLED).is_file()
        advice = "it came from others, who have published it" if theirs else "--resume ends the training"
        raise InputError(f"{run}: has no scores, so that nobody could tell what it is worth; {advice}")
    licence = licences.chosen(wish.licence, bundle)
    if wish.adapter_only:
        check_adapters(run, bundle)
    with draft_folder(out, replaces="bundle.json", also=[*MOST]) as folder:
        _copy_models(run, bundle, folder, adapter_only=wish.adapter_only)
        layers = write_adapters(run, bundle, folder) if wish.adapter_only else 0
        published = _plain_bundle(bundle)
        write_bundle(folder, published)
        metrics = _write_texts(run, bundle, folder)
        if published.data != bundle.data or _recipe_of(run) != _recipe_of(folder):
            say(f"paths of this machine became names of files; data.root is {ROOT}")
        _describe(run, folder, wish, licence, metrics)
        leaks.check(folder, allowed=wish.allowed)
        write_sums(folder)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return {"folder": str(out), "licence": licence, "adapters": layers, "files": sizes, "bytes": sum(sizes.values())}


def _copy_models(run: Path, bundle: Bundle, folder: Path, *, adapter_only: bool) -> None:
    """Copy the model files that bundle.json tells of; without the graphs where only adapters are wanted."""
    for key, name in FILES.items():
        wanted = getattr(bundle, key)
        if not wanted or (adapter_only and key in ("graph", "int8")):
            continue
        check_file(run / name, wanted)
        shutil.copyfile(run / name, folder / name)


def _plain_bundle(bundle: Bundle) -> Bundle:
    """A bundle that names files without their folders."""
    base = dataclasses.replace(bundle.base, file=leaks.plain(bundle.base.file))
    data = _rooted(bundle.data)
    return dataclasses.replace(bundle, base=base, data=data, training=leaks.plain(bundle.training))


def _rooted(data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of data, their root a name that is the same everywhere."""
    return {**leaks.plain(data), **({"root": ROOT} if "root" in data else {})}


def _write_texts(run: Path, bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Write recipe, scores, split and energy, as far as they are there; the scores of the run's own test."""
    import yaml

    recipe = _recipe_of(run)
    if recipe:
        values = {**leaks.plain(recipe), "data": _rooted(recipe.get("data") or {})}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    metrics: dict[str, Any] = leaks.plain(_own_metrics(run, bundle))
    if metrics:
        metrics["data"] = ROOT
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    if (run / "split.csv").is_file():
        shutil.copyfile(run / "split.csv", folder / "split.csv")
    if (run / "energy.json").is_file():
        shutil.copyfile(run / "energy.json", folder / "energy.json")
    return metrics


def _recipe_of(folder: Path) -> dict[str, Any]:
    """The recipe of a run; empty where there is none."""
    path = folder / "recipe.yaml"
    return read_values(path) if path.is_file() else {}


def _own_metrics(run: Path, bundle: Bundle) -> dict[str, Any]:
    """What metrics.json tells, where it is of the run's own test: `evaluate` may have written over it."""
    try:
        held = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        own = {key: held["model"].get(key) for key in bundle.scores} == dict(bundle.scores)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{run / 'metrics.json'}: damaged ({error}); `earthtune evaluate` writes it again") from error
    return dict(held) if own else {}


def _describe(run: Path, folder: Path, wish: Wish, licence: str, metrics: Mapping[str, Any]) -> None:
    """Write picture, card, licence and item of what lies in the folder."""
    bundle = read_bundle(folder)
    lead = lead_of(metrics, bundle.scores)
    columns = {"model": bundle.scores, **bundle.baselines}
    write_scores(folder / PICTURE, lead or "", columns, unit=bundle.spec.answer.unit)
    label = summed(read_records(run)) if (run / "energy.json").is_file() else {}
    groups = _left_out(run, metrics)
    facts = Facts(wish.repo, bundle, licence, metrics, label, groups, wish.data, wish.adapter_only)
    (folder / CARD).write_text(card(facts), encoding="utf-8")
    (folder / LICENCE).write_text(licences.text(licence, bundle), encoding="utf-8")
    name = wish.repo.rpartition("/")[2]
    write_stac_item(folder / ITEM, model_item(bundle, folder, name=name, licence=licence))


def _left_out(run: Path, metrics: Mapping[str, Any]) -> list[str]:
    """Names of the groups, or of the samples, that the test is of."""
    if metrics.get("groups"):
        return [str(name) for name in metrics["groups"]]
    path = run / "split.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split") == "test"]
    return list(dict.fromkeys(str(row.get("group") or next(iter(row.values()))) for row in rows))
