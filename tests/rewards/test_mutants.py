"""Known-worse edits and wholesale hacks: that they are what they say, and that the rubric sees them."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.synthetic import documents
from rewards.document import Document
from rewards.fields import compare
from rewards.hacks import HACKS, complete, hacks
from rewards.mutate import EQUAL, KINDS, UNSEEN, equals, mutants
from rewards.mutate_shared import get, put
from rewards.rubric import Rubric
from rewards.task import Task, load_task

NAMES = ("receipt", "invoice")
TASKS = {name: load_task(name) for name in NAMES}
RUBRICS = {name: Rubric(task) for name, task in TASKS.items()}
PAGES = {name: documents(name, 12, 4_321) for name in NAMES}


def _gold(task: Task, document: Document) -> dict[str, object]:
    value: dict[str, object] = json.loads(task.canonical(document.gold or {}))
    return value


@pytest.mark.parametrize("name", NAMES)
def test_a_mutant_is_wrong_and_another_answer(name: str) -> None:
    task = TASKS[name]
    kinds = set()
    for document in PAGES[name][:8]:
        gold = _gold(task, document)
        for mutant in mutants(task, document):
            kinds.add(mutant.kind)
            assert mutant.value != gold, mutant
            assert mutant.kind in UNSEEN or not compare(task, mutant.value, gold).document_exact, mutant
            assert json.loads(mutant.completion) == json.loads(task.canonical(mutant.value))
    assert len(kinds) >= 30
    assert kinds <= set(KINDS)


def test_the_same_seed_makes_the_same_mutants() -> None:
    task, document = TASKS["receipt"], PAGES["receipt"][0]
    assert list(mutants(task, document)) == list(mutants(task, document))
    assert list(mutants(task, document, 1)) != list(mutants(task, document, 2))
    assert list(mutants(task, Document("x", document.text, "g", None))) == []


def test_a_printed_tax_that_gold_leaves_out_is_no_invention() -> None:
    """6 % of 53.00 contain 3.00, which the page prints as its tax; its other amounts would be invented."""
    task, gold = TASKS["receipt"], {"vendor": "A SHOP", "date": None, "tax": None, "rounding": None, "total": "53.00"}
    gold["items"] = [{"name": "RICE", "amount": "53.00"}]
    for text, taxes in (
        ("A SHOP\nRICE 53.00\nTOTAL 53.00\nGST 6% 3.00\nCASH 60.00", {"53.00", "60.00"}),
        ("A SHOP\nRICE 53.00\nTOTAL 53.00\nPOINTS 6% 3.00\nCASH 60.00", {"53.00", "60.00", "3.00"}),
    ):
        page = Document("x", text, "g", gold)
        made = [m for seed in range(40) for m in mutants(task, page, seed) if m.kind == "invented_from_page"]
        assert {m.value["tax"] for m in made if m.path == "tax"} == taxes


@pytest.mark.parametrize("name", NAMES)
def test_mutants_score_below_gold_and_equals_score_the_same(name: str) -> None:
    task, rubric = TASKS[name], RUBRICS[name]
    made = killed = 0
    for document in PAGES[name]:
        worse, same = list(mutants(task, document)), list(equals(task, document))
        assert [one.kind for one in same] == list(EQUAL)
        completions = [task.canonical(document.gold or {}), *(one.completion for one in (*worse, *same))]
        gold, *scores = rubric.score_group(document, completions)
        assert gold.total == 1.0
        made += len(worse)
        killed += sum(score.total < 1.0 for score in scores[: len(worse)])
        assert {score.total for score in scores[len(worse) :]} == {1.0}
    assert killed >= 0.98 * made, (killed, made)


@pytest.mark.parametrize("name", NAMES)
def test_hacks_score_below_half_of_gold(name: str) -> None:
    task, rubric = TASKS[name], RUBRICS[name]
    seen = set()
    for document in PAGES[name]:
        assert complete(task, document)
        found = hacks(task, document, PAGES[name])
        seen |= set(found)
        for hack, score in zip(found, rubric.score_group(document, list(found.values())), strict=True):
            assert score.total < 0.5, (hack, document.id, score.total)
    assert seen == set(HACKS)


def test_gold_that_lacks_a_key_is_not_complete() -> None:
    task, document = TASKS["receipt"], PAGES["receipt"][0]
    gold = dict(document.gold or {})
    del gold["items"]
    assert not complete(task, Document("x", document.text, "g", gold))
    assert not complete(task, Document("x", document.text, "g", None))


# --- invariants of the rubric -------------------------------------------------------------------------------------

SCALARS = ("vendor", "date", "tax", "rounding", "total")


@settings(max_examples=25, deadline=None)
@given(page=st.integers(0, 11), seed=st.integers(0, 2**20), broken=st.integers(1, 4))
def test_putting_one_field_right_never_lowers_the_score(page: int, seed: int, broken: int) -> None:
    """From gold with some scalars wrong or null and some rows' names wrong, one is put right again."""
    task, rubric, document, rng = TASKS["receipt"], RUBRICS["receipt"], PAGES["receipt"][page], Random(seed)
    gold = _gold(task, document)
    wrong = {"vendor": "WRONG NAME", "date": "1999-01-01", "tax": "77.77", "rounding": "0.77", "total": "7777.77"}
    value = gold
    changed = rng.sample(SCALARS, broken)
    for path in changed:
        value = put(value, path, rng.choice([None, wrong[path]]))
    items = [dict(row) for row in gold["items"]]  # type: ignore[attr-defined]
    if rng.random() < 0.5:
        rng.choice(items)["name"] = "WRONG THING"
    value = put(value, "items", items)
    before = rubric.score(document, task.canonical(value)).total
    for path in changed:
        better = put(value, path, get(gold, path))
        after = rubric.score(document, task.canonical(better)).total
        assert after >= before - 1e-12, (path, value, before, after)
    better = put(value, "items", gold["items"])
    assert rubric.score(document, task.canonical(better)).total >= before - 1e-12


@settings(max_examples=25, deadline=None)
@given(page=st.integers(0, 11), seed=st.integers(0, 2**20), name=st.sampled_from(NAMES))
def test_bounds_order_and_repetition(page: int, seed: int, name: str) -> None:
    """Of any wrong answer too: the score lies in [0, 1], is the same again, and in another order of rows and keys."""
    task, rubric, document, rng = TASKS[name], RUBRICS[name], PAGES[name][page], Random(seed)
    mutant = rng.choice(list(mutants(task, document, seed % 3)))
    value = json.loads(mutant.completion)
    first = rubric.score(document, mutant.completion)
    assert 0.0 <= first.total <= 1.0
    assert all(part is None or 0.0 <= part <= 1.0 for part in first.parts.values())
    for array in (key for key, given_ in value.items() if isinstance(given_, list)):
        rng.shuffle(value[array])
    keys = list(value)
    rng.shuffle(keys)
    shuffled = json.dumps({key: value[key] for key in keys}, indent=rng.choice([None, 2]))
    again, other = rubric.score_group(document, [mutant.completion, shuffled])
    assert again == first
    assert other.total == pytest.approx(first.total, abs=1e-12)
