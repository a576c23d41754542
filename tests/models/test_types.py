from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.types import told, typed

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
    made = typed(float, value, "x")
    assert made == value and type(made) is float
    assert type(typed(int, value, "x")) is int
    with pytest.raises(InputError, match="x: wanted a whole number, came"):
        typed(int, float(value), "x")


@pytest.mark.parametrize("kind", [int, float, str])
@given(value=st.booleans())
def test_true_and_false_are_no_numbers(kind, value):
    assert typed(bool, value, "x") is value
    with pytest.raises(InputError, match=f"x: wanted {told(kind)}, came {value}"):
        typed(kind, value, "x")


@given(st.sampled_from([0, 1, 1.0, "true", None]))
def test_nothing_else_is_true_or_false(value):
    with pytest.raises(InputError, match="wanted true or false"):
        typed(bool, value, "x")


@given(st.none() | words | wholes)
def test_a_union_takes_each_of_its_types_as_it_is(value):
    made = typed(int | str | None, value, "x")
    assert made == value and type(made) is type(value)


def test_a_union_takes_nothing_else():
    assert typed(float | None, 3, "x") == 3.0
    with pytest.raises(InputError, match="x: wanted a number, came '3'"):
        typed(float | None, "3", "x")


@given(st.lists(wholes))
def test_lists_and_tuples_of_any_length(values):
    assert typed(tuple[float, ...], values, "x") == tuple(map(float, values))
    assert typed(list[int], tuple(values), "x") == values


@given(st.lists(wholes, max_size=4))
def test_a_tuple_of_fixed_length_takes_no_other(values):
    if len(values) == 2:
        made = typed(tuple[float, int], values, "x")
        assert made == tuple(values) and [type(v) for v in made] == [float, int]
    else:
        with pytest.raises(InputError, match=f"x: wanted 2 values, came {len(values)}"):
            typed(tuple[float, int], values, "x")


@pytest.mark.parametrize("kind", [list[str], tuple[str, ...], tuple[str, str]])
@pytest.mark.parametrize("value", ["ab", {"a": 1, "b": 2}, 2, None])
def test_what_only_can_be_gone_through_is_no_list(kind, value):
    with pytest.raises(InputError, match="x: wanted a list, came"):
        typed(kind, value, "x")


@given(st.dictionaries(words, wholes))
def test_mappings_have_keys_and_values_of_their_types(value):
    assert typed(Mapping[str, float], value, "x") == value
    assert typed(Mapping[str, Any], value, "x") == value
    with pytest.raises(InputError, match=r"x\.k: wanted a number, came"):
        typed(Mapping[str, float], value | {"k": "1"}, "x")
    with pytest.raises(InputError, match="x: wanted a text, came 3"):
        typed(Mapping[str, float], value | {3: 1.0}, "x")
    with pytest.raises(InputError, match="x: wanted keys and values, came"):
        typed(Mapping[str, float], list(value), "x")


def test_a_literal_is_one_of_its_values():
    assert typed(Literal["a", "b"], "b", "x") == "b"
    with pytest.raises(InputError, match="x: wanted one of a, b, came 'c'"):
        typed(Literal["a", "b"], "c", "x")


@given(words)
def test_a_text_is_a_path_where_one_is_wanted(value):
    assert typed(Path, value, "x") == Path(value)
    assert typed(Path, Path(value), "x") == Path(value)
    assert typed(str, value, "x") == value
    with pytest.raises(InputError, match="x: wanted a path, came 3"):
        typed(Path, 3, "x")


@given(st.sampled_from("ab"), wholes | numbers, st.lists(words), wholes, st.none() | words)
def test_dataclasses_are_built_to_the_bottom(mode, size, names, edge, root):
    inner = {"size": size, "names": names}
    made = typed(Outer, {"mode": mode, "inner": inner, "window": [edge, edge], "root": root, "flags": {"f": True}}, "x")
    path = None if root is None else Path(root)
    assert made == Outer(mode, Inner(float(size), tuple(names)), (float(edge), edge), path, {"f": True})
    assert typed(Outer, {"mode": mode, "inner": {"size": size}}, "x") == Outer(mode, Inner(float(size)))


GOOD = {"mode": "a", "inner": {"size": 1}}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (GOOD | {"hidden": 1}, "x: unknown key hidden; wanted mode, inner, window, root, flags"),
        ({"mode": "a"}, "x: inner is missing"),
        ({"inner": {"size": 1}}, "x: mode is missing"),
        (GOOD | {"inner": {}}, "x.inner: size is missing"),
        (GOOD | {"inner": {"size": 1, "names": ["a", 2]}}, "x.inner.names[1]: wanted a text, came 2"),
        (GOOD | {"inner": [1]}, "x.inner: wanted keys and values, came [1]"),
        (GOOD | {"window": [1, "2"]}, "x.window[1]: wanted a whole number, came '2'"),
        (GOOD | {"flags": {"f": 1}}, "x.flags.f: wanted true or false, came 1"),
        ("a", "x: wanted keys and values, came 'a'"),
        (None, "x: wanted keys and values, came None"),
    ],
)
def test_what_is_of_another_type_is_told_by_the_place_where_it_stands(value, words):
    with pytest.raises(InputError) as error:
        typed(Outer, value, "x")
    assert str(error.value) == words


def test_what_is_long_is_told_in_short():
    with pytest.raises(InputError) as error:
        typed(int, "y" * 9999, "x")
    assert len(str(error.value)) < 120
