"""Tests have the same names whenever they are collected: workers that collect at other times agree on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LATER = """
import pytest

class Names:
    def pytest_collection_finish(self, session):
        self.found = [item.nodeid for item in session.items]

names = Names()
assert pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider"], [names]) == 0
print("names:", *names.found, sep="\\0", end="")
"""


def test_names_do_not_depend_on_the_time(request):
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    now = {item.nodeid for item in request.session.items}
    later = {*done.stdout.partition("names:\0")[2].split("\0")}
    assert now and not now - later
