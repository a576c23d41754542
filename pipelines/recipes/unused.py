"""Options that a kind of run does not use are refused by name, not left aside."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.errors import InputError


def asked(*options: Any) -> list[str]:
    """Names of the options that ask for something.

    Args:
        options: dataclasses, whose values are put beside their defaults; or mappings of names to values, of which None
            and what is empty ask for nothing.
    """
    names: list[str] = []
    for group in options:
        if isinstance(group, Mapping):
            names += [name for name, value in group.items() if value is not None and value != []]
            continue
        plain = type(group)()
        names += [f.name for f in dataclasses.fields(group) if getattr(group, f.name) != getattr(plain, f.name)]
    return names


def refuse_unused(why: str, *options: Any) -> None:
    """Refuse options that would be left aside.

    Args:
        why: what they are for, and what is done here.
        options: those that are not used, see `asked`.

    Raises:
        InputError: one of them asks for something; all that do are named.
    """
    names = asked(*options)
    if names:
        told = ", ".join(f"--{name}" for name in names)
        raise InputError(f"{told}: {why}; leave {'it' if len(names) == 1 else 'them'} out")
