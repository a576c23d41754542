"""Answers: each on the disk, whatever ends the process; one person at a time."""

from __future__ import annotations

import json
import multiprocessing
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from pipelines.review.answers import Answer, alone, answer_of, open_answers

CODES, IDS = frozenset({10, 30}), frozenset({1, 2, 3})
HEADER = {"format": 1, "kind": "regions", "map": "a_map.tif", "hashes": {"map": "ff"}}
RING = ((0.0, 0.0), (1.5, 0.0), (0.0, 1.0))
ONE = st.builds(
    lambda n, said, drawn: (n, Answer(*said, ((30, RING),) * drawn)),
    st.sampled_from(sorted(IDS)),
    st.sampled_from([("agree", None), ("class", 10), ("class", 30), ("unsure", None), ("", None)]),
    st.integers(0, 2),
)


@settings(max_examples=30)
@given(st.lists(st.one_of(ONE, st.none()), max_size=8), st.integers(0, 60))
def test_what_was_taken_is_there_again_and_half_a_line_is_dropped(tmp_path_factory, steps, torn):
    path = tmp_path_factory.mktemp("a") / "r.ndjson"
    answers, states = open_answers(path, HEADER, CODES, IDS), [{}]
    for step in steps:
        if step is None:
            if answers.undo() is not None:
                states.pop()
        else:
            answers.take(*step)
            states.append(states[-1] | {step[0]: step[1]})
    said = {key: answer for key, answer in answers.said.items() if not answer.empty}
    assert said == {key: answer for key, answer in states[-1].items() if not answer.empty}
    with path.open("ab") as file:
        file.write(b'{"id": 1, "answer": "class", "label": 10, "polygons": [], "at": "2026-01-01T00:00"'[:torn])
    again = open_answers(path, HEADER, CODES, IDS)
    assert {k: a for k, a in again.said.items() if not a.empty} == said and len(again.past) == len(answers.past)
    again.take(1, Answer("unsure"))
    assert open_answers(path, HEADER, CODES, IDS).said[1] == Answer("unsure")


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"answer": "maybe"},
        {"answer": "class", "label": 11},
        {"answer": "class", "label": True},
        {"answer": "class", "label": float("nan")},
        {"answer": "agree", "label": 10},
        {"answer": "", "polygons": [{"label": 10, "ring": [[0, 0], [1, 1]]}]},
        {"answer": "", "polygons": [{"label": 10, "ring": [[0, 0], [1, 1], [0, "1"]]}]},
        {"answer": "", "polygons": [7]},
        {"answer": "", "polygons": [{"label": 10, "ring": [[0, 0], [1, 1], [0, float("inf")]]}]},
    ],
)
def test_what_is_no_answer_is_refused(said):
    with pytest.raises(ValueError):
        answer_of(said, CODES)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", "line 2"),
        ('{"id": 9, "answer": "agree"}', "id 9"),
        ('{"id": 1, "answer": "class", "label": 7}', "no such class"),
    ],
)
def test_a_broken_line_is_named_and_nothing_lost(tmp_path, line, told):
    path = tmp_path / "r.ndjson"
    path.write_text(f"{json.dumps(HEADER)}\n{line}\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match=told):
        open_answers(path, HEADER, CODES, IDS)
    assert path.read_bytes() == before


def test_another_map_is_refused(tmp_path):
    open_answers(tmp_path / "r.ndjson", HEADER, CODES, IDS)
    with pytest.raises(InputError, match="another hashes.*has changed since"):
        open_answers(tmp_path / "r.ndjson", HEADER | {"hashes": {"map": "00"}}, CODES, IDS)
    (tmp_path / "x.ndjson").write_text("hello\n")
    with pytest.raises(InputError, match="first line"):
        open_answers(tmp_path / "x.ndjson", HEADER, CODES, IDS)


def _hold(path, ready, leave):
    with alone(path):
        ready.set()
        leave.wait(10)


def test_two_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "r.lock", ready, leave))
    other.start()
    assert ready.wait(10)
    with pytest.raises(InputError, match=f"process {other.pid} is at this review"), alone(tmp_path / "r.lock"):
        pass
    os.kill(other.pid, 9)
    other.join()
    with alone(tmp_path / "r.lock"):  # what a killed process held is free
        pass
    assert not (tmp_path / "r.lock").exists()
