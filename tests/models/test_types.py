from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.types import convert

words = st.text(max_size=5)
wholes, numbers = st.integers(-99, 99), st.floats(allow_nan=False)


@dataclass(frozen=True)
class Inner:
    size: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    mode: Literal["a", "b"]
    inner: Inner
    window: tuple[float, int] = (0.0, 1)
    root: Path | None = None
    flags: Mapping[str, bool] = field(default_factory=dict)


@given(wholes)
def test_a_whole_number_is_a_number_but_no_number_is_a_whole_one(value):
    made = convert(value, float, "x")
    assert made == value and type(made) is float
    assert type(convert(value, int, "x")) is int
    with pytest.raises(InputError, match="x: wanted a whole number, came"):
        convert(float(value), int, "x")


@pytest.mark.parametrize("kind", [int, float, str])
@given(value=st.booleans())
def test_true_and_false_are_no_numbers(kind, value):
    assert convert(value, bool, "x") is value
    with pytest.raises(InputError, match="x: wanted (a whole number|a number|text), came (true|True|false|False)"):
        convert(value, kind, "x")


@given(st.sampled_from([0, 1, 1.0, "true", None]))
def test_nothing_else_is_true_or_false(value):
    with pytest.raises(InputError, match="wanted true or false"):
        convert(value, bool, "x")


@given(st.none() | words | wholes)
def test_a_union_takes_each_of_its_types_as_it_is(value):
    made = convert(value, int | str | None, "x")
    assert made == value and type(made) is type(value)


def test_a_union_takes_nothing_else():
    assert convert(3, float | None, "x") == 3.0
    with pytest.raises(InputError, match="x: wanted a number, came '3'"):
        convert("3", float | None, "x")


@given(st.lists(wholes))
def test_lists_and_tuples_of_any_length(values):
    assert convert(values, tuple[float, ...], "x") == tuple(map(float, values))
    assert convert(tuple(values), list[int], "x") == values


@given(st.lists(wholes, max_size=4))
def test_a_tuple_of_fixed_length_takes_no_other(values):
    if len(values) == 2:
        made = convert(values, tuple[float, int], "x")
        assert made == tuple(values) and [type(v) for v in made] == [float, int]
    else:
        with pytest.raises(InputError, match=f"x: wanted 2 entries, came {len(values)}"):
            convert(values, tuple[float, int], "x")


@pytest.mark.parametrize("kind", [list[str], tuple[str, ...], tuple[str, str]])
@pytest.mark.parametrize("value", ["ab", {"a": 1, "b": 2}, 2, None])
def test_what_only_can_be_gone_through_is_no_list(kind, value):
    with pytest.raises(InputError, match="x: wanted a list, came"):
        convert(value, kind, "x")


@given(st.dictionaries(words, wholes))
def test_mappings_have_keys_and_values_of_their_types(value):
    assert convert(value, Mapping[str, float], "x") == value
    assert convert(value, Mapping[str, Any], "x") == value
    with pytest.raises(InputError, match=r"x\.k: wanted a number, came"):
        convert(value | {"k": "1"}, Mapping[str, float], "x")
    with pytest.raises(InputError, match="x: wanted a mapping of keys to values, came"):
        convert(value | {3: 1.0}, Mapping[str, float], "x")
    with pytest.raises(InputError, match="x: wanted a mapping of keys to values, came"):
        convert(list(value), Mapping[str, float], "x")


def test_a_literal_is_one_of_its_values():
    assert convert("b", Literal["a", "b"], "x") == "b"
    with pytest.raises(InputError, match="x 'c': wanted one of a, b"):
        convert("c", Literal["a", "b"], "x")


@given(words)
def test_a_text_is_a_path_where_one_is_wanted(value):
    assert convert(value, Path, "x") == Path(value)
    assert convert(Path(value), Path, "x") == Path(value)
    assert convert(value, str, "x") == value
    with pytest.raises(InputError, match="x: wanted a path, came 3"):
        convert(3, Path, "x")


@given(st.sampled_from("ab"), wholes | numbers, st.lists(words), wholes, st.none() | words)
def test_dataclasses_are_built_to_the_bottom(mode, size, names, edge, root):
    inner = {"size": size, "names": names}
    flags, window = {"f": True}, [edge, edge]
    made = convert({"mode": mode, "inner": inner, "window": window, "root": root, "flags": flags}, Outer, "x")
    path = None if root is None else Path(root)
    assert made == Outer(mode, Inner(float(size), tuple(names)), (float(edge), edge), path, {"f": True})
    assert convert({"mode": mode, "inner": {"size": size}}, Outer, "x") == Outer(mode, Inner(float(size)))


GOOD = {"mode": "a", "inner": {"size": 1}}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (GOOD | {"hidden": 1}, "x.hidden: no such key; wanted one of mode, inner, window, root, flags"),
        ({"mode": "a"}, "x.inner.size: is wanted, and not there"),
        ({"inner": {"size": 1}}, "x.mode: is wanted, and not there"),
        (GOOD | {"inner": {}}, "x.inner.size: is wanted, and not there"),
        (
            GOOD | {"inner": {"size": 1, "names": ["a", 2]}},
            'x.inner.names[1]: wanted text, came 2; put text into quotes: "2"',
        ),
        (GOOD | {"inner": [1]}, "x.inner: wanted a mapping of keys to values, came [1]"),
        (GOOD | {"window": [1, "2"]}, "x.window[1]: wanted a whole number, came '2'; leave the quotes out"),
        (GOOD | {"flags": {"f": 1}}, "x.flags.f: wanted true or false, came 1"),
        ("a", "x: wanted a mapping of keys to values, came 'a'"),
        (None, "x: wanted a mapping of keys to values, came nothing (null); leave the key out, or give it a value"),
    ],
)
def test_what_is_of_another_type_is_told_by_the_place_where_it_stands(value, words):
    with pytest.raises(InputError) as error:
        convert(value, Outer, "x")
    assert str(error.value) == words


def test_what_is_long_is_told_in_short():
    with pytest.raises(InputError) as error:
        convert("y" * 9999, int, "x")
    assert len(str(error.value)) < 120
