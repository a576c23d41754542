"""Tests have the same names whenever they are collected: workers that collect at other times agree on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TWICE = """
import time, pytest

class Names:
    def pytest_collection_finish(self, session):
        self.found = [item.nodeid for item in session.items]

runs = [Names(), Names()]
for names in runs:
    assert pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider"], [names]) == 0
    time.sleep(1.1)
first, second = ([*names.found] for names in runs)
print(len(first), [name for name in {*first} ^ {*second}], first == second)
"""


def test_names_do_not_depend_on_the_time():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    count, rest = done.stdout.strip().splitlines()[-1].split(" ", 1)
    assert int(count) > 1500 and rest == "[] True"
