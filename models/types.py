"""Names of types that go through the whole project, and plain data (of JSON or YAML) made into types.

What is of another type is refused; nothing is ever imported by a name that data hold.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, Union, get_args, get_origin, get_type_hints

from models.errors import InputError

if TYPE_CHECKING:  # commands that only read a bundle start without numpy
    import numpy as np
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.float32]"
Mask: TypeAlias = "NDArray[np.bool_]"  # True where there is data
Source = Path | str  # a file of this machine, or an address
Progress = Callable[[Iterable[Any], str], Iterable[Any]]  # wraps what is gone through, and says what it is
Say = Callable[[str], None]  # takes a line for the person who waits
Inputs: TypeAlias = Mapping[str, Array]  # a batch by name: what a model eats, and what goes with it
Predict = Callable[[Inputs], Array]  # a batch to a model's answer

_WORDS: Mapping[Any, str] = {
    **{int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"},
    type(None): "null",
}


def fields_of(kind: Any) -> Mapping[str, Any]:
    """The types of a dataclass's fields by their names."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def members(kind: Any) -> tuple[Any, ...]:
    """What a type allows: the members of a union, else itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def only(kind: Any) -> Any:
    """A type without None and without the second way to say it: `list[str] | None` is list[str]."""
    return next((member for member in members(kind) if member is not type(None)), kind)


def is_record(kind: Any) -> TypeGuard[type[Any]]:
    """Whether a type is a dataclass."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def is_list(kind: Any) -> bool:
    """Whether a list is wanted."""
    return get_origin(only(kind)) in (list, tuple, Sequence)


def entry(kind: Any) -> Any:
    """The type of the entries of a list."""
    return get_args(only(kind))[0]


def convert(value: Any, kind: Any, where: str) -> Any:
    """A plain value as a type asks for it: dataclasses from mappings, tuples from lists, paths from text.

    Args:
        value: null, truth value, number, text, list or mapping, or what is of the type already.
        kind: a type as it is annotated.
        where: what the value is called, for the message.

    Raises:
        InputError: it is not of the type; keys that are not there, or lack.
    """
    if kind is Any or (value is None and type(None) in members(kind)):
        return value
    several = [member for member in members(kind) if member is not type(None)]
    if len(several) > 1:  # text, or a list of it
        if isinstance(value, Mapping):
            mapping = next((m for m in several if get_origin(m) in (dict, Mapping) or is_record(m)), None)
            return convert(value, mapping or several[0], where)
        same = [m for m in several if isinstance(m, type) and type(value) is m]
        kind = next((m for m in (*same, *several) if is_list(m) == isinstance(value, list | tuple)), several[0])
        return convert(value, kind, where)
    kind = several[0]
    if is_record(kind):
        return value if isinstance(value, kind) else _record(value, kind, where)
    if is_list(kind):
        return _list(value, kind, where)
    if get_origin(kind) in (dict, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, get_args(kind)[0]) for key in value):
            raise _refused(where, value, kind)
        return {key: convert(item, get_args(kind)[1], f"{where}.{key}") for key, item in value.items()}
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{where} {value!r}: wanted one of {', '.join(map(str, get_args(kind)))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _refused(where, value, kind)
    return value


def _list(value: Any, kind: Any, where: str) -> Any:
    """A list or tuple of what its entries are."""
    if not isinstance(value, list | tuple):
        raise _refused(where, value, kind)
    made, parts = get_origin(kind), get_args(kind)
    if made is not tuple or parts[-1] is Ellipsis:
        items = [convert(item, parts[0], f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if made is tuple else items
    if len(value) != len(parts):
        raise InputError(f"{where}: wanted {len(parts)} entries, came {len(value)}")
    return tuple(convert(item, part, f"{where}[{i}]") for i, (item, part) in enumerate(zip(value, parts, strict=True)))


def _record(value: Any, kind: type, where: str) -> Any:
    """A dataclass from a mapping of its fields; parts that are dataclasses themselves may be left out."""
    if not isinstance(value, Mapping):
        raise _refused(where, value, kind)
    types_of, prefix = fields_of(kind), f"{where}." if where else ""
    for key in value:
        if key not in types_of:
            raise InputError(f"{prefix}{key}: no such key; {nearest(key, types_of)}")
    values = {key: convert(item, types_of[key], f"{prefix}{key}") for key, item in value.items()}
    for field in dataclasses.fields(kind):
        bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name in values or not bare:
            continue
        if not is_record(types_of[field.name]):
            raise InputError(f"{prefix}{field.name}: is wanted, and not there")
        values[field.name] = convert({}, types_of[field.name], f"{prefix}{field.name}")
    return kind(**values)


def nearest(name: str, known: Iterable[str]) -> str:
    """Advice on a name that is not known: the nearest, or all where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(known)}"


def _refused(where: str, value: Any, kind: Any) -> InputError:
    """What was wanted, what came, and what to do."""
    came = " ".join(repr(value).split())
    came = came if len(came) < 60 else f"{came[:56]} ..."
    wanted = _WORDS.get(kind) or ("a list" if is_list(kind) else "a mapping of keys to values")
    advice = ""
    if value is None:
        came, advice = "nothing (null)", "; leave the key out, or give it a value"
    elif kind is str and isinstance(value, bool):
        came = str(value).lower()
        advice = '; yes, no, on and off are true and false in YAML: put text into quotes, such as "no"'
    elif kind is str and isinstance(value, int | float):
        advice = f'; put text into quotes: "{value}"'
    elif kind in (int, float) and isinstance(value, str) and value.replace(".", "", 1).lstrip("+-").isdigit():
        advice = "; leave the quotes out"
    return InputError(f"{where or 'the recipe'}: wanted {wanted}, came {came}{advice}")
