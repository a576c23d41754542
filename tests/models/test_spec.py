import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import EarthtuneError, InputError, RunError
from models.spec import TASKS, ClassDef, Spec, Target

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
numbers = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def specs(draw):
    task = draw(st.sampled_from(TASKS))
    bands = tuple(draw(st.lists(words, min_size=1, max_size=5, unique=True)))
    codes = draw(st.lists(st.integers(0, 65535), min_size=2, max_size=6, unique=True))
    patch = draw(st.integers(1, 20))
    return Spec(
        task,
        bands,
        tuple(draw(numbers) for _ in bands),
        tuple(draw(numbers) for _ in bands),
        frames=draw(st.integers(1, 4)),
        tile=patch * draw(st.integers(1, 9)),
        patch=patch,
        classes=() if task == "regression" else tuple(ClassDef(c, draw(words), "#00aaFF") for c in codes),
        target=Target(draw(words), draw(words)) if task == "regression" else None,
        uses_time=draw(st.booleans()),
        uses_location=draw(st.booleans()),
        unit=draw(words),
        pixel=draw(st.none() | st.floats(1e-3, 1e6)),
        calibration=draw(st.dictionaries(words, numbers, max_size=2)),
    )


@given(specs())
def test_a_spec_survives_json(spec):
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_bundle_from_before_pixels_had_a_size_is_read(make_spec):
    fields = make_spec(pixel=30.0).to_json()
    assert fields.pop("pixel") == 30.0
    assert Spec.from_json(fields).pixel is None


@given(specs())
def test_there_is_one_output_a_class_or_one_for_values(spec):
    assert spec.outputs == (1 if spec.task == "regression" else len(spec.codes))


def test_a_colour_in_numbers():
    assert ClassDef(3, "x", "#0a80Ff").rgb == (10, 128, 255)


def test_regression_has_a_target_even_if_none_is_named(make_spec):
    assert make_spec("regression").target == Target("value", "")


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("detection", {}, "task 'detection': wanted one of segmentation, regression, classification"),
        ("segmentation", {"bands": ("RED",)}, "1 bands, 3 means, 3 stds"),
        ("segmentation", {"bands": (), "mean": (), "std": ()}, "0 bands"),
        ("segmentation", {"bands": ("RED", "RED", "NIR")}, "a band is named twice"),
        ("segmentation", {"tile": 40}, "tile 40 must be a multiple of patch 16"),
        ("segmentation", {"frames": 0}, r"frames \(0\) at least 1"),
        ("segmentation", {"classes": ()}, "at least two classes, 0 given"),
        ("classification", {"classes": (ClassDef(1, "a", "#000000"),)}, "at least two classes, 1 given"),
        ("segmentation", {"classes": (ClassDef(1, "a", "#000000"),) * 2}, "a code is given twice"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(make_spec, task, changes, words):
    with pytest.raises(InputError, match=words):
        make_spec(task, **changes)


@pytest.mark.parametrize("code", [-1, 65536])
def test_codes_that_no_map_holds_are_refused(code):
    with pytest.raises(InputError, match=f"class code {code}"):
        ClassDef(code, "a", "#000000")


@pytest.mark.parametrize("colour", ["red", "#00000", "#0000000", "#00000g", "#000000\n", ""])
def test_colours_that_are_none_are_refused(colour):
    with pytest.raises(InputError, match="is not #rrggbb"):
        ClassDef(1, "a", colour)


@pytest.mark.parametrize("change", [{"task": None}, {"hidden": 1}, {"classes": [{"code": 1}]}, {"bands": 3}])
def test_what_is_no_spec_is_refused(make_spec, change):
    data = make_spec().to_json() | change
    with pytest.raises(InputError, match=r"not a model Spec|task None"):
        Spec.from_json(data)


def test_exit_codes_tell_mistakes_from_failures():
    assert (InputError("x").exit_code, RunError("x").exit_code) == (2, 1)
    assert issubclass(InputError, EarthtuneError) and issubclass(RunError, EarthtuneError)
