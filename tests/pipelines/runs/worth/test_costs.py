"""What a tile costs: area and energy by hand, and whose times are taken, by a clock of the test's own."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from models.runtime.export import example_inputs
from pipelines.runs.worth import costs
from pipelines.runs.worth.costs import area, measured, per_1000_km2, write


def test_energy_is_that_of_the_processor_by_area():
    """128 pixels of 30 m, a quarter of which are shared: 96 of them are 2.88 km, whose square is 8.2944 km2."""
    assert area(128, 30.0) == pytest.approx(8.2944)
    assert area(128, None) is None
    tiles = 1000 / 8.2944
    assert per_1000_km2(0.036, 8.2944) == pytest.approx([tiles * 0.036 * watts / 3600 for watts in (1, 2, 4)])


def test_the_least_time_counts_and_models_take_turns(monkeypatch):
    now, asked = [0.0], []
    spent = {"student": iter((9, 2, 1, 3, 4, 5)), "teacher": iter((9, 8, 7, 6, 7, 8))}  # the first call warms up

    def runtime(name):
        def run(inputs):
            asked.append(name)
            now[0] += next(spent[name]) / 10

        return SimpleNamespace(run=run)

    monkeypatch.setattr(costs.time, "process_time", lambda: now[0])
    found = measured({name: runtime(name) for name in spent}, {})
    assert found == {"student": pytest.approx(0.1), "teacher": pytest.approx(0.6)}
    assert asked == ["student", "teacher"] * 6


def test_slow_models_are_not_asked_again_and_again(monkeypatch):
    now = [0.0]
    calls = []

    def run(inputs):
        calls.append(1)
        now[0] += costs.LONG

    monkeypatch.setattr(costs.time, "process_time", lambda: now[0])
    assert measured({"student": SimpleNamespace(run=run)}, {}) == {"student": costs.LONG}
    assert len(calls) == 3


def test_every_precision_is_written_down(exported, tmp_path):
    network, run = exported["segmentation"]
    inputs = {name: x.numpy() for name, x in example_inputs(network.spec, batch=1).items()}
    threads = torch.get_num_threads()
    write(tmp_path, {"student": run}, inputs)
    assert torch.get_num_threads() == threads
    told = json.loads((tmp_path / costs.PAGE).read_text())
    assert told["of"] == "tile" and told["km2"] is None  # of pixels that have no size
    found = told["models"]["student"]
    assert {"f32", "bf16"} <= set(found) and "int8" not in found
    assert all(one["engine"] == f"OpenVINO CPU {precision}" for precision, one in found.items())
    assert all(one["wh_per_1000_km2"] is None for one in found.values())
