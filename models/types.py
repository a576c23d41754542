"""Names of types that go through the whole project, and plain data (of JSON or YAML) made into types.

What is of another type is refused; nothing is ever imported by a name that data hold.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]  # True where there is data
Progress = Callable[[Iterable[Any], str], Iterable[Any]]  # wraps what is gone through, and says what it is
Say = Callable[[str], None]  # takes a line for the person who waits
Inputs = Mapping[str, Array]  # a batch of what a model eats, by name: those of its Spec, and what goes with them
Predict = Callable[[Inputs], Array]  # a batch to a model's answer
Kind = TypeVar("Kind")


def typed(kind: type[Kind], value: Any, name: str) -> Kind:
    """A plain value as a type: numbers, strings, lists, tuples, mappings, and dataclasses of these.

    Args:
        kind: the type.
        value: what came.
        name: of the value, for messages.

    Raises:
        InputError: it is of another type; or a key of a dataclass is unknown or missing.
    """
    made: Kind = _typed(kind, value, name)
    return made


def _typed(kind: Any, value: Any, name: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or (origin is Literal and value in args):
        return value
    if origin in (Union, types.UnionType):
        return _either(args, value, name)
    if origin in (list, tuple):
        return _listed(origin, args, value, name)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_typed(args[0], key, name): _typed(args[1], held, f"{name}.{key}") for key, held in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return _built(kind, value, name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise InputError(f"{name}: wanted {told(kind)}, came {value!r:.60}")


def _either(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    """The value as the first of some types that takes it; where none does, the refusal is the last one's."""
    for kind in sorted(kinds, key=lambda kind: kind is not types.NoneType):  # "wanted nothing" would say little
        try:
            return _typed(kind, value, name)
        except InputError as error:
            last = error
    raise last


def _listed(origin: Any, args: tuple[Any, ...], value: Any, name: str) -> Any:
    """A list or a tuple; (X, ...) takes any number, (X, Y) one of each."""
    if not isinstance(value, list | tuple):
        raise InputError(f"{name}: wanted a list, came {value!r:.60}")
    if origin is list or args[-1] is ...:
        kinds = [args[0]] * len(value)
    elif len(args) == len(value):
        kinds = list(args)
    else:
        raise InputError(f"{name}: wanted {len(args)} values, came {len(value)}")
    return origin(_typed(kind, held, f"{name}[{i}]") for i, (kind, held) in enumerate(zip(kinds, value, strict=True)))


def _built(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    """A dataclass from its fields by name."""
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    unknown = [str(key) for key in value if key not in fields]
    if unknown:
        raise InputError(f"{name}: unknown key {unknown[0]}; wanted {', '.join(fields)}")
    missing = [
        key
        for key, field in fields.items()
        if key not in value and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{name}: {missing[0]} is missing")
    return kind(**{key: _typed(hints[key], held, f"{name}.{key}") for key, held in value.items()})


def told(kind: Any) -> str:
    """A type in words."""
    origin, args = get_origin(kind), get_args(kind)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if arg is types.NoneType else told(arg) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if dataclasses.is_dataclass(kind) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "keys and values"
    return words.get(kind, "a list" if origin in (list, tuple) else str(kind))
