"""Runs without model.onnx and without pictures in their reports, which take most of the time of a short one.

As a program: the command line with such runs and small baselines, in a process of its own.
"""

from __future__ import annotations

import sys

from pipelines.reports import plots, report
from pipelines.runs import finetune
from tests import small as small


def unexported(out, bundle, network, *_, **__):
    """What stands in for `agreement.write_graph`: the bundle alone; the model is asked in torch."""
    finetune.write_bundle(out, bundle)
    return finetune.predict_by(network)


def unrounded(*_, **__):
    """What stands in for `finetune.rounding`, which asks model.onnx."""
    return {}


def unrendered(draw, size, ink):
    """What stands in for `report._rendered`: figures are drawn, for light pages alone, and not made into pictures."""
    if ink == report.INKS["light"]:
        draw(plots.figure(*size), ink)
    return b""


def everywhere():
    """Let no run of this process have model.onnx, nor its report pictures."""
    finetune.write_graph, finetune.rounding, report._rendered = unexported, unrounded, unrendered


if __name__ == "__main__":
    from pipelines.cli.main import main

    everywhere()
    sys.exit(main())
