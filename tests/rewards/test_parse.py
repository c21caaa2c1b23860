from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.parse import MAX_CHARACTERS, MAX_DEPTH, Attempt, ParseFault, parse

HOSTILE = {
    "": "empty",
    "   \n": "empty",
    "[]": "does not start with {",
    "null": "does not start with {",
    '```json\n{"a": 1}\n```': "does not start with {",
    'Here it is: {"a": 1}': "does not start with {",
    '{"a": 1} thanks': "text after the object",
    '{"a": 1}{"a": 1}': "text after the object",
    '{"a": NaN}': "NaN is not JSON",
    '{"a": -Infinity}': "-Infinity is not JSON",
    '{"a": 1e999}': "a number out of range",
    '{"a": 1, "a": 2}': "a key appears twice",
    '{"b": {"a": 1, "a": 1}}': "a key appears twice",
    '{"a": ' + "9" * 5000 + "}": "a number of more than 15 digits",
    '{"a": 0.' + "1" * 5000 + "}": "a number of more than 30 characters",
    '{"a": "\\ud800"}': "a lone surrogate",
    '{"\\udfff": 1}': "a lone surrogate",
    '{"a": "\ud800"}': "a lone surrogate",
    '{"a": "line\nbreak"}': "not valid JSON",
    "{'a': 1}": "not valid JSON",
    '{"a": 1,}': "not valid JSON",
    '{"a": tru': "not valid JSON",
    '{"a": 01}': "not valid JSON",
    '{"a": ١٢}': "not valid JSON",
    '\ufeff{"a": 1}': "does not start with {",
    '{"a":' * 5000: f"nested deeper than {MAX_DEPTH}",
    '{"a":' + "[" * 100_000: "more than 65536 characters",
    '{"a":' + "[" * 1000 + "]" * 1000 + "}": f"nested deeper than {MAX_DEPTH}",
    '{"a": "' + "x" * MAX_CHARACTERS + '"}': "more than 65536 characters",
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_completions_have_a_reason(text: str, reason: str) -> None:
    fault = parse(text)
    assert isinstance(fault, ParseFault)
    assert fault.reason == reason


def test_position_points_into_the_completion() -> None:
    fault = parse('  {"a": 1} x')
    assert isinstance(fault, ParseFault)
    assert fault.position == 11


def test_brackets_inside_strings_are_no_nesting() -> None:
    text = json.dumps({"a": "[{" * 500})
    assert parse(text) == Attempt({"a": "[{" * 500})


def test_emoji_as_a_surrogate_pair_is_text() -> None:
    assert parse('{"a": "\\ud83d\\ude00"}') == Attempt({"a": "😀"})


def test_white_space_around_is_allowed() -> None:
    assert parse(' \n{"a": [1, 2.5, "x", null, true]}\n') == Attempt({"a": [1, 2.5, "x", None, True]})


@pytest.mark.parametrize("bomb", ['{"a":"' + "\\" * 60_000, "{" * 60_000, '{"a":' + "[" * 60_000, '{"' + '"' * 60_000])
def test_bombs_take_at_most_50_ms(bomb: str) -> None:
    parse(bomb)
    start = time.process_time()
    assert isinstance(parse(bomb), ParseFault)
    assert time.process_time() - start < 0.05


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_never_raises(text: str) -> None:
    assert isinstance(parse(text), (Attempt, ParseFault))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(10**14), 10**14) | st.text()))
def test_valid_objects_come_back(value: dict[str, object]) -> None:
    found = parse(json.dumps(value, ensure_ascii=False))
    surrogates = any(
        "\ud800" <= c <= "\udfff" for text in (*value, *value.values()) if isinstance(text, str) for c in text
    )
    assert isinstance(found, ParseFault) if surrogates else found == Attempt(value)
