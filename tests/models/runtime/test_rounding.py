"""What reduced precision changes, against answers made up and computed by hand."""

import numpy as np
import pytest

from models.bundle import Bundle, read_bundle
from models.runtime import engines
from models.runtime import rounding as module
from models.runtime.engines import Runtime
from models.runtime.rounding import rounding
from models.training.settings import Architecture


def told(monkeypatch, answer, exact, came):
    monkeypatch.setattr(module, "multiplies_bytes", lambda: False)
    monkeypatch.setattr(
        module,
        "load_runtimes",
        lambda folders, *, precision, **_: Runtime(lambda inputs: [came], 1, 1, f"a {precision}"),
    )
    return rounding(None, answer, {"imagery": np.zeros((len(exact), 1))}, exact=lambda inputs: exact)


def test_classes_that_change_are_counted(make_spec, monkeypatch):
    exact = np.zeros((2, 3, 10, 10), np.float32)
    exact[:, 0] = 0.6
    exact[:, 1] = 0.4
    came = exact.copy()
    came[0, :2, :5, 0] = [[0.4], [0.6]]  # 5 of 200 pixels turn over, by 0.2
    known = told(monkeypatch, make_spec("segmentation").answer, exact, came)
    assert set(known) == {"bf16"}
    assert known["bf16"] == {"equal": 0.975, "difference": pytest.approx(0.2, abs=1e-6), "samples": 2}


def test_one_pixel_in_two_thousand_does_not_decide(make_spec, monkeypatch):
    exact = np.zeros((1, 3, 50, 40), np.float32)
    came = exact.copy()
    came[0, 0, 0, 0] = 0.9
    assert told(monkeypatch, make_spec("segmentation").answer, exact, came)["bf16"]["difference"] == 0


def test_values_differ_in_their_own_deviations(make_spec, monkeypatch):
    exact = np.arange(400, dtype=np.float32).reshape(1, 1, 20, 20)
    known = told(monkeypatch, make_spec("regression").answer, exact, exact + 2)
    assert known["bf16"] == {"difference": pytest.approx(2 / exact.std(), rel=1e-4), "samples": 1}


def test_nothing_is_told_of_a_precision_that_changes_no_layer(make_spec, monkeypatch, exported):
    from tests.models.runtime.test_engines import inputs_of

    network, folder = exported["segmentation"]
    monkeypatch.setattr(module, "multiplies_bytes", lambda: True)
    monkeypatch.setattr(engines, "multiplies_bytes", lambda: True)
    exact = engines.load_runtime(folder, runtime="openvino", precision="f32")
    assert set(rounding(folder, network.spec.answer, inputs_of(network), exact=exact)) == {"bf16"}


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({}, False),
        ({"equal": 0.99, "difference": 0.02}, True),
        ({"equal": 0.989, "difference": 0.001}, False),
        ({"equal": 1.0, "difference": 0.021}, False),
        ({"difference": 0.02}, True),
    ],
)
def test_what_a_bundle_bears(make_spec, known, wanted):
    bundle = Bundle(make_spec("segmentation"), "prithvi_eo_v2_tiny_tl", Architecture(), rounding={"i8": known})
    assert bundle.bears("i8") == wanted
    assert not bundle.bears("bf16")


def test_a_trained_run_knows_how_it_bears_half_precision(run):
    known = read_bundle(run).rounding["bf16"]
    assert known["equal"] >= 0.99
    assert 0 <= known["difference"] < 0.02
    assert known["samples"] >= 1
    assert "of the pixels keep their class" in (run / "report.html").read_text(encoding="utf-8")
