"""Baselines and their like, made small by importing this: what they are worth is tried in their own tests.

WHOLE holds what they are outside the tests.
"""

from __future__ import annotations

import sys

from models.baselines import fields, networks, pixels
from models.training import correction, statistics

SMALL = {
    pixels: {"PIXELS": 2000, "TREES": 10, "ROUNDS": 5, "LEAST_ROUNDS": 5},
    fields: {"ROUNDS": 5, "NUMBERS": 2_000_000},
    networks: {"EPOCHS": 1, "LEAST": 5},
    statistics: {"EPOCHS": 2, "LEAST": 20},
    correction: {"STEPS": 100},
}
WHOLE = {module: {name: getattr(module, name) for name in changes} for module, changes in SMALL.items()}
for _module, _changes in SMALL.items():
    for _name, _value in _changes.items():
        setattr(_module, _name, _value)

if __name__ == "__main__":  # the command line, in a process that is alike
    from pipelines.cli.main import main

    sys.exit(main())
