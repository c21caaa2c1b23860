"""The grammar of grounded answers: what it lets through and what not, for hostile documents too, and through vLLM."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from xgrammar import CompiledGrammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

from envs.grounded_grammar import grounded_grammar
from rewards.document import Document, read
from rewards.parse import Attempt, parse
from rewards.task import load_task, task_from_dict
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
        ({"vendor": "S.H.H. MOTOR SDN. BHD. 801580-T"}, True),  # without the marks around a word
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


def test_numbers_of_a_schema_are_numbers_and_an_enum_stays(compiler: GrammarCompiler) -> None:
    properties = {"votes": {"type": "integer"}, "share": {"type": "number"}, "kind": {"enum": ["for", "against"]}}
    task = task_from_dict(
        {
            "name": "votes",
            "prompt": "Extract.",
            "schema": {
                "type": "object",
                "properties": properties,
                "required": [*properties],
                "additionalProperties": False,
            },
            "fields": {
                "votes": {"kind": "count", "weight": 1},
                "share": {"kind": "number", "weight": 1},
                "kind": {"kind": "class", "weight": 1},
            },
            "rows": {},
            "relations": {},
            "plausible": {},
            "rubric": {"gates": {"parses": 0.0}, "rewards": {"grounded": 1}, "abstain": 0.25},
        }
    )
    grammar = compiler.compile_grammar(grounded_grammar(task, "For: 1,234 votes, 56.25"))
    good = {"votes": 1234, "share": 56.25, "kind": "for"}
    assert accepts(grammar, good)
    assert not accepts(grammar, good | {"votes": 1235})
    assert not accepts(grammar, good | {"votes": "1234"})
    assert not accepts(grammar, good | {"kind": "votes"})


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(), max_size=60))
@pytest.mark.parametrize("start", ["", "NÉ\x00 \ud800 \\n \"q\" {}[]|::= 'x' #"])
def test_any_document_makes_a_grammar(compiler: GrammarCompiler, start: str, text: str) -> None:
    grammar = compiler.compile_grammar(grounded_grammar(TASK, f"{start} {text}"))
    words = f"{start} {text}".encode("utf-8", "replace").decode().split()
    if words:
        answer = GOOD | {"vendor": " ".join(words), "date": None, "items": [], "total": None}
        assert accepts(grammar, answer)


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
    words = {word.strip('():,."') for word in TEXT.split()}
    numbers = {number.value for number in read(TEXT).numbers}
    for completion in whole:
        attempt = parse(completion)
        assert isinstance(attempt, Attempt), completion
        vendor = attempt.value["vendor"]
        assert vendor is None or {word.strip('():,."') for word in vendor.split()} <= words
        assert attempt.value["date"] in (None, "2018-04-03", "2018-03-04")
        total = attempt.value["total"]
        assert total is None or abs(Decimal(total)) in numbers
