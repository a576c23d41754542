"""Tests have the same names whenever they are collected: workers that collect at other times agree on them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {
    "now",
    "today",
    "utcnow",
    "time",
    "time_ns",
    "monotonic",
    "perf_counter",
    "uuid1",
    "uuid4",
    "urandom",
    "getpid",
}


def at_import(tree: ast.Module):
    """What is computed when a module is imported, parameters and defaults among it, but no body of a function."""
    waiting = list[ast.AST](tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def clocks(source: str) -> list[int]:
    """Lines at which an import would ask a clock or for a name that is never the same."""
    calls = [node for node in at_import(ast.parse(source)) if isinstance(node, ast.Call)]
    return [c.lineno for c in calls if getattr(c.func, "attr", getattr(c.func, "id", "")) in CLOCKS]


def test_names_do_not_depend_on_the_time():
    found = {str(path.relative_to(TESTS)): lines for path in TESTS.rglob("*.py") if (lines := clocks(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "DAYS = [datetime.date.today()]",
        "@pytest.mark.parametrize('day', [now()])\ndef test_a(day): ...",
        "class A:\n    x = time.time()",
        "def f(x=os.getpid()): ...",
    ],
)
def test_a_clock_is_found_wherever_an_import_reads_it(source):
    assert clocks(source) and clocks("def test_b():\n    return time.time()") == []
