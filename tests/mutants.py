"""Do the tests notice when the code is wrong? Small changes of a module, and whether its own tests fail at each.

    python tests/mutants.py [--count 60] [--seed 0] [--only TEXT] [module ...]

A mutant is the module with one operator, constant, condition, slice or statement changed, drawn by the seed. It is
written into a temporary copy of the packages, never into the working tree, and its tests run there in a fork of a
process that has imported the heavy libraries. It is killed when a test fails or the time is over, survives when all
pass, and is not viable when it cannot be imported or compiles to the same code. Survivors are printed as diffs: some
are equivalent, and the others want a test.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import difflib
import gc
import importlib
import itertools
import marshal
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS = {  # the test files of each module
    "pipelines/grids/windows": ["grids/test_windows"],
    "pipelines/records/ledger": ["records/test_ledger"],
    "pipelines/weather/intervals": ["weather/test_intervals", "weather/test_products"],
    "pipelines/samples/splits": ["samples/test_splits"],
    "pipelines/weather/canonical": ["weather/test_canonical"],
    "pipelines/scenes/sensors": ["scenes/test_sensors"],
    "pipelines/samples/labels": ["samples/test_labels"],
    "pipelines/grids/mosaic": ["grids/test_mosaic"],
    "pipelines/scenes/scene": ["scenes/test_scene", "scenes/test_products", "scenes/test_fill"],
    "pipelines/reports/scores": ["reports/test_scores"],
}
PURE = ("models", "pipelines", "tests")  # packages that every mutant imports anew
NOT_VIABLE = 77  # exit status of a fork that cannot import the mutant
MEMORY = 12 << 30  # bytes that a mutant may take

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def with_field(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of a node with other fields."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def plus(node: ast.expr | None, number: int) -> ast.expr:
    """An expression and a number more."""
    sign = ast.Add() if number > 0 else ast.Sub()
    return ast.BinOp(node or ast.Constant(0), sign, ast.Constant(abs(number)))


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield from (ast.Constant(other) for other in {value + 1, value - 1, 1 if value == 0 else 0} - {value})
        case ast.Compare(ops=[op, *rest]):
            yield from (with_field(node, ops=[swap(), *rest]) for swap in SWAPS[type(op)])
            if rest:
                yield from (with_field(node, ops=[op, swap(), *rest[1:]]) for swap in SWAPS[type(rest[0])])
        case ast.BinOp(op=op):
            yield from (with_field(node, op=swap()) for swap in SWAPS.get(type(op), ()))
        case ast.BoolOp(op=op, values=values):
            yield with_field(node, op=SWAPS[type(op)][0]())
            yield from (with_field(node, values=values[:i] + values[i + 1 :]) for i in range(len(values)))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield with_field(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[test, *rest]):
            yield with_field(node, ifs=[ast.UnaryOp(ast.Not(), test), *rest])
            yield with_field(node, ifs=rest)
        case ast.AugAssign(target=target, op=op, value=value):
            yield ast.Assign([target], value, lineno=node.lineno)
            yield from (with_field(node, op=swap()) for swap in SWAPS.get(type(op), ()))
            yield ast.Pass()
        case ast.Call(func=ast.Name(id=name), args=args) if name in NAMES:
            yield with_field(node, func=ast.Name(NAMES[name]))
            if len(args) > 1:
                yield from (with_field(node, args=args[:i] + args[i + 1 :]) for i in range(len(args)) if len(args) > 2)
                yield from (arg for arg in args if len(args) == 2 and not node.keywords)
        case ast.Slice(lower=lower, upper=upper):
            yield with_field(node, lower=plus(lower, 1))
            if lower is not None:
                yield with_field(node, lower=None)
            if upper is not None:
                yield with_field(node, upper=plus(upper, 1))
                yield with_field(node, upper=None)
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield ast.Pass()
        case _:
            pass


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, ast.AST]]:
    """Parent, field, index, node and what may stand there; not in annotations, decorators and messages of errors."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params") or isinstance(node, ast.Raise):
            continue
        if isinstance(node, ast.keyword) and node.arg == "strict":  # what is of one length stays so
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from ((node, field, index, child, change) for change in changes(child))
                yield from places(child)


def mutants(source: str, count: int, seed: int) -> list[tuple[int, str, bool]]:
    """Line, text and whether it compiles to other code, of `count` mutants of a module."""
    tree = ast.parse(source)
    same = _code(ast.unparse(tree))
    found = [*places(tree)]
    made = []
    for parent, field, index, child, change in random.Random(seed).sample(found, min(count, len(found))):
        _put(parent, field, index, change)
        text = ast.unparse(ast.fix_missing_locations(tree))
        _put(parent, field, index, child)
        made.append((getattr(child, "lineno", getattr(parent, "lineno", 0)), text, _code(text) not in (same, None)))
    return sorted(made)


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    """Let a node stand in a place of its parent."""
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _code(text: str) -> bytes | None:
    """What a module compiles to, None where it does not."""
    with contextlib.suppress(SyntaxError, ValueError):
        return marshal.dumps(compile(text, "module", "exec"))
    return None


class Quick:
    """Plugin of pytest: hypothesis draws the same examples each time, and does not shrink those that fail."""

    @staticmethod
    def pytest_sessionstart() -> None:
        """Set it before the tests are imported, after conftest.py."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", deadline=None, database=None, derandomize=True, phases=phases)
        settings.load_profile("mutants")

    @staticmethod
    def pytest_collection_modifyitems(items: list[Any]) -> None:
        """Put tests of many examples last."""
        items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))


def about(before: str, after: str) -> list[str]:
    """The lines that differ, cut to what is near the difference."""
    lines = []
    diff = [*difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)][3:]
    width = 60
    pairs = zip(*diff, strict=False) if len(diff) == 2 else ()  # of letters; the first are - and +
    at = sum(itertools.takewhile(bool, (a == b for a, b in itertools.islice(pairs, 1, None))))
    for line in diff:
        text, begin = line[1:], max(at - width, 0)
        lines.append(line[0] + ("..." if begin else "") + text[begin : at + 2 * width])
    return lines


def outcome(copied: Path, module: str, limit: float) -> str:
    """Run the tests of a module in a fork: killed, survived or not viable."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(_tested(copied, module))
    end = time.monotonic() + limit
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # and what it has started
        os.killpg(child, signal.SIGKILL)
    if not ended[0]:
        os.waitpid(child, 0)
        return "killed"
    return {0: "survived", NOT_VIABLE: "not viable"}.get(os.waitstatus_to_exitcode(ended[1]), "killed")


def _tested(copied: Path, module: str) -> int:
    """Exit status of the tests of a module."""
    import pytest

    try:
        importlib.import_module(module.replace("/", "."))
    except BaseException:  # a mutant may do anything, also leave
        return NOT_VIABLE
    try:
        files = [str(copied / "tests" / "pipelines" / f"{name}.py") for name in TESTS[module]]
        options = ["-x", "-p", "no:cacheprovider", "--basetemp", str(copied.parent / "tmp"), "--rootdir", str(copied)]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins that are warm
        return int(pytest.main([*options, *files], plugins=[Quick()]))
    except BaseException:  # the same: it was noticed
        return 1


def copy_of_the_tree(folder: Path) -> Path:
    """Copy the files that git knows or would know."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def warm_up(copied: Path, modules: list[str]) -> None:
    """Import what the tests import, and forget what is ours."""
    os.chdir(copied)
    os.environ["PYTHONPATH"] = sys.path[0] = str(copied)
    for name in ("pytest", "hypothesis", "tests.runs", "tests.conftest", *modules):
        importlib.import_module(name.replace("/", "."))
    for tests in {file for module in modules for file in TESTS[module]}:
        importlib.import_module(f"tests.pipelines.{tests.replace('/', '.')}")
    for name in [name for name in sys.modules if name.partition(".")[0] in PURE]:
        del sys.modules[name]
    gc.freeze()  # collections in the forks leave alone what they share


def judge(copied: Path, module: str, *, count: int, seed: int, only: str) -> None:
    """Print what becomes of the mutants of a module."""
    path = copied / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    sys.dont_write_bytecode = False
    began = time.monotonic()
    if outcome(copied, module, 600) != "survived":
        sys.exit(f"{module}: its tests fail without a change")
    limit = 10 + 5 * (time.monotonic() - began)
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):  # not to be taken for a mutant's
        compiled.unlink()
    plain, numbers = ast.unparse(ast.parse(source)), {"killed": 0, "survived": 0, "not viable": 0}
    for line, text, differs in mutants(source, count, seed):
        diff = about(plain, text)
        if only not in "\n".join(diff):
            continue
        path.write_text(text, encoding="utf-8")
        result = outcome(copied, module, limit) if differs else "not viable"
        numbers[result] += 1
        if result == "survived":
            print(f"survived: {module}.py:{line}", *diff, sep="\n    ", flush=True)
    path.write_text(source, encoding="utf-8")
    viable = numbers["killed"] + numbers["survived"]
    share = f"{100 * numbers['killed'] / viable:.0f} %" if viable else "none"
    took = time.monotonic() - began
    print(f"{module}: {viable + numbers['not viable']} made, {viable} viable, {share} killed; {numbers}, {took:.0f} s")


def main() -> None:
    """Read the command line and judge the modules in turn."""
    parser = argparse.ArgumentParser(description="Do the tests notice when the code is wrong?")
    parser.add_argument("modules", nargs="*", default=[*TESTS], metavar="module", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--count", type=int, default=60, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only mutants whose diff holds this text")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.modules if name not in TESTS]:
        parser.error(f"no tests are known of {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copied = copy_of_the_tree(Path(folder) / "tree")
        warm_up(copied, chosen.modules)
        for module in chosen.modules:
            judge(copied, module, count=chosen.count, seed=chosen.seed, only=chosen.only)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
