"""The grammar of grounded answers: what it lets through and what not, for hostile documents too, and through vLLM."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from xgrammar import CompiledGrammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

from envs.grounded_grammar import grounded_grammar
from rewards.document import Document, read
from rewards.errors import ConfigError
from rewards.parse import Attempt, parse
from rewards.task import Task, load_task, task_from_dict
from rl.constraint import constraint
from rl.sampler import Sampler
from tests.rl.test_sampler import sampler_config

TASK = load_task("receipt")
TEXT = 'TAN "CHAY"\nS.H.H. MOTOR SDN. BHD. (801580-T)\nDATE: 03/04/2018\nBRAKE PAD   1  12.50\nTOTAL RM 12.50\n'
GOOD = {
    "vendor": "S.H.H. MOTOR SDN. BHD.",
    "date": "2018-04-03",
    "items": [{"name": "BRAKE PAD", "amount": "12.50"}],
    "tax": None,
    "rounding": None,
    "total": "12.50",
}


@pytest.fixture(scope="module")
def compiler(tiny_model_dir: Path) -> GrammarCompiler:
    return GrammarCompiler(TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(tiny_model_dir)))


def accepts(grammar: CompiledGrammar, answer: object) -> bool:
    matcher = GrammarMatcher(grammar, terminate_without_stop_token=True)
    return bool(matcher.accept_string(json.dumps(answer, ensure_ascii=False))) and matcher.is_terminated()


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"vendor": 'TAN "CHAY" S.H.H. MOTOR'}, True),  # over a line's end
        ({"vendor": "S.H.H. MOTOR SDN. BHD. 801580-T"}, True),  # without the marks beside white space
        ({"vendor": "S.H.H"}, True),  # a part of what is printed in one
        ({"vendor": None, "date": None, "total": None}, True),
        ({"date": "2018-03-04"}, True),  # the other reading
        ({"total": "-12.50"}, True),
        ({"vendor": "S.H.H. MOTOR BHD."}, False),  # a word left out
        ({"vendor": "S.H.H. MOTORS SDN. BHD."}, False),
        ({"vendor": ""}, False),
        ({"date": "2018-04-30"}, False),
        ({"total": "12.05"}, False),
        ({"items": [{"name": "BRAKE PADS", "amount": "12.50"}]}, False),
        ({"items": [{"name": "BRAKE PAD", "amount": "12.5"}]}, False),  # not as the schema has it
        ({"surprise": "TOTAL"}, False),
    ],
)
def test_an_answer_says_what_the_receipt_prints(
    compiler: GrammarCompiler, changes: dict[str, object], allowed: bool
) -> None:
    grammar = compiler.compile_grammar(grounded_grammar(TASK, TEXT))
    assert accepts(grammar, GOOD | changes) is allowed


def task_with(properties: dict[str, Any], kinds: dict[str, str]) -> Task:
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return task_from_dict(
        {
            **{"name": "votes", "prompt": "Extract.", "schema": schema, "relations": {}, "plausible": {}},
            "fields": {name: {"kind": kind, "weight": 1} for name, kind in kinds.items()},
            "rubric": {"gates": {"parses": 0.0}, "rewards": {"grounded": 1}, "abstain": 0.25},
        }
    )


def test_numbers_of_a_schema_are_numbers_and_an_enum_stays(compiler: GrammarCompiler) -> None:
    properties = {"votes": {"type": "integer"}, "share": {"type": "number"}, "kind": {"enum": ["for", "against"]}}
    task = task_with(properties, {"votes": "count", "share": "number", "kind": "class"})
    grammar = compiler.compile_grammar(grounded_grammar(task, f"For: 1,234 votes, 19.99 {'9' * 400}"))
    good = {"votes": 1234, "share": 19.99, "kind": "for"}
    assert accepts(grammar, good)
    assert accepts(grammar, good | {"share": -1234})
    assert not accepts(grammar, good | {"votes": 1235})
    assert not accepts(grammar, good | {"votes": "1234"})
    assert not accepts(grammar, good | {"kind": "votes"})


def test_leaves_that_share_an_object_or_name_null_otherwise(compiler: GrammarCompiler) -> None:
    shared = {"type": ["string", "null"]}
    maybe = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    code = {"type": "string", "pattern": "^[A-Z]+[0-9]+$"}
    properties = {"vendor": shared, "total": shared, "buyer": maybe, "number": code}
    task = task_with(properties, {"vendor": "text", "total": "money", "buyer": "text", "number": "code"})
    grammar = compiler.compile_grammar(grounded_grammar(task, "ACME LTD\nInvoice No:INV1234\nTOTAL 9.00"))
    good = {"vendor": "ACME LTD", "total": "9.00", "buyer": None, "number": "INV1234"}
    assert accepts(grammar, good)
    assert accepts(grammar, good | {"vendor": None, "total": None, "buyer": "ACME"})
    assert not accepts(grammar, good | {"total": "ACME"})
    assert not accepts(grammar, good | {"vendor": "9.01"})
    assert not accepts(grammar, good | {"number": "TOTAL"})  # printed, but no such code


def test_a_schema_that_cannot_be_a_grammar_is_named() -> None:
    properties = {"votes": {"type": "integer", "minimum": 5, "maximum": 1}}
    with pytest.raises(ConfigError, match="structured=grounded: xgrammar refuses the schema of votes"):
        grounded_grammar(task_with(properties, {"votes": "count"}), "nothing")


def test_texts_of_a_very_long_document_are_free(compiler: GrammarCompiler) -> None:
    task = task_with({"vendor": {"type": "string"}}, {"vendor": "text"})
    assert not accepts(compiler.compile_grammar(grounded_grammar(task, "a b")), {"vendor": "c"})
    assert accepts(compiler.compile_grammar(grounded_grammar(task, "a b " * 3_000)), {"vendor": "c"})


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(), max_size=60))
@pytest.mark.parametrize("start", ["", "NÉ\x00 \ud800 \\n \"q\" {}[]|::= 'x' #"])
def test_any_document_makes_a_grammar(compiler: GrammarCompiler, start: str, text: str) -> None:
    grammar = compiler.compile_grammar(grounded_grammar(TASK, f"{start} {text}"))
    printed = " ".join(f"{start} {text}".encode("utf-8", "replace").decode().split())
    if printed:
        assert accepts(grammar, GOOD | {"vendor": printed, "date": None, "items": [], "total": None})


@pytest.mark.slow
def test_a_random_policy_can_only_copy(tiny_model_dir: Path) -> None:
    document = Document("r", TEXT, "g", None)
    sampler = Sampler(
        tiny_model_dir,
        sampler_config(structured="grounded", max_tokens=200),
        max_model_len=512,
        dtype="float32",
        threads=1,
        constraint=constraint("grounded", TASK, [document]),
    )
    try:
        group = sampler.rollout([("r", [5, 6, 7])], 6, run_seed=0, step=0)[0]
    finally:
        sampler.close()
    whole = [r.text for r in group.rollouts if r.finish_reason == "stop"]
    assert whole, "a random policy ends some of its answers, where the grammar leaves it no choice"
    printed = {*re.findall(r"\w+|[^\w\s]", TEXT)}
    numbers = {number.value for number in read(TEXT).numbers}
    for completion in whole:
        attempt = parse(completion)
        assert isinstance(attempt, Attempt), completion
        vendor = attempt.value["vendor"]
        assert vendor is None or {*re.findall(r"\w+|[^\w\s]", vendor)} <= printed
        assert attempt.value["date"] in (None, "2018-04-03", "2018-03-04")
        total = attempt.value["total"]
        assert total is None or abs(Decimal(total)) in numbers
