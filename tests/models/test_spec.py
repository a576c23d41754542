import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import EarthtuneError, InputError, RunError
from models.spec import Cells, ClassDef, Classes, Pixels, Quantiles, Spec, Values
from tests.specs import fine_spec, rain_spec

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
sizes = st.floats(1e-3, 1e6)
leads = st.lists(st.floats(0, 24), min_size=1, max_size=3).map(tuple)
names = st.lists(words, min_size=1, max_size=5, unique=True).map(tuple)


def some(what, count):
    return st.tuples(*[what] * count)


@st.composite
def pixels(draw):
    bands, patch = draw(names), draw(st.integers(1, 20))
    return Pixels(
        bands,
        draw(some(numbers, len(bands))),
        draw(some(numbers, len(bands))),
        times=draw(st.integers(1, 4)),
        tile=patch * draw(st.integers(1, 9)),
        patch=patch,
        uses_time=draw(st.booleans()),
        uses_location=draw(st.booleans()),
        unit=draw(words),
        pixel=draw(st.none() | sizes),
    )


@st.composite
def weather(draw):
    fields = draw(names)
    return Cells(
        fields,
        draw(some(st.just("") | words, len(fields))),
        draw(some(numbers, len(fields))),
        draw(some(numbers, len(fields))),
        times=draw(st.integers(1, 4)),
        step=draw(sizes),
        position=draw(st.booleans()),
        size=draw(st.just(()) | some(sizes, 2)),
        elevation=draw(st.just(()) | some(sizes, 3)),
    )


@st.composite
def answers(draw, channels=()):
    """A name and an answer; one on finer cells is of one of the channels."""
    codes = draw(st.lists(st.integers(0, 65535), min_size=2, max_size=6, unique=True))
    told = {"unit": draw(words), "leads": draw(leads), "scale": draw(sizes)}
    kinds = {
        "classes": lambda: Classes(tuple(ClassDef(c, draw(words), "#00aaFF") for c in codes), draw(support)),
        "values": lambda: Values(draw(words), window=draw(some(numbers, 2)), positive=draw(st.booleans()), **told),
        "quantiles": lambda: Quantiles(
            draw(words),
            levels=tuple(sorted(draw(st.sets(st.floats(0.01, 0.99), min_size=2, max_size=9)))),
            thresholds=tuple(draw(st.lists(st.floats(0, 99), max_size=3))),
            window=(-1.5, draw(st.floats(0, 9))),
            **told,
        ),
    }
    support = st.sampled_from(["pixel", "tile"])
    if channels:
        finer = {"support": "cell", "factor": draw(st.integers(1, 16)), "conserve": draw(st.booleans())}
        kinds["finer"] = lambda: Values(draw(st.sampled_from(channels)), **finer, **told)
    return draw(words), kinds[draw(st.sampled_from(sorted(kinds)))]()


@st.composite
def specs(draw):
    inputs = draw(
        st.fixed_dictionaries({"imagery": pixels()}, optional={"weather": weather()})
        | st.fixed_dictionaries({"weather": weather()})
    )
    channels = inputs["weather"].channels if "weather" in inputs else ()
    return Spec(draw(words), inputs, dict(draw(st.lists(answers(channels), min_size=1, max_size=2))))


@given(specs())
def test_a_spec_survives_json(spec):
    again = Spec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert (list(again.inputs), list(again.answers)) == (list(spec.inputs), list(spec.answers))


def test_a_bundle_from_before_pixels_had_a_size_is_read(make_spec):
    fields = make_spec(pixel=30.0).to_json()
    assert fields["inputs"]["imagery"].pop("pixel") == 30.0
    assert Spec.from_json(fields).imagery.pixel is None


@given(specs())
def test_there_is_one_output_a_class_or_a_level_or_one_for_values(spec):
    wanted = {"classes": len(spec.answer.codes), "quantiles": len(getattr(spec.answer, "levels", ())), "values": 1}
    assert spec.answer.channels == wanted[spec.answer.kind]


RAIN = rain_spec(("TQV", "T2M"), ("kg m-2", "K"), (20.0, 280.0), (8.0, 9.0))
FINE = fine_spec(("T2M",), ("K",), (280.0,), (9.0,), target="T2M")


def test_inputs_and_answers_are_found_by_what_they_are(make_spec):
    scene = make_spec()
    assert scene.imagery is scene.inputs["imagery"] and RAIN.weather is RAIN.inputs["weather"]
    assert (RAIN.answer, RAIN.field) == (RAIN.answers["rain"],) * 2
    with pytest.raises(InputError, match="task rain: the model takes weather, not imagery"):
        RAIN.imagery  # noqa: B018
    with pytest.raises(InputError, match="task segmentation: the model takes imagery, not weather"):
        scene.weather  # noqa: B018
    with pytest.raises(InputError, match="task segmentation: tells classes, wanted a quantity"):
        scene.field  # noqa: B018


def test_a_revised_spec_differs_in_what_was_asked_for_only():
    revised = RAIN.revised(answer={"scale": 2.0}, position=False)
    assert (revised.field.scale, revised.weather.position) == (2.0, False)
    assert revised.revised(answer={"scale": RAIN.field.scale}, position=True) == RAIN != revised
    two = Spec("rain", {**RAIN.inputs, "more": FINE.weather}, {**RAIN.answers, **FINE.answers})
    assert two.revised(position=False).inputs["more"] == FINE.weather
    assert two.revised(answer={"scale": 2.0}).answers["T2M"] == FINE.answer


def test_a_colour_in_numbers():
    assert ClassDef(3, "x", "#0a80Ff").rgb == (10, 128, 255)


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("segmentation", {"bands": ("RED",)}, "1 bands, 3 and 3 means, deviations"),
        ("segmentation", {"bands": (), "mean": (), "std": ()}, "0 bands"),
        ("segmentation", {"bands": ("RED", "RED", "NIR")}, "bands RED, RED, NIR: one is named twice"),
        ("segmentation", {"tile": 40}, "tile 40 must be a multiple of patch 16"),
        ("segmentation", {"tile": 8208}, "tile 8208 must be .* at most 8192"),
        ("segmentation", {"frames": 0}, r"frames \(0\) at least 1"),
        ("segmentation", {"pixel": 0.0}, "pixel 0.0: wanted metres, above 0"),
        ("segmentation", {"classes": ()}, "at least two classes, 0 given"),
        ("classification", {"classes": (ClassDef(1, "a", "#000000"),)}, "at least two classes, 1 given"),
        ("segmentation", {"classes": (ClassDef(1, "a", "#000000"),) * 2}, "a code is given twice"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(make_spec, task, changes, words):
    with pytest.raises(InputError, match=words):
        make_spec(task, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": ("K",)}, "2 variables, 2 and 2 and 1 means, deviations, units"),
        ({"channels": ("TQV", "TQV")}, "variables TQV, TQV: one is named twice"),
        ({"times": 2}, "times 2, step 0.0 h: wanted 1 time or more, and a step above 0"),
        ({"size": (0.5,)}, "wanted a height and a width above 0"),
        ({"size": (0.5, 0.0)}, "wanted a height and a width above 0"),
        ({"answer": {"leads": (30.0,)}}, "wanted hours from 0 to 24"),
        ({"answer": {"leads": ()}}, "wanted hours from 0 to 24"),
        ({"answer": {"window": (1.0, 1.0)}}, "wanted hours that rise"),
        ({"answer": {"levels": (0.5, 0.4)}}, "wanted two or more that rise inside 0..1"),
        ({"answer": {"thresholds": (-0.1,)}}, "wanted 0 mm/h or more"),
        ({"answer": {"support": "pixel"}}, "support 'pixel': wanted cell"),
    ],
)
def test_a_contract_of_weather_that_cannot_be_kept_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        RAIN.revised(**changes)


@pytest.mark.parametrize("part", ["inputs", "answers"])
def test_a_model_that_eats_or_says_nothing_is_refused(make_spec, part):
    with pytest.raises(InputError, match="wanted an input and an answer at least"):
        Spec.from_json(make_spec().to_json() | {part: {}})


@pytest.mark.parametrize("code", [-1, 65536])
def test_codes_that_no_map_holds_are_refused(code):
    with pytest.raises(InputError, match=f"class code {code}"):
        ClassDef(code, "a", "#000000")


@pytest.mark.parametrize("colour", ["red", "#00000", "#0000000", "#00000g", "#000000\n", ""])
def test_colours_that_are_none_are_refused(colour):
    with pytest.raises(InputError, match="is not #rrggbb"):
        ClassDef(1, "a", colour)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": None}, "task: wanted text, came nothing"),
        ({"inputs": []}, "not a model Spec"),
        ({"inputs": {"imagery": {"channels": []}}}, "not a model Spec: 'kind'"),
        ({"inputs": {"imagery": {"kind": "classes"}}}, "imagery: kind 'classes', wanted pixels, cells"),
        ({"answers": {"class": {"kind": "cells"}}}, "class: kind 'cells', wanted classes, values, quantiles"),
        (
            {"answers": {"class": {"kind": "classes", "classes": [{"code": 1}]}}},
            r"classes\[0\].name: is wanted",
        ),
        ({"answers": {"class": {"kind": "classes", "hidden": 1}}}, "class.hidden: no such key"),
    ],
)
def test_what_is_no_spec_is_refused(make_spec, change, words):
    with pytest.raises(InputError, match=words):
        Spec.from_json(make_spec().to_json() | change)


def test_exit_codes_tell_mistakes_from_failures():
    assert (InputError("x").exit_code, RunError("x").exit_code) == (2, 1)
    assert issubclass(InputError, EarthtuneError) and issubclass(RunError, EarthtuneError)
