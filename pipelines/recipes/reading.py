"""How a YAML file, or what somebody typed, becomes a recipe: plain data only.

No value in it names code, refers to another or unfolds.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

import yaml

from models.errors import InputError
from models.types import convert, entry, fields_of, is_list, is_record, members, only

Kind = TypeVar("Kind")
RECIPES = Path(__file__).parent
BYTES = 32_000  # of a recipe; the longest of ours has 2,500
DEPTH = 20  # of mappings and lists in each other; ours go three deep


class _Loader(yaml.SafeLoader):
    """YAML as plain data: without anchors, aliases, tags and dates, and 1e-3 is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own, begun anew
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML leaves it untyped
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors (&) and aliases (*) are not taken; write the values out", problem_mark=event.start_mark
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the tag {event.tag} is not taken; write plain values", problem_mark=event.start_mark
            )
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEPTH}", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Keys are text, and each comes once."""
        made: dict[Any, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name in made or name in (None, "<<"):
                what = "a key that is no text" if name is None else f"the key {name} "
                what += "" if name is None else "is not taken" if name == "<<" else "comes twice"
                raise yaml.MarkedYAMLError(problem=what, problem_mark=key.start_mark)
            made[name] = self.construct_object(value, deep=True)
        return made


for _tag, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(0|[1-9][0-9]{0,30})", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), [*_first])
_Loader.yaml_implicit_resolvers[""] = [("tag:yaml.org,2002:null", re.compile("$"))]


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def parse(content: bytes, name: str) -> Any:
    """A YAML document as plain data.

    Raises:
        InputError: what is no YAML, or more than plain data.
    """
    try:
        loader = _Loader(content.decode("utf-8-sig"))
        return loader.get_single_data()
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: wanted text in UTF-8, came other bytes ({error.reason}); save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        told = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{name}: {line}cannot be read: {told}") from None


def read_values(path: Path) -> dict[str, Any]:
    """The keys and plain values of a recipe file.

    Raises:
        InputError: no file, or one that holds no mapping of plain data.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a recipe, which is a YAML file") from error
    if len(content) > BYTES:
        raise InputError(f"{path}: longer than {BYTES} bytes, which no recipe is; give a recipe, which is a YAML file")
    values = parse(content, str(path))
    if not isinstance(values, dict):
        came = "an empty file" if values is None else f"a {type(values).__name__}"
        raise InputError(f"{path}: wanted keys and values, such as task: segmentation; came {came}")
    return values


def read_recipe(path: Path, kind: type[Kind], changes: Mapping[str, Any]) -> Kind:
    """Read a recipe of any kind; see `tasks.task.load_recipe`."""
    values = read_values(path)
    try:
        for key, value in changes.items():
            put(values, key, typed(value, type_at(kind, key), key) if isinstance(value, str) else value)
        made: Kind = convert(values, kind, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return made


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set what a dotted key names."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(f"{key}: {parent} is {inner!r}, which has no parts; give {parent} as a whole")
        values = inner
    values[last] = value


def type_at(kind: Any, key: str) -> Any:
    """The type of what a dotted key names; anything where there is no such key, which is told later."""
    for name in key.split("."):
        kind = fields_of(kind).get(name, Any) if is_record(kind) else Any
    return kind


def dump(recipe: Any) -> str:
    """A recipe as YAML that reads as the same."""
    plain = json.loads(json.dumps(dataclasses.asdict(recipe), default=str))
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def is_switch(kind: Any) -> bool:
    """Whether the answer is true or false."""
    return only(kind) is bool


def typed(text: str, kind: Any, where: str) -> Any:
    """What somebody typed, as a type asks for it; lists take commas.

    Raises:
        InputError: it is not of the type.
    """
    if text in ("null", "None") and type(None) in members(kind):
        return None
    many = next((member for member in members(kind) if is_list(member)), None)
    if many is not None and (text.startswith("[") or many is only(kind)):
        return typed_list([text], many, where)
    wanted = only(kind)
    if text.startswith("{") and any(map(is_record, members(kind))):
        return convert(parse(text.encode(), where), kind, where)
    if wanted in (str, Path, int, float, bool) or get_origin(wanted) is Literal:
        return convert(_scalar(text, wanted), kind, where)
    return convert(parse(text.encode(), where), kind, where)


def typed_list(texts: Sequence[str], kind: Any, where: str) -> Any:
    """What somebody typed of a list, piece by piece or with commas; paths may hold commas themselves.

    Raises:
        InputError: an entry is not of the type, or there are more or fewer than wanted.
    """
    item = entry(kind)
    if is_record(item) or get_origin(only(item)) is not None:
        return convert([one for text in texts for one in parse(text.encode(), where)], kind, where)
    words = [word for text in texts for word in ([text] if only(item) is Path else _bare(text).split(","))]
    words = [word.strip().strip("'\"") for word in words]
    return convert([_scalar(word, item) for word in words if word], only(kind), where)


def _bare(text: str) -> str:
    """A list without its brackets."""
    text = text.strip()
    return text[1:-1].strip() if text[:1] == "[" and text[-1:] == "]" else text


def _scalar(text: str, kind: Any) -> Any:
    """A word as a number or a truth value where that is wanted and it is one."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    for number in (int, float):
        if kind is number or (kind is float and number is int):
            try:
                return number(text)
            except ValueError:
                continue
    return text
