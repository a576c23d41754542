"""Typed words as what a type asks for; strictly, and no value ever names code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

from models.types import convert, entry, is_list, is_record, members, only


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
    if wanted in (str, Path, int, float, bool) or get_origin(wanted) is Literal:
        return convert(_scalar(text, wanted), kind, where)
    from pipelines.recipes.reading import parse

    return convert(parse(text.encode(), where), kind, where)


def typed_list(texts: Sequence[str], kind: Any, where: str) -> Any:
    """What somebody typed of a list, piece by piece or with commas; paths may hold commas themselves.

    Raises:
        InputError: an entry is not of the type, or there are more or fewer than wanted.
    """
    item = entry(kind)
    if is_record(item) or get_origin(item) is not None:
        from pipelines.recipes.reading import parse

        return convert([one for text in texts for one in parse(text.encode(), where)], kind, where)
    words = [word for text in texts for word in ([text] if item is Path else _bare(text).split(","))]
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
